//! Certificates on demand, as a program describes them.

use std::sync::Arc;
use std::time::Duration;

use super::EngineBuilder;
use super::values::{duration, secret, texts};
use crate::config::schema;
use crate::host::HostName;
use crate::on_demand::{Decider, IntoDecision, decide_with};

/// Certificates that are obtained when a client first asks for a name: which names may have one, and
/// how many strangers can cause. The limits are those of the gateway.
///
/// ```
/// use snigate::OnDemand;
///
/// let on_demand = OnDemand::decide(|name| async move { name.as_str().ends_with(".example.com") })
///     .max_wait(std::time::Duration::from_secs(10));
/// ```
#[must_use]
pub struct OnDemand {
    raw: schema::OnDemand,
    decider: Option<Arc<dyn Decider>>,
    mistakes: Vec<String>,
}

impl OnDemand {
    /// `decide` says whether a name may have a certificate: `bool` or a
    /// [`Decision`](crate::on_demand::Decision), or either in a `Result` whose error says why it
    /// cannot be decided now. It is called once for all clients that wait for a name, and again
    /// before a renewal.
    pub fn decide<F, R, D>(decide: F) -> Self
    where
        F: Fn(HostName) -> R + Send + Sync + 'static,
        R: Future<Output = D> + Send + 'static,
        D: IntoDecision + 'static,
    {
        Self::decided_by(decide_with(decide))
    }

    /// As [`Self::decide`], by a [`Decider`], which learns the client's address too.
    pub fn decided_by(decider: Arc<dyn Decider>) -> Self {
        Self {
            raw: schema::OnDemand {
                ask: Some(schema::Ask::Service(schema::AskService {
                    is_own: true,
                    ..schema::AskService::default()
                })),
                ..schema::OnDemand::default()
            },
            decider: Some(decider),
            mistakes: Vec::new(),
        }
    }

    /// A service decides, by its response to a request for `url` with `?domain=NAME&client=ADDRESS`:
    /// 2xx allows the name, 4xx refuses it.
    pub fn ask(url: &str) -> Self {
        Self {
            raw: schema::OnDemand {
                ask: Some(schema::Ask::Service(schema::AskService {
                    url: Some(secret(url)),
                    ..schema::AskService::default()
                })),
                ..schema::OnDemand::default()
            },
            decider: None,
            mistakes: Vec::new(),
        }
    }

    /// Names that are covered by these host names and wildcards may have a certificate.
    pub fn names<N: AsRef<str>>(names: impl IntoIterator<Item = N>) -> Self {
        let on_demand = Self {
            raw: schema::OnDemand::default(),
            decider: None,
            mistakes: Vec::new(),
        };
        on_demand.allow(names)
    }

    /// Only decides about names that are covered by these host names and wildcards. All others are
    /// refused at once.
    pub fn allow<N: AsRef<str>>(mut self, names: impl IntoIterator<Item = N>) -> Self {
        self.raw.allow = Some(texts(names));
        self
    }

    /// Asks these issuers, by their names in the builder: the next one if one fails. By default the
    /// first issuer of the builder alone.
    pub fn issuers<N: AsRef<str>>(mut self, names: impl IntoIterator<Item = N>) -> Self {
        self.raw.issuer = Some(schema::Names::Several(texts(names)));
        self
    }

    /// How long a decision may take (5 s by default), and for how long an allowed (1 h) and a refused
    /// name (5 min) is remembered if the decision does not say so.
    pub fn decision_times(
        mut self,
        timeout: Duration,
        allowed: Duration,
        refused: Duration,
    ) -> Self {
        if let Some(schema::Ask::Service(service)) = &mut self.raw.ask {
            service.timeout = duration(timeout);
            service.cache_allowed = duration(allowed);
            service.cache_refused = duration(refused);
        } else {
            self.mistakes.push(
                "on_demand: a list of names takes no decisions, so they have no times; remove \
                 'decision_times', or use 'decide' or 'ask' instead of 'names'"
                    .to_owned(),
            );
        }
        self
    }

    /// How long a handshake waits for its certificate: 20 s by default.
    pub fn max_wait(mut self, wait: Duration) -> Self {
        self.raw.limits.max_wait = duration(wait);
        self
    }

    /// How many handshakes may wait: 1024 by default.
    pub fn max_waiting(mut self, handshakes: u32) -> Self {
        self.raw.limits.max_waiting = handshakes.into();
        self
    }

    /// How many new names may be worked on per minute: by default 10 with a CA, 6000 with the local
    /// CA.
    pub fn per_minute(mut self, names: u32) -> Self {
        self.raw.limits.per_minute = Some(names.into());
        self
    }

    /// How many new names of one registered domain may be worked on in which time: by default 50 in
    /// 1 h with a CA, and any number with the local CA.
    pub fn per_domain(mut self, names: u32, per: Duration) -> Self {
        self.raw.limits.per_domain = Some(quota(names, per));
        self
    }

    /// How many new names the clients of one network (IPv4 /24, IPv6 /56) may ask for in which time:
    /// by default 20 in 1 h with a CA, and any number with the local CA. Only for handshakes whose
    /// client is known, which the program says with [`Handshake`](crate::tls::Handshake).
    pub fn per_client(mut self, names: u32, per: Duration) -> Self {
        self.raw.limits.per_client = Some(quota(names, per));
        self
    }

    /// After what time without a handshake a name is dropped and not renewed: 30 d by default.
    pub fn unused_after(mut self, time: Duration) -> Self {
        self.raw.unused = duration(time);
        self
    }

    /// Adds it to what `builder` has.
    pub(super) fn add_to(self, builder: &mut EngineBuilder) {
        builder.raw.on_demand = Some(self.raw);
        builder.own.decider = self.decider;
        builder.mistakes.extend(self.mistakes);
    }
}

fn quota(names: u32, per: Duration) -> schema::NameLimit {
    schema::NameLimit::Names(schema::NameQuota {
        names: names.into(),
        per: duration(per),
    })
}
