//! Fetching ahead: the spool, the plan, and when there is none.

use super::*;

#[test]
fn files_are_fetched_ahead_and_delivered_from_the_spool() {
    let home = archive(1..=8);
    for remote in [Walarch, Barman] {
        let sshd = Sshd::start(&home, remote);
        let database = DatabaseHost::new();
        assert!(database.restore(&sshd, &["-p", "2"], FIRST) == segment(1).bytes());
        database.wait_for_spooled(&names_of(2..=5));
        // From now on the backup host gives nothing.
        drop(sshd);
        let sshd = Sshd::start(&home, remote);
        for number in 2..=5 {
            let name = segment(number).name();
            fs::rename(home.archived(&name), home.root().join(&name)).unwrap();
            assert!(database.restore(&sshd, &["-p", "2"], &name) == segment(number).bytes());
            fs::rename(home.root().join(&name), home.archived(&name)).unwrap();
        }
        for number in 6..=8 {
            let name = segment(number).name();
            assert!(database.restore(&sshd, &["-p", "2"], &name) == segment(number).bytes());
        }
        wait_for("an empty spool", || {
            database.spooled_segments().is_empty().then_some(())
        });
    }
}

/// One that replays more slowly than files come.
#[test]
fn replay_never_waits_for_a_file_that_could_have_been_fetched_ahead() {
    let home = archive(1..=9);
    let sshd = Sshd::start(&home, Walarch);
    let database = DatabaseHost::new();
    database.restore(&sshd, &["-p", "2"], FIRST);
    for number in 2..=9 {
        let name = segment(number).name();
        wait_for("the next segment", || {
            database.spooled_segments().contains(&name).then_some(())
        });
        sshd.freeze();
        let restored = database.restore(&sshd, &["-p", "2"], &name);
        sshd.thaw();
        assert!(restored == segment(number).bytes(), "{name}");
    }
}

/// A spool that holds segments 2 to 5, and the options that filled it.
fn filled_spool() -> (Home, Sshd, DatabaseHost) {
    let home = archive(1..=8);
    let sshd = Sshd::start(&home, Walarch);
    let database = DatabaseHost::new();
    database.restore(&sshd, &["-p", "2"], FIRST);
    database.wait_for_spooled(&names_of(2..=5));
    (home, sshd, database)
}

#[test]
fn a_spool_file_that_is_not_what_it_should_be_is_fetched_again() {
    let (_home, sshd, database) = filled_spool();
    let spooled = |number: u64| database.spooled().join(segment(number).name());
    // Cut, of another place, of another cluster, of long ago.
    File::options()
        .write(true)
        .open(spooled(2))
        .unwrap()
        .set_len(500_000)
        .unwrap();
    fs::write(spooled(3), segment(7).bytes()).unwrap();
    fs::write(spooled(4), segment(4).system_id(42).bytes()).unwrap();
    fs::write(spooled(5), segment(5).seed(99).bytes()).unwrap();
    let old = File::options().write(true).open(spooled(5)).unwrap();
    old.set_modified(time_of("long ago")).unwrap();
    for number in 2..=5 {
        let name = segment(number).name();
        let restored = database.restore(&sshd, &["-p", "2"], &name);
        assert!(restored == segment(number).bytes(), "{name}");
    }
}

/// What comes good may still be nothing that a spool may keep.
#[test]
fn a_segment_that_the_spool_refuses_is_asked_for_once_and_ends_the_prefetch() {
    let home = archive([1, 3, 4]);
    // Of a PostgreSQL that is not known yet.
    let unknown = segment(2).magic(0xD1F0);
    put(&home.incoming(), &unknown.name(), &unknown.bytes());
    home.archive().exits(0);
    let script = home.script(
        "count",
        "echo \"$*\" >>{root}/requests; exec {root}/walarch -c {root}/barman.conf \"$@\"",
    );
    symlink(Walarch.program(), home.root().join("walarch")).unwrap();
    let sshd = Sshd::start(&home, Walarch);
    let database = DatabaseHost::new();
    let options = ["-p", "2", "--remote-program", script.to_str().unwrap()];
    database.restore(&sshd, &options, FIRST);
    let requests = || {
        let requests = fs::read_to_string(home.root().join("requests")).unwrap();
        requests.matches(&unknown.name()).count()
    };
    wait_for("the prefetch", || (requests() > 0).then_some(()));
    wait_for_end_of_prefetch(&database);
    assert_eq!(requests(), 1);
    assert_eq!(database.spooled_segments(), [""; 0]);
    let restored = database.restore(&sshd, &options, &unknown.name());
    assert!(restored == unknown.bytes());
    assert_eq!(requests(), 2);
}

#[test]
fn the_spool_of_another_recovery_is_not_used() {
    let (home, sshd, database) = filled_spool();
    for number in 2..=5 {
        let forged = segment(number).seed(99).bytes();
        fs::write(database.spooled().join(segment(number).name()), forged).unwrap();
    }
    let second = segment(2).name();
    // The spool is of use at all.
    assert!(database.restore(&sshd, &["-p", "2"], &second) == segment(2).seed(99).bytes());
    let third = segment(3).name();
    // Another way to the archive, and so perhaps another archive.
    let config = home.config_file();
    let elsewhere = ["-p", "2", "-c", config.to_str().unwrap()];
    assert!(database.restore(&sshd, &elsewhere, &third) == segment(3).bytes());
    // Another cluster in the same place.
    database.be_cluster(42);
    let arguments = ["-p", "2", HOST, "main", &third, "pg_wal/RECOVERYXLOG"];
    database.run(Walarch, &sshd, &arguments).exits(4);
    // Back again: nothing of before is left.
    database.be_cluster(SYSTEM_ID);
    assert!(database.restore(&sshd, &["-p", "2"], &third) == segment(3).bytes());
}

#[test]
fn without_a_private_spool_nothing_is_fetched_ahead_and_the_file_comes_all_the_same() {
    let (_home, sshd, database) = filled_spool();
    fs::set_permissions(database.spooled(), Permissions::from_mode(0o777)).unwrap();
    let name = segment(2).name();
    let arguments = ["-p", "2", HOST, "main", &name, "pg_wal/RECOVERYXLOG"];
    let run = database.run(Walarch, &sshd, &arguments).exits(0);
    assert!(
        run.stderr.starts_with("WARNING: nothing is fetched ahead"),
        "{run:?}"
    );
    assert!(fs::read(database.received()).unwrap() == segment(2).bytes());
}

#[test]
fn a_spool_below_a_directory_that_others_may_change_is_not_used() {
    let (_home, sshd, database) = filled_spool();
    let name = segment(2).name();
    let arguments = ["-p", "2", HOST, "main", &name, "pg_wal/RECOVERYXLOG"];
    for (mode, is_used) in [(0o777, false), (0o770, false), (0o1777, true)] {
        fs::set_permissions(database.spool(), Permissions::from_mode(mode)).unwrap();
        let run = database.run(Walarch, &sshd, &arguments).exits(0);
        let refused = run.stderr.starts_with("WARNING: nothing is fetched ahead");
        assert_eq!(refused, !is_used, "{mode:o}: {run:?}");
        assert_eq!(refused, run.stderr.contains("HINT: "), "{mode:o}: {run:?}");
        assert!(fs::read(database.received()).unwrap() == segment(2).bytes());
    }
}

#[test]
fn a_delivered_segment_stays_delivered_whatever_fetching_ahead_meets_then() {
    let (home, sshd, database) = filled_spool();
    wait_for_end_of_prefetch(&database);
    // The position cannot be written any more, and the archive does not have the segment any more either.
    fs::create_dir_all(database.spooled().join("..position.tmp/in-the-way")).unwrap();
    let name = segment(2).name();
    fs::rename(home.archived(&name), home.root().join(&name)).unwrap();
    let arguments = ["-p", "2", HOST, "main", &name, "pg_wal/RECOVERYXLOG"];
    let run = database.run(Walarch, &sshd, &arguments).exits(0);
    assert!(
        run.stderr.starts_with("WARNING: nothing is fetched ahead"),
        "{run:?}"
    );
    assert!(fs::read(database.received()).unwrap() == segment(2).bytes());
}

pub(super) fn wait_for_end_of_prefetch(database: &DatabaseHost) {
    wait_for("the end of the prefetch", || {
        let lock = File::open(database.spooled().join(".lock")).ok()?;
        lock.try_lock().ok()
    });
}

#[test]
fn the_spools_of_recoveries_that_are_over_are_removed_and_nothing_else() {
    let (_home, sshd, database) = filled_spool();
    wait_for_end_of_prefetch(&database);
    let spool = database.spool();
    let spooled = database.spooled();
    let spooled = spooled.file_name().unwrap().to_str().unwrap();
    let session = fs::read(spool.join(spooled).join(".session")).unwrap();
    // One that somebody else uses in that way, one of another name, one with something else in it.
    let strangers = [
        ("main-0123456789abcdef", &b"whatever"[..], ".lock"),
        ("main", &session, ".lock"),
        ("main-fedcba9876543210", &session, "letters"),
    ];
    for (name, session, file) in strangers {
        fs::create_dir(spool.join(name)).unwrap();
        fs::set_permissions(spool.join(name), Permissions::from_mode(0o700)).unwrap();
        fs::write(spool.join(name).join(".session"), session).unwrap();
        fs::write(spool.join(name).join(file), "").unwrap();
    }
    for name in names(&spool) {
        let directory = File::open(spool.join(name)).unwrap();
        directory.set_modified(time_of("long ago")).unwrap();
    }
    // Another recovery begins.
    fs::create_dir_all(database.folder.path().join("other/pg_wal")).unwrap();
    let arguments = ["-p", "2", HOST, "main", FIRST, "../other/pg_wal/x"];
    database.run(Walarch, &sshd, &arguments).exits(0);
    let left = names(&spool);
    assert!(!left.contains(&spooled.to_owned()), "{left:?}");
    for (name, _, file) in strangers {
        let mut expected = vec![".session", file];
        expected.sort_unstable();
        assert_eq!(names(&spool.join(name)), expected, "{name}");
    }
}

#[test]
fn the_spool_is_bounded_and_follows_the_position() {
    let home = archive(1..=60);
    let sshd = Sshd::start(&home, Walarch);
    let database = DatabaseHost::new();
    database.restore(&sshd, &["-p", "3"], FIRST);
    database.wait_for_spooled(&names_of(2..=7));
    // PostgreSQL got segments from elsewhere meanwhile.
    database.restore(&sshd, &["-p", "3"], &segment(20).name());
    database.wait_for_spooled(&names_of(21..=26));
}

#[test]
fn the_plan_follows_the_timelines() {
    let home = archive(1..=4);
    // Timeline 2 branches off in segment 2.
    let (history, _) = wal::history(2);
    let text = format!("1\t0/{:X}\tno reason\n", (2 << 20) + 5000);
    put(&home.incoming(), &history, text.as_bytes());
    fs::remove_file(home.archived(&history)).unwrap();
    for number in 2..=6 {
        let segment = segment(number).timeline(2);
        put(&home.incoming(), &segment.name(), &segment.bytes());
    }
    home.archive().exits(0);
    let sshd = Sshd::start(&home, Walarch);
    let database = DatabaseHost::new();
    database.restore(&sshd, &["-p", "2"], &history);
    database.restore(&sshd, &["-p", "2"], FIRST);
    let second = segment(2).timeline(2).name();
    let expected: Vec<String> = (2..=5)
        .map(|number| segment(number).timeline(2).name())
        .collect();
    database.wait_for_spooled(&expected);
    assert!(database.restore(&sshd, &["-p", "2"], &second) == segment(2).timeline(2).bytes());
    // A history is never delivered from the spool: it may have grown.
    fs::write(home.archived(&history), "1\t0/9\tother\n").unwrap();
    assert_eq!(
        database.restore(&sshd, &["-p", "2"], &history),
        b"1\t0/9\tother\n"
    );
}

#[test]
fn nothing_is_fetched_ahead_for_pg_rewind_or_with_partial_segments() {
    let home = archive(1..=4);
    let sshd = Sshd::start(&home, Walarch);
    let database = DatabaseHost::new();
    let restore = ["-p", "2", "-P", HOST, "main", FIRST, "pg_wal/RECOVERYXLOG"];
    database.run(Walarch, &sshd, &restore).exits(0);
    assert!(!database.spool().exists());
    // It starts the command by a shell.
    let client = database.client(
        Walarch,
        &sshd,
        &["-p", "2", HOST, "main", FIRST, "pg_wal/RECOVERYXLOG"],
    );
    let line: Vec<String> = [client.get_program()]
        .into_iter()
        .chain(client.get_args())
        .map(|word| format!("'{}'", word.to_str().unwrap()))
        .collect();
    let rewind = home.script("pg_rewind", &format!("sh -c \"{}; true\"", line.join(" ")));
    let mut command = Command::new(rewind);
    command.current_dir(database.data());
    run(sshd.reachable_from(&mut command)).exits(0);
    assert!(fs::read(database.received()).unwrap() == segment(1).bytes());
    assert!(!database.spool().exists());
}

#[test]
fn a_killed_prefetch_delivers_nothing_half_and_the_next_one_goes_on() {
    let home = archive(1..=8);
    // Every second answer stops half-way.
    let script = home.script(
        "slow",
        "shift 2; if [ \"$1\" = 000000010000000000000003 ] && ! [ -e {root}/again ]; then\n\
         head -c 300000 {root}/third; sleep 600; fi\n\
         exec {root}/walarch -c {root}/barman.conf get-wal main \"$1\"",
    );
    symlink(Walarch.program(), home.root().join("walarch")).unwrap();
    fs::write(home.root().join("third"), segment(3).bytes()).unwrap();
    let sshd = Sshd::start(&home, Walarch);
    let database = DatabaseHost::new();
    let options = ["-p", "2", "--remote-program", script.to_str().unwrap()];
    database.restore(&sshd, &options, FIRST);
    let half = format!(".{}.tmp", segment(3).name());
    wait_for("half a segment", || {
        database.spooled().join(&half).exists().then_some(())
    });
    let prefetch = fs::read_to_string(database.spooled().join(".lock")).unwrap();
    kill(prefetch.trim());
    fs::write(home.root().join("again"), "").unwrap();
    for number in 2..=6 {
        let name = segment(number).name();
        assert!(database.restore(&sshd, &options, &name) == segment(number).bytes());
    }
}

pub(super) fn kill(process: &str) {
    use nix::sys::signal::{Signal, kill};
    let id = nix::unistd::Pid::from_raw(process.parse().unwrap());
    kill(id, Signal::SIGKILL).unwrap();
}
