//! What every storage must do, whatever it is made of. Each backend runs the whole suite.

use std::error::Error;
use std::fs;
use std::io::{Read, Write};
use std::path::Path;

use tempfile::TempDir;

use super::memory::Memory;
use super::{AroundDelete, Local, SealedWal, Source, StorageError, StoredWal, WalStorageStrategy};
use crate::catalog::WalFileInfo;
use crate::codec::Encoding;
use crate::config::{Compression, ServerConfig};
use crate::durable::Publication;
use crate::wal::WalName;

const SEGMENT: &str = "000000010000000000000001";
const PLAIN: Encoding = Encoding {
    compression: None,
    encryption: None,
};

/// A storage and the place where its sources lie.
struct Bench<'a> {
    storage: &'a dyn WalStorageStrategy,
    sources: &'a Path,
}

impl Bench<'_> {
    fn source(&self, name: &str, bytes: &[u8]) -> Source {
        let path = self.sources.join(name);
        fs::write(&path, bytes).unwrap();
        let file = fs::File::open(&path).unwrap();
        Source {
            name: WalName::parse(name).unwrap(),
            metadata: file.metadata().unwrap(),
            path,
            file,
            carried: None,
            is_ours: true,
        }
    }

    fn sealed(&self, name: &str, bytes: &[u8]) -> Box<dyn SealedWal> {
        let mut staged = self.storage.stage(&self.source(name, bytes)).unwrap();
        staged.write_all(bytes).unwrap();
        staged.seal(&PLAIN).unwrap()
    }

    fn save(&self, name: &str, bytes: &[u8]) -> StoredWal {
        assert_eq!(
            self.sealed(name, bytes).publish().unwrap(),
            Publication::Created
        );
        let stored = self.find(name).unwrap();
        self.storage.sync(std::slice::from_ref(&stored)).unwrap();
        stored
    }

    fn find(&self, name: &str) -> Option<StoredWal> {
        self.storage.find(&WalName::parse(name).unwrap()).unwrap()
    }

    fn content(&self, name: &str) -> Vec<u8> {
        let mut bytes = Vec::new();
        let stored = self.find(name).unwrap();
        self.storage
            .open(&stored)
            .unwrap()
            .read_to_end(&mut bytes)
            .unwrap();
        bytes
    }

    fn listed(&self) -> Vec<String> {
        let mut names = Vec::new();
        self.storage
            .list(&mut |stored| {
                names.push(stored.info.name.to_string());
                Ok(())
            })
            .unwrap();
        names
    }
}

fn nothing_is_visible_before_it_is_published(bench: &Bench<'_>) {
    let sealed = bench.sealed(SEGMENT, b"content");
    assert!(bench.find(SEGMENT).is_none());
    assert_eq!(bench.listed(), [] as [&str; 0]);
    sealed.publish().unwrap();
    assert_eq!(bench.content(SEGMENT), b"content");
}

fn what_is_dropped_leaves_nothing_behind(bench: &Bench<'_>) {
    drop(
        bench
            .storage
            .stage(&bench.source(SEGMENT, b"content"))
            .unwrap(),
    );
    drop(bench.sealed(SEGMENT, b"content"));
    assert!(bench.find(SEGMENT).is_none());
    bench.save(SEGMENT, b"another try");
    assert_eq!(bench.content(SEGMENT), b"another try");
}

fn a_published_file_is_never_replaced(bench: &Bench<'_>) {
    bench.save(SEGMENT, b"first");
    let second = bench.sealed(SEGMENT, b"second");
    assert_eq!(second.publish().unwrap(), Publication::AlreadyExists);
    assert_eq!(bench.content(SEGMENT), b"first");
    assert_eq!(bench.listed(), [SEGMENT]);
}

fn the_entry_speaks_of_the_stored_form(bench: &Bench<'_>) {
    let source = bench.source(SEGMENT, b"a long content");
    let modified_s = source.info().modified_s;
    let mut staged = bench.storage.stage(&source).unwrap();
    staged.write_all(b"\x28\xb5\x2f\xfdshort").unwrap();
    let encoding = Encoding {
        compression: Some(Compression::Zstd),
        encryption: None,
    };
    let sealed = staged.seal(&encoding).unwrap();
    let announced = sealed.info().clone();
    sealed.publish().unwrap();
    let found = bench.find(SEGMENT).unwrap().info;
    assert_eq!(found, announced);
    assert_eq!(
        (found.size_bytes, found.compression.as_deref()),
        (9, Some("zstd"))
    );
    assert_eq!(found.modified_s, modified_s);
}

fn an_adopted_file_keeps_its_bytes(bench: &Bench<'_>) {
    let source = bench.source(SEGMENT, b"content");
    let Some(sealed) = bench.storage.adopt(&source).unwrap() else {
        return;
    };
    assert!(bench.find(SEGMENT).is_none());
    assert_eq!(sealed.info(), &source.info());
    sealed.publish().unwrap();
    assert_eq!(bench.content(SEGMENT), b"content");
    assert_eq!(fs::read(&source.path).unwrap(), b"content");
}

fn a_file_that_is_not_ours_is_never_adopted(bench: &Bench<'_>) {
    let mut source = bench.source(SEGMENT, b"content");
    source.is_ours = false;
    assert!(bench.storage.adopt(&source).unwrap().is_none());
}

fn files_are_listed_in_barmans_order(bench: &Bench<'_>) {
    let names = [
        "000000010000000000000002",
        "000000010000000000000002.00000028.backup",
        "000000010000000000000003.partial",
        "000000010000000100000000",
        "00000002.history",
        "000000020000000000000003",
    ];
    for name in names.iter().rev() {
        bench.save(name, name.as_bytes());
    }
    assert_eq!(bench.listed(), names);
    let mut only_names = Vec::new();
    let mut visit = |name: WalName| {
        only_names.push(name.to_string());
        Ok(())
    };
    bench.storage.list_names(&mut visit).unwrap();
    assert_eq!(only_names, names);
}

/// Writes down what it is told, and refuses one file.
#[derive(Default)]
struct Diary {
    lines: Vec<String>,
    refused: Option<&'static str>,
}

impl AroundDelete for Diary {
    fn before(&mut self, wal: &WalFileInfo, _: &str) -> Result<(), Box<dyn Error + Send + Sync>> {
        if self.refused == Some(wal.name.as_str()) {
            return Err("refused".into());
        }
        self.lines.push(format!("before {}", wal.name));
        Ok(())
    }

    fn after(&mut self, wal: &WalFileInfo, _: &str, error: Option<&StorageError>) {
        assert!(error.is_none());
        self.lines.push(format!("after {}", wal.name));
    }
}

fn deleted_files_are_announced_gone_and_reported(bench: &Bench<'_>) {
    let infos: Vec<WalFileInfo> = [
        "000000010000000000000001",
        "000000010000000000000002",
        "00000002.history",
    ]
    .map(|name| bench.save(name, b"content").info)
    .into();
    bench.save("000000010000000000000003", b"content");
    let mut diary = Diary::default();
    let mut deleted = bench.storage.delete(&infos, &mut diary).unwrap();
    deleted.sort();
    assert_eq!(
        deleted,
        infos
            .iter()
            .map(|info| info.name.clone())
            .collect::<Vec<_>>()
    );
    assert_eq!(bench.listed(), ["000000010000000000000003"]);
    for info in &infos {
        let at = |word| {
            diary
                .lines
                .iter()
                .position(|line| *line == format!("{word} {}", info.name))
        };
        assert!(at("before").unwrap() < at("after").unwrap());
    }
}

fn a_refused_file_stays_with_all_that_follow(bench: &Bench<'_>) {
    let names = ["000000010000000000000001", "000000010000000100000001"];
    let infos = names.map(|name| bench.save(name, b"content").info);
    let mut diary = Diary {
        refused: Some("000000010000000100000001"),
        ..Diary::default()
    };
    assert!(bench.storage.delete(&infos, &mut diary).is_err());
    assert_eq!(bench.listed(), ["000000010000000100000001"]);
}

const RULES: [fn(&Bench<'_>); 9] = [
    nothing_is_visible_before_it_is_published,
    what_is_dropped_leaves_nothing_behind,
    a_published_file_is_never_replaced,
    the_entry_speaks_of_the_stored_form,
    an_adopted_file_keeps_its_bytes,
    a_file_that_is_not_ours_is_never_adopted,
    files_are_listed_in_barmans_order,
    deleted_files_are_announced_gone_and_reported,
    a_refused_file_stays_with_all_that_follow,
];

/// Checks every rule, each on a storage of its own, which is told a directory that nothing else uses.
pub(super) fn check_all<S: WalStorageStrategy>(new: impl Fn(&Path) -> S) {
    for rule in RULES {
        let home = TempDir::new().unwrap();
        let sources = home.path().join("sources");
        fs::create_dir(&sources).unwrap();
        let storage = new(&home.path().join("wals"));
        fs::create_dir_all(home.path().join("wals")).unwrap();
        rule(&Bench {
            storage: &storage,
            sources: &sources,
        });
    }
}

#[test]
fn memory_conforms() {
    check_all(|_| Memory::default());
}

#[test]
fn a_local_directory_conforms() {
    check_all(|root| Local::new(root, &ServerConfig::with_defaults("main", root)));
}

#[test]
fn a_local_directory_goes_in_one_step_when_all_of_it_goes() {
    let home = TempDir::new().unwrap();
    let root = home.path().join("wals");
    let storage = Local::new(&root, &ServerConfig::with_defaults("main", &root));
    let bench = Bench {
        storage: &storage,
        sources: home.path(),
    };
    let infos = ["000000010000000000000001", "000000010000000000000002"]
        .map(|name| bench.save(name, b"content").info);
    let mut diary = Diary::default();
    storage.delete(&infos, &mut diary).unwrap();
    let kinds: Vec<_> = diary
        .lines
        .iter()
        .map(|line| line.split(' ').next().unwrap())
        .collect();
    assert_eq!(kinds, ["before", "before", "after", "after"]);
    assert!(!root.join("0000000100000000").exists());
}

#[test]
fn a_leftover_that_is_a_hard_link_to_the_source_does_not_harm_it() {
    let home = TempDir::new().unwrap();
    let root = home.path().join("wals");
    let storage = Local::new(&root, &ServerConfig::with_defaults("main", &root));
    let bench = Bench {
        storage: &storage,
        sources: home.path(),
    };
    let source = bench.source(SEGMENT, b"content");
    std::mem::forget(storage.adopt(&source).unwrap().unwrap());
    // The rerun sees a second name, so it copies; the copy must not go into that name's file.
    assert!(storage.adopt(&source).unwrap().is_none());
    let mut staged = storage.stage(&source).unwrap();
    staged.write_all(b"co").unwrap();
    assert_eq!(fs::read(&source.path).unwrap(), b"content");
}

#[test]
fn what_is_written_to_a_source_after_detaching_does_not_reach_the_archive() {
    let home = TempDir::new().unwrap();
    let root = home.path().join("wals");
    let storage = Local::new(&root, &ServerConfig::with_defaults("main", &root));
    let bench = Bench {
        storage: &storage,
        sources: home.path(),
    };
    let source = bench.source(SEGMENT, b"content");
    let sealed = storage.adopt(&source).unwrap().unwrap();
    assert!(sealed.is_shared());
    sealed.publish().unwrap();
    assert!(storage.detach(&source).unwrap());
    fs::write(&source.path, b"another").unwrap();
    assert_eq!(bench.content(SEGMENT), b"content");
    assert!(!storage.detach(&source).unwrap());
    let left: Vec<_> = fs::read_dir(root.join("0000000100000000"))
        .unwrap()
        .collect();
    assert_eq!(left.len(), 1);
}
