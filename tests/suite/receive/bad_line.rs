//! A receiver whose way to the server is bad: nothing is written out of place, and nothing is missing afterwards.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use nix::sys::signal::Signal;

use super::support::{Receiving, SETTINGS, Way, received, streaming, wait_for_segments};
use crate::support::chance::Chance;
use crate::support::faults::is_full_sweep;
use crate::support::home::{Home, names};
use crate::support::messages::copy_data;
use crate::support::postgres::{Major, Postgres};
use crate::support::proxy::{Mischief, Passage, Proxy};
use crate::support::tool::{Walarch, wait_for};
use crate::support::wire::Frame;
use crate::support::writers::Writers;

/// A server with small segments that keeps its WAL.
pub fn server() -> Postgres {
    Postgres::start_major(Major::Debian, &["--wal-segsize=1"], |_| {
        format!("{SETTINGS}wal_keep_size = 1GB\n")
    })
}

/// A home that streams through the proxy.
pub fn home_behind(proxy: &Proxy, way: Way, postgres: &Postgres, slot: &str) -> Home {
    way.home(
        postgres,
        slot,
        &[
            ("create_slot", "auto"),
            ("streaming_conninfo", &proxy.conninfo()),
        ],
    )
}

/// Everything that was received is the server's, and no name is there that PostgreSQL would not give.
#[track_caller]
pub fn assert_nothing_is_out_of_place(postgres: &Postgres, home: &Home, what: &str) {
    let pg_wal = postgres.data().join("pg_wal");
    // What is hidden is nobody's place to go on from.
    let is_shown = |name: &String| !name.starts_with('.');
    for name in names(&home.streaming()).into_iter().filter(is_shown) {
        let ours = fs::read(home.streaming().join(&name)).unwrap();
        let segment = name.strip_suffix(".partial").unwrap_or(&name);
        let theirs = fs::read(pg_wal.join(segment));
        let written = match ours.iter().rposition(|byte| *byte != 0) {
            // A segment that nothing was written to may be one that the server has not begun.
            None if name.ends_with(".partial") => continue,
            last => last.map_or(0, |last| last + 1),
        };
        let theirs = theirs.unwrap_or_else(|error| panic!("{what}: {name}: {error}"));
        let compared = if segment == name { ours.len() } else { written };
        assert!(
            ours.len() == theirs.len(),
            "{what}: {} bytes in {name}",
            ours.len()
        );
        assert!(
            ours[..compared] == theirs[..compared],
            "{what}: {name} differs"
        );
    }
}

/// Waits until all of the server's segments up to this one are here.
#[track_caller]
pub fn wait_for_all(home: &Home, first: &str, last: &str, mut look: impl FnMut()) {
    let number = |name: &str| u64::from_str_radix(&name[16..], 16).unwrap();
    let count = usize::try_from(number(last) - number(first) + 1).unwrap();
    wait_for("all segments", || {
        look();
        let segments = received(home);
        let segments = segments
            .iter()
            .filter(|name| first <= name.as_str() && name.as_str() <= last);
        (segments.count() == count).then_some(())
    });
}

/// Delays messages; and behind so many bytes, wherever that is, the connection is cut, or a message is lost, shortened
/// or comes twice. All that until it has happened often enough.
struct Weather {
    chance: Chance,
    left: usize,
    blows_to_come: Arc<AtomicUsize>,
}

impl Mischief for Weather {
    fn pass(&mut self, frame: &Frame) -> Passage {
        if frame.kind != b'd' || self.blows_to_come.load(Ordering::Relaxed) == 0 {
            return Passage::On;
        }
        if self.chance.once_in(20) {
            self.chance.sleep_below(20);
        }
        let bytes = frame.bytes();
        if self.left >= bytes.len() {
            self.left -= bytes.len();
            return Passage::On;
        }
        self.blows_to_come.fetch_sub(1, Ordering::Relaxed);
        let cut = self.left;
        self.left = usize::MAX;
        match self.chance.below(8) {
            0 => Passage::Instead(Vec::new()),
            1 => Passage::Instead(bytes.repeat(2)),
            2 => Passage::Instead(copy_data(&frame.body[..cut.min(frame.body.len() - 1)])),
            _ => Passage::Cut(cut),
        }
    }
}

/// A receiver behind a line of its own.
struct Sailor {
    blows_to_come: Arc<AtomicUsize>,
    proxy: Proxy,
    home: Home,
    receiving: Receiving,
}

impl Sailor {
    /// The weather is good, until there are blows to come.
    fn set_out(postgres: &Postgres, way: Way, number: usize, mut seeds: Chance) -> Self {
        let blows_to_come = Arc::new(AtomicUsize::new(0));
        let theirs = blows_to_come.clone();
        let proxy = Proxy::start(postgres, move |_| {
            let mut chance = Chance::from_seed(seeds.below(1 << 30));
            let bits = 4 + chance.below(16);
            Box::new(Weather {
                left: usize::try_from(chance.below(1 << bits)).unwrap(),
                chance,
                blows_to_come: theirs.clone(),
            })
        });
        let home = home_behind(&proxy, way, postgres, &format!("weather_{number}"));
        let receiving = streaming(&home);
        Self {
            blows_to_come,
            proxy,
            home,
            receiving,
        }
    }
}

/// So many receivers, to whose lines something happens so often each.
#[track_caller]
fn assert_survive_bad_weather(way: Way, receivers: usize, blows: usize) {
    let postgres = server();
    Writers::prepare(&postgres);
    let mut chance = Chance::new();
    let mut sailors: Vec<Sailor> = (0..receivers)
        .map(|number| {
            let seeds = Chance::from_seed(chance.below(1 << 30));
            Sailor::set_out(&postgres, way, number, seeds)
        })
        .collect();
    let first = postgres.fill_segment();
    for Sailor {
        home,
        blows_to_come,
        ..
    } in &sailors
    {
        // Before that there was no place that anybody could go on from.
        wait_for_segments(home, &[&first]);
        blows_to_come.store(blows, Ordering::Relaxed);
    }
    let writers = Writers::start(&postgres, 2);
    for Sailor {
        home,
        receiving,
        blows_to_come,
        ..
    } in &mut sailors
    {
        wait_for("the end of the storm", || {
            again(receiving, way, home);
            (blows_to_come.load(Ordering::Relaxed) == 0).then_some(())
        });
    }
    writers.end();
    let last = postgres.fill_segment();
    for mut sailor in sailors {
        let Sailor {
            home, receiving, ..
        } = &mut sailor;
        wait_for_all(home, &first, &last, || again(receiving, way, home));
        assert_nothing_is_out_of_place(&postgres, home, "bad weather");
        sailor.receiving.end_by(Signal::SIGINT).exits(0);
        for report in sailor.proxy.reports() {
            assert!(report.flushed <= report.written, "{report:?}");
        }
    }
}

/// Starts it once more if this is one that gives up when it loses its server.
#[track_caller]
fn again(receiving: &mut Receiving, way: Way, home: &Home) {
    if receiving.has_ended() {
        let output = receiving.output();
        assert!(!output.contains("panicked"), "{output}");
        assert!(way == Way::PgReceivewal, "it ended: {output}");
        *receiving = Receiving::start(Walarch, home);
    }
}

#[test]
fn a_line_that_is_slow_and_breaks_anywhere_costs_nothing() {
    // After each break comes a longer pause: with more of them in a row, one that the test does not wait out.
    let (receivers, blows) = if is_full_sweep() { (30, 5) } else { (5, 4) };
    assert_survive_bad_weather(Way::Builtin, receivers, blows);
}

#[test]
fn a_line_that_is_slow_and_breaks_anywhere_costs_pg_receivewal_nothing() {
    let blows = if is_full_sweep() { 200 } else { 12 };
    assert_survive_bad_weather(Way::PgReceivewal, 1, blows);
}
