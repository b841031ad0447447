//! Stored files are exchanged with everybody else who reads and writes them: the command-line tools, gpg, and the
//! real Barman's compressors.

use std::fs;
use std::io::{Cursor, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

use tempfile::TempDir;
use walarch::codec::{
    CodecError, CodecOptions, Decoder, Encoder, Encoding, HEAD_SIZE_BYTES, identify_compression,
    is_encrypted,
};
use walarch::config::{Compression, CompressionLevel, Encryption};

use crate::support::tool::barman_venv;

const LEVELS: [CompressionLevel; 4] = [
    CompressionLevel::Low,
    CompressionLevel::Medium,
    CompressionLevel::High,
    CompressionLevel::Number(3),
];

/// The tool that handles a codec's format, with its arguments for "decompress standard input".
const TOOLS: [(Compression, &str, &[&str]); 6] = [
    (Compression::Gzip, "gzip", &["-dc"]),
    (Compression::Pigz, "pigz", &["-dc"]),
    (Compression::Bzip2, "bzip2", &["-dc"]),
    (Compression::Xz, "xz", &["-dc"]),
    (Compression::Zstd, "zstd", &["-dcq"]),
    (Compression::Lz4, "lz4", &["-dcq"]),
];

/// Pages with headers, then something like records: half of it repeats.
fn wal_like(size_bytes: usize) -> Vec<u8> {
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let mut bytes = Vec::with_capacity(size_bytes + 32);
    while bytes.len() < size_bytes {
        if bytes.len().is_multiple_of(8192) {
            bytes.extend_from_slice(&[0x10, 0xD1, 5, 0, 1, 0, 0, 0]);
        }
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        bytes.extend_from_slice(&state.to_be_bytes()[..4]);
        bytes.extend_from_slice(b"\0\0\0\x20heap/upd\0\0\0\0");
    }
    bytes.truncate(size_bytes);
    bytes
}

/// Runs a tool over `input`; its standard output.
fn run(tool: &str, arguments: &[&str], input: &[u8]) -> Vec<u8> {
    let mut child = Command::new(tool)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let output = std::thread::scope(|scope| {
        scope.spawn(move || stdin.write_all(input).unwrap());
        child.wait_with_output().unwrap()
    });
    assert!(output.status.success(), "{tool} {arguments:?}: {output:?}");
    output.stdout
}

fn options(compression: Compression, level: CompressionLevel) -> CodecOptions {
    CodecOptions {
        compression: Some(compression),
        compression_level: level,
        ..CodecOptions::default()
    }
}

fn encode(options: &CodecOptions, content: &[u8]) -> Result<Vec<u8>, CodecError> {
    let mut stored = Vec::new();
    let size_bytes = content.len() as u64;
    Encoder::with_options(options)?.encode(&mut &content[..], size_bytes, None, &mut stored)?;
    Ok(stored)
}

fn decode(options: &CodecOptions, stored: &[u8]) -> Result<Vec<u8>, CodecError> {
    let encoding = Encoding {
        compression: options.compression,
        encryption: options.encryption,
    };
    let stored = Box::new(Cursor::new(stored.to_vec()));
    let mut clear = Vec::new();
    Decoder::with_options(options.clone())
        .decode(stored, &encoding)?
        .read_to_end(&mut clear)
        .map_err(CodecError::from_read)?;
    Ok(clear)
}

/// Runs a Python program that has Barman; its standard output.
fn barman(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(barman_venv().join("bin/python"))
        .args(["-c", program])
        .args(arguments)
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn the_tools_read_what_we_write() {
    for (compression, tool, arguments) in TOOLS {
        for level in LEVELS {
            // Only gzip has a reason to write more than one member.
            let large_bytes = match tool {
                "gzip" => 9_000_001,
                _ => 1_200_001,
            };
            for size_bytes in [0, 1, 8192, large_bytes] {
                let content = wal_like(size_bytes);
                let stored = encode(&options(compression, level), &content).unwrap();
                assert!(
                    run(tool, arguments, &stored) == content,
                    "{compression} {level:?}, {size_bytes} bytes"
                );
            }
        }
    }
}

#[test]
fn we_read_what_the_tools_write() {
    let ways: [(Compression, &str, &[&str]); 19] = [
        (Compression::Gzip, "gzip", &["-c1"]),
        (Compression::Gzip, "gzip", &["-c9"]),
        (Compression::Gzip, "pigz", &["-c"]),
        (Compression::Pigz, "pigz", &["-c1", "--independent"]),
        (Compression::Bzip2, "bzip2", &["-c1"]),
        (Compression::Bzip2, "bzip2", &["-c9"]),
        (Compression::Xz, "xz", &["-c0"]),
        (Compression::Xz, "xz", &["-c9"]),
        (
            Compression::Xz,
            "xz",
            &["-c", "--check=crc32", "--block-size=100000"],
        ),
        (Compression::Xz, "xz", &["-c", "-T2", "--check=sha256"]),
        (Compression::Zstd, "zstd", &["-cq1"]),
        (Compression::Zstd, "zstd", &["-cq19", "--no-check"]),
        (Compression::Zstd, "zstd", &["-cq", "--long=27"]),
        (Compression::Zstd, "zstd", &["-cq", "-T2"]),
        (Compression::Lz4, "lz4", &["-cq1"]),
        (Compression::Lz4, "lz4", &["-cq9", "-B4D"]),
        (Compression::Lz4, "lz4", &["-cq", "-BX"]),
        (Compression::Lz4, "lz4", &["-cq", "--no-frame-crc"]),
        (Compression::Lz4, "lz4", &["-cq12"]),
    ];
    let content = wal_like(1_200_001);
    for (compression, tool, arguments) in ways {
        let stored = run(tool, arguments, &content);
        let options = options(compression, CompressionLevel::Medium);
        assert!(
            decode(&options, &stored).unwrap() == content,
            "{tool} {arguments:?}"
        );
        for kept_bytes in [stored.len() / 3, stored.len() - 1] {
            let error = decode(&options, &stored[..kept_bytes]).unwrap_err();
            assert!(error.is_damage(), "{tool} {arguments:?}: {error}");
        }
        let twice = [&stored[..], &stored].concat();
        assert!(
            decode(&options, &twice).unwrap() == [&content[..], &content].concat(),
            "{tool} {arguments:?}"
        );
    }
}

/// Barman reads `DIRECTORY/NAME.ours` and writes `NAME.barman` from `clear`; says for each what it identified.
const BARMAN_EXCHANGE: &str = r#"
import sys
from types import SimpleNamespace
from barman.compression import CompressionManager, compression_registry
directory, clear = sys.argv[1], sys.argv[1] + "/clear"
content = open(clear, "rb").read()
for codec in sys.argv[2].split(","):
    for level in ("low", "medium", "high", 3):
        config = SimpleNamespace(compression=codec, compression_level=level)
        compressor = compression_registry[codec](config, codec, None)
        name = "%s/%s-%s" % (directory, codec, level)
        try:
            compressor.decompress(name + ".ours", name + ".back")
            compressor.compress(clear, name + ".barman")
        except SystemExit:
            print(codec, "unavailable")
            continue
        assert open(name + ".back", "rb").read() == content, name
"#;

#[test]
fn barman_and_we_read_each_other() {
    // Large enough for several gzip members.
    exchange_with_barman(&["gzip"], 9_000_000);
    exchange_with_barman(
        &[
            "pygzip", "pigz", "bzip2", "pybzip2", "xz", "zstd", "lz4", "snappy",
        ],
        700_000,
    );
}

fn exchange_with_barman(codecs: &[&str], size_bytes: usize) {
    let directory = TempDir::new().unwrap();
    let content = wal_like(size_bytes);
    fs::write(directory.path().join("clear"), &content).unwrap();
    let levels = ["low", "medium", "high", "3"].into_iter().zip(LEVELS);
    let mut names = Vec::new();
    for codec in codecs {
        for (word, level) in levels.clone() {
            let options = options(codec.parse().unwrap(), level);
            let name = format!("{codec}-{word}");
            let ours = directory.path().join(format!("{name}.ours"));
            fs::write(ours, encode(&options, &content).unwrap()).unwrap();
            names.push((name, options));
        }
    }
    let path = directory.path().to_str().unwrap();
    barman(BARMAN_EXCHANGE, &[path, &codecs.join(",")]);
    for (name, options) in names {
        let barmans = directory.path().join(format!("{name}.barman"));
        let stored = fs::read(barmans).unwrap();
        assert!(decode(&options, &stored).unwrap() == content, "{name}");
        let error = decode(&options, &stored[..stored.len() / 2]).unwrap_err();
        assert!(error.is_damage(), "{name}: {error}");
    }
}

const BARMAN_IDENTIFY: &str = r#"
import sys
from types import SimpleNamespace
from barman.compression import CompressionManager
magic = sys.argv[1] or None
config = SimpleNamespace(compression="custom" if magic else None, custom_compression_magic=magic)
manager = CompressionManager(config, None)
for name in sys.argv[2:]:
    print(manager.identify_compression(name))
"#;

#[test]
fn compression_is_identified_as_barman_does() {
    let directory = TempDir::new().unwrap();
    let content = wal_like(100_000);
    let mut heads: Vec<Vec<u8>> = vec![
        Vec::new(),
        b"\x1f".to_vec(),
        b"\x1f\x8b".to_vec(),
        b"\x1f\x8b\x07".to_vec(),
        b"BZh".to_vec(),
        b"BZ0".to_vec(),
        b"\xff\x06\x00\x00sNaPp".to_vec(),
        b"BZhello".to_vec(),
        b"LRZI".to_vec(),
        content.clone(),
    ];
    for compression in Compression::ALL {
        if matches!(compression, Compression::Custom | Compression::Pigz) {
            continue;
        }
        heads.push(encode(&options(compression, CompressionLevel::Low), &content).unwrap());
    }
    heads.push(run("pigz", &["-c"], &content));
    let names: Vec<String> = (0..heads.len())
        .map(|number| {
            directory
                .path()
                .join(number.to_string())
                .to_str()
                .unwrap()
                .to_owned()
        })
        .collect();
    for (name, head) in names.iter().zip(&heads) {
        fs::write(name, head).unwrap();
    }
    // The last three compete with bzip2 (asked before custom), gzip and a raw page.
    for magic in ["", "0x4c525a49", "0x425a68", "0x1f8b", "0x10d1"] {
        let arguments: Vec<&str> = [magic]
            .into_iter()
            .chain(names.iter().map(String::as_str))
            .collect();
        let answers = barman(BARMAN_IDENTIFY, &arguments);
        let magic_bytes: Vec<u8> = (2..magic.len())
            .step_by(2)
            .map(|at| u8::from_str_radix(&magic[at..at + 2], 16).unwrap())
            .collect();
        let custom_magic = (!magic.is_empty()).then_some(&magic_bytes[..]);
        for (head, answer) in heads.iter().zip(answers.lines()) {
            let head = &head[..head.len().min(HEAD_SIZE_BYTES)];
            let ours = identify_compression(head, custom_magic);
            let ours = ours.map_or("None", Compression::name);
            assert_eq!(
                ours,
                answer,
                "magic {magic}, head {:x?}",
                &head[..head.len().min(12)]
            );
        }
    }
}

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
