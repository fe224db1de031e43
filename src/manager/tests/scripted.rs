//! A scripted CA, and a manager that asks it.

use std::collections::VecDeque;
use std::sync::Mutex;

use async_trait::async_trait;
use zeroize::Zeroizing;

use super::*;
use crate::config::model::{Acme, InMemory};
use crate::event::{EventKind, Severity};
use crate::host::Pattern;
use crate::issuer::{Issued, Request, Revocation, RevocationReason};
use crate::schedule::{
    CertState, Failure, FailureClass, Intent, RenewalInfo, Scope, Wait, WaitReason,
};

/// What the CA does next.
pub(super) enum Act {
    /// Issues a certificate that lasts so many seconds from now.
    Issue(i64),
    /// Issues one for other names.
    Wrong,
    Fail(Failure),
}

/// A CA that follows a script, and issues for 90 days once that is over.
pub(super) struct Scripted {
    pub(super) name: Arc<str>,
    pub(super) ca: TestCa,
    pub(super) clock: Arc<ManualClock>,
    pub(super) script: Mutex<VecDeque<Act>>,
    pub(super) asked: Mutex<Vec<Vec<String>>>,
    pub(super) settled: Mutex<usize>,
    /// What it says about when to renew, and how it knew the certificates it was asked about.
    pub(super) info: Mutex<Result<Option<RenewalInfo>, Failure>>,
    pub(super) asked_about: Mutex<Vec<String>>,
    /// What each order was to replace.
    pub(super) replaced: Mutex<Vec<Option<String>>>,
    pub(super) revoked: Mutex<Vec<RevocationReason>>,
    /// Whether it issues for the key of the first certificate again.
    pub(super) repeats: Mutex<bool>,
    /// Whether the key before was offered, each time.
    pub(super) previous: Mutex<Vec<bool>>,
    first: Mutex<Option<(String, Vec<u8>)>>,
    pub(super) moved: Mutex<bool>,
    /// With the names that it is on, none for all.
    limit: Mutex<Option<(Wait, Vec<String>)>>,
}

impl Scripted {
    /// Limits the account until then; renewals that name what they replace are exempt.
    pub(super) fn limit(&self, until: Option<UnixTime>) {
        let reason = WaitReason::Limit(Scope::Account, "too many".to_owned());
        let limit = until.map(|until| (Wait { until, reason }, Vec::new()));
        *self.limit.lock().expect("whole") = limit;
    }

    /// Limits a set of one name until then.
    pub(super) fn limit_set(&self, name: &str, until: UnixTime) {
        let reason = WaitReason::Limit(Scope::Set, "too many of this exact set".to_owned());
        let limit = (Wait { until, reason }, vec![name.to_owned()]);
        *self.limit.lock().expect("whole") = Some(limit);
    }

    /// Continues as another CA.
    pub(super) fn move_to_another(&self) {
        *self.moved.lock().expect("whole") = true;
    }
}

#[async_trait]
impl crate::issuer::Issuer for Scripted {
    fn name(&self) -> &Arc<str> {
        &self.name
    }

    fn ca(&self) -> &str {
        match &*self.name {
            "ca" if *self.moved.lock().expect("whole") => "other.test",
            "ca" => "ca.test",
            other => other,
        }
    }

    async fn issue(&self, request: &Request) -> Result<Issued, Failure> {
        let names: Vec<_> = request.names.iter().map(ToString::to_string).collect();
        self.asked.lock().expect("whole").push(names.clone());
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let replaces = request.replaces.clone();
        self.replaced.lock().expect("whole").push(replaces);
        let now = self.clock.now();
        let previous = request.previous_key.is_some();
        self.previous.lock().expect("whole").push(previous);
        let mut first = self.first.lock().expect("whole");
        if let Some((key, chain)) = first
            .as_ref()
            .filter(|_| *self.repeats.lock().expect("whole"))
        {
            return Ok(Issued {
                chain: chain.clone(),
                key: Zeroizing::new(key.clone().into_bytes()),
            });
        }
        let mut issue = |names: &[&str], life| {
            let leaf = self.ca.leaf_at(names, now - 60, now + life);
            let chain = self.ca.chain(&leaf).into_bytes();
            first.get_or_insert_with(|| (leaf.key.clone(), chain.clone()));
            Issued {
                chain,
                key: Zeroizing::new(leaf.key.into_bytes()),
            }
        };
        match self.script.lock().expect("whole").pop_front() {
            None => Ok(issue(&names, 90 * DAY)),
            Some(Act::Issue(life)) => Ok(issue(&names, life)),
            Some(Act::Wrong) => Ok(issue(&["other.example"], 90 * DAY)),
            Some(Act::Fail(failure)) => Err(failure),
        }
    }

    async fn renewal_info(
        &self,
        certificate: &TlsCertificate,
    ) -> Result<Option<RenewalInfo>, Failure> {
        let id = certificate.renewal_id().expect("an id");
        self.asked_about.lock().expect("whole").push(id);
        self.info.lock().expect("whole").clone()
    }

    fn ready(&self, intent: &Intent<'_>) -> Result<(), Wait> {
        self.held(intent).map_or(Ok(()), Err)
    }

    fn held(&self, intent: &Intent<'_>) -> Option<Wait> {
        let limit = self.limit.lock().expect("whole").clone();
        limit
            .filter(|(wait, names)| {
                let is_on = |name: &Pattern| names.contains(&name.to_string());
                let is_of_all = names.is_empty();
                wait.until > self.clock.now()
                    && !intent.replaces
                    && (is_of_all || intent.names.iter().any(is_on))
            })
            .map(|(wait, _)| wait)
    }

    async fn on_stored(&self, _: &Request) {
        *self.settled.lock().expect("whole") += 1;
    }

    async fn revoke(&self, revocation: &Revocation) -> Result<(), Failure> {
        let mut revoked = self.revoked.lock().expect("whole");
        revoked.push(revocation.reason);
        Ok(())
    }
}

/// A manager with one CA, `ca`, over a storage that may hold something.
pub(super) struct World {
    pub(super) clock: Arc<ManualClock>,
    pub(super) storage: MemoryStorage,
    pub(super) issuer: Arc<Scripted>,
    /// Another CA, `second`, which issues to all who ask.
    pub(super) second: Arc<Scripted>,
    pub(super) events: EventBus,
    pub(super) manager: TlsManager,
    pub(super) config: Config,
    pub(super) runtime: tokio::runtime::Runtime,
}

impl World {
    pub(super) fn new(script: impl IntoIterator<Item = Act>) -> Self {
        Self::over(MemoryStorage::default(), NOW, script)
    }

    pub(super) fn over(
        storage: MemoryStorage,
        now: UnixTime,
        script: impl IntoIterator<Item = Act>,
    ) -> Self {
        let clock = Arc::new(ManualClock::at(now));
        let scripted = |name: &str, script: VecDeque<Act>| {
            Arc::new(Scripted {
                name: name.into(),
                ca: TestCa::new("scripted"),
                clock: Arc::clone(&clock),
                script: Mutex::new(script),
                asked: Mutex::default(),
                settled: Mutex::default(),
                info: Mutex::new(Ok(None)),
                asked_about: Mutex::default(),
                replaced: Mutex::default(),
                revoked: Mutex::default(),
                repeats: Mutex::default(),
                previous: Mutex::default(),
                first: Mutex::default(),
                moved: Mutex::default(),
                limit: Mutex::default(),
            })
        };
        let issuer = scripted("ca", script.into_iter().collect());
        let second = scripted("second", VecDeque::new());
        let events = EventBus::default();
        let of_manager = (Arc::clone(&issuer), Arc::clone(&second));
        let manager = TlsManager::new(Setup {
            published: Arc::default(),
            storage: Arc::new(storage.clone()),
            pending_writes: PendingWrites::default(),
            clock: clock.clone(),
            metrics: None,
            events: events.clone(),
            in_memory: InMemory::All,
            index: None,
            make_issuer: Box::new(move |name, _| match &**name {
                "nobody" => Arc::new(NullIssuer::new(name)),
                "second" => of_manager.1.clone(),
                _ => of_manager.0.clone(),
            }),
            dns: None,
            decider: None,
        });
        let mut acme = Acme::sample("https://ca.test/directory");
        let sites = vec![site(&["a.example"], SiteTls::Auto(vec!["ca".into()]))];
        let mut config = config(Vec::new(), sites);
        config
            .issuers
            .insert("ca".into(), Issuer::Acme(Arc::new(acme.clone())));
        acme.directory = "https://second.test/directory".to_owned();
        config
            .issuers
            .insert("second".into(), Issuer::Acme(Arc::new(acme)));
        Self {
            clock,
            storage,
            issuer,
            second,
            events,
            manager: manager.expect("a manager"),
            config,
            runtime: tokio::runtime::Runtime::new().expect("a runtime"),
        }
    }

    pub(super) fn apply(&mut self) -> Report {
        self.manager.apply(&self.config)
    }

    /// Works on all that is due, and returns how much that was.
    pub(super) fn work(&mut self) -> usize {
        self.manager.renewals().deps().flush_pending_writes();
        let jobs = self.manager.due_jobs();
        let count = jobs.len();
        let deps = self.manager.renewals().deps().clone();
        let done = self.runtime.block_on(async {
            let mut done = Vec::new();
            for job in jobs {
                done.push(job.run(&deps).await);
            }
            done
        });
        self.manager.apply_job_results(done);
        count
    }

    /// Asks the CA of all whose time it is when to renew them, and returns how many those are.
    pub(super) fn inquire(&mut self) -> usize {
        let ari_queries = self.manager.renewals_mut().ari_queries(100);
        let count = ari_queries.len();
        let deps = self.manager.renewals().deps().clone();
        for inquiry in ari_queries {
            let answer = self.runtime.block_on(inquiry.run(&deps));
            self.manager.renewals_mut().apply_ari_result(answer);
        }
        count
    }

    /// The certificate that is served, as its CA knows it.
    pub(super) fn id(&self) -> Option<String> {
        self.manager.renewals().views()[0]
            .certificate
            .as_ref()?
            .renewal_id()
    }

    pub(super) fn serial(&self) -> Option<String> {
        let map = self.manager.published().load();
        map.lookup("a.example")
            .map(|set| set.by_kind[0].describe().serial)
    }

    pub(super) fn told(&self) -> Vec<(EventKind, Severity)> {
        let recent = self.events.recent();
        recent
            .iter()
            .map(|event| (event.kind, event.severity))
            .collect()
    }

    pub(super) fn state(&self) -> CertState {
        self.manager.renewals().views()[0].state
    }
}

pub(super) fn refused() -> Act {
    let why = "the CA does not issue for it; choose another CA";
    Act::Fail(Failure::new(FailureClass::Refused, why))
}

pub(super) fn network() -> Act {
    Act::Fail(Failure::new(FailureClass::Network, "the CA is away"))
}
