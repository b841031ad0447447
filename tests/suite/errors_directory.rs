//! An errors directory on another file system: does everything that is set aside arrive, whole?

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};

use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use tempfile::TempDir;

use crate::support::home::{Home, mode, names, put, time_of, tree};
use crate::support::wal::Segment;

const FIRST: &str = "000000010000000000000001";

/// A home that takes WAL from both archivers and whose errors directory is in memory.
fn home_with_errors_elsewhere() -> (Home, TempDir) {
    let errors = tempfile::Builder::new()
        .prefix("walarch-errors.")
        .tempdir_in("/dev/shm")
        .unwrap();
    let home = Home::with(&[
        ("errors_directory", errors.path().to_str().unwrap()),
        ("streaming_archiver", "on"),
    ]);
    assert_ne!(
        errors.path().metadata().unwrap().dev(),
        home.incoming().metadata().unwrap().dev()
    );
    (home, errors)
}

#[test]
fn two_files_of_one_name_arrive_and_a_directory_arrives_whole() {
    let (home, errors) = home_with_errors_elsewhere();
    home.incoming_segments([1]);
    home.archive().exits(0);
    let others = [50, 51].map(|seed| Segment::small(1).seed(seed).bytes());
    put(&home.incoming(), FIRST, &others[0]);
    put(&home.streaming(), FIRST, &others[1]);
    home.streaming_segments([2]); // the receiver needs the last one
    let directory = home.incoming().join("directory");
    fs::create_dir_all(directory.join("deep")).unwrap();
    put(&directory, "file", b"in the directory");
    put(&directory.join("deep"), "file", b"deep in the directory");
    home.archive().exits(0);

    let arrived = names(errors.path());
    assert_eq!(arrived.len(), 3, "{arrived:?}");
    assert!(
        !arrived.iter().any(|name| name.starts_with('.')),
        "{arrived:?}"
    );
    let mut found: Vec<Vec<u8>> = arrived[..2]
        .iter()
        .map(|name| {
            assert!(name.starts_with(FIRST) && name.ends_with(".duplicate"));
            let path = errors.path().join(name);
            assert_eq!(mode(&path), 0o640);
            assert_eq!(path.metadata().unwrap().modified().unwrap(), time_of(FIRST));
            fs::read(path).unwrap()
        })
        .collect();
    found.sort();
    let mut expected = others.to_vec();
    expected.sort();
    assert!(found == expected, "not the two files that were sent");
    let moved = errors.path().join(&arrived[2]);
    let inside: Vec<_> = tree(&moved)
        .iter()
        .map(|path| path.display().to_string())
        .collect();
    assert_eq!(inside, ["deep", "deep/file", "file"]);
    assert_eq!(fs::read(moved.join("file")).unwrap(), b"in the directory");
    assert_eq!(
        fs::read(moved.join("deep/file")).unwrap(),
        b"deep in the directory"
    );
    assert_eq!(names(&home.incoming()), [""; 0]);
}

#[test]
fn a_stranger_that_cannot_be_moved_does_not_keep_the_others() {
    let (home, errors) = home_with_errors_elsewhere();
    put(&home.incoming(), "a-stranger", b"?");
    let pipe = home.incoming().join("pipe");
    mkfifo(&pipe, Mode::S_IRUSR).unwrap();
    put(&home.incoming(), "stranger", b"?");
    let files = home.incoming_segments([1]);
    let run = home.archive().exits(1);
    assert!(
        run.stderr.contains(pipe.to_str().unwrap()),
        "{}",
        run.stderr
    );
    assert!(pipe.metadata().unwrap().file_type().is_fifo());
    assert_eq!(names(&home.incoming()), ["pipe"]);
    let arrived = names(errors.path());
    assert!(
        matches!(&arrived[..], [a, b] if a.starts_with("a-stranger.") && b.starts_with("stranger.")),
        "{arrived:?}"
    );
    home.assert_archived(FIRST, &files[FIRST]);
}
