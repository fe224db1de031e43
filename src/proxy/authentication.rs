//! Finds out who sends a request, where a route serves only some.
//!
//! Passwords are checked on threads that may block, few at a time, since a check is slow on purpose.
//! A check that has begun ends, and counts, even if its client goes away. A password that was right is
//! remembered for a while. A client that has guessed wrong too often is refused without a check. Tokens are verified at once. Services that decide are asked with the head of the request.

mod basic;
mod guesses;
mod services;
mod tokens;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use moka::sync::Cache;
use openssl::sha::Sha256;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use self::basic::Credentials;
use self::guesses::Guesses;
use self::services::Services;
use self::tokens::Tokens;
use super::granted::Granted;
use super::refusal::Refusal;
use super::request::Request;
use super::response::LocalResponse;
use crate::config::model::{Access, BasicAuth, PasswordHash};
use crate::jwt::Token;
use crate::secret::Secret;

/// How many passwords are checked at a time. Each takes a thread for some hundredths of a second, or
/// as long as its hash demands.
const CHECKS: usize = 2;

/// How many requests may wait for that, and for how long.
const MOST_WAITING: usize = 256;
const PATIENCE: Duration = Duration::from_secs(10);

/// How long a password that was right is remembered, and how many are.
const REMEMBERED: Duration = Duration::from_secs(60);
const MOST_REMEMBERED: u64 = 16 * 1024;

/// Authenticates clients. A handle; clones share what is remembered.
#[derive(Clone)]
pub(super) struct Authenticator(Arc<State>);

struct State {
    checks: Arc<Semaphore>,
    /// Counts those that check and those that wait.
    waiting: Arc<Semaphore>,
    /// By digests of the stored hash and of what the client sent.
    remembered: Cache<[u8; 32], ()>,
    /// Part of each digest, so that they are of no use elsewhere.
    key: [u8; 32],
    guesses: Guesses,
    services: Services,
    tokens: Tokens,
}

/// Who sends a request.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Identity {
    pub(super) user: Option<Box<str>>,
    pub(super) token: Option<Arc<Token>>,
    /// What an authentication service says of the request.
    pub(super) granted: Option<Arc<Granted>>,
}

/// Why a request is not served.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Denial {
    pub(super) refusal: Refusal,
    /// What the client gets if it is not the gateway's page.
    pub(super) response: Option<Box<LocalResponse>>,
}

impl From<Refusal> for Denial {
    fn from(refusal: Refusal) -> Self {
        Self {
            refusal,
            response: None,
        }
    }
}

impl Default for Authenticator {
    fn default() -> Self {
        Self(Arc::new(State {
            checks: Arc::new(Semaphore::new(CHECKS)),
            waiting: Arc::new(Semaphore::new(CHECKS + MOST_WAITING)),
            remembered: Cache::builder()
                .max_capacity(MOST_REMEMBERED)
                .time_to_live(REMEMBERED)
                .build(),
            key: random_key(),
            guesses: Guesses::default(),
            services: Services::default(),
            tokens: Tokens::new(random_key()),
        }))
    }
}

impl Authenticator {
    /// Finds out who sends a request.
    ///
    /// # Errors
    /// Why the request is refused.
    pub(super) async fn authenticate(
        &self,
        access: &Access,
        request: &Request<'_>,
    ) -> Result<Option<Arc<Identity>>, Denial> {
        let user = match &access.basic_auth {
            Some(basic) => Some(self.check_password(basic, request).await?),
            None => None,
        };
        let token = match &access.jwt {
            Some(jwt) => {
                let verified = self.0.tokens.verify(jwt, request).await;
                let accepted = verified.inspect_err(|fault| {
                    self.0.tokens.log_refused(*fault, request);
                });
                Some(accepted.map_err(Refusal::Token)?)
            }
            None => None,
        };
        let granted = match &access.forward_auth {
            Some(service) => Some(Arc::new(self.0.services.ask(service, request).await?)),
            None => None,
        };
        let identity = Identity {
            user,
            token,
            granted,
        };
        Ok((identity != Identity::default()).then(|| Arc::new(identity)))
    }

    async fn check_password(
        &self,
        basic: &BasicAuth,
        request: &Request<'_>,
    ) -> Result<Box<str>, Refusal> {
        let state = &self.0;
        let credentials = Credentials::of(request.fields).ok_or(Refusal::Unauthorized)?;
        let stored = basic.users.get(credentials.user());
        let user = || credentials.user().into();
        let digest = stored.map(|stored| state.digest(stored, &credentials));
        let is_remembered = || digest.is_some_and(|digest| state.remembered.contains_key(&digest));
        if is_remembered() {
            return Ok(user());
        }
        if state.guesses.are_used_up(request.client) {
            return Err(Refusal::TooManyGuesses);
        }
        let waiting = Arc::clone(&state.waiting).try_acquire_owned();
        let waiting = waiting.map_err(|_| Refusal::NoRoom)?;
        let check = timeout(PATIENCE, Arc::clone(&state.checks).acquire_owned()).await;
        let check = check.ok().and_then(Result::ok).ok_or(Refusal::NoRoom)?;
        // Others may have had the same one checked, or used up the guesses.
        if is_remembered() {
            return Ok(user());
        }
        if state.guesses.are_used_up(request.client) {
            return Err(Refusal::TooManyGuesses);
        }
        // A name that nobody has takes as long as one that somebody has.
        let Some(compared) = stored.or_else(|| basic.users.values().next()).cloned() else {
            return Err(Refusal::Unauthorized);
        };
        let check = Check {
            state: Arc::clone(state),
            password: credentials.password().clone(),
            compared,
            digest,
            client: request.client,
            _permits: [waiting, check],
        };
        // Whoever waits for it may be dropped; the check is not.
        match tokio::task::spawn_blocking(move || check.run()).await {
            Ok(true) => Ok(user()),
            Ok(false) | Err(_) => Err(Refusal::Unauthorized),
        }
    }
}

/// A check of a password. It is one of those that are counted until it has ended.
struct Check {
    state: Arc<State>,
    password: Secret,
    compared: PasswordHash,
    /// `None` if nobody has the name.
    digest: Option<[u8; 32]>,
    client: Option<IpAddr>,
    _permits: [OwnedSemaphorePermit; 2],
}

impl Check {
    /// Whether the password is right. Takes as long as the hash demands.
    fn run(self) -> bool {
        let is_right = basic::is_password_of(&self.password, &self.compared);
        match self.digest.filter(|_| is_right) {
            Some(digest) => {
                self.state.remembered.insert(digest, ());
                true
            }
            None => {
                self.state.guesses.count_wrong(self.client);
                false
            }
        }
    }
}

impl State {
    fn digest(&self, stored: &PasswordHash, credentials: &Credentials) -> [u8; 32] {
        let mut digest = Sha256::new();
        for part in [
            &self.key[..],
            stored.expose().as_bytes(),
            b"\0",
            credentials.password().expose().as_bytes(),
        ] {
            digest.update(part);
        }
        digest.finish()
    }
}

/// A key for digests. That it cannot be guessed only matters to somebody who reads the memory.
fn random_key() -> [u8; 32] {
    let mut key = [0; 32];
    _ = openssl::rand::rand_priv_bytes(&mut key);
    key
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use http::header::AUTHORIZATION;
    use http::{HeaderMap, HeaderValue};

    use super::*;
    use crate::proxy::request::Fields;

    fn basic_auth() -> BasicAuth {
        let hash = bcrypt::hash("right", 4).expect("a hash");
        let hash = PasswordHash::Bcrypt(Secret::new(hash));
        BasicAuth {
            challenge: HeaderValue::from_static("Basic"),
            users: HashMap::from([("ann".into(), hash)]),
        }
    }

    async fn check(
        authenticator: &Authenticator,
        basic: &BasicAuth,
        client: &str,
        credentials: &str,
    ) -> Result<String, Refusal> {
        let value = openssl::base64::encode_block(credentials.as_bytes());
        let value = HeaderValue::try_from(format!("Basic {value}")).expect("a value");
        let fields: HeaderMap = [(AUTHORIZATION, value)].into_iter().collect();
        let request = Request {
            method: "GET",
            target: b"/",
            authority: b"a",
            version: "HTTP/1.1",
            fields: Fields::Map(&fields),
            client: client.parse().ok(),
            port: None,
            tls: None,
            socket: None,
            accepted: None,
            relayed: None,
        };
        let checked = authenticator.check_password(basic, &request).await;
        checked.map(String::from)
    }

    #[tokio::test]
    async fn a_right_password_is_remembered_as_long_as_its_hash_is_stored() {
        let authenticator = Authenticator::default();
        let basic = basic_auth();
        let ask = |basic, credentials| check(&authenticator, basic, "192.0.2.1", credentials);
        assert_eq!(ask(&basic, "ann:right").await, Ok("ann".to_owned()));
        assert_eq!(authenticator.0.remembered.iter().count(), 1);
        assert_eq!(ask(&basic, "ann:wrong").await, Err(Refusal::Unauthorized));
        assert_eq!(ask(&basic, "bob:right").await, Err(Refusal::Unauthorized));
        assert_eq!(ask(&basic, "ann:right").await, Ok("ann".to_owned()));
        assert_eq!(authenticator.0.remembered.iter().count(), 1);
        let nobody = BasicAuth {
            users: HashMap::new(),
            ..basic_auth()
        };
        assert_eq!(ask(&nobody, "ann:right").await, Err(Refusal::Unauthorized));
    }

    #[tokio::test]
    async fn a_client_that_guesses_is_refused_without_a_check() {
        let authenticator = Authenticator::default();
        let basic = basic_auth();
        let ask = |client, credentials| check(&authenticator, &basic, client, credentials);
        assert!(ask("2001:db8::1", "ann:right").await.is_ok());
        for _ in 0..guesses::MOST {
            let guessed = ask("2001:db8::2", "ann:wrong").await;
            assert_eq!(guessed, Err(Refusal::Unauthorized));
        }
        let refused = Err(Refusal::TooManyGuesses);
        assert_eq!(ask("2001:db8::3", "ann:other").await, refused);
        assert!(ask("2001:db8::3", "ann:right").await.is_ok(), "remembered");
        assert!(ask("2001:db8:0:1::3", "ann:wrong").await != refused);
    }

    /// Asks until the check has begun, or waits for its turn, and goes away.
    async fn ask_and_leave(authenticator: &Authenticator, basic: &BasicAuth, credentials: &str) {
        tokio::select! {
            biased;
            // A free thread may be done with it by now.
            _ = check(authenticator, basic, "192.0.2.1", credentials) => {}
            () = std::future::ready(()) => {}
        }
    }

    #[test]
    fn a_check_ends_and_counts_even_if_its_client_goes_away() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .max_blocking_threads(1)
            .build()
            .expect("a runtime");
        runtime.block_on(async {
            let authenticator = Authenticator::default();
            let (basic, state) = (basic_auth(), &authenticator.0);
            // Nothing is checked until the thread is free.
            let (release, held) = std::sync::mpsc::channel::<()>();
            let blocked = tokio::task::spawn_blocking(move || held.recv());
            for _ in 0..50 {
                ask_and_leave(&authenticator, &basic, "ann:wrong").await;
            }
            assert_eq!(state.checks.available_permits(), 0);
            assert_eq!(state.waiting.available_permits(), MOST_WAITING);
            release.send(()).expect("somebody waits");
            blocked.await.expect("no panic").expect("released");
            let all = || {
                state
                    .checks
                    .acquire_many(u32::try_from(CHECKS).expect("few"))
            };
            drop(all().await);
            ask_and_leave(&authenticator, &basic, "ann:right").await;
            drop(all().await);
            assert_eq!(state.remembered.iter().count(), 1);
            // Two are counted already.
            for _ in CHECKS..usize::try_from(guesses::MOST).expect("few") {
                ask_and_leave(&authenticator, &basic, "bob:wrong").await;
                drop(all().await);
            }
            let refused = check(&authenticator, &basic, "192.0.2.1", "ann:other").await;
            assert_eq!(refused, Err(Refusal::TooManyGuesses));
        });
    }
}
