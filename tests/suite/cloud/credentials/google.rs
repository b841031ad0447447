//! Google: service accounts and the account of the machine.

use std::fs;
use std::path::Path;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use super::{accepting_store, authorization, bearer, home_at, stored, tokens};
use crate::support::tls::openssl;

const GOOGLE: &str = "gs://wal/pre";

/// A key file of a service account, with a key that nobody else has.
fn service_account(folder: &Path) -> String {
    openssl(
        folder,
        "genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:2048 -out private.pem",
    );
    json!({
        "type": "service_account", "client_email": "wal@project.iam.gserviceaccount.com",
        "private_key": fs::read_to_string(folder.join("private.pem")).unwrap(), "private_key_id": "key-1",
        "token_uri": "https://oauth2.googleapis.com/token",
    })
    .to_string()
}

#[test]
fn a_service_account() {
    let store = accepting_store();
    let home = home_at(GOOGLE, &store, &[]);
    let path = home.home.root().join("account.json");
    fs::write(&path, service_account(home.home.root())).unwrap();
    let home = home.env("GOOGLE_APPLICATION_CREDENTIALS", path.display().to_string());
    let authorization = authorization(&stored(&home, &store)).unwrap();
    let token = authorization.strip_prefix("Bearer ").unwrap();
    let claims = BASE64_URL_SAFE_NO_PAD
        .decode(token.split('.').nth(1).unwrap())
        .unwrap();
    let claims: Value = serde_json::from_slice(&claims).unwrap();
    assert_eq!(claims["iss"], "wal@project.iam.gserviceaccount.com");
}

#[test]
fn the_account_of_the_machine() {
    let store = accepting_store();
    let metadata = tokens("/computeMetadata/v1/instance/service-accounts/default/token");
    let host = metadata.url().replace("http://", "");
    let home = home_at(GOOGLE, &store, &[]).env("GCE_METADATA_HOST", host);
    assert_eq!(authorization(&stored(&home, &store)), bearer());
    assert_eq!(metadata.last().header("metadata-flavor"), Some("Google"));
}
