//! A server that stands in for the API of a provider.

use std::collections::{HashMap, VecDeque};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use serde_json::Value;

/// A request.
#[derive(Clone, Debug)]
pub(super) struct Ask {
    pub(super) method: String,
    pub(super) path: String,
    pub(super) query: String,
    pub(super) headers: HashMap<String, String>,
    pub(super) body: Vec<u8>,
}

impl Ask {
    pub(super) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }

    pub(super) fn json(&self) -> Value {
        assert_eq!(self.header("content-type"), "application/json");
        serde_json::from_slice(&self.body).expect("JSON")
    }

    /// A parameter of the query.
    pub(super) fn parameter(&self, name: &str) -> Option<&str> {
        let mut pairs = self
            .query
            .split('&')
            .filter_map(|pair| pair.split_once('='));
        pairs.find(|(key, _)| *key == name).map(|(_, value)| value)
    }

    /// `METHOD /path`.
    pub(super) fn line(&self) -> String {
        format!("{} {}", self.method, self.path)
    }
}

/// A response.
#[derive(Clone, Debug)]
pub(super) struct Reply {
    status: u16,
    headers: Vec<(&'static str, String)>,
    body: String,
}

impl Reply {
    pub(super) fn new(status: u16, body: &str) -> Self {
        Self {
            status,
            headers: Vec::new(),
            body: body.to_owned(),
        }
    }

    pub(super) fn json(status: u16, body: &Value) -> Self {
        Self::new(status, &body.to_string()).with("content-type", "application/json")
    }

    pub(super) fn with(mut self, name: &'static str, value: &str) -> Self {
        self.headers.push((name, value.to_owned()));
        self
    }
}

/// The server. It responds as instructed, and remembers the requests.
pub(super) struct StandIn {
    /// Its URL.
    pub(super) url: String,
    asks: Arc<Mutex<Vec<Ask>>>,
    next: Arc<Mutex<VecDeque<Reply>>>,
}

impl StandIn {
    pub(super) fn start(mut answer: impl FnMut(&Ask) -> Reply + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("bound"));
        let asks = Arc::new(Mutex::new(Vec::new()));
        let next = Arc::new(Mutex::new(VecDeque::new()));
        let (seen, first) = (Arc::clone(&asks), Arc::clone(&next));
        thread::spawn(move || {
            for stream in listener.incoming() {
                let stream = stream.expect("a connection");
                let Some(ask) = read(&stream) else { continue };
                let told: Option<Reply> = first.lock().expect("not poisoned").pop_front();
                let reply = told.unwrap_or_else(|| answer(&ask));
                // Before the response, so that whoever has that sees this.
                seen.lock().expect("not poisoned").push(ask);
                write(&stream, &reply);
            }
        });
        Self { url, asks, next }
    }

    /// A URL where nobody listens.
    pub(super) fn nobody() -> String {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        format!("http://{}", listener.local_addr().expect("bound"))
    }

    /// Responds with this to the next requests instead.
    pub(super) fn answer_with(&self, reply: Reply, times: usize) {
        let mut next = self.next.lock().expect("not poisoned");
        next.extend(std::iter::repeat_n(reply, times));
    }

    /// The requests so far.
    pub(super) fn asks(&self) -> Vec<Ask> {
        self.asks.lock().expect("not poisoned").clone()
    }

    /// How many times this was requested: `METHOD /path`.
    pub(super) fn count(&self, line: &str) -> usize {
        self.asks().iter().filter(|ask| ask.line() == line).count()
    }
}

fn read(stream: &TcpStream) -> Option<Ask> {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let mut words = line.split(' ');
    let (method, target) = (words.next()?.to_owned(), words.next()?);
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let (path, query) = (path.to_owned(), query.to_owned());
    let mut headers = HashMap::new();
    loop {
        line.clear();
        reader.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim_end().split_once(": ") else {
            break;
        };
        headers.insert(name.to_ascii_lowercase(), value.to_owned());
    }
    let length = headers.get("content-length");
    let length = length.and_then(|text| text.parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some(Ask {
        method,
        path,
        query,
        headers,
        body,
    })
}

fn write(mut stream: &TcpStream, reply: &Reply) {
    let mut head = format!("HTTP/1.1 {} Reply\r\nconnection: close\r\n", reply.status);
    for (name, value) in &reply.headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    if reply.status != 204 {
        head.push_str(&format!("content-length: {}\r\n", reply.body.len()));
    }
    // A client that disconnects midway notices by itself.
    let _ = stream.write_all(format!("{head}\r\n{}", reply.body).as_bytes());
}
