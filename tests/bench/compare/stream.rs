//! The built-in receiver against `pg_receivewal`: how fast it catches up, what a commit that waits for it costs, how
//! soon WAL is in the archive.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::corpus::{Cluster, cluster_home, postgres_path};
use crate::home::{Home, Tool};
use crate::receive::{Stopped, wait_for};
use crate::table::{Pairs, Row, mebibytes, median, seconds};
use crate::{Bench, Result, WALARCH};

/// 1600 MiB.
const SEGMENTS: usize = 100;

/// How long `pgbench` runs each time.
const COMMIT_S: &str = "15";

/// How many segments are written at the stated rate,
const PROMPT_SEGMENTS: u32 = 60;
/// 16 MiB of WAL at 100 MB/s.
const PROMPT_PERIOD: Duration = Duration::from_millis(168);

/// A server, and what connects to it.
struct Source {
    cluster: Cluster,
    conninfo: String,
    /// The name of its first segment.
    first: String,
    _home: TempDir,
}

impl Source {
    fn start(settings: &str) -> Result<Self> {
        let home = cluster_home()?;
        let settings = format!("archive_mode = off\n{settings}");
        let cluster = Cluster::start_with(home.path(), &settings)?;
        let user = cluster.sql("SELECT user")?;
        let first =
            cluster.sql("SELECT min(name) FROM pg_ls_waldir() WHERE name ~ '^[0-9A-F]{24}$'")?;
        Ok(Source {
            conninfo: format!("host={} user={}", home.path().display(), user.trim()),
            first: first.trim().to_owned(),
            cluster,
            _home: home,
        })
    }

    /// One with more WAL than is received.
    fn with_wal() -> Result<Self> {
        let source = Self::start("wal_keep_size = 8GB\nmax_wal_size = 16GB\n")?;
        let written = "SELECT (pg_current_wal_lsn() - '0/0') / 16777216";
        let first = number(&source.cluster.sql(written)?)?;
        for table in 0.. {
            if number(&source.cluster.sql(written)?)? > first + SEGMENTS as f64 + 2.0 {
                break;
            }
            source.cluster.sql(&format!(
                "CREATE TABLE bulk_{table} AS SELECT g AS id, md5(g::text) AS key, random() AS value, \
                 repeat(md5((g * 7 + {table})::text), 3) AS filler FROM generate_series(1, 1000000) AS g"
            ))?;
            source
                .cluster
                .sql(&format!("CREATE INDEX ON bulk_{table} (key)"))?;
        }
        source.cluster.sql("CHECKPOINT")?;
        Ok(source)
    }

    /// A home whose receiver is the built-in one.
    fn home(&self, bench: &Bench, name: &str, options: &[&str], toml: &str) -> Result<Home> {
        let conninfo = format!("conninfo = {} dbname=postgres", self.conninfo);
        let streaming = format!("streaming_conninfo = {}", self.conninfo);
        let path = format!("path_prefix = {}", postgres_path("").display());
        let common = ["streaming_archiver = on", &conninfo, &streaming, &path];
        let home = Home::create(bench.path(name), &[&common[..], options].concat())?;
        let toml = format!("[walarch]\nreceiver = \"builtin\"\n{toml}");
        fs::write(home.configuration().with_file_name("walarch.toml"), toml)?;
        Ok(home)
    }

    /// Begins at the server's first segment.
    fn mark(&self, home: &Home) -> Result<()> {
        fs::write(
            home.streaming().join(format!("{}.partial", self.first)),
            b"",
        )?;
        Ok(())
    }

    fn pg_receivewal(&self, home: &Home, options: &[&str]) -> Result<Stopped> {
        let mut command = Command::new(postgres_path("pg_receivewal"));
        command.arg("-D").arg(home.streaming());
        let conninfo = format!("{} application_name=barman_receive_wal", self.conninfo);
        command
            .args(["-d", &conninfo, "--no-loop", "--no-password"])
            .args(options);
        start(command)
    }
}

fn builtin(home: &Home) -> Result<Stopped> {
    let mut command = Command::new(WALARCH);
    command.arg("-q").arg("-c").arg(home.configuration());
    command.args(["receive-wal", "main"]);
    start(command)
}

fn start(mut command: Command) -> Result<Stopped> {
    let streams = command.stdin(Stdio::null()).stdout(Stdio::null());
    Ok(Stopped(streams.stderr(Stdio::null()).spawn()?))
}

/// What a process has cost by now: its CPU time in seconds, and its peak memory in KiB.
fn cost(child: &Child) -> Result<(f64, i64)> {
    let id = child.id();
    let stat = fs::read_to_string(format!("/proc/{id}/stat"))?;
    let fields = stat.rsplit(')').next().unwrap_or_default();
    // utime and stime, in hundredths of a second.
    let ticks = fields.split_whitespace().skip(11).take(2);
    let ticks = ticks.map(number).sum::<Result<f64>>()?;
    let status = fs::read_to_string(format!("/proc/{id}/status"))?;
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let peak = peak.and_then(|peak| peak.split_whitespace().next());
    Ok((ticks / 100.0, peak.ok_or("no peak memory")?.parse()?))
}

fn number(text: &str) -> Result<f64> {
    Ok(text.trim().parse()?)
}

/// Catching up: every segment is synchronised before it gets its name.
pub(crate) fn catch_up(bench: &Bench) -> Result<Vec<Row>> {
    let source = Source::with_wal()?;
    let mut peak_kib = 0;
    let mut cpu = [Vec::new(), Vec::new()];
    let mut time = |builtin_receives: bool| -> Result<f64> {
        let home = source.home(bench, "catch-up", &[], "archive_while_receiving = false\n")?;
        source.mark(&home)?;
        nix::unistd::sync();
        let mut receiver = match builtin_receives {
            true => builtin(&home)?,
            false => source.pg_receivewal(&home, &[])?,
        };
        wait_for(&mut receiver.0, &home.streaming(), 1)?;
        let start = Instant::now();
        wait_for(&mut receiver.0, &home.streaming(), SEGMENTS + 1)?;
        let wall_s = start.elapsed().as_secs_f64();
        let (cpu_s, kib) = cost(&receiver.0)?;
        if builtin_receives {
            peak_kib = kib.max(peak_kib);
        }
        if let Some(cpu) = cpu.get_mut(usize::from(!builtin_receives)) {
            cpu.push(cpu_s);
        }
        Ok(wall_s)
    };
    let mut pairs = Pairs::default();
    for _ in 0..bench.runs {
        pairs.push(time(true)?, time(false)?);
    }
    let [ours, theirs] = cpu;
    let cpu = Pairs::of(ours, theirs);
    Ok(vec![
        Row::new(
            "catching up 1600 MiB, against pg_receivewal",
            seconds(pairs.walarch()),
            seconds(pairs.other()),
            pairs.ratio(),
            "at least 2.2",
        ),
        Row::new(
            "CPU time of that, against pg_receivewal",
            seconds(cpu.walarch()),
            seconds(cpu.other()),
            cpu.inverse(),
            "at most 1.0",
        ),
        Row::new(
            "peak memory of that",
            mebibytes(peak_kib),
            "",
            "",
            "at most 48 MiB",
        ),
    ])
}

/// Catching up straight into a zstd archive, against `pg_receivewal` and then Barman's `archive-wal`.
pub(crate) fn straight(bench: &Bench) -> Result<Vec<Row>> {
    let source = Source::with_wal()?;
    let options = ["compression = zstd"];
    let mut peak_kib = 0;
    let ours = |_| {
        let home = source.home(bench, "straight", &options, "")?;
        source.mark(&home)?;
        nix::unistd::sync();
        let start = Instant::now();
        let mut receiver = builtin(&home)?;
        wait_until(&mut receiver.0, || Ok(listed(&home) >= SEGMENTS))?;
        let wall_s = start.elapsed().as_secs_f64();
        peak_kib = cost(&receiver.0)?.1.max(peak_kib);
        Ok(wall_s)
    };
    let theirs = |_| {
        let home = source.home(bench, "straight", &options, "")?;
        source.mark(&home)?;
        nix::unistd::sync();
        let start = Instant::now();
        let mut receiver = source.pg_receivewal(&home, &[])?;
        wait_for(&mut receiver.0, &home.streaming(), SEGMENTS + 1)?;
        drop(receiver);
        home.run(
            bench,
            Tool::Barman,
            &[Path::new("archive-wal"), Path::new("main")],
        )?;
        let wall_s = start.elapsed().as_secs_f64();
        match listed(&home) >= SEGMENTS {
            true => Ok(wall_s),
            false => Err(format!("Barman archived {}", listed(&home)).into()),
        }
    };
    let pairs = Pairs::collect(bench.runs, ours, theirs)?;
    Ok(vec![
        Row::new(
            "catching up 1600 MiB into a zstd archive, against pg_receivewal, then Barman's archive-wal",
            seconds(pairs.walarch()),
            seconds(pairs.other()),
            pairs.ratio(),
            "at least 3",
        ),
        Row::new(
            "peak memory of that",
            mebibytes(peak_kib),
            "",
            "",
            "48 MiB and the pipeline's",
        ),
    ])
}

/// How many files are listed in the archive.
fn listed(home: &Home) -> usize {
    let text = fs::read(home.xlogdb()).unwrap_or_default();
    text.iter().filter(|byte| **byte == b'\n').count()
}

fn wait_until(child: &mut Child, mut done: impl FnMut() -> Result<bool>) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(300);
    while !done()? {
        if let Some(status) = child.try_wait()? {
            return Err(format!("the receiver ended with {status}").into());
        }
        if Instant::now() > deadline {
            return Err("the receiver does not get on".into());
        }
        thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

/// Commits that wait for the receiver as the only synchronous standby.
pub(crate) fn commit(bench: &Bench) -> Result<Vec<Row>> {
    let source = Source::start(
        "wal_keep_size = 1GB\nsynchronous_commit = on\nfsync = on\nmax_wal_size = 16GB\n",
    )?;
    source.cluster.pgbench(&["-i", "-q", "-s", "20"])?;
    source
        .cluster
        .sql("ALTER SYSTEM SET synchronous_standby_names = 'barman_receive_wal'")?;
    source.cluster.sql("SELECT pg_reload_conf()")?;
    let (mut rates, mut waits) = (Pairs::default(), Pairs::default());
    for _ in 0..bench.runs {
        let toml = "archive_while_receiving = false\n";
        let ours = source.commits(bench, builtin, toml)?;
        let theirs = source.commits(
            bench,
            |home| source.pg_receivewal(home, &["--synchronous"]),
            toml,
        )?;
        rates.push(ours.0, theirs.0);
        waits.push(ours.1, theirs.1);
    }
    let rate = |value: f64| format!("{value:.0}/s");
    Ok(vec![
        Row::new(
            "pgbench, 8 clients, the receiver as the only synchronous standby: transactions, against pg_receivewal --synchronous",
            rate(rates.walarch()),
            rate(rates.other()),
            rates.inverse(),
            "at least 1.0, aim 1.2",
        ),
        Row::new(
            "the slowest in a hundred of these",
            seconds(waits.walarch()),
            seconds(waits.other()),
            waits.inverse(),
            "at most 1.0",
        ),
    ])
}

impl Source {
    /// Transactions a second, and the 99th percentile of their latency in seconds.
    fn commits(
        &self,
        bench: &Bench,
        receiver: impl FnOnce(&Home) -> Result<Stopped>,
        toml: &str,
    ) -> Result<(f64, f64)> {
        let home = self.home(bench, "commit", &[], toml)?;
        self.cluster.sql("CHECKPOINT")?;
        let mut receiver = receiver(&home)?;
        let sql = "SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'sync'";
        wait_until(&mut receiver.0, || Ok(self.cluster.sql(sql)?.trim() == "1"))?;
        let log = self.cluster.directory("pgbench")?;
        let prefix = log.join("log").display().to_string();
        let arguments = [
            "-n",
            "-c",
            "8",
            "-j",
            "2",
            "-T",
            COMMIT_S,
            "-l",
            "--log-prefix",
            &prefix,
        ];
        let text = self.cluster.pgbench(&arguments)?;
        let rate = text.lines().find_map(|line| line.strip_prefix("tps = "));
        let rate = rate.and_then(|rest| rest.split_whitespace().next());
        let rate = number(rate.ok_or("pgbench told no rate")?)?;
        Ok((rate, percentile_99(&log)?))
    }
}

/// Of the latencies that pgbench wrote down, in seconds.
fn percentile_99(directory: &Path) -> Result<f64> {
    let mut latencies_us = Vec::new();
    for entry in fs::read_dir(directory)? {
        for line in fs::read_to_string(entry?.path())?.lines() {
            let latency = line.split_whitespace().nth(2).ok_or("no latency")?;
            latencies_us.push(number(latency)?);
        }
    }
    latencies_us.sort_by(f64::total_cmp);
    let at = latencies_us.len() * 99 / 100;
    Ok(latencies_us.get(at).ok_or("no transactions")? / 1e6)
}

/// From the end of a segment to its line in the archive's list, while 100 MB of WAL are written each second.
pub(crate) fn prompt(bench: &Bench) -> Result<Vec<Row>> {
    let source = Source::start("wal_keep_size = 1GB\nmax_wal_size = 16GB\n")?;
    source.cluster.sql(
        "CREATE TABLE piece (body text); ALTER TABLE piece ALTER body SET STORAGE EXTERNAL; \
         INSERT INTO piece SELECT string_agg(md5(random()::text), '') FROM generate_series(1, 500000)",
    )?;
    let home = source.home(bench, "prompt", &["compression = zstd"], "")?;
    let mut receiver = builtin(&home)?;
    let sql = "SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming'";
    wait_until(&mut receiver.0, || {
        Ok(source.cluster.sql(sql)?.trim() == "1")
    })?;
    let mut ends: Vec<(String, Instant)> = Vec::new();
    let mut delays_s = Vec::new();
    let begin = Instant::now();
    for number in 1..=PROMPT_SEGMENTS {
        let segment = source.cluster.sql(
            "SELECT pg_logical_emit_message(false, 'bench', body) FROM piece; \
             SELECT pg_walfile_name(pg_switch_wal())",
        )?;
        let segment = segment.lines().last().ok_or("no segment")?.to_owned();
        ends.push((segment, Instant::now()));
        let next = begin + PROMPT_PERIOD * number;
        while Instant::now() < next {
            take_listed(&home, &mut ends, &mut delays_s);
            thread::sleep(Duration::from_millis(2));
        }
    }
    let wall_s = begin.elapsed().as_secs_f64();
    wait_until(&mut receiver.0, || {
        take_listed(&home, &mut ends, &mut delays_s);
        Ok(ends.is_empty())
    })?;
    let rate = f64::from(PROMPT_SEGMENTS) * 16.777_216 / wall_s;
    let slowest = delays_s.iter().copied().fold(0.0, f64::max);
    Ok(vec![Row::new(
        format!(
            "from segment end to archived (zstd) and listed, at {rate:.0} MB/s of WAL: median, slowest"
        ),
        seconds(median(&delays_s)),
        "",
        seconds(slowest),
        "under 1 s",
    )])
}

fn take_listed(home: &Home, ends: &mut Vec<(String, Instant)>, delays_s: &mut Vec<f64>) {
    let text = fs::read_to_string(home.xlogdb()).unwrap_or_default();
    let now = Instant::now();
    ends.retain(|(segment, end)| {
        let is_listed = text.contains(segment.as_str());
        if is_listed {
            delays_s.push((now - *end).as_secs_f64());
        }
        !is_listed
    });
}
