//! Google Cloud Storage.

use std::sync::Arc;

use object_store::ObjectStore;
use object_store::gcp::GoogleCloudStorageBuilder;

use super::digest::DigestConnector;
use super::{client_options, refused, retry};
use crate::config::ServerConfig;
use crate::storage::cloud::address::Address;
use crate::storage::cloud::error::CloudError;

const HINT: &str = "set GOOGLE_APPLICATION_CREDENTIALS to a key file, or run `gcloud auth application-default login`";

/// Credentials come from `GOOGLE_APPLICATION_CREDENTIALS`, from what gcloud left behind, or from the metadata
/// server of the machine.
pub(super) fn connect(
    address: &Address,
    server: &ServerConfig,
) -> Result<Arc<dyn ObjectStore>, CloudError> {
    let own = &server.own.cloud;
    let endpoint = own.endpoint_url.as_deref();
    let mut builder = GoogleCloudStorageBuilder::from_env()
        .with_bucket_name(&address.bucket)
        .with_retry(retry(own))
        .with_http_connector(DigestConnector::default())
        .with_client_options(client_options(address, own, endpoint)?);
    if let Some(endpoint) = endpoint {
        builder = builder.with_base_url(endpoint);
    }
    Ok(Arc::new(builder.build().map_err(refused(address, HINT))?))
}
