//! HTTP/1.1, as much of it as a test needs: a server in this process whose answers are a closure, and a client.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

#[derive(Clone, Debug)]
pub struct Request {
    pub method: String,
    /// Path and query, as they were sent.
    pub target: String,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

#[derive(Clone, Debug, Default)]
pub struct Response {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

/// What becomes of a request.
pub enum Answer {
    Whole(Response),
    /// The head announces the whole body, only so many bytes of it are sent, then the connection is closed.
    Torn(Response, usize),
    /// The connection is closed without a word.
    Nothing,
}

impl Request {
    pub fn header(&self, name: &str) -> Option<&str> {
        header(&self.headers, name)
    }

    /// The path without the query.
    pub fn path(&self) -> &str {
        self.target.split('?').next().unwrap()
    }

    pub fn set_header(&mut self, name: &str, value: &str) {
        self.headers.retain(|(known, _)| known != name);
        self.headers.push((name.to_owned(), value.to_owned()));
    }
}

impl Response {
    pub fn new(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Self {
            status,
            headers: Vec::new(),
            body: body.into(),
        }
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        header(&self.headers, name)
    }

    pub fn with(mut self, name: &str, value: impl ToString) -> Self {
        self.headers.push((name.to_owned(), value.to_string()));
        self
    }
}

fn header<'a>(headers: &'a [(String, String)], name: &str) -> Option<&'a str> {
    headers
        .iter()
        .find(|(known, _)| known == name)
        .map(|(_, value)| value.as_str())
}

/// A server on a port of its own; stopped when dropped.
pub struct Server {
    port: u16,
    stop: Arc<AtomicBool>,
}

impl Server {
    /// Every connection has its thread; `answer` is called for different requests at the same time.
    pub fn start(answer: impl Fn(Request) -> Answer + Send + Sync + 'static) -> Self {
        Self::start_over(Ok, answer)
    }

    /// The same over connections that `wrap` has put something around, such as TLS.
    pub fn start_over<S: Read + Write>(
        wrap: impl Fn(TcpStream) -> io::Result<S> + Send + Sync + 'static,
        answer: impl Fn(Request) -> Answer + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let stop = Arc::new(AtomicBool::new(false));
        let (both, stopped) = (Arc::new((wrap, answer)), Arc::clone(&stop));
        thread::spawn(move || {
            for stream in listener.incoming() {
                if stopped.load(Ordering::Relaxed) {
                    return;
                }
                let Ok(stream) = stream else { continue };
                let both = Arc::clone(&both);
                thread::spawn(move || {
                    let (wrap, answer) = &*both;
                    // A client that goes away is its own business.
                    let _ = stream.set_nodelay(true);
                    let _ = wrap(stream).and_then(|stream| serve(stream, answer));
                });
            }
        });
        Self { port, stop }
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // Wakes the thread that listens.
        let _ = TcpStream::connect(("127.0.0.1", self.port));
    }
}

/// Answers one connection, which ends when it is dropped.
fn serve<S: Read + Write>(stream: S, answer: &impl Fn(Request) -> Answer) -> io::Result<()> {
    let mut stream = BufReader::new(stream);
    while let Some(request) = read_request(&mut stream)? {
        let is_head = request.method == "HEAD";
        match answer(request) {
            Answer::Whole(response) => {
                let length = if is_head { 0 } else { response.body.len() };
                write_response(stream.get_mut(), &response, length)?;
            }
            Answer::Torn(response, length) => {
                write_response(stream.get_mut(), &response, length)?;
                break;
            }
            Answer::Nothing => break,
        }
    }
    Ok(())
}

fn read_request<S: Read + Write>(reader: &mut BufReader<S>) -> io::Result<Option<Request>> {
    let Some(first) = read_line(reader)? else {
        return Ok(None);
    };
    let mut words = first.split(' ');
    let (method, target) = (
        words.next().unwrap_or_default(),
        words.next().unwrap_or_default(),
    );
    let headers = read_headers(reader)?;
    if header(&headers, "expect").is_some() {
        reader
            .get_mut()
            .write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
    }
    let body = read_body(reader, &headers, false)?;
    Ok(Some(Request {
        method: method.to_owned(),
        target: target.to_owned(),
        headers,
        body,
    }))
}

fn read_line(reader: &mut impl BufRead) -> io::Result<Option<String>> {
    let mut line = String::new();
    if reader.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    Ok(Some(line.trim_end().to_owned()))
}

fn read_headers(reader: &mut impl BufRead) -> io::Result<Vec<(String, String)>> {
    let mut headers = Vec::new();
    while let Some(line) = read_line(reader)?.filter(|line| !line.is_empty()) {
        if let Some((name, value)) = line.split_once(':') {
            headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
    }
    Ok(headers)
}

fn read_body(
    reader: &mut impl BufRead,
    headers: &[(String, String)],
    to_end: bool,
) -> io::Result<Vec<u8>> {
    let mut body = Vec::new();
    if header(headers, "transfer-encoding") == Some("chunked") {
        while let Some(line) = read_line(reader)? {
            let size = u64::from_str_radix(line.split(';').next().unwrap(), 16).unwrap();
            reader.take(size).read_to_end(&mut body)?;
            read_line(reader)?;
            if size == 0 {
                break;
            }
        }
    } else if let Some(length) = header(headers, "content-length") {
        let length: u64 = length.parse().unwrap();
        reader.take(length).read_to_end(&mut body)?;
        if body.len() as u64 != length {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    } else if to_end {
        reader.read_to_end(&mut body)?;
    }
    Ok(body)
}

fn write_response(writer: &mut impl Write, response: &Response, length: usize) -> io::Result<()> {
    let mut head = format!("HTTP/1.1 {} X\r\n", response.status);
    if response.header("content-length").is_none()
        && response.status != 204
        && response.status != 304
    {
        head.push_str(&format!("content-length: {}\r\n", response.body.len()));
    }
    for (name, value) in &response.headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str("\r\n");
    let mut bytes = head.into_bytes();
    bytes.extend(&response.body[..length.min(response.body.len())]);
    writer.write_all(&bytes)?;
    writer.flush()
}

/// Asks a server on this host. Every request has a connection of its own.
pub fn ask(port: u16, request: &Request) -> io::Result<Response> {
    let stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_nodelay(true)?;
    let mut bytes = format!("{} {} HTTP/1.1\r\n", request.method, request.target).into_bytes();
    let skipped = [
        "connection",
        "expect",
        "transfer-encoding",
        "content-length",
    ];
    for (name, value) in &request.headers {
        if !skipped.contains(&name.as_str()) {
            bytes.extend(format!("{name}: {value}\r\n").into_bytes());
        }
    }
    bytes.extend(
        format!(
            "content-length: {}\r\nconnection: close\r\n\r\n",
            request.body.len()
        )
        .into_bytes(),
    );
    bytes.extend(&request.body);
    (&stream).write_all(&bytes)?;
    let mut reader = BufReader::new(&stream);
    let status = loop {
        let line = read_line(&mut reader)?.ok_or(io::ErrorKind::UnexpectedEof)?;
        let status: u16 = line
            .split(' ')
            .nth(1)
            .and_then(|word| word.parse().ok())
            .unwrap_or(0);
        if status != 100 {
            break status;
        }
        read_headers(&mut reader)?;
    };
    let mut headers = read_headers(&mut reader)?;
    let has_no_body = request.method == "HEAD" || matches!(status, 204 | 304);
    let body = if has_no_body {
        Vec::new()
    } else {
        read_body(&mut reader, &headers, true)?
    };
    headers.retain(|(name, _)| {
        !["connection", "transfer-encoding", "keep-alive"].contains(&name.as_str())
    });
    Ok(Response {
        status,
        headers,
        body,
    })
}

/// A request without headers or body.
pub fn plain(method: &str, target: &str) -> Request {
    Request {
        method: method.to_owned(),
        target: target.to_owned(),
        headers: vec![("host".to_owned(), "127.0.0.1".to_owned())],
        body: Vec::new(),
    }
}
