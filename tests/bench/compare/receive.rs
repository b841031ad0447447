//! What it costs to have pg_receivewal run and watched by walarch.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::corpus::{Cluster, cluster_home, postgres_path};
use crate::home::Home;
use crate::table::{Pairs, Row, mebibytes, seconds};
use crate::{Bench, Result, WALARCH};

/// How many segments are received in one run.
const SEGMENTS: usize = 24;

/// No run takes longer, unless something is wrong.
const PATIENCE: Duration = Duration::from_secs(120);

pub(crate) fn receive(bench: &Bench) -> Result<Vec<Row>> {
    let home = cluster_home()?;
    let cluster = Cluster::start(home.path())?;
    cluster.write("bulk", 10)?;
    cluster.write("index", 10)?;
    let first =
        cluster.sql("SELECT min(name) FROM pg_ls_waldir() WHERE name ~ '^[0-9A-F]{24}$'")?;
    let first = format!("{}.partial", first.trim());
    let conninfo = format!(
        "host={} user={}",
        home.path().display(),
        cluster.sql("SELECT user")?.trim()
    );
    let mut peak_kib = 0;
    let walarch = |_| {
        let home = receiving_home(bench, &conninfo)?;
        let mut command = Command::new(WALARCH);
        command.arg("-q").arg("-c").arg(home.configuration());
        command.args(["receive-wal", "main"]);
        let (wall_s, kib) = time(command, &home.streaming(), &first)?;
        peak_kib = kib.max(peak_kib);
        Ok(wall_s)
    };
    let plain = |_| {
        let home = receiving_home(bench, &conninfo)?;
        let mut command = Command::new(postgres_path("pg_receivewal"));
        command
            .arg("-D")
            .arg(home.streaming())
            .arg("-d")
            .arg(&conninfo);
        command.args(["--verbose", "--no-loop", "--no-password"]);
        Ok(time(command, &home.streaming(), &first)?.0)
    };
    let pairs = Pairs::collect(bench.runs, walarch, plain)?;
    Ok(vec![
        Row::new(
            format!("receive-wal, {SEGMENTS} segments, against plain pg_receivewal"),
            seconds(pairs.walarch()),
            seconds(pairs.other()),
            pairs.inverse(),
            "at most 1.02",
        ),
        Row::new(
            "peak memory of receive-wal, without pg_receivewal",
            mebibytes(peak_kib),
            "",
            "",
            "at most 16 MiB",
        ),
    ])
}

fn receiving_home(bench: &Bench, conninfo: &str) -> Result<Home> {
    let options = [
        "streaming_archiver = on".to_owned(),
        format!("conninfo = {conninfo} dbname=postgres"),
        format!("streaming_conninfo = {conninfo}"),
        format!("path_prefix = {}", postgres_path("").display()),
    ];
    let options: Vec<&str> = options.iter().map(String::as_str).collect();
    Home::create(bench.path("receive"), &options)
}

/// Receives from the marker on. Returns the time from the first complete segment to the last, which
/// leaves out what comes before the stream, and the peak memory of the command itself in KiB.
fn time(mut command: Command, directory: &Path, marker: &str) -> Result<(f64, i64)> {
    fs::write(directory.join(marker), b"")?;
    let child = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    let mut child = Stopped(child);
    wait_for(&mut child.0, directory, 1)?;
    let start = Instant::now();
    wait_for(&mut child.0, directory, SEGMENTS)?;
    let wall_s = start.elapsed().as_secs_f64();
    let status = fs::read_to_string(format!("/proc/{}/status", child.0.id()))?;
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let peak = peak.and_then(|peak| peak.split_whitespace().next());
    Ok((wall_s, peak.ok_or("no peak memory")?.parse()?))
}

/// A command that does not outlive its measurement.
pub(crate) struct Stopped(pub(crate) Child);

impl Drop for Stopped {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Waits until so many segments are complete.
pub(crate) fn wait_for(child: &mut Child, directory: &Path, segments: usize) -> Result<()> {
    let start = Instant::now();
    while complete(directory)?.len() < segments {
        if let Some(status) = child.try_wait()? {
            return Err(format!("the receiver ended with {status}").into());
        }
        if start.elapsed() > PATIENCE {
            return Err("the receiver does not get on".into());
        }
        thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

fn complete(directory: &Path) -> Result<Vec<PathBuf>> {
    let mut complete = Vec::new();
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        complete.extend(path.extension().is_none().then_some(path));
    }
    Ok(complete)
}
