//! A gateway in this process, without a manager: the test says what is presented and validated.

use std::fs;
use std::net::SocketAddr;
use std::sync::Arc;

use arc_swap::ArcSwap;
use snigate::certificate::sni::SniMap;
use snigate::certificate::{Loader, Source};
use snigate::challenge::{
    Challenge, ChallengeSolver, ChallengeType, Challenges, Http01Solver, TlsAlpn01Solver,
};
use snigate::clock::{SystemClock, UnixTime};
use snigate::config::model::Config;
use snigate::edge::{Edge, Listener, ListenerKind};
use snigate::metrics::{Format, Metrics};
use snigate::proxy::{Gateway, ProxyApp, SiteTable};
use snigate::reload;
use snigate::storage::{MemoryStorage, Storage};
use snigate::tls::{GlobalCertificate, Snapshot};
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio::sync::watch;

use crate::support::{Ca, Response, connect, exchange, read_response};

/// A gateway in this process, without a manager: the test says what is presented and validated.
pub(super) struct Fixture {
    pub(super) http: SocketAddr,
    pub(super) https: SocketAddr,
    pub(super) config: Config,
    pub(super) sites: Arc<ArcSwap<SiteTable>>,
    pub(super) certificates: GlobalCertificate,
    pub(super) metrics: Metrics,
    pub(super) solvers: [Box<dyn ChallengeSolver>; 2],
    pub(super) storage: Arc<dyn Storage>,
    pub(super) runtime: Runtime,
    pub(super) stop: watch::Sender<bool>,
    pub(super) dir: TempDir,
}

impl Fixture {
    /// One for `a.example` and `b.example`, and for `plain.example` without TLS.
    pub(super) fn start(rest: &str) -> Self {
        Self::with_site("", rest)
    }

    /// One with another site.
    pub(super) fn with_site(site: &str, rest: &str) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("snigate.yaml");
        let log = dir.path().join("access.log");
        let yaml = format!(
            "sites:\n\
             - {{ hosts: [a.example], routes: [{{ respond: {{ body: the site }} }}] }}\n\
             - {{ hosts: [b.example], routes: [{{ respond: {{ body: another }} }}] }}\n\
             - {{ hosts: [plain.example], tls: off, routes: [{{ respond: {{ body: backend }} }}] }}\n\
             {site}\n\
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
        let access = reload::access_log(&config, &metrics).expect("a log");
        let gateway = Gateway::new(
            Arc::clone(&sites),
            &metrics,
            Arc::new(ArcSwap::from_pointee(access)),
            certificates.clone(),
        );
        let edge = Edge::new(
            Arc::new(ProxyApp::new(gateway, &config, 8)),
            certificates.clone(),
            reload::settings(&certificates, &config).expect("OpenSSL"),
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
            let address = listener.address().ip().expect("an address");
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
    pub(super) fn present(&self, names: &[&str]) {
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
            certificates: Arc::new(SniMap::of(&certificates, UnixTime::default())),
            unknown_sni: self.config.tls.unknown_sni,
            attachment: Some(self.sites.load_full()),
            policies: Arc::default(),
        });
    }

    pub(super) fn solver(&self, kind: ChallengeType) -> &dyn ChallengeSolver {
        let solver = self.solvers.iter().find(|solver| solver.kind() == kind);
        &**solver.expect("a solver of each kind")
    }

    /// Lets a validation begin.
    pub(super) fn begin(&self, kind: ChallengeType, domain: &str) -> Challenge {
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

    pub(super) fn end(&self, challenge: &Challenge) {
        self.runtime
            .block_on(self.solver(challenge.kind).clean_up(challenge));
    }

    /// A plain request.
    pub(super) fn ask(&self, method: &str, host: &str, path: &str) -> Response {
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

    pub(super) fn handshakes(&self, result: &str) -> u64 {
        let text = String::from_utf8(self.metrics.render(Format::Text)).expect("text");
        let label = format!("result=\"{result}\"");
        text.lines()
            .filter(|line| line.starts_with("snigate_tls_handshakes_total{"))
            .filter(|line| line.contains(&label))
            .map(|line| line.rsplit(' ').next().expect("a value"))
            .map(|value| value.parse::<u64>().expect("a number"))
            .sum()
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        self.stop.send_replace(true);
    }
}
