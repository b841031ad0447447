//! The real gpg.

use super::*;

/// A keyring with throw-away keys, and a `gpg` in front of PATH that uses it.
struct Keyring {
    directory: TempDir,
}

const PASSPHRASE: &str = "correct horse; 'battery' $taple";

impl Keyring {
    fn new() -> Keyring {
        let directory = TempDir::new().unwrap();
        let home = directory.path().join("home");
        fs::create_dir(&home).unwrap();
        fs::set_permissions(&home, fs::Permissions::from_mode(0o700)).unwrap();
        let keyring = Keyring { directory };
        keyring.write_script(
            "gpg",
            &format!(
                "GNUPGHOME='{}' PATH='{}' exec gpg \"$@\"",
                home.display(),
                std::env::var("PATH").unwrap()
            ),
        );
        keyring.make_key("open@example.org", "future-default", "");
        keyring.make_key("rsa@example.org", "rsa2048", "");
        keyring.make_key("locked@example.org", "future-default", PASSPHRASE);
        keyring
    }

    fn path(&self, name: &str) -> String {
        self.directory
            .path()
            .join(name)
            .to_str()
            .unwrap()
            .to_owned()
    }

    fn write_script(&self, name: &str, line: &str) {
        let path = self.path(name);
        fs::write(&path, format!("#!/bin/sh\n{line}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    fn make_key(&self, address: &str, algorithm: &str, passphrase: &str) {
        let usage = match algorithm {
            "rsa2048" => "encrypt,sign",
            _ => "default",
        };
        self.gpg(
            &[
                "--passphrase",
                passphrase,
                "--quick-gen-key",
                address,
                algorithm,
                usage,
                "never",
            ],
            b"",
        );
    }

    fn gpg(&self, arguments: &[&str], input: &[u8]) -> Vec<u8> {
        let always = ["-q", "--batch", "--yes", "--pinentry-mode", "loopback"];
        run(&self.path("gpg"), &[&always[..], arguments].concat(), input)
    }

    fn options(&self, compression: Option<Compression>, key_id: &str) -> CodecOptions {
        CodecOptions {
            compression,
            encryption: Some(Encryption::Gpg),
            encryption_key_id: Some(key_id.to_owned()),
            path_prefix: Some(self.path("")),
            ..CodecOptions::default()
        }
    }

    /// Options for `locked@example.org`, with a command that writes `passphrase`.
    fn locked_options(&self, compression: Option<Compression>, passphrase: &str) -> CodecOptions {
        fs::write(self.path("passphrase"), passphrase).unwrap();
        CodecOptions {
            encryption_passphrase_command: Some(format!("cat '{}'", self.path("passphrase"))),
            ..self.options(compression, "locked@example.org")
        }
    }

    /// The agent caches passphrases; what follows has to bring its own.
    fn forget(&self) {
        let status = Command::new("gpgconf")
            .env("GNUPGHOME", self.path("home"))
            .args(["--kill", "all"])
            .status()
            .unwrap();
        assert!(status.success());
    }
}

impl Drop for Keyring {
    fn drop(&mut self) {
        self.forget();
    }
}

#[test]
fn gpg_reads_what_we_encrypt_and_we_what_gpg_encrypts() {
    let keyring = Keyring::new();
    for key_id in ["open@example.org", "rsa@example.org"] {
        for size_bytes in [1, 5_000_000] {
            let content = wal_like(size_bytes);
            let options = keyring.options(None, key_id);
            let stored = encode(&options, &content).unwrap();
            assert!(is_encrypted(&stored[..stored.len().min(HEAD_SIZE_BYTES)]));
            assert!(keyring.gpg(&["--decrypt"], &stored) == content);
            let theirs = keyring.gpg(&["--recipient", key_id, "--encrypt"], &content);
            assert!(decode(&options, &theirs).unwrap() == content);
        }
    }
}

#[test]
fn compression_and_encryption_work_together() {
    let keyring = Keyring::new();
    let content = wal_like(5_000_000);
    for compression in [
        Compression::Gzip,
        Compression::Zstd,
        Compression::Xz,
        Compression::Custom,
    ] {
        let mut options = keyring.locked_options(Some(compression), PASSPHRASE);
        options.custom_compression_filter = Some("tr a-m A-M | gzip -1".to_owned());
        options.custom_decompression_filter = Some("gzip -dc | tr A-M a-m".to_owned());
        let content = match compression {
            Compression::Custom => content.to_ascii_lowercase(),
            _ => content.clone(),
        };
        let stored = encode(&options, &content).unwrap();
        let compressed = {
            let plain = CodecOptions {
                encryption: None,
                ..options.clone()
            };
            encode(&plain, &content).unwrap()
        };
        // gpg does not compress once more what a compressor wrote: it only adds its packets.
        assert!(
            (compressed.len()..compressed.len() + 2000).contains(&stored.len()),
            "{compression}"
        );
        keyring.forget();
        assert!(
            decode(&options, &stored).unwrap() == content,
            "{compression}"
        );
    }
}

#[test]
fn the_passphrase_command_unlocks_the_key() {
    let keyring = Keyring::new();
    let content = wal_like(3_000_000);
    let stored = encode(&keyring.locked_options(None, ""), &content).unwrap();
    for written in [
        PASSPHRASE.to_owned(),
        format!("{PASSPHRASE}\n"),
        format!("{PASSPHRASE}\nmore\n"),
    ] {
        keyring.forget();
        let options = keyring.locked_options(None, &written);
        assert!(Decoder::with_options(options.clone()).can_decrypt());
        assert!(decode(&options, &stored).unwrap() == content);
    }
    keyring.forget();
    let error = decode(&keyring.locked_options(None, "wrong"), &stored).unwrap_err();
    let CodecError::CommandFailed {
        program, stderr, ..
    } = &error
    else {
        panic!("{error:?}");
    };
    assert_eq!(program, "gpg");
    assert!(stderr.contains("decryption failed"), "{stderr}");
    assert!(!format!("{error} {error:?}").contains("wrong"), "{error}");
    keyring.forget();
    let without = keyring.options(None, "locked@example.org");
    assert!(!Decoder::with_options(without.clone()).can_decrypt());
    assert!(decode(&without, &stored).is_err());
}

#[test]
fn a_passphrase_is_asked_for_once() {
    let keyring = Keyring::new();
    let mut options = keyring.locked_options(None, PASSPHRASE);
    let stored = encode(&options, b"content").unwrap();
    let asked = keyring.path("asked");
    let line = options.encryption_passphrase_command.take().unwrap();
    options.encryption_passphrase_command = Some(format!("echo asked >> '{asked}'; {line}"));
    let decoder = Decoder::with_options(options);
    let encoding = Encoding {
        compression: None,
        encryption: Some(Encryption::Gpg),
    };
    for _ in 0..3 {
        let mut clear = Vec::new();
        let stored = Box::new(Cursor::new(stored.clone()));
        decoder
            .decode(stored, &encoding)
            .unwrap()
            .read_to_end(&mut clear)
            .unwrap();
        assert_eq!(clear, b"content");
    }
    assert_eq!(fs::read_to_string(asked).unwrap(), "asked\n");
}

#[test]
fn harmed_messages_are_errors_with_the_words_of_gpg() {
    let keyring = Keyring::new();
    let options = keyring.options(Some(Compression::Zstd), "open@example.org");
    let plain = CodecOptions {
        compression: None,
        ..options.clone()
    };
    let content = wal_like(2_000_000);
    for options in [options, plain] {
        let stored = encode(&options, &content).unwrap();
        for kept_bytes in [
            0,
            1,
            50,
            stored.len() / 2,
            stored.len() - 30,
            stored.len() - 1,
        ] {
            let error = decode(&options, &stored[..kept_bytes]).unwrap_err();
            assert!(
                matches!(error, CodecError::CommandFailed { .. }),
                "{kept_bytes}: {error:?}"
            );
            // Cut before the encrypted part, gpg exits with 0, silent, having written nothing.
            let is_silent = error.to_string().contains("wrote nothing");
            assert!(is_silent || error.to_string().contains("gpg: "), "{error}");
        }
        let mut harmed = stored.clone();
        let middle = stored.len() / 2;
        harmed.splice(middle..middle + 1, [stored.get(middle).unwrap() ^ 1]);
        assert!(decode(&options, &harmed).is_err());
    }
}

#[test]
fn a_key_that_is_not_there_is_gpgs_error() {
    let keyring = Keyring::new();
    for compression in [None, Some(Compression::Gzip), Some(Compression::Pigz)] {
        let options = keyring.options(compression, "nobody@example.org");
        let error = encode(&options, &wal_like(5_000_000)).unwrap_err();
        let CodecError::CommandFailed {
            program,
            outcome,
            stderr,
        } = &error
        else {
            panic!("{error:?}");
        };
        assert_eq!(
            (program.as_str(), outcome.as_str()),
            ("gpg", "exited with status 2")
        );
        assert!(stderr.contains("nobody@example.org"), "{stderr}");
    }
}

const BARMAN_GPG: &str = r#"
import sys
from barman.encryption import GPGEncryption
prefix, directory = sys.argv[1], sys.argv[2]
gpg = GPGEncryption("locked@example.org", path=prefix)
gpg.encrypt(directory + "/clear", directory)
secret = bytearray(sys.argv[3].encode())
gpg.decrypt(directory + "/ours.gpg", directory, passphrase=secret)
"#;

#[test]
fn barman_and_we_decrypt_each_others_files() {
    let keyring = Keyring::new();
    let content = wal_like(1_000_000);
    let options = keyring.locked_options(None, PASSPHRASE);
    fs::write(keyring.path("clear"), &content).unwrap();
    fs::write(
        keyring.path("ours.gpg"),
        encode(&options, &content).unwrap(),
    )
    .unwrap();
    let path = format!("{}:{}", keyring.path(""), std::env::var("PATH").unwrap());
    barman(BARMAN_GPG, &[&path, &keyring.path(""), PASSPHRASE]);
    assert!(fs::read(keyring.path("ours")).unwrap() == content);
    let theirs = fs::read(keyring.path("clear.gpg")).unwrap();
    assert!(is_encrypted(&theirs[..HEAD_SIZE_BYTES]));
    keyring.forget();
    assert!(decode(&options, &theirs).unwrap() == content);
}

#[test]
fn encryption_is_recognised_in_whatever_gpg_writes() {
    let keyring = Keyring::new();
    let content = wal_like(30_000);
    let symmetric = ["--passphrase", "x", "--symmetric"];
    let encrypted: [&[&str]; 10] = [
        &["--recipient", "open@example.org", "--encrypt"],
        &["--recipient", "rsa@example.org", "--encrypt"],
        &["--hidden-recipient", "rsa@example.org", "--encrypt"],
        &["--hidden-recipient", "open@example.org", "--encrypt"],
        &[
            "--recipient",
            "open@example.org",
            "--recipient",
            "rsa@example.org",
            "--encrypt",
        ],
        &["--armor", "--recipient", "rsa@example.org", "--encrypt"],
        &symmetric,
        &["--passphrase", "x", "--cipher-algo", "3DES", "--symmetric"],
        &["--passphrase", "x", "--s2k-mode", "0", "--symmetric"],
        &["--recipient", "rsa@example.org", "--sign", "--encrypt"],
    ];
    for arguments in encrypted {
        let stored = keyring.gpg(arguments, &content);
        assert!(is_encrypted(&stored[..HEAD_SIZE_BYTES]), "{arguments:?}");
    }
    let clear: [&[&str]; 3] = [
        &["--store"],
        &["--local-user", "rsa@example.org", "--sign"],
        &["--local-user", "rsa@example.org", "--detach-sign"],
    ];
    for arguments in clear {
        let stored = keyring.gpg(arguments, &content);
        let head = &stored[..stored.len().min(HEAD_SIZE_BYTES)];
        assert!(!is_encrypted(head), "{arguments:?}");
    }
}
