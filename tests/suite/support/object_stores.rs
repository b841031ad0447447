//! Real object stores on this host, as `tests/setup.sh` installs them, each with an empty bucket `wal`.

use std::fs::{self, File};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::http::{self, Answer, Request, Response, Server};

pub const ACCESS_KEY: &str = "walarchkey";
pub const SECRET_KEY: &str = "walarch-secret-key";
pub const BUCKET: &str = "wal";

/// The account that every azurite has, and its key, which is no secret.
pub const AZURE_ACCOUNT: &str = "devstoreaccount1";
pub const AZURE_KEY: &str =
    "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";

/// Software that speaks one of the protocols.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// S3 by moto, in Python.
    Moto,
    /// S3 by s3s-fs, in Rust, which checks signatures.
    S3sFs,
    /// Azure Blob Storage by azurite.
    Azurite,
    /// Google Cloud Storage's XML protocol, translated for moto.
    Google,
}

/// A running store; stopped when dropped.
pub struct ObjectStore {
    pub kind: Kind,
    process: Child,
    folder: TempDir,
    port: u16,
    translator: Option<Server>,
}

impl ObjectStore {
    pub fn start(kind: Kind) -> Self {
        let folder = tempfile::Builder::new()
            .prefix("walarch-store.")
            .tempdir()
            .unwrap();
        let port = free_port();
        let log = File::create(folder.path().join("log")).unwrap();
        let process = command(kind, port, folder.path())
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap_or_else(|error| panic!("start {kind:?}: {error}; run tests/setup.sh"));
        let mut store = Self {
            kind,
            process,
            folder,
            port,
            translator: None,
        };
        store.wait();
        store.create_bucket();
        if kind == Kind::Google {
            store.translator = Some(Server::start(move |request| translate(port, request)));
        }
        store
    }

    fn wait(&self) {
        let deadline = Instant::now() + Duration::from_secs(60);
        while TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            assert!(
                Instant::now() < deadline,
                "{:?} does not answer: {}",
                self.kind,
                self.log()
            );
            thread::sleep(Duration::from_millis(20));
        }
    }

    fn create_bucket(&self) {
        match self.kind {
            // s3s-fs keeps buckets as directories, and would want a signature.
            Kind::S3sFs => fs::create_dir(self.folder.path().join("data").join(BUCKET)).unwrap(),
            Kind::Moto | Kind::Google => {
                let put = http::plain("PUT", &format!("/{BUCKET}"));
                assert_eq!(http::ask(self.port, &put).unwrap().status, 200);
            }
            Kind::Azurite => {
                let target = format!("/{AZURE_ACCOUNT}/{BUCKET}?restype=container");
                assert_eq!(self.create_container(&target), 201, "{}", self.log());
            }
        }
    }

    /// Asks with a signature that azurite's default, permissive mode does not need to be right: `curl` is not
    /// there everywhere, and azurite knows anonymous requests only for public containers.
    fn create_container(&self, target: &str) -> u16 {
        let script = format!(
            "const crypto = require('crypto'), http = require('http');\n\
             const date = new Date().toUTCString(), account = '{AZURE_ACCOUNT}';\n\
             const text = 'PUT\\n\\n\\n\\n\\n\\n\\n\\n\\n\\n\\n\\nx-ms-date:' + date + '\\nx-ms-version:2021-08-06\\n/' + account + '/' + account + '/{BUCKET}\\nrestype:container';\n\
             const key = crypto.createHmac('sha256', Buffer.from('{AZURE_KEY}', 'base64')).update(text, 'utf8').digest('base64');\n\
             const request = http.request({{ port: {}, host: '127.0.0.1', path: '{target}', method: 'PUT', headers: {{ 'x-ms-date': date, 'x-ms-version': '2021-08-06', 'Content-Length': 0, 'Authorization': 'SharedKey ' + account + ':' + key }} }}, answer => {{ console.log(answer.statusCode); answer.resume(); }});\n\
             request.end();",
            self.port
        );
        let output = Command::new("node").arg("-e").arg(script).output().unwrap();
        String::from_utf8_lossy(&output.stdout)
            .trim()
            .parse()
            .unwrap_or(0)
    }

    /// What the program wrote.
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    /// Where a client finds it.
    pub fn endpoint(&self) -> String {
        match (&self.translator, self.kind) {
            (Some(translator), _) => translator.url(),
            (None, Kind::Azurite) => format!("http://127.0.0.1:{}/{AZURE_ACCOUNT}", self.port),
            (None, _) => format!("http://127.0.0.1:{}", self.port),
        }
    }

    /// A `wals_directory` in its bucket.
    pub fn url(&self, path: &str) -> String {
        match self.kind {
            Kind::Moto | Kind::S3sFs => format!("s3://{BUCKET}/{path}"),
            Kind::Azurite => {
                format!("https://{AZURE_ACCOUNT}.blob.core.windows.net/{BUCKET}/{path}")
            }
            Kind::Google => format!("gs://{BUCKET}/{path}"),
        }
    }

    /// The variables that give a client its credentials.
    pub fn environment(&self) -> Vec<(&'static str, String)> {
        match self.kind {
            Kind::Moto | Kind::S3sFs => s3_environment(),
            Kind::Azurite => vec![("AZURE_STORAGE_KEY", AZURE_KEY.to_owned())],
            Kind::Google => {
                let path = self.folder.path().join("service-account.json");
                let account = format!(
                    "{{\"gcs_base_url\": \"{}\", \"disable_oauth\": true, \"client_email\": \"\", \
                     \"private_key\": \"\", \"private_key_id\": \"\"}}",
                    self.endpoint()
                );
                fs::write(&path, account).unwrap();
                vec![("GOOGLE_SERVICE_ACCOUNT", path.display().to_string())]
            }
        }
    }
}

/// Credentials and region of the S3 stores.
pub fn s3_environment() -> Vec<(&'static str, String)> {
    vec![
        ("AWS_ACCESS_KEY_ID", ACCESS_KEY.to_owned()),
        ("AWS_SECRET_ACCESS_KEY", SECRET_KEY.to_owned()),
        ("AWS_DEFAULT_REGION", "us-east-1".to_owned()),
    ]
}

impl Drop for ObjectStore {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port()
}

/// Where `tests/setup.sh` puts the programs.
fn tools() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("target/cloud-tools")
}

fn command(kind: Kind, port: u16, folder: &Path) -> Command {
    let port = port.to_string();
    match kind {
        Kind::Moto | Kind::Google => {
            let mut command = Command::new(tools().join("moto/bin/moto_server"));
            command.args(["-H", "127.0.0.1", "-p", &port]);
            command
        }
        Kind::S3sFs => {
            let data = folder.join("data");
            fs::create_dir(&data).unwrap();
            let mut command = Command::new(tools().join("s3s-fs/bin/s3s-fs"));
            command
                .args(["--host", "127.0.0.1", "--port", &port])
                .args(["--access-key", ACCESS_KEY, "--secret-key", SECRET_KEY])
                .arg(data);
            command
        }
        Kind::Azurite => {
            let mut command = Command::new("node");
            command
                .arg(tools().join("azurite/node_modules/azurite/dist/src/blob/main.js"))
                .args([
                    "--inMemoryPersistence",
                    "--skipApiVersionCheck",
                    "--disableTelemetry",
                ])
                .args(["--blobHost", "127.0.0.1", "--blobPort", &port]);
            command
        }
    }
}

/// Google's XML protocol is S3's with other names for a few headers.
fn translate(port: u16, mut request: Request) -> Answer {
    if request.header("x-goog-if-generation-match") == Some("0") {
        request.set_header("if-none-match", "*");
    }
    let names: Vec<_> = request.headers.clone();
    for (name, value) in names {
        if let Some(rest) = name.strip_prefix("x-goog-meta-") {
            request.set_header(&format!("x-amz-meta-{rest}"), &value);
        }
    }
    request.set_header("authorization", "AWS4-HMAC-SHA256 Credential=a/20200101/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=0");
    let mut response = match http::ask(port, &request) {
        Ok(response) => response,
        Err(error) => Response::new(502, error.to_string()),
    };
    let names: Vec<_> = response.headers.clone();
    for (name, value) in names {
        if let Some(rest) = name.strip_prefix("x-amz-meta-") {
            response
                .headers
                .push((format!("x-goog-meta-{rest}"), value));
        }
    }
    response
        .headers
        .push(("x-goog-generation".to_owned(), "1".to_owned()));
    Answer::Whole(response)
}
