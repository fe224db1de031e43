//! A server that publishes the keys of an issuer.
//!
//! They are fetched outside the requests' path: at the start, periodically, and when a token is signed
//! by none of the known keys. These stay in use until the server publishes others, or none.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use http::Uri;
use tokio::sync::{Semaphore, watch};
use tokio::time::timeout;

use super::fetch::fetch;
use super::keys::KeySet;
use crate::http_client::{HttpClient, HttpError, Options, Patience};
use crate::lock::MutexExt as _;
use crate::metrics::{KeyServerMetrics, Metrics};
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

/// A server that publishes the keys of an issuer.
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
    fetches: OnceLock<Arc<KeyServerMetrics>>,
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

    /// Takes up the keys that one of an earlier configuration has fetched from the same server,
    /// trusting the same roots.
    pub fn succeed(&self, previous: &Self) {
        if self.url != previous.url || self.roots() != previous.roots() {
            return;
        }
        // Read before the keys: a fetch that ends in between has its keys taken up, or is repeated.
        let attempts = *previous.attempts.lock_unpoisoned();
        let Some(keys) = previous.keys.load_full() else {
            return;
        };
        self.keys.store(Some(keys));
        if !attempts.is_running {
            *self.attempts.lock_unpoisoned() = attempts;
        }
    }

    /// The roots that it is trusted by.
    fn roots(&self) -> Option<&[u8; 32]> {
        self.client.as_ref().and_then(HttpClient::roots)
    }

    /// Counts fetches from now on.
    pub fn count_in(&self, metrics: &Metrics) {
        self.fetches
            .get_or_init(|| metrics.key_servers.server(self.host()));
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

    /// Other keys than the set with the id `known`, if there are any. Waits for them if there can be
    /// any by now.
    pub async fn newer_keys(self: &Arc<Self>, known: Option<u64>) -> Option<Arc<KeySet>> {
        let newer = || self.keys().filter(|keys| Some(keys.id()) != known);
        if let Some(newer) = newer() {
            return Some(newer);
        }
        self.wait_for_fetch().await;
        // A fetch may have ended while there was no wait for it.
        newer()
    }

    /// Waits for a fetch to end, if one is running or it is time for one.
    async fn wait_for_fetch(self: &Arc<Self>) {
        let Ok(_waiting) = self.waiting.try_acquire() else {
            return;
        };
        let mut ended = self.ended.subscribe();
        let pause = match self.keys.load().is_some() {
            true => PAUSE.min(self.refresh),
            false => FIRST_PAUSE,
        };
        // Others may have begun one.
        if self.begin_fetch(pause) {
            _ = timeout(PATIENCE, ended.changed()).await;
        }
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
        let has_failed = match found {
            Ok(found) => {
                if let Some(found) = found {
                    let (keys, skipped) = (found.count(), found.skipped());
                    self.keys.store(Some(Arc::new(found)));
                    match keys {
                        0 => tracing::warn!(
                            server,
                            skipped,
                            "the JWKS has no usable keys; all tokens are refused"
                        ),
                        _ => tracing::info!(server, keys, skipped, "fetched the JWKS"),
                    }
                }
                false
            }
            Err(error) => {
                if let Some(suppressed) = self.failures.admit() {
                    let keys = self.keys.load().as_ref().map_or(0, |keys| keys.count());
                    tracing::warn!(
                        server,
                        %error,
                        keys,
                        suppressed,
                        "cannot fetch the JWKS; keeping the known keys"
                    );
                }
                true
            }
        };
        if let Some(fetches) = self.fetches.get() {
            match has_failed {
                true => fetches.failed.inc(),
                false => fetches.ok.inc(),
            }
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

/// Those that are asked alike are equal, whatever keys they have.
impl PartialEq for KeyServer {
    fn eq(&self, other: &Self) -> bool {
        self.url == other.url
            && self.ca_file == other.ca_file
            && self.refresh == other.refresh
            && self.client.is_some() == other.client.is_some()
            && self.roots() == other.roots()
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    /// The public key of RFC 8037, appendix A.2.
    const KEYS: &str = r#"{"keys":[{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#;

    const REFRESH: Duration = Duration::from_secs(600);

    fn keys() -> Arc<KeySet> {
        Arc::new(KeySet::parse(KEYS.as_bytes()).expect("keys"))
    }

    fn server(url: &str, ca_file: Option<&Path>) -> Arc<KeyServer> {
        let url = url.parse().expect("a URL");
        let (server, error) = KeyServer::new(url, ca_file, REFRESH);
        assert!(error.is_none(), "{error:?}");
        Arc::new(server)
    }

    fn is_running(server: &KeyServer) -> bool {
        server.attempts.lock_unpoisoned().is_running
    }

    #[tokio::test]
    async fn a_fetch_that_a_reload_overtakes_is_repeated() {
        let silent = TcpListener::bind("127.0.0.1:0").expect("a listener");
        let url = format!("http://{}/", silent.local_addr().expect("an address"));
        let first = server(&url, None);
        first.keys.store(Some(keys()));
        first.fetch_if_due();
        assert!(is_running(&first));
        let second = server(&url, None);
        second.succeed(&first);
        assert_eq!(second.keys().map(|keys| keys.count()), Some(1));
        second.fetch_if_due();
        assert!(is_running(&second));
        // One that has ended is not.
        let third = server(&url, None);
        let ended = Attempts {
            last: Some(Instant::now()),
            ..Attempts::default()
        };
        *first.attempts.lock_unpoisoned() = ended;
        third.succeed(&first);
        third.fetch_if_due();
        assert!(!is_running(&third));
    }

    #[test]
    fn keys_of_a_server_that_other_roots_vouch_for_are_not_taken_up() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("roots.pem");
        let url = "https://login.example/keys";
        let with_new_root = || {
            let made = rcgen::generate_simple_self_signed(["a.test".to_owned()]);
            std::fs::write(&path, made.expect("a certificate").cert.pem()).expect("a file");
            server(url, Some(&path))
        };
        let first = with_new_root();
        first.keys.store(Some(keys()));
        let same = server(url, Some(&path));
        same.succeed(&first);
        assert!(same.keys().is_some());
        assert!(*same == *first);
        let other = with_new_root();
        other.succeed(&first);
        assert!(other.keys().is_none());
        assert!(*other != *first);
    }

    #[tokio::test]
    async fn keys_that_came_while_a_token_was_verified_are_tried() {
        let server = server("http://127.0.0.1:9/", None);
        let old = keys();
        server.keys.store(Some(Arc::clone(&old)));
        // It is not time for a fetch.
        server.attempts.lock_unpoisoned().last = Some(Instant::now());
        assert!(server.newer_keys(Some(old.id())).await.is_none());
        let new = keys();
        server.keys.store(Some(Arc::clone(&new)));
        let newer = server.newer_keys(Some(old.id())).await;
        assert_eq!(newer.map(|keys| keys.id()), Some(new.id()));
        let any = server.newer_keys(None).await;
        assert_eq!(any.map(|keys| keys.id()), Some(new.id()));
    }
}
