//! Whatever the bytes are.

use super::*;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_bytes_survive(content in proptest::collection::vec(any::<u8>(), 0..20_000), which in 0..8_usize) {
        let options = options(IN_PROCESS[which], CompressionLevel::Low);
        let stored = encode(&options, &content).unwrap();
        prop_assert!(decode(&options, &stored).unwrap() == content);
    }

    #[test]
    fn no_bytes_make_a_decoder_panic(stored in proptest::collection::vec(any::<u8>(), 0..2000), which in 0..8_usize) {
        let options = options(IN_PROCESS[which], CompressionLevel::Low);
        let magic = encode(&options, b"x").unwrap();
        let _ = decode(&options, &stored);
        let _ = decode(&options, &[&magic[..6], &stored].concat());
    }

    #[test]
    fn no_bytes_make_detection_panic(head in proptest::collection::vec(any::<u8>(), 0..64)) {
        let _ = is_encrypted(&head);
        let _ = identify_compression(&head, Some(&[1, 2]));
    }
}
