//! One segment, as `wal-archive` sends it to `put-wal`, against Barman's.

use std::path::{Path, PathBuf};
use std::process::Command;

use nix::unistd::sync;

use crate::corpus::run;
use crate::home::{Home, Tool};
use crate::probe::{self, Cost};
use crate::table::{Pairs, Row, seconds};
use crate::{Bench, Result, WALARCH};

/// Receives segments of the corpus, one process each, in turns.
pub(crate) fn put(bench: &Bench) -> Result<Vec<Row>> {
    let segments = &bench.corpus.segments;
    let walarchs = Home::create(bench.path("put-walarch"), &[])?;
    let barmans = Home::create(bench.path("put-barman"), &[])?;
    let stream = |number: usize| stream(bench, segments.get(number).ok_or("too few segments")?);
    let pairs = Pairs::collect(
        segments.len().min(bench.runs * 3),
        |number| Ok(receive(bench, &walarchs, Tool::Walarch, &stream(number)?)?.wall_s),
        |number| Ok(receive(bench, &barmans, Tool::Barman, &stream(number)?)?.wall_s),
    )?;
    Ok(vec![Row::new(
        "put-wal of one segment, against Barman",
        seconds(pairs.walarch()),
        seconds(pairs.other()),
        pairs.ratio(),
        "",
    )])
}

/// The segment and its checksum in a tar archive.
fn stream(bench: &Bench, segment: &Path) -> Result<PathBuf> {
    let folder = bench.path("put-stream");
    let archive = bench.path("put.tar");
    let script = "rm -rf \"$1\" && mkdir \"$1\" && cp \"$2\" \"$1\" && cd \"$1\" && \
                  sha256sum * > \"$1.sums\" && mv \"$1.sums\" SHA256SUMS && tar -cf \"$3\" 0* SHA256SUMS";
    let mut command = Command::new("sh");
    command.args(["-c", script, "sh"]).arg(folder);
    run(command.arg(segment).arg(&archive))?;
    Ok(archive)
}

fn receive(bench: &Bench, home: &Home, tool: Tool, stream: &Path) -> Result<Cost> {
    let program = match tool {
        Tool::Walarch => Path::new(WALARCH),
        Tool::Barman => &bench.barman,
    };
    let configuration = home.configuration();
    let script = Path::new("exec \"$0\" -c \"$1\" put-wal main < \"$2\"");
    let arguments = [Path::new("-c"), script, program, &configuration, stream];
    sync();
    probe::measure("sh", arguments)
}
