//! `check` of a healthy server whose WAL arrives both ways.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::corpus::{Cluster, cluster_home, postgres_path};
use crate::home::{Home, Tool};
use crate::table::{Pairs, Row, seconds};
use crate::{Bench, Result, WALARCH};

const LISTED: usize = 1_000_000;

/// How long the receiver may take to begin.
const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) fn check(bench: &Bench) -> Result<Vec<Row>> {
    let server_home = cluster_home()?;
    let cluster = Cluster::start(server_home.path())?;
    let conninfo = format!(
        "host={} dbname=postgres user={}",
        server_home.path().display(),
        cluster.sql("SELECT user")?.trim()
    );
    let options = [
        format!("conninfo = {conninfo}"),
        format!("streaming_conninfo = {conninfo}"),
        format!("path_prefix = {}", postgres_path("").display()),
        "streaming_archiver = on\nslot_name = bench\ncreate_slot = auto".to_owned(),
        // Reading a million lines may take Barman longer than its limit.
        "check_timeout = 0".to_owned(),
    ];
    let options: Vec<&str> = options.iter().map(String::as_str).collect();
    let home = Home::create(bench.path("check"), &options)?;
    // With a base backup, Barman reads xlogdb as well.
    fs::write(home.meta().join("20260101T000000-backup.info"), BACKUP)?;
    list(&home, 1)?;
    let _receiver = Receiver::start(&home, bench)?;
    let run = |tool| {
        let cost = home.run(bench, tool, &[Path::new("check"), Path::new("main")])?;
        Ok(cost.wall_s)
    };
    let compare = || {
        Pairs::collect(
            bench.runs * 3,
            |_| run(Tool::Walarch),
            |_| run(Tool::Barman),
        )
    };
    let short = compare()?;
    list(&home, LISTED)?;
    let long = compare()?;
    let row = |what, pairs: &Pairs| {
        Row::new(
            what,
            seconds(pairs.walarch()),
            seconds(pairs.other()),
            pairs.ratio(),
            "at least 5",
        )
    };
    Ok(vec![
        row("check of one server, against Barman", &short),
        row("the same with 1 million lines in xlogdb", &long),
    ])
}

const BACKUP: &str = "begin_wal=000000010000000000000001\nend_wal=000000010000000000000001\n\
    begin_time=2026-01-01 00:00:00+00:00\nend_time=2026-01-01 00:00:01+00:00\nmode=postgres\n\
    server_name=main\nsize=1\nstatus=DONE\ntimeline=1\nxlog_segment_size=16777216\n";

/// Lists segments without a gap.
fn list(home: &Home, segments: usize) -> Result<()> {
    let mut file = BufWriter::new(File::create(home.xlogdb())?);
    for number in 1..=segments {
        let (log, segment) = (number / 256, number % 256);
        writeln!(
            file,
            "00000001{log:08X}{segment:08X}\t4194304\t1767225600.25\tzstd\tNone"
        )?;
    }
    Ok(file.flush()?)
}

/// A running `receive-wal`, ended when dropped.
struct Receiver(Child);

impl Receiver {
    fn start(home: &Home, bench: &Bench) -> Result<Self> {
        let child = Command::new(WALARCH)
            .arg("-c")
            .arg(home.configuration())
            .args(["receive-wal", "main"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        let receiver = Receiver(child);
        let start = Instant::now();
        loop {
            match home.run(
                bench,
                Tool::Walarch,
                &[Path::new("check"), Path::new("main")],
            ) {
                Ok(_) => return Ok(receiver),
                Err(error) if start.elapsed() > PATIENCE => return Err(error),
                Err(_) => thread::sleep(Duration::from_millis(100)),
            }
        }
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        if let Ok(pid) = i32::try_from(self.0.id()) {
            let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
        }
        let _ = self.0.wait();
    }
}
