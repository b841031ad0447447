//! AWS credentials as AWS's own tools find them: profiles, SSO, assumed roles, `credential_process`.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use aws_config::Region;
use aws_config::default_provider::credentials::DefaultCredentialsChain;
use aws_config::meta::region::ProvideRegion;
use aws_config::profile::{ProfileFileCredentialsProvider, ProfileFileRegionProvider};
use aws_config::provider_config::ProviderConfig;
use aws_credential_types::provider::{ProvideCredentials, SharedCredentialsProvider};
use aws_smithy_http_client::proxy::ProxyConfig;
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use aws_smithy_http_client::tls::{Provider as Tls, TlsContext, TrustStore};
use aws_smithy_http_client::{Builder, Connector};
use object_store::CredentialProvider;
use object_store::aws::AwsCredential;
use tokio::sync::Mutex;

use super::{METADATA_HOSTS, variable};

/// Credentials are asked for anew this long before they expire.
const EXPIRY_MARGIN: Duration = Duration::from_secs(300);

/// Credentials, and the region that goes with them.
#[derive(Debug)]
pub(super) struct Chain {
    provider: SharedCredentialsProvider,
    region: Option<String>,
    current: Mutex<Option<Current>>,
}

/// How whoever gives out credentials is reached.
pub(super) struct Network<'a> {
    pub(super) proxy_url: Option<&'a str>,
    /// Certificates that are trusted besides the system's, in PEM.
    pub(super) ca_pem: Vec<u8>,
}

impl Network<'_> {
    fn for_all(self, config: ProviderConfig) -> io::Result<ProviderConfig> {
        let proxy = match self.proxy_url {
            Some(url) => ProxyConfig::all(url)
                .map_err(io::Error::other)?
                .no_proxy(METADATA_HOSTS),
            None => ProxyConfig::from_env(),
        };
        let trusted = TrustStore::default().with_pem_certificate(self.ca_pem);
        let tls = TlsContext::builder()
            .with_trust_store(trusted)
            .build()
            .map_err(io::Error::other)?;
        let client = Builder::new().build_with_connector_fn(move |settings, components| {
            let mut connector = Connector::builder()
                .proxy_config(proxy.clone())
                .tls_provider(Tls::Rustls(CryptoMode::Ring))
                .tls_context(tls.clone());
            connector.set_connector_settings(settings.cloned());
            connector.set_sleep_impl(components.and_then(|components| components.sleep_impl()));
            connector.build()
        });
        Ok(config.with_http_client(client))
    }
}

#[derive(Debug)]
struct Current {
    credential: Arc<AwsCredential>,
    expires: Option<SystemTime>,
}

impl Chain {
    /// Whether there is a file that AWS's own tools would read.
    pub(super) fn has_files() -> bool {
        let named = [
            "AWS_SHARED_CREDENTIALS_FILE",
            "AWS_CONFIG_FILE",
            "AWS_PROFILE",
        ];
        let home = variable("HOME").unwrap_or_default();
        named.into_iter().any(|name| variable(name).is_some())
            || [".aws/credentials", ".aws/config"]
                .into_iter()
                .any(|name| Path::new(&home).join(name).exists())
    }

    /// `profile` has the first word over the environment, as in boto3. Reads files only; credentials are
    /// asked for when the first request needs them.
    pub(super) fn new(
        profile: Option<&str>,
        region: Option<&str>,
        network: Network<'_>,
    ) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let bare = network.for_all(ProviderConfig::without_region())?;
        runtime.block_on(async {
            let mut of_profile = ProfileFileRegionProvider::builder().configure(&bare);
            if let Some(profile) = profile {
                of_profile = of_profile.profile_name(profile);
            }
            let region = match region {
                Some(region) => Some(Region::new(region.to_owned())),
                None => of_profile.build().region().await,
            };
            let config = bare.with_region(region.clone());
            let provider = match profile {
                Some(profile) => SharedCredentialsProvider::new(
                    ProfileFileCredentialsProvider::builder()
                        .configure(&config)
                        .profile_name(profile)
                        .build(),
                ),
                None => SharedCredentialsProvider::new(
                    DefaultCredentialsChain::builder()
                        .configure(config)
                        .build()
                        .await,
                ),
            };
            Ok(Chain {
                provider,
                region: region.map(|region| region.to_string()),
                current: Mutex::default(),
            })
        })
    }

    /// The region of the profile.
    pub(super) fn region(&self) -> Option<&str> {
        self.region.as_deref()
    }
}

#[async_trait::async_trait]
impl CredentialProvider for Chain {
    type Credential = AwsCredential;

    async fn get_credential(&self) -> object_store::Result<Arc<AwsCredential>> {
        let mut current = self.current.lock().await;
        let soon = SystemTime::now() + EXPIRY_MARGIN;
        if let Some(known) = current.as_ref()
            && known.expires.is_none_or(|expires| expires > soon)
        {
            return Ok(Arc::clone(&known.credential));
        }
        let found = self.provider.provide_credentials().await.map_err(|error| {
            object_store::Error::Unauthenticated {
                path: "AWS credentials".to_owned(),
                source: Box::new(error),
            }
        })?;
        let credential = Arc::new(AwsCredential {
            key_id: found.access_key_id().to_owned(),
            secret_key: found.secret_access_key().to_owned(),
            token: found.session_token().map(str::to_owned),
        });
        *current = Some(Current {
            credential: Arc::clone(&credential),
            expires: found.expiry(),
        });
        Ok(credential)
    }
}
