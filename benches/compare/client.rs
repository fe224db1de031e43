//! The client of `benches/compare/run`: handshakes, first and changed certificates, idle
//! connections, paced requests. It speaks OpenSSL as the gateway does, prints one line of JSON and
//! knows nothing of the server that it measures.

#![allow(
    clippy::disallowed_methods,
    clippy::indexing_slicing,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a benchmark may fail loudly, and prints what it measured"
)]

use std::collections::HashMap;
use std::io::{self, BufRead, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Barrier, Mutex};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use openssl::hash::MessageDigest;
use openssl::ssl::{
    Ssl, SslContext, SslMethod, SslOptions, SslSession, SslSessionCacheMode, SslStream,
    SslVerifyMode, SslVersion,
};
use serde_json::{Value, json};

/// How long any one step of a client may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// Between two tries at a server that does not answer yet.
const PAUSE: Duration = Duration::from_millis(2);

const USAGE: &str = "usage: compare-client COMMAND --to ADDRESS --name NAME [--OPTION VALUE]...
  handshakes  --seconds S --threads N [--resume 1] [--sites N]  as many handshakes as fit
  hellos      --seconds S --threads N                           handshakes broken off after the answer
  first       --seconds S                                       until one handshake is right
  change      --seconds S [--sites N]                           until another certificate is shown
  new         --seconds S --rate R --other NAME --every MICROSECONDS
              paced handshakes, R a second for names that nobody had before, and for NAME beside them
  idle        --connections N                                   opens, asks once, waits for a line
  requests    --seconds S --connections N --every MICROSECONDS [--http 2]  paced requests
All: --ca FILE to check certificates, --groups LIST (X25519), --path PATH (/).
'{}' in NAME is a number of six digits, with --sites N each time another from 1 to N, else 1.";

type Error = Box<dyn std::error::Error + Send + Sync>;

fn main() -> Result<(), Error> {
    let mut words = std::env::args().skip(1);
    let command = words.next().ok_or(USAGE)?;
    let mut options = HashMap::new();
    while let Some(word) = words.next() {
        let key = word.strip_prefix("--").ok_or(USAGE)?.to_owned();
        options.insert(key, words.next().ok_or(USAGE)?);
    }
    let client = Client::new(Options(options))?;
    let result = match &*command {
        "handshakes" => client.handshakes()?,
        "hellos" => client.hellos()?,
        "first" => client.first()?,
        "change" => client.change()?,
        "new" => client.new_names()?,
        "idle" => client.idle()?,
        "requests" => client.requests()?,
        _ => return Err(USAGE.into()),
    };
    println!("{result}");
    Ok(())
}

struct Options(HashMap<String, String>);

impl Options {
    fn text(&self, key: &str) -> Option<&str> {
        self.0.get(key).map(String::as_str)
    }

    fn number(&self, key: &str, default: u64) -> Result<u64, Error> {
        self.text(key).map_or(Ok(default), |text| Ok(text.parse()?))
    }
}

#[derive(Clone)]
struct Client {
    to: SocketAddr,
    name: Arc<str>,
    sites: u64,
    path: Arc<str>,
    groups: Arc<str>,
    ca: Option<Arc<str>>,
    resume: bool,
    threads: u64,
    connections: u64,
    every: Duration,
    rate: u64,
    other: Option<Arc<str>>,
    time: Duration,
    http2: bool,
}

/// One connection's context, with the session that its server gave last.
struct Context {
    tls: SslContext,
    session: Arc<Mutex<Option<SslSession>>>,
}

/// What one thread has seen.
#[derive(Default)]
struct Tally {
    failed: u64,
    resumed: u64,
    took: Vec<u32>,
    why: Option<String>,
}

impl Tally {
    fn note(&mut self, started: Instant, result: Result<bool, Error>) {
        match result {
            Ok(resumed) => {
                self.resumed += u64::from(resumed);
                let took = started.elapsed().as_micros();
                self.took.push(took.try_into().unwrap_or(u32::MAX));
            }
            Err(error) => {
                self.failed += 1;
                self.why.get_or_insert_with(|| error.to_string());
            }
        }
    }

    fn add(&mut self, other: Self) {
        self.failed += other.failed;
        self.resumed += other.resumed;
        self.took.extend(other.took);
        self.why = self.why.take().or(other.why);
    }

    fn json(mut self, seconds: f64) -> Value {
        self.took.sort_unstable();
        let at = |part: f64| {
            let last = self.took.len().saturating_sub(1);
            let index = (last as f64 * part).round() as usize;
            self.took.get(index).copied().unwrap_or(0)
        };
        json!({
            "done": self.took.len(),
            "failed": self.failed,
            "resumed": self.resumed,
            "seconds": seconds,
            "p50_us": at(0.5),
            "p99_us": at(0.99),
            "max_us": at(1.0),
            "why": self.why,
        })
    }
}

impl Client {
    fn new(options: Options) -> Result<Self, Error> {
        let text = |key| options.text(key);
        Ok(Self {
            to: text("to").ok_or(USAGE)?.parse()?,
            name: text("name").ok_or(USAGE)?.into(),
            sites: options.number("sites", 0)?,
            path: text("path").unwrap_or("/").into(),
            groups: text("groups").unwrap_or("X25519").into(),
            ca: text("ca").map(Into::into),
            resume: options.number("resume", 0)? > 0,
            threads: options.number("threads", 16)?,
            connections: options.number("connections", 1)?,
            every: Duration::from_micros(options.number("every", 1000)?),
            rate: options.number("rate", 0)?,
            other: text("other").map(Into::into),
            time: Duration::from_secs_f64(text("seconds").unwrap_or("10").parse()?),
            http2: options.number("http", 1)? == 2,
        })
    }

    fn context(&self) -> Result<Context, Error> {
        let mut builder = SslContext::builder(SslMethod::tls_client())?;
        builder.set_min_proto_version(Some(SslVersion::TLS1_3))?;
        builder.set_groups_list(&self.groups)?;
        let version: &[u8] = if self.http2 {
            b"\x02h2"
        } else {
            b"\x08http/1.1"
        };
        builder.set_alpn_protos(version)?;
        // nginx answers the end of TLS by the end of the connection.
        builder.set_options(SslOptions::IGNORE_UNEXPECTED_EOF);
        match &self.ca {
            Some(file) => {
                builder.set_ca_file(&**file)?;
                builder.set_verify(SslVerifyMode::PEER);
            }
            None => builder.set_verify(SslVerifyMode::NONE),
        }
        let session = Arc::new(Mutex::new(None));
        if self.resume {
            builder.set_session_cache_mode(
                SslSessionCacheMode::CLIENT | SslSessionCacheMode::NO_INTERNAL,
            );
            let session = Arc::clone(&session);
            builder.set_new_session_callback(move |_, new| {
                *session.lock().expect("no panic") = Some(new);
            });
        }
        Ok(Context {
            tls: builder.build(),
            session,
        })
    }

    /// The name of the next handshake.
    fn next_name(&self) -> String {
        self.numbered(fastrand::u64(1..=self.sites.max(1)))
    }

    fn numbered(&self, number: u64) -> String {
        self.name.replace("{}", &format!("{number:06}"))
    }

    /// Opens a connection for `name`.
    fn connect(&self, context: &Context, name: &str) -> Result<SslStream<TcpStream>, Error> {
        let tcp = TcpStream::connect(self.to)?;
        tcp.set_nodelay(true)?;
        tcp.set_read_timeout(Some(PATIENCE))?;
        tcp.set_write_timeout(Some(PATIENCE))?;
        let mut tls = Ssl::new(&context.tls)?;
        tls.set_hostname(name)?;
        if self.ca.is_some() {
            tls.param_mut().set_host(name)?;
        }
        if let Some(session) = context.session.lock().expect("no panic").take() {
            // SAFETY: the session was made under this very context.
            unsafe { tls.set_session(&session)? };
        }
        let mut stream = SslStream::new(tls, tcp)?;
        stream.connect()?;
        Ok(stream)
    }

    /// A handshake and an orderly end: close_notify both ways, tickets read. Whether a session was
    /// resumed.
    fn handshake(&self, context: &Context, name: &str) -> Result<bool, Error> {
        let mut stream = self.connect(context, name)?;
        let resumed = stream.ssl().session_reused();
        stream.shutdown()?;
        while stream.read(&mut [0; 256])? > 0 {}
        Ok(resumed)
    }

    fn handshakes(&self) -> Result<Value, Error> {
        self.over_and_over(Self::context, |client, context| {
            client.handshake(context, &client.next_name())
        })
    }

    /// Handshakes that cost a client next to nothing, as those of a flood: one ClientHello again and
    /// again, and an end as soon as the server has done its part.
    fn hellos(&self) -> Result<Value, Error> {
        let context = self.context()?;
        let mut tls = Ssl::new(&context.tls)?;
        tls.set_hostname(&self.next_name())?;
        let mut unsent = SslStream::new(tls, Kept::default())?;
        // It waits for an answer that does not come.
        let _ = unsent.connect();
        let hello: Arc<[u8]> = unsent.get_ref().0.as_slice().into();
        self.over_and_over(
            move |_| Ok(Arc::clone(&hello)),
            |client, hello| client.hello(hello),
        )
    }

    fn hello(&self, hello: &[u8]) -> Result<bool, Error> {
        let mut tcp = TcpStream::connect(self.to)?;
        tcp.set_read_timeout(Some(PATIENCE))?;
        tcp.write_all(hello)?;
        if tcp.read(&mut [0; 4096])? == 0 {
            return Err("closed without an answer".into());
        }
        Ok(false)
    }

    /// Does something in all threads as often as there is time, each with what it began with.
    fn over_and_over<T>(
        &self,
        begin: impl Fn(&Self) -> Result<T, Error> + Clone + Send + 'static,
        once: impl Fn(&Self, &T) -> Result<bool, Error> + Clone + Send + 'static,
    ) -> Result<Value, Error> {
        let started = Instant::now();
        let end = started + self.time;
        let tally = self.in_threads(self.threads, move |client| {
            let with = begin(client)?;
            let mut tally = Tally::default();
            while Instant::now() < end {
                tally.note(Instant::now(), once(client, &with));
            }
            Ok(tally)
        })?;
        Ok(tally.json(started.elapsed().as_secs_f64()))
    }

    /// Does `work` in so many threads at once: the sum of what each has counted.
    fn in_threads(
        &self,
        count: u64,
        work: impl Fn(&Self) -> Result<Tally, Error> + Clone + Send + 'static,
    ) -> Result<Tally, Error> {
        let threads: Vec<_> = (0..count)
            .map(|_| {
                let (client, work) = (self.clone(), work.clone());
                thread::spawn(move || work(&client))
            })
            .collect();
        let mut tally = Tally::default();
        for thread in threads {
            tally.add(thread.join().expect("no panic")?);
        }
        Ok(tally)
    }

    fn first(&self) -> Result<Value, Error> {
        let end = Instant::now() + self.time;
        let context = self.context()?;
        let mut tries = 0;
        loop {
            tries += 1;
            match self.handshake(&context, &self.numbered(1)) {
                Ok(_) => return Ok(json!({ "at": now(), "tries": tries })),
                Err(error) if Instant::now() > end => {
                    return Ok(json!({ "at": null, "tries": tries, "why": error.to_string() }));
                }
                Err(_) => thread::sleep(PAUSE),
            }
        }
    }

    /// Handshakes for one name until its certificate is another, while threads beside it ask for
    /// any name.
    fn change(&self) -> Result<Value, Error> {
        let end = Instant::now() + self.time;
        let name = self.numbered(1);
        let context = self.context()?;
        let shown = || -> Result<Vec<u8>, Error> {
            let stream = self.connect(&context, &name)?;
            let leaf = stream.ssl().peer_certificate().ok_or("no certificate")?;
            Ok(leaf.digest(MessageDigest::sha256())?.to_vec())
        };
        let before = shown()?;
        let over = Arc::new(AtomicBool::new(false));
        let beside = thread::spawn({
            let (client, over) = (self.clone(), Arc::clone(&over));
            move || {
                let context = client.context()?;
                let mut tally = Tally::default();
                while !over.load(Ordering::Relaxed) {
                    let (name, started) = (client.next_name(), Instant::now());
                    tally.note(started, client.handshake(&context, &name));
                    thread::sleep(PAUSE);
                }
                Ok::<_, Error>(tally)
            }
        });
        println!("watching");
        io::stdout().flush()?;
        let mut tally = Tally::default();
        let at = loop {
            let started = Instant::now();
            if started > end {
                break None;
            }
            let leaf = shown();
            let changed = leaf.as_ref().is_ok_and(|leaf| *leaf != before);
            tally.note(started, leaf.map(|_| false));
            if changed {
                break Some(now());
            }
            thread::sleep(PAUSE);
        };
        over.store(true, Ordering::Relaxed);
        tally.add(beside.join().expect("no panic")?);
        let mut result = tally.json(0.0);
        result["at"] = json!(at);
        Ok(result)
    }

    /// Paced handshakes, each timed from when it was due: for a new name each, and for one name
    /// that is served already.
    fn new_names(&self) -> Result<Value, Error> {
        // When all threads have their contexts.
        let begin = Instant::now() + Duration::from_millis(500);
        let paced = |every: Duration, threads: u64, name: Arc<str>| {
            let next = Arc::new(AtomicU64::new(0));
            let client = Self {
                name,
                ..self.clone()
            };
            thread::spawn(move || {
                client.in_threads(threads, move |client| {
                    let context = client.context()?;
                    let mut tally = Tally::default();
                    loop {
                        let number = next.fetch_add(1, Ordering::Relaxed);
                        let after = every.as_secs_f64() * number as f64;
                        let due = begin + Duration::from_secs_f64(after);
                        if due > begin + client.time {
                            return Ok(tally);
                        }
                        thread::sleep(due.saturating_duration_since(Instant::now()));
                        let name = client.numbered(number);
                        tally.note(due, client.handshake(&context, &name));
                    }
                })
            })
        };
        let other = self.other.clone().ok_or(USAGE)?;
        let others = paced(self.every, self.threads, other);
        let new = (self.rate > 0).then(|| {
            let every = Duration::from_secs_f64(1.0 / self.rate as f64);
            paced(every, self.threads, Arc::clone(&self.name))
        });
        let others = others.join().expect("no panic")?;
        let new = new.map(|new| new.join().expect("no panic"));
        let new = new.transpose()?.unwrap_or_default();
        let seconds = begin.elapsed().as_secs_f64();
        Ok(json!({ "new": new.json(seconds), "others": others.json(seconds) }))
    }

    fn idle(&self) -> Result<Value, Error> {
        let context = self.context()?;
        let mut open = Vec::new();
        for _ in 0..self.connections {
            let name = self.next_name();
            let mut stream = self.connect(&context, &name)?;
            self.ask(&mut stream, &name)?;
            open.push(stream);
        }
        println!("ready");
        io::stdout().flush()?;
        io::stdin().lock().read_line(&mut String::new())?;
        Ok(json!({ "connections": open.len() }))
    }

    /// Requests at a fixed pace on connections that are kept, which take turns; each is timed from
    /// when it was due, so that one slow answer counts for all that wait behind it.
    fn requests(&self) -> Result<Value, Error> {
        let count = self.time.as_micros() / self.every.as_micros().max(1);
        let count = u32::try_from(count)?;
        let connections = u32::try_from(self.connections)?.max(1);
        let next = Arc::new(AtomicU32::new(0));
        let connected = Arc::new(Barrier::new(usize::try_from(connections)?));
        let started = Instant::now();
        let tally = self.in_threads(u64::from(connections), move |client| {
            wake_in_time();
            let turn = client.every * next.fetch_add(1, Ordering::Relaxed) / connections;
            let name = client.next_name();
            let opened = client.open_connection(&name);
            // After a failure too: the others wait for this thread.
            connected.wait();
            let mut ask = opened?;
            let begin = Instant::now() + turn;
            let mut tally = Tally::default();
            for number in 0..count {
                let due = begin + client.every * number;
                thread::sleep(due.saturating_duration_since(Instant::now()));
                tally.note(due, ask().map(|()| false));
            }
            Ok(tally)
        })?;
        Ok(tally.json(started.elapsed().as_secs_f64()))
    }

    /// Opens a connection and makes a first request, which may cost more than the next ones.
    /// Returns what makes those.
    fn open_connection<'a>(&'a self, name: &'a str) -> Result<Ask<'a>, Error> {
        let context = self.context()?;
        let mut ask: Ask<'a> = if self.http2 {
            Box::new(self.open_http2(&context, name)?)
        } else {
            let mut stream = self.connect(&context, name)?;
            Box::new(move || self.ask(&mut stream, name))
        };
        ask()?;
        Ok(ask)
    }

    /// Opens a connection of HTTP/2. Returns what makes a request on it and reads the whole answer.
    fn open_http2(
        &self,
        context: &Context,
        name: &str,
    ) -> Result<impl FnMut() -> Result<(), Error> + use<>, Error> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let mut tls = Ssl::new(&context.tls)?;
        tls.set_hostname(name)?;
        let sender = runtime.block_on(async {
            let tcp = tokio::net::TcpStream::connect(self.to).await?;
            tcp.set_nodelay(true)?;
            let mut stream = tokio_openssl::SslStream::new(tls, tcp)?;
            Pin::new(&mut stream).connect().await?;
            let (sender, driver) = h2::client::handshake(stream).await?;
            tokio::spawn(driver);
            Ok::<_, Error>(sender)
        })?;
        let uri = format!("https://{name}{}", self.path);
        let request = http::Request::get(uri).body(())?;
        Ok(move || {
            let once = ask_http2(sender.clone(), request.clone());
            runtime.block_on(async { tokio::time::timeout(PATIENCE, once).await? })
        })
    }

    /// One request, and its whole answer.
    fn ask(&self, stream: &mut SslStream<TcpStream>, name: &str) -> Result<(), Error> {
        // In one record, as any client sends it.
        let request = format!("GET {} HTTP/1.1\r\nHost: {name}\r\n\r\n", self.path);
        stream.write_all(request.as_bytes())?;
        let mut answer = Vec::new();
        let mut buffer = [0; 16 * 1024];
        let head = loop {
            let end = answer.windows(4).position(|four| four == b"\r\n\r\n");
            if let Some(end) = end {
                break end + 4;
            }
            let count = stream.read(&mut buffer)?;
            if count == 0 {
                return Err("closed before its answer".into());
            }
            answer.extend(buffer.iter().take(count));
        };
        let text = String::from_utf8_lossy(&answer).to_ascii_lowercase();
        if !text.starts_with("http/1.1 200") {
            return Err(text.lines().next().unwrap_or("nothing").into());
        }
        let mut fields = text.lines().filter_map(|line| line.split_once(": "));
        let length = fields.find(|(name, _)| *name == "content-length");
        let length: usize = length.ok_or("no Content-Length")?.1.trim().parse()?;
        let mut left = (head + length).saturating_sub(answer.len());
        while left > 0 {
            let count = stream.read(&mut buffer)?;
            if count == 0 {
                return Err("closed in its answer".into());
            }
            left = left.saturating_sub(count);
        }
        Ok(())
    }
}

/// Makes one request and reads its whole answer.
type Ask<'a> = Box<dyn FnMut() -> Result<(), Error> + 'a>;

async fn ask_http2(
    sender: h2::client::SendRequest<bytes::Bytes>,
    request: http::Request<()>,
) -> Result<(), Error> {
    let (answer, _) = sender.ready().await?.send_request(request, true)?;
    let answer = answer.await?;
    if answer.status() != 200 {
        return Err(answer.status().to_string().into());
    }
    let mut body = answer.into_body();
    while let Some(data) = body.data().await {
        body.flow_control().release_capacity(data?.len())?;
    }
    Ok(())
}

/// Makes this thread wake from a sleep when it should. By default it may be 50 microseconds late,
/// about as long as an answer takes.
fn wake_in_time() {
    // SAFETY: it takes a number and no pointer.
    unsafe { libc::prctl(libc::PR_SET_TIMERSLACK, 1) };
}

/// What was written, of a connection that nobody answers on.
#[derive(Default)]
struct Kept(Vec<u8>);

impl Read for Kept {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        Err(io::ErrorKind::WouldBlock.into())
    }
}

impl Write for Kept {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Seconds since 1970.
fn now() -> f64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(0.0, |now| now.as_secs_f64())
}
