use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use tempfile::TempDir;

use self::models::{auto, config, origin, site, with_local_ca};
use super::*;
use crate::certificate::testing::{DAY, NOW, TestCa, TestLeaf};
use crate::clock::ManualClock;
use crate::config::model::{
    CertificateSource, InMemory, Issuer, OnDemand, OnDemandLimits, SiteTls,
};
use crate::problem::Problem;
use crate::renewal::{ManagedView, StartupStatus};
use crate::storage::{MemoryStorage, PendingWrites, Storage};

mod ari;
mod changes;
mod desired_hosts;
mod folders;
mod from_cas;
mod from_files;
mod limited;
mod models;
mod on_demand;
mod removed;
mod revoked;
mod scripted;
mod two_cas;
mod vetoed;

struct Fixture {
    directory: TempDir,
    ca: TestCa,
    clock: Arc<ManualClock>,
    storage: MemoryStorage,
    manager: TlsManager,
}

fn setup(storage: &MemoryStorage, clock: &Arc<ManualClock>, metrics: Option<Metrics>) -> Setup {
    Setup {
        published: Arc::default(),
        storage: Arc::new(storage.clone()),
        pending_writes: PendingWrites::default(),
        clock: clock.clone(),
        metrics,
        events: EventBus::default(),
        in_memory: InMemory::All,
        index: None,
        make_issuer: Box::new(|name, _| Arc::new(NullIssuer::new(name))),
        dns: None,
        decider: None,
    }
}

impl Fixture {
    fn new() -> Self {
        let clock = Arc::new(ManualClock::at(NOW));
        let storage = MemoryStorage::default();
        let manager = TlsManager::new(setup(&storage, &clock, None));
        Self {
            directory: tempfile::tempdir().expect("a directory"),
            ca: TestCa::new("manager"),
            clock,
            storage,
            manager: manager.expect("a manager"),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn write(&self, name: &str, content: &str) {
        fs::write(self.path(name), content).expect("writable");
    }

    /// Writes `NAME.pem` and `NAME.key` for `hosts`.
    fn write_pair(&self, name: &str, hosts: &[&str]) -> TestLeaf {
        let leaf = self.ca.leaf(hosts);
        self.write(&format!("{name}.pem"), &self.ca.chain(&leaf));
        self.write(&format!("{name}.key"), &leaf.key);
        leaf
    }

    fn files(&self, name: &str) -> CertificateSource {
        CertificateSource::Files {
            cert: self.path(&format!("{name}.pem")),
            key: self.path(&format!("{name}.key")),
            origin: origin("certificates[0]"),
        }
    }

    fn directory(&self) -> CertificateSource {
        CertificateSource::Directory {
            path: self.directory.path().to_owned(),
            origin: origin("certificates[0]"),
        }
    }

    fn serial(&self, host: &str) -> Option<String> {
        let map = self.manager.published().load();
        map.lookup(host).map(|set| set.by_kind[0].describe().serial)
    }

    fn issuer_of(&self, host: &str) -> Option<String> {
        let map = self.manager.published().load();
        map.lookup(host)
            .map(|set| set.by_kind[0].source().label().to_owned())
    }
}

fn messages(problems: &[Problem]) -> Vec<String> {
    problems.iter().map(ToString::to_string).collect()
}

/// Only to be used where the passes must have told nothing.
#[track_caller]
fn assert_clean(report: &Report) {
    assert_eq!(messages(&report.problems), [""; 0]);
    assert_eq!(messages(&report.warnings), [""; 0]);
}

#[test]
fn sites_get_what_they_ask_for() {
    let mut fixture = Fixture::new();
    fixture.write_pair("file", &["file.example", "*.wild.example"]);
    let mut config = with_local_ca(config(
        vec![
            fixture.files("file"),
            CertificateSource::Managed {
                names: vec![
                    "m.example".parse().expect("a name"),
                    "*.m.example".parse().expect("a name"),
                ],
                issuers: vec!["local".into()],
                dns: None,
                origin: origin("certificates[1]"),
            },
        ],
        vec![
            site(
                &[
                    "file.example",
                    "x.wild.example",
                    "auto.example",
                    "x.m.example",
                    "*",
                ],
                auto(),
            ),
            site(&["off.example"], SiteTls::Off),
            site(&["bare.example"], SiteTls::Auto(Vec::new())),
            site(&["*.example.org"], auto()),
        ],
    ));
    let report = fixture.manager.apply(&config);
    assert_eq!(messages(&report.problems), [""; 0]);
    let told = messages(&report.warnings);
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(
        told[0].contains("sites[0]: no certificate covers bare.example"),
        "{told:?}"
    );
    let missing: Vec<_> = report.missing.iter().map(|missing| &missing.host).collect();
    assert_eq!(missing, [&"bare.example".parse().expect("a name")]);
    assert_eq!(report.certificates, 4);
    for (host, source) in [
        ("file.example", Some("file")),
        ("x.wild.example", Some("file")),
        ("auto.example", Some("local")),
        ("m.example", Some("local")),
        ("x.m.example", Some("local")),
        ("x.example.org", Some("local")),
        ("off.example", None),
        ("bare.example", None),
    ] {
        assert_eq!(fixture.issuer_of(host).as_deref(), source, "{host}");
    }
    let auto_serial = fixture.serial("auto.example");

    // A certificate that a site requires goes before a file; a file before a fallback.
    config.sites = vec![
        Arc::new(site(&["file.example"], SiteTls::Issuer("local".into()))),
        Arc::new(site(&["auto.example"], auto())),
    ];
    fixture.manager.apply(&config);
    assert_eq!(fixture.issuer_of("file.example").as_deref(), Some("local"));
    assert_eq!(fixture.serial("auto.example"), auto_serial, "kept");
    fixture.write_pair("file", &["file.example", "auto.example"]);
    let report = fixture.manager.refresh();
    assert_eq!(fixture.issuer_of("auto.example").as_deref(), Some("file"));
    assert_eq!((report.changed.len(), report.removed.len()), (1, 1));
}

#[test]
fn an_expired_file_leaves_its_site_to_the_issuer() {
    let mut fixture = Fixture::new();
    fixture.write_pair("a", &["a.example"]);
    let config = with_local_ca(config(
        vec![fixture.files("a")],
        vec![site(&["a.example"], auto())],
    ));
    fixture.manager.apply(&config);
    assert_eq!(fixture.issuer_of("a.example").as_deref(), Some("file"));
    fixture.clock.advance(91 * DAY);
    fixture.manager.tick();
    assert_eq!(fixture.issuer_of("a.example").as_deref(), Some("local"));
}

#[test]
fn issued_certificates_are_renewed_in_time() {
    let mut fixture = Fixture::new();
    let config = with_local_ca(config(Vec::new(), vec![site(&["a.example"], auto())]));
    fixture.manager.apply(&config);
    for _ in 0..30 {
        let before = fixture.serial("a.example");
        fixture.clock.advance(3 * DAY);
        assert!(fixture.manager.tick().is_unchanged());
        fixture.clock.advance(2 * DAY);
        assert_eq!(fixture.manager.tick().changed.len(), 1);
        assert_ne!(fixture.serial("a.example"), before);
        let map = fixture.manager.published().load();
        let set = map.lookup("a.example").expect("served");
        assert_eq!(
            set.by_kind[0].validity(fixture.clock.now() + 6 * DAY),
            crate::certificate::Validity::Valid
        );
    }
}

#[test]
fn a_failing_issuer_leaves_names_missing_until_it_is_mended() {
    let mut fixture = Fixture::new();
    let root = "local_ca/root.key".parse().expect("a key");
    fixture.storage.store(&root, b"damaged").expect("writable");
    let config = with_local_ca(config(Vec::new(), vec![site(&["a.example"], auto())]));
    let report = fixture.manager.apply(&config);
    let told = messages(&report.problems);
    assert!(
        told[0].contains("issuer local: the local CA's local_ca/root.key"),
        "{told:?}"
    );
    assert_eq!(report.missing.len(), 1);
    fixture.storage.delete(&root).expect("writable");
    assert_clean(&fixture.manager.tick());
    assert!(fixture.serial("a.example").is_some());
}

#[test]
fn a_check_reads_all_and_makes_nothing() {
    let fixture = Fixture::new();
    fixture.write("a.pem", "x");
    let mut config = with_local_ca(config(
        vec![fixture.directory()],
        vec![
            site(&["a.example"], auto()),
            site(&["bare.example"], SiteTls::Auto(Vec::new())),
        ],
    ));
    config.tls.default_certificate = Some("a.example".parse().expect("a name"));
    let storage = Arc::new(fixture.storage.clone());
    let report = TlsManager::check(&config, storage, fixture.clock.clone()).expect("checked");
    let told = messages(&report.problems);
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].contains("a.pem: is not PEM"), "{told:?}");
    let told = messages(&report.warnings);
    assert!(told[0].contains("bare.example"), "{told:?}");
    let under = "local_ca".parse().expect("a key");
    assert_eq!(fixture.storage.list(&under).expect("readable"), []);
}

#[test]
fn the_default_is_the_certificate_of_its_name() {
    let mut fixture = Fixture::new();
    fixture.write_pair("a", &["*.a.example"]);
    let mut config = config(
        vec![fixture.files("a")],
        vec![site(&["x.a.example"], auto())],
    );
    config.tls.default_certificate = Some("x.a.example".parse().expect("a name"));
    assert_clean(&fixture.manager.apply(&config));
    assert!(fixture.manager.published().load().default_set().is_some());
    config.tls.default_certificate = Some("b.example".parse().expect("a name"));
    let report = fixture.manager.apply(&config);
    let told = messages(&report.warnings);
    assert!(
        told[0].contains("yaml:3:5: tls.default_certificate: no certificate covers b.example"),
        "{told:?}"
    );
    assert!(fixture.manager.published().load().default_set().is_none());
}

#[test]
fn certificates_on_demand_come_with_the_map_and_outlive_a_reload() {
    let mut fixture = Fixture::new();
    let mut config = with_local_ca(config(
        Vec::new(),
        vec![site(&["x.a.example"], SiteTls::Auto(Vec::new()))],
    ));
    config.on_demand = Some(OnDemand {
        issuers: vec!["local".into()],
        public: false,
        allow: vec!["*.a.example".parse().expect("a pattern")],
        ask: None,
        limits: OnDemandLimits {
            max_wait: Duration::from_secs(10),
            max_waiting: 10,
            per_minute: 10,
            per_domain: None,
            per_client: None,
        },
        unused: Duration::from_secs(86_400),
    });
    assert_clean(&fixture.manager.apply(&config));
    let demand = |fixture: &Fixture| {
        let map = fixture.manager.published().load();
        let on_demand = map.on_demand().expect("configured");
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.enable_all().build().expect("a runtime");
        let certificate = on_demand.certificate("x.a.example", None);
        runtime.block_on(certificate).expect("allowed")
    };
    let first = demand(&fixture);
    fixture.manager.apply(&config);
    assert!(Arc::ptr_eq(&first, &demand(&fixture)));
    config.on_demand = None;
    let report = fixture.manager.apply(&config);
    assert_eq!(report.missing.len(), 1);
    assert!(fixture.manager.published().load().on_demand().is_none());
}

#[test]
fn a_pass_publishes_only_what_changed() {
    let mut fixture = Fixture::new();
    fixture.write_pair("a", &["a.example"]);
    let config = with_local_ca(config(
        vec![fixture.files("a")],
        vec![site(&["a.example", "b.example"], auto())],
    ));
    fixture.manager.apply(&config);
    let before = fixture.manager.published().load_full();
    fixture.manager.refresh();
    fixture.manager.tick();
    fixture.manager.apply(&config);
    assert!(Arc::ptr_eq(
        &before,
        &fixture.manager.published().load_full()
    ));
}

#[test]
fn metrics_follow() {
    let mut fixture = Fixture::new();
    let metrics = Metrics::new().expect("unique names");
    let setup = setup(&fixture.storage, &fixture.clock, Some(metrics.clone()));
    fixture.manager = TlsManager::new(setup).expect("a manager");
    fixture.write_pair("a", &["a.example"]);
    fixture
        .manager
        .apply(&config(vec![fixture.directory()], Vec::new()));
    let text = || String::from_utf8(metrics.render(crate::metrics::Format::Text)).expect("text");
    let ends = format!(
        r#"snigate_certificate_not_after_seconds{{name="a.example",source="directory"}} {}"#,
        (NOW + 90 * DAY).as_secs()
    );
    assert!(text().contains(&ends), "{}", text());
    assert!(text().contains(r#"snigate_certificates{source="directory"} 1"#));
    fs::remove_file(fixture.path("a.pem")).expect("there");
    fixture.manager.refresh();
    fixture.clock.advance(5);
    fixture.manager.tick();
    assert!(!text().contains("a.example"), "{}", text());
    assert!(text().contains(r#"snigate_certificates{source="directory"} 0"#));
}

#[test]
fn a_manager_can_be_given_to_a_thread() {
    fn is_send<T: Send>() {}
    is_send::<TlsManager>();
}
