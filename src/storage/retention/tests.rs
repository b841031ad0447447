use std::cell::RefCell;
use std::fs;
use std::path::Path;
use std::sync::atomic::AtomicBool;

use tempfile::TempDir;

use super::*;
use crate::catalog::Backup;
use crate::config::ServerConfig;
use crate::storage::Local;
use crate::wal::WalName;

/// An archive whose files are as large as xlogdb says.
struct Home {
    folder: TempDir,
    server: ServerConfig,
}

impl Home {
    /// Files as "name size time".
    fn with(files: &[&str]) -> Self {
        let folder = TempDir::new().unwrap();
        let mut server = ServerConfig::with_defaults("main", folder.path());
        server.lock_directory = folder.path().to_owned();
        let home = Home { folder, server };
        let mut lines = String::new();
        for file in files {
            let info: WalFileInfo = file.parse().unwrap();
            let path = home.storage().location(&info.name);
            fs::create_dir_all(Path::new(&path).parent().unwrap()).unwrap();
            fs::write(path, vec![0; info.size_bytes as usize]).unwrap();
            lines.push_str(&format!("{info}\n"));
        }
        fs::write(home.catalog().path(), lines).unwrap();
        home
    }

    fn wals(&self) -> std::path::PathBuf {
        self.folder.path().join("main/wals")
    }

    fn storage(&self) -> Local {
        Local::new(&self.wals(), &self.server)
    }

    fn catalog(&self) -> Catalog {
        fs::create_dir_all(self.wals()).unwrap();
        Catalog::new("main", &self.wals(), self.folder.path(), None)
    }

    fn plan(&self, retention: &Retention, backups: &[&str]) -> Plan {
        let backups: Vec<Backup> = backups
            .iter()
            .map(|name| Backup {
                id: "20260101T000000".to_owned(),
                first_wal: Some(WalName::parse(name).unwrap()),
            })
            .collect();
        Plan::new(retention, &self.storage(), &self.catalog(), &backups).unwrap()
    }

    /// The names in xlogdb, shortened to timeline and number.
    fn listed(&self) -> Vec<String> {
        let text = fs::read_to_string(self.catalog().path()).unwrap();
        text.lines()
            .map(|line| short(line.split('\t').next().unwrap()))
            .collect()
    }

    fn stored(&self) -> Vec<String> {
        let mut names = Vec::new();
        let mut visit = |name: WalName| {
            names.push(short(name.as_str()));
            Ok(())
        };
        self.storage().list_names(&mut visit).unwrap();
        names
    }

    fn run(&self, plan: &Plan, stop: &AtomicBool) -> DeletionReport {
        let hooks = Hooks::new(&self.server, Path::new("/barman.conf"), stop);
        Deletion {
            storage: &self.storage(),
            catalog: &self.catalog(),
            hooks: &hooks,
            stop,
            observer: &Silent::default(),
        }
        .run(plan)
        .unwrap()
    }
}

#[derive(Default)]
struct Silent(RefCell<Vec<String>>);

impl Observer for Silent {
    fn notice(&self, event: &Event<'_>) {
        self.0.borrow_mut().push(format!("{event:?}"));
    }
}

/// `1/0A` for segment 0A of timeline 1.
fn short(name: &str) -> String {
    match name.get(8..22) {
        Some(_) => format!("{}/{}", &name[7..8], &name[22..]),
        None => name.to_owned(),
    }
}

fn segment(timeline: u32, number: u64, time_s: u32) -> String {
    format!("{timeline:08X}00000000{number:08X} 10 {time_s}.0 None None")
}

/// Timeline 1 from 1 to 5 and, past the switch in 4, up to 6; timeline 2 from 4 to 8.
fn two_timelines() -> Home {
    let mut files: Vec<String> = (1..=6).map(|n| segment(1, n, 100 * n as u32)).collect();
    files.insert(
        2,
        "000000010000000000000002.00000028.backup 10 200.0 None None".to_owned(),
    );
    files.push("000000010000000000000004.partial 10 400.0 None None".to_owned());
    files.push("00000002.history 10 400.0 None None".to_owned());
    files.extend((4..=8).map(|n| segment(2, n, 100 * n as u32)));
    let files: Vec<&str> = files.iter().map(String::as_str).collect();
    Home::with(&files)
}

fn before(name: &str) -> Retention {
    Retention::Before(WalName::parse(name).unwrap())
}

/// What stays, in the order of xlogdb.
#[track_caller]
fn assert_stays(home: &Home, retention: &Retention, backups: &[&str], expected: &[&str]) -> Plan {
    let plan = home.plan(retention, backups);
    let listed = fs::read_to_string(home.catalog().path()).unwrap();
    let stays: Vec<String> = listed
        .lines()
        .map(|line| line.parse::<WalFileInfo>().unwrap())
        .filter(|info| !plan.takes(&info.name))
        .map(|info| short(info.name.as_str()))
        .collect();
    assert_eq!(stays, expected);
    assert_eq!(plan.files as usize, listed.lines().count() - stays.len());
    plan
}

#[test]
fn everything_before_a_segment_goes_on_its_and_older_timelines() {
    let home = two_timelines();
    let plan = assert_stays(
        &home,
        &before("000000010000000000000003"),
        &[],
        &[
            "1/03",
            "1/04",
            "1/05",
            "1/06",
            "1/04.partial",
            "00000002.history",
            "2/04",
            "2/05",
            "2/06",
            "2/07",
            "2/08",
        ],
    );
    assert_eq!((plan.files, plan.size_bytes), (3, 30));
    assert_eq!(
        plan.oldest_kept.unwrap().as_str(),
        "000000010000000000000003"
    );
    // A younger timeline is not touched by what is said of an older one.
    assert_stays(
        &home,
        &before("000000010000000000000007"),
        &[],
        &["00000002.history", "2/04", "2/05", "2/06", "2/07", "2/08"],
    );
    assert_stays(
        &home,
        &before("000000020000000000000006"),
        &[],
        &["1/06", "00000002.history", "2/06", "2/07", "2/08"],
    );
}

#[test]
fn age_never_leaves_a_gap() {
    let home = two_timelines();
    assert_stays(
        &home,
        &Retention::Since(650.0),
        &[],
        &["00000002.history", "2/07", "2/08"],
    );
    // One old file that arrived late keeps all that follow it.
    let late = Home::with(&[&segment(1, 1, 1), &segment(1, 2, 900), &segment(1, 3, 3)]);
    assert_stays(&late, &Retention::Since(500.0), &[], &["1/02", "1/03"]);
    assert_stays(
        &late,
        &Retention::Since(f64::NAN),
        &[],
        &["1/01", "1/02", "1/03"],
    );
}

#[test]
fn size_counts_from_the_newest_on() {
    let home = two_timelines();
    let all = home.listed();
    let all: Vec<&str> = all.iter().map(String::as_str).collect();
    assert_stays(&home, &Retention::KeepSize(1 << 40), &[], &all);
    for size_bytes in [20, 29] {
        assert_stays(
            &home,
            &Retention::KeepSize(size_bytes),
            &[],
            &["00000002.history", "2/07", "2/08"],
        );
    }
    // Across the border of a log.
    let logs = Home::with(&[
        "0000000100000001000000FE 10 1.0",
        "0000000100000001000000FF 10 1.0",
        "000000010000000200000000 10 1.0",
    ]);
    assert_stays(&logs, &Retention::KeepSize(20), &[], &["1/FF", "1/00"]);
}

#[test]
fn the_newest_segment_always_stays() {
    let home = two_timelines();
    let rest = ["00000002.history", "2/08"];
    assert_stays(&home, &Retention::KeepSize(0), &[], &rest);
    assert_stays(&home, &Retention::Since(1e9), &[], &rest);
    assert_stays(&home, &before("0000000200000000000000FF"), &[], &rest);
}

#[test]
fn nothing_goes_that_a_backup_needs() {
    let home = two_timelines();
    let plan = assert_stays(
        &home,
        &Retention::KeepSize(0),
        &["000000020000000000000007", "000000020000000000000006"],
        &["1/06", "00000002.history", "2/06", "2/07", "2/08"],
    );
    assert!(plan.limited_by.is_some());
    let plan = home.plan(
        &before("000000010000000000000002"),
        &["000000020000000000000006"],
    );
    assert!(plan.limited_by.is_none());
    // A backup of an old timeline keeps the histories, even if its WAL is not there.
    let rest = Home::with(&[
        "00000002.history 1 1.0",
        "00000003.history 1 1.0",
        &segment(3, 9, 1),
    ]);
    assert_stays(
        &rest,
        &Retention::KeepSize(0),
        &[],
        &["00000003.history", "3/09"],
    );
    assert_stays(
        &rest,
        &Retention::KeepSize(0),
        &["000000020000000000000006"],
        &["00000002.history", "00000003.history", "3/09"],
    );
}

#[test]
fn what_is_deleted_is_listed_no_more() {
    let home = two_timelines();
    let plan = home.plan(&before("000000020000000000000006"), &[]);
    let report = home.run(&plan, &AtomicBool::new(false));
    assert_eq!((report.files, report.size_bytes, report.failed), (9, 90, 0));
    assert_eq!(
        home.listed(),
        ["1/06", "00000002.history", "2/06", "2/07", "2/08"]
    );
    assert_eq!(
        home.stored(),
        ["1/06", "00000002.history", "2/06", "2/07", "2/08"]
    );
}

#[test]
fn what_an_earlier_run_left_unlisted_goes_with_the_next() {
    let home = two_timelines();
    let text = fs::read_to_string(home.catalog().path()).unwrap();
    let rest: String = text.split_inclusive('\n').skip(3).collect();
    fs::write(home.catalog().path(), rest).unwrap();
    let plan = home.plan(&before("000000010000000000000003"), &[]);
    assert_eq!(plan.files, 0);
    let report = home.run(&plan, &AtomicBool::new(false));
    assert_eq!(report.files, 3);
    assert_eq!(home.stored()[0], "1/03");
}

#[test]
fn what_xlogdb_has_lost_does_not_go_for_its_age_or_size() {
    let home = two_timelines();
    let text = fs::read_to_string(home.catalog().path()).unwrap();
    let first: String = text.split_inclusive('\n').take(2).collect();
    for (left, stored) in [("", 14), (first.as_str(), 13)] {
        fs::write(home.catalog().path(), left).unwrap();
        for retention in [Retention::Since(1e9), Retention::KeepSize(0)] {
            let plan = home.plan(&retention, &[]);
            home.run(&plan, &AtomicBool::new(false));
            assert_eq!(home.stored().len(), stored, "{retention:?}");
        }
    }
}

#[test]
fn an_empty_xlogdb_costs_neither_the_newest_segment_nor_the_history_that_leads_to_it() {
    let home = two_timelines();
    fs::write(home.catalog().path(), "").unwrap();
    let plan = home.plan(&before("0000000200000000000000FF"), &[]);
    home.run(&plan, &AtomicBool::new(false));
    assert_eq!(home.stored(), ["00000002.history", "2/08"]);
}

#[test]
fn a_timeline_that_xlogdb_has_lost_keeps_its_history() {
    let home = two_timelines();
    let text = fs::read_to_string(home.catalog().path()).unwrap();
    let younger = format!(
        "00000003.history 10 900.0 None None\n{}\n",
        segment(3, 9, 900)
    );
    fs::create_dir_all(home.wals().join("0000000300000000")).unwrap();
    for name in [
        "00000003.history",
        "0000000300000000/000000030000000000000009",
    ] {
        fs::write(home.wals().join(name), [0; 10]).unwrap();
    }
    // What is left of timeline 2 is there and not listed.
    let others: String = text
        .split_inclusive('\n')
        .filter(|line| !line.starts_with("000000020000"))
        .collect();
    fs::write(home.catalog().path(), format!("{others}{younger}")).unwrap();
    let plan = home.plan(&before("000000020000000000000007"), &[]);
    home.run(&plan, &AtomicBool::new(false));
    assert_eq!(
        home.stored(),
        [
            "00000002.history",
            "2/07",
            "2/08",
            "00000003.history",
            "3/09"
        ]
    );
}

#[test]
fn what_was_not_deleted_after_all_is_listed_as_before() {
    let home = two_timelines();
    let listed = home.listed();
    let plan = home.plan(&before("000000020000000000000006"), &[]);
    let report = home.run(&plan, &AtomicBool::new(true));
    assert_eq!((report.files, report.refusal), (0, Some(Refusal::Stopped)));
    assert_eq!(home.stored().len(), listed.len());
    let mut again = home.listed();
    assert_eq!(again[..3], ["1/01", "1/02", "1/02.00000028.backup"]);
    again.sort();
    let mut listed = listed;
    listed.sort();
    assert_eq!(again, listed);
}

#[test]
fn a_file_that_cannot_be_deleted_stays_listed_and_stops_no_other() {
    let home = two_timelines();
    // Not a file: unlink(2) refuses.
    let path = home
        .storage()
        .location(&WalName::parse("000000010000000000000001").unwrap());
    crate::durable::remove(Path::new(&path)).unwrap();
    fs::create_dir(&path).unwrap();
    let plan = home.plan(&before("000000010000000000000003"), &[]);
    let report = home.run(&plan, &AtomicBool::new(false));
    assert_eq!((report.files, report.failed), (2, 1));
    assert!(!home.listed().contains(&"1/02".to_owned()));
}

#[test]
fn lines_that_cannot_be_read_stay() {
    let home = two_timelines();
    let text = fs::read_to_string(home.catalog().path()).unwrap();
    fs::write(home.catalog().path(), format!("what is this?\n{text}")).unwrap();
    let plan = home.plan(&before("000000010000000000000003"), &[]);
    assert_eq!(plan.unreadable_lines, 1);
    home.run(&plan, &AtomicBool::new(false));
    let text = fs::read_to_string(home.catalog().path()).unwrap();
    assert!(text.starts_with("what is this?\n000000010000000000000003\t"));
}
