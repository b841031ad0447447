//! A proxy on loopback between a receiver and a real server, with a will of its own: it delays, cuts, truncates,
//! repeats and drops what passes, and can answer in the server's place.

use std::io::{self, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use super::postgres::Postgres;
use super::wire::{Frame, read_sized, sized};

/// What becomes of a message of the server.
#[derive(Clone, Debug)]
pub enum Passage {
    /// It arrives.
    On,
    /// These bytes arrive in its place.
    Instead(Vec<u8>),
    /// So many of its bytes arrive; then the connection is cut.
    Cut(usize),
}

/// What is answered in the server's place.
#[derive(Clone, Debug)]
pub enum Answer {
    Bytes(Vec<u8>),
    /// The connection is cut that much later.
    AndCut(Vec<u8>, Duration),
}

/// What a proxy does with one connection.
pub trait Mischief: Send {
    /// A statement of the receiver. If there is an answer, the server never learns of it.
    fn answer(&mut self, _sql: &str) -> Option<Answer> {
        None
    }

    /// A message of the server. Taking one's time delays it.
    fn pass(&mut self, _frame: &Frame) -> Passage {
        Passage::On
    }
}

/// What receivers said of the WAL that they got.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Through which connection.
    pub connection: usize,
    pub written: u64,
    pub flushed: u64,
    pub applied: u64,
}

/// Ends with the test.
pub struct Proxy {
    port: u16,
    stop: Arc<AtomicBool>,
    reports: Arc<Mutex<Vec<Report>>>,
    connections: Arc<Mutex<Vec<Arc<Line>>>>,
}

impl Proxy {
    /// In front of a server. Each connection gets a mischief of its own, made for the how manieth it is, from 0.
    pub fn start(
        postgres: &Postgres,
        mut mischief: impl FnMut(usize) -> Box<dyn Mischief> + Send + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let proxy = Self {
            port: listener.local_addr().unwrap().port(),
            stop: Arc::default(),
            reports: Arc::default(),
            connections: Arc::default(),
        };
        let socket = format!("{}/.s.PGSQL.5432", postgres.socket());
        let (stop, reports) = (proxy.stop.clone(), proxy.reports.clone());
        let connections = proxy.connections.clone();
        thread::spawn(move || {
            for client in listener.incoming() {
                if stop.load(Ordering::Relaxed) {
                    break;
                }
                let client = client.unwrap();
                // A server that is down refuses; so do we, a little later.
                let Ok(server) = UnixStream::connect(&socket) else {
                    continue;
                };
                let mut known = connections.lock().unwrap();
                let line = Arc::new(Line {
                    number: known.len(),
                    client,
                    server,
                    mischief: Mutex::new(mischief(known.len())),
                    reports: reports.clone(),
                });
                known.push(line.clone());
                line.run();
            }
        });
        proxy
    }

    /// For a client on this host, with this user.
    pub fn conninfo(&self) -> String {
        format!(
            "host=127.0.0.1 port={} user=postgres dbname=postgres sslmode=disable gssencmode=disable",
            self.port
        )
    }

    /// All that receivers reported so far, in order.
    pub fn reports(&self) -> Vec<Report> {
        self.reports.lock().unwrap().clone()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect(("127.0.0.1", self.port));
        for line in self.connections.lock().unwrap().iter() {
            line.cut();
        }
    }
}

/// One connection, from end to end.
struct Line {
    number: usize,
    client: TcpStream,
    server: UnixStream,
    mischief: Mutex<Box<dyn Mischief>>,
    reports: Arc<Mutex<Vec<Report>>>,
}

impl Line {
    fn run(self: Arc<Self>) {
        self.client.set_nodelay(true).unwrap();
        let other = self.clone();
        // However it ends: the other side learns of it.
        thread::spawn(move || {
            let _ = self.serve_client();
            self.cut();
        });
        thread::spawn(move || {
            let _ = other.serve_server();
            other.cut();
        });
    }

    fn cut(&self) {
        let _ = self.client.shutdown(Shutdown::Both);
        let _ = self.server.shutdown(Shutdown::Both);
    }

    fn cut_after(self: &Arc<Self>, later: Duration) {
        let line = self.clone();
        thread::spawn(move || {
            thread::sleep(later);
            line.cut();
        });
    }

    fn serve_client(self: &Arc<Self>) -> io::Result<()> {
        let (mut client, mut server) = (&self.client, &self.server);
        // The start-up message has no kind.
        let start = read_sized(&mut client)?;
        server.write_all(&sized(&start))?;
        while let Some(frame) = Frame::read(&mut client)? {
            if frame.kind == b'd' && frame.body.first() == Some(&b'r') {
                let number = |at| u64::from_be_bytes(frame.body[at..at + 8].try_into().unwrap());
                self.reports.lock().unwrap().push(Report {
                    connection: self.number,
                    written: number(1),
                    flushed: number(9),
                    applied: number(17),
                });
            }
            let answer = match frame.kind {
                b'Q' => self.mischief.lock().unwrap().answer(&frame.text()),
                _ => None,
            };
            match answer {
                Some(Answer::Bytes(answer)) => client.write_all(&answer)?,
                Some(Answer::AndCut(answer, later)) => {
                    client.write_all(&answer)?;
                    self.cut_after(later);
                }
                None => server.write_all(&frame.bytes())?,
            }
        }
        Ok(())
    }

    fn serve_server(&self) -> io::Result<()> {
        let (mut client, mut server) = (&self.client, &self.server);
        while let Some(frame) = Frame::read(&mut server)? {
            let passage = self.mischief.lock().unwrap().pass(&frame);
            match passage {
                Passage::On => client.write_all(&frame.bytes())?,
                Passage::Instead(bytes) => client.write_all(&bytes)?,
                Passage::Cut(after) => {
                    let bytes = frame.bytes();
                    client.write_all(&bytes[..after.min(bytes.len())])?;
                    break;
                }
            }
        }
        Ok(())
    }
}
