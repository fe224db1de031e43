//! An engine on its own, as another program has it: without a server of Pingora.

use std::fs;

use async_trait::async_trait;
use zeroize::Zeroizing;

use super::*;
use crate::certificate::testing::{DAY, NOW, TestCa};
use crate::clock::ManualClock;
use crate::config::model::{CertificateSource, Issuer as Configured, Origin};
use crate::issuer::{Issued, Issuer, Request};
use crate::schedule::Failure;
use crate::storage::MemoryStorage;

/// How long something may take that comes at once as a rule.
const PATIENCE: Duration = Duration::from_secs(20);

/// An issuer of the program's own. Answers at once, or never.
struct Own {
    name: Arc<str>,
    ca: TestCa,
    is_silent: bool,
    asked: watch::Sender<usize>,
}

impl Own {
    fn new(is_silent: bool) -> Arc<Self> {
        Arc::new(Self {
            name: "own".into(),
            ca: TestCa::new("own"),
            is_silent,
            asked: watch::Sender::default(),
        })
    }
}

#[async_trait]
impl Issuer for Own {
    fn name(&self) -> &Arc<str> {
        &self.name
    }

    fn ca(&self) -> &str {
        "own.test"
    }

    async fn issue(&self, request: &Request) -> Result<Issued, Failure> {
        self.asked.send_modify(|count| *count += 1);
        if self.is_silent {
            std::future::pending::<()>().await;
        }
        let names: Vec<_> = request.names.iter().map(ToString::to_string).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let leaf = self.ca.leaf_at(&names, NOW - 60, NOW + 90 * DAY);
        Ok(Issued {
            chain: self.ca.chain(&leaf).into_bytes(),
            key: Zeroizing::new(leaf.key.into_bytes()),
        })
    }

    async fn on_stored(&self, _: &Request) {}
}

fn engine(own: Option<&Arc<Own>>) -> Arc<Engine> {
    let own_issuers = own.map(|own| (Arc::clone(&own.name), Arc::clone(own) as Arc<dyn Issuer>));
    let setup = EngineSetup {
        clock: Arc::new(ManualClock::at(NOW)),
        own_issuers: own_issuers.into_iter().collect(),
        ..EngineSetup::new(Arc::new(MemoryStorage::default()))
    };
    Engine::new(setup).expect("an engine")
}

/// A configuration that asks the program's own issuer for `a.test`.
fn managed() -> Config {
    let mut config = Config::sample();
    config.issuers.insert("own".into(), Configured::Own);
    config.certificates = [CertificateSource::Managed {
        names: vec!["a.test".parse().expect("a name")],
        issuers: vec!["own".into()],
        dns: None,
        origin: Origin::default(),
    }]
    .into();
    config
}

async fn within(what: &str, wait: impl Future<Output = ()>) {
    let ended = tokio::time::timeout(PATIENCE, wait).await;
    assert!(ended.is_ok(), "never: {what}");
}

async fn wait_until_covered(engine: &Engine, host: &str) {
    let covered = async {
        while !engine.certificates().snapshot().covers(host) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    within(host, covered).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_issuer_of_the_program_is_asked_and_its_certificate_presented() {
    let own = Own::new(false);
    let engine = engine(Some(&own));
    let report = engine.start(&managed(), None);
    assert_eq!((report.to_obtain, report.certificates), (1, 0));
    let running = tokio::spawn(Arc::clone(&engine).run(Loops::default()));
    wait_until_covered(&engine, "a.test").await;
    assert_eq!(*own.asked.borrow(), 1);

    assert_eq!(engine.apply(&Config::sample(), None).to_obtain, 0);
    within("the stop", engine.stop()).await;
    within("the end", async { running.await.expect("no panic") }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_does_not_wait_for_an_issuer() {
    let own = Own::new(true);
    let engine = engine(Some(&own));
    engine.start(&managed(), None);
    tokio::spawn(Arc::clone(&engine).run(Loops::default()));
    let asked = async {
        let mut asked = own.asked.subscribe();
        drop(asked.wait_for(|count| *count > 0).await);
    };
    within("an order", asked).await;
    within("the stop", engine.stop()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn changed_files_are_presented() {
    let directory = tempfile::tempdir().expect("a directory");
    let (cert, key) = (
        directory.path().join("a.pem"),
        directory.path().join("a.key"),
    );
    let ca = TestCa::new("files");
    let write = |name: &str| {
        let leaf = ca.leaf(&[name]);
        fs::write(&key, &leaf.key).expect("writable");
        fs::write(&cert, ca.chain(&leaf)).expect("writable");
    };
    write("a.test");
    let mut config = Config::sample();
    config.certificates = [CertificateSource::Files {
        cert: cert.clone(),
        key: key.clone(),
        origin: Origin::default(),
    }]
    .into();
    let engine = engine(None);
    assert_eq!(engine.start(&config, None).certificates, 1);
    assert!(engine.certificates().snapshot().covers("a.test"));
    tokio::spawn(Arc::clone(&engine).run(Loops::default()));
    engine.wait_until_loaded(LoadPhase::Done).await;
    write("b.test");
    wait_until_covered(&engine, "b.test").await;
    assert!(!engine.certificates().snapshot().covers("a.test"));
    within("the stop", engine.stop()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_orders_wait_for_their_moment() {
    let own = Own::new(false);
    let engine = engine(Some(&own));
    engine.start(&managed(), None);
    let orders_after = Instant::now() + Duration::from_secs(2);
    let loops = Loops {
        orders_after: Some(orders_after),
        ..Loops::default()
    };
    tokio::spawn(Arc::clone(&engine).run(loops));
    let loaded = engine.wait_until_loaded(LoadPhase::Done);
    let loaded = tokio::time::timeout_at(orders_after, loaded).await;
    assert!(loaded.is_ok(), "files are scanned from the start");
    assert_eq!(*own.asked.borrow(), 0);
    wait_until_covered(&engine, "a.test").await;
    assert!(Instant::now() >= orders_after);
    within("the stop", engine.stop()).await;
}
