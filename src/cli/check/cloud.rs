//! `cloud storage configuration`: whether the bucket can be reached, read and written to.

use super::super::inquiry::Pending;
use crate::archiver::CheckResult;
use crate::config::{ServerConfig, WalsDirectory};

/// What is wrong with a bucket, in one line.
pub(super) type Probed = Result<(), String>;

/// Asks the object store, if the archive is in one. Whoever waits for the answer decides how long.
pub(super) fn begin_probe(server: &ServerConfig) -> Option<Pending<Probed>> {
    let WalsDirectory::Cloud(url) = &server.wals_directory else {
        return None;
    };
    let (url, server) = (url.clone(), server.clone());
    Some(Pending::start(move || {
        probe(&url, &server).map_err(|text| text.replace('\n', "; "))
    }))
}

pub(super) fn judge(probed: Probed) -> CheckResult {
    let result = CheckResult::new("cloud storage configuration", probed.is_ok());
    match probed {
        Ok(()) => result,
        Err(reason) => result.hint(reason),
    }
}

#[cfg(feature = "cloud")]
fn probe(url: &str, server: &ServerConfig) -> Probed {
    use std::io::ErrorKind;

    use crate::storage::Cloud;

    let cloud = Cloud::new(url, server).map_err(|error| error.to_string())?;
    cloud.probe().map_err(|error| match error.source.kind() {
        ErrorKind::Unsupported => error.to_string(),
        _ => format!(
            "Could not connect to the cloud provider for WAL storage. Check your credentials and configuration: \
             {error}"
        ),
    })
}

#[cfg(not(feature = "cloud"))]
fn probe(url: &str, _server: &ServerConfig) -> Probed {
    Err(format!(
        "{url} needs a walarch that was built with the feature cloud"
    ))
}
