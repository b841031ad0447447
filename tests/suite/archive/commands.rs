//! External compressors, and gpg.

use super::*;

#[test]
fn a_failing_compressor_consumes_nothing_and_leaves_nothing() {
    let home = Home::with(&[
        ("compression", "custom"),
        ("custom_compression_filter", "false"),
        ("custom_decompression_filter", "cat"),
    ]);
    let files = home.incoming_segments(1..=2);
    home.archive().exits(1);
    assert_eq!(
        names(&home.incoming()),
        files.keys().cloned().collect::<Vec<_>>()
    );
    assert_eq!(home.listed(), [""; 0]);
    let left = names(&home.wals().join("0000000100000000"));
    assert_eq!(left, [""; 0]);
}

#[test]
fn a_filter_that_fails_for_one_file_does_not_keep_the_others() {
    let home = home_with_filter(
        "input=$(mktemp {root}/input.XXXXXX) && cat > $input && ! cmp -s $input {root}/bad \
         && gzip -c $input",
        &[],
    );
    let files = home.incoming_segments(1..=5);
    put(home.root(), "bad", &files[SECOND]);
    let run = home.archive().exits(1);
    assert_eq!(run.stderr.matches("ERROR").count(), 1, "{}", run.stderr);
    assert_eq!(names(&home.incoming()), [SECOND]);
    assert!(fs::read(home.incoming().join(SECOND)).unwrap() == files[SECOND]);
    for (name, bytes) in files.iter().filter(|(name, _)| *name != SECOND) {
        home.assert_archived(name, bytes);
    }
    assert_eq!(home.listed().len(), 4);
}

#[test]
fn a_filter_that_always_fails_ends_the_run_after_a_few_files() {
    // One by one between hooks, in groups without.
    for (hook, failed_max) in [("true", 3), ("", 64)] {
        let home = home_with_filter("cat > /dev/null; exit 4", &[("post_archive_script", hook)]);
        for timeline in 2..200 {
            let (name, text) = wal::history(timeline);
            put(&home.incoming(), &name, &text);
        }
        let before = names(&home.incoming());
        let run = home.archive().exits(1);
        let failed = run.stderr.matches("ERROR").count();
        assert!((3..=failed_max).contains(&failed), "{}", run.stderr);
        assert_eq!(names(&home.incoming()), before);
        assert_eq!(home.listed(), [""; 0]);
    }
}

/// A home that compresses by a script with this body.
fn home_with_filter(body: &str, further: &[(&str, &str)]) -> Home {
    let mut options = further.to_vec();
    options.extend([
        ("compression", "custom"),
        ("custom_compression_filter", "{root}/filter"),
        ("custom_decompression_filter", "gzip -dc"),
    ]);
    let home = Home::with(&options);
    home.script("filter", body);
    home
}

#[test]
fn a_passive_server_archives_nothing() {
    let home = Home::with(&[("primary_ssh_command", "ssh barman@primary.invalid")]);
    let files = home.incoming_segments(1..=2);
    home.archive().exits(0);
    assert_eq!(
        names(&home.incoming()),
        files.into_keys().collect::<Vec<_>>()
    );
    assert_eq!(names(&home.wals()), [""; 0]);
}

#[test]
fn a_pipeline_as_custom_filter_gets_the_whole_file() {
    let home = Home::with(&[
        ("compression", "custom"),
        ("custom_compression_filter", "gzip -c | cat"),
        ("custom_decompression_filter", "gzip -dc | cat"),
        ("custom_compression_magic", "0x1f8b08"),
    ]);
    let files = home.incoming_segments([1]);
    home.archive().exits(0);
    // Barman stores the plain file: its redirections reach only the last command.
    assert!(
        fs::read(home.archived(FIRST))
            .unwrap()
            .starts_with(b"\x1f\x8b")
    );
    home.assert_archived(FIRST, &files[FIRST]);
    home.incoming_segments([1]);
    home.archive().exits(0);
    assert_eq!(names(&home.errors()), [""; 0]);
}

#[test]
fn a_failing_gpg_consumes_nothing_and_is_quoted() {
    let home = Home::with(&[
        ("encryption", "gpg"),
        ("encryption_key_id", "nobody@example.com"),
    ])
    .gpg_key();
    put_segment(&home, 1);
    let run = home.archive().exits(1);
    assert!(run.stderr.contains("nobody@example.com"), "{}", run.stderr);
    assert!(run.stderr.contains("No public key") || home.log().contains("No public key"));
    assert_eq!(names(&home.incoming()), [FIRST]);
    assert_eq!(home.listed(), [""; 0]);
}

#[test]
fn an_identical_encrypted_copy_is_recognised_when_the_passphrase_is_known() {
    let home = Home::with(&[
        ("encryption", "gpg"),
        ("encryption_key_id", "barman@example.com"),
        ("encryption_passphrase_command", "echo secret"),
        ("compression", "zstd"),
    ])
    .gpg_key();
    let files = home.incoming_segments([1]);
    home.archive().exits(0);
    home.assert_archived(FIRST, &files[FIRST]);
    put_segment(&home, 1);
    home.archive().exits(0);
    assert_eq!(names(&home.errors()), [""; 0]);
    assert_eq!(home.listed(), [FIRST]);
}
