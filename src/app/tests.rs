use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Condvar, Mutex};
use std::thread;
use std::time::Instant;

use super::*;
use crate::certificate::testing::TestCa;
use crate::config;
use crate::engine::FileScanner;
use crate::storage::{Key, Lease, MemoryStorage, Stat, StorageError, Value, Watch};

/// A storage whose calls can be made to never return, as those of a server that is gone.
struct Hanging {
    inner: MemoryStorage,
    hangs: Mutex<bool>,
    changed: Condvar,
    /// How many calls wait.
    waiting: Mutex<usize>,
}

impl Hanging {
    fn new() -> Self {
        Self {
            inner: MemoryStorage::default(),
            hangs: Mutex::new(false),
            changed: Condvar::new(),
            waiting: Mutex::new(0),
        }
    }

    fn hang(&self, hangs: bool) {
        *self.hangs.lock().expect("no poison") = hangs;
        self.changed.notify_all();
    }

    fn hangs(&self) -> bool {
        *self.hangs.lock().expect("no poison")
    }

    fn waits(&self) -> bool {
        *self.waiting.lock().expect("no poison") > 0
    }

    fn pass(&self) -> &MemoryStorage {
        let hangs = self.hangs.lock().expect("no poison");
        *self.waiting.lock().expect("no poison") += 1;
        let passed = self.changed.wait_while(hangs, |hangs| *hangs);
        drop(passed.expect("no poison"));
        *self.waiting.lock().expect("no poison") -= 1;
        &self.inner
    }
}

impl Storage for Hanging {
    fn load(&self, key: &Key) -> Result<Option<Value>, StorageError> {
        self.pass().load(key)
    }

    fn store(&self, key: &Key, value: &[u8]) -> Result<(), StorageError> {
        self.pass().store(key, value)
    }

    fn delete(&self, key: &Key) -> Result<(), StorageError> {
        self.pass().delete(key)
    }

    fn list(&self, prefix: &Key) -> Result<Vec<Key>, StorageError> {
        self.pass().list(prefix)
    }

    fn stat(&self, key: &Key) -> Result<Option<Stat>, StorageError> {
        self.pass().stat(key)
    }

    fn try_lock(&self, key: &Key) -> Result<Option<Lease>, StorageError> {
        self.pass().try_lock(key)
    }

    fn watch(&self, prefix: &Key) -> Result<Watch, StorageError> {
        self.pass().watch(prefix)
    }
}

/// A port that was free just now.
fn free() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("an address")
}

/// What the admin interface answers within a few seconds.
fn ask(admin: SocketAddr, request: &str) -> Option<String> {
    let mut stream = TcpStream::connect(admin).ok()?;
    let patience = Some(Duration::from_secs(5));
    stream.set_read_timeout(patience).expect("a socket");
    let request = format!("{request} HTTP/1.1\r\nHost: {admin}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    Some(answer)
}

#[track_caller]
fn within<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(start.elapsed() < Duration::from_secs(20), "never: {what}");
        thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn a_storage_that_hangs_stops_neither_probes_nor_handshakes() {
    let directory = tempfile::tempdir().expect("a directory");
    let at = |name: &str| directory.path().join(name);
    let ca = TestCa::new("app");
    let leaf = ca.leaf(&["files.test"]);
    fs::write(at("files.pem"), ca.chain(&leaf)).expect("writable");
    fs::write(at("files.key"), &leaf.key).expect("writable");
    let (https, http, admin) = (free(), free(), free());
    let text = format!(
        "server: {{ https: [\"{https}\"], http: [\"{http}\"], admin: \"{admin}\", grace_period: 1s }}\n\
         log: {{ access: off }}\n\
         certificates: [{{ files: {{ cert: files.pem, key: files.key }} }}]\n\
         issuers: {{ ca: {{ acme: {{ directory: \"https://127.0.0.1:9/dir\" }} }} }}\n\
         sites:\n  - {{ hosts: [files.test, a.test], routes: [{{ respond: {{ body: x }} }}] }}\n"
    );
    let file = at("snigate.yaml");
    fs::write(&file, text).expect("writable");
    let loaded = config::load(&file).expect("a configuration");
    let config = loaded.config.clone();

    let storage = Arc::new(Hanging::new());
    // So that the next pass reads what this one could not.
    storage
        .inner
        .set_failure(Some(std::io::ErrorKind::TimedOut));
    let metrics = Metrics::new().expect("metrics");
    let log = OwnLog::init(&config.log, metrics.log_lines_lost.clone()).expect("a log");
    let sockets = Sockets::bind(&config).expect("free ports");
    let app = App::new(
        file,
        loaded,
        Lane::default(),
        log,
        metrics,
        Arc::clone(&storage) as _,
    )
    .expect("an app");

    storage.hang(true);
    let files = FileScanner::new(Arc::clone(&app.engine), Some(Arc::clone(&app.state) as _));
    let hanging = Arc::clone(&storage);
    let pass = thread::spawn(move || {
        // What could not be read is not read again at once.
        while hanging.hangs() {
            files.check_paths(&[]);
            files.scan_slice();
            thread::sleep(Duration::from_millis(10));
        }
    });
    within("a pass to hang", || storage.waits().then_some(()));
    let serving = thread::spawn(move || {
        app.serve(sockets, &config, Signals::default())
            .map_err(|e| e.to_string())
    });

    let get = |path: &str| ask(admin, &format!("GET {path}"));
    let health = within("/healthz", || get("/healthz"));
    assert!(health.starts_with("HTTP/1.1 200"), "{health}");
    for _ in 0..3 {
        let ready = get("/readyz").expect("an answer of /readyz");
        assert!(ready.starts_with("HTTP/1.1 503"), "{ready}");
        assert!(ready.contains("a.test"), "{ready}");
        let metrics = get("/metrics").expect("an answer of /metrics");
        assert!(metrics.contains("snigate_"), "{metrics}");
        // Waits for the pass, and keeps nobody else waiting.
        let mut waits = TcpStream::connect(admin).expect("a connection");
        let request = format!("GET /api/v1/certificates HTTP/1.1\r\nHost: {admin}\r\n\r\n");
        waits.write_all(request.as_bytes()).expect("a request");
        handshake(https, "files.test");
    }
    assert!(storage.waits() && !pass.is_finished(), "it hangs still");

    // And it can be stopped.
    let stopping = ask(admin, "POST /api/v1/stop").expect("an answer");
    assert!(stopping.starts_with("HTTP/1.1 202"), "{stopping}");
    within("the end", || serving.is_finished().then_some(()));
    storage.hang(false);
    assert_eq!(serving.join().expect("no panic"), Ok(()));
    pass.join().expect("no panic");
}

#[track_caller]
fn handshake(https: SocketAddr, host: &str) {
    let mut builder =
        openssl::ssl::SslConnector::builder(openssl::ssl::SslMethod::tls()).expect("a context");
    builder.set_verify(openssl::ssl::SslVerifyMode::NONE);
    let stream = TcpStream::connect(https).expect("a connection");
    let patience = Some(Duration::from_secs(5));
    stream.set_read_timeout(patience).expect("a socket");
    let shaken = builder.build().connect(host, stream);
    drop(shaken.expect("a handshake"));
}
