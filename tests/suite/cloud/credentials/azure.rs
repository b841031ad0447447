//! Azure: connection strings, signatures, the command line program, identities.

use std::fs;

use serde_json::json;

use super::{
    SECRET, Service, TOKEN, accepting_store, authorization, bearer, home_at, stored, tokens,
};
use crate::support::http::Response;

const AZURE: &str = "https://account.blob.core.windows.net/wal/pre";

#[test]
fn a_connection_string() {
    let store = accepting_store();
    let key = "c2VjcmV0LWtleQ==";
    let home = home_at(AZURE, &store, &[]).env(
        "AZURE_STORAGE_CONNECTION_STRING",
        format!("DefaultEndpointsProtocol=https;AccountName=account;AccountKey={key}"),
    );
    let authorization = authorization(&stored(&home, &store)).unwrap();
    assert!(
        authorization.starts_with("SharedKey account:"),
        "{authorization}"
    );
    assert!(!home.home.log().contains(key));
}

#[test]
fn a_shared_access_signature() {
    let store = accepting_store();
    let home = home_at(AZURE, &store, &[]).env(
        "AZURE_STORAGE_SAS_TOKEN",
        format!("sv=2022-11-02&sp=racwl&sig={SECRET}"),
    );
    let request = stored(&home, &store);
    assert!(
        request.target.contains(&format!("sig={SECRET}")),
        "{}",
        request.target
    );
}

#[test]
fn a_signature_never_shows_in_an_error() {
    let store = Service::start(|_| Some(Response::new(403, "")));
    let home = home_at(AZURE, &store, &[]).env(
        "AZURE_STORAGE_SAS_TOKEN",
        format!("sv=2022-11-02&sp=racwl&sig={SECRET}"),
    );
    home.home.incoming_segments(1..=1);
    let refused = home
        .run(&["--log-level", "DEBUG", "--debug", "archive-wal", "main"])
        .exits(1);
    drop(store);
    let unreachable = home
        .run(&["--log-level", "DEBUG", "--debug", "archive-wal", "main"])
        .exits(1);
    for text in [&refused.stderr, &unreachable.stderr, &home.home.log()] {
        assert!(!text.contains(SECRET), "{text}");
    }
}

#[test]
fn the_command_line_program() {
    let store = accepting_store();
    let home = home_at(AZURE, &store, &[("azure_credential", "azure-cli")]);
    let answer = json!({
        "accessToken": TOKEN, "expiresOn": "2099-01-01 00:00:00.000000", "expires_on": 4_070_908_800u64,
        "subscription": "s", "tenant": "t", "tokenType": "Bearer",
    });
    home.home.script("az", &format!("echo '{answer}'\n"));
    let path = format!("{}:/usr/bin:/bin", home.home.root().display());
    let home = home.env("PATH", path);
    assert_eq!(authorization(&stored(&home, &store)), bearer());
}

#[test]
fn a_command_line_program_that_hangs_is_given_up() {
    let store = accepting_store();
    let home =
        home_at(AZURE, &store, &[("azure_credential", "azure-cli")]).env("PATH", "/usr/bin:/bin");
    let toml = format!(
        "[walarch]\ncloud_endpoint_url = \"{}\"\ncloud_total_timeout_s = 2\n",
        store.url()
    );
    fs::write(home.home.root().join("walarch.toml"), toml).unwrap();
    home.home.script("az", "exec sleep 100\n");
    let path = format!("{}:/usr/bin:/bin", home.home.root().display());
    let home = home.env("PATH", path);
    home.home.incoming_segments(1..=1);
    let start = std::time::Instant::now();
    home.archive().exits(1);
    assert!(start.elapsed().as_secs() < 60);
}

#[test]
fn a_managed_identity() {
    for options in [
        &[][..],
        &[("azure_credential", "managed-identity")],
        &[("azure_credential", "default")],
    ] {
        let (store, identity) = (accepting_store(), tokens("/identity"));
        let home = home_at(AZURE, &store, options)
            .env("IDENTITY_ENDPOINT", format!("{}/identity", identity.url()))
            .env("IDENTITY_HEADER", "of-the-service");
        assert_eq!(authorization(&stored(&home, &store)), bearer());
        let asked = identity.last();
        assert_eq!(asked.header("x-identity-header"), Some("of-the-service"));
        assert!(
            asked.target.contains("storage.azure.com"),
            "{}",
            asked.target
        );
    }
}

#[test]
fn a_workload_identity() {
    let (store, authority) = (accepting_store(), tokens("/tenant/oauth2/v2.0/token"));
    let home = home_at(AZURE, &store, &[]);
    let token = home.home.root().join("token");
    fs::write(&token, "federated-token").unwrap();
    let home = home
        .env("AZURE_CLIENT_ID", "client")
        .env("AZURE_TENANT_ID", "tenant")
        .env("AZURE_FEDERATED_TOKEN_FILE", token.display().to_string())
        .env("AZURE_AUTHORITY_HOST", authority.url());
    assert_eq!(authorization(&stored(&home, &store)), bearer());
    assert!(String::from_utf8_lossy(&authority.last().body).contains("federated-token"));
}

#[test]
fn the_secret_of_an_application() {
    let (store, authority) = (accepting_store(), tokens("/tenant/oauth2/v2.0/token"));
    let home = home_at(AZURE, &store, &[])
        .env("AZURE_CLIENT_ID", "client")
        .env("AZURE_TENANT_ID", "tenant")
        .env("AZURE_CLIENT_SECRET", SECRET)
        .env("AZURE_AUTHORITY_HOST", authority.url());
    assert_eq!(authorization(&stored(&home, &store)), bearer());
    assert!(String::from_utf8_lossy(&authority.last().body).contains(SECRET));
}
