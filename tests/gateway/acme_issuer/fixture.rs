//! What the tests of the issuer need: an issuer with a storage and events, and solvers.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use async_trait::async_trait;
use openssl::x509::X509;
use snigate::acme::{AcmeIssuer, Shared};
use snigate::challenge::{Challenge, ChallengeSolver};
use snigate::clock::{Clock, SystemClock};
use snigate::config::model::{Acme, ChallengeType, KeyType, OrderLimit, OrderTerms};
use snigate::event::EventBus;
use snigate::host::Pattern;
use snigate::issuer::{Issued, Issuer, Request};
use snigate::schedule::Failure;
use snigate::storage::{
    Key, Lease, MemoryStorage, Stat, Storage, StorageError, Value, Watch, keys,
};

use crate::support::Port;

/// A web server that answers http-01, and the solver that gives it the answers.
pub struct WebSolver {
    port: Port,
    answers: Arc<Mutex<HashMap<String, String>>>,
    pub presented: AtomicUsize,
    pub cleaned: AtomicUsize,
    /// Never comes to an end with making an answer visible.
    pub hangs: AtomicBool,
}

impl WebSolver {
    pub fn start() -> Arc<Self> {
        let port = Port::take();
        let listener = TcpListener::bind(port.address()).unwrap();
        let answers: Arc<Mutex<HashMap<String, String>>> = Arc::default();
        let served = Arc::clone(&answers);
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (mut stream, served) = (stream.unwrap(), Arc::clone(&served));
                thread::spawn(move || {
                    let mut head = Vec::new();
                    let mut buffer = [0; 1024];
                    while !head.windows(4).any(|bytes| bytes == b"\r\n\r\n") {
                        match stream.read(&mut buffer) {
                            Ok(read) if read > 0 => head.extend_from_slice(&buffer[..read]),
                            _ => return,
                        }
                    }
                    let head = String::from_utf8_lossy(&head).into_owned();
                    let path = head.split(' ').nth(1).unwrap();
                    let token = path.rsplit('/').next().unwrap();
                    let answer = served.lock().unwrap().get(token).cloned();
                    let (status, body) = match answer {
                        Some(answer) => ("200 OK", answer),
                        None => ("404 Not Found", String::new()),
                    };
                    let length = body.len();
                    let _ = write!(
                        stream,
                        "HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
                    );
                });
            }
        });
        Arc::new(Self {
            port,
            answers,
            presented: AtomicUsize::new(0),
            cleaned: AtomicUsize::new(0),
            hangs: AtomicBool::new(false),
        })
    }

    pub fn port(&self) -> u16 {
        self.port.number()
    }

    /// How many answers are visible.
    pub fn visible(&self) -> usize {
        self.answers.lock().unwrap().len()
    }
}

#[async_trait]
impl ChallengeSolver for WebSolver {
    fn kind(&self) -> ChallengeType {
        ChallengeType::Http01
    }

    async fn present(&self, challenge: &Challenge) -> Result<(), Failure> {
        self.presented.fetch_add(1, Ordering::Relaxed);
        if self.hangs.load(Ordering::Relaxed) {
            std::future::pending::<()>().await;
        }
        let (token, answer) = (challenge.token.clone(), challenge.key_authorization.clone());
        self.answers.lock().unwrap().insert(token, answer);
        Ok(())
    }

    async fn clean_up(&self, challenge: &Challenge) {
        self.answers.lock().unwrap().remove(&challenge.token);
        self.cleaned.fetch_add(1, Ordering::Relaxed);
    }
}

/// Says that the proof is visible, and it is not.
#[derive(Default)]
pub struct Liar {
    pub presented: AtomicUsize,
    pub cleaned: AtomicUsize,
}

#[async_trait]
impl ChallengeSolver for Liar {
    fn kind(&self) -> ChallengeType {
        ChallengeType::TlsAlpn01
    }

    async fn present(&self, _challenge: &Challenge) -> Result<(), Failure> {
        self.presented.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    async fn clean_up(&self, _challenge: &Challenge) {
        self.cleaned.fetch_add(1, Ordering::Relaxed);
    }
}

/// A storage that fails as scripted.
#[derive(Default)]
pub struct Faulty {
    inner: MemoryStorage,
    pub reads_fail: AtomicBool,
    pub writes_fail: AtomicBool,
}

impl Faulty {
    fn fail(switch: &AtomicBool) -> Result<(), StorageError> {
        match switch.load(Ordering::Relaxed) {
            true => Err(StorageError::Io {
                action: "use",
                path: "faulty".into(),
                source: std::io::Error::other("it was told to fail"),
            }),
            false => Ok(()),
        }
    }
}

impl Storage for Faulty {
    fn load(&self, key: &Key) -> Result<Option<Value>, StorageError> {
        Self::fail(&self.reads_fail)?;
        self.inner.load(key)
    }

    fn store(&self, key: &Key, value: &[u8]) -> Result<(), StorageError> {
        Self::fail(&self.writes_fail)?;
        self.inner.store(key, value)
    }

    fn store_under(&self, lease: &Lease, key: &Key, value: &[u8]) -> Result<(), StorageError> {
        Self::fail(&self.writes_fail)?;
        self.inner.store_under(lease, key, value)
    }

    fn delete(&self, key: &Key) -> Result<(), StorageError> {
        Self::fail(&self.writes_fail)?;
        self.inner.delete(key)
    }

    fn list(&self, prefix: &Key) -> Result<Vec<Key>, StorageError> {
        Self::fail(&self.reads_fail)?;
        self.inner.list(prefix)
    }

    fn stat(&self, key: &Key) -> Result<Option<Stat>, StorageError> {
        Self::fail(&self.reads_fail)?;
        self.inner.stat(key)
    }

    fn try_lock(&self, key: &Key) -> Result<Option<Lease>, StorageError> {
        Self::fail(&self.writes_fail)?;
        self.inner.try_lock(key)
    }

    fn watch(&self, prefix: &Key) -> Result<Watch, StorageError> {
        self.inner.watch(prefix)
    }
}

/// The configuration of an issuer at this CA, by http-01.
pub fn config(directory: String, ca_file: &Path) -> Acme {
    Acme {
        directory,
        staging: None,
        email: Some("ops@example.com".to_owned()),
        challenges: vec![ChallengeType::Http01],
        dns: None,
        order: OrderTerms::default(),
        key_type: KeyType::P256,
        reuse_key: false,
        ca_file: Some(ca_file.to_owned()),
        eab: None,
        zerossl: None,
        proxy: None,
        check_caa: true,
        resolvers: Vec::new(),
        order_limit: OrderLimit {
            orders: 1000,
            per: Duration::from_secs(1),
        },
    }
}

/// A process that obtains certificates.
pub struct Fixture {
    pub storage: Arc<dyn Storage>,
    pub events: EventBus,
    pub issuer: Arc<AcmeIssuer>,
}

impl Fixture {
    pub fn new(config: Acme, solvers: Vec<Arc<dyn ChallengeSolver>>) -> Self {
        Self::on(Arc::new(MemoryStorage::default()), config, solvers)
    }

    /// A process on a storage that others may have used before.
    pub fn on(
        storage: Arc<dyn Storage>,
        config: Acme,
        solvers: Vec<Arc<dyn ChallengeSolver>>,
    ) -> Self {
        Self::with_clock(storage, Arc::new(SystemClock), config, solvers)
    }

    /// As [`Self::on`], by this clock.
    pub fn with_clock(
        storage: Arc<dyn Storage>,
        clock: Arc<dyn Clock>,
        config: Acme,
        solvers: Vec<Arc<dyn ChallengeSolver>>,
    ) -> Self {
        let events = EventBus::default();
        let shared = Shared::new(Arc::clone(&storage), clock, events.clone());
        let issuer = AcmeIssuer::new("ca".into(), Arc::new(config), solvers, Arc::new(shared));
        Self {
            storage,
            events,
            issuer: Arc::new(issuer),
        }
    }

    /// As [`Self::request`], where the storage cannot lock.
    pub fn unstored_request(&self, names: &[&str]) -> Request {
        let names: Vec<Pattern> = names.iter().map(|name| name.parse().unwrap()).collect();
        Request {
            subject: keys::subject(&names),
            names,
            failures: 0,
            failed_validations: 0,
            is_asked: false,
            previous_key: None,
            replaces: None,
            dns: None,
            lease: Arc::new(Lease::unstored()),
        }
    }

    pub fn request(&self, names: &[&str]) -> Request {
        let names: Vec<Pattern> = names.iter().map(|name| name.parse().unwrap()).collect();
        let subject = keys::subject(&names);
        let lease = self.storage.lock(&keys::lock(&subject).unwrap()).unwrap();
        Request {
            subject,
            names,
            failures: 0,
            failed_validations: 0,
            is_asked: false,
            previous_key: None,
            replaces: None,
            dns: None,
            lease: Arc::new(lease),
        }
    }

    pub async fn issue(&self, names: &[&str]) -> Result<Issued, Failure> {
        let request = self.request(names);
        self.issuer.issue(&request).await
    }

    /// Issues, and leaves it as a killed process would when this is sent.
    pub async fn issue_until(&self, names: &[&str], told: &str) {
        let mut progress = self.events.subscribe();
        let request = self.request(names);
        let cut = async { while !progress.recv().await.unwrap().message.contains(told) {} };
        tokio::select! {
            biased;
            () = cut => {}
            issued = self.issuer.issue(&request) => {
                panic!("{told:?} was never told: {:?}", issued.err());
            }
        }
    }

    /// What is stored under a first segment.
    pub fn stored(&self, prefix: &str) -> Vec<serde_json::Value> {
        let keys = self.storage.list(&prefix.parse().unwrap()).unwrap();
        keys.iter()
            .map(|key| {
                let value = self.storage.load(key).unwrap().unwrap();
                serde_json::from_slice(&value).unwrap()
            })
            .collect()
    }
}

/// The leaf, after a look at names and key.
#[track_caller]
pub fn leaf(issued: &Issued, names: &[&str]) -> X509 {
    let chain = X509::stack_from_pem(&issued.chain).unwrap();
    assert!(chain.len() >= 2, "leaf and intermediate");
    let key = openssl::pkey::PKey::private_key_from_pem(&issued.key).unwrap();
    let leaf = chain[0].clone();
    assert!(leaf.public_key().unwrap().public_eq(&key), "its key");
    let alternative = leaf.subject_alt_names().unwrap();
    let mut found: Vec<&str> = alternative
        .iter()
        .map(|name| name.dnsname().unwrap())
        .collect();
    let mut names = names.to_vec();
    found.sort_unstable();
    names.sort_unstable();
    assert_eq!(found, names);
    leaf
}
