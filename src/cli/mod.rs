//! The command line: one file per command, the writers, the log and the exit codes.

mod archive_wal;
mod args;
mod check;
mod check_wal_archive;
#[cfg(feature = "cloud")]
mod cloud_wal_archive;
#[cfg(feature = "cloud")]
mod cloud_wal_restore;
mod cron;
mod delete_wals;
mod detach;
mod errors;
mod exit_code;
mod forced_command;
mod generate;
mod get_wal;
mod hand_over;
mod inquiry;
mod list_wals;
mod live;
mod locks;
mod log;
mod output;
mod personality;
mod privileges;
mod processes;
mod progress;
mod put_wal;
mod rebuild_xlogdb;
mod receive_wal;
mod redact;
mod replication_status;
mod report;
mod servers;
mod service;
mod show;
mod ssh_args;
mod status;
mod switch_wal;
mod verify_wals;
mod wal_archive;
mod wal_restore;

use std::env;
use std::ffi::OsString;
use std::process;

use clap::CommandFactory;

use crate::config::{Config, ConfigError, ConfigFile};
use crate::postgres;
use args::{Args, Command};
pub use exit_code::ExitCode;
use output::Output;
use privileges::UserRule;
use put_wal::PutWalArgs;

/// Runs the command that the process was started with.
pub fn main() -> process::ExitCode {
    match personality::parse(env::args_os()) {
        Ok(args) => run_as_process(args).into(),
        Err(error) => explain(&error).into(),
    }
}

/// Runs the command whose arguments are those of the process.
fn run_as_process(mut args: Args) -> ExitCode {
    args.are_of_process = true;
    let is_prefetch = args.command.as_ref().is_some_and(Command::is_prefetch);
    let code = match (args.detached || is_prefetch).then(detach::detach) {
        Some(Err(error)) => {
            let output = Output::new(&args);
            output.error(&format!("cannot detach: {error}"));
            output.close()
        }
        _ => run(args, privileges::become_user),
    };
    // Where PostgreSQL is process 1, as in a container, it inherits this one, and takes any other code than 0 and 1
    // for the crash of a backend: it would start all of them anew.
    match is_prefetch {
        true => ExitCode::Success,
        false => code,
    }
}

/// Runs one command: the program's name, options, command and arguments, as in a shell.
///
/// For programs that embed walarch. They must run as the configured `barman_user` already.
pub fn execute(command_line: impl IntoIterator<Item = OsString>) -> ExitCode {
    match personality::parse(command_line) {
        Ok(args) => run(args, privileges::must_be_user),
        Err(error) => explain(&error),
    }
}

/// Prints what clap has to say: help and version come this way, too.
fn explain(error: &clap::Error) -> ExitCode {
    // Nothing can be done if it cannot be printed.
    let _ = error.print();
    if error.use_stderr() {
        ExitCode::Usage
    } else {
        ExitCode::Success
    }
}

fn run(args: Args, user_rule: UserRule) -> ExitCode {
    let output = Output::new(&args);
    match &args.command {
        None => generate::help(&mut Args::command()),
        Some(Command::Completion { shell }) => generate::completion(*shell, Args::command()),
        Some(Command::Man { command }) => {
            generate::man(command.as_deref(), Args::command(), &output);
        }
        Some(Command::WalArchive(args)) => wal_archive::run(args, &output),
        Some(Command::PutWal(PutWalArgs {
            forced_command: Some(servers),
            ..
        })) => match forced_command::allowed(&args, servers) {
            Ok(allowed) => return run(allowed, user_rule),
            Err(refusal) => {
                // For the log: whoever tries keys should leave a trace.
                let _ = configure(&args, user_rule);
                output.error_with_code(ExitCode::Configuration, &refusal);
            }
        },
        Some(Command::WalRestore(restore)) if !restore.local => {
            wal_restore::run_remote(restore, args.are_of_process, &output);
        }
        Some(command) => match configure(&args, user_rule) {
            Ok(config) => run_configured(&args, command, config, &output),
            Err(message) => {
                output.error(&message);
                if let Some(code) = command.code_of_misconfiguration() {
                    output.exit_with(code);
                }
            }
        },
    }
    output.close()
}

/// Reads the configuration, becomes its user and opens the log, in the order in which each needs
/// the other.
fn configure(args: &Args, user_rule: UserRule) -> Result<Config, String> {
    let text = |error: ConfigError| error.to_string();
    let file = ConfigFile::find(args.config_file()).map_err(text)?;
    let global = file.global();
    user_rule(&global.barman_user)?;
    // While there is one thread only.
    postgres::use_debian_paths();
    let level = args.log_level.as_deref().or(global.log_level.as_deref());
    log::open(global.log_file.as_deref(), level, &global.log_format);
    file.load().map_err(text)
}

fn run_configured(args: &Args, command: &Command, config: Config, output: &Output) {
    servers::report(&config.messages, output);
    match command {
        Command::ArchiveWal {
            server_name,
            wal_path,
        } => {
            archive_wal::run(config, server_name, wal_path.as_deref(), output);
        }
        Command::PutWal(args) => put_wal::run(config, args, output),
        Command::GetWal(args) => get_wal::run(config, args, output),
        Command::WalRestore(restore) => {
            wal_restore::run_local(config, restore, args.are_of_process, output);
        }
        Command::RebuildXlogdb { server_names } => {
            rebuild_xlogdb::run(config, server_names, output)
        }
        Command::DeleteWals(args) => delete_wals::run(config, args, output),
        Command::ListWals(args) => list_wals::run(config, args, output),
        Command::VerifyWals(args) => verify_wals::run(config, args, output),
        Command::CheckWalArchive(args) => check_wal_archive::run(config, args, output),
        Command::Errors(args) => errors::run(config, args, output),
        #[cfg(feature = "cloud")]
        Command::CloudWalArchive {
            server_name,
            wal_path,
            parallel,
        } => cloud_wal_archive::run(config, server_name, wal_path, *parallel, output),
        #[cfg(feature = "cloud")]
        Command::CloudWalRestore(restore) => {
            cloud_wal_restore::run(config, restore, args.are_of_process, output);
        }
        Command::ListServers { minimal } => show::list_servers(config, *minimal, output),
        Command::ShowServers { server_names } => show::show_servers(config, server_names, output),
        Command::ReceiveWal(args) => receive_wal::run(config, args, output),
        Command::Cron { keep_descriptors } => {
            cron::run(config, *keep_descriptors, args.log_level.as_deref(), output);
        }
        Command::Check {
            server_names,
            nagios,
            check_timeout,
        } => check::run(config, server_names, *nagios, *check_timeout, output),
        Command::Status { server_names } => status::run(config, server_names, output),
        Command::SwitchWal(args) => switch_wal::run(config, args, output),
        Command::ReplicationStatus(args) => replication_status::run(config, args, output),
        Command::ListProcesses { server_name } => processes::list(config, server_name, output),
        Command::TerminateProcess { server_name, task } => {
            processes::terminate(config, server_name, task, output);
        }
        Command::Completion { .. } | Command::Man { .. } | Command::WalArchive(_) => {}
    }
}
