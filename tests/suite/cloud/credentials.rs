//! Where credentials come from, with a server on this host in the place of whoever gives them out.

mod azure;
mod google;
mod s3;

use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use super::CloudHome;
use crate::support::http::{Answer, Request, Response, Server};

/// What nobody may ever see.
const SECRET: &str = "the-secret-that-signs";
const TOKEN: &str = "the-token-that-goes-along";

/// A server that answers one kind of request and remembers all.
pub struct Service {
    server: Server,
    asked: Arc<Mutex<Vec<Request>>>,
}

impl Service {
    /// `answer` gets method and path; what it does not know is not there.
    fn start(answer: impl Fn(&Request) -> Option<Response> + Send + Sync + 'static) -> Self {
        let asked = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&asked);
        let server = Server::start(move |request| {
            let response = answer(&request).unwrap_or_else(|| Response::new(404, ""));
            seen.lock().unwrap().push(request);
            Answer::Whole(response)
        });
        Self { server, asked }
    }

    pub fn url(&self) -> String {
        self.server.url()
    }

    #[track_caller]
    fn last(&self) -> Request {
        self.asked
            .lock()
            .unwrap()
            .last()
            .expect("nobody asked")
            .clone()
    }
}

fn json_response(value: &Value) -> Response {
    Response::new(200, value.to_string()).with("content-type", "application/json")
}

/// A store that keeps nothing, and the last request that wanted to store something in it.
pub fn accepting_store() -> Service {
    Service::start(|request| {
        let is_listing = request.target.contains("prefix=");
        Some(match request.method.as_str() {
            "GET" if is_listing && request.target.contains("comp=list") => {
                Response::new(200, "<EnumerationResults><Blobs/></EnumerationResults>")
            }
            "GET" if is_listing => Response::new(200, "<ListBucketResult></ListBucketResult>"),
            "PUT" => Response::new(201, "")
                .with("etag", "\"tag\"")
                .with("x-goog-generation", 1),
            _ => return None,
        })
    })
}

fn home_at(url: &str, store: &Service, options: &[(&str, &str)]) -> CloudHome {
    let toml = "cloud_retries = 1\ncloud_total_timeout_s = 20\n";
    CloudHome::new(url, &store.url(), Vec::new(), options, toml)
}

/// The request that stored a file.
#[track_caller]
pub fn stored(home: &CloudHome, store: &Service) -> Request {
    home.home.incoming_segments(1..=1);
    let run = home
        .run(&["--log-level", "DEBUG", "--debug", "archive-wal", "main"])
        .exits(0);
    for text in [&run.stderr, &run.stdout, &home.home.log()] {
        assert!(!text.contains(SECRET) && !text.contains(TOKEN), "{text}");
    }
    let asked = store.asked.lock().unwrap();
    asked
        .iter()
        .find(|request| request.method == "PUT")
        .unwrap()
        .clone()
}

/// Who gives out tokens for OAuth 2.
pub fn tokens(path: &'static str) -> Service {
    Service::start(move |request| {
        (request.path() == path).then(|| {
            json_response(&json!({
                "access_token": TOKEN, "token_type": "Bearer", "expires_in": 3600, "expires_on": "4070908800",
                "resource": "https://storage.azure.com",
            }))
        })
    })
}

fn bearer() -> Option<String> {
    Some(format!("Bearer {TOKEN}"))
}

fn authorization(request: &Request) -> Option<String> {
    request.header("authorization").map(str::to_owned)
}
