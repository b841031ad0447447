//! Tokens of `az`, Azure's command line program. The client has this too, but waits for it without end.

use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use object_store::CredentialProvider;
use object_store::azure::AzureCredential;
use serde::Deserialize;
use tokio::process::Command;
use tokio::sync::Mutex;

const ARGUMENTS: [&str; 6] = [
    "account",
    "get-access-token",
    "--output",
    "json",
    "--scope",
    "https://storage.azure.com/.default",
];

/// A token is used no longer than until this time before it expires.
const EXPIRY_MARGIN: Duration = Duration::from_secs(300);

/// How long one is used that does not say when it expires: `az` before 2.54 says so in local time only, and gives no
/// token that is about to.
const UNKNOWN_EXPIRY: Duration = Duration::from_secs(120);

/// Asks `az` for a token, and again when that is about to expire.
#[derive(Debug, Default)]
pub(super) struct AzureCli {
    current: Mutex<Option<Token>>,
}

#[derive(Debug)]
struct Token {
    credential: Arc<AzureCredential>,
    good_until: SystemTime,
}

#[derive(Deserialize)]
struct Answer {
    #[serde(rename = "accessToken")]
    access_token: String,
    /// In seconds since 1970.
    expires_on: Option<u64>,
}

#[async_trait::async_trait]
impl CredentialProvider for AzureCli {
    type Credential = AzureCredential;

    async fn get_credential(&self) -> object_store::Result<Arc<AzureCredential>> {
        let mut current = self.current.lock().await;
        if let Some(token) = current.as_ref()
            && token.good_until > SystemTime::now()
        {
            return Ok(Arc::clone(&token.credential));
        }
        let answer = ask()
            .await
            .map_err(|reason| object_store::Error::Unauthenticated {
                path: "az account get-access-token".to_owned(),
                source: reason.into(),
            })?;
        let good_until = answer
            .expires_on
            .and_then(|expires_s| UNIX_EPOCH.checked_add(Duration::from_secs(expires_s)))
            .and_then(|expires| expires.checked_sub(EXPIRY_MARGIN))
            .unwrap_or_else(|| SystemTime::now() + UNKNOWN_EXPIRY);
        let credential = Arc::new(AzureCredential::BearerToken(answer.access_token));
        *current = Some(Token {
            credential: Arc::clone(&credential),
            good_until,
        });
        Ok(credential)
    }
}

/// Whoever waits no longer ends the program.
async fn ask() -> Result<Answer, String> {
    let output = Command::new("az")
        .args(ARGUMENTS)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .map_err(|error| format!("az cannot be started: {error}"))?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned());
    }
    // What it is must not be repeated: it holds a token.
    serde_json::from_slice(&output.stdout).map_err(|_| "az gave no token".to_owned())
}
