//! The effective values and the messages against the real Barman's, file by file.

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use serde::Deserialize;
use walarch::config::{ConfigFile, Kind, global_options, server_options};

use super::compare::{ask_barman, case, compare, servers};

/// A server that Barman has nothing to say about.
const GOOD: &str = "conninfo = host=db\narchiver = on\n";

#[test]
fn inheritance_quotes_and_none() {
    compare(&[
        servers("nothing", ""),
        servers("defaults", "[main]\n"),
        servers(
            "usual",
            &format!("[main]\n{GOOD}[other]\n{GOOD}description = \"two words\"\n"),
        ),
        servers(
            "inherited",
            "compression = gzip\npath_prefix = /opt\narchiver = on\nconninfo = host=no\n\
             [a]\ncompression = zstd\nconninfo = host=a\n[b]\ncompression = None\n[c]\n\
             compression =\n[d]\ncompression = ''\n[e]\npath_prefix = 'None'\n[f]\n\
             compression = \"gzip\"\npath_prefix = 'None'\n",
        ),
        servers(
            "none of encryption is no value",
            "encryption = gpg\nencryption_key_id = K\n[a]\nencryption = none\n\
             [b]\nencryption =\n[c]\nencryption = GPG\nencryption_key_id = None\n",
        ),
        servers(
            "none of an interval is no value",
            "last_wal_maximum_age = 1 day\n[a]\nlast_wal_maximum_age = None\n[b]\n\
             last_wal_maximum_age = 3 weeks\n",
        ),
        servers(
            "default section",
            &format!("[DEFAULT]\npath_prefix = /d\nbogus = 1\n[main]\n{GOOD}[o]\npath_prefix=/o\n"),
        ),
        servers(
            "case",
            &format!("[Main]\nDESCRIPTION = X\n{GOOD}[main]\n{GOOD}active = FALSE\n"),
        ),
        servers(
            "many lines",
            "[main]\nconninfo = host=a\n  port=1\n\n  user=b\ndescription = 'a\n  b'\n",
        ),
    ]);
}

#[test]
fn interpolation() {
    compare(&[
        servers(
            "same section",
            "[main]\npath_prefix = /p\ndescription = %(path_prefix)s and %(CLUSTER)s\n\
             cluster = c-%(path_prefix)s\nconninfo = '%(description)s'\n",
        ),
        servers(
            "default section",
            "[DEFAULT]\nroot = /r\n[main]\nwals_directory = %(root)s/w\n",
        ),
        servers(
            "spelled none",
            "[main]\nslot_name = No\ndescription = %(slot_name)sne\n",
        ),
    ]);
}

#[test]
fn invalid_values_and_options() {
    compare(&[
        servers(
            "values",
            "archiver = maybe\ncompression = rar\n[main]\narchiver_batch_size = many\n\
             compression = zip\ncompression_level = hardest\nslot_name = no-slot\n\
             create_slot = never\nactive = 2\nlast_wal_maximum_age = 5\nencryption = rot13\n\
             wals_directory = ftp://x/y\nbasebackups_directory = ftp://x\n\
             aws_encryption = none\ncheck_timeout = 1s\n",
        ),
        servers(
            "options",
            &format!(
                "bogus = 1\nmodel = false\nlog_levels = 2\nconninfo = host=unused\n\
                 [main]\n{GOOD}barman_home = /x\nmodel = off\nbogus = 1\nname = x\njobs = 3\n"
            ),
        ),
        servers("reserved", "[all]\n"),
        case(
            "no home",
            &[("barman.conf", "[barman]\nbarman_user = root\n")],
        ),
    ]);
}

#[test]
fn included_files() {
    let main = "[barman]\nbarman_home = @\nconfiguration_files_directory = @/conf.d\n\
                compression = gzip\n[main]\nconninfo = host=first\narchiver = on\n";
    compare(&[
        case(
            "sorted",
            &[
                ("barman.conf", main),
                (
                    "conf.d/b.conf",
                    "[main]\nconninfo = host=b\n[new]\nconninfo = host=n\n",
                ),
                (
                    "conf.d/a.conf",
                    "[main]\nconninfo = host=a\nslot_name = a\n[DEFAULT]\nx = 1\n",
                ),
                ("conf.d/.hidden.conf", "[main]\nconninfo = host=hidden\n"),
                ("conf.d/c.conf.bak", "[main]\nconninfo = host=backup\n"),
                ("conf.d/d.conf/e.conf", "[main]\nconninfo = host=deeper\n"),
                (
                    ".barman.auto.conf",
                    "[new]\nslot_name = auto\narchiver = on\n",
                ),
            ],
        ),
        case(
            "the same barman section",
            &[
                ("barman.conf", main),
                ("conf.d/a.conf", "[barman]\ncompression = gzip\n"),
            ],
        ),
        case(
            "another barman section",
            &[
                ("barman.conf", main),
                ("conf.d/a.conf", "[barman]\ncompression = bzip2\n"),
            ],
        ),
        case("no directory", &[("barman.conf", main)]),
        case(
            "references stay in their file",
            &[
                (
                    "barman.conf",
                    "[barman]\nbarman_home = @\nconfiguration_files_directory = @\n\
                     [DEFAULT]\nroot = /a\n[main]\npath_prefix = %(root)s/bin\n",
                ),
                ("z.conf", "[main]\nroot = /b\ndescription = %(root)s\n"),
            ],
        ),
        case(
            "auto conf with a barman section",
            &[
                ("barman.conf", main),
                (".barman.auto.conf", "[barman]\nslot_name = x\n"),
            ],
        ),
        case(
            "auto conf is a directory",
            &[
                ("barman.conf", "[barman]\nbarman_home = @\n[main]\n"),
                (".barman.auto.conf/x", ""),
            ],
        ),
    ]);
}

#[test]
fn conflicting_directories() {
    compare(&[
        servers(
            "inside a server",
            "[main]\nincoming_wals_directory = @/x\nstreaming_wals_directory = @/x/\n\
             errors_directory = @/main/incoming/../wals\n",
        ),
        servers(
            "between servers",
            "[b]\nwals_directory = @/x\n[a]\nwals_directory = @/./x\nerrors_directory = @/b\n",
        ),
        servers(
            "buckets never conflict",
            "[a]\nwals_directory = s3://b/x\nbasebackups_directory = s3://b/x\n\
             [b]\nwals_directory = s3://b/x\nxlogdb_directory = @/own\n[c]\n\
             wals_directory = gs://b\nxlogdb_directory = gs://b/sub\n",
        ),
    ]);
}

#[test]
fn models() {
    let models = "[main]\nconninfo = host=db\narchiver = on\ncluster = c\ncompression = gzip\n\
                  [standby]\nmodel = true\ncluster = c\nconninfo = host=standby\n\
                  path_prefix = 'None'\ncompression_level = low\nactive = off\nslot_name = s\n\
                  archiver = maybe\nwals_directory = /no\nbogus = 1\npre_archive_script = no\n\
                  [foreign]\nmodel = yes\ncluster = other\ndescription = x\n\
                  [off]\nmodel = 1\ncluster = c\ndisabled = true\nprimary_ssh_command = ssh b\n";
    let active = |name: &'static str, model: &str| {
        let mut case = servers(name, models);
        case.files
            .push(("main/.active-model.auto", model.to_owned()));
        case
    };
    compare(&[
        servers("models at rest", models),
        active("active", "standby\n"),
        active("of another cluster", "foreign"),
        active("disabling", " off "),
        active("vanished", "gone"),
        active("empty", "\n"),
        servers("without cluster", "[m]\nmodel = true\n"),
    ]);
    let dir = tempfile::tempdir().unwrap();
    let path = servers("quoted", "[m]\nmodel = 'true'\ncluster = c\n").write(dir.path());
    let error = ConfigFile::open(&path)
        .and_then(ConfigFile::load)
        .map(|_| ())
        .unwrap_err();
    assert_eq!(
        (error.line_number(), error.option_name()),
        (Some(5), Some("model"))
    );
    assert!(error.text().starts_with("Invalid boolean representation"));
}

#[test]
fn what_a_command_does_to_the_servers_it_selects() {
    compare(&[
        servers(
            "archivers",
            "[neither]\nconninfo = host=a\n[inactive]\nactive = off\n\
             [passive]\nprimary_ssh_command = ssh b\n[no_conninfo]\narchiver = on\n\
             [stream]\nconninfo = host=a\nstreaming_archiver = on\n\
             [stream_slot]\nconninfo = host=a\nstreaming_archiver = on\nslot_name = S1\n\
             [both]\nconninfo = host=a\nstreaming_archiver = on\narchiver = on\n\
             [nothing_streams]\nstreaming_archiver = on\n\
             [backup]\narchiver = on\nbackup_method = Postgres\n",
        ),
        servers(
            "connections for wal",
            "archiver = on\n[a]\nconninfo = host=a\nwal_streaming_conninfo = host=s\n\
             [b]\nconninfo = host=a\nwal_conninfo = host=w\n[c]\nconninfo = host=a\n\
             streaming_conninfo = host=x\nwal_conninfo = host=w\nwal_streaming_conninfo = host=s\n",
        ),
    ]);
}

/// Texts that some kind of option takes in a way of its own.
const NASTY: &[&str] = &[
    "",
    "None",
    "'None'",
    "\"\"",
    "'a'b'",
    "'",
    "0",
    "-1",
    "+7",
    "1_0",
    "007",
    "--5",
    "1.5",
    "on",
    "OFF",
    "T",
    "yes",
    "truely",
    "low",
    "HIGH",
    "1 day",
    "10  Months",
    "1 year",
    "gzip",
    "GZip",
    "custom",
    "gpg",
    "None ",
    "manual",
    "Auto",
    "slot_1",
    "Slot_1",
    "slot-1",
    "AES256",
    "aws:kms",
    "s3://b/p",
    "s3://",
    "gs://b",
    "ftp://x/y",
    "https://a.blob.core.windows.net/c",
    "two words",
    "\"quoted\"",
    "ünï",
    "tab\there",
    "a ; b # c",
    "x\n y",
    "\n y",
    "99999999999999999999999 days",
];

/// Where both stop, or differ knowingly: an empty directory, one that makes the directories below it
/// invalid, a huge interval, and `none` for no compression.
fn is_comparable(option: &str, text: &str) -> bool {
    match option {
        "backup_directory" if ["s3://", "ftp://x/y"].contains(&text) => false,
        "last_wal_maximum_age" => !text.starts_with("999"),
        "compression" => text != "'None'",
        // Barman looks at it when it compresses.
        "custom_compression_magic" => false,
        _ if option.ends_with("_directory") => {
            !["", "None", "'None'", "\"\""].contains(&text.trim())
        }
        _ => true,
    }
}

#[test]
fn every_option_takes_every_text_as_barman_does() {
    let mut server_level = String::new();
    let mut cases = Vec::new();
    let wal_side = || {
        server_options()
            .iter()
            .filter(|option| option.is_wal_side())
    };
    for (number, text) in NASTY.iter().enumerate() {
        let mut all = String::new();
        for name in wal_side().map(|option| option.name) {
            if !is_comparable(name, text) {
                continue;
            }
            let line = format!("{name} = {text}\n");
            if name == "xlogdb_directory" || !name.ends_with("_directory") {
                all.push_str(&line);
            } else if text.contains(['/', '"', '\'', ' ']) {
                // On its own: equal directories disable a server.
                server_level.push_str(&format!("[{name}_{number}]\n{line}"));
            }
        }
        server_level.push_str(&format!("[all_{number}]\n{all}"));
        let global_level = all;
        // Inherited, and against a value that means "none".
        let own: String = [
            "compression",
            "slot_name",
            "path_prefix",
            "archiver_batch_size",
        ]
        .iter()
        .map(|name| format!("{name} = None\n"))
        .collect();
        cases.push(servers("global", &format!("{global_level}[a]\n[b]\n{own}")));
        cases.last_mut().unwrap().name = Box::leak(format!("global {number}").into_boxed_str());
    }
    // Connections are opened lazily, but their strings are parsed by libpq: not our subject here.
    cases.push(servers("server", &server_level));
    compare(&cases);
}

#[test]
fn random_references_mean_what_they_mean_in_barman() {
    // A chain, so that no circle arises: each may refer to those behind it.
    const CHAIN: [&str; 5] = [
        "description",
        "path_prefix",
        "encryption_key_id",
        "ssh_command",
        "bandwidth_limit",
    ];
    let mut runner = TestRunner::default();
    let fragment = prop_oneof!["[a-z'\" ]{0,3}", "None", Just("@".to_owned())];
    let value = proptest::collection::vec((fragment, any::<Option<prop::sample::Index>>()), 0..4);
    let mut text = String::new();
    for server in 0..300 {
        text.push_str(&format!("[s{server}]\n"));
        for (position, name) in CHAIN.iter().enumerate() {
            let behind = &CHAIN[position + 1..];
            let mut written = String::new();
            for (fragment, index) in value.new_tree(&mut runner).unwrap().current() {
                written.push_str(&fragment);
                if let Some(index) = index.filter(|_| !behind.is_empty()) {
                    written.push_str(&format!("%({})s", index.get(behind)));
                }
            }
            text.push_str(&format!("{name} = {written}\n"));
        }
    }
    compare(&[servers("references", &text)]);
}

#[test]
fn the_option_table_is_barmans() {
    #[derive(Deserialize)]
    struct Row {
        name: String,
        default: Option<String>,
        parser: Option<String>,
        inherited: bool,
        fixed: bool,
        model: bool,
    }
    let rows: Vec<Row> = ask_barman(&serde_json::json!({ "table": true }));
    let names: Vec<&str> = server_options().iter().map(|option| option.name).collect();
    let expected: Vec<&str> = rows.iter().map(|row| &*row.name).collect();
    assert_eq!(names, expected);
    for (option, row) in server_options().iter().zip(&rows) {
        assert_eq!(option.default, row.default.as_deref(), "{}", row.name);
        assert_eq!(option.is_allowed_in_models(), row.model, "{}", row.name);
        assert_eq!(option.is_read_from_server(), !row.fixed, "{}", row.name);
        assert_eq!(
            option.is_inherited(),
            row.inherited && !row.fixed,
            "{}",
            row.name
        );
        let is_text = matches!(option.kind, Kind::Text);
        assert!(
            option.kind == Kind::BaseBackup || is_text == row.parser.is_none(),
            "{}",
            row.name
        );
    }
    assert!(
        global_options()
            .iter()
            .all(|option| !names.contains(&option.name))
    );
}
