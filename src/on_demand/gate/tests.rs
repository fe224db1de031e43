//! The gate before a scripted maker.

use crate::clock::unix;
use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tokio::sync::Semaphore;

use super::*;
use crate::certificate::testing::TestCa;
use crate::certificate::{Loader, Source};
use crate::clock::ManualClock;
use crate::config::model::NameQuota;
use crate::on_demand::tests::{config, with_ask};
use crate::on_demand::{ObtainError, decide_with};

/// Makes one and the same certificate for every name.
struct Scripted {
    set: Arc<CertificateSet>,
    made: Mutex<HashMap<HostName, Arc<CertificateSet>>>,
    asked: AtomicUsize,
    failing: AtomicBool,
    /// Whether it fails before it has begun.
    idle: AtomicBool,
    due: AtomicBool,
    /// Whether it has had all names before.
    knowing: AtomicBool,
    /// What each work takes.
    leave: Semaphore,
}

impl Scripted {
    fn new() -> Arc<Self> {
        let leaf = TestCa::new("gate").leaf(&["a.example"]);
        let pem = format!("{}{}", leaf.certificate, leaf.key);
        let loader = Loader::new().expect("a loader");
        let loaded = loader.load(pem.as_bytes(), Source::File("test".into()));
        let certificate = Arc::new(loaded.expect("a certificate").certificate);
        Arc::new(Self {
            set: Arc::new(CertificateSet::single(certificate)),
            made: Mutex::default(),
            asked: AtomicUsize::new(0),
            failing: AtomicBool::new(false),
            idle: AtomicBool::new(false),
            due: AtomicBool::new(false),
            knowing: AtomicBool::new(false),
            leave: Semaphore::new(100_000),
        })
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

#[async_trait]
impl OnDemandIssuer for Scripted {
    fn cached(&self, name: &HostName) -> Option<Arc<CertificateSet>> {
        self.made.lock().expect("whole").get(name).cloned()
    }

    async fn obtain(&self, name: &HostName) -> Result<Arc<CertificateSet>, ObtainError> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        self.leave.acquire().await.expect("open").forget();
        if self.failing.load(Ordering::SeqCst) {
            return Err(ObtainError {
                why: "told so".to_owned(),
                retry_after: None,
                is_begun: !self.idle.load(Ordering::SeqCst),
            });
        }
        self.due.store(false, Ordering::SeqCst);
        let mut made = self.made.lock().expect("whole");
        made.insert(name.clone(), Arc::clone(&self.set));
        Ok(Arc::clone(&self.set))
    }

    async fn has_stored(&self, _: &HostName) -> bool {
        self.knowing.load(Ordering::SeqCst)
    }

    fn is_due(&self, _: &CertificateSet) -> bool {
        self.due.load(Ordering::SeqCst)
    }
}

struct Fixture {
    clock: Arc<ManualClock>,
    issuer: Arc<Scripted>,
    metrics: Metrics,
    gate: Arc<Gate>,
}

impl Fixture {
    fn new(config: &model::OnDemand) -> Self {
        let clock = Arc::new(ManualClock::at(unix(1000)));
        let (issuer, metrics) = (Scripted::new(), Metrics::new().expect("metrics"));
        let setup = GateSettings {
            config,
            issuer: issuer.clone(),
            decider: None,
            requests: &Arc::default(),
            clock: clock.clone(),
            metrics: Some(&metrics),
        };
        let gate = Arc::new(Gate::new(setup, None).expect("a gate"));
        Self {
            clock,
            issuer,
            metrics,
            gate,
        }
    }

    fn reload(&mut self, config: &model::OnDemand) {
        let setup = GateSettings {
            config,
            issuer: self.issuer.clone(),
            decider: None,
            requests: &Arc::default(),
            clock: self.clock.clone(),
            metrics: Some(&self.metrics),
        };
        self.gate = Arc::new(Gate::new(setup, Some(&self.gate)).expect("a gate"));
    }

    async fn get(&self, host: &str) -> bool {
        self.get_for(host, "192.0.2.1").await
    }

    async fn get_for(&self, host: &str, client: &str) -> bool {
        let client = client.parse().ok();
        self.gate.certificate(host, client).await.is_some()
    }

    fn counted(&self, result: &str) -> u64 {
        self.metrics.on_demand.with_label_values(&[result]).get()
    }
}

#[tokio::test]
async fn the_policy_decides() {
    let fixture = Fixture::new(&config(&["*.customers.example", "intranet"]));
    for host in ["a.customers.example", "intranet"] {
        assert!(
            fixture.gate.allows(host) && fixture.get(host).await,
            "{host}"
        );
    }
    for host in [
        "customers.example",
        "a.b.customers.example",
        "other",
        "192.0.2.1",
        "::1",
    ] {
        assert!(
            !fixture.gate.allows(host) && !fixture.get(host).await,
            "{host}"
        );
    }
    assert_eq!(fixture.issuer.asked(), 2);
    let any = Fixture::new(&config(&["*"]));
    assert!(any.get("a.example").await && !any.get("single").await);
    assert!(!any.get("192.0.2.1").await && !any.get("www.www.a.example").await);
    assert_eq!((any.counted("made"), any.counted("held")), (1, 1));
}

#[tokio::test]
async fn a_function_of_the_program_decides() {
    let mut fixture = Fixture::new(&config(&["*"]));
    let decider = decide_with(|name| async move {
        match name.as_str() {
            "a.example" => Ok(true),
            "away.example" => Err("the database is away"),
            _ => Ok(false),
        }
    });
    let mut config = with_ask(&["*"], "http://unused.example/");
    config.ask.as_mut().expect("given").url = None;
    let setup = GateSettings {
        config: &config,
        issuer: fixture.issuer.clone(),
        decider: Some(decider),
        requests: &Arc::default(),
        clock: fixture.clock.clone(),
        metrics: Some(&fixture.metrics),
    };
    fixture.gate = Arc::new(Gate::new(setup, None).expect("a gate"));
    assert!(fixture.get("a.example").await);
    assert!(!fixture.get("b.example").await && !fixture.get("away.example").await);
    assert_eq!(fixture.issuer.asked(), 1);
    let still = async |host: &str| {
        let name = host.parse().expect("a name");
        fixture.gate.still_allows(&name).await
    };
    assert_eq!(still("a.example").await, Some(true));
    assert_eq!(still("b.example").await, Some(false));
    assert_eq!(still("away.example").await, None);
    fixture
        .gate
        .0
        .negative_cache
        .forget_name(&"b.example".parse().expect("a name"));
    assert!(
        !OnDemand::allows(&*fixture.gate, "b.example"),
        "it is remembered"
    );
}

#[tokio::test]
async fn one_work_is_for_all_who_wait() {
    let fixture = Fixture::new(&config(&["*"]));
    fixture.issuer.leave.forget_permits(100_000);
    let waiting: Vec<_> = (0..50)
        .map(|_| {
            let gate = Arc::clone(&fixture.gate);
            tokio::spawn(async move { gate.certificate("a.example", None).await })
        })
        .collect();
    while fixture.metrics.on_demand_waiting.get() < 50 {
        tokio::task::yield_now().await;
    }
    fixture.issuer.leave.add_permits(1);
    for one in waiting {
        let set = one.await.expect("no panic").expect("made");
        assert!(Arc::ptr_eq(&set, &fixture.issuer.set));
    }
    assert_eq!((fixture.issuer.asked(), fixture.counted("made")), (1, 1));
    assert_eq!(fixture.metrics.on_demand_waiting.get(), 0);
}

#[tokio::test]
async fn a_wait_ends_and_the_work_goes_on() {
    let mut config = config(&["*"]);
    config.limits.max_wait = Duration::from_millis(20);
    let fixture = Fixture::new(&config);
    fixture.issuer.leave.forget_permits(100_000);
    assert!(!fixture.get("a.example").await && !fixture.get("a.example").await);
    assert_eq!(fixture.counted("waited_out"), 2);
    assert!(fixture.gate.allows("a.example"), "it may still come");
    fixture.issuer.leave.add_permits(1);
    while fixture.counted("made") == 0 {
        tokio::task::yield_now().await;
    }
    assert!(fixture.get("a.example").await);
    assert_eq!(fixture.issuer.asked(), 1);
}

#[tokio::test]
async fn a_client_that_leaves_ends_nothing() {
    let fixture = Fixture::new(&config(&["*"]));
    fixture.issuer.leave.forget_permits(100_000);
    let gate = Arc::clone(&fixture.gate);
    let client = tokio::spawn(async move { gate.certificate("a.example", None).await });
    while fixture.issuer.asked() == 0 {
        tokio::task::yield_now().await;
    }
    client.abort();
    let _ = client.await;
    assert_eq!(fixture.metrics.on_demand_waiting.get(), 0);
    fixture.issuer.leave.add_permits(1);
    assert!(fixture.get("a.example").await);
    assert_eq!(fixture.issuer.asked(), 1);
}

#[tokio::test]
async fn failures_are_remembered_for_a_while() {
    let mut fixture = Fixture::new(&config(&["*"]));
    fixture.issuer.failing.store(true, Ordering::SeqCst);
    assert!(!fixture.get("a.example").await);
    for _ in 0..10 {
        assert!(!fixture.gate.allows("a.example") && !fixture.get("a.example").await);
    }
    assert!(fixture.gate.covers("a.example") && !fixture.gate.covers("single"));
    assert_eq!((fixture.issuer.asked(), fixture.counted("failed")), (1, 1));
    fixture.clock.advance(60);
    assert!(!fixture.get("a.example").await);
    fixture.clock.advance(60);
    assert!(!fixture.get("a.example").await, "the pause has grown");
    assert_eq!(fixture.issuer.asked(), 2);
    // Another policy forgets them.
    fixture.issuer.failing.store(false, Ordering::SeqCst);
    fixture.reload(&config(&["*.example"]));
    assert!(fixture.get("a.example").await);
}

#[tokio::test]
async fn what_soon_ends_is_renewed_behind_the_handshake() {
    let fixture = Fixture::new(&config(&["*"]));
    assert!(fixture.get("a.example").await);
    fixture.issuer.due.store(true, Ordering::SeqCst);
    assert!(fixture.get("a.example").await, "from what is there");
    while fixture.counted("renewed") == 0 {
        tokio::task::yield_now().await;
    }
    assert!(fixture.get("a.example").await);
    assert_eq!(fixture.issuer.asked(), 2);
    assert_eq!(
        (fixture.counted("allowed"), fixture.counted("made")),
        (1, 1)
    );
    // Where that fails, it continues to serve what is there, and tries no faster for it.
    fixture.issuer.due.store(true, Ordering::SeqCst);
    fixture.issuer.failing.store(true, Ordering::SeqCst);
    assert!(fixture.get("a.example").await);
    while fixture.counted("failed") == 0 {
        tokio::task::yield_now().await;
    }
    for _ in 0..10 {
        assert!(fixture.gate.allows("a.example") && fixture.get("a.example").await);
    }
    assert_eq!(fixture.issuer.asked(), 3);
}

#[tokio::test]
async fn quotas_hold_and_outlive_a_change_of_policy() {
    let quota = |names| {
        Some(NameQuota {
            names,
            per: Duration::from_secs(3600),
        })
    };
    let mut config = config(&["*"]);
    config.limits.per_minute = 5;
    config.limits.per_domain = quota(2);
    config.limits.per_client = quota(4);
    let mut fixture = Fixture::new(&config);
    assert!(fixture.get("1.shop.co.uk").await && fixture.get("2.shop.co.uk").await);
    assert!(
        !fixture.get_for("3.shop.co.uk", "198.51.100.1").await,
        "its domain"
    );
    assert!(
        fixture.get("1.shop.co.uk").await,
        "what is there is not counted"
    );
    config.allow = vec![
        "*.co.uk".parse().expect("a pattern"),
        "*".parse().expect("one"),
    ];
    fixture.reload(&config);
    assert!(
        !fixture.get_for("3.shop.co.uk", "198.51.100.1").await,
        "its domain"
    );
    assert!(fixture.get("x.example").await && fixture.get("y.example").await);
    assert!(!fixture.get("a.test").await, "its client");
    assert!(fixture.get_for("a.test", "198.51.100.1").await);
    assert!(!fixture.get_for("b.test", "198.51.100.1").await, "all");
    assert_eq!(fixture.counted("limited"), 4);
    fixture.clock.advance(12);
    assert!(fixture.get_for("b.test", "198.51.100.1").await);
    config.limits.per_domain = None;
    fixture.clock.advance(12);
    fixture.reload(&config);
    assert!(fixture.get_for("3.shop.co.uk", "198.51.100.1").await);
}

#[tokio::test]
async fn what_was_there_before_costs_no_quota_and_needs_no_answer() {
    // Nobody listens there.
    let mut config = with_ask(&["*.example"], "http://127.0.0.1:1/check");
    config.limits.per_minute = 1;
    let fixture = Fixture::new(&config);
    fixture.issuer.knowing.store(true, Ordering::SeqCst);
    for host in ["a.example", "b.example", "c.example"] {
        assert!(fixture.get(host).await, "{host}");
    }
    assert!(!fixture.get("a.test").await, "it is no longer allowed");
    assert_eq!(
        (fixture.counted("made"), fixture.counted("limited")),
        (0, 0)
    );
    fixture.issuer.knowing.store(false, Ordering::SeqCst);
    assert!(!fixture.get("d.example").await, "a new one needs an answer");
}

#[tokio::test]
async fn what_is_there_is_renewed_where_nobody_answers() {
    // Nobody listens there.
    let fixture = Fixture::new(&with_ask(&["*.example"], "http://127.0.0.1:1/check"));
    {
        let mut made = fixture.issuer.made.lock().expect("whole");
        let name = "a.example".parse().expect("a name");
        made.insert(name, Arc::clone(&fixture.issuer.set));
    }
    fixture.issuer.due.store(true, Ordering::SeqCst);
    assert!(fixture.get("a.example").await);
    while fixture.counted("renewed") == 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!((fixture.issuer.asked(), fixture.counted("made")), (1, 0));
}

#[tokio::test]
async fn what_nothing_was_begun_for_counts_for_no_quota() {
    let quota = Some(NameQuota {
        names: 1,
        per: Duration::from_secs(3600),
    });
    // Nobody listens there.
    let mut config = with_ask(&["*.example"], "http://127.0.0.1:1/check");
    config.limits.per_minute = 1;
    config.limits.per_domain = quota;
    config.limits.per_client = quota;
    let mut fixture = Fixture::new(&config);
    for host in ["a.example", "b.example", "c.example"] {
        assert!(!fixture.get(host).await, "{host}");
    }
    assert_eq!(fixture.counted("unanswered"), 3);
    config.ask = None;
    config.allow = vec!["*".parse().expect("a pattern")];
    fixture.issuer.failing.store(true, Ordering::SeqCst);
    fixture.issuer.idle.store(true, Ordering::SeqCst);
    fixture.reload(&config);
    for host in ["a.shop.example", "b.shop.example"] {
        assert!(!fixture.get(host).await, "{host}");
    }
    assert_eq!((fixture.issuer.asked(), fixture.counted("limited")), (2, 0));
    fixture.issuer.idle.store(false, Ordering::SeqCst);
    assert!(!fixture.get("c.shop.example").await && !fixture.get("d.shop.example").await);
    assert_eq!((fixture.issuer.asked(), fixture.counted("limited")), (3, 1));
}

#[tokio::test]
async fn those_who_wait_are_bounded() {
    let mut config = config(&["*"]);
    config.limits.max_waiting = 8;
    let fixture = Fixture::new(&config);
    fixture.issuer.leave.forget_permits(100_000);
    let gate = Arc::clone(&fixture.gate);
    let client = "192.0.2.1".parse().ok();
    let waiting = tokio::spawn(async move { gate.certificate("a.example", client).await });
    while fixture.metrics.on_demand_waiting.get() == 0 {
        tokio::task::yield_now().await;
    }
    assert!(!fixture.get("b.example").await, "an eighth is one");
    assert_eq!(fixture.counted("limited"), 1);
    fixture.issuer.leave.add_permits(1);
    assert!(waiting.await.expect("no panic").is_some());
}

#[tokio::test]
async fn a_service_that_is_away_lets_nobody_in() {
    // Nobody listens there.
    let config = with_ask(&["*.example"], "http://127.0.0.1:1/check");
    let fixture = Fixture::new(&config);
    assert!(!fixture.get("a.example").await && fixture.gate.allows("a.example"));
    assert_eq!(
        (fixture.issuer.asked(), fixture.counted("unanswered")),
        (0, 1)
    );
    assert!(!fixture.get("a.test").await, "and 'allow' goes first");
    assert_eq!(fixture.counted("unanswered"), 1);
    let name: HostName = "a.example".parse().expect("a name");
    assert_eq!(fixture.gate.still_allows(&name).await, None);
    let other: HostName = "a.test".parse().expect("a name");
    assert_eq!(fixture.gate.still_allows(&other).await, Some(false));
    // What is there stays.
    {
        let mut made = fixture.issuer.made.lock().expect("whole");
        made.insert(name, Arc::clone(&fixture.issuer.set));
    }
    assert!(fixture.get("a.example").await);
}
