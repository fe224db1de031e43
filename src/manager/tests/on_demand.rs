//! Certificates that clients ask a CA for.

mod expiry;
mod reconfigure;
mod stored;

use std::sync::Arc;
use std::time::Duration;

use super::scripted::{Act, World, network};
use super::*;
use crate::certificate::sni::CertificateSet;
use crate::config::model::{Issuer, OnDemandLimits};
use crate::event::EventKind;
use crate::host::HostName;
use crate::manager::Reason;
use crate::on_demand::{ObtainError, OnDemandIssuer, Requests, list_records, write_uses};
use crate::renewal::RenewalPolicy;
use crate::schedule::{CertState, Failure, FailureClass};

const HOST: &str = "x.shop.example";

type Asked = tokio::task::JoinHandle<Result<Arc<CertificateSet>, ObtainError>>;

fn on_demand() -> OnDemand {
    OnDemand {
        issuers: vec!["ca".into()],
        public: false,
        allow: vec!["*.shop.example".parse().expect("a pattern")],
        ask: None,
        limits: OnDemandLimits {
            max_wait: Duration::from_secs(1),
            max_waiting: 10,
            per_minute: 1000,
            per_domain: None,
            per_client: None,
        },
        unused: Duration::from_secs(30 * 86_400),
    }
}

fn name(host: &str) -> HostName {
    host.parse().expect("a name")
}

impl World {
    /// Without a site, and with certificates on demand.
    fn demanding(script: impl IntoIterator<Item = Act>) -> Self {
        Self::demanding_over(MemoryStorage::default(), NOW, script)
    }

    fn demanding_over(
        storage: MemoryStorage,
        now: UnixTime,
        script: impl IntoIterator<Item = Act>,
    ) -> Self {
        let mut world = Self::over(storage, now, script);
        world.config.sites.clear();
        world.config.on_demand = Some(on_demand());
        world.apply();
        world
    }

    /// A client asks for `host`, and waits.
    fn ask(&self, host: &str) -> Asked {
        let requests: Requests = self.manager.on_demand().requests().clone();
        let host = name(host);
        let asked = self
            .runtime
            .spawn(async move { requests.obtain(&host).await });
        // It is asked for once it is seen, or answered.
        while !self.manager.on_demand().requests().has_new() && !asked.is_finished() {
            std::thread::yield_now();
        }
        asked
    }

    /// Does what the service does for those who wait.
    fn take_up(&mut self) {
        if let Some(batch) = self.manager.take_requests() {
            let looked = batch.run(self.manager.renewals().deps());
            self.manager.apply_lookup(looked);
        }
    }

    /// What comes of asking for `host`.
    fn obtain(&mut self, host: &str) -> Result<Arc<CertificateSet>, ObtainError> {
        let asked = self.ask(host);
        self.take_up();
        self.work();
        self.runtime.block_on(asked).expect("an answer")
    }

    /// All that is stored is read, as after a start.
    fn walk(&mut self) {
        let records = list_records(self.manager.renewals().deps()).expect("readable");
        let batch = self.manager.look_up_records(records);
        let looked = batch.run(self.manager.renewals().deps());
        self.manager.apply_lookup(looked);
    }

    /// What has to go goes. How many names that were.
    fn sweep(&mut self) -> usize {
        let up = self.clock.now().since(UnixTime::default());
        self.sweep_after(up)
    }

    /// The same by a process that has been up so long.
    fn sweep_after(&mut self, up: Duration) -> usize {
        let going = self.manager.on_demand_removals(up);
        let count = going.len();
        let gone = going.into_iter();
        let gone = gone
            .map(|one| one.run(self.manager.renewals().deps()))
            .collect();
        self.manager.finish_on_demand_removals(gone);
        count
    }

    /// These names are used. How many of them are written down.
    fn used(&mut self, hosts: &[&str]) -> usize {
        let names: Vec<_> = hosts.iter().map(|host| name(host)).collect();
        self.manager.on_demand_mut().record_uses(&names);
        let mut written = 0;
        loop {
            let uses = self.manager.on_demand().unwritten_uses();
            let noted = write_uses(self.manager.renewals().deps(), uses);
            self.manager.on_demand_mut().mark_uses_written(&noted);
            if noted.is_empty() {
                return written;
            }
            written += noted.len();
        }
    }

    fn is_served(&self, host: &str) -> bool {
        self.manager.published().load().lookup(host).is_some()
    }

    fn orders(&self) -> usize {
        self.issuer.asked.lock().expect("whole").len()
    }

    fn stored(&self, under: &str) -> Vec<String> {
        let keys = self.storage.list(&under.parse().expect("a key"));
        let keys = keys.expect("readable");
        keys.iter().map(ToString::to_string).collect()
    }

    /// As [`Self::work`], where this is what is said of whether names are wanted.
    fn work_where(&mut self, is_wanted: Option<bool>) -> usize {
        let wanted: Arc<dyn RenewalPolicy> = Arc::new(Says(is_wanted));
        let manager = &mut self.manager;
        let local_certs = &mut manager.local_certs;
        let mut local_ca = |name: &Arc<str>| local_certs.local_ca(name);
        let jobs = manager
            .renewals
            .begin_due_jobs(&mut local_ca, Some(&wanted));
        let count = jobs.len();
        let deps = self.manager.renewals().deps().clone();
        for job in jobs {
            let done = self.runtime.block_on(job.run(&deps));
            self.manager.apply_job_results([done]);
        }
        count
    }
}

/// Says of each name whether it is wanted.
struct Says(Option<bool>);

#[async_trait::async_trait]
impl RenewalPolicy for Says {
    async fn still_allows(&self, _: &HostName) -> Option<bool> {
        self.0
    }
}

fn refused() -> Act {
    Act::Fail(Failure::new(FailureClass::Validation, "nobody is there"))
}

/// A pass between a question and its answer from the storage, as at the start.
#[test]
fn a_pass_tells_nobody_of_a_name_that_is_looked_up() {
    let mut world = World::demanding([]);
    let asked = world.ask(HOST);
    let batch = world
        .manager
        .take_requests()
        .expect("a name to be looked up");
    assert!(world.manager.due_jobs().is_empty());
    let looked = batch.run(world.manager.renewals().deps());
    assert!(world.manager.due_jobs().is_empty());
    assert!(!asked.is_finished(), "it waits still");
    world.manager.apply_lookup(looked);
    world.work();
    let obtained = world.runtime.block_on(asked).expect("an answer");
    obtained.expect("a certificate");

    // Where it is given up, the next pass does tell.
    let asked = world.ask("y.shop.example");
    drop(
        world
            .manager
            .take_requests()
            .expect("a name to be looked up"),
    );
    assert!(world.manager.due_jobs().is_empty());
    let refused = world.runtime.block_on(asked).expect("an answer");
    assert!(refused.is_err());
}

#[test]
fn what_a_client_asks_for_is_obtained_served_and_noted() {
    let mut world = World::demanding([]);
    let set = world.obtain(HOST).expect("obtained");
    assert!(set.covers(HOST) && world.is_served(HOST));
    assert_eq!(world.stored("on_demand"), ["on_demand/x.shop.example.json"]);
    assert!(world.manager.renewals().views()[0].is_on_demand);
    assert_eq!(world.obtain(HOST).map(|_| ()), Ok(()), "it is in memory");
    assert_eq!(world.orders(), 1);
    let report = world.manager.tick();
    assert!(report.missing.is_empty(), "{report:?}");
    assert_eq!(
        world.manager.renewals().startup_status(),
        StartupStatus::Complete
    );
}

#[test]
fn many_who_ask_at_once_wait_for_one_order() {
    let mut world = World::demanding([]);
    let asked: Vec<_> = (0..5).map(|_| world.ask(HOST)).collect();
    world.take_up();
    assert_eq!(world.work(), 1);
    for asked in asked {
        // Those that came late find it in memory.
        world.take_up();
        let set = world.runtime.block_on(asked).expect("an answer");
        assert!(set.is_ok(), "{set:?}");
    }
    assert_eq!(world.orders(), 1);
}

#[test]
fn after_a_restart_it_is_served_without_an_order_by_a_walk_or_when_asked_for() {
    let mut world = World::demanding([]);
    world.obtain(HOST).expect("obtained");
    let mut walked = World::demanding_over(world.storage.clone(), NOW + DAY, []);
    assert!(!walked.is_served(HOST));
    walked.walk();
    assert!(walked.is_served(HOST));
    let mut asked = World::demanding_over(world.storage.clone(), NOW + DAY, []);
    asked.obtain(HOST).expect("it is stored");
    assert_eq!((walked.orders(), asked.orders()), (0, 0));
    assert_eq!(walked.work() + asked.work(), 0);
}

#[test]
fn who_would_be_asked_on_demand_is_told() {
    let mut world = World::demanding([]);
    let mut why = |pattern: &str| {
        let would = world.manager.plan_issuance(&pattern.parse().expect("one"));
        (would.why, would.issuers.len())
    };
    assert_eq!(why(HOST), (Reason::OnDemand, 1));
    assert_eq!(why("a.other.example").0, Reason::Nothing);
    assert_eq!(
        why("*.shop.example").0,
        Reason::Nothing,
        "no client names it"
    );
}

#[test]
fn a_failure_of_the_name_is_remembered_over_a_restart_and_not_tried_by_itself() {
    let mut world = World::demanding([refused()]);
    let not_made = world.obtain(HOST).expect_err("refused");
    assert!(not_made.why.contains("nobody is there"), "{not_made:?}");
    assert!(not_made.retry_after.is_some());
    assert!(
        world.manager.renewals().views().is_empty(),
        "nothing is kept of it"
    );

    let mut next = World::demanding_over(world.storage.clone(), NOW + 10, []);
    next.walk();
    let not_made = next.obtain(HOST).expect_err("too soon");
    assert!(not_made.why.contains("nobody is there"), "{not_made:?}");
    next.clock.advance(DAY);
    assert_eq!(next.work(), 0);
    assert_eq!(next.orders(), 0);
    next.obtain(HOST).expect("its time has come");
    assert_eq!(next.orders(), 1);
}

#[test]
fn a_failure_of_the_day_is_told_and_the_certificate_comes_later() {
    let mut world = World::demanding([network()]);
    let not_made = world.obtain(HOST).expect_err("away");
    assert!(not_made.why.contains("the CA is away"), "{not_made:?}");
    let again = world.obtain(HOST).expect_err("not yet");
    assert_eq!(world.orders(), 1, "{again:?}");
    world.clock.advance(120);
    assert_eq!(world.work(), 1);
    assert!(world.is_served(HOST));
}

#[test]
fn a_name_that_failed_is_given_up_a_day_after_it_was_last_asked_for() {
    let mut world = World::demanding((0..100).map(|_| network()));
    world.obtain(HOST).expect_err("away");
    world.clock.advance(DAY / 2);
    world.sweep();
    assert_eq!(world.manager.renewals().views().len(), 1);
    world.work();
    world.clock.advance(DAY);
    world.work();
    world.sweep();
    assert!(world.manager.renewals().views().is_empty());
}

#[test]
fn a_limit_of_the_ca_is_told_to_those_who_wait() {
    let mut world = World::demanding([]);
    world.issuer.limit(Some(NOW + 3600));
    let not_made = world.obtain(HOST).expect_err("limited");
    assert!(not_made.why.contains("too many"), "{not_made:?}");
    assert_eq!(not_made.retry_after, Some(Duration::from_secs(3600)));
    world.issuer.limit(None);
    world.clock.advance(3601);
    assert_eq!(world.work(), 1);
    assert!(world.is_served(HOST));
}

#[test]
fn what_the_configuration_asks_for_comes_first() {
    let mut world = World::demanding([]);
    let hosts: Vec<_> = (0..40)
        .map(|number| format!("{number}.shop.example"))
        .collect();
    for host in &hosts {
        // Nobody needs to wait for what comes.
        drop(world.ask(host));
        world.take_up();
    }
    world.config.sites = vec![Arc::new(site(
        &["a.example"],
        SiteTls::Auto(vec!["ca".into()]),
    ))];
    world.apply();
    let begun = world.work();
    assert!(begun <= 17, "{begun} at a time");
    let first = world.issuer.asked.lock().expect("whole").first().cloned();
    assert_eq!(first, Some(vec!["a.example".to_owned()]));
    while world.work() > 0 {}
    assert!(hosts.iter().all(|host| world.is_served(host)));
}

#[test]
fn nothing_is_asked_for_while_the_storage_cannot_be_read() {
    let mut world = World::demanding([]);
    world
        .storage
        .set_failure(Some(std::io::ErrorKind::PermissionDenied));
    let not_made = world.obtain(HOST).expect_err("no storage");
    assert!(not_made.retry_after.is_some(), "{not_made:?}");
    assert_eq!(world.orders(), 0);
    world.storage.set_failure(None);
    world.obtain(HOST).expect("obtained");
}
