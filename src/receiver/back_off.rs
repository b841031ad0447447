//! Pauses between attempts to connect.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

/// The first pause; it doubles with each further attempt up to
const PAUSE_MIN: Duration = Duration::from_millis(500);
/// this one. Commits may be waiting for us: PostgreSQL's own receiver tries every 5 s.
const PAUSE_MAX: Duration = Duration::from_secs(10);

/// A connection that lasted as long as this was a good one.
const GOOD_CONNECTION: Duration = Duration::from_secs(10);

/// How often in a row an attempt has failed.
#[derive(Debug, Default)]
pub(super) struct BackOff {
    failures: u32,
}

impl BackOff {
    /// The pause after one more failure, of a connection that WAL came over for so long. Half of it
    /// is left to chance, so that the receivers of many servers do not come all at once.
    pub(super) fn pause(&mut self, streamed_for: Duration) -> Duration {
        if streamed_for >= GOOD_CONNECTION {
            self.failures = 0;
        }
        let factor = 1_u32.checked_shl(self.failures).unwrap_or(u32::MAX);
        self.failures = self.failures.saturating_add(1);
        let longest = PAUSE_MIN.saturating_mul(factor).min(PAUSE_MAX);
        longest.mul_f64(0.5 + 0.5 * chance())
    }
}

/// Any number from 0 to 1. The keys of hash tables are the standard library's only source of chance.
fn chance() -> f64 {
    let random = RandomState::new().hash_one(());
    f64::from(u32::try_from(random >> 32).unwrap_or(u32::MAX)) / f64::from(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_a_limit_with_half_of_them_left_to_chance() {
        let mut back_off = BackOff::default();
        for (failure, longest_ms) in [(1, 500), (2, 1000), (3, 2000), (4, 4000)] {
            let pause = back_off.pause(Duration::ZERO);
            let longest = Duration::from_millis(longest_ms);
            assert!(
                pause >= longest / 2 && pause <= longest,
                "{failure}: {pause:?}"
            );
        }
        for _ in 0..99 {
            assert!(back_off.pause(Duration::ZERO) <= PAUSE_MAX);
        }
        assert!(back_off.pause(Duration::ZERO) >= PAUSE_MAX / 2);
    }

    #[test]
    fn a_good_connection_ends_the_row() {
        let mut back_off = BackOff::default();
        for _ in 0..5 {
            back_off.pause(Duration::ZERO);
        }
        assert!(back_off.pause(GOOD_CONNECTION) <= PAUSE_MIN);
    }

    #[test]
    fn chance_is_between_0_and_1_and_never_twice_the_same() {
        let (one, other) = (chance(), chance());
        assert!((0.0..=1.0).contains(&one) && (0.0..=1.0).contains(&other));
        assert!((one - other).abs() > f64::EPSILON);
    }
}
