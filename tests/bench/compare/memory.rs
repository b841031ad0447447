//! The most memory a run takes.

use std::fs::{self, File};
use std::io::{self, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use walarch::wal::{LONG_HEADER_SIZE_BYTES, LongPageHeader};

use crate::home::{Home, Tool};
use crate::table::{Row, mebibytes};
use crate::{Bench, Result};

const SMALL_BAR: &str = "at most 64 MiB";
const LARGE_BAR: &str = "at most 160 MiB";
const LARGE_SIZE_BYTES: u32 = 1 << 30;
/// One for each core of the machine that the bar is for.
const LARGE_SEGMENTS: u32 = 2;

pub(crate) fn memory(bench: &Bench) -> Result<Vec<Row>> {
    let every_fourth = bench.corpus.segments.iter().step_by(4);
    let real: Vec<PathBuf> = every_fourth.cloned().collect();
    let mut rows = Vec::new();
    for codec in ["zstd", "gzip", "xz", "none"] {
        let what = format!("peak memory, {} real segments, {codec}", real.len());
        rows.push(peak(bench, what, codec, &real, SMALL_BAR)?);
    }
    let noise = incompressible(bench)?;
    for codec in ["zstd", "xz"] {
        let what = format!(
            "peak memory, {} incompressible segments, {codec}",
            noise.len()
        );
        rows.push(peak(bench, what, codec, &noise, SMALL_BAR)?);
    }
    let large = large(bench)?;
    for codec in ["zstd", "gzip"] {
        let what = format!("peak memory, {} segments of 1 GiB, {codec}", large.len());
        rows.push(peak(bench, what, codec, &large, LARGE_BAR)?);
    }
    Ok(rows)
}

/// What giving WAL back takes: of a usual and of a large segment, as it was and compressed again.
pub(crate) fn fetch_memory(bench: &Bench) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    let large = large(bench)?;
    let usual = bench.corpus.segments.first().ok_or("no segments")?;
    let large = large.first().ok_or("no segments")?;
    // Compressing 1 GiB with the slow ones would tell nothing new.
    for (segment, size, codecs) in [
        (usual, "16 MiB", &["zstd", "gzip", "bzip2", "xz", "lz4"][..]),
        (large, "1 GiB", &["zstd", "gzip", "lz4"]),
    ] {
        for codec in codecs {
            let home = Home::create(
                bench.path("fetch-memory"),
                &[&format!("compression = {codec}")],
            )?;
            home.receive(std::slice::from_ref(segment))?;
            home.archive(bench, Tool::Walarch, None)?;
            let name = Path::new(segment.file_name().ok_or("a segment without a name")?);
            let goal = bench.path("fetched");
            let got = home.get(bench, Tool::Walarch, name, &goal)?;
            fs::remove_file(&goal)?;
            let words = ["wal-restore", "--local", "main"].map(Path::new);
            let words = [&words[..], &[name, &goal]].concat();
            let restored = home.run(bench, Tool::Walarch, &words)?;
            fs::remove_file(goal)?;
            for (command, cost) in [("get-wal", got), ("wal-restore --local", restored)] {
                let what = format!("peak memory, {command}, {size}, {codec}");
                rows.push(Row::new(what, mebibytes(cost.peak_kib), "", "", SMALL_BAR));
            }
        }
    }
    Ok(rows)
}

/// One run: memory does not depend on how busy the machine is.
fn peak(
    bench: &Bench,
    what: String,
    codec: &str,
    segments: &[PathBuf],
    bar: &'static str,
) -> Result<Row> {
    let compression = format!("compression = {codec}");
    let options: &[&str] = match codec {
        "none" => &[],
        _ => &[&compression],
    };
    let home = Home::create(bench.path("memory"), options)?;
    home.receive(segments)?;
    let cost = home.archive(bench, Tool::Walarch, None)?;
    home.expect_stored(segments.len())?;
    Ok(Row::new(what, mebibytes(cost.peak_kib), "", "", bar))
}

/// Segments with a true first page and noise behind it.
fn incompressible(bench: &Bench) -> Result<Vec<PathBuf>> {
    let directory = bench.path("incompressible");
    fs::create_dir_all(&directory)?;
    let mut noise = File::open("/dev/urandom")?;
    let mut paths = Vec::new();
    for segment in bench.corpus.segments.iter().step_by(8) {
        let name = segment.file_name().ok_or("a segment without a name")?;
        let path = directory.join(name);
        let (mut page, size_bytes) = (vec![0; 8192], fs::metadata(segment)?.len());
        File::open(segment)?.read_exact(&mut page)?;
        let mut file = File::create(&path)?;
        file.write_all(&page)?;
        let rest = size_bytes.saturating_sub(page.len() as u64);
        io::copy(&mut (&mut noise).take(rest), &mut file)?;
        paths.push(path);
    }
    Ok(paths)
}

/// Segments of 1 GiB: the pages of real ones behind a first page that says so.
fn large(bench: &Bench) -> Result<Vec<PathBuf>> {
    let directory = bench.path("large");
    fs::create_dir_all(&directory)?;
    let per_log = (u64::from(u32::MAX) + 1) / u64::from(LARGE_SIZE_BYTES);
    let mut paths = Vec::new();
    for number in 1..=u64::from(LARGE_SEGMENTS) {
        let (log, segment) = (number / per_log, number % per_log);
        let path = directory.join(format!("00000001{log:08X}{segment:08X}"));
        write_large(&path, number * u64::from(LARGE_SIZE_BYTES), bench)?;
        paths.push(path);
    }
    Ok(paths)
}

fn write_large(path: &Path, page_address: u64, bench: &Bench) -> Result<()> {
    let mut file = BufWriter::new(File::create(path)?);
    let mut missing = u64::from(LARGE_SIZE_BYTES);
    for segment in bench.corpus.segments.iter().cycle() {
        missing -= io::copy(&mut File::open(segment)?.take(missing), &mut file)?;
        if missing == 0 {
            break;
        }
    }
    let mut file = file.into_inner()?;
    // xlp_pageaddr and xlp_seg_size of XLogLongPageHeaderData.
    for (position, bytes) in [
        (8, page_address.to_le_bytes().as_slice()),
        (32, LARGE_SIZE_BYTES.to_le_bytes().as_slice()),
    ] {
        file.seek(SeekFrom::Start(position))?;
        file.write_all(bytes)?;
    }
    let mut page = [0; LONG_HEADER_SIZE_BYTES];
    File::open(path)?.read_exact(&mut page)?;
    let header = LongPageHeader::parse(&page).ok_or("the corpus has no first page")?;
    match header.segment_size_bytes {
        LARGE_SIZE_BYTES => Ok(()),
        other => Err(format!("the header says {other}").into()),
    }
}
