//! Amazon S3 and everything that speaks its protocol.

use std::sync::Arc;

use object_store::ObjectStore;
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey, Checksum};

use super::{client_options, refused, retry, variable};
use crate::config::{AddressingStyle, CloudChecksum, OwnCloudOptions, ServerConfig};
use crate::storage::cloud::address::Address;
use crate::storage::cloud::error::CloudError;

const HINT: &str = "check aws_profile, aws_region and the AWS_ variables";

/// Credentials come from `aws_profile`, from the environment, from the files and services that AWS's own tools
/// use (feature `aws-chain`), or from the role of the machine.
pub(super) fn connect(
    address: &Address,
    server: &ServerConfig,
) -> Result<Arc<dyn ObjectStore>, CloudError> {
    let options = &server.cloud;
    let mut own = server.own.cloud.clone();
    own.ca_file = own
        .ca_file
        .or_else(|| variable("AWS_CA_BUNDLE").map(Into::into));
    let own = &own;
    let endpoint = own
        .endpoint_url
        .clone()
        .or_else(|| variable("AWS_ENDPOINT_URL_S3"))
        .or_else(|| variable("AWS_ENDPOINT_URL"));
    let mut client = client_options(address, own, endpoint.as_deref())?;
    if let Some(limit) = options.aws_read_timeout {
        client = client.with_read_timeout(limit);
    }
    let mut builder = AmazonS3Builder::from_env()
        .with_bucket_name(&address.bucket)
        .with_retry(retry(own))
        .with_client_options(client);
    let in_path = match own.addressing_style {
        AddressingStyle::Auto => endpoint.is_some(),
        AddressingStyle::Virtual => false,
        AddressingStyle::Path => true,
    };
    if let Some(endpoint) = &endpoint {
        let endpoint = if in_path {
            endpoint.clone()
        } else {
            with_bucket(endpoint, &address.bucket)
        };
        builder = builder.with_config(AmazonS3ConfigKey::S3Endpoint, endpoint);
    }
    builder = builder.with_virtual_hosted_style_request(!in_path);
    builder = match own.checksum {
        CloudChecksum::Sha256 => builder.with_checksum_algorithm(Checksum::SHA256),
        CloudChecksum::Crc64Nvme => builder.with_checksum_algorithm(Checksum::CRC64NVME),
        CloudChecksum::None => builder,
    };
    builder = encryption(builder, address, server)?;
    builder = credentials(builder, address, server, own)?;
    if let Some(region) = &options.aws_region {
        builder = builder.with_region(region);
    }
    Ok(Arc::new(builder.build().map_err(refused(address, HINT))?))
}

/// The bucket goes before the host.
fn with_bucket(endpoint: &str, bucket: &str) -> String {
    endpoint.replacen("://", &format!("://{bucket}."), 1)
}

fn encryption(
    builder: AmazonS3Builder,
    address: &Address,
    server: &ServerConfig,
) -> Result<AmazonS3Builder, CloudError> {
    let (kind, key) = (
        &server.cloud.aws_encryption,
        &server.cloud.aws_sse_kms_key_id,
    );
    if key.is_some() && kind.as_deref() != Some("aws:kms") {
        let reason = "aws_encryption must be \"aws:kms\" if aws_sse_kms_key_id is specified";
        let hint = "set aws_encryption = aws:kms, or remove aws_sse_kms_key_id";
        return Err(CloudError::new(&address.url, reason, hint));
    }
    let settings = [
        ("aws_server_side_encryption", kind),
        ("aws_sse_kms_key_id", key),
    ];
    let settings = settings
        .into_iter()
        .filter_map(|(name, value)| Some((name, value.as_deref()?)));
    settings
        .into_iter()
        .try_fold(builder, |builder, (name, value)| {
            let key: AmazonS3ConfigKey = name.parse().map_err(refused(address, HINT))?;
            Ok(builder.with_config(key, value))
        })
}

#[cfg(feature = "aws-chain")]
fn credentials(
    builder: AmazonS3Builder,
    address: &Address,
    server: &ServerConfig,
    own: &OwnCloudOptions,
) -> Result<AmazonS3Builder, CloudError> {
    use super::aws_chain::{Chain, Network};

    let profile = server.cloud.aws_profile.as_deref();
    let region = server.cloud.aws_region.as_deref();
    let has_region = ["AWS_REGION", "AWS_DEFAULT_REGION"]
        .into_iter()
        .any(|name| variable(name).is_some());
    let is_complete = variable("AWS_ACCESS_KEY_ID").is_some()
        && (has_region || region.is_some() || !Chain::has_files());
    // Building the chain takes milliseconds that each archived file would pay.
    if profile.is_none() && is_complete {
        return Ok(builder);
    }
    let network = Network {
        proxy_url: own.proxy_url.as_deref(),
        ca_pem: super::certificates(address, own)?.0,
    };
    let chain = Chain::new(profile, region, network)
        .map_err(|error| CloudError::new(&address.url, error, HINT))?;
    let builder = match chain.region().filter(|_| !has_region) {
        Some(region) => builder.with_region(region),
        None => builder,
    };
    Ok(builder.with_credentials(Arc::new(chain)))
}

#[cfg(not(feature = "aws-chain"))]
fn credentials(
    builder: AmazonS3Builder,
    address: &Address,
    server: &ServerConfig,
    _own: &OwnCloudOptions,
) -> Result<AmazonS3Builder, CloudError> {
    match &server.cloud.aws_profile {
        None => Ok(builder),
        Some(profile) => Err(CloudError::new(
            &address.url,
            format!(
                "aws_profile = {profile}, and this walarch was built without the feature aws-chain"
            ),
            "build it with the feature, or set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bucket_may_go_into_the_host_name() {
        assert_eq!(
            with_bucket("http://127.0.0.1:9000", "wal"),
            "http://wal.127.0.0.1:9000"
        );
    }
}
