//! Reads `barman.conf`, its included files and `walarch.toml` into validated configurations.

mod server;

pub use server::{
    Compression, CompressionLevel, Encryption, HookScripts, OwnOptions, ServerConfig, WalsDirectory,
};
