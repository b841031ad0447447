//! The command-line tools, and the real Barman.

use super::*;

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
