//! Giving WAL back: one segment, and a recovery's worth of them over ssh.

use std::fs::{self, File};
use std::io::{Seek, SeekFrom, Write};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use crate::home::{Home, Tool};
use crate::single::Repository;
use crate::sshd::{HOST, Sshd};
use crate::table::{Pairs, Row, seconds};
use crate::{Bench, Result, WALARCH};

/// How many segments a recovery replays, and how many its client fetches at a time.
const RECOVERED: usize = 64;
const JOBS: &str = "4";

/// One zstd segment into a file.
pub(crate) fn get(bench: &Bench) -> Result<Vec<Row>> {
    let segments = &bench.corpus.segments;
    let home = Home::create(bench.path("get"), &["compression = zstd"])?;
    home.receive(segments)?;
    home.archive(bench, Tool::Walarch, None)?;
    home.expect_stored(segments.len())?;
    let goal = bench.path("got");
    let name = |run: usize| -> Result<&Path> {
        let segment = segments.get(run % segments.len()).ok_or("no segments")?;
        Ok(Path::new(
            segment.file_name().ok_or("a segment without a name")?,
        ))
    };
    let fetch = |tool: Tool, run: usize| -> Result<f64> {
        fs::remove_file(&goal).or_else(gone)?;
        let cost = home.get(bench, tool, name(run)?, &goal)?;
        expect_same(segments, run, &goal)?;
        Ok(cost.wall_s)
    };
    let runs = bench.runs * 3;
    let barman = Pairs::collect(
        runs,
        |run| fetch(Tool::Walarch, run),
        |run| fetch(Tool::Barman, run),
    )?;
    let decoding = Pairs::collect(
        runs,
        |run| fetch(Tool::Walarch, run),
        |run| decode(&home, name(run)?, &goal),
    )?;
    let repository = Repository::create(bench)?;
    for run in 0..runs.min(segments.len()) {
        repository.push(segments.get(run).ok_or("no segments")?)?;
    }
    let pgbackrest = Pairs::collect(
        runs.min(segments.len()),
        |run| fetch(Tool::Walarch, run),
        |run| {
            fs::remove_file(&goal).or_else(gone)?;
            let wall_s = repository.get(name(run)?, &goal)?;
            expect_same(segments, run, &goal)?;
            Ok(wall_s)
        },
    )?;
    let row = |what: &str, pairs: &Pairs, measured: String, bar: &'static str| {
        let (walarch, other) = (seconds(pairs.walarch()), seconds(pairs.other()));
        Row::new(
            format!("get-wal of a zstd segment, against {what}"),
            walarch,
            other,
            measured,
            bar,
        )
    };
    Ok(vec![
        row("Barman", &barman, barman.ratio(), "at least 5"),
        row(
            "decoding and writing it in one process",
            &decoding,
            decoding.inverse(),
            "at most 1.3",
        ),
        row(
            "`pgbackrest archive-get`",
            &pgbackrest,
            pgbackrest.ratio(),
            "at least 2",
        ),
    ])
}

fn gone(error: std::io::Error) -> std::io::Result<()> {
    match error.kind() {
        std::io::ErrorKind::NotFound => Ok(()),
        _ => Err(error),
    }
}

/// What was delivered wrongly has no speed.
fn expect_same(segments: &[PathBuf], run: usize, goal: &Path) -> Result<()> {
    let segment = segments.get(run % segments.len()).ok_or("no segments")?;
    match fs::read(segment)? == fs::read(goal)? {
        true => Ok(()),
        false => Err(format!("{} was not delivered as it was", segment.display()).into()),
    }
}

fn decode(home: &Home, name: &Path, goal: &Path) -> Result<f64> {
    fs::remove_file(goal).or_else(gone)?;
    let directory = name.to_string_lossy().chars().take(16).collect::<String>();
    let stored = home.wals().join(directory).join(name);
    let start = Instant::now();
    zstd::stream::copy_decode(File::open(stored)?, File::create(goal)?)?;
    Ok(start.elapsed().as_secs_f64())
}

/// One segment after the other, as PostgreSQL asks for them, with clients that fetch ahead.
pub(crate) fn restore(bench: &Bench) -> Result<Vec<Row>> {
    let home = Home::create(bench.path("restore"), &["compression = zstd"])?;
    let names = consecutive(bench, &home)?;
    home.archive(bench, Tool::Walarch, None)?;
    let host =
        |name: &str, program: &Path| Sshd::start(bench.path(name), program, &home.configuration());
    let walarch_host = host("walarch-host", Path::new(WALARCH))?;
    let barman_host = host("barman-host", &bench.barman)?;
    // Under Barman's name it takes Barman's arguments.
    let walarch_client = bench.path("barman-wal-restore");
    symlink(WALARCH, &walarch_client)?;
    let barman_client = bench.barman.with_file_name("barman-wal-restore");
    let pairs = Pairs::collect(
        bench.runs.min(3),
        |run| {
            recover(
                bench,
                &walarch_client,
                &walarch_host,
                &names,
                &format!("w{run}"),
            )
        },
        |run| {
            recover(
                bench,
                &barman_client,
                &barman_host,
                &names,
                &format!("b{run}"),
            )
        },
    )?;
    Ok(vec![Row::new(
        format!(
            "{RECOVERED} segments by wal-restore -p {JOBS} over ssh, against Barman's client and Barman"
        ),
        seconds(pairs.walarch()),
        seconds(pairs.other()),
        pairs.ratio(),
        "at least 1.3",
    )])
}

fn recover(
    bench: &Bench,
    client: &Path,
    host: &Sshd,
    names: &[String],
    spool: &str,
) -> Result<f64> {
    let data = bench.path("data");
    fs::create_dir_all(data.join("pg_wal"))?;
    let goal = "pg_wal/RECOVERYXLOG";
    let start = Instant::now();
    for name in names {
        let status = Command::new(client)
            .args(["-U", &Sshd::user()?, "-p", JOBS, "--spool-dir"])
            .arg(bench.path(spool))
            .args([HOST, "main", name, goal])
            .current_dir(&data)
            .env("PATH", host.path())
            .stdin(Stdio::null())
            .status()?;
        if !status.success() || data.join(goal).metadata()?.len() != 16 << 20 {
            return Err(format!("{name} was not restored: {status}").into());
        }
        fs::remove_file(data.join(goal))?;
    }
    Ok(start.elapsed().as_secs_f64())
}

/// Real segments under consecutive names, with first pages that fit them, waiting in the home.
fn consecutive(bench: &Bench, home: &Home) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for (number, segment) in (1..=RECOVERED).zip(bench.corpus.segments.iter().cycle()) {
        let name = format!("0000000100000000{number:08X}");
        let path = home.incoming().join(&name);
        fs::copy(segment, &path)?;
        let mut file = File::options().write(true).open(path)?;
        // xlp_pageaddr of XLogPageHeaderData.
        file.seek(SeekFrom::Start(8))?;
        file.write_all(&((number as u64) << 24).to_le_bytes())?;
        names.push(name);
    }
    Ok(names)
}
