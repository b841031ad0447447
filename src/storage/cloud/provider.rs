//! Builds the client of each provider from the configuration and the environment.

#[cfg(feature = "aws-chain")]
mod aws_chain;
mod azure;
mod azure_cli;
mod digest;
mod google;
mod s3;

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use object_store::client::Certificate;
use object_store::{BackoffConfig, ClientOptions, ObjectStore, RetryConfig};

pub(super) use digest::BodyDigest;

use super::address::{Address, Provider};
use super::error::CloudError;
use crate::config::{OwnCloudOptions, ServerConfig};

/// The first pause before a request is repeated; later ones grow, at random, up to the longest.
const PAUSE_FIRST: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(15);

/// Makes a client. Touches no network, but may run what the environment names for credentials.
pub(super) fn connect(
    address: &Address,
    server: &ServerConfig,
) -> Result<Arc<dyn ObjectStore>, CloudError> {
    // One process may have several; the first one to come sets it.
    let _ = rustls::crypto::ring::default_provider().install_default();
    match &address.provider {
        Provider::S3 => s3::connect(address, server),
        Provider::Google => google::connect(address, server),
        Provider::Azure { account, endpoint } => azure::connect(address, account, endpoint, server),
    }
}

/// Where a machine, or what runs it, gives out credentials: never behind a proxy.
const METADATA_HOSTS: &str = "169.254.169.254,169.254.170.2,169.254.170.23,fd00:ec2::254,fd00:ec2::23,metadata.google.internal";

/// Time limits, proxy and certificates, which mean the same everywhere.
fn client_options(
    address: &Address,
    own: &OwnCloudOptions,
    endpoint: Option<&str>,
) -> Result<ClientOptions, CloudError> {
    let mut options = ClientOptions::new()
        .with_allow_http(endpoint.is_some_and(|url| url.starts_with("http://")))
        .with_connect_timeout(own.connect_timeout)
        .with_timeout(own.request_timeout);
    if let Some(url) = &own.proxy_url {
        options = options
            .with_proxy_url(url)
            .with_proxy_excludes(METADATA_HOSTS);
    }
    for certificate in certificates(address, own)?.1 {
        options = options.with_root_certificate(certificate);
    }
    Ok(options)
}

/// The content of `cloud_ca_file`, which may be empty, as it is and parsed.
fn certificates(
    address: &Address,
    own: &OwnCloudOptions,
) -> Result<(Vec<u8>, Vec<Certificate>), CloudError> {
    let Some(path) = &own.ca_file else {
        return Ok((Vec::new(), Vec::new()));
    };
    let failed = |reason: String| {
        let reason = format!("cannot read {}: {reason}", path.display());
        CloudError::new(&address.url, reason, "correct cloud_ca_file")
    };
    let pem = fs::read(path).map_err(|error| failed(error.to_string()))?;
    let certificates =
        Certificate::from_pem_bundle(&pem).map_err(|error| failed(error.to_string()))?;
    match certificates.is_empty() {
        true => Err(failed("it holds no certificate in PEM".to_owned())),
        false => Ok((pem, certificates)),
    }
}

fn retry(own: &OwnCloudOptions) -> RetryConfig {
    RetryConfig {
        backoff: BackoffConfig {
            init_backoff: PAUSE_FIRST,
            max_backoff: PAUSE_MAX,
            base: 2.0,
        },
        max_retries: own.retries as usize,
        retry_timeout: own.total_timeout,
    }
}

/// A client that could not be made, for a reason in the configuration or in the environment.
fn refused(
    address: &Address,
    hint: &'static str,
) -> impl FnOnce(object_store::Error) -> CloudError {
    let url = address.url.clone();
    move |error| CloudError::new(&url, error, hint)
}

/// A variable of the environment that is set and not empty.
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}
