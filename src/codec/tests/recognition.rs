//! What a file is, by its first bytes.

use super::*;

#[test]
fn a_raw_wal_page_is_never_taken_for_anything_else() {
    let random = noise(1 << 20, 11);
    for magic_high in [0xD0, 0xD1] {
        for magic_low in 0..=255_u8 {
            for info in 0..16_u8 {
                let at = (usize::from(magic_low) * 16 + usize::from(info)) * 64;
                let rest = &random[at..at + 60];
                let little = [&[magic_low, magic_high, info, 0], rest].concat();
                let big = [&[magic_high, magic_low, 0, info], rest].concat();
                for page in [little, big] {
                    assert!(!is_encrypted(&page), "{page:x?}");
                    assert_eq!(identify_compression(&page, None), None, "{page:x?}");
                }
            }
        }
    }
}

#[test]
fn compressed_files_are_not_taken_for_encrypted_ones() {
    for compression in IN_PROCESS {
        for content in contents() {
            let stored = encode(&options(compression, CompressionLevel::Low), &content).unwrap();
            let head = &stored[..stored.len().min(HEAD_SIZE_BYTES)];
            assert!(!is_encrypted(head), "{compression}");
            let identified = identify_compression(head, None).unwrap();
            assert!(
                compression.name().ends_with(identified.name()),
                "{compression}"
            );
        }
    }
}

#[test]
fn what_to_try_follows_the_configuration() {
    use Compression::{Custom, Gzip};
    let gzip = b"\x1f\x8b\x08\0";
    let page = wal_like(8192);
    let try_for = |options: &CodecOptions, head: &[u8]| {
        Decoder::with_options(options.clone()).compressions_to_try(head)
    };
    let plain = CodecOptions::default();
    assert_eq!(try_for(&plain, gzip), [Some(Gzip)]);
    assert_eq!(try_for(&plain, b"anything"), [None]);
    let mut options = custom("cat", "cat");
    assert_eq!(try_for(&options, gzip), [Some(Custom), Some(Gzip)]);
    assert_eq!(try_for(&options, b"anything"), [Some(Custom)]);
    assert_eq!(try_for(&options, &page), [None]);
    options.custom_compression_magic = Some(b"any".to_vec());
    assert_eq!(try_for(&options, b"anything"), [Some(Custom)]);
    assert_eq!(try_for(&options, b"else"), [None]);
    // The magic counts while the codec is configured, the filter always.
    options.compression = None;
    assert_eq!(try_for(&options, b"anything"), [None]);
    assert_eq!(try_for(&options, gzip), [Some(Custom), Some(Gzip)]);
}

#[test]
fn a_peeked_head_is_put_back() {
    for size_bytes in [0, 10, HEAD_SIZE_BYTES, 100_000] {
        let content = noise(size_bytes, 13);
        let (head, mut whole) = peek_head(Box::new(Cursor::new(content.clone()))).unwrap();
        assert!(head == content[..size_bytes.min(HEAD_SIZE_BYTES)]);
        let mut again = Vec::new();
        whole.read_to_end(&mut again).unwrap();
        assert!(again == content);
    }
}

/// Packet headers as RFC 9580 and gpg write them; the real gpg is asked in the interoperability tests.
#[test]
fn the_first_packet_decides_about_encryption() {
    let key_id = [1, 2, 3, 4, 5, 6, 7, 8];
    let session_key = |header: &[u8], algorithm: u8, bits: u16| {
        [
            header,
            &[3],
            &key_id,
            &[algorithm],
            &bits.to_be_bytes(),
            &[0x5a; 300],
        ]
        .concat()
    };
    for head in [
        session_key(&[0x85, 0x01, 0x0c], 1, 2047),
        session_key(&[0x84, 0x5e], 18, 263),
        session_key(&[0xc1, 0xc0, 0x4c], 1, 2048),
        session_key(&[0xc1, 0x5e], 25, 0),
        b"\xc1\x57\x06\x15\x04aaaaaaaaaaaaaaaaaaaa\x19rest of it".to_vec(),
        b"\x8c\x0d\x04\x09\x03\x0212345678\xffrest of it".to_vec(),
        b"\xc3\x04\x04\x09\x00\x02\xd2".to_vec(),
        b"\xc3\x1d\x06\x1a\x07\x02\x0b\x03\x08salt".to_vec(),
        b"\xd2\xed\x01\x1e\xbc".to_vec(),
        b"\xd2\x2d\x02\x07\x02\x06salt".to_vec(),
        b"\xd4\x4a\x01\x07\x02\x0e".to_vec(),
        [&b"\xc9\xff\0\0\x10\0"[..], &[7; 400]].concat(),
        b"-----BEGIN PGP MESSAGE-----\n\nhQ".to_vec(),
    ] {
        assert!(is_encrypted(&head), "{head:x?}");
    }
    for head in [
        Vec::new(),
        vec![0x85],
        // The number does not fill the packet; no known algorithm; another version; a key, not a message.
        session_key(&[0x85, 0x01, 0x0c], 1, 1024),
        session_key(&[0x84, 0x5e], 99, 263),
        [&[0x84, 0x5e, 2][..], &key_id, &[18, 1, 7, 4]].concat(),
        session_key(&[0x99, 0x01, 0x0c], 1, 2047),
        b"\xa3\x01\xcd".to_vec(),
        b"-----BEGIN PGP SIGNATURE-----".to_vec(),
        vec![0; 64],
        vec![0xff; 64],
    ] {
        assert!(!is_encrypted(&head), "{head:x?}");
    }
}
