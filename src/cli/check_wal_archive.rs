//! `check-wal-archive`

use std::ops::ControlFlow;

use serde_json::{Map, json};

use super::archive_wal::Parts;
use super::output::Output;
use super::servers::select_one;
use crate::catalog::{Catalog, CatalogError};
use crate::config::Config;
use crate::storage::{WalStorageStrategy, visit_listed};
use crate::wal::WalName;

#[derive(Debug, clap::Args)]
pub(super) struct CheckWalArchiveArgs {
    /// The server's section in the configuration
    #[arg(value_name = "SERVER")]
    server_name: String,
    /// WAL of older timelines is no reason to fail
    #[arg(long, value_name = "TIMELINE", value_parser = clap::value_parser!(u64).range(1..))]
    timeline: Option<u64>,
}

/// Fails if there is WAL in the archive that a new cluster could come into conflict with. Words and
/// exit codes are Barman's; an xlogdb that is missing is not made.
pub(super) fn run(config: Config, args: &CheckWalArchiveArgs, output: &Output) {
    let Some(server) = select_one(config, &args.server_name, output) else {
        return;
    };
    let parts = Parts::new(&server).and_then(|parts| parts.check_mounted(&server).map(|()| parts));
    let parts = match parts {
        Ok(parts) => parts,
        Err(message) => return output.error(&message),
    };
    let name = &server.name;
    if output.is_json() {
        output.value(name, Map::new().into());
    } else {
        output.info(&format!("Server {name}:"));
    }
    match objection(&*parts.storage, &parts.catalog, args.timeline) {
        Err(error) => output.error(&error),
        Ok(Some(objection)) => output.error(&format!(
            "WAL archive check failed for server {name}: {objection}"
        )),
        Ok(None) => {
            let passed = format!("WAL archive check for server {name} passed");
            if output.is_json() {
                output.value(name, json!(passed));
            } else {
                output.info(&format!(" - {passed}"));
            }
        }
    }
}

fn objection(
    storage: &dyn WalStorageStrategy,
    catalog: &Catalog,
    timeline: Option<u64>,
) -> Result<Option<String>, String> {
    let mut listed: u64 = 0;
    let mut stranger = None;
    let (mut unexpected, first) = (0, timeline.unwrap_or(0));
    visit_listed(catalog, storage, &mut |line| {
        listed += 1;
        match line {
            Ok(info) => unexpected += u64::from(first <= u64::from(info.name.timeline())),
            Err(error) => {
                let name = error.0.split_whitespace().next().unwrap_or_default();
                stranger = Some(name.to_owned());
                return ControlFlow::Break(());
            }
        }
        ControlFlow::Continue(())
    })
    .map_err(|error: CatalogError| error.to_string())?;
    if listed == 0 {
        // An xlogdb that was lost and made anew is no proof that nothing is there.
        let count = &mut |name: WalName| {
            listed += 1;
            unexpected += u64::from(first <= u64::from(name.timeline()));
            Ok(())
        };
        storage
            .list_names(count)
            .map_err(|error| format!("cannot list the archive: {error}"))?;
    }
    let Some(timeline) = timeline else {
        return Ok((listed > 0).then(|| "Expected empty archive".to_owned()));
    };
    if let Some(stranger) = stranger {
        return Ok(Some(format!(
            "Unexpected file {stranger} found in WAL archive"
        )));
    }
    let plural = if unexpected > 1 { "s" } else { "" };
    Ok((unexpected > 0).then(|| {
        format!(
            "Found {unexpected} file{plural} in WAL archive equal to or newer than timeline {timeline}"
        )
    }))
}
