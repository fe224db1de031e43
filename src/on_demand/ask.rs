//! Asks whoever decides which names may have a certificate, within limits: a service of the
//! operator's, or the program that embeds the engine.

mod breaker;
mod freshness;
mod service;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;

use self::breaker::Breaker;
use self::service::HttpDecider;
use super::lru::{LruCache, lru_cache};
use super::{Decider, Decision, Undecided};
use crate::clock::{Clock, UnixTime};
use crate::config::model::Ask;
use crate::host::HostName;

/// How many answers are kept; beyond, those that were used last stay.
const ROOM: u64 = 20_000;

/// How many questions may be open at once.
const MAX_OPEN: usize = 32;

/// Asks a [`Decider`], and remembers what it says.
pub(super) struct Asker {
    config: Ask,
    decider: Arc<dyn Decider>,
    /// Whether the decider keeps to the time limit by itself.
    is_timed: bool,
    clock: Arc<dyn Clock>,
    answers: LruCache<HostName, CachedAnswer>,
    breaker: Breaker,
    open: Semaphore,
}

#[derive(Clone, Copy, Debug)]
struct CachedAnswer {
    allowed: bool,
    until: UnixTime,
}

/// What is said of a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    Yes,
    No,
    /// The service cannot say, and why.
    Nothing(String),
}

impl Asker {
    /// Asks the service of `config`, or `own` where it has none.
    ///
    /// # Errors
    /// If nobody can be asked. Says which service is meant.
    pub(super) fn new(
        config: &Ask,
        own: Option<&Arc<dyn Decider>>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, String> {
        let decider: Arc<dyn Decider> = match &config.url {
            Some(url) => Arc::new(HttpDecider::new(url, config)?),
            None => own
                .cloned()
                .ok_or("nobody decides which names are allowed")?,
        };
        Ok(Self {
            config: config.clone(),
            decider,
            is_timed: config.url.is_some(),
            clock,
            answers: lru_cache(ROOM),
            breaker: Breaker::default(),
            open: Semaphore::new(MAX_OPEN),
        })
    }

    pub(super) fn config(&self) -> &Ask {
        &self.config
    }

    /// Who refuses a name that is not allowed, for people.
    pub(super) fn refuser(&self) -> &'static str {
        match self.config.url {
            Some(_) => "the service of 'on_demand.ask' does",
            None => "the decision function does",
        }
    }

    /// What is known of `host` without asking.
    pub(super) fn cached_answer(&self, host: &str) -> Option<bool> {
        let answer = self.answers.get(host)?;
        (self.clock.now() < answer.until).then_some(answer.allowed)
    }

    /// Asks whether `name`, which `client` wants, may have a certificate.
    pub(super) async fn ask_decider(&self, name: &HostName, client: Option<IpAddr>) -> Answer {
        if let Some(allowed) = self.cached_answer(name.as_str()) {
            return if allowed { Answer::Yes } else { Answer::No };
        }
        let place = self.decider.place();
        let Ok(Ok(_permit)) = tokio::time::timeout(self.config.timeout, self.open.acquire()).await
        else {
            return Answer::Nothing(format!("{place} has too many pending requests"));
        };
        if !self.breaker.admits(self.clock.now()) {
            return Answer::Nothing(format!(
                "{place} has not responded recently and will not be asked for a while"
            ));
        }
        match self.decide(name, client).await {
            Ok(decision) => {
                self.breaker.record_success();
                self.remember(name, decision)
            }
            Err(Undecided(why)) => match self.breaker.record_failure(self.clock.now()) {
                Some(seconds) => {
                    Answer::Nothing(format!("{why}; it will not be asked for {seconds} s"))
                }
                None => Answer::Nothing(why),
            },
        }
    }

    async fn decide(&self, name: &HostName, client: Option<IpAddr>) -> Result<Decision, Undecided> {
        let decision = self.decider.decide(name, client);
        if self.is_timed {
            return decision.await;
        }
        let in_time = tokio::time::timeout(self.config.timeout, decision).await;
        in_time.unwrap_or_else(|_| {
            let (place, timeout) = (self.decider.place(), self.config.timeout);
            Err(Undecided(format!(
                "{place}: no response within {timeout:?}"
            )))
        })
    }

    fn remember(&self, name: &HostName, decision: Decision) -> Answer {
        let (allowed, valid_for) = match decision {
            Decision::Allow { valid_for } => (true, valid_for.unwrap_or(self.config.cache_allowed)),
            Decision::Refuse { valid_for } => {
                (false, valid_for.unwrap_or(self.config.cache_refused))
            }
        };
        self.keep_answer(name, allowed, valid_for);
        if allowed { Answer::Yes } else { Answer::No }
    }

    fn keep_answer(&self, name: &HostName, allowed: bool, life: Duration) {
        if life.as_secs() == 0 {
            self.answers.invalidate(name);
            return;
        }
        let until = self.clock.now() + life;
        self.answers
            .insert(name.clone(), CachedAnswer { allowed, until });
    }
}

#[cfg(test)]
mod tests;
