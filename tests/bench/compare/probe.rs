//! Runs one command and tells what it cost.
//!
//! The benchmark starts itself again as a small process whose only child is the command. So the
//! kernel's figures for "all children" are those of the command and its descendants, the peak
//! memory is not that of an earlier child, and the image from which the command is forked, which
//! counts towards its peak, is a small one.

use std::ffi::OsStr;
use std::fmt;
use std::fs::File;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::resource::{Usage, UsageWho, getrusage};
use nix::sys::time::TimeVal;

use crate::Result;

/// The argument that makes the benchmark a probe.
pub(crate) const FLAG: &str = "--probe";

/// What a command cost.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cost {
    pub(crate) wall_s: f64,
    /// User and system time, of descendants too.
    pub(crate) cpu_s: f64,
    pub(crate) peak_kib: i64,
}

impl fmt::Display for Cost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.wall_s, self.cpu_s, self.peak_kib)
    }
}

/// The file that the command's standard output goes to, for the probe.
const STDOUT: &str = "COMPARE_PROBE_STDOUT";

/// Runs a command that must succeed.
pub(crate) fn measure<A: AsRef<OsStr>>(
    program: impl AsRef<OsStr>,
    arguments: impl IntoIterator<Item = A>,
) -> Result<Cost> {
    measure_into(Path::new("/dev/null"), program, arguments)
}

/// The same with standard output into a file.
pub(crate) fn measure_into<A: AsRef<OsStr>>(
    stdout: &Path,
    program: impl AsRef<OsStr>,
    arguments: impl IntoIterator<Item = A>,
) -> Result<Cost> {
    let output = Command::new(std::env::current_exe()?)
        .env(STDOUT, stdout)
        .arg(FLAG)
        .arg(program)
        .args(arguments)
        .stdin(Stdio::null())
        .output()?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).trim().into());
    }
    let text = String::from_utf8(output.stdout)?;
    let mut fields = text.split_whitespace();
    let mut field = || fields.next().ok_or("the probe said nothing");
    Ok(Cost {
        wall_s: field()?.parse()?,
        cpu_s: field()?.parse()?,
        peak_kib: field()?.parse()?,
    })
}

/// What the probe does.
pub(crate) fn answer(command: &[String]) -> Result<()> {
    let (program, arguments) = command.split_first().ok_or("no command")?;
    let stdout = std::env::var_os(STDOUT).ok_or("no standard output")?;
    let stdout = File::create(stdout)?;
    let start = Instant::now();
    let status = Command::new(program)
        .args(arguments)
        .stdout(stdout)
        .status()
        .map_err(|error| format!("{program}: {error}"))?;
    let wall_s = start.elapsed().as_secs_f64();
    if !status.success() {
        return Err(format!("{} ended with {status}", command.join(" ")).into());
    }
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN)?;
    let cost = Cost {
        wall_s,
        cpu_s: cpu(&usage).as_secs_f64(),
        peak_kib: usage.max_rss(),
    };
    println!("{cost}");
    Ok(())
}

/// The CPU time that this process has used.
pub(crate) fn process_cpu() -> Result<Duration> {
    Ok(cpu(&getrusage(UsageWho::RUSAGE_SELF)?))
}

fn cpu(usage: &Usage) -> Duration {
    let duration = |time: TimeVal| {
        let whole = Duration::from_secs(time.tv_sec().unsigned_abs());
        whole + Duration::from_micros(time.tv_usec().unsigned_abs())
    };
    duration(usage.user_time()) + duration(usage.system_time())
}
