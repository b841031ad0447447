//! A check leaves no trace, and keeps nobody waiting.

use super::*;

#[test]
fn encryption_is_tried_as_by_barman_but_leaves_nothing_behind() {
    let server = healthy_server();
    let encrypted = [
        ("encryption", "gpg"),
        ("encryption_key_id", "barman@example.com"),
        ("backup_compression", "gzip"),
        ("backup_compression_format", "tar"),
    ];
    let home = archiving_home(&server, &[]).gpg_key();
    let conf = fs::read_to_string(home.config_file()).unwrap();
    let options: String = encrypted
        .map(|(key, value)| format!("{key} = {value}\n"))
        .concat();
    fs::write(home.config_file(), format!("{conf}{options}")).unwrap();
    let before = every_file(home.root());
    let run = home.run(&CHECK).exits(0);
    assert!(
        run.stdout
            .contains("encryption: OK (encryption test succeeded"),
        "{run:?}"
    );
    let after = every_file(home.root());
    assert_eq!(after, before);
    // gpg has looked at the trust of its keys now.
    Barman.run(&home, &CHECK).exits(0);
    let lines = both_say(&home, false, &CHECK);
    assert_eq!(
        verdict(&lines, "encryption"),
        "OK (encryption test succeeded)"
    );

    let other = format!("{conf}{options}").replace("barman@example.com", "nobody@example.com");
    fs::write(home.config_file(), other).unwrap();
    let (run, lines) = walarchs(&home, false);
    assert_eq!(run.code, 1);
    assert!(verdict(&lines, "encryption").starts_with("FAILED (encryption test failed"));
}

/// Every regular file below, with size and time, the log aside.
fn every_file(root: &Path) -> Vec<(String, u64, SystemTime)> {
    let files = crate::support::home::tree(root).into_iter();
    files
        .map(|path| (path.display().to_string(), root.join(path)))
        .filter(|(name, path)| name != "barman.log" && path.is_file())
        .map(|(name, path)| {
            let metadata = path.metadata().unwrap();
            (name, metadata.len(), metadata.modified().unwrap())
        })
        .collect()
}

#[test]
fn not_one_file_is_changed_and_nobody_is_locked_out() {
    let server = healthy_server();
    let _streamer = Streamer::start(&server, "traced");
    let healthy = streaming_home(&server, "traced", &[("archiver", "on")]);
    let _lock = pretend_to_receive(&healthy);
    // Here Barman would create directories, archive what waits, and switch to another segment.
    let bare = home_of(&server, &[]);
    let conf = fs::read_to_string(bare.config_file()).unwrap();
    let encrypted = format!(
        "{conf}encryption = gpg
encryption_key_id = nobody
"
    );
    fs::write(bare.config_file(), encrypted).unwrap();
    fs::remove_file(bare.xlogdb_file()).unwrap();
    fs::remove_dir(bare.errors()).unwrap();
    bare.incoming_segments([9]);
    for (home, code) in [(&healthy, 0), (&bare, 1)] {
        for arguments in [
            &CHECK[..],
            &["check", "main", "--nagios"],
            &["status", "main"],
        ] {
            let options = ["-e".to_owned(), format!("trace={CHANGING},flock")];
            let (run, calls) = traced(Walarch, home, arguments, &options);
            let expected = match (code, arguments.last()) {
                (_, Some(&"main")) if arguments[0] == "status" => 0,
                (1, Some(&"--nagios")) => 2,
                _ => code,
            };
            run.exits(expected);
            let bad: Vec<&Call> = calls
                .iter()
                .filter(|call| call.succeeded && (call.changes() || call.locks_out()))
                .filter(|call| !is_log(call, home))
                .collect();
            assert!(bad.is_empty(), "{bad:#?}");
            assert!(calls.len() > 10, "nothing was recorded");
        }
    }
}

fn is_log(call: &Call, home: &Home) -> bool {
    let effect = call.effect();
    let path = effect.path().unwrap_or(Path::new(""));
    // Devices keep nothing.
    path == home.root().join("barman.log") || path.starts_with("/dev")
}

#[test]
fn where_barman_would_act_a_hint_names_the_command() {
    let server = healthy_server();
    let home = home_of(&server, &[]);
    fs::remove_file(home.xlogdb_file()).unwrap();
    fs::remove_dir(home.incoming()).unwrap();
    let (_, lines) = walarchs(&home, false);
    assert_eq!(
        failed(&lines),
        [
            "WAL archive: FAILED (please make sure WAL shipping is setup. \
             'walarch switch-wal --force --archive main' shows whether it is)",
            "directories: FAILED (ROOT/home/main/incoming: No such file or directory. \
             Please execute 'mkdir -p ROOT/home/main/incoming')",
        ]
    );
    fs::create_dir(home.incoming()).unwrap();
    home.incoming_segments([9]);
    let (_, lines) = walarchs(&home, false);
    assert_eq!(
        verdict(&lines, "WAL archive"),
        "FAILED (1 files wait to be archived, none has been so far. \
         Please execute 'walarch archive-wal main')"
    );
}

#[test]
fn a_host_that_does_not_answer_costs_no_more_than_the_time_limit() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let conninfo = format!("host=127.0.0.1 port={port} user=nobody sslmode=disable");
    let home = Home::with(&[("conninfo", &conninfo), ("check_timeout", "1")]);
    archive_segment(&home, 1, SystemTime::now());
    let start = Instant::now();
    let run = home.run(&CHECK).exits(1);
    assert_eq!(
        run.stdout,
        "Server main:\n\tcheck timeout: FAILED (barman check command timed out)\n"
    );
    let status = home.run(&["status", "main"]).exits(0);
    assert!(
        status
            .stdout
            .contains("PostgreSQL version: FAILED trying to get")
    );
    let took = start.elapsed();
    assert!(
        (Duration::from_secs(2)..Duration::from_secs(20)).contains(&took),
        "{took:?}"
    );
}
