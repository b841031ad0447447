//! The way to a store: certificates of a private authority, and proxies.

use std::fs;

use serde_json::json;

use super::CloudHome;
use crate::support::fake_s3::FakeS3;
use crate::support::home::names;
use crate::support::http::{Answer, Response, Server, ask};
use crate::support::object_stores::s3_environment;
use crate::support::tls::{Authority, Proxy};

const ONE: &str = "000000010000000000000001";

/// An S3 behind TLS, and what it is called.
fn encrypted(authority: &Authority) -> (FakeS3, String) {
    let s3 = FakeS3::start_as(|answer| authority.server(answer));
    let endpoint = format!("https://localhost:{}", s3.port());
    (s3, endpoint)
}

fn s3_home(endpoint: &str, toml: &str) -> CloudHome {
    let toml = format!("cloud_retries = 1\ncloud_total_timeout_s = 20\n{toml}");
    CloudHome::new("s3://wal/pre", endpoint, s3_environment(), &[], &toml)
}

fn ca_file(authority: &Authority) -> String {
    format!("cloud_ca_file = \"{}\"\n", authority.ca_file().display())
}

#[track_caller]
fn goes_and_comes_back(home: &CloudHome) {
    let files = home.home.incoming_segments(1..=2);
    home.archive().exits(0);
    home.assert_holds(&files);
}

#[test]
fn a_private_authority_is_trusted_where_it_is_configured() {
    let authority = Authority::new(&[]);
    let (_s3, endpoint) = encrypted(&authority);
    goes_and_comes_back(&s3_home(&endpoint, &ca_file(&authority)));
}

#[test]
fn a_private_authority_is_trusted_where_awss_variable_names_it() {
    let authority = Authority::new(&[]);
    let (_s3, endpoint) = encrypted(&authority);
    let bundle = authority.ca_file().display().to_string();
    goes_and_comes_back(&s3_home(&endpoint, "").env("AWS_CA_BUNDLE", bundle));
}

#[test]
fn an_unknown_authority_is_refused_and_named_as_the_reason() {
    let authority = Authority::new(&[]);
    let (s3, endpoint) = encrypted(&authority);
    let home = s3_home(&endpoint, "");
    home.home.incoming_segments(1..=1);
    let run = home.archive().exits(1);
    assert!(
        run.stderr.to_lowercase().contains("certificate"),
        "{}",
        run.stderr
    );
    assert!(s3.keys().is_empty());
    let goal = home.home.root().join("goal");
    home.run(&["cloud-wal-restore", "main", ONE, goal.to_str().unwrap()])
        .exits(2);
}

#[test]
fn a_file_without_certificates_is_refused() {
    let home = s3_home("https://localhost:9", "cloud_ca_file = \"/etc/passwd\"\n");
    home.home.incoming_segments(1..=1);
    let run = home.archive().exits(1);
    assert!(run.stderr.contains("/etc/passwd"), "{}", run.stderr);
    assert!(
        run.stderr.contains("HINT: correct cloud_ca_file"),
        "{}",
        run.stderr
    );
    assert_eq!(names(&home.home.incoming()).len(), 1);
}

#[test]
fn a_proxy_leads_to_a_store_behind_tls() {
    let authority = Authority::new(&["store.invalid"]);
    let (s3, _) = encrypted(&authority);
    let proxy = Proxy::to(s3.port());
    let toml = format!(
        "cloud_proxy_url = \"{}\"\n{}",
        proxy.url(),
        ca_file(&authority)
    );
    goes_and_comes_back(&s3_home("https://store.invalid", &toml));
    assert!(
        proxy.asked().iter().all(|host| host == "store.invalid:443"),
        "{:?}",
        proxy.asked()
    );
}

#[test]
fn the_proxy_of_the_environment_is_used() {
    let authority = Authority::new(&["store.invalid"]);
    let (s3, _) = encrypted(&authority);
    let proxy = Proxy::to(s3.port());
    goes_and_comes_back(
        &s3_home("https://store.invalid", &ca_file(&authority)).env("HTTPS_PROXY", proxy.url()),
    );
    assert!(!proxy.asked().is_empty());
}

#[test]
fn a_proxy_passes_plain_requests_on() {
    let s3 = FakeS3::start();
    let port = s3.port();
    let proxy = Server::start(move |mut request| {
        // A proxy is asked for the whole URL.
        let Some(rest) = request.target.strip_prefix("http://store.invalid") else {
            return Answer::Whole(Response::new(400, ""));
        };
        request.target = rest.to_owned();
        Answer::Whole(ask(port, &request).unwrap())
    });
    let toml = format!("cloud_proxy_url = \"{}\"\n", proxy.url());
    goes_and_comes_back(&s3_home("http://store.invalid", &toml));
}

#[test]
fn the_bucket_may_be_in_the_host_name() {
    let s3 = FakeS3::start();
    let port = s3.port();
    let proxy = Server::start(move |mut request| {
        let Some(rest) = request.target.strip_prefix("http://wal.store.invalid") else {
            return Answer::Whole(Response::new(400, ""));
        };
        request.target = format!("/wal{rest}");
        Answer::Whole(ask(port, &request).unwrap())
    });
    let toml = format!(
        "cloud_addressing_style = \"virtual\"\ncloud_proxy_url = \"{}\"\n",
        proxy.url()
    );
    goes_and_comes_back(&s3_home("http://store.invalid", &toml));
}

#[test]
fn a_proxy_that_refuses_is_an_error_and_not_an_absent_file() {
    let s3 = FakeS3::start();
    let proxy = Server::start(|_| Answer::Whole(Response::new(403, "")));
    let home = s3_home(
        &s3.endpoint(),
        &format!("cloud_proxy_url = \"{}\"\n", proxy.url()),
    );
    let goal = home.home.root().join("goal");
    home.run(&["cloud-wal-restore", "main", ONE, goal.to_str().unwrap()])
        .exits(2);
    assert!(s3.take_asked().is_empty());
}

/// An ingress without a way to the store says 404 as well, to everything.
#[test]
fn a_404_of_somebody_else_is_an_error_and_not_an_absent_file() {
    let page = "<html><head><title>404 Not Found</title></head><body>nginx</body></html>";
    let server = Server::start(move |_| {
        Answer::Whole(Response::new(404, page).with("content-type", "text/html"))
    });
    let home = s3_home(&server.url(), "");
    let goal = home.home.root().join("goal");
    let goal = goal.to_str().unwrap();
    let run = home.run(&["cloud-wal-restore", "main", ONE, goal]).exits(2);
    assert!(run.stderr.contains("cloud_endpoint_url"), "{run:?}");
    home.run(&[
        "get-wal",
        "main",
        ONE,
        "-o",
        home.home.root().to_str().unwrap(),
    ])
    .exits(6);
}

/// One request is enough where the answer carries the store's code, and one more where it does not.
#[test]
fn an_absent_file_is_one_whose_absence_the_store_has_confirmed() {
    let s3 = FakeS3::start();
    let port = s3.port();
    let server = Server::start(move |request| {
        let answer = ask(port, &request).unwrap();
        Answer::Whole(match answer.status {
            404 => Response::new(404, ""),
            _ => answer,
        })
    });
    for (endpoint, listings) in [(s3.endpoint(), 0), (server.url(), 1)] {
        let home = s3_home(&endpoint, "");
        let goal = home.home.root().join("goal");
        home.run(&[
            "cloud-wal-restore",
            "main",
            "00000009.history",
            goal.to_str().unwrap(),
        ])
        .exits(1);
        let asked = s3.take_asked();
        let lists = asked.iter().filter(|asked| asked.contains("list-type"));
        assert_eq!(lists.count(), listings, "{asked:?}");
    }
}

/// Amazon's token service is as far away as its store.
#[test]
fn proxy_and_authority_hold_for_whoever_gives_out_credentials() {
    let authority = Authority::new(&["sts.invalid"]);
    let body = "<AssumeRoleResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><AssumeRoleResult><Credentials>\
                <AccessKeyId>FROMSTS</AccessKeyId><SecretAccessKey>x</SecretAccessKey><SessionToken>y</SessionToken>\
                <Expiration>2099-01-01T00:00:00Z</Expiration></Credentials></AssumeRoleResult></AssumeRoleResponse>";
    let s3 = FakeS3::start();
    let sts = authority.server(move |request| match request.path() {
        "/" => Answer::Whole(Response::new(200, body).with("content-type", "text/xml")),
        _ => Answer::Nothing,
    });
    let proxy = Proxy::to(sts.port());
    let home = CloudHome::new(
        "s3://wal/pre",
        &s3.endpoint(),
        Vec::new(),
        &[("aws_profile", "wal")],
        &ca_file(&authority),
    )
    .env("HTTPS_PROXY", proxy.url())
    .env("AWS_ENDPOINT_URL_STS", "https://sts.invalid");
    let aws = home.home.root().join(".aws");
    fs::create_dir(&aws).unwrap();
    fs::write(
        aws.join("credentials"),
        "[base]\naws_access_key_id = a\naws_secret_access_key = b\n\
         [wal]\nregion = eu-1\nrole_arn = arn:aws:iam::1:role/wal\nsource_profile = base\n",
    )
    .unwrap();
    goes_and_comes_back(&home);
    assert_eq!(proxy.asked()[0], "sts.invalid:443");
    let put = s3.take_puts().pop().unwrap();
    assert!(put.header("authorization").unwrap().contains("FROMSTS"));
}

/// What `gcloud auth application-default login` leaves behind, exchanged at an address that nobody can configure.
#[test]
fn google_a_users_own_login() {
    let authority = Authority::new(&["accounts.google.com", "store.invalid"]);
    let server = authority.server(|request| {
        Answer::Whole(match (request.method.as_str(), request.path()) {
            ("POST", "/o/oauth2/token") => {
                assert!(String::from_utf8_lossy(&request.body).contains("of-the-user"));
                let answer = json!({"access_token": "of-google", "expires_in": 3600, "token_type": "Bearer"});
                Response::new(200, answer.to_string()).with("content-type", "application/json")
            }
            _ if request.header("authorization") != Some("Bearer of-google") => Response::new(401, ""),
            ("PUT", _) => Response::new(200, "").with("etag", "\"tag\"").with("x-goog-generation", 1),
            ("GET", "/wal") => Response::new(200, "<ListBucketResult></ListBucketResult>"),
            _ => Response::new(404, ""),
        })
    });
    let proxy = Proxy::to(server.port());
    let toml = format!(
        "cloud_proxy_url = \"{}\"\n{}",
        proxy.url(),
        ca_file(&authority)
    );
    let home = CloudHome::new(
        "gs://wal/pre",
        "https://store.invalid",
        Vec::new(),
        &[],
        &toml,
    );
    let directory = home.home.root().join(".config/gcloud");
    fs::create_dir_all(&directory).unwrap();
    let login = json!({
        "type": "authorized_user", "client_id": "id", "client_secret": "secret", "refresh_token": "of-the-user",
    });
    fs::write(
        directory.join("application_default_credentials.json"),
        login.to_string(),
    )
    .unwrap();
    home.home.incoming_segments(1..=1);
    home.archive().exits(0);
    assert_eq!(proxy.asked()[0], "accounts.google.com:443");
}
