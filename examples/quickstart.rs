//! The whole way of WAL in one run, with nothing to configure:
//!
//! ```sh
//! cargo run --release --example quickstart
//! ```
//!
//! It makes a home in a temporary folder, fills `incoming` with the WAL of a throw-away PostgreSQL
//! (if one is installed, otherwise with segments that it writes itself), runs
//! `walarch archive-wal main` with zstd, shows what was stored, reads everything back and compares.

#![allow(clippy::print_stdout, reason = "it talks to whoever runs it")]

use std::collections::BTreeMap;
use std::error::Error;
use std::fs;
use std::io::Read;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::unistd::{User, geteuid};
use walarch::catalog::WalFileInfo;
use walarch::cli::{self, ExitCode};
use walarch::codec::{Decoder, Encoding};
use walarch::config::{ConfigFile, WalsDirectory};
use walarch::storage::{Local, WalStorageStrategy};
use walarch::wal::{Lsn, SegmentSize, WalName};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// How many segments are archived, at least.
const SEGMENTS_MIN: u64 = 6;

fn main() -> Result<()> {
    let home = tempfile::Builder::new()
        .prefix("walarch-quickstart-")
        .tempdir()?;
    let incoming = home.path().join("main/incoming");
    for directory in ["incoming", "streaming", "wals", "errors"] {
        fs::create_dir_all(home.path().join("main").join(directory))?;
    }
    let configuration = home.path().join("barman.conf");
    let configuration_text = configuration_text(home.path())?;
    fs::write(&configuration, &configuration_text)?;
    println!("A home with this barman.conf:\n\n{configuration_text}");

    match take_from_postgresql(home.path(), &incoming) {
        Ok(server) => println!("WAL comes from {}.", server.display()),
        Err(reason) => {
            println!("No WAL from PostgreSQL ({reason}): segments are written here.");
            write_segments(&incoming)?;
        }
    }
    let sent = read_directory(&incoming)?;

    println!(
        "\n$ walarch -c {} archive-wal main",
        configuration.display()
    );
    let command_line = [
        "walarch".into(),
        "-c".into(),
        configuration.clone().into_os_string(),
    ];
    let command = ["archive-wal".into(), "main".into()];
    if cli::execute(command_line.into_iter().chain(command)) != ExitCode::Success {
        return Err("archive-wal failed".into());
    }

    let archived = read_back(&configuration)?;
    show(&sent, &archived);
    if !read_directory(&incoming)?.is_empty() {
        return Err("incoming is not empty".into());
    }
    let contents: BTreeMap<String, Vec<u8>> = archived
        .into_iter()
        .map(|(info, bytes)| (info.name.to_string(), bytes))
        .collect();
    if contents != sent {
        return Err("what came back is not what was sent".into());
    }
    println!("\nEverything came back byte for byte.");
    Ok(())
}

fn configuration_text(home: &Path) -> Result<String> {
    let user = User::from_uid(geteuid())?.ok_or("this user has no name")?;
    Ok(format!(
        "[barman]\n\
         barman_home = {home}\n\
         barman_user = {user}\n\
         log_file = {home}/barman.log\n\
         \n\
         [main]\n\
         conninfo = host=localhost user=barman\n\
         archiver = on\n\
         compression = zstd\n",
        home = home.display(),
        user = user.name,
    ))
}

/// Starts a cluster, lets it write some WAL, and has its `archive_command` copy that to `incoming`.
/// Returns the directory of its programs.
fn take_from_postgresql(home: &Path, incoming: &Path) -> Result<PathBuf> {
    let programs = postgresql_programs().ok_or("it is not installed")?;
    let cluster = home.join("cluster");
    fs::create_dir(&cluster)?;
    if let Some(user) = server_user()? {
        for directory in [home, &cluster, incoming] {
            chown(directory, Some(user.uid.as_raw()), Some(user.gid.as_raw()))?;
        }
    }
    let data = cluster.join("data");
    let data = data
        .to_str()
        .ok_or("the temporary folder has an odd name")?;
    let socket = cluster.display().to_string();
    let run = |program: &str, arguments: &[&str]| as_server_user(&programs, program, arguments);

    run(
        "initdb",
        &["-D", data, "--no-sync", "-U", "postgres", "-A", "trust"],
    )?;
    let configuration = Path::new(data).join("postgresql.conf");
    let settings = format!(
        "archive_mode = on\narchive_command = 'cp %p {}/%f'\n\
         listen_addresses = ''\nunix_socket_directories = '{socket}'\nfsync = off\n",
        incoming.display(),
    );
    fs::write(
        &configuration,
        fs::read_to_string(&configuration)? + &settings,
    )?;
    run(
        "pg_ctl",
        &["-D", data, "-l", &format!("{socket}/log"), "-w", "start"],
    )?;
    let rows = SEGMENTS_MIN * 120_000;
    let work = format!(
        "CREATE TABLE load AS SELECT g, md5(g::text) FROM generate_series(1, {rows}) g; \
         CREATE INDEX ON load (md5); \
         SELECT pg_switch_wal()"
    );
    let worked = run(
        "psql",
        &[
            "-h", &socket, "-U", "postgres", "-q", "-c", &work, "postgres",
        ],
    );
    // Stopping waits until everything has been archived.
    run("pg_ctl", &["-D", data, "-w", "-m", "fast", "stop"])?;
    worked.map(|()| programs.clone())
}

/// The newest PostgreSQL that Debian has put on this machine.
fn postgresql_programs() -> Option<PathBuf> {
    let versions = fs::read_dir("/usr/lib/postgresql").ok()?;
    versions
        .filter_map(|entry| Some(entry.ok()?.path().join("bin")))
        .filter(|programs| programs.join("initdb").exists())
        .max_by_key(|programs| {
            programs
                .parent()?
                .file_name()?
                .to_str()?
                .parse::<u32>()
                .ok()
        })
}

/// PostgreSQL does not run as root: the user that it runs as then.
fn server_user() -> Result<Option<User>> {
    if !geteuid().is_root() {
        return Ok(None);
    }
    Ok(Some(
        User::from_name("postgres")?.ok_or("there is no user postgres")?,
    ))
}

fn as_server_user(programs: &Path, program: &str, arguments: &[&str]) -> Result<()> {
    let program = programs.join(program);
    let mut command = match server_user()? {
        Some(user) => {
            let mut command = Command::new("setpriv");
            command
                .arg(format!("--reuid={}", user.uid))
                .arg(format!("--regid={}", user.gid));
            command.arg("--clear-groups").arg(&program);
            command
        }
        None => Command::new(&program),
    };
    // pg_ctl leaves a server behind that must not hold a pipe of ours.
    let quiet = command
        .args(arguments)
        .current_dir("/")
        .stdin(Stdio::null());
    let status = quiet.stdout(Stdio::null()).stderr(Stdio::null()).status()?;
    if status.success() {
        Ok(())
    } else {
        Err(format!("{}: {status}", program.display()).into())
    }
}

/// Writes segments with proper page headers and something compressible on the pages.
fn write_segments(incoming: &Path) -> Result<()> {
    const PAGE_SIZE_BYTES: u64 = 8192;
    let size = SegmentSize::DEFAULT;
    for number in 1..=SEGMENTS_MIN {
        let start = number * size.bytes();
        let mut segment = Vec::new();
        for page in 0..size.bytes() / PAGE_SIZE_BYTES {
            let is_first = page == 0;
            // XLOG_PAGE_MAGIC of PostgreSQL 15, XLP_LONG_HEADER on the first page, timeline 1.
            segment.extend(0xD110_u16.to_le_bytes());
            segment.extend((u16::from(is_first) * 2).to_le_bytes());
            segment.extend(1_u32.to_le_bytes());
            segment.extend((start + page * PAGE_SIZE_BYTES).to_le_bytes());
            segment.extend([0; 8]);
            if is_first {
                segment.extend(7_000_000_000_000_000_001_u64.to_le_bytes());
                segment.extend(u32::try_from(size.bytes())?.to_le_bytes());
                segment.extend(u32::try_from(PAGE_SIZE_BYTES)?.to_le_bytes());
            }
            let mut row = start + page;
            while !(segment.len() as u64).is_multiple_of(PAGE_SIZE_BYTES) {
                row = row.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                let room = PAGE_SIZE_BYTES - segment.len() as u64 % PAGE_SIZE_BYTES;
                let text = format!("{:08} a row of some table;", row >> 40);
                segment.extend(text.bytes().take(usize::try_from(room)?));
            }
        }
        let name = WalName::of_segment(1, Lsn(start), size);
        fs::write(incoming.join(name.as_str()), segment)?;
    }
    Ok(())
}

fn read_directory(directory: &Path) -> Result<BTreeMap<String, Vec<u8>>> {
    let entries = fs::read_dir(directory)?;
    let read = entries.map(|entry| {
        let entry = entry?;
        Ok((
            entry.file_name().to_string_lossy().into_owned(),
            fs::read(entry.path())?,
        ))
    });
    read.collect()
}

/// Everything in the archive, decoded, through the library.
fn read_back(configuration: &Path) -> Result<Vec<(WalFileInfo, Vec<u8>)>> {
    let config = ConfigFile::open(configuration)?.load()?;
    let server = config
        .server("main")
        .ok_or("the configuration has no server main")?;
    let WalsDirectory::Local(root) = &server.wals_directory else {
        return Err("the archive is not on this host".into());
    };
    let (storage, decoder) = (Local::new(root, server), Decoder::new(server));
    let catalog = fs::read_to_string(server.xlogdb_directory.join("main-xlog.db"))?;
    let read = catalog.lines().map(|line| {
        let info: WalFileInfo = line.parse()?;
        let stored = storage
            .find(&info.name)?
            .ok_or("xlogdb lists a file that is not there")?;
        let compression = info
            .compression
            .as_deref()
            .and_then(|name| name.parse().ok());
        let encoding = Encoding {
            compression,
            encryption: None,
        };
        let mut bytes = Vec::new();
        decoder
            .decode(storage.open(&stored)?, &encoding)?
            .read_to_end(&mut bytes)?;
        Ok((info, bytes))
    });
    read.collect()
}

fn show(sent: &BTreeMap<String, Vec<u8>>, archived: &[(WalFileInfo, Vec<u8>)]) {
    println!(
        "\n{:<26} {:>12} {:>14}  codec",
        "xlogdb lists", "sent bytes", "stored bytes"
    );
    for (info, _) in archived {
        let sent_size = sent.get(info.name.as_str()).map_or(0, Vec::len);
        let codec = info.compression.as_deref().unwrap_or("none");
        println!(
            "{:<26} {sent_size:>12} {:>14}  {codec}",
            info.name.as_str(),
            info.size_bytes
        );
    }
}
