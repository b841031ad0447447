//! The names of objects: `PREFIX/SERVER/wals/HASH_DIRECTORY/NAME`, an ending for the codec as Barman has
//! it, and `.gpg` where the object is encrypted, which Barman never writes.

use object_store::path::Path;

use crate::codec::Encoding;
use crate::config::{Compression, Encryption};
use crate::wal::WalName;

/// Barman's endings (`EXTENSION` in its `compression.py`), most likely ones first.
const ENDINGS: [(Compression, &str); 6] = [
    (Compression::Gzip, ".gz"),
    (Compression::Zstd, ".zst"),
    (Compression::Lz4, ".lz4"),
    (Compression::Xz, ".xz"),
    (Compression::Bzip2, ".bz2"),
    (Compression::Snappy, ".snappy"),
];

const ENCRYPTED: &str = ".gpg";

/// The ending of a codec; `None` for those whose files Barman refuses to keep in an object store.
pub(super) fn ending(compression: Option<Compression>) -> Option<&'static str> {
    let listed = match compression {
        None => return Some(""),
        Some(Compression::PyGzip | Compression::Pigz) => Compression::Gzip,
        Some(Compression::PyBzip2) => Compression::Bzip2,
        Some(other) => other,
    };
    ENDINGS
        .iter()
        .find(|(compression, _)| *compression == listed)
        .map(|(_, ending)| *ending)
}

/// The keys of one server.
#[derive(Clone, Debug)]
pub(super) struct Keys {
    root: String,
    /// What is written now; an ending that fits is taken for this codec, not for its other name.
    usual: Encoding,
}

impl Keys {
    /// `prefix` may be empty. An error names what cannot be part of a key.
    pub(super) fn new(
        prefix: &str,
        server: &str,
        usual: Encoding,
    ) -> Result<Self, object_store::path::Error> {
        let slash = if prefix.is_empty() { "" } else { "/" };
        let root = format!("{prefix}{slash}{server}/wals");
        Path::parse(&root)?;
        Ok(Keys { root, usual })
    }

    /// What every key begins with.
    pub(super) fn root(&self) -> Path {
        Path::parse(&self.root).unwrap_or_default()
    }

    /// How files are stored now.
    pub(super) fn usual(&self) -> Encoding {
        self.usual
    }

    /// Whether a file in this form has the ending that files have now.
    pub(super) fn is_usual(&self, form: Encoding) -> bool {
        let usual = (ending(self.usual.compression), self.usual.encryption);
        (ending(form.compression), form.encryption) == usual
    }

    /// The key of a file in this form.
    pub(super) fn key(&self, name: &WalName, encoding: Encoding) -> Path {
        let directory = name
            .hash_directory()
            .map_or(String::new(), |directory| format!("{directory}/"));
        let encrypted = encoding.encryption.map_or("", |_| ENCRYPTED);
        let ending = ending(encoding.compression).unwrap_or_default();
        let key = format!("{}/{directory}{name}{ending}{encrypted}", self.root);
        // The root was checked; the name of a WAL file is always valid.
        Path::parse(key).unwrap_or_default()
    }

    /// Every form in which a file may be stored but the usual one, which is asked for first.
    pub(super) fn unusual(&self) -> Vec<Encoding> {
        let compressions = ENDINGS.iter().map(|(compression, _)| Some(*compression));
        let compressions: Vec<_> = std::iter::once(None).chain(compressions).collect();
        [None, Some(Encryption::Gpg)]
            .into_iter()
            .flat_map(|encryption| {
                compressions.iter().map(move |compression| Encoding {
                    compression: *compression,
                    encryption,
                })
            })
            .filter(|encoding| !self.is_usual(*encoding))
            .collect()
    }

    /// The file and its form that a key stands for; `None` if it is none of ours.
    pub(super) fn parse(&self, key: &Path) -> Option<(WalName, Encoding)> {
        let rest = key.as_ref().strip_prefix(&self.root)?.strip_prefix('/')?;
        let (directory, file) = match rest.split_once('/') {
            Some((directory, file)) => (Some(directory), file),
            None => (None, rest),
        };
        let (file, encryption) = match file.strip_suffix(ENCRYPTED) {
            Some(file) => (file, Some(Encryption::Gpg)),
            None => (file, None),
        };
        let (file, compression) = ENDINGS
            .iter()
            .find_map(|(compression, ending)| {
                Some((file.strip_suffix(ending)?, Some(*compression)))
            })
            .unwrap_or((file, None));
        let name = WalName::parse(file).ok()?;
        let is_usual = ending(compression) == ending(self.usual.compression);
        let encoding = Encoding {
            compression: if is_usual {
                self.usual.compression
            } else {
                compression
            },
            encryption,
        };
        (name.hash_directory().as_deref() == directory).then_some((name, encoding))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(compression: Option<Compression>) -> Keys {
        let encryption = None;
        Keys::new(
            "a/b",
            "main",
            Encoding {
                compression,
                encryption,
            },
        )
        .unwrap()
    }

    fn all_forms() -> Vec<Encoding> {
        let keys = keys(None);
        let mut forms = keys.unusual();
        forms.push(keys.usual());
        forms
    }

    #[test]
    fn keys_are_barmans() {
        let key = |name: &str, compression| {
            let name = WalName::parse(name).unwrap();
            keys(compression)
                .key(&name, keys(compression).usual())
                .to_string()
        };
        assert_eq!(
            key("00000001000000AB000000CD", Some(Compression::Zstd)),
            "a/b/main/wals/00000001000000AB/00000001000000AB000000CD.zst"
        );
        assert_eq!(
            key(
                "00000001000000AB000000CD.00000028.backup",
                Some(Compression::PyGzip)
            ),
            "a/b/main/wals/00000001000000AB/00000001000000AB000000CD.00000028.backup.gz"
        );
        assert_eq!(
            key("0000000A.history", None),
            "a/b/main/wals/0000000A.history"
        );
        let bare = Keys::new("", "main", keys(None).usual()).unwrap();
        assert_eq!(bare.root().to_string(), "main/wals");
    }

    #[test]
    fn what_cannot_be_part_of_a_key_is_refused() {
        for (prefix, server) in [
            ("a", ".."),
            ("a\tb", "main"),
            ("a//b", "main"),
            ("", "x//y"),
        ] {
            let usual = keys(None).usual();
            assert!(
                Keys::new(prefix, server, usual).is_err(),
                "{prefix} {server}"
            );
        }
    }

    #[test]
    fn a_key_tells_the_file_and_its_form() {
        let keys = keys(None);
        for name in [
            "00000001000000AB000000CD",
            "00000001000000AB000000CD.partial",
            "0000000A.history",
        ] {
            let name = WalName::parse(name).unwrap();
            for form in all_forms() {
                assert_eq!(
                    keys.parse(&keys.key(&name, form)),
                    Some((name.clone(), form))
                );
            }
        }
    }

    #[test]
    fn every_form_has_a_key_of_its_own() {
        let name = WalName::parse("0000000A.history").unwrap();
        let all: std::collections::BTreeSet<String> = all_forms()
            .into_iter()
            .map(|form| keys(None).key(&name, form).to_string())
            .collect();
        assert_eq!(all.len(), 14);
        assert_eq!(keys(Some(Compression::PyBzip2)).unusual().len(), 13);
    }

    #[test]
    fn strangers_are_no_files() {
        for key in [
            "a/b/main/wals/00000001000000AB000000CD",
            "a/b/main/wals/00000001000000AC/00000001000000AB000000CD",
            "a/b/main/wals/00000001000000AB/00000001000000AB000000CD.zip",
            "a/b/main/wals/00000001000000AB/0000000A.history",
            "a/b/main/walsx/0000000A.history",
            "a/b/other/wals/0000000A.history",
        ] {
            assert_eq!(keys(None).parse(&Path::parse(key).unwrap()), None, "{key}");
        }
    }
}
