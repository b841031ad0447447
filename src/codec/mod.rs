//! Compression and encryption of WAL files as streams, and their recognition by magic bytes.
