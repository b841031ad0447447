//! Filters, and the passphrase command.

use super::*;

#[test]
fn a_pipeline_is_a_filter_like_any_other() {
    let options = custom("tr a-m n-z | tr n-z A-M", "cat | tr A-M a-m");
    let content = b"abc".repeat(500_000);
    let stored = encode(&options, &content).unwrap();
    assert!(stored == b"ABC".repeat(500_000));
    assert!(decode(&options, &stored).unwrap() == content);
}

#[test]
fn a_failing_filter_is_an_error_with_its_own_words() {
    for (filter, words) in [
        ("echo no luck >&2; exit 3", "exited with status 3: no luck"),
        ("cat; echo late >&2; exit 1", "exited with status 1: late"),
        ("kill -9 $$", "was killed by signal 9"),
        ("exit 0", "ended before it had read all of its input"),
        ("cat > /dev/null", "wrote nothing to its standard output"),
        ("no-such-command-here", "exited with status 127"),
    ] {
        let options = custom(filter, "cat");
        let error = encode(&options, &wal_like(4 << 20)).unwrap_err();
        assert!(
            matches!(error, CodecError::CommandFailed { .. }),
            "{filter}: {error:?}"
        );
        assert!(error.to_string().contains(words), "{filter}: {error}");
    }
}

#[test]
fn a_failing_decompression_filter_never_looks_like_the_end() {
    for (filter, words) in [
        ("head -c 1000; exit 3", "exited with status 3"),
        ("cat; echo late >&2; exit 1", "exited with status 1: late"),
        ("kill -9 $$", "was killed by signal 9"),
        ("cat > /dev/null", "wrote nothing to its standard output"),
    ] {
        let error = decode(&custom("cat", filter), &wal_like(4 << 20)).unwrap_err();
        assert!(
            matches!(error, CodecError::CommandFailed { .. }),
            "{filter}: {error:?}"
        );
        assert!(error.to_string().contains(words), "{filter}: {error}");
    }
}

#[test]
fn a_filter_that_talks_a_lot_does_not_block() {
    let chatter = "i=0; while [ $i -lt 3000 ]; do echo xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx >&2; i=$((i+1)); done; cat";
    let content = noise(5_000_000, 8);
    let stored = encode(&custom(chatter, "cat"), &content).unwrap();
    assert!(stored == content);
    assert!(decode(&custom("cat", chatter), &content).unwrap() == content);
}

#[test]
fn a_decoder_that_is_dropped_early_ends_its_command() {
    let options = custom("cat", "sleep 1000 | sleep 1000");
    let encoding = Encoding {
        compression: Some(Compression::Custom),
        encryption: None,
    };
    let started = std::time::Instant::now();
    let reader = Decoder::with_options(options)
        .decode(Box::new(io::repeat(1)), &encoding)
        .unwrap();
    drop(reader);
    assert!(started.elapsed().as_secs() < 10);
}

#[test]
fn what_cannot_work_is_refused_at_the_start() {
    let refused = |options: &CodecOptions| match Encoder::with_options(options) {
        Err(error @ CodecError::Configuration { .. }) => error.to_string(),
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("accepted"),
    };
    let mut options = custom("cat", "cat");
    options.custom_compression_filter = None;
    assert!(refused(&options).contains("custom_compression_filter is not set\nHINT: "));
    let mut options = custom("cat", "cat");
    options.custom_decompression_filter = Some(" ".to_owned());
    assert!(refused(&options).contains("custom_decompression_filter is not set\nHINT: "));
    let options = CodecOptions {
        encryption: Some(Encryption::Gpg),
        ..CodecOptions::default()
    };
    assert!(refused(&options).contains("encryption_key_id is not set\nHINT: "));
}

#[test]
fn a_program_that_is_missing_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let script = directory.path().join("pigz");
    std::fs::write(&script, "not executable").unwrap();
    let mut options = options(Compression::Pigz, CompressionLevel::Number(77));
    options.path_prefix = Some(directory.path().to_str().unwrap().to_owned());
    let encoder = Encoder::with_options(&options).unwrap();
    assert_eq!(
        encoder.level_notice(),
        Some("Compression level 77 out of range for pigz, using 9 instead")
    );
    std::fs::write(&script, "#!/bin/sh\necho \"$@\"; exec cat").unwrap();
    std::fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let stored = encode(&options, b"content").unwrap();
    assert_eq!(stored, b"-c -9\ncontent");
}

#[test]
fn passphrase_command_failures_do_not_repeat_what_it_wrote() {
    for (line, reason) in [
        (
            "echo secret; echo secret >&2; exit 4",
            "exited with status 4",
        ),
        ("true", "wrote an empty passphrase"),
        ("echo", "wrote an empty passphrase"),
        ("yes secret", "exited with status"),
    ] {
        let options = CodecOptions {
            encryption: Some(Encryption::Gpg),
            encryption_passphrase_command: Some(line.to_owned()),
            ..CodecOptions::default()
        };
        let error = decode(&options, b"x").unwrap_err();
        assert!(
            matches!(error, CodecError::PassphraseCommand { .. }),
            "{error:?}"
        );
        let message = format!("{error} {error:?}");
        assert!(!message.contains("secret"), "{message}");
        if line != "yes secret" {
            assert!(message.contains(reason), "{message}");
        }
    }
}
