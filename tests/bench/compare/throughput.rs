//! Many segments at once, and nothing at all.

use crate::home::{Home, Tool};
use crate::table::{Pairs, Row, seconds};
use crate::{Bench, Result};

pub(crate) fn zstd(bench: &Bench) -> Result<Vec<Row>> {
    many(bench, "zstd", "time at least 4, size at most 1.00")
}

pub(crate) fn gzip(bench: &Bench) -> Result<Vec<Row>> {
    many(bench, "gzip", "time at least 3.7")
}

pub(crate) fn none(bench: &Bench) -> Result<Vec<Row>> {
    many(bench, "none", "time at least 5")
}

fn many(bench: &Bench, compression: &str, bar: &'static str) -> Result<Vec<Row>> {
    let segments = &bench.corpus.segments;
    let option = format!("compression = {compression}");
    let options: &[&str] = match compression {
        "none" => &[],
        _ => &[&option, "compression_level = medium"],
    };
    let (mut walarch_bytes, mut barman_bytes) = (0, 0);
    let run = |tool: Tool, size_bytes: &mut u64| -> Result<f64> {
        let home = Home::create(bench.path("many"), options)?;
        home.receive(segments)?;
        let cost = home.archive(bench, tool, None)?;
        *size_bytes = home.expect_stored(segments.len())?;
        Ok(cost.wall_s)
    };
    let pairs = Pairs::collect(
        bench.runs,
        |_| run(Tool::Walarch, &mut walarch_bytes),
        |_| run(Tool::Barman, &mut barman_bytes),
    )?;
    let mib = |size_bytes: u64| size_bytes as f64 / f64::from(1 << 20);
    let cell = |wall_s, size_bytes| format!("{}, {:.1} MiB", seconds(wall_s), mib(size_bytes));
    let size_ratio = walarch_bytes as f64 / barman_bytes as f64;
    Ok(vec![Row::new(
        format!("{} segments, {compression}, against Barman", segments.len()),
        cell(pairs.walarch(), walarch_bytes),
        cell(pairs.other(), barman_bytes),
        format!("time {}, size {size_ratio:.3}", pairs.ratio()),
        bar,
    )])
}

pub(crate) fn idle(bench: &Bench) -> Result<Vec<Row>> {
    let home = Home::create(bench.path("idle"), &["compression = zstd"])?;
    let run = |tool| Ok(home.archive(bench, tool, None)?.wall_s);
    let pairs = Pairs::collect(
        bench.runs * 3,
        |_| run(Tool::Walarch),
        |_| run(Tool::Barman),
    )?;
    Ok(vec![Row::new(
        "nothing to do, against Barman",
        seconds(pairs.walarch()),
        seconds(pairs.other()),
        pairs.ratio(),
        "at least 20, under 10 ms",
    )])
}
