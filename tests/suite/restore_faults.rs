//! What if `get-wal -o` or `wal-restore` is killed, or one of its calls fails, at any point? Under its name there is the
//! whole file or what was there before, success means that it is whole, and the next run delivers it.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::path::PathBuf;

use crate::support::faults::is_full_sweep;
use crate::support::home::{Home, names, put};
use crate::support::sshd::{HOST, Sshd};
use crate::support::tool::{Run, Walarch, wait_for};
use crate::support::trace::{CHANGING, Call, traced};
use crate::support::wal::{MIB, Segment};

const SECOND: &str = "000000010000000000000002";
const EFFECTS: [&str; 3] = ["signal=KILL", "error=ENOSPC", "error=EIO"];

/// From the root folder of a home to the words of a command.
type Arguments = Box<dyn Fn(&str) -> Vec<String>>;

/// A home in whose root folder the file is delivered to `goal`, by this command.
struct Scenario {
    home: Home,
    arguments: Arguments,
    /// The backup host, if the file comes from one: the home, in which nothing is struck.
    sshd: Option<Sshd>,
    goal: &'static str,
    /// Whether the file waits in the spool already.
    is_spooled: bool,
    segment_size: u64,
}

/// Three segments in the archive; the second one will be asked for.
fn home(segment_size: u64) -> Home {
    let home = Home::with(&[("compression", "zstd")]);
    for number in 1..=3 {
        let segment = Segment::of_size(segment_size, number);
        put(&home.incoming(), &segment.name(), &segment.bytes());
    }
    home.archive().exits(0);
    fs::create_dir_all(home.root().join("data/pg_wal")).unwrap();
    home
}

fn segment(name: &str, segment_size: u64) -> Vec<u8> {
    let number = u64::from_str_radix(&name[16..], 16).unwrap();
    Segment::of_size(segment_size, number).bytes()
}

impl Scenario {
    /// A home for one run. A spool knows whose it is by the paths, so that each home fills its own.
    fn copy(&self) -> Home {
        let home = self.home.copy();
        if self.is_spooled {
            fill_spool(&home);
        }
        home
    }

    fn run(&self, home: &Home, options: &[String]) -> (Run, Vec<Call>) {
        let arguments = (self.arguments)(home.root().to_str().unwrap());
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let mut options = options.to_vec();
        if let Some(sshd) = &self.sshd {
            let path = format!("PATH={}:/usr/bin:/bin", sshd.client().display());
            options.extend(["-E".to_owned(), path]);
        }
        traced(Walarch, home, &arguments, &options)
    }

    /// The calls of an undisturbed run that change something outside the archive, as system call and how-manieth of
    /// its kind in its process: of each kind the first, the last and one between, or all of them in a full sweep.
    fn targets(&self) -> Vec<(String, usize)> {
        let home = self.copy();
        let (run, calls) = self.run(&home, &["-e".to_owned(), format!("trace={CHANGING}")]);
        run.exits(0);
        let places = [home.root().join("data"), home.root().join("spool")];
        let mut counts: HashMap<(u32, &str), usize> = HashMap::new();
        let mut kinds: BTreeMap<String, Vec<usize>> = BTreeMap::new();
        for call in &calls {
            let count = counts.entry((call.thread, &call.name)).or_default();
            *count += 1;
            let effect = call.effect();
            let path = effect.path().filter(|_| call.changes());
            if path.is_some_and(|path| places.iter().any(|place| path.starts_with(place))) {
                kinds.entry(call.name.clone()).or_default().push(*count);
            }
        }
        let mut targets = Vec::new();
        for (name, mut counts) in kinds {
            counts.sort_unstable();
            counts.dedup();
            if !is_full_sweep() {
                let last = counts.len() - 1;
                counts = [0, last / 2, last].map(|at| counts[at]).to_vec();
                counts.dedup();
            }
            targets.extend(counts.into_iter().map(|count| (name.clone(), count)));
        }
        targets
    }

    fn sweep(&self) {
        let targets = self.targets();
        assert!(targets.len() > 2, "{targets:?}");
        let mut struck = 0;
        for (name, count) in targets {
            for effect in EFFECTS {
                struck += usize::from(self.strike(&name, count, effect));
            }
        }
        assert!(struck > 6, "only {struck} faults struck");
    }

    /// Whether the fault struck.
    fn strike(&self, name: &str, count: usize, effect: &str) -> bool {
        let what = format!("{effect} at {name} {count}");
        let home = self.copy();
        let before = fs::read(home.root().join(self.goal)).ok();
        let options = [
            "-e".to_owned(),
            format!("trace={name}"),
            "-e".to_owned(),
            format!("inject={name}:{effect}:when={count}"),
        ];
        let (run, calls) = self.run(&home, &options);
        let found = fs::read(home.root().join(self.goal)).ok();
        let is_whole = found.as_deref() == Some(&segment(SECOND, self.segment_size));
        assert!(is_whole || found == before, "{what}: half a file");
        assert!(is_whole || run.code != 0, "{what}: exit 0 without the file");
        assert_spooled_segments_are_whole(&home, self.segment_size, &what);
        let plain = ["-e".to_owned(), "trace=none".to_owned()];
        let (again, _) = self.run(&home, &plain);
        assert_eq!(again.code, 0, "{what}, then: {}", again.stderr);
        let goal = home.root().join(self.goal);
        assert!(
            fs::read(&goal).unwrap() == segment(SECOND, self.segment_size),
            "{what}"
        );
        let expected = goal.file_name().unwrap().to_str().unwrap();
        assert_eq!(
            names(goal.parent().unwrap()),
            [expected],
            "{what}: left over"
        );
        assert_spooled_segments_are_whole(&home, self.segment_size, &what);
        run.code == 128 + 9 || calls.iter().any(|call| call.injected)
    }
}

fn spools(home: &Home) -> Vec<PathBuf> {
    let root = home.root().join("spool");
    match root.is_dir() {
        true => names(&root).iter().map(|name| root.join(name)).collect(),
        false => Vec::new(),
    }
}

fn assert_spooled_segments_are_whole(home: &Home, segment_size: u64, what: &str) {
    for spool in spools(home) {
        for name in names(&spool).iter().filter(|name| name.len() == 24) {
            let spooled = fs::read(spool.join(name)).unwrap();
            assert!(
                spooled == segment(name, segment_size),
                "{what}: half of {name} in the spool"
            );
        }
    }
}

fn local(root: &str, options: &[&str], goal: &str) -> Vec<String> {
    let spool = format!("{root}/spool");
    let goal = format!("{root}/{goal}");
    [
        &["wal-restore", "--local", "--spool-dir", &spool],
        options,
        &["main", SECOND, &goal],
    ]
    .concat()
    .into_iter()
    .map(str::to_owned)
    .collect()
}

#[test]
fn no_fault_makes_get_wal_deliver_half_a_file() {
    let scenario = Scenario {
        home: home(MIB),
        arguments: Box::new(|root| {
            let directory = format!("{root}/data/pg_wal");
            ["get-wal", "-o", &directory, "main", SECOND]
                .map(str::to_owned)
                .to_vec()
        }),
        sshd: None,
        goal: "data/pg_wal/000000010000000000000002",
        is_spooled: false,
        segment_size: MIB,
    };
    scenario.sweep();
    fs::write(scenario.home.root().join(scenario.goal), "old").unwrap();
    scenario.sweep();
}

/// Segments of this size are stored in two parts, which two threads write.
#[test]
fn no_fault_makes_two_threads_deliver_half_a_file() {
    for goal in ["data/pg_wal/RECOVERYXLOG", "data/pg_wal/by-hand"] {
        Scenario {
            home: home(8 * MIB),
            arguments: Box::new(move |root| local(root, &[], goal)),
            sshd: None,
            goal,
            is_spooled: false,
            segment_size: 8 * MIB,
        }
        .sweep();
    }
}

#[test]
fn no_fault_makes_wal_restore_deliver_half_a_file() {
    Scenario {
        home: home(MIB),
        arguments: Box::new(|root| local(root, &[], "data/pg_wal/RECOVERYXLOG")),
        sshd: None,
        goal: "data/pg_wal/RECOVERYXLOG",
        is_spooled: false,
        segment_size: MIB,
    }
    .sweep();
    Scenario {
        home: home(MIB),
        arguments: Box::new(|root| local(root, &[], "data/pg_wal/by-hand")),
        sshd: None,
        goal: "data/pg_wal/by-hand",
        is_spooled: false,
        segment_size: MIB,
    }
    .sweep();
}

#[test]
fn no_fault_in_fetching_ahead_harms_what_is_delivered() {
    Scenario {
        home: home(MIB),
        arguments: Box::new(|root| local(root, &["-p", "2"], "data/pg_wal/RECOVERYXLOG")),
        sshd: None,
        goal: "data/pg_wal/RECOVERYXLOG",
        is_spooled: false,
        segment_size: MIB,
    }
    .sweep();
}

/// Through ssh, which may be struck as well: it is a child of the client.
#[test]
fn no_fault_makes_the_client_behind_ssh_deliver_half_a_file() {
    let home = home(MIB);
    let sshd = Sshd::start(&home, Walarch);
    let user = sshd.user();
    Scenario {
        home,
        arguments: Box::new(move |root| {
            let spool = format!("{root}/spool");
            let goal = format!("{root}/data/pg_wal/RECOVERYXLOG");
            let words = [
                "-U",
                &user,
                "-p",
                "2",
                "--spool-dir",
                &spool,
                HOST,
                "main",
                SECOND,
                &goal,
            ];
            let words = [&["wal-restore"][..], &words].concat();
            words.into_iter().map(str::to_owned).collect()
        }),
        sshd: Some(sshd),
        goal: "data/pg_wal/RECOVERYXLOG",
        is_spooled: false,
        segment_size: MIB,
    }
    .sweep();
}

/// Lets segments 2 and 3 be fetched ahead.
fn fill_spool(home: &Home) {
    let root = home.root().to_str().unwrap();
    let first = local(root, &["-p", "2"], "data/pg_wal/first");
    let first: Vec<&str> = first
        .iter()
        .map(|word| {
            if word == SECOND {
                "000000010000000000000001"
            } else {
                word
            }
        })
        .collect();
    home.run(&first).exits(0);
    fs::remove_file(home.root().join("data/pg_wal/first")).unwrap();
    wait_for("the spool", || {
        let spool = spools(home).pop()?;
        let is_there = |name: &str| spool.join(name).exists();
        let is_over = File::open(spool.join(".lock")).ok()?.try_lock().is_ok();
        (is_over && is_there(SECOND) && is_there("000000010000000000000003")).then_some(())
    });
}

#[test]
fn no_fault_makes_the_spool_deliver_half_a_file() {
    let scenario = Scenario {
        home: home(MIB),
        arguments: Box::new(|root| local(root, &["-p", "2"], "data/pg_wal/RECOVERYXLOG")),
        sshd: None,
        goal: "data/pg_wal/RECOVERYXLOG",
        is_spooled: true,
        segment_size: MIB,
    };
    // It comes from there: the archive does not have it any more.
    let home = scenario.copy();
    fs::remove_file(home.archived(SECOND)).unwrap();
    scenario
        .run(&home, &["-e".to_owned(), "trace=none".to_owned()])
        .0
        .exits(0);
    scenario.sweep();
}
