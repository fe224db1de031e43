//! Each alert fires for what causes it, in a gateway that a Prometheus scrapes. Times and some bounds of
//! the rules are shorter here; `tests/alerts_test.yml` has them as they are.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::net::TcpStream;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use super::prometheus::read;
use crate::support::{
    Act, Ca, CaReply, FakeCa, Gateway, OcspResponder, Origin, Pair, Prometheus, Says, TlsClient,
    connect, exchange, list_at, responder_at, serving, wait_for, within,
};

/// How long an alert may take: some scrapes, and the time of its rule.
const ALERT: Duration = Duration::from_secs(60);

/// The rules with short times, in a directory of their own.
fn eased() -> tempfile::TempDir {
    let mut rules = String::new();
    for line in read("conf/alerts.yml").lines() {
        let line = match line.trim_start().starts_with("for: ") {
            true => "        for: 0s",
            false => line,
        };
        rules.push_str(line);
        rules.push('\n');
    }
    for time in ["[5m]", "[10m]", "[15m]", "[30m]", "[1h]", "[1d]"] {
        rules = rules.replace(time, "[20s]");
    }
    for (bound, here) in [
        (
            "snigate_on_demand_waiting > 100",
            "snigate_on_demand_waiting > 3",
        ),
        // As often as a test sends something.
        ("[20s])) > 0.2", "[20s])) > 0.1"),
        ("[20s])) > 1\n", "[20s])) > 0.1\n"),
        ("[20s])) > 2\n", "[20s])) > 0\n"),
    ] {
        assert!(rules.contains(bound), "{bound}");
        rules = rules.replace(bound, here);
    }
    let dir = tempfile::tempdir().expect("a directory");
    std::fs::write(dir.path().join("alerts.yml"), rules).expect("written");
    dir
}

/// A Prometheus with these rules.
struct Watch {
    prometheus: Prometheus,
    /// Has the rules.
    _dir: tempfile::TempDir,
}

impl Watch {
    fn start(gateway: &Gateway) -> Self {
        let dir = eased();
        let rules = dir.path().join("alerts.yml");
        let rules = rules.to_str().expect("text");
        let prometheus = Prometheus::start(gateway.admin, rules);
        Self {
            prometheus,
            _dir: dir,
        }
    }

    /// The alerts that fire now.
    fn firing(&self) -> BTreeSet<String> {
        let data = self.prometheus.data("/api/v1/alerts", &[]);
        let alerts = data["alerts"].as_array().into_iter().flatten();
        let firing = alerts.filter(|alert| alert["state"] == "firing");
        let name =
            |alert: &serde_json::Value| alert["labels"]["alertname"].as_str().map(str::to_owned);
        firing.filter_map(name).collect()
    }

    /// Has something happen again and again until all of these have fired.
    #[track_caller]
    fn wait_for(&self, alerts: &[&str], mut cause: impl FnMut()) {
        let mut missing: BTreeSet<&str> = alerts.iter().copied().collect();
        let begun = Instant::now();
        while !missing.is_empty() {
            assert!(begun.elapsed() < ALERT, "still missing: {missing:?}");
            cause();
            let firing = self.firing();
            missing.retain(|alert| !firing.contains(*alert));
            thread::sleep(Duration::from_millis(100));
        }
    }
}

/// Requests that fail, of sites without TLS.
fn send_all(gateway: &Gateway, hosts: &[&str]) {
    for host in hosts {
        let head = format!("GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        exchange(&mut connect(gateway.http), head);
    }
}

#[test]
fn an_alert_fires_for_servers_that_fail() {
    let slow = Origin::start(|_| vec![Act::Pause(Duration::from_secs(6)), Act::respond(200, "x")]);
    let (app, dead) = (Origin::named("app"), Origin::refusing());
    let (app, dead) = (app.address(), dead.address());
    let gateway = Gateway::builder()
        .config(format!(
            "upstreams:\n\
             \x20 dead: {{ servers: [\"{dead}\"], health: {{ path: /, every: 1s }} }}\n\
             \x20 drained: {{ servers: [\"{app}\"] }}\n\
             \x20 slow: {{ servers: [\"{slow}\"] }}\n\
             sites:\n\
             - {{ hosts: [dead.test], tls: off, upstream: dead }}\n\
             - {{ hosts: [drained.test], tls: off, upstream: drained }}\n\
             - {{ hosts: [slow.test], tls: off, upstream: slow }}\n",
            slow = slow.address(),
        ))
        .start();
    let drain = format!("/api/v1/upstreams/drained/servers/{app}/drain");
    assert_eq!(gateway.ask("POST", &drain).status, 200);
    let watch = Watch::start(&gateway);
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| send_all(&gateway, &["slow.test"; 3]));
        }
        watch.wait_for(
            &[
                "SnigateUpstreamDown",
                "SnigateServerDown",
                "SnigateErrors",
                "SnigateNoRoom",
                "SnigateSlow",
            ],
            || send_all(&gateway, &["dead.test", "drained.test"]),
        );
    });
}

#[test]
fn an_alert_fires_for_certificates_that_nobody_replaces() {
    let ca = Ca::new("Alert Root").intermediate("Alert Intermediate");
    let mut responder = OcspResponder::new();
    let silent = Origin::refusing();
    let builder = Gateway::builder();
    let certs = builder.dir().join("certs");
    let write = |pair: &Pair, name: &str| pair.write(&certs, name);
    write(&ca.leaf(&["expired.test"]).expired().make(), "expired");
    write(&ca.leaf(&["soon.test"]).valid(-80, 3).make(), "soon");
    write(&ca.leaf(&["early.test"]).not_yet_valid().make(), "early");
    let asks = |url: &str, name: &str| {
        let (identifier, value) = responder_at(url);
        ca.leaf(&[name]).extension(identifier, &value).make()
    };
    let revoked = asks(&responder.url(), "revoked.test");
    write(&revoked, "revoked");
    let unanswered = format!("http://{}/", silent.address());
    write(&asks(&unanswered, "unanswered.test"), "unanswered");
    let signer = ca.leaf(&[]).purpose("OCSPSigning").make();
    responder.start(
        &ca,
        &signer,
        &[(&revoked, Says::Revoked("keyCompromise"))],
        60,
    );
    let hook = Origin::start(|_| vec![Act::respond(410, "gone")]);
    let gateway = builder
        .config(format!(
            "renewal: {{ check_every: 1s }}\n\
             certificates: [{{ directory: certs }}]\n\
             events: [{{ on: [\"*\"], digest: 0s, webhook: {{ url: \"http://{}/\" }} }}]\n\
             sites:\n\
             - hosts: [expired.test, soon.test, early.test, revoked.test, unanswered.test]\n\
             \x20 routes: [{{ respond: {{ body: x }} }}]\n\
             - {{ hosts: [none.test], routes: [{{ respond: {{ body: x }} }}] }}\n",
            hook.address(),
        ))
        .spawn();
    let watch = Watch::start(&gateway);
    watch.wait_for(
        &[
            "SnigateCertificateExpired",
            "SnigateCertificateExpires",
            "SnigateCertificateFlawed",
            "SnigateCertificateRevoked",
            "SnigateHostsNotCovered",
            "SnigateStaplesMissing",
            "SnigateNotificationsLost",
        ],
        || {
            gateway.ask("POST", "/api/v1/events/test");
        },
    );
}

#[test]
fn an_alert_fires_for_what_no_collector_and_no_list_server_takes() {
    let (ca, away) = (Ca::new("Alert Root"), Origin::refusing());
    // Spans that a collector refuses are lost at once, and those for one that is away after a while.
    let collector = Origin::start(|_| vec![Act::respond(400, "no")]);
    let builder = Gateway::builder();
    let certs = builder.dir().join("certs");
    ca.leaf(&["a.test"]).make().write(&certs, "a");
    let gateway = builder
        .config(format!(
            "renewal: {{ check_every: 1s }}\n\
             certificates: [{{ directory: certs }}]\n\
             tracing: {{ endpoint: \"http://{}\", sample: 1 }}\n\
             sites:\n\
             - {{ hosts: [a.test], routes: [{{ respond: {{ body: x }} }}] }}\n\
             - {{ hosts: [plain.test], tls: off, routes: [{{ respond: {{ body: x }} }}] }}\n",
            collector.address(),
        ))
        .spawn();
    let watch = Watch::start(&gateway);
    wait_for("the count before", || {
        (watch.prometheus.count("snigate_crl_fetches_total") > 0).then_some(())
    });
    let (identifier, value) = list_at(&format!("http://{}/list.crl", away.address()));
    let pair = ca.leaf(&["a.test"]).extension(identifier, &value).make();
    pair.write(&certs, "a");
    watch.wait_for(&["SnigateRevocationListsFail", "SnigateTracesLost"], || {
        send_all(&gateway, &["plain.test"]);
    });
}

#[test]
fn an_alert_fires_for_a_ca_that_limits_and_for_handshakes() {
    let issuer = FakeCa::start(|ask| {
        (ask.kind == "order")
            .then(|| CaReply::problem(429, "rateLimited", "too many").header("Retry-After", "7200"))
    });
    let refusing = FakeCa::start(|ask| {
        (ask.kind == "order").then(|| CaReply::problem(403, "unauthorized", "not for you"))
    });
    let gateway = serving(
        &[&["a.test"]],
        format!(
            "issuers:\n\
             \x20 fake: {{ acme: {{ directory: {:?}, ca_file: {:?} }} }}\n\
             \x20 refusing: {{ acme: {{ directory: {:?}, ca_file: {:?} }} }}\n\
             sites:\n\
             - {{ hosts: [b.test, c.test, d.test, e.test, f.test], tls: refusing, routes: [{{ respond: {{ body: x }} }}] }}\n\
             - {{ hosts: [a.test], routes: [{{ respond: {{ body: x }} }}] }}\n\
             - {{ hosts: [limited.test], tls: fake, routes: [{{ respond: {{ body: x }} }}] }}\n",
            issuer.directory(),
            issuer.ca_file(),
            refusing.directory(),
            refusing.ca_file(),
        ),
    )
    .spawn();
    let watch = Watch::start(&gateway);
    let other = Ca::new("Another Root");
    watch.wait_for(
        &[
            "SnigateCaLimited",
            "SnigateRenewalsFail",
            "SnigateHandshakesFail",
        ],
        || {
            for name in ["b", "c", "d", "e", "f"] {
                gateway.ask("POST", &format!("/api/v1/certificates/{name}.test/renew"));
            }

            for _ in 0..10 {
                let client = TlsClient::named("a.test").trusting(other.certificate());
                assert!(client.try_connect(gateway.https).is_err());
            }
        },
    );
}

#[test]
fn an_alert_fires_for_handshakes_that_wait_for_certificates() {
    let gate = Arc::new(Mutex::new(()));
    let closed = gate.lock().expect("no panic");
    let waiting = Arc::clone(&gate);
    let issuer = FakeCa::start(move |ask| {
        if ask.kind == "order" {
            drop(waiting.lock());
        }
        None
    });
    let gateway = Gateway::builder()
        .config(format!(
            "issuers: {{ fake: {{ acme: {{ directory: {:?}, ca_file: {:?} }} }} }}\n\
             on_demand: {{ issuer: fake, allow: [\"*.demand.test\"] }}\n\
             sites: [{{ hosts: [\"*\"], routes: [{{ respond: {{ body: x }} }}] }}]\n",
            issuer.directory(),
            issuer.ca_file(),
        ))
        .spawn();
    let watch = Watch::start(&gateway);
    let address = gateway.https;
    let clients: Vec<_> = (0..5)
        .map(|number| {
            let client = TlsClient::named(&format!("{number}.demand.test"));
            thread::spawn(move || client.try_connect(address).is_ok())
        })
        .collect();
    watch.wait_for(&["SnigateOnDemandWaits"], || {});
    drop((closed, gateway));
    for client in clients {
        _ = client.join().expect("no panic");
    }
}

#[test]
fn an_alert_fires_for_a_gateway_that_is_full_and_one_that_is_gone() {
    let origin = Origin::named("app");
    let mut gateway = Gateway::builder()
        .server("limits: { max_connections: 3 }")
        .disk()
        .config(format!(
            "upstreams: {{ app: {{ servers: [\"{}\"] }} }}\n\
             sites: [{{ hosts: [plain.test], tls: off, upstream: app }}]\n\
             log: {{ access: access.log }}\n",
            origin.address()
        ))
        .start();
    let watch = Watch::start(&gateway);
    gateway.write("snigate.yaml", "sites: [{ hosts: [] }]\n");
    assert_ne!(gateway.reload().0, 200);
    gateway.fill_disk(true);
    let mut open: Vec<TcpStream> = Vec::new();
    watch.wait_for(
        &[
            "SnigateConfigRefused",
            "SnigateConnectionsFull",
            "SnigateLogLost",
        ],
        || {
            open.clear();
            for _ in 0..5 {
                let mut stream = connect(gateway.http);
                let head = "GET / HTTP/1.1\r\nHost: plain.test\r\n\r\n";
                _ = stream.write_all(head.as_bytes());
                open.push(stream);
            }
        },
    );
    open.clear();
    gateway.fill_disk(false);
    gateway.write_config("");
    // As many descriptors as are open, nearly.
    let most = gateway.descriptors() + 2;
    let limited = Command::new("prlimit")
        .args(["--pid", &gateway.pid().to_string()])
        .arg(format!("--nofile={most}:"))
        .status()
        .expect("Debian's package util-linux is installed");
    assert!(limited.success());
    watch.wait_for(&["SnigateDescriptors"], || {});
    let starts = "changes(process_start_time_seconds[5m])";
    watch.wait_for(&["SnigateRestarts"], || {
        // Prometheus has to see each start.
        let before = watch.prometheus.value(starts);
        gateway.restart();
        within(ALERT, "a scrape of the next process", || {
            (watch.prometheus.value(starts) > before).then_some(())
        });
    });
    gateway.stop();
    watch.wait_for(&["SnigateDown"], || {});
}
