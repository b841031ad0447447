//! The pipeline over a storage that forgets, and that fails where it is told to.
#![allow(
    clippy::disallowed_methods,
    reason = "tests make the messes that durable never would"
)]

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fs;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;

use tempfile::TempDir;

use super::*;
use crate::config::ServerConfig;
use crate::durable;
use crate::storage::InFlight;
use crate::storage::memory::{Memory, Step};

/// A home with a queue of history files, which are small and archived like everything else. They hold comments only.
struct Home {
    directory: TempDir,
    storage: Memory,
    catalog: Catalog,
    server: ServerConfig,
    stop: AtomicBool,
}

/// Keeps the sources in a directory; the one of this name cannot be removed.
#[derive(Debug)]
struct Queue {
    directory: PathBuf,
    stuck: Option<String>,
}

impl SourceKeeper for Queue {
    fn is_ours(&self) -> bool {
        true
    }

    fn may_be_compressed(&self) -> bool {
        true
    }

    fn remove(&self, wal: &WalFile) -> io::Result<()> {
        match self.stuck.as_deref() == Some(wal.name.as_str()) {
            true => Err(io::ErrorKind::PermissionDenied.into()),
            false => durable::remove(&wal.path),
        }
    }

    fn sync(&self) -> io::Result<()> {
        durable::sync_directory(&self.directory)
    }

    fn set_aside(&self, wal: &WalFile, reason: SetAside) -> io::Result<Option<PathBuf>> {
        let names = std::iter::once(format!("{}.{}", wal.name, reason.suffix()).into());
        durable::move_aside(&wal.path, &self.directory.join("errors"), names).map(Some)
    }
}

#[derive(Default)]
struct Diary(RefCell<Vec<String>>);

impl Observer for Diary {
    fn notice(&self, event: &Event<'_>) {
        self.0.borrow_mut().push(match event {
            Event::Archived { name, .. } => format!("archived {name}"),
            Event::DuplicateSetAside { name, .. } => format!("duplicate {name}"),
            Event::Failed { name, .. } => format!("failed {name}"),
            _ => return,
        });
    }
}

impl Home {
    fn new() -> Self {
        let directory = TempDir::new().unwrap();
        let root = directory.path();
        Home {
            storage: Memory::default(),
            catalog: Catalog::new("main", root, root, None),
            server: ServerConfig::with_defaults("main", root),
            stop: AtomicBool::new(false),
            directory,
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn queue(&self, numbers: std::ops::Range<u32>) -> Vec<WalFile> {
        numbers
            .map(|number| self.put(&name(number), &format!("# content of {number}")))
            .collect()
    }

    fn put(&self, name: &str, content: &str) -> WalFile {
        fs::write(self.path(name), content).unwrap();
        WalFile {
            name: WalName::parse(name).unwrap(),
            path: self.path(name),
        }
    }

    fn save(&self, files: &[WalFile], limit: usize, jobs: usize) -> (SaveReport, Vec<String>) {
        self.save_but(None, files, limit, jobs)
    }

    /// The source of the name `stuck` cannot be removed.
    fn save_but(
        &self,
        stuck: Option<String>,
        files: &[WalFile],
        limit: usize,
        jobs: usize,
    ) -> (SaveReport, Vec<String>) {
        let diary = Diary::default();
        let archive = Archive {
            storage: &self.storage,
            catalog: &self.catalog,
            encoder: &Encoder::new(&self.server).unwrap(),
            decoder: &Decoder::new(&self.server),
            hooks: &Hooks::new(&self.server, self.directory.path(), &self.stop),
            validation: Some(Validation::default()),
            recognition: &Recognition::default(),
            jobs: NonZeroUsize::new(jobs).unwrap(),
            stop: &self.stop,
        };
        let keeper = Queue {
            directory: self.directory.path().to_owned(),
            stuck,
        };
        let report = archive.save(files, NonZeroUsize::new(limit), &keeper, &diary);
        (report, diary.0.into_inner())
    }

    fn listed(&self) -> Vec<String> {
        let text = fs::read_to_string(self.catalog.path()).unwrap_or_default();
        text.lines()
            .map(|line| line.split('\t').next().unwrap().to_owned())
            .collect()
    }

    /// Every file is in its source or durable in the archive, and nothing is half staged.
    fn assert_nothing_lost(&self, files: &[WalFile]) {
        assert_eq!(self.storage.staged(), 0);
        self.storage.cut_power();
        let archived: BTreeSet<String> = self.storage.names().into_iter().collect();
        for wal in files {
            assert!(
                wal.path.exists() || archived.contains(wal.name.as_str()),
                "{} lost",
                wal.name
            );
        }
    }
}

fn name(number: u32) -> String {
    format!("{number:08X}.history")
}

fn names(numbers: std::ops::Range<u32>) -> Vec<String> {
    numbers.map(name).collect()
}

#[test]
fn files_are_committed_in_order_whatever_the_number_of_jobs() {
    for jobs in [1, 4] {
        let home = Home::new();
        let files = home.queue(1..200);
        let (report, diary) = home.save(&files, 0, jobs);
        assert_eq!(
            report,
            SaveReport {
                archived: 199,
                failed: 0,
                stopped: false
            }
        );
        let expected: Vec<String> = names(1..200)
            .iter()
            .map(|name| format!("archived {name}"))
            .collect();
        assert_eq!(diary, expected);
        assert_eq!(home.listed(), names(1..200));
        assert!(home.storage.syncs() < 60, "commits were not grouped");
        home.assert_nothing_lost(&files);
    }
}

#[test]
fn no_more_is_on_its_way_than_the_storage_wants() {
    let sizes: [u64; 12] = [100, 100, 100, 900, 100, 300, 50, 50, 50, 50, 50, 100];
    for (files_max, size_bytes, most_bytes) in [(3, 10_000, 1300), (4, 250, 900), (1, 10_000, 900)]
    {
        let home = Home::new();
        home.storage.limit(InFlight {
            files: NonZeroUsize::new(files_max).unwrap(),
            size_bytes,
        });
        let files: Vec<WalFile> = sizes
            .iter()
            .zip(1..)
            .map(|(size_bytes, number)| home.put(&name(number), &"#".repeat(*size_bytes as usize)))
            .collect();
        let (report, _) = home.save(&files, 0, 4);
        assert_eq!(report.archived, files.len());
        let (files, bytes) = home.storage.most_staged();
        assert!(files <= files_max, "{files} files");
        assert!(bytes <= most_bytes, "{bytes} bytes, {size_bytes} wanted");
    }
}

#[test]
fn a_failure_of_the_storage_keeps_what_came_before_and_touches_nothing_after() {
    for step in [Step::Stage, Step::Seal, Step::Publish, Step::Sync] {
        for failing in [1, 40, 99] {
            let home = Home::new();
            let files = home.queue(1..100);
            home.storage.fail_at(step, &name(failing));
            let (report, _) = home.save(&files, 0, 2);
            assert_eq!(report.failed, 1, "{step:?} of {failing}");
            let listed = home.listed();
            assert_eq!(listed, names(1..report.archived as u32 + 1));
            assert!(report.archived < failing as usize);
            for wal in &files {
                assert_eq!(!wal.path.exists(), listed.contains(&wal.name.to_string()));
            }
            home.assert_nothing_lost(&files);
        }
    }
}

#[test]
fn a_rerun_takes_up_what_was_published_but_not_listed() {
    let home = Home::new();
    let files = home.queue(1..10);
    home.save(&files[..5], 0, 2);
    // As a run leaves it that is cut off between publishing and listing.
    let text = fs::read_to_string(home.catalog.path()).unwrap();
    let kept: String = text
        .lines()
        .take(3)
        .map(|line| format!("{line}\n"))
        .collect();
    fs::write(home.catalog.path(), format!("{kept}{}", name(4))).unwrap();
    let again = home.queue(1..10);
    let (report, _) = home.save(&again, 0, 2);
    assert_eq!((report.archived, report.failed), (9, 0));
    let mut listed = home.listed();
    listed.sort();
    assert_eq!(listed, names(1..10));
}

#[test]
fn different_content_is_set_aside_and_does_not_stop_the_others() {
    let home = Home::new();
    home.save(&home.queue(1..4), 0, 1);
    let mut files = home.queue(1..6);
    files[1] = home.put(&name(2), "# something else");
    let (report, diary) = home.save(&files, 0, 2);
    assert_eq!((report.archived, report.failed), (4, 0));
    assert!(diary.contains(&format!("duplicate {}", name(2))));
    let aside = home.path("errors").join(format!("{}.duplicate", name(2)));
    assert_eq!(fs::read_to_string(aside).unwrap(), "# something else");
    assert_eq!(home.listed(), names(1..6));
}

#[test]
fn a_source_that_cannot_be_removed_does_not_keep_the_others() {
    for stuck in [1, 20, 40] {
        let home = Home::new();
        let files = home.queue(1..41);
        let (report, diary) = home.save_but(Some(name(stuck)), &files, 0, 2);
        assert_eq!((report.archived, report.failed), (39, 1));
        assert!(diary.contains(&format!("failed {}", name(stuck))));
        for wal in &files {
            assert_eq!(wal.path.exists(), wal.name.as_str() == name(stuck));
        }
        assert_eq!(home.listed(), names(1..41));
        home.assert_nothing_lost(&files);
    }
}

#[test]
fn files_that_fail_do_not_starve_a_batch() {
    let home = Home::new();
    let mut files = home.queue(1..20);
    for wal in &files[..5] {
        fs::remove_file(&wal.path).unwrap();
        fs::create_dir(&wal.path).unwrap();
    }
    for jobs in [1, 3] {
        let (report, _) = home.save(&files, 3, jobs);
        assert_eq!((report.archived, report.failed), (3, 5));
        files.retain(|wal| wal.path.exists());
    }
    assert_eq!(home.listed(), names(6..12));
}

#[test]
fn a_file_that_vanished_is_nobodys_failure() {
    let home = Home::new();
    let files = home.queue(1..4);
    fs::remove_file(&files[1].path).unwrap();
    let (report, _) = home.save(&files, 0, 2);
    assert_eq!(
        report,
        SaveReport {
            archived: 2,
            failed: 0,
            stopped: false
        }
    );
}

#[test]
fn a_stop_request_leaves_the_rest_in_the_queue() {
    let home = Home::new();
    let files = home.queue(1..4);
    home.stop.store(true, Ordering::Relaxed);
    let (report, _) = home.save(&files, 0, 2);
    assert_eq!(
        report,
        SaveReport {
            archived: 0,
            failed: 0,
            stopped: true
        }
    );
    assert!(files.iter().all(|wal| wal.path.exists()));
}
