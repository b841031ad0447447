//! An S3 in this process, which counts what it is asked and fails as it is told.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;
use std::time::Duration;

use sha2::{Digest, Sha256};

use super::http::{Answer, Request, Response, Server};
use super::object_stores::BUCKET;

/// What happens to a request.
#[derive(Clone, Debug)]
pub enum Fault {
    None,
    /// Answered so, and not carried out.
    Refuse(u16, &'static str),
    /// Carried out, and answered so.
    DoneBut(u16, &'static str),
    /// Carried out, then the connection is cut.
    DoneAndCut,
    /// The connection is cut, and nothing is carried out.
    Cut,
    /// The answer's body is cut after so many bytes.
    TearBody(usize),
    /// Carried out, and answered after a while.
    Late(Duration),
    /// The body changes on its way.
    Damage,
}

#[derive(Clone, Debug)]
struct Object {
    bytes: Vec<u8>,
    headers: Vec<(String, String)>,
}

pub type Handler = Box<dyn Fn(Request) -> Answer + Send + Sync>;

type Chooser = Box<dyn FnMut(&Request) -> Fault + Send>;

#[derive(Default)]
struct State {
    objects: BTreeMap<String, Object>,
    asked: Vec<String>,
    puts: Vec<Request>,
    fault: Option<Chooser>,
    delay: Duration,
    ignores_conditions: bool,
}

#[derive(Clone)]
pub struct FakeS3 {
    state: Arc<Mutex<State>>,
    server: Arc<Server>,
}

impl FakeS3 {
    pub fn start() -> Self {
        Self::start_as(Server::start)
    }

    /// `server` starts one that gives these answers.
    pub fn start_as(server: impl FnOnce(Handler) -> Server) -> Self {
        let state = Arc::new(Mutex::new(State::default()));
        let shared = Arc::clone(&state);
        let server = server(Box::new(move |request| answer(&shared, request)));
        Self {
            state,
            server: Arc::new(server),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    pub fn port(&self) -> u16 {
        self.server.port()
    }

    pub fn endpoint(&self) -> String {
        self.server.url()
    }

    /// From now on, each request meets what this says.
    pub fn fail(&self, fault: impl FnMut(&Request) -> Fault + Send + 'static) {
        self.lock().fault = Some(Box::new(fault));
    }

    /// The first so many requests of a method meet the fault.
    pub fn fail_first(&self, count: usize, method: &'static str, fault: Fault) {
        let mut left = count;
        self.fail(move |request| {
            if request.method != method || left == 0 {
                return Fault::None;
            }
            left -= 1;
            fault.clone()
        });
    }

    pub fn heal(&self) {
        self.lock().fault = None;
    }

    /// From now on, as old clones did.
    pub fn ignore_conditions(&self) {
        self.lock().ignores_conditions = true;
    }

    /// Every answer takes so long, on top.
    pub fn delay(&self, delay: Duration) {
        self.lock().delay = delay;
    }

    /// Puts an object there, as somebody else would.
    pub fn put(&self, key: &str, bytes: &[u8]) {
        let object = Object {
            bytes: bytes.to_vec(),
            headers: Vec::new(),
        };
        self.lock().objects.insert(key.to_owned(), object);
    }

    /// Takes an object away, as somebody else would.
    pub fn remove(&self, key: &str) {
        self.lock().objects.remove(key).unwrap();
    }

    pub fn keys(&self) -> Vec<String> {
        self.lock().objects.keys().cloned().collect()
    }

    /// Method and path of each request since the last call.
    pub fn take_asked(&self) -> Vec<String> {
        std::mem::take(&mut self.lock().asked)
    }

    /// The stored requests since the last call.
    pub fn take_puts(&self) -> Vec<Request> {
        std::mem::take(&mut self.lock().puts)
    }
}

fn answer(state: &Mutex<State>, mut request: Request) -> Answer {
    let (fault, delay) = {
        let mut state = state.lock().unwrap();
        state
            .asked
            .push(format!("{} {}", request.method, request.target));
        let fault = state
            .fault
            .as_mut()
            .map_or(Fault::None, |fault| fault(&request));
        (fault, state.delay)
    };
    thread::sleep(delay);
    match fault {
        Fault::None => Answer::Whole(carry_out(state, request)),
        Fault::Refuse(status, code) => Answer::Whole(error(status, code)),
        Fault::DoneBut(status, code) => {
            carry_out(state, request);
            Answer::Whole(error(status, code))
        }
        Fault::DoneAndCut => {
            carry_out(state, request);
            Answer::Nothing
        }
        Fault::Cut => Answer::Nothing,
        Fault::TearBody(length) => Answer::Torn(carry_out(state, request), length),
        Fault::Late(time) => {
            let response = carry_out(state, request);
            thread::sleep(time);
            Answer::Whole(response)
        }
        Fault::Damage => {
            if let Some(byte) = request.body.first_mut() {
                *byte ^= 1;
            }
            Answer::Whole(carry_out(state, request))
        }
    }
}

pub fn error(status: u16, code: &str) -> Response {
    let body = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>{code}</Code><Message>The fake says \
         so</Message></Error>"
    );
    Response::new(status, body).with("content-type", "application/xml")
}

fn carry_out(state: &Mutex<State>, request: Request) -> Response {
    let mut state = state.lock().unwrap();
    let path = request.path().to_owned();
    let Some(key) = path.strip_prefix(&format!("/{BUCKET}")) else {
        return error(404, "NoSuchBucket");
    };
    let key = key.trim_start_matches('/').to_owned();
    match request.method.as_str() {
        "PUT" => put(&mut state, key, request),
        "GET" if key.is_empty() => list(&state, &request),
        "GET" | "HEAD" => get(&state, &key, &request),
        "POST" => delete(&mut state, &request),
        _ => error(405, "MethodNotAllowed"),
    }
}

fn put(state: &mut State, key: String, request: Request) -> Response {
    let digest = Sha256::digest(&request.body);
    let hexadecimal: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    let announced = request.header("x-amz-content-sha256").unwrap_or_default();
    if announced.len() == hexadecimal.len() && announced != hexadecimal {
        return error(400, "XAmzContentSHA256Mismatch");
    }
    let is_conditional = !state.ignores_conditions;
    if is_conditional
        && request.header("if-none-match") == Some("*")
        && state.objects.contains_key(&key)
    {
        return error(412, "PreconditionFailed");
    }
    if is_conditional && request.header("if-match").is_some() && !state.objects.contains_key(&key) {
        return error(404, "NoSuchKey");
    }
    let kept = request
        .headers
        .iter()
        .filter(|(name, _)| name.starts_with("x-amz-meta-"));
    let object = Object {
        bytes: request.body.clone(),
        headers: kept.cloned().collect(),
    };
    state.objects.insert(key, object);
    state.puts.push(request);
    Response::new(200, "").with("etag", format!("\"{hexadecimal}\""))
}

fn get(state: &State, key: &str, request: &Request) -> Response {
    let Some(object) = state.objects.get(key) else {
        return error(404, "NoSuchKey");
    };
    let length = object.bytes.len();
    let range = request.header("range").and_then(|range| {
        let (start, end) = range.strip_prefix("bytes=")?.split_once('-')?;
        let end: usize = end.parse().unwrap_or(length - 1);
        Some((start.parse::<usize>().ok()?, end.min(length - 1)))
    });
    let mut response = match range {
        None => Response::new(200, object.bytes.clone()),
        Some((start, end)) => Response::new(206, object.bytes[start..=end].to_vec())
            .with("content-range", format!("bytes {start}-{end}/{length}")),
    };
    response.headers.extend(object.headers.clone());
    response
        .with("etag", "\"tag\"")
        .with("last-modified", "Sat, 21 Nov 2026 15:00:00 GMT")
}

fn list(state: &State, request: &Request) -> Response {
    let query = request
        .target
        .split_once('?')
        .map_or("", |(_, query)| query);
    let prefix = query
        .split('&')
        .find_map(|pair| pair.strip_prefix("prefix="));
    let prefix = prefix.unwrap_or_default().replace("%2F", "/");
    let mut body = String::from("<ListBucketResult><IsTruncated>false</IsTruncated>");
    for (key, object) in state
        .objects
        .iter()
        .filter(|(key, _)| key.starts_with(&prefix))
    {
        body.push_str(&format!(
            "<Contents><Key>{key}</Key><LastModified>2026-11-21T15:00:00.000Z</LastModified><ETag>\"tag\"</ETag><Size>{}</Size></Contents>",
            object.bytes.len()
        ));
    }
    body.push_str("</ListBucketResult>");
    Response::new(200, body).with("content-type", "application/xml")
}

fn delete(state: &mut State, request: &Request) -> Response {
    let text = String::from_utf8_lossy(&request.body).into_owned();
    let mut body = String::from("<DeleteResult>");
    for rest in text.split("<Key>").skip(1) {
        let key = rest.split("</Key>").next().unwrap();
        state.objects.remove(key);
        body.push_str(&format!("<Deleted><Key>{key}</Key></Deleted>"));
    }
    body.push_str("</DeleteResult>");
    Response::new(200, body)
}
