use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use super::*;

#[test]
fn a_pair_of_files_is_replaced_as_one() {
    let mut fixture = Fixture::new();
    fixture.write_pair("a", &["a.example"]);
    let config = config(vec![fixture.files("a")], vec![site(&["a.example"], auto())]);
    let report = fixture.manager.apply(&config);
    assert_clean(&report);
    assert_eq!((report.added.len(), report.certificates), (1, 1));
    assert_eq!(
        *report.watch,
        [fixture.path("a.key"), fixture.path("a.pem")].into()
    );
    let before = fixture.serial("a.example").expect("served");
    assert!(fixture.manager.refresh().is_unchanged());

    // The certificate is there, its key is not yet.
    let renewed = fixture.ca.leaf(&["a.example"]);
    fixture.write("a.pem", &fixture.ca.chain(&renewed));
    let report = fixture.manager.refresh();
    let told = messages(&report.problems);
    assert_eq!(told.len(), 1);
    let place = format!(
        "/etc/snigate.yaml:3:5: certificates[0]: {}: the private key does not belong",
        fixture.path("a.key").display()
    );
    assert!(told[0].starts_with(&place), "{told:?}");
    assert!(
        told[0].ends_with("the certificate loaded before is still served"),
        "{told:?}"
    );
    assert!(report.problems[0].is_new);
    assert_eq!(fixture.serial("a.example"), Some(before.clone()));
    assert!(!fixture.manager.refresh().problems[0].is_new, "told once");

    // Half of the key, then all of it.
    fixture.write("a.key", &renewed.key[..renewed.key.len() / 2]);
    let report = fixture.manager.refresh_paths(&[fixture.path("a.key")]);
    assert!(
        messages(&report.problems)[0].contains("half written"),
        "{:?}",
        report.problems
    );
    fixture.write("a.key", &renewed.key);
    let report = fixture.manager.refresh_paths(&[fixture.path("a.key")]);
    assert_clean(&report);
    assert_eq!(report.changed.len(), 1);
    assert_ne!(fixture.serial("a.example"), Some(before));

    // Gone, but still configured.
    let before = fixture.serial("a.example");
    fs::remove_file(fixture.path("a.pem")).expect("there");
    let report = fixture.manager.refresh();
    assert!(
        messages(&report.problems)[0].contains("cannot be read"),
        "{:?}",
        report.problems
    );
    assert_eq!(fixture.serial("a.example"), before);

    let report = fixture.manager.apply(&self::config(Vec::new(), Vec::new()));
    assert_eq!(report.removed.len(), 1);
    assert_eq!(fixture.serial("a.example"), None);
}

#[test]
fn broken_files_in_a_directory_leave_the_others_alone() {
    let mut fixture = Fixture::new();
    for i in 0..40 {
        fixture.write_pair(&format!("{i}.example.com"), &[&format!("{i}.example.com")]);
    }
    let own = fixture.ca.leaf(&["*.wild.example"]);
    fixture.write(
        "_wildcard.wild.example.pem",
        &(fixture.ca.chain(&own) + &own.key),
    );
    fixture.write("empty.pem", "");
    fixture.write(
        "keyless.pem",
        &fixture.ca.leaf(&["keyless.example"]).certificate,
    );
    let large = fs::File::create(fixture.path("large.pem")).expect("writable");
    large.set_len(10 << 20).expect("sparse");
    fixture.write(".hidden.pem", "x");
    fixture.write("README", "x");
    fixture.write("lone.key", &own.key);
    fixture.write_pair("other.example.com", &["unlike.example"]);
    let report = fixture
        .manager
        .apply(&config(vec![fixture.directory()], Vec::new()));
    assert_eq!(report.certificates, 42);
    let told = messages(&report.problems);
    assert_eq!(told.len(), 3, "{told:?}");
    assert!(told[0].contains("empty.pem: is empty"), "{told:?}");
    assert!(
        told[1].contains("keyless.pem: holds no private key, and there is no "),
        "{told:?}"
    );
    assert!(
        told[2].contains("large.pem: is 10485760 bytes long"),
        "{told:?}"
    );
    let warned = messages(&report.warnings);
    assert_eq!(warned.len(), 2, "{warned:?}");
    assert!(
        warned[0].contains("lone.key: is a private key without"),
        "{warned:?}"
    );
    assert!(warned[1].contains("it covers unlike.example"), "{warned:?}");
    assert!(
        fixture.serial("x.wild.example").is_some() && fixture.serial("7.example.com").is_some()
    );

    fs::remove_file(fixture.path("7.example.com.pem")).expect("there");
    let report = fixture
        .manager
        .refresh_paths(&[fixture.path("7.example.com.pem")]);
    assert!(report.is_unchanged(), "it is served for a moment longer");
    fixture.clock.advance(5);
    assert_eq!(fixture.manager.tick().removed.len(), 1);
    assert_eq!(fixture.serial("7.example.com"), None);
    fixture.write_pair("new.example", &["new.example"]);
    let report = fixture
        .manager
        .refresh_paths(&[fixture.path("new.example.key")]);
    assert_eq!(report.added.len(), 1);
    assert!(fixture.serial("new.example").is_some());

    let directory = fixture.directory.path().to_owned();
    let away = directory.with_extension("away");
    fs::rename(&directory, &away).expect("movable");
    let report = fixture.manager.refresh();
    fs::rename(&away, &directory).expect("movable");
    assert!(
        messages(&report.problems)[0].contains("cannot be listed"),
        "{:?}",
        report.problems
    );
    assert!(report.removed.is_empty() && fixture.serial("8.example.com").is_some());
}

#[test]
fn kubernetes_secrets_are_followed() {
    let mut fixture = Fixture::new();
    let mount = |name: &str, leaf: &TestLeaf| {
        fs::create_dir(fixture.path(name)).expect("writable");
        fixture.write(&format!("{name}/tls.crt"), &fixture.ca.chain(leaf));
        fixture.write(&format!("{name}/tls.key"), &leaf.key);
    };
    mount("..2025_1", &fixture.ca.leaf(&["a.example"]));
    mount("..2025_2", &fixture.ca.leaf(&["a.example"]));
    let (new, data) = (fixture.path("..data_tmp"), fixture.path("..data"));
    let turn = |to: &str| {
        symlink(to, &new).expect("a link");
        fs::rename(&new, &data).expect("turned");
    };
    turn("..2025_1");
    for name in ["tls.crt", "tls.key"] {
        symlink(Path::new("..data").join(name), fixture.path(name)).expect("a link");
    }
    assert_clean(
        &fixture
            .manager
            .apply(&config(vec![fixture.directory()], Vec::new())),
    );
    let before = fixture.serial("a.example").expect("served");
    turn("..2025_2");
    let report = fixture.manager.refresh_paths(&[fixture.path("..data")]);
    assert_eq!(report.changed.len(), 1);
    assert_ne!(fixture.serial("a.example"), Some(before));
}

#[test]
fn intermediates_in_the_directory_complete_chains() {
    let mut fixture = Fixture::new();
    let leaf = fixture.ca.leaf(&["a.example"]);
    fixture.write("a.pem", &(leaf.certificate.clone() + &leaf.key));
    let config = config(vec![fixture.directory()], Vec::new());
    let report = fixture.manager.apply(&config);
    // Its issuer may be a root of one's own, by what the certificate says.
    assert_clean(&report);
    assert_eq!(report.added[0].chain_len(), 1);
    fixture.write("chain.pem", &fixture.ca.intermediate.pem());
    let report = fixture.manager.refresh();
    assert_clean(&report);
    assert_eq!((report.changed.len(), report.certificates), (1, 1));
    assert_eq!(report.changed[0].chain_len(), 2);
}

#[test]
fn an_invalid_certificate_never_replaces_a_valid_one() {
    let mut fixture = Fixture::new();
    fixture.write_pair("good", &["a.example"]);
    let config = config(
        vec![fixture.directory()],
        vec![site(&["a.example"], auto())],
    );
    fixture.manager.apply(&config);
    let good = fixture.serial("a.example");
    for (name, from, to) in [("expired", -90, -1), ("future", 1, 900)] {
        let leaf = fixture
            .ca
            .leaf_at(&["a.example"], NOW + from * DAY, NOW + to * DAY);
        fixture.write(
            &format!("{name}.pem"),
            &(fixture.ca.chain(&leaf) + &leaf.key),
        );
    }
    let report = fixture.manager.refresh();
    let warned = messages(&report.warnings);
    assert_eq!(warned.len(), 2, "{warned:?}");
    assert!(
        warned[0].contains("expired on 2025-09-14T00:00:00Z"),
        "{warned:?}"
    );
    assert!(
        warned[1].contains("not valid before 2025-09-16T00:00:00Z"),
        "{warned:?}"
    );
    assert_eq!(fixture.serial("a.example"), good);
    fixture.clock.advance(95 * DAY);
    fixture.manager.tick();
    assert_ne!(
        fixture.serial("a.example"),
        good,
        "the future one, now that it is time"
    );
}

#[test]
fn whatever_leads_to_a_file_may_change() {
    let mut fixture = Fixture::new();
    let release = |fixture: &Fixture, name: &str| {
        fs::create_dir(fixture.path(name)).expect("made");
        fixture.write_pair(&format!("{name}/a"), &["a.example"]);
    };
    release(&fixture, "one");
    symlink("one", fixture.path("latest")).expect("a link");
    symlink("latest", fixture.path("current")).expect("a link");
    let sources = vec![fixture.files("current/a")];
    assert_clean(&fixture.manager.apply(&config(sources, Vec::new())));
    let changes = |fixture: &mut Fixture, path: &str| {
        let path = fixture.path(path);
        fixture.manager.refresh_paths(&[path]).changed.len()
    };

    // The file itself, by another name than the configured one.
    fixture.write_pair("one/a", &["a.example"]);
    assert_eq!(changes(&mut fixture, "one/a.pem"), 1);
    // A link on the way that the configured path names, and one that it does not.
    release(&fixture, "two");
    fs::remove_file(fixture.path("current")).expect("there");
    symlink("two", fixture.path("current")).expect("a link");
    assert_eq!(changes(&mut fixture, "current"), 1);
    fs::remove_file(fixture.path("current")).expect("there");
    symlink("latest", fixture.path("current")).expect("a link");
    assert_eq!(changes(&mut fixture, "current"), 1);
    fs::remove_file(fixture.path("latest")).expect("there");
    symlink("two", fixture.path("latest")).expect("a link");
    assert_eq!(changes(&mut fixture, "latest"), 1);

    fixture.write("other.log", "a line");
    assert_eq!(changes(&mut fixture, "other.log"), 0);
}

/// A manager that leaves certificates in their files, or that begins with an index.
fn another(fixture: &Fixture, in_memory: InMemory, metrics: &Metrics) -> TlsManager {
    let setup = Setup {
        in_memory,
        index: Some(fixture.path(".index")),
        ..setup(&fixture.storage, &fixture.clock, Some(metrics.clone()))
    };
    TlsManager::new(setup).expect("a manager")
}

fn present(manager: &TlsManager, host: &str) -> Result<Vec<u8>, String> {
    use openssl::ssl::{Ssl, SslContext, SslMethod};

    let map = manager.published().load();
    let set = map.lookup(host).expect("a certificate");
    let context = SslContext::builder(SslMethod::tls_server()).expect("a context");
    let mut ssl = Ssl::new(&context.build()).expect("SSL");
    set.by_kind[0]
        .apply(&mut ssl)
        .map_err(|error| error.to_string())?;
    Ok(ssl.certificate().expect("a leaf").to_der().expect("DER"))
}

#[test]
fn what_is_left_in_files_is_read_when_it_is_asked_for() {
    let fixture = Fixture::new();
    fixture.write_pair("a", &["a.example"]);
    fixture.write_pair("b", &["b.example"]);
    let metrics = Metrics::new().expect("metrics");
    let mut manager = another(&fixture, InMemory::Cache, &metrics);
    let config = config(vec![fixture.files("a"), fixture.directory()], vec![]);
    assert_clean(&manager.apply(&config));
    let before = present(&manager, "a.example").expect("presented");
    present(&manager, "b.example").expect("presented");

    // Replaced, and not looked at yet.
    fixture.write_pair("a", &["a.example"]);
    let after = present(&manager, "a.example").expect("presented");
    assert_ne!(before, after, "the newer one");
    fixture.write_pair("a", &["other.example"]);
    let error = present(&manager, "a.example").expect_err("it is of another name");
    assert!(error.contains("another certificate"), "{error}");
    fixture.write("b.key", "nonsense");
    let error = present(&manager, "b.example").expect_err("it is broken");
    assert!(error.contains("b.key: is not PEM"), "{error}");
    let ended = fixture.ca.leaf_at(&["b.example"], NOW - 2 * DAY, NOW - DAY);
    fixture.write("b.key", &ended.key);
    fixture.write("b.pem", &fixture.ca.chain(&ended));
    let error = present(&manager, "b.example").expect_err("it has ended");
    assert!(error.contains("b.pem: the certificate expired"), "{error}");
}

#[test]
fn what_the_index_knows_is_there_without_a_look_into_the_files() {
    let fixture = Fixture::new();
    let key = crate::certificate::testing::p256();
    for number in 0..1_000 {
        let host = format!("{number}.example");
        let leaf = fixture
            .ca
            .leaf_with(&[&host], NOW - DAY, NOW + 9_000 * DAY, &key);
        let both = format!("{}{}", fixture.ca.chain(&leaf), leaf.key);
        fixture.write(&format!("{host}.pem"), &both);
    }
    // Their times tell whether they change.
    let now = crate::clock::SystemClock.now();
    fixture.clock.advance(now - NOW + DAY);
    let config = config(vec![fixture.directory()], vec![]);
    let read = |manager: &mut TlsManager, metrics: &Metrics| {
        let report = manager.start(&config, Duration::from_secs(60));
        assert_eq!(report.certificates, 1_000);
        assert_eq!(report.loading, None);
        manager
            .cert_files()
            .flusher()
            .flush(Duration::from_secs(10));
        metrics.files_read.get()
    };
    let mut before = None;
    for in_memory in [InMemory::All, InMemory::All, InMemory::Cache] {
        let metrics = Metrics::new().expect("metrics");
        let mut manager = another(&fixture, in_memory, &metrics);
        let reads = read(&mut manager, &metrics);
        assert_eq!(reads, if before.is_none() { 1_000 } else { 0 });
        let told: Vec<_> = (0..1_000)
            .step_by(100)
            .map(|number| present(&manager, &format!("{number}.example")).expect("presented"))
            .collect();
        assert_eq!(*before.get_or_insert_with(|| told.clone()), told);
        while manager.cert_files_mut().fetch_certificates() {}
        let mut certificates = manager.certificates();
        let is_held = certificates.all(|one| one.is_in_memory());
        assert_eq!(is_held, in_memory == InMemory::All);
        drop(certificates);
        drop(manager);
        wait_until_free(&fixture.path(".index"));
    }
}

/// Waits until the thread that writes the index in this directory has ended.
fn wait_until_free(index: &Path) {
    let lock = fs::File::open(index.join("lock")).expect("a lock");
    let start = std::time::Instant::now();
    while lock.try_lock().is_err() {
        assert!(start.elapsed() < Duration::from_secs(20), "in use");
        std::thread::sleep(Duration::from_millis(1));
    }
}
