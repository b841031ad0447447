//! From settings to the typed configuration of a server.

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::error::{Level, Message};
use super::file::GlobalConfig;
use super::options::server_options;
use super::resolve::{Settings, Source};
use super::server::{
    CloudOptions, Compression, CompressionLevel, EffectiveOption, Encryption, HookScripts,
    OwnOptions, ServerConfig, WalsDirectory,
};
use super::value::{Value, is_cloud_url};

/// Makes the configuration of one server. An unusable `custom_compression_magic` disables the server
/// where it is needed and is otherwise worth a warning.
pub(super) fn server(
    settings: &Settings,
    global: &GlobalConfig,
    own: OwnOptions,
    messages: &mut Vec<Message>,
) -> ServerConfig {
    let text = |option: &str| settings.text(option).map(str::to_owned);
    let path = |option: &str| PathBuf::from(settings.text(option).unwrap_or_default());
    let on = |option: &str| settings.value(option).is_true();
    let compression = settings.text("compression").and_then(|c| c.parse().ok());
    let mut config = ServerConfig {
        name: settings.name.clone(),
        description: text("description"),
        active: on("active"),
        disabled: on("disabled"),
        messages: settings.reasons.clone(),
        passive: settings.text("primary_ssh_command").is_some(),
        primary_ssh_command: text("primary_ssh_command"),
        cluster: text("cluster"),
        active_model: settings.active_model.clone(),
        archiver: on("archiver"),
        streaming_archiver: on("streaming_archiver"),
        archiver_batch_size: batch_size(settings.value("archiver_batch_size")),
        streaming_archiver_batch_size: batch_size(settings.value("streaming_archiver_batch_size")),
        streaming_archiver_name: text("streaming_archiver_name"),
        conninfo: text("conninfo"),
        streaming_conninfo: text("streaming_conninfo"),
        wal_conninfo: text("wal_conninfo"),
        wal_streaming_conninfo: text("wal_streaming_conninfo"),
        primary_conninfo: text("primary_conninfo"),
        slot_name: text("slot_name"),
        create_slot: settings.text("create_slot") == Some("auto"),
        uses_streaming_backup: settings
            .text("backup_method")
            .is_some_and(|method| method.eq_ignore_ascii_case("postgres")),
        max_incoming_wals_queue: settings.value("max_incoming_wals_queue").number(),
        last_wal_maximum_age: match settings.value("last_wal_maximum_age") {
            Value::Interval(age) => Some(*age),
            _ => None,
        },
        check_timeout: check_timeout(settings.value("check_timeout")),
        forward_config_path: on("forward_config_path"),
        backup_directory: path("backup_directory"),
        incoming_wals_directory: path("incoming_wals_directory"),
        streaming_wals_directory: path("streaming_wals_directory"),
        errors_directory: path("errors_directory"),
        basebackups_directory: path("basebackups_directory"),
        wals_directory: wals_directory(settings),
        xlogdb_directory: xlogdb_directory(settings),
        lock_directory: global.barman_lock_directory.clone(),
        path_prefix: text("path_prefix"),
        compression,
        compression_level: level(settings.value("compression_level")),
        custom_compression_filter: text("custom_compression_filter"),
        custom_decompression_filter: text("custom_decompression_filter"),
        custom_compression_magic: None,
        encryption: settings.text("encryption").map(|_| Encryption::Gpg),
        encryption_key_id: text("encryption_key_id"),
        encryption_passphrase_command: text("encryption_passphrase_command"),
        hooks: hooks(settings),
        cloud: cloud(settings),
        own,
        options: effective_options(settings),
    };
    set_custom_magic(&mut config, settings, messages);
    config
}

fn set_custom_magic(config: &mut ServerConfig, settings: &Settings, messages: &mut Vec<Message>) {
    let Some(text) = settings.text("custom_compression_magic") else {
        return;
    };
    config.custom_compression_magic = parse_magic(text);
    if config.custom_compression_magic.is_some() {
        return;
    }
    let problem = format!(
        "Invalid custom_compression_magic '{text}' for server '{}': it must be hexadecimal, \
         such as 0x1f8b",
        config.name
    );
    if config.compression == Some(Compression::Custom) {
        config.disable(problem);
    } else {
        messages.push(Message::console(Level::Warning, problem));
    }
}

/// Reads `0x` and an even number of hexadecimal digits, at least two.
fn parse_magic(text: &str) -> Option<Vec<u8>> {
    let digits = text
        .strip_prefix("0x")
        .or_else(|| text.strip_prefix("0X"))?;
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let pairs = digits.as_bytes().chunks(2);
    pairs
        .map(|pair| {
            let pair = std::str::from_utf8(pair)
                .ok()
                .filter(|pair| pair.len() == 2)?;
            u8::from_str_radix(pair, 16).ok()
        })
        .collect()
}

/// Barman takes every number below 1 for "no limit".
fn batch_size(value: &Value) -> Option<NonZeroUsize> {
    let files = usize::try_from(value.number()?).ok()?;
    NonZeroUsize::new(files)
}

fn check_timeout(value: &Value) -> Option<Duration> {
    let seconds = u64::try_from(value.number()?).ok()?;
    (seconds > 0).then(|| Duration::from_secs(seconds))
}

fn level(value: &Value) -> CompressionLevel {
    match value {
        Value::Number(number) => CompressionLevel::Number(*number),
        Value::Text(word) if word == "low" => CompressionLevel::Low,
        Value::Text(word) if word == "high" => CompressionLevel::High,
        _ => CompressionLevel::Medium,
    }
}

fn wals_directory(settings: &Settings) -> WalsDirectory {
    let text = settings.text("wals_directory").unwrap_or_default();
    if is_cloud_url(text) {
        WalsDirectory::Cloud(text.to_owned())
    } else {
        WalsDirectory::Local(PathBuf::from(text))
    }
}

fn xlogdb_directory(settings: &Settings) -> PathBuf {
    let wals = settings.text("wals_directory").unwrap_or_default();
    let own = settings.text("xlogdb_directory").unwrap_or_default();
    if is_cloud_url(wals) && own.starts_with(wals) {
        let backup = settings.text("backup_directory").unwrap_or_default();
        return Path::new(backup).join("meta");
    }
    PathBuf::from(own)
}

fn hooks(settings: &Settings) -> HookScripts {
    let script = |option: &str| settings.text(option).map(str::to_owned);
    HookScripts {
        pre_archive: script("pre_archive_script"),
        pre_archive_retry: script("pre_archive_retry_script"),
        post_archive: script("post_archive_script"),
        post_archive_retry: script("post_archive_retry_script"),
        pre_wal_delete: script("pre_wal_delete_script"),
        pre_wal_delete_retry: script("pre_wal_delete_retry_script"),
        post_wal_delete: script("post_wal_delete_script"),
        post_wal_delete_retry: script("post_wal_delete_retry_script"),
    }
}

fn cloud(settings: &Settings) -> CloudOptions {
    let text = |option: &str| settings.text(option).map(str::to_owned);
    let number = |option: &str| {
        let number = settings.value(option).number()?;
        usize::try_from(number).ok()
    };
    CloudOptions {
        azure_credential: text("azure_credential"),
        aws_profile: text("aws_profile"),
        aws_region: text("aws_region"),
        aws_encryption: text("aws_encryption"),
        aws_sse_kms_key_id: text("aws_sse_kms_key_id"),
        aws_read_timeout: check_timeout(settings.value("aws_read_timeout")),
        delete_batch_size: number("cloud_delete_batch_size").and_then(NonZeroUsize::new),
        wal_archive_parallel: number("cloud_wal_archive_parallel").unwrap_or(0),
        wal_restore_parallel: number("cloud_wal_restore_parallel").unwrap_or(0),
    }
}

fn effective_options(settings: &Settings) -> Vec<EffectiveOption> {
    let mut options: Vec<EffectiveOption> = server_options()
        .iter()
        .filter(|option| option.is_wal_side())
        .map(|option| {
            let value = settings.value(option.name);
            let setting = settings.values.get(option.name);
            EffectiveOption {
                name: option.name,
                value: value.console(),
                json: value.json(),
                source: setting.map_or(Source::Default, |setting| setting.source.clone()),
            }
        })
        .collect();
    options.sort_by_key(|option| option.name);
    options
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn magic_is_hexadecimal() {
        assert_eq!(parse_magic("0x1f8B"), Some(vec![0x1f, 0x8b]));
        for text in ["1f8b", "0x", "0x1f8", "0xzz", "0x+1", "0xä", ""] {
            assert_eq!(parse_magic(text), None, "{text}");
        }
    }

    #[test]
    fn a_batch_below_one_has_no_limit() {
        assert_eq!(batch_size(&Value::Number(-1)), None);
        assert_eq!(batch_size(&Value::Number(0)), None);
        assert_eq!(batch_size(&Value::Number(7)), NonZeroUsize::new(7));
    }
}
