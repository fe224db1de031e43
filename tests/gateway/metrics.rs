//! `/metrics` as Prometheus reads it, the dashboard and the alert rules.

mod alerts;
mod prometheus;
mod reasons;
mod reloads;
mod scrapes;
mod times;

use std::fs;

use crate::support::{
    Ca, CaReply, FakeCa, Gateway, Origin, TlsClient, connect, curl, exchange, serving, wait_for,
};

/// Waits until a metric with these labels has this value.
#[track_caller]
fn wait_for_count(gateway: &Gateway, metric: &str, count: usize) {
    wait_for(metric, || {
        (gateway.metric(metric) == Some(count as f64)).then_some(())
    });
}

/// A gateway that has had some of everything, and what it needs.
struct Busy {
    gateway: Gateway,
    origin: Origin,
    _issuer: FakeCa,
}

/// The trace that one of its requests belongs to.
const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

impl Busy {
    fn start() -> Self {
        let origin = Origin::named("app");
        let issuer = FakeCa::start(|ask| {
            (ask.kind == "order").then(|| {
                CaReply::problem(429, "rateLimited", "too many new orders")
                    .header("Retry-After", "7200")
            })
        });
        let dead = Origin::refusing();
        let builder = serving(
            &[&["a.test"], &["strict.test"]],
            format!(
                "issuers:\n\
                 \x20 local: {{ local_ca: {{ name: Test }} }}\n\
                 \x20 fake: {{ acme: {{ directory: {directory:?}, ca_file: {ca_file:?} }} }}\n\
                 on_demand: {{ issuer: local, allow: [\"*.demand.test\"] }}\n\
                 upstreams:\n\
                 \x20 app:\n\
                 \x20   servers: [\"{app}\"]\n\
                 \x20   health: {{ path: /, every: 1s }}\n\
                 \x20 dead: {{ servers: [\"{dead}\"] }}\n\
                 sites:\n\
                 - {{ hosts: [a.test], upstream: app }}\n\
                 - {{ hosts: [strict.test], client_auth: {{ ca: clients.pem }}, upstream: app }}\n\
                 - {{ hosts: [dead.test], tls: off, upstream: dead }}\n\
                 - {{ hosts: [limited.test], tls: fake, routes: [{{ respond: {{ body: x }} }}] }}\n\
                 - {{ hosts: [\"*\"], routes: [{{ respond: {{ body: x }} }}] }}\n\
                 events: [{{ on: [\"*\"], exec: {{ command: [/bin/true] }} }}]\n\
                 log: {{ access: access.log }}\n",
                directory = issuer.directory(),
                ca_file = issuer.ca_file(),
                app = origin.address(),
                dead = dead.address(),
            ),
        );
        let clients = Ca::new("Clients Root");
        fs::write(builder.dir().join("clients.pem"), clients.pem()).expect("written");
        // It is never ready: one site gets no certificate.
        let gateway = builder.spawn();
        wait_for("the gateway to serve", || {
            let url = format!("https://a.test:{}/", gateway.https.port());
            let get = curl(&url).resolve("a.test", gateway.https);
            get.cacert(&gateway.dir().join("root.pem")).try_send().ok()
        });
        let busy = Self {
            gateway,
            origin,
            _issuer: issuer,
        };
        busy.use_it();
        busy
    }

    /// Some of everything that is counted.
    fn use_it(&self) {
        let gateway = &self.gateway;
        let root = gateway.dir().join("root.pem");
        let url = format!("https://a.test:{}/", gateway.https.port());
        let get = curl(&url)
            .resolve("a.test", gateway.https)
            .cacert(&root)
            .arg("-H")
            .arg(format!("Traceparent: 00-{TRACE}-00f067aa0ba902b7-01"));
        assert_eq!(get.send().status, 200);
        let plain = |head: &str| exchange(&mut connect(gateway.http), head);
        let dead = plain("GET / HTTP/1.1\r\nHost: dead.test\r\nConnection: close\r\n\r\n");
        assert!(dead.starts_with(b"HTTP/1.1 502"));
        let malformed = plain("GET / HTTP/1.1\r\nHost: a.test\r\nHost: b.test\r\n\r\n");
        assert!(malformed.starts_with(b"HTTP/1.1 400"));
        // A client without a certificate, one that trusts nobody, and one that is none.
        let strict = TlsClient::named("strict.test").try_connect(gateway.https);
        drop(strict.map(|mut stream| stream.exchange("GET / HTTP/1.1\r\n\r\n")));
        let untrusting = curl(&url).resolve("a.test", gateway.https).try_send();
        assert!(untrusting.is_err());
        exchange(
            &mut connect(gateway.https),
            "GET / HTTP/1.1\r\nHost: a.test\r\n\r\n",
        );
        _ = TlsClient::named("x.demand.test").try_connect(gateway.https);
        let app = self.origin.address();
        let drain = format!("/api/v1/upstreams/app/servers/{app}/drain");
        assert_eq!(gateway.ask("POST", &drain).status, 200);
        assert_eq!(gateway.reload().0, 200);
        wait_for("the limit of the CA", || {
            gateway.metric(r#"snigate_certificate_renewals_total{issuer="fake",result="failed"}"#)
        });
        for reason in ["client_certificate", "refused_by_client", "not_tls"] {
            let failed = format!("snigate_tls_handshake_failures_total{{reason={reason:?}}}");
            wait_for(&failed, || {
                gateway.metric(&failed).filter(|count| *count >= 1.0)
            });
        }
    }
}
