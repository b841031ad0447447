//! The rules of every storage on a store in memory and on real server software, as `tests/setup.sh` installs it.
#![allow(
    clippy::disallowed_methods,
    reason = "tests make the messes that durable never would"
)]

use object_store::aws::{AmazonS3Builder, Checksum};
use object_store::azure::MicrosoftAzureBuilder;
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::memory::InMemory;

use super::*;
use crate::storage::conformance::check_all;

#[allow(
    dead_code,
    unreachable_pub,
    missing_docs,
    reason = "the suite uses more of it"
)]
#[path = "../../../tests/suite/support/http.rs"]
mod http;
#[allow(
    dead_code,
    unreachable_pub,
    missing_docs,
    reason = "the suite uses more of it"
)]
#[path = "../../../tests/suite/support/object_stores.rs"]
mod object_stores;

use object_stores::{ACCESS_KEY, AZURE_ACCOUNT, AZURE_KEY, BUCKET, Kind, SECRET_KEY};

fn cloud(store: Arc<dyn ObjectStore>, url: &str, root: &std::path::Path) -> Cloud {
    let prefix = root.display().to_string();
    let address = Address::parse(&format!("{url}{}", prefix.trim_start_matches('/'))).unwrap();
    let server = ServerConfig::with_defaults("main", root);
    Cloud::over(store, address, &server).unwrap()
}

fn client(server: &object_stores::ObjectStore) -> Arc<dyn ObjectStore> {
    set_up_tls();
    let plain = object_store::ClientOptions::new().with_allow_http(true);
    match server.kind {
        Kind::Moto | Kind::S3sFs => Arc::new(
            AmazonS3Builder::new()
                .with_endpoint(server.endpoint())
                .with_bucket_name(BUCKET)
                .with_access_key_id(ACCESS_KEY)
                .with_secret_access_key(SECRET_KEY)
                .with_checksum_algorithm(Checksum::SHA256)
                .with_client_options(plain)
                .build()
                .unwrap(),
        ),
        Kind::Azurite => Arc::new(
            MicrosoftAzureBuilder::new()
                .with_account(AZURE_ACCOUNT)
                .with_access_key(AZURE_KEY)
                .with_container_name(BUCKET)
                .with_endpoint(server.endpoint())
                .with_client_options(plain)
                .build()
                .unwrap(),
        ),
        Kind::Google => Arc::new(
            GoogleCloudStorageBuilder::new()
                .with_bucket_name(BUCKET)
                .with_base_url(&server.endpoint())
                .with_bearer_token("unchecked")
                .with_client_options(plain)
                .build()
                .unwrap(),
        ),
    }
}

fn set_up_tls() {
    // Whoever comes first does it for all.
    let _ = rustls::crypto::ring::default_provider().install_default();
}

fn conforms_on(kind: Kind) {
    let server = object_stores::ObjectStore::start(kind);
    let client = client(&server);
    check_all(|root| cloud(Arc::clone(&client), &server.url(""), root));
    let probed = cloud(client, &server.url(""), std::path::Path::new("probed"));
    probed.probe().unwrap();
    let mut count = 0;
    let root = probed.shared.keys.root();
    probed
        .shared
        .remote
        .list(&root, &mut |_| count += 1)
        .unwrap();
    assert_eq!(count, 0, "the probe left something behind");
}

#[test]
fn a_bucket_that_cannot_be_reached_fails_the_probe() {
    set_up_tls();
    let store = AmazonS3Builder::new()
        .with_endpoint("http://127.0.0.1:9")
        .with_bucket_name(BUCKET)
        .with_access_key_id(ACCESS_KEY)
        .with_secret_access_key(SECRET_KEY)
        .with_retry(object_store::RetryConfig {
            max_retries: 0,
            ..Default::default()
        })
        .with_client_options(object_store::ClientOptions::new().with_allow_http(true))
        .build()
        .unwrap();
    let unreachable = cloud(Arc::new(store), "s3://wal/", std::path::Path::new("x"));
    let error = unreachable.probe().unwrap_err();
    assert_eq!(error.source.kind(), io::ErrorKind::ConnectionRefused);
}

#[test]
fn a_bucket_in_memory_conforms() {
    check_all(|root| cloud(Arc::new(InMemory::new()), "s3://wal/", root));
}

#[test]
fn s3_by_moto_conforms() {
    conforms_on(Kind::Moto);
}

#[test]
fn s3_by_s3s_conforms() {
    conforms_on(Kind::S3sFs);
}

#[test]
fn azure_by_azurite_conforms() {
    conforms_on(Kind::Azurite);
}

#[test]
fn google_by_translation_conforms() {
    conforms_on(Kind::Google);
}
