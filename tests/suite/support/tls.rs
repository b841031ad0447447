//! Servers with a certificate that nobody knows, and a proxy on the way to them.

use std::io::{self, BufRead, BufReader, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::thread;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use tempfile::TempDir;

use super::http::{Answer, Request, Server};

/// An authority that has certified one key, for this host and for some names of others.
pub struct Authority {
    folder: TempDir,
}

impl Authority {
    pub fn new(names: &[&str]) -> Self {
        let folder = TempDir::new().unwrap();
        let names: String = names.iter().map(|name| format!(",DNS:{name}")).collect();
        let names = format!("subjectAltName=IP:127.0.0.1,DNS:localhost{names}");
        for line in [
            "req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=authority -keyout ca.key -out ca.pem",
            &format!(
                "req -newkey rsa:2048 -nodes -subj /CN=server -addext {names} -keyout key.pem -out request"
            ),
            "x509 -req -days 2 -in request -CA ca.pem -CAkey ca.key -CAcreateserial -copy_extensions copy \
             -out certificate.pem",
        ] {
            openssl(folder.path(), line);
        }
        Self { folder }
    }

    /// Its own certificate, in PEM.
    pub fn ca_file(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    /// A server that proves its identity with the certified key.
    pub fn server(&self, answer: impl Fn(Request) -> Answer + Send + Sync + 'static) -> Server {
        let path = |name| self.folder.path().join(name);
        let certificate = CertificateDer::from_pem_file(path("certificate.pem")).unwrap();
        let key = PrivateKeyDer::from_pem_file(path("key.pem")).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key)
            .unwrap();
        let config = Arc::new(config);
        let wrap = move |stream| {
            let connection =
                ServerConnection::new(Arc::clone(&config)).map_err(io::Error::other)?;
            Ok(StreamOwned::new(connection, stream))
        };
        Server::start_over(wrap, answer)
    }
}

/// Runs `openssl` with these arguments in a folder.
pub fn openssl(folder: &Path, arguments: &str) {
    let output = Command::new("openssl")
        .args(arguments.split(' '))
        .current_dir(folder)
        .output()
        .expect("no openssl: run tests/setup.sh");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "openssl {arguments}: {said}");
}

/// A proxy that knows CONNECT only, and leads to one server whatever it is asked for.
pub struct Proxy {
    port: u16,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Proxy {
    pub fn to(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let proxy = Self {
            port: listener.local_addr().unwrap().port(),
            asked: Arc::default(),
        };
        let asked = Arc::clone(&proxy.asked);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let asked = Arc::clone(&asked);
                thread::spawn(move || {
                    let _ = tunnel(&stream, port, &asked);
                });
            }
        });
        proxy
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Hosts and ports that connections were asked for.
    pub fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

fn tunnel(client: &TcpStream, port: u16, asked: &Mutex<Vec<String>>) -> io::Result<()> {
    let mut head = String::new();
    let mut reader = BufReader::new(client);
    while !head.ends_with("\r\n\r\n") && reader.read_line(&mut head)? > 0 {}
    let Some(host) = head
        .strip_prefix("CONNECT ")
        .and_then(|rest| rest.split(' ').next())
    else {
        return (&*client).write_all(b"HTTP/1.1 405 Only CONNECT\r\ncontent-length: 0\r\n\r\n");
    };
    asked.lock().unwrap().push(host.to_owned());
    let server = TcpStream::connect(("127.0.0.1", port))?;
    (&*client).write_all(b"HTTP/1.1 200 Connected\r\n\r\n")?;
    thread::scope(|scope| {
        scope.spawn(|| pour(client, &server));
        pour(&server, client);
    });
    Ok(())
}

fn pour(mut from: &TcpStream, mut to: &TcpStream) {
    let _ = io::copy(&mut from, &mut to);
    let _ = to.shutdown(Shutdown::Write);
}
