//! Instants and sizes that nobody chose, but that can be had again.

use std::env;
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Numbers from a seed, which a failed test prints; `WALARCH_TEST_SEED` sets it.
pub struct Chance(u64);

impl Chance {
    pub fn new() -> Self {
        let seed: u64 = match env::var("WALARCH_TEST_SEED") {
            Ok(seed) => seed.parse().unwrap(),
            Err(_) => SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .unwrap()
                .subsec_nanos()
                .into(),
        };
        println!("WALARCH_TEST_SEED={seed}");
        Self::from_seed(seed)
    }

    /// The same numbers every time.
    pub fn from_seed(seed: u64) -> Self {
        Self(seed | 1 << 40)
    }

    /// From 0 on, less than `end`.
    pub fn below(&mut self, end: u64) -> u64 {
        // xorshift64*
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % end
    }

    /// Once in so many times.
    pub fn once_in(&mut self, times: u64) -> bool {
        self.below(times) == 0
    }

    /// Sleeps for less than so many milliseconds.
    pub fn sleep_below(&mut self, milliseconds: u64) {
        thread::sleep(Duration::from_micros(self.below(milliseconds * 1000)));
    }
}
