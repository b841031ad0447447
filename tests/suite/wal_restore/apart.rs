//! The process that fetches ahead, apart from the one that started it.

use super::ahead::{kill, wait_for_end_of_prefetch};
use super::*;

/// As `flock LOCK walarch wal-restore ...`, or under a shell that reads a pipe to its end.
#[test]
fn who_fetches_ahead_keeps_nothing_that_its_starter_had_open() {
    let home = archive(1..=4);
    // It stays as long as this answer is not there.
    let script = home.script(
        "slow",
        "shift 2; if [ \"$1\" = 000000010000000000000002 ]; then sleep 600; fi\n\
         exec {root}/walarch -c {root}/barman.conf get-wal main \"$1\"",
    );
    symlink(Walarch.program(), home.root().join("walarch")).unwrap();
    let sshd = Sshd::start(&home, Walarch);
    let database = DatabaseHost::new();
    let program = script.to_str().unwrap();
    let arguments = [
        "-p",
        "2",
        "--remote-program",
        program,
        HOST,
        "main",
        FIRST,
        "pg_wal/RECOVERYXLOG",
    ];
    let client = database.client(Walarch, &sshd, &arguments);
    let guard = home.root().join("guard");
    let line = format!(
        "exec 9>'{}' && flock -n 9 && exec \"$@\"",
        guard.to_str().unwrap()
    );
    let mut command = Command::new("sh");
    command
        .args(["-c", &line, "sh"])
        .arg(client.get_program())
        .args(client.get_args());
    command.current_dir(database.data()).env_clear();
    for (name, value) in client.get_envs() {
        command.envs(value.map(|value| (name, value)));
    }
    run(&mut command).exits(0);
    let half = format!(".{}.tmp", segment(2).name());
    wait_for("a segment on its way", || {
        database.spooled().join(&half).exists().then_some(())
    });
    // It opens its own files before it fetches, so that it has let go of others by now.
    File::open(&guard).unwrap().try_lock().unwrap();
    let prefetch = fs::read_to_string(database.spooled().join(".lock")).unwrap();
    let stat = fs::read_to_string(format!("/proc/{}/stat", prefetch.trim())).unwrap();
    let (_, fields) = stat.rsplit_once(')').unwrap();
    let session = fields.split_whitespace().nth(3);
    assert_eq!(session, Some(prefetch.trim()), "it leads a session: {stat}");
    kill(prefetch.trim());
}

/// PostgreSQL as process 1 takes any other end of an orphan for the crash of a backend.
#[test]
fn who_fetches_ahead_ends_with_0_whatever_is_wrong() {
    let home = archive([1]);
    let database = DatabaseHost::new();
    let mut command = Walarch.command(
        &home,
        &[
            "wal-restore",
            "--prefetch",
            "--local",
            "-p",
            "2",
            "other",
            FIRST,
            "pg_wal/RECOVERYXLOG",
        ],
    );
    run(command.current_dir(database.data())).exits(0);
    fs::write(home.config_file(), "[broken").unwrap();
    run(&mut command).exits(0);
    assert_eq!(names(&database.data().join("pg_wal")), [""; 0]);
}

/// A filter has no time limit.
#[test]
fn who_fetches_ahead_gives_up_when_nothing_moves_any_more() {
    let home = Home::with(&[
        ("compression", "custom"),
        ("custom_compression_filter", "gzip -c"),
        ("custom_decompression_filter", "{root}/filter"),
    ]);
    // The second time it hangs.
    home.script(
        "filter",
        "mkdir {root}/first 2>/dev/null && exec gzip -dc\n\
         touch {root}/hangs; while [ -e {root}/hangs ]; do sleep 0.1; done",
    );
    home.incoming_segments(1..=3);
    home.archive().exits(0);
    let database = DatabaseHost::new();
    let spool = database.spool();
    let spool = spool.to_str().unwrap();
    let arguments = [
        &["wal-restore", "--local", "-p", "1", "--timeout", "1"],
        &["--spool-dir", spool, "main", FIRST, "pg_wal/x"][..],
    ]
    .concat();
    run(Walarch
        .command(&home, &arguments)
        .current_dir(database.data()))
    .exits(0);
    let hangs = home.root().join("hangs");
    wait_for("the filter", || hangs.exists().then_some(()));
    wait_for_end_of_prefetch(&database);
    assert!(hangs.exists());
    fs::remove_file(hangs).unwrap();
}
