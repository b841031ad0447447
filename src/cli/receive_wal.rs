//! `receive-wal`

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;

use super::hand_over::QueueArchivist;
use super::live::LiveLine;
use super::output::Output;
use super::processes;
use super::servers::select_for_wal;
use super::service::Service;
use crate::config::{Config, ServerConfig};
use crate::receiver::{self, Archivist, Meter, Notice, Slot, SlotError};

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
    let configuration_path = config.path.clone();
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
        receive(&server, &configuration_path, output)
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

fn receive(
    server: &ServerConfig,
    configuration_path: &Path,
    output: &Output,
) -> Result<(), String> {
    let request = StopRequest::watch()?;
    let meter = Arc::new(Meter::new(server.own.receiver.name()));
    let service = Service::from_environment();
    let watched = Arc::clone(&meter);
    service
        .keep_watchdog(move |within| watched.is_alive(within))
        .map_err(|error| format!("cannot start a thread: {error}"))?;
    let archivist = server.own.archive_while_receiving.then(|| {
        let archivist = QueueArchivist::new(server, configuration_path);
        Box::new(archivist) as Box<dyn Archivist>
    });
    let live_line = LiveLine::begin(output, &server.name, &meter);
    let notify = |notice: &Notice<'_>| tell(notice, &service, output);
    let received = receiver::receive(server, &request.stop, &meter, archivist, &notify);
    drop(live_line);
    service.stopping();
    if let Some(signal) = request.signal() {
        output.info(&format!("{signal} received. Terminate gracefully."));
    }
    received.map_err(|error| error.to_string())
}

fn tell(notice: &Notice<'_>, service: &Service, output: &Output) {
    match notice {
        Notice::Streaming(position) => service.ready(&format!("receiving WAL from {position}")),
        Notice::Line { line, .. } => {
            service.status(line);
            print(notice, output);
        }
        Notice::Reconnecting { error, .. } => {
            let reason = error.cause();
            service.status(reason.lines().next().unwrap_or_default());
            print(notice, output);
        }
        notice => print(notice, output),
    }
}

/// What a signal asks for.
struct StopRequest {
    stop: Arc<AtomicBool>,
    /// The number of the last signal.
    signal: Arc<AtomicUsize>,
}

impl StopRequest {
    fn watch() -> Result<Self, String> {
        let request = StopRequest {
            stop: Arc::new(AtomicBool::new(false)),
            signal: Arc::new(AtomicUsize::new(0)),
        };
        for number in [SIGINT, SIGTERM] {
            // The second one ends us at once, and the receiver with us.
            flag::register_conditional_shutdown(number, 1, Arc::clone(&request.stop))
                .and_then(|_| {
                    let value = usize::try_from(number).unwrap_or_default();
                    flag::register_usize(number, Arc::clone(&request.signal), value)
                })
                .and_then(|_| flag::register(number, Arc::clone(&request.stop)))
                .map_err(|error| format!("cannot watch for signals: {error}"))?;
        }
        Ok(request)
    }

    /// The signal's name, if one has come.
    fn signal(&self) -> Option<&'static str> {
        let signal = i32::try_from(self.signal.load(Ordering::Relaxed));
        let name = match signal {
            Ok(SIGTERM) => "SIGTERM",
            _ => "SIGINT",
        };
        self.stop.load(Ordering::Relaxed).then_some(name)
    }
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
