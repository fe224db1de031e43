//! Validations by CAs, answered on the listeners that serve everyone else, and sites that are
//! served without TLS until they have a certificate.

use std::fs;
use std::net::SocketAddr;
use std::sync::Arc;

use arc_swap::ArcSwap;
use openssl::sha::sha256;
use openssl::ssl::SslVersion;
use openssl::x509::X509;
use snigate::certificate::sni::SniMap;
use snigate::certificate::{Loader, Source};
use snigate::challenge::{
    Challenge, ChallengeSolver, ChallengeType, Challenges, Http01Solver, TlsAlpn01Solver,
};
use snigate::clock::SystemClock;
use snigate::config::model::Config;
use snigate::edge::{Edge, Listener, ListenerKind};
use snigate::metrics::Metrics;
use snigate::proxy::{Gateway, ProxyApp, SiteTable};
use snigate::service::state;
use snigate::storage::{MemoryStorage, Storage};
use snigate::tls::{GlobalCertificate, Snapshot};
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio::sync::watch;

use crate::support::{Ca, H2, Response, TlsClient, connect, exchange, read_response};

const ACME: &str = "acme-tls/1";

const VERSIONS: [SslVersion; 2] = [SslVersion::TLS1_2, SslVersion::TLS1_3];

/// A gateway in this process, without a manager: the test says what is presented and validated.
struct Here {
    http: SocketAddr,
    https: SocketAddr,
    config: Config,
    sites: Arc<ArcSwap<SiteTable>>,
    certificates: GlobalCertificate,
    metrics: Metrics,
    solvers: [Box<dyn ChallengeSolver>; 2],
    storage: Arc<dyn Storage>,
    runtime: Runtime,
    stop: watch::Sender<bool>,
    dir: TempDir,
}

impl Here {
    /// One for `a.example` and `b.example`, and for `plain.example` without TLS.
    fn start(rest: &str) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("snigate.yaml");
        let log = dir.path().join("access.log");
        let yaml = format!(
            "sites:\n\
             - {{ hosts: [a.example], routes: [{{ respond: {{ body: the site }} }}] }}\n\
             - {{ hosts: [b.example], routes: [{{ respond: {{ body: another }} }}] }}\n\
             - {{ hosts: [plain.example], tls: off, routes: [{{ respond: {{ body: backend }} }}] }}\n\
             log: {{ access: {} }}\n\
             {rest}\n",
            log.display()
        );
        fs::write(&file, yaml).expect("written");
        let config = snigate::config::load(&file)
            .expect("a good configuration")
            .config;
        let metrics = Metrics::new().expect("metrics");
        let storage: Arc<dyn Storage> = Arc::new(MemoryStorage::default());
        let clock = Arc::new(SystemClock);
        let challenges = Challenges::stored_in(Arc::clone(&storage), Arc::clone(&clock) as _);
        let certificates =
            GlobalCertificate::new(metrics.clone(), challenges.clone()).expect("OpenSSL");
        let sites = Arc::new(ArcSwap::from_pointee(SiteTable::build(
            &config, &metrics, None,
        )));
        let access = state::access_log(&config, &metrics).expect("a log");
        let gateway = Gateway::new(
            Arc::clone(&sites),
            &metrics,
            Arc::new(ArcSwap::from_pointee(access)),
            certificates.clone(),
        );
        let edge = Edge::new(
            Arc::new(ProxyApp::new(gateway, &config, 8)),
            certificates.clone(),
            state::settings(&certificates, &config).expect("OpenSSL"),
            metrics.clone(),
            100,
            1,
        );
        let runtime = Runtime::new().expect("a runtime");
        let (stop, stopped) = watch::channel(false);
        let listen = |kind| {
            let _inside = runtime.enter();
            let any = "127.0.0.1:0".parse().expect("an address");
            let listener = Listener::bind(any, kind).expect("a port");
            let address = listener.address();
            runtime.spawn(Arc::clone(&edge).run(listener, stopped.clone()));
            address
        };
        let here = Self {
            http: listen(ListenerKind::Http),
            https: listen(ListenerKind::Https),
            config,
            sites,
            certificates,
            metrics,
            solvers: [
                Box::new(Http01Solver::new(
                    challenges.clone(),
                    Arc::clone(&storage),
                    Arc::clone(&clock) as _,
                )),
                Box::new(TlsAlpn01Solver::new(
                    challenges,
                    Arc::clone(&storage),
                    clock,
                )),
            ],
            storage,
            runtime,
            stop,
            dir,
        };
        here.present(&[]);
        here
    }

    /// Presents certificates for these names and no others.
    fn present(&self, names: &[&str]) {
        let ca = Ca::new("Root");
        let loader = Loader::new().expect("OpenSSL");
        let certificates: Vec<_> = names
            .iter()
            .map(|name| {
                let pair = ca.leaf(&[name]).make();
                let loaded =
                    loader.load_pair(pair.chain.as_bytes(), pair.key.as_bytes(), Source::Program);
                Arc::new(loaded.expect("a good pair").certificate)
            })
            .collect();
        self.certificates.publish(Snapshot {
            certificates: Arc::new(SniMap::of(&certificates, 0)),
            unknown_sni: self.config.tls.unknown_sni,
            attachment: Some(self.sites.load_full()),
        });
    }

    fn solver(&self, kind: ChallengeType) -> &dyn ChallengeSolver {
        let solver = self.solvers.iter().find(|solver| solver.kind() == kind);
        &**solver.expect("a solver of each kind")
    }

    /// Lets a validation begin.
    fn begin(&self, kind: ChallengeType, domain: &str) -> Challenge {
        let challenge = Challenge {
            kind,
            domain: domain.parse().expect("a name"),
            token: "Token_-1".to_owned(),
            key_authorization: "Token_-1.thumbprint".to_owned(),
            dns: None,
        };
        let presented = self.solver(kind).present(&challenge);
        self.runtime.block_on(presented).expect("presented");
        challenge
    }

    fn end(&self, challenge: &Challenge) {
        self.runtime
            .block_on(self.solver(challenge.kind).clean_up(challenge));
    }

    /// A plain request.
    fn ask(&self, method: &str, host: &str, path: &str) -> Response {
        let mut stream = connect(self.http);
        let request =
            format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        if method == "HEAD" {
            let answer = String::from_utf8(exchange(&mut stream, request)).expect("text");
            let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
            assert_eq!(body, "");
            return Response {
                status: head[9..12].parse().expect("a status"),
                head: format!("{head}\r\n\r\n"),
                body: Vec::new(),
            };
        }
        std::io::Write::write_all(&mut stream, request.as_bytes()).expect("sent");
        read_response(&mut stream).expect("an answer")
    }

    fn handshakes(&self, result: &str) -> u64 {
        let text = String::from_utf8(self.metrics.render().expect("metrics")).expect("text");
        let label = format!("result=\"{result}\"");
        text.lines()
            .filter(|line| line.starts_with("snigate_tls_handshakes_total{"))
            .filter(|line| line.contains(&label))
            .map(|line| line.rsplit(' ').next().expect("a value"))
            .map(|value| value.parse::<u64>().expect("a number"))
            .sum()
    }
}

impl Drop for Here {
    fn drop(&mut self) {
        self.stop.send_replace(true);
    }
}

fn validating(name: &str) -> TlsClient {
    TlsClient::named(name).alpn(&[ACME])
}

/// Whether a certificate has the digest of the validation that [`Here::begin`] begins.
fn has_digest(certificate: &X509) -> bool {
    let extension = [
        b"\x06\x08\x2b\x06\x01\x05\x05\x07\x01\x1f\x01\x01\xff\x04\x22\x04\x20".as_slice(),
        &sha256(b"Token_-1.thumbprint"),
    ]
    .concat();
    let der = certificate.to_der().expect("DER");
    memchr::memmem::find(&der, &extension).is_some()
}

#[test]
fn a_first_certificate_is_validated_by_tls_before_the_name_has_any() {
    for rest in ["", "tls: { unknown_sni: reject }"] {
        let here = Here::start(rest);
        let refused = |client: TlsClient, alert: &str| {
            let error = client.try_connect(here.https).err().expect("refused");
            assert!(error.contains(alert), "{error}");
        };
        refused(validating("a.example"), "no application protocol");
        let challenge = here.begin(ChallengeType::TlsAlpn01, "a.example");
        for version in VERSIONS {
            let mut seen = validating("A.Example").version(version).connect(here.https);
            assert_eq!(seen.alpn().as_deref(), Some(ACME));
            assert_eq!(seen.names(), ["a.example"]);
            assert!(has_digest(&seen.certificate()));
            // The gateway closes, in order, and says nothing in HTTP.
            assert_eq!(seen.exchange(""), b"");
            assert!(seen.session().is_none(), "no ticket");
            refused(
                validating("b.example").version(version),
                "no application protocol",
            );
            refused(
                TlsClient::nameless().alpn(&[ACME]).version(version),
                "no application protocol",
            );
            refused(
                TlsClient::named("a.example").version(version),
                "unrecognized name",
            );
        }
        assert_eq!(here.handshakes("challenge"), 2);
        assert_eq!(here.handshakes("ok"), 0);
        here.end(&challenge);
        refused(validating("a.example"), "no application protocol");
    }
}

#[test]
fn everyone_else_on_a_name_is_served_as_always_while_it_is_validated() {
    let here = Here::start("");
    here.present(&["a.example", "b.example"]);
    let challenge = here.begin(ChallengeType::TlsAlpn01, "a.example");
    for version in VERSIONS {
        for protocols in [&["http/1.1"][..], &[ACME, "http/1.1"], &["http/1.1", ACME]] {
            let client = TlsClient::named("a.example").alpn(protocols);
            let mut seen = client.version(version).connect(here.https);
            assert_eq!(seen.alpn().as_deref(), Some("http/1.1"));
            assert!(!has_digest(&seen.certificate()));
            assert_eq!(seen.get("a.example", "/").text(), "the site");
        }
        let mut seen = TlsClient::named("a.example").connect(here.https);
        assert_eq!(
            (seen.alpn(), has_digest(&seen.certificate())),
            (None, false)
        );
        assert_eq!(seen.get("a.example", "/").text(), "the site");
        let both = TlsClient::named("a.example").alpn(&[ACME, "h2"]);
        assert_eq!(both.connect(here.https).alpn().as_deref(), Some("h2"));
        for protocols in [&[ACME, "other"][..], &[ACME, ACME]] {
            let client = TlsClient::named("a.example").alpn(protocols);
            let error = client.version(version).try_connect(here.https).err();
            assert!(error.expect("refused").contains("no application protocol"));
        }
        let validated = validating("a.example").version(version).connect(here.https);
        assert!(has_digest(&validated.certificate()));
        let error = validating("b.example")
            .version(version)
            .try_connect(here.https);
        let error = error.err().expect("refused");
        assert!(error.contains("no application protocol"), "{error}");
    }
    here.end(&challenge);
    let error = validating("a.example").try_connect(here.https).err();
    assert!(error.expect("refused").contains("no application protocol"));
}

#[test]
fn no_session_leads_from_a_visit_to_a_validation_or_back() {
    let here = Here::start("");
    here.present(&["a.example"]);
    let _challenge = here.begin(ChallengeType::TlsAlpn01, "a.example");
    for version in VERSIONS {
        let visit = || TlsClient::named("a.example").version(version);
        let mut first = visit().connect(here.https);
        first.get("a.example", "/");
        let session = first.session().expect("a ticket");
        assert!(visit().session(&session).connect(here.https).resumed());
        let mut validated = validating("a.example")
            .version(version)
            .session(&session)
            .connect(here.https);
        assert!(!validated.resumed(), "{version:?}");
        assert!(has_digest(&validated.certificate()));
        assert_eq!(validated.exchange(""), b"");
        assert!(validated.session().is_none(), "{version:?}");
    }
}

#[test]
fn a_pending_token_is_answered_on_every_listener_before_all_else() {
    let here = Here::start("");
    here.present(&["a.example", "b.example"]);
    let path = "/.well-known/acme-challenge/Token_-1";
    assert_eq!(here.ask("GET", "a.example", path).status, 308);
    let challenge = here.begin(ChallengeType::Http01, "a.example");

    for host in ["a.example", "A.Example.", "a.example:8080"] {
        let answer = here.ask("GET", host, path);
        assert_eq!(
            (answer.status, &*answer.text()),
            (200, "Token_-1.thumbprint")
        );
        let field = |name| answer.header(name).map(str::to_owned);
        assert_eq!(
            field("content-type").as_deref(),
            Some("application/octet-stream")
        );
        assert_eq!(field("cache-control").as_deref(), Some("no-store"));
    }
    let head = here.ask("HEAD", "a.example", path);
    assert_eq!(
        (head.status, head.header("content-length")),
        (200, Some("19"))
    );
    // A front may have sent the CA to TLS.
    let mut tls = TlsClient::named("a.example").connect(here.https);
    assert_eq!(tls.get("a.example", path).text(), "Token_-1.thumbprint");
    assert_eq!(tls.get("a.example", "/").text(), "the site");
    let mut h2 = H2::connect(here.https, "a.example");
    assert_eq!(h2.get(path).text(), "Token_-1.thumbprint");

    // Whatever else goes the way of all requests.
    for (host, path) in [
        ("b.example", path),
        ("a.example", "/.well-known/acme-challenge/Token_-2"),
        ("a.example", "/.well-known/acme-challenge/token_-1"),
        ("a.example", "/.well-known/acme-challenge/Token_-1/"),
        ("a.example", "/.well-known/acme-challenge/"),
        ("a.example", "/x/../.well-known/acme-challenge/Token_-1"),
    ] {
        assert_eq!(here.ask("GET", host, path).status, 308, "{host} {path}");
    }
    assert_eq!(here.ask("POST", "a.example", path).status, 308);
    assert_eq!(here.ask("GET", "unknown.example", path).status, 404);
    assert_eq!(here.ask("GET", "plain.example", path).text(), "backend");
    assert_eq!(here.ask("GET", "127.0.0.1", path).status, 404);

    here.end(&challenge);
    assert_eq!(here.ask("GET", "a.example", path).status, 308);
    let lines = crate::support::wait_for("the access log", || {
        let text = fs::read_to_string(here.dir.path().join("access.log")).ok()?;
        (text.lines().count() >= 18).then_some(text)
    });
    let answered = lines
        .lines()
        .filter(|line| line.contains("Token_-1") && line.contains("200"));
    assert!(answered.count() >= 6, "{lines}");
}

#[test]
fn a_token_that_another_instance_has_just_stored_is_answered() {
    let here = Here::start("");
    let path = "/.well-known/acme-challenge/Token_-1";
    assert_eq!(here.ask("GET", "a.example", path).status, 308);
    // This one is told of nothing: it looks.
    let other = Http01Solver::new(
        Challenges::default(),
        Arc::clone(&here.storage),
        Arc::new(SystemClock),
    );
    let challenge = Challenge {
        kind: ChallengeType::Http01,
        domain: "a.example".parse().expect("a name"),
        token: "Token_-1".to_owned(),
        key_authorization: "Token_-1.thumbprint".to_owned(),
        dns: None,
    };
    let presented = other.present(&challenge);
    here.runtime.block_on(presented).expect("presented");
    for (host, path) in [
        ("b.example", path),
        ("a.example", "/.well-known/acme-challenge/1"),
    ] {
        assert_eq!(here.ask("GET", host, path).status, 308, "{host} {path}");
    }
    assert_eq!(here.ask("POST", "a.example", path).status, 308);
    assert_eq!(
        here.ask("GET", "a.example", path).text(),
        "Token_-1.thumbprint"
    );
}

#[test]
fn a_site_without_a_certificate_is_served_plainly_only_where_tls_is_optional() {
    let plain = |here: &Here, host: &str| {
        let answer = here.ask("GET", host, "/x?y");
        assert!(answer.header("strict-transport-security").is_none());
        (answer.status, answer.text())
    };
    let moved = |answer: (u16, String)| assert_eq!(answer.0, 308);
    let here = Here::start("");
    moved(plain(&here, "a.example"));

    let here = Here::start("server: { https_optional: true }");
    assert_eq!(plain(&here, "a.example"), (200, "the site".to_owned()));
    assert_eq!(plain(&here, "b.example"), (200, "another".to_owned()));
    assert_eq!(plain(&here, "unknown.example").0, 404);
    here.present(&["a.example"]);
    moved(plain(&here, "a.example"));
    moved(plain(&here, "A.example.:80"));
    assert_eq!(plain(&here, "b.example"), (200, "another".to_owned()));
    let mut tls = TlsClient::named("a.example").connect(here.https);
    assert_eq!(tls.get("a.example", "/").text(), "the site");
    here.present(&["a.example", "*.example"]);
    moved(plain(&here, "b.example"));
}
