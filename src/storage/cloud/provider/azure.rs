//! Azure Blob Storage.

use std::sync::Arc;

use object_store::ObjectStore;
use object_store::azure::{AzureAccessKey, AzureConfigKey, AzureCredential, MicrosoftAzureBuilder};

use super::azure_cli::AzureCli;
use super::digest::{DigestConnector, SharedKey};
use super::{client_options, refused, retry, variable};
use crate::config::ServerConfig;
use crate::storage::cloud::address::Address;
use crate::storage::cloud::error::CloudError;

const HINT: &str = "set AZURE_STORAGE_KEY, AZURE_STORAGE_SAS_TOKEN or AZURE_STORAGE_CONNECTION_STRING, or azure_credential = azure-cli or managed-identity";

/// Credentials come from the variables that Barman and the tools of Azure read, from `azure_credential`, or
/// from the managed identity of the machine.
pub(super) fn connect(
    address: &Address,
    account: &str,
    endpoint: &str,
    server: &ServerConfig,
) -> Result<Arc<dyn ObjectStore>, CloudError> {
    let own = &server.own.cloud;
    let connection = variable("AZURE_STORAGE_CONNECTION_STRING").unwrap_or_default();
    let part = |name: &str| part_of(&connection, name);
    let endpoint = own
        .endpoint_url
        .clone()
        .or_else(|| part("BlobEndpoint"))
        .unwrap_or_else(|| endpoint.to_owned());
    let mut builder = MicrosoftAzureBuilder::from_env()
        .with_account(account)
        .with_container_name(&address.bucket)
        .with_endpoint(endpoint.trim_end_matches('/').to_owned())
        .with_retry(retry(own))
        .with_client_options(client_options(address, own, Some(&endpoint))?);
    for (key, value) in [
        (
            AzureConfigKey::AccessKey,
            part("AccountKey").or_else(|| variable("AZURE_STORAGE_KEY")),
        ),
        (AzureConfigKey::SasKey, part("SharedAccessSignature")),
    ] {
        if let Some(value) = value {
            builder = builder.with_config(key, value);
        }
    }
    builder = match server.cloud.azure_credential.as_deref() {
        None => builder,
        Some("azure-cli") => builder.with_credentials(Arc::new(AzureCli::default())),
        Some("managed-identity") => builder.with_credential_type("managed_identity"),
        Some("default") => builder.with_credential_type("auto"),
        Some(other) => {
            let reason = format!("azure_credential = {other} is unknown");
            let hint = "write azure-cli, managed-identity or default";
            return Err(CloudError::new(&address.url, reason, hint));
        }
    };
    let shared_key = shared_key(&builder, account, server).map_err(refused(address, HINT))?;
    let builder = builder.with_http_connector(DigestConnector { shared_key });
    Ok(Arc::new(builder.build().map_err(refused(address, HINT))?))
}

/// The account's key, if that is what requests will be signed with.
fn shared_key(
    builder: &MicrosoftAzureBuilder,
    account: &str,
    server: &ServerConfig,
) -> object_store::Result<Option<SharedKey>> {
    let is_chosen = matches!(
        server.cloud.azure_credential.as_deref(),
        None | Some("default")
    ) && builder.get_config_value(&AzureConfigKey::Token).is_none();
    match builder
        .get_config_value(&AzureConfigKey::AccessKey)
        .filter(|_| is_chosen)
    {
        None => Ok(None),
        Some(key) => Ok(Some(SharedKey {
            account: account.to_owned(),
            credential: Arc::new(AzureCredential::AccessKey(AzureAccessKey::try_new(&key)?)),
        })),
    }
}

/// One value of `Name=value;Name=value`.
fn part_of(connection_string: &str, name: &str) -> Option<String> {
    connection_string.split(';').find_map(|part| {
        let (key, value) = part.split_once('=')?;
        (key.trim() == name && !value.is_empty()).then(|| value.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_string_is_taken_apart() {
        let text = "DefaultEndpointsProtocol=https;AccountName=a;AccountKey=k==;EndpointSuffix=x";
        assert_eq!(part_of(text, "AccountKey").as_deref(), Some("k=="));
        assert_eq!(part_of(text, "SharedAccessSignature"), None);
        assert_eq!(part_of("", "AccountKey"), None);
    }
}
