//! Waiting until a CA may be asked: our own pace, and what the CA has told us not to do for now.
//!
//! [`Limiter`] decides; this waits, and keeps what CAs have said in the storage, for later starts
//! and other instances. Each account at each CA has its own line.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::blocking;
use super::ca::Ca;
use crate::clock::Clock;
use crate::config::model::Acme;
use crate::host::Pattern;
use crate::schedule::{Failure, FailureClass, Hold, Limiter, Pace, Wait};
use crate::storage::{Storage, StorageError, Value, keys};

/// The limits of all accounts that this process uses.
pub(super) struct Limits {
    storage: Arc<dyn Storage>,
    clock: Arc<dyn Clock>,
    lines: Mutex<HashMap<(String, String), Arc<Line>>>,
}

/// Where those wait who want something of one account.
#[derive(Default)]
struct Line {
    /// Held by the first in the line.
    first: tokio::sync::Mutex<()>,
    limiter: Mutex<Limiter>,
}

impl Limits {
    pub(super) fn new(storage: Arc<dyn Storage>, clock: Arc<dyn Clock>) -> Self {
        Self {
            storage,
            clock,
            lines: Mutex::default(),
        }
    }

    /// Waits until an order with these names may be made, and counts it; `tell` is told where it
    /// has to wait.
    ///
    /// # Errors
    /// Where the CA has said not to ask for so long that nobody waits for it.
    pub(super) async fn turn(
        &self,
        ca: &Ca,
        config: &Acme,
        names: &[Pattern],
        tell: impl FnOnce(&Wait),
    ) -> Result<(), Failure> {
        let line = self.line(ca, config);
        if let Ok(Some(stored)) = self.load(&ca.key, contact(config)).await {
            lock(&line.limiter).learn(&stored);
        }
        let mut tell = Some(tell);
        // Who will not be let through does not stand in the line.
        match lock(&line.limiter).check(names, self.clock.now()) {
            Err(wait) if wait.hold != Hold::Pace => return Err(limited(&ca.host, &wait)),
            Err(wait) => {
                if let Some(tell) = tell.take() {
                    tell(&wait);
                }
            }
            Ok(()) => {}
        }
        let _first = line.first.lock().await;
        loop {
            let now = self.clock.now();
            let taken = lock(&line.limiter).take(names, now);
            match taken {
                Ok(()) => return Ok(()),
                Err(wait) if wait.hold != Hold::Pace => return Err(limited(&ca.host, &wait)),
                Err(wait) => {
                    let seconds = u64::try_from(wait.until.saturating_sub(now)).unwrap_or_default();
                    if let Some(tell) = tell.take() {
                        tell(&wait);
                    }
                    // Seconds of the clock begin when they like.
                    tokio::time::sleep(Duration::from_secs(seconds.clamp(1, 60))).await;
                }
            }
        }
    }

    /// Learns from what a CA has said.
    pub(super) async fn learn(&self, ca: &Ca, config: &Acme, failure: &Failure) {
        let line = self.line(ca, config);
        let now = self.clock.now();
        let limiter = {
            let mut limiter = lock(&line.limiter);
            if !limiter.failed(failure, now) {
                return;
            }
            limiter.clone()
        };
        let (key, contact) = (ca.key.clone(), contact(config).to_owned());
        let stored = blocking(&self.storage, move |storage| {
            let place = keys::limits(&key)?;
            let mut all = read(storage.load(&place)?.as_ref());
            all.entry(contact).or_default().learn(&limiter);
            let value = serde_json::to_vec_pretty(&all).unwrap_or_default();
            storage.store(&place, &value)
        });
        if let Err(error) = stored.await {
            // It is known here, and that it is not stored is told by whoever stores certificates.
            tracing::warn!(ca = ca.host, %error, "a limit of a CA is not stored");
        }
    }

    fn line(&self, ca: &Ca, config: &Acme) -> Arc<Line> {
        let mut lines = lock(&self.lines);
        let key = (ca.key.clone(), contact(config).to_owned());
        let line = Arc::clone(lines.entry(key).or_default());
        let limit = config.order_limit;
        lock(&line.limiter).set_paces(vec![Pace {
            orders: limit.orders,
            seconds: u32::try_from(limit.per.as_secs()).unwrap_or(u32::MAX),
        }]);
        line
    }

    async fn load(&self, ca: &str, contact: &str) -> Result<Option<Limiter>, StorageError> {
        let (place, contact) = (keys::limits(ca)?, contact.to_owned());
        blocking(&self.storage, move |storage| {
            let value = storage.load(&place)?;
            Ok(read(value.as_ref()).remove(&contact))
        })
        .await
    }
}

/// What is stored; nothing where it cannot be read.
fn read(value: Option<&Value>) -> BTreeMap<String, Limiter> {
    value
        .and_then(|value| serde_json::from_slice(value).ok())
        .unwrap_or_default()
}

fn contact(config: &Acme) -> &str {
    config.email.as_deref().unwrap_or("default")
}

fn limited(host: &str, wait: &Wait) -> Failure {
    let message = format!("{host} is not asked: {wait}");
    let mut failure = Failure::new(FailureClass::RateLimited, message);
    failure.retry_after = Some(wait.until);
    if let Hold::Domain(domain, _) = &wait.hold {
        failure.scope = Some(domain.clone());
    }
    failure
}

/// Each critical section here leaves what it changes whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
