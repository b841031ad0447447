//! S3: the environment, the files of AWS's tools, roles, single sign-on, containers and machines.

use std::fs;

use serde_json::json;

use super::{SECRET, Service, TOKEN, json_response};
use crate::cloud::{CloudHome, key};
use crate::support::fake_s3::FakeS3;
use crate::support::http::Response;

/// A home whose client finds only the credentials that the test puts somewhere.
fn s3_home(s3: &FakeS3, options: &[(&str, &str)]) -> CloudHome {
    let toml = "cloud_retries = 1\ncloud_total_timeout_s = 20\n";
    CloudHome::new("s3://wal/pre", &s3.endpoint(), Vec::new(), options, toml)
        // Nobody answers there, should somebody ask.
        .env("AWS_EC2_METADATA_SERVICE_ENDPOINT", "http://127.0.0.1:9")
}

/// Archives a file, and tells key, region and token of the request that stored it.
#[track_caller]
fn signed(home: &CloudHome, s3: &FakeS3) -> (String, String, Option<String>) {
    home.home.incoming_segments(1..=1);
    let run = home
        .run(&["--log-level", "DEBUG", "--debug", "archive-wal", "main"])
        .exits(0);
    for text in [&run.stderr, &run.stdout, &home.home.log()] {
        assert!(!text.contains(SECRET) && !text.contains(TOKEN), "{text}");
    }
    let put = s3.take_puts().pop().unwrap();
    let scope = put
        .header("authorization")
        .unwrap()
        .split_once("Credential=")
        .unwrap()
        .1;
    let mut scope = scope.split('/');
    let key = scope.next().unwrap().to_owned();
    let region = scope.nth(1).unwrap().to_owned();
    (
        key,
        region,
        put.header("x-amz-security-token").map(str::to_owned),
    )
}

fn aws_file(home: &CloudHome, name: &str, text: &str) {
    let path = home.home.root().join(".aws").join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

fn keys(id: &str) -> String {
    format!("aws_access_key_id = {id}\naws_secret_access_key = {SECRET}\n")
}

fn expected(key: &str, region: &str, token: Option<&str>) -> (String, String, Option<String>) {
    (key.to_owned(), region.to_owned(), token.map(str::to_owned))
}

#[test]
fn keys_and_token_of_the_environment() {
    let s3 = FakeS3::start();
    let home = s3_home(&s3, &[("aws_region", "eu-west-9")])
        .env("AWS_ACCESS_KEY_ID", "FROMENV")
        .env("AWS_SECRET_ACCESS_KEY", SECRET)
        .env("AWS_SESSION_TOKEN", TOKEN);
    assert_eq!(
        signed(&home, &s3),
        expected("FROMENV", "eu-west-9", Some(TOKEN))
    );
}

#[test]
fn the_region_of_the_profile_serves_keys_of_the_environment() {
    let s3 = FakeS3::start();
    let home = s3_home(&s3, &[])
        .env("AWS_ACCESS_KEY_ID", "FROMENV")
        .env("AWS_SECRET_ACCESS_KEY", SECRET);
    aws_file(&home, "config", "[default]\nregion = eu-default-1\n");
    assert_eq!(
        signed(&home, &s3),
        expected("FROMENV", "eu-default-1", None)
    );
}

#[test]
fn profiles_of_the_home_directory() {
    for (options, variable, key, region) in [
        (&[][..], None, "FROMDEFAULT", "eu-default-1"),
        (
            &[("aws_profile", "wal")][..],
            None,
            "FROMPROFILE",
            "eu-profile-1",
        ),
        (&[][..], Some("wal"), "FROMPROFILE", "eu-profile-1"),
        (
            &[("aws_profile", "wal"), ("aws_region", "eu-option-1")][..],
            Some("default"),
            "FROMPROFILE",
            "eu-option-1",
        ),
    ] {
        let s3 = FakeS3::start();
        let mut home = s3_home(&s3, options);
        if let Some(profile) = variable {
            home = home.env("AWS_PROFILE", profile);
        }
        let both = format!(
            "[default]\n{}[wal]\n{}",
            keys("FROMDEFAULT"),
            keys("FROMPROFILE")
        );
        aws_file(&home, "credentials", &both);
        aws_file(
            &home,
            "config",
            "[default]\nregion = eu-default-1\n[profile wal]\nregion = eu-profile-1\n",
        );
        assert_eq!(signed(&home, &s3), expected(key, region, None));
    }
}

#[test]
fn a_profile_goes_before_keys_of_the_environment() {
    let s3 = FakeS3::start();
    let home = s3_home(&s3, &[("aws_profile", "wal")])
        .env("AWS_ACCESS_KEY_ID", "FROMENV")
        .env("AWS_SECRET_ACCESS_KEY", SECRET);
    aws_file(
        &home,
        "credentials",
        &format!("[wal]\n{}", keys("FROMPROFILE")),
    );
    assert_eq!(signed(&home, &s3).0, "FROMPROFILE");
}

#[test]
fn a_process_that_the_profile_names() {
    let s3 = FakeS3::start();
    let home = s3_home(&s3, &[("aws_profile", "wal")]);
    let answer = json!({"Version": 1, "AccessKeyId": "FROMPROCESS", "SecretAccessKey": SECRET, "SessionToken": TOKEN});
    let script = home
        .home
        .script("credentials", &format!("echo '{answer}'\n"));
    aws_file(
        &home,
        "config",
        &format!(
            "[profile wal]\nregion = eu-process-1\ncredential_process = {}\n",
            script.display()
        ),
    );
    assert_eq!(
        signed(&home, &s3),
        expected("FROMPROCESS", "eu-process-1", Some(TOKEN))
    );
}

/// The Security Token Service, which gives credentials for any role.
fn sts(action: &'static str) -> Service {
    Service::start(move |request| {
        let body = String::from_utf8_lossy(&request.body).into_owned();
        body.contains(&format!("Action={action}&")).then(|| {
            Response::new(
                200,
                format!(
                    "<{action}Response xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><{action}Result><Credentials>\
                     <AccessKeyId>FROMSTS</AccessKeyId><SecretAccessKey>{SECRET}</SecretAccessKey>\
                     <SessionToken>{TOKEN}</SessionToken><Expiration>2099-01-01T00:00:00Z</Expiration></Credentials>\
                     </{action}Result></{action}Response>"
                ),
            )
            .with("content-type", "text/xml")
        })
    })
}

#[test]
fn a_role_that_the_profile_assumes() {
    let (s3, sts) = (FakeS3::start(), sts("AssumeRole"));
    let home = s3_home(&s3, &[("aws_profile", "wal")]).env("AWS_ENDPOINT_URL_STS", sts.url());
    aws_file(
        &home,
        "credentials",
        &format!("[base]\n{}", keys("FROMBASE")),
    );
    aws_file(
        &home,
        "config",
        "[profile wal]\nregion = eu-role-1\nrole_arn = arn:aws:iam::1:role/wal\nsource_profile = base\n",
    );
    assert_eq!(
        signed(&home, &s3),
        expected("FROMSTS", "eu-role-1", Some(TOKEN))
    );
    let asked = sts.last();
    assert!(asked.header("authorization").unwrap().contains("FROMBASE"));
    assert!(String::from_utf8_lossy(&asked.body).contains("role%2Fwal"));
}

#[test]
fn a_web_identity_as_kubernetes_gives_it() {
    let (s3, sts) = (FakeS3::start(), sts("AssumeRoleWithWebIdentity"));
    let home = s3_home(&s3, &[]);
    let token = home.home.root().join("token");
    fs::write(&token, "web-identity-token").unwrap();
    let home = home
        .env("AWS_ENDPOINT_URL_STS", sts.url())
        .env("AWS_WEB_IDENTITY_TOKEN_FILE", token.display().to_string())
        .env("AWS_ROLE_ARN", "arn:aws:iam::1:role/wal")
        .env("AWS_REGION", "eu-web-1");
    assert_eq!(
        signed(&home, &s3),
        expected("FROMSTS", "eu-web-1", Some(TOKEN))
    );
    assert!(String::from_utf8_lossy(&sts.last().body).contains("web-identity-token"));
}

#[test]
fn single_sign_on() {
    let s3 = FakeS3::start();
    let portal = Service::start(|request| {
        (request.path() == "/federation/credentials").then(|| {
            json_response(&json!({"roleCredentials": {
                "accessKeyId": "FROMSSO", "secretAccessKey": SECRET, "sessionToken": TOKEN,
                "expiration": 4_070_908_800_000u64,
            }}))
        })
    });
    let home = s3_home(&s3, &[("aws_profile", "wal")]).env("AWS_ENDPOINT_URL_SSO", portal.url());
    aws_file(
        &home,
        "config",
        "[profile wal]\nregion = eu-sso-1\nsso_session = corporate\nsso_account_id = 123456789012\n\
         sso_role_name = wal\n[sso-session corporate]\nsso_region = eu-sso-2\nsso_start_url = https://sso.invalid/start\n",
    );
    // As `aws sso login` leaves it: the name is the SHA-1 of "corporate".
    let cached = json!({"accessToken": "sso-access-token", "expiresAt": "2099-01-01T00:00:00Z"});
    aws_file(
        &home,
        "sso/cache/e276d18d65653fa285155bfd3e11ab029306830c.json",
        &cached.to_string(),
    );
    assert_eq!(
        signed(&home, &s3),
        expected("FROMSSO", "eu-sso-1", Some(TOKEN))
    );
    let asked = portal.last();
    assert_eq!(
        asked.header("x-amz-sso_bearer_token"),
        Some("sso-access-token")
    );
    assert!(
        asked.target.contains("account_id=123456789012"),
        "{}",
        asked.target
    );
}

#[test]
fn a_container() {
    let s3 = FakeS3::start();
    let agent = Service::start(|request| {
        (request.path() == "/credentials").then(|| {
            json_response(&json!({
                "AccessKeyId": "FROMCONTAINER", "SecretAccessKey": SECRET, "Token": TOKEN,
                "Expiration": "2099-01-01T00:00:00Z",
            }))
        })
    });
    let url = format!("{}/credentials", agent.url());
    let home = s3_home(&s3, &[])
        .env("AWS_CONTAINER_CREDENTIALS_FULL_URI", &url)
        .env("AWS_CONTAINER_AUTHORIZATION_TOKEN", "of-the-task");
    assert_eq!(signed(&home, &s3).0, "FROMCONTAINER");
    assert_eq!(agent.last().header("authorization"), Some("of-the-task"));

    let home = s3_home(&s3, &[]);
    let token = home.home.root().join("token");
    fs::write(&token, "of-the-pod").unwrap();
    let home = home.env("AWS_CONTAINER_CREDENTIALS_FULL_URI", &url).env(
        "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
        token.display().to_string(),
    );
    s3.remove(&key("000000010000000000000001", ".zst"));
    assert_eq!(
        signed(&home, &s3),
        expected("FROMCONTAINER", "us-east-1", Some(TOKEN))
    );
    assert_eq!(agent.last().header("authorization"), Some("of-the-pod"));
}

#[test]
fn the_role_of_the_machine() {
    let s3 = FakeS3::start();
    let metadata = Service::start(|request| {
        let roles = "/latest/meta-data/iam/security-credentials/";
        match (request.method.as_str(), request.path()) {
            ("PUT", "/latest/api/token") => Some(
                Response::new(200, "metadata-token")
                    .with("x-aws-ec2-metadata-token-ttl-seconds", 21600),
            ),
            _ if request.header("x-aws-ec2-metadata-token") != Some("metadata-token") => {
                Some(Response::new(401, ""))
            }
            ("GET", path) if path == roles => Some(Response::new(200, "machine")),
            ("GET", path) if path == format!("{roles}machine") => Some(json_response(&json!({
                "Code": "Success", "Type": "AWS-HMAC", "LastUpdated": "2026-01-01T00:00:00Z",
                "AccessKeyId": "FROMMACHINE", "SecretAccessKey": SECRET, "Token": TOKEN,
                "Expiration": "2099-01-01T00:00:00Z",
            }))),
            _ => None,
        }
    });
    let home = s3_home(&s3, &[("aws_region", "eu-machine-1")])
        .env("AWS_EC2_METADATA_SERVICE_ENDPOINT", metadata.url());
    assert_eq!(
        signed(&home, &s3),
        expected("FROMMACHINE", "eu-machine-1", Some(TOKEN))
    );
}

#[test]
fn no_credentials_anywhere_are_an_error_in_time() {
    let s3 = FakeS3::start();
    let home = s3_home(&s3, &[]);
    home.home.incoming_segments(1..=1);
    let start = std::time::Instant::now();
    let run = home.archive().exits(1);
    assert!(run.stderr.contains("AWS credentials"), "{}", run.stderr);
    assert!(start.elapsed().as_secs() < 60);
    assert!(s3.keys().is_empty());
}
