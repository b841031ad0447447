//! `receive-wal`

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;

use super::output::Output;
use super::processes;
use super::servers::select_for_wal;
use super::service::Service;
use crate::config::{Config, ServerConfig};
use crate::receiver::{self, Notice, Slot, SlotError};

#[derive(Debug, clap::Args)]
pub(super) struct ReceiveWalArgs {
    /// The server's section in the configuration
    #[arg(value_name = "SERVER")]
    server_name: String,
    /// Stop the receive-wal process of the server
    #[arg(long)]
    stop: bool,
    /// Let the receiver begin anew at the slot's or the server's position
    #[arg(long, conflicts_with_all = ["create_slot", "drop_slot"])]
    reset: bool,
    /// Create the replication slot
    #[arg(long)]
    create_slot: bool,
    /// With --create-slot: a slot that exists is no error
    #[arg(long)]
    if_not_exists: bool,
    /// Drop the replication slot
    #[arg(long)]
    drop_slot: bool,
}

/// The task's name, in the lock file.
const TASK: &str = "receive-wal";

pub(super) fn run(config: Config, args: &ReceiveWalArgs, output: &Output) {
    let repairs = args.stop || args.reset || args.create_slot || args.drop_slot;
    let Some(server) = select_for_wal(config, &args.server_name, repairs, output) else {
        return;
    };
    let done = if args.stop && args.reset {
        Err("--stop and --reset options are not compatible".to_owned())
    } else if args.stop {
        processes::end_running_task(&server, TASK, output);
        Ok(())
    } else if args.create_slot {
        create_slot(&server, args.if_not_exists, output).map_err(|error| error.to_string())
    } else if args.drop_slot {
        drop_slot(&server, output).map_err(|error| error.to_string())
    } else if args.reset {
        let notify = |notice: &Notice<'_>| print(notice, output);
        receiver::reset(&server, &notify).map_err(|error| error.to_string())
    } else {
        receive(&server, output)
    };
    if let Err(message) = done {
        output.error(&message);
    }
}

fn print(notice: &Notice<'_>, output: &Output) {
    match notice.is_warning() {
        true => output.warning(&notice.to_string()),
        false => output.info(&notice.to_string()),
    }
}

fn receive(server: &ServerConfig, output: &Output) -> Result<(), String> {
    let stop = Arc::new(AtomicBool::new(false));
    let signal = Arc::new(AtomicUsize::new(0));
    for number in [SIGINT, SIGTERM] {
        // The second one ends us at once, and the receiver with us.
        flag::register_conditional_shutdown(number, 1, Arc::clone(&stop))
            .and_then(|_| {
                let value = usize::try_from(number).unwrap_or_default();
                flag::register_usize(number, Arc::clone(&signal), value)
            })
            .and_then(|_| flag::register(number, Arc::clone(&stop)))
            .map_err(|error| format!("cannot watch for signals: {error}"))?;
    }
    let service = Service::from_environment();
    let received = receiver::receive(server, &stop, &|notice| match notice {
        Notice::Streaming(position) => service.ready(&format!("receiving WAL from {position}")),
        Notice::Line { line, .. } => {
            service.status(line);
            print(notice, output);
        }
        notice => print(notice, output),
    });
    service.stopping();
    if stop.load(Ordering::Relaxed) {
        let name = match i32::try_from(signal.load(Ordering::Relaxed)) {
            Ok(SIGTERM) => "SIGTERM",
            _ => "SIGINT",
        };
        output.info(&format!("{name} received. Terminate gracefully."));
    }
    received.map_err(|error| error.to_string())
}

fn create_slot(
    server: &ServerConfig,
    if_not_exists: bool,
    output: &Output,
) -> Result<(), SlotError> {
    let slot = Slot::connect(server, "create")?;
    let creating = Notice::CreatingSlot {
        slot: slot.name(),
        server: &server.name,
    };
    print(&creating, output);
    match slot.create() {
        Ok(()) => print(&Notice::SlotCreated(slot.name()), output),
        Err(SlotError::Exists(_)) if if_not_exists => {
            print(&Notice::SlotExists(slot.name()), output);
        }
        Err(error) => return Err(error),
    }
    Ok(())
}

fn drop_slot(server: &ServerConfig, output: &Output) -> Result<(), SlotError> {
    let slot = Slot::connect(server, "drop")?;
    let dropping = Notice::DroppingSlot {
        slot: slot.name(),
        server: &server.name,
    };
    print(&dropping, output);
    slot.drop_it()?;
    print(&Notice::SlotDropped(slot.name()), output);
    Ok(())
}
