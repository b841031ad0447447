//! `list-wals`

use std::io;
use std::ops::ControlFlow;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde_json::{Map, Value, json};

use super::archive_wal::Parts;
use super::output::Output;
use super::servers::select_one_to_read;
use crate::catalog::{CatalogError, WalFileInfo};
use crate::codec::Decoder;
use crate::config::{Config, ServerConfig};
use crate::storage::{PlainWal, WalStorageStrategy, segment_size, visit_listed};
use crate::units::pretty_size;
use crate::wal::{Coverage, Gap, SegmentSize, WalKind, WalName, WalRange};

/// How much text is collected before it is printed.
const CHUNK_SIZE_BYTES: usize = 64 << 10;

#[derive(Debug, clap::Args)]
pub(super) struct ListWalsArgs {
    /// The server's section in the configuration
    #[arg(value_name = "SERVER")]
    server_name: String,
    #[command(flatten)]
    range: RangeArgs,
}

/// A part of an archive.
#[derive(Debug, clap::Args)]
pub(super) struct RangeArgs {
    /// The first segment
    #[arg(long, value_name = "WAL", value_parser = segment)]
    from: Option<WalName>,
    /// The last segment
    #[arg(long, value_name = "WAL", value_parser = segment)]
    to: Option<WalName>,
}

impl RangeArgs {
    pub(super) fn range(&self) -> WalRange {
        WalRange {
            from: self.from.clone(),
            to: self.to.clone(),
        }
    }
}

/// The name of a segment on the command line.
pub(super) fn segment(text: &str) -> Result<WalName, String> {
    let name = WalName::parse(text).ok();
    name.filter(|name| name.kind() == WalKind::Segment)
        .ok_or_else(|| format!("\"{text}\" is not the name of a WAL segment"))
}

/// Lists what xlogdb lists, in its order, and marks what is missing.
pub(super) fn run(config: Config, args: &ListWalsArgs, output: &Output) {
    if let Some(server) = select_one_to_read(config, &args.server_name, output)
        && let Err(message) = list(&server, &args.range.range(), output)
    {
        output.error(&message);
    }
}

fn list(server: &ServerConfig, range: &WalRange, output: &Output) -> Result<(), String> {
    let parts = Parts::new(server)?;
    let decoder = Decoder::new(server);
    let plain = PlainWal {
        storage: &*parts.storage,
        decoder: &decoder,
    };
    let text = |error: CatalogError| error.to_string();
    let segment_size = segment_size(&plain, &parts.catalog).map_err(text)?;
    let coverage = coverage(&parts, &plain, range, segment_size).map_err(text)?;
    let mut listing = Listing {
        output,
        coverage,
        time_zone: TimeZone::system(),
        chunk: String::new(),
        files: 0,
        size_bytes: 0,
        unreadable: 0,
    };
    listing.begin(server);
    let listed = visit_listed(&parts.catalog, &*parts.storage, &mut |line| {
        match line {
            Ok(info) if range.contains(&info.name) => listing.add(&info),
            Ok(_) => {}
            Err(error) => {
                tracing::warn!("xlogdb: {error}");
                listing.unreadable += 1;
            }
        }
        ControlFlow::Continue(())
    });
    let lists_nothing = listing.files == 0 && listing.unreadable == 0;
    listing.end(server);
    listed.map_err(text)?;
    if lists_nothing && holds_any(&*parts.storage, range) {
        output.warning(&format!(
            "there is WAL in the archive, and xlogdb lists none of it\n\
             HINT: 'walarch rebuild-xlogdb {}' writes it anew",
            server.name
        ));
    }
    Ok(())
}

/// Whether an archive has anything of a range. One that cannot be listed has nothing to show.
fn holds_any(storage: &dyn WalStorageStrategy, range: &WalRange) -> bool {
    let mut found = false;
    let listed = storage.list_names(&mut |name| {
        found = range.contains(&name);
        match found {
            true => Err(io::ErrorKind::Interrupted.into()),
            false => Ok(()),
        }
    });
    match listed {
        Err(error) if !found => tracing::warn!("cannot list the archive: {error}"),
        _ => {}
    }
    found
}

/// Which segments are there, and where their timelines came from.
fn coverage(
    parts: &Parts,
    plain: &PlainWal<'_>,
    range: &WalRange,
    segment_size: SegmentSize,
) -> Result<Coverage, CatalogError> {
    let mut coverage = Coverage::new(segment_size);
    let mut histories: Vec<WalName> = Vec::new();
    visit_listed(&parts.catalog, &*parts.storage, &mut |line| {
        if let Ok(info) = line
            && range.contains(&info.name)
        {
            match info.name.kind() {
                WalKind::History => histories.push(info.name),
                _ => drop(coverage.add(&info.name)),
            }
        }
        ControlFlow::Continue(())
    })?;
    for name in histories {
        match plain.history_of(&name) {
            Some(Ok(history)) => coverage.add_history(history),
            Some(Err(error)) => tracing::warn!("{name}: {error}"),
            None => tracing::warn!("{name} is listed, but not in the archive"),
        }
    }
    Ok(coverage)
}

struct Listing<'a> {
    output: &'a Output,
    coverage: Coverage,
    time_zone: TimeZone,
    chunk: String,
    files: u64,
    size_bytes: u64,
    unreadable: u64,
}

impl Listing<'_> {
    fn begin(&mut self, server: &ServerConfig) {
        if self.output.is_json() {
            self.output.begin_list(&server.name, "wals");
            return;
        }
        self.line(&format!(
            "{:<40} {:>10} {:>7} {:<12} {:<19} {:>8}",
            "NAME", "SIZE", "RATIO", "CODEC", "TIME", "TIMELINE"
        ));
    }

    fn add(&mut self, info: &WalFileInfo) {
        let gap = self.coverage.missing_before(&info.name);
        if self.output.is_json() {
            let value = self.as_json(info, gap);
            self.output.element(self.files == 0, &value);
        } else {
            if let Some(gap) = gap {
                self.line(&format!("-- {gap} --"));
            }
            let ratio = self.ratio(info);
            let ratio = ratio.map_or("-".to_owned(), |ratio| format!("{ratio:.2}"));
            self.line(&format!(
                "{:<40} {:>10} {:>7} {:<12} {:<19} {:>8}",
                info.name.as_str(),
                pretty_size(info.size_bytes),
                ratio,
                codec(info),
                self.time(info),
                info.name.timeline()
            ));
        }
        self.files += 1;
        self.size_bytes += info.size_bytes;
    }

    /// How many times as large the WAL is as what is stored of it. What is no complete segment does
    /// not tell how large it was.
    fn ratio(&self, info: &WalFileInfo) -> Option<f64> {
        let is_known = info.name.kind() == WalKind::Segment && info.size_bytes > 0;
        let segment_size_bytes = self.coverage.segment_size().bytes();
        is_known.then(|| segment_size_bytes as f64 / info.size_bytes as f64)
    }

    fn as_json(&self, info: &WalFileInfo, gap: Option<Gap>) -> Value {
        json!({
            "name": info.name.as_str(),
            "timeline": info.name.timeline(),
            "size_bytes": info.size_bytes,
            "ratio": self.ratio(info),
            "compression": info.compression,
            "encryption": info.encryption,
            "time": self.time(info),
            "time_s": info.modified_s,
            "gap_before": gap.map(|gap| json!({
                "after": gap.after.as_str(),
                "segments": gap.segments,
            })),
        })
    }

    fn time(&self, info: &WalFileInfo) -> String {
        match Timestamp::from_second(info.modified_s as i64) {
            Ok(time) => time
                .to_zoned(self.time_zone.clone())
                .strftime("%Y-%m-%d %H:%M:%S")
                .to_string(),
            Err(_) => "-".to_owned(),
        }
    }

    fn line(&mut self, line: &str) {
        self.chunk.push_str(line);
        if self.chunk.len() >= CHUNK_SIZE_BYTES {
            self.flush();
        } else {
            self.chunk.push('\n');
        }
    }

    fn flush(&mut self) {
        let chunk = self.chunk.trim_end_matches('\n');
        if !chunk.is_empty() {
            self.output.line(chunk);
        }
        self.chunk.clear();
    }

    fn end(&mut self, server: &ServerConfig) {
        let (gaps, missing) = self
            .coverage
            .gaps()
            .fold((0u64, 0u64), |(gaps, missing), gap| {
                (gaps + 1, missing + gap.segments)
            });
        if self.output.is_json() {
            let mut rest = Map::new();
            rest.insert("files".to_owned(), json!(self.files));
            rest.insert("gaps".to_owned(), json!(gaps));
            rest.insert("missing_segments".to_owned(), json!(missing));
            rest.insert("size_bytes".to_owned(), json!(self.size_bytes));
            self.output.end_list(rest);
        } else {
            self.flush();
            let gaps = match gaps {
                0 => "no gaps".to_owned(),
                1 => format!("1 gap ({missing} segments missing)"),
                _ => format!("{gaps} gaps ({missing} segments missing)"),
            };
            self.output.line(&format!(
                "{} WAL files, {}, {gaps}",
                self.files,
                pretty_size(self.size_bytes)
            ));
        }
        if self.unreadable > 0 {
            self.output.warning(&format!(
                "xlogdb has {} lines that cannot be read\n\
                 HINT: 'walarch rebuild-xlogdb {}' writes it anew",
                self.unreadable, server.name
            ));
        }
    }
}

/// What the stored form is wrapped in: `zstd`, `gzip+gpg`, `none`.
fn codec(info: &WalFileInfo) -> String {
    let wrappings: Vec<&str> = [&info.compression, &info.encryption]
        .into_iter()
        .filter_map(Option::as_deref)
        .collect();
    match wrappings.is_empty() {
        true => "none".to_owned(),
        false => wrappings.join("+"),
    }
}
