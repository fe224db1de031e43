//! A server that publishes the keys of tokens.
//!
//! They are fetched outside the requests' path: at the start, periodically, and when a token is signed
//! by a key that is not known. Keys that are known stay in use until others are.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use http::Uri;
use prometheus::IntCounterVec;
use tokio::sync::{Semaphore, watch};
use tokio::time::timeout;

use super::fetch::fetch;
use super::keys::KeySet;
use crate::http_client::{HttpClient, HttpError, Options, Patience};
use crate::lock::MutexExt as _;
use crate::metrics::Metrics;
use crate::throttle::Throttle;

/// How long one fetch may take, and the most octets of a response.
const PATIENCE: Duration = Duration::from_secs(5);
const MAX_ANSWER: usize = 256 * 1024;

/// The shortest time between two fetches: while keys are known, and before.
const PAUSE: Duration = Duration::from_secs(10);
const FIRST_PAUSE: Duration = Duration::from_secs(1);

/// How many requests may wait for a fetch.
const MOST_WAITING: usize = 256;

/// The shortest time between two lines in the log about failures.
const LINE_EVERY: Duration = Duration::from_secs(60);

/// A server that publishes the keys of tokens.
pub struct KeyServer {
    url: Uri,
    ca_file: Option<PathBuf>,
    refresh: Duration,
    /// `None` if it cannot be asked: the roots that it would be trusted by could not be read.
    client: Option<HttpClient>,
    keys: ArcSwapOption<KeySet>,
    attempts: Mutex<Attempts>,
    /// How many fetches have ended.
    ended: watch::Sender<u64>,
    waiting: Semaphore,
    failures: Throttle,
    fetches: OnceLock<IntCounterVec>,
}

/// What is known of the fetches of keys.
#[derive(Clone, Copy, Default)]
struct Attempts {
    /// When the last one began.
    last: Option<Instant>,
    is_running: bool,
    has_failed: bool,
}

impl KeyServer {
    /// A server at this URL, whose keys are fetched again after `refresh`. Reads the roots to trust it
    /// by. The error says why it can never be asked.
    pub fn new(url: Uri, ca_file: Option<&Path>, refresh: Duration) -> (Self, Option<HttpError>) {
        let is_plain = url.scheme_str() == Some("http");
        let client = HttpClient::new(Options {
            ca_file,
            proxy: None,
            allow_plain: is_plain,
            only_plain: is_plain,
            patience: Patience {
                connect: PATIENCE,
                request: PATIENCE,
            },
            max_answer: Some(MAX_ANSWER),
        });
        let (client, error) = match client {
            Ok(client) => (Some(client), None),
            Err(error) => (None, Some(error)),
        };
        let server = Self {
            url,
            ca_file: ca_file.map(Path::to_owned),
            refresh,
            client,
            keys: ArcSwapOption::empty(),
            attempts: Mutex::default(),
            ended: watch::Sender::new(0),
            waiting: Semaphore::new(MOST_WAITING),
            failures: Throttle::every(LINE_EVERY),
            fetches: OnceLock::new(),
        };
        (server, error)
    }

    /// Takes up the keys that one of an earlier configuration has fetched from the same server.
    pub fn succeed(&self, previous: &Self) {
        if self.url != previous.url || self.ca_file != previous.ca_file {
            return;
        }
        let Some(keys) = previous.keys.load_full() else {
            return;
        };
        self.keys.store(Some(keys));
        let attempts = *previous.attempts.lock_unpoisoned();
        *self.attempts.lock_unpoisoned() = Attempts {
            is_running: false,
            ..attempts
        };
    }

    /// Counts fetches from now on.
    pub fn count_in(&self, metrics: &Metrics) {
        _ = self.fetches.set(metrics.key_fetches.clone());
    }

    /// Its host and port.
    pub fn host(&self) -> &str {
        self.url.authority().map_or("-", |of| of.as_str())
    }

    /// The keys that are known.
    pub fn keys(&self) -> Option<Arc<KeySet>> {
        self.keys.load_full()
    }

    /// Begins a fetch if it is time for one.
    pub fn fetch_if_due(self: &Arc<Self>) {
        let pause = match (
            self.keys.load().is_some(),
            self.attempts.lock_unpoisoned().has_failed,
        ) {
            (false, _) => FIRST_PAUSE,
            (true, true) => PAUSE.min(self.refresh),
            (true, false) => self.refresh,
        };
        self.begin_fetch(pause);
    }

    /// Waits for keys that may be newer than those that are known, if there can be any by now. Returns
    /// whether there are others, as far as is known.
    pub async fn wait_for_newer(self: &Arc<Self>) -> bool {
        let Ok(_waiting) = self.waiting.try_acquire() else {
            return false;
        };
        let mut ended = self.ended.subscribe();
        let pause = match self.keys.load().is_some() {
            true => PAUSE.min(self.refresh),
            false => FIRST_PAUSE,
        };
        // Others may have begun one.
        if !self.begin_fetch(pause) {
            return false;
        }
        matches!(timeout(PATIENCE, ended.changed()).await, Ok(Ok(())))
    }

    /// Begins a fetch unless the last one began within `pause`. Returns whether one is running.
    fn begin_fetch(self: &Arc<Self>, pause: Duration) -> bool {
        let mut attempts = self.attempts.lock_unpoisoned();
        if attempts.is_running {
            return true;
        }
        if self.client.is_none() || attempts.last.is_some_and(|last| last.elapsed() < pause) {
            return false;
        }
        (attempts.last, attempts.is_running) = (Some(Instant::now()), true);
        drop(attempts);
        let running = Running {
            server: Arc::clone(self),
            has_failed: true,
        };
        tokio::spawn(running.fetch());
        true
    }

    /// Takes up what a fetch has found. Returns whether it has failed.
    fn take_up(&self, found: Result<Option<KeySet>, String>) -> bool {
        let server = self.host();
        let (result, has_failed) = match found {
            Ok(found) => {
                if let Some(found) = found {
                    let (keys, skipped) = (found.count(), found.skipped());
                    self.keys.store(Some(Arc::new(found)));
                    tracing::info!(server, keys, skipped, "the keys of tokens were fetched");
                }
                ("ok", false)
            }
            Err(error) => {
                if let Some(suppressed) = self.failures.admit() {
                    let keys = self.keys.load().as_ref().map_or(0, |keys| keys.count());
                    tracing::warn!(
                        server,
                        %error,
                        keys,
                        suppressed,
                        "the keys of tokens cannot be fetched; those that are known stay in use"
                    );
                }
                ("failed", true)
            }
        };
        if let Some(fetches) = self.fetches.get() {
            fetches.with_label_values(&[server, result]).inc();
        }
        has_failed
    }
}

/// A fetch that is running. Its end is the end of that, whatever ends it.
struct Running {
    server: Arc<KeyServer>,
    has_failed: bool,
}

impl Running {
    async fn fetch(mut self) {
        let server = Arc::clone(&self.server);
        if let Some(client) = &server.client {
            let known = server.keys();
            let found = fetch(client, &server.url, known.as_deref()).await;
            self.has_failed = server.take_up(found);
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let mut attempts = self.server.attempts.lock_unpoisoned();
        (attempts.is_running, attempts.has_failed) = (false, self.has_failed);
        drop(attempts);
        self.server.ended.send_modify(|ended| *ended += 1);
    }
}

impl fmt::Debug for KeyServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyServer")
            .field("url", &self.url)
            .field("ca_file", &self.ca_file)
            .field("refresh", &self.refresh)
            .finish_non_exhaustive()
    }
}

/// Those of one configuration that are alike are one. Those of two may trust different roots.
impl PartialEq for KeyServer {
    fn eq(&self, other: &Self) -> bool {
        std::ptr::eq(self, other)
    }
}
