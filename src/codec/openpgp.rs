//! Recognises an OpenPGP encrypted message by the structure of its first packet (RFC 9580; RFC 4880 before it).
//!
//! OpenPGP has no magic number: the first byte is only a packet type, and raw WAL pages, whose first byte
//! grows with every PostgreSQL release, pass through those values. So the packet has to make sense as a whole.

/// RFC 9580, 6.2: the header line of an armoured message.
const ARMOUR: &[u8] = b"-----BEGIN PGP MESSAGE-----";

/// RFC 9580, 5: packet types that begin an encrypted message.
const PUBLIC_KEY_ENCRYPTED_SESSION_KEY: u8 = 1;
const SYMMETRIC_KEY_ENCRYPTED_SESSION_KEY: u8 = 3;
const SYMMETRICALLY_ENCRYPTED_DATA: u8 = 9;
const ENCRYPTED_AND_INTEGRITY_PROTECTED_DATA: u8 = 18;
/// From the drafts between RFC 4880 and RFC 9580; gpg 2.3 and later writes it for keys that ask for it.
const AEAD_ENCRYPTED_DATA: u8 = 20;

/// True when a file that starts with `head` is an OpenPGP encrypted message, binary or armoured.
///
/// A raw WAL page is never taken for one, nor is any format that
/// [`identify_compression`](super::identify_compression) knows.
pub fn is_encrypted(head: &[u8]) -> bool {
    if head.starts_with(ARMOUR) {
        return true;
    }
    if is_wal_page(head) {
        return false;
    }
    let Some(packet) = Packet::parse(head) else {
        return false;
    };
    match packet.tag {
        PUBLIC_KEY_ENCRYPTED_SESSION_KEY => packet.is_public_key_session_key(),
        SYMMETRIC_KEY_ENCRYPTED_SESSION_KEY => packet.is_symmetric_session_key(),
        SYMMETRICALLY_ENCRYPTED_DATA => packet.is_plain_encrypted_data(),
        ENCRYPTED_AND_INTEGRITY_PROTECTED_DATA => packet.is_protected_data(),
        AEAD_ENCRYPTED_DATA => packet.body.first() == Some(&1),
        _ => false,
    }
}

/// PostgreSQL's page header starts with `xlp_magic` (0xD0xx or 0xD1xx in every release since 2005, in the
/// server's byte order) and `xlp_info`, of which only the low four bits are in use.
pub(super) fn is_wal_page(head: &[u8]) -> bool {
    match head {
        [_, 0xD0 | 0xD1, info_low, 0, ..] => *info_low < 0x10,
        [0xD0 | 0xD1, _, 0, info_low, ..] => *info_low < 0x10,
        _ => false,
    }
}

/// How a packet says where it ends.
enum Length {
    /// So many bytes.
    Known(usize),
    /// Pieces, each with its own length: how gpg writes data that comes from a pipe.
    Partial,
    /// Up to the end of the file; old format only.
    Indeterminate,
}

struct Packet<'a> {
    tag: u8,
    length: Length,
    /// As much of the content as there is.
    body: &'a [u8],
}

impl<'a> Packet<'a> {
    /// RFC 9580, 4.2: both forms of a packet header.
    fn parse(head: &'a [u8]) -> Option<Packet<'a>> {
        let (&first, rest) = head.split_first()?;
        if first & 0x80 == 0 {
            return None;
        }
        if first & 0x40 != 0 {
            Packet::parse_openpgp_form(first & 0x3f, rest)
        } else {
            Packet::parse_legacy_form((first >> 2) & 0x0f, first & 0x03, rest)
        }
    }

    fn parse_openpgp_form(tag: u8, rest: &'a [u8]) -> Option<Packet<'a>> {
        let (length, body) = match rest {
            [octet @ 0..=191, body @ ..] => (Length::Known(usize::from(*octet)), body),
            [high @ 192..=223, low, body @ ..] => {
                let length = (usize::from(*high) - 192) * 256 + usize::from(*low) + 192;
                (Length::Known(length), body)
            }
            [224..=254, body @ ..] => (Length::Partial, body),
            [255, a, b, c, d, body @ ..] => {
                let length = u32::from_be_bytes([*a, *b, *c, *d]);
                (Length::Known(usize::try_from(length).ok()?), body)
            }
            _ => return None,
        };
        Some(Packet { tag, length, body })
    }

    fn parse_legacy_form(tag: u8, length_type: u8, rest: &'a [u8]) -> Option<Packet<'a>> {
        let (length, body) = match (length_type, rest) {
            (0, [a, body @ ..]) => (Length::Known(usize::from(*a)), body),
            (1, [a, b, body @ ..]) => (
                Length::Known(usize::from(u16::from_be_bytes([*a, *b]))),
                body,
            ),
            (2, [a, b, c, d, body @ ..]) => {
                let length = u32::from_be_bytes([*a, *b, *c, *d]);
                (Length::Known(usize::try_from(length).ok()?), body)
            }
            (3, body) => (Length::Indeterminate, body),
            _ => return None,
        };
        Some(Packet { tag, length, body })
    }

    /// Length and content of a packet that has to be small and of a known size.
    fn small(&self) -> Option<(usize, &'a [u8])> {
        match self.length {
            Length::Known(length) if (4..=8192).contains(&length) => Some((length, self.body)),
            _ => None,
        }
    }

    /// RFC 9580, 5.1: version 3 with a key ID (all zero when the recipient is hidden), or version 6.
    fn is_public_key_session_key(&self) -> bool {
        let Some((length, body)) = self.small() else {
            return false;
        };
        match body {
            [3, _, _, _, _, _, _, _, _, algorithm, material @ ..] => {
                session_key_fits(*algorithm, length.saturating_sub(10), material)
            }
            // Count of the octets that name the recipient: none, or key version and fingerprint.
            [6, 0, algorithm, ..] => is_public_key_algorithm(*algorithm),
            [6, 21, 4, rest @ ..] => rest.get(20).is_some_and(|a| is_public_key_algorithm(*a)),
            [6, 33, 6, rest @ ..] => rest.get(32).is_some_and(|a| is_public_key_algorithm(*a)),
            _ => false,
        }
    }

    /// RFC 9580, 5.3: version 4 (cipher, then string-to-key type), 5 (drafts) or 6.
    fn is_symmetric_session_key(&self) -> bool {
        match self.small() {
            Some((_, [4, 1..=13, string_to_key, ..])) => {
                matches!(string_to_key, 0 | 1 | 3 | 4 | 101 | 110)
            }
            Some((_, [5, 1..=13, 1..=3, ..])) => true,
            Some((_, [6, _, 1..=13, 1..=3, ..])) => true,
            _ => false,
        }
    }

    /// RFC 9580, 5.7: nothing but ciphertext, so only the header can be judged. Session keys stand before it
    /// in everything gpg writes; alone it needs a session key from elsewhere.
    fn is_plain_encrypted_data(&self) -> bool {
        match self.length {
            Length::Known(length) => length >= 18 && length >= self.body.len(),
            Length::Partial => true,
            Length::Indeterminate => false,
        }
    }

    /// RFC 9580, 5.13: version 1, or version 2 with cipher and AEAD algorithm.
    fn is_protected_data(&self) -> bool {
        matches!(self.body, [1, ..] | [2, 1..=13, 1..=3, 0..=16, ..])
    }
}

/// RFC 9580, 9.1: algorithms that can encrypt a session key.
fn is_public_key_algorithm(algorithm: u8) -> bool {
    matches!(algorithm, 1 | 2 | 8 | 16 | 18 | 20 | 25 | 26)
}

/// Whether `length_bytes` of key material are what `algorithm` makes of a session key. `material` holds as
/// much of it as is known.
fn session_key_fits(algorithm: u8, length_bytes: usize, material: &[u8]) -> bool {
    let (high, low) = match material {
        [high, low, ..] => (*high, *low),
        _ => return false,
    };
    // RFC 9580, 3.2: a number is preceded by its length in bits.
    let number_bytes = usize::from(u16::from_be_bytes([high, low])).div_ceil(8) + 2;
    match algorithm {
        // RSA: one number.
        1 | 2 => number_bytes == length_bytes,
        // Elgamal: two numbers. ECDH: one number, then a length octet and the wrapped key.
        16 | 18 | 20 => number_bytes > 2 && number_bytes < length_bytes,
        // Kyber of gpg 2.5: an ECC number first. X25519 and X448: 32 or 56 bytes, then the wrapped key.
        8 => number_bytes < length_bytes,
        25 => length_bytes > 32,
        26 => length_bytes > 56,
        _ => false,
    }
}
