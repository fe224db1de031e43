mod actions;
mod certificates;
mod events;

use crate::clock::unix;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use http::{Method, Request, StatusCode, header};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::watch;
use tower::ServiceExt;

use super::*;
use crate::config::model::Admin;

#[derive(Default)]
struct Fake {
    token: Option<&'static str>,
    rejects: bool,
    views: Vec<CertificateView>,
    refuses: Option<RenewError>,
    renewed: Mutex<Vec<(String, bool)>>,
    revoked: Mutex<Vec<(String, RevocationReason)>>,
    cared: Mutex<Vec<(String, AccountTask)>>,
    not_done: Option<ActionError>,
    events: EventBus,
    reloads: AtomicUsize,
    stops: AtomicUsize,
}

#[async_trait]
impl Control for Fake {
    fn token(&self) -> Option<Secret> {
        self.token.map(|token| Secret::new(token.to_owned()))
    }

    fn status(&self) -> Status {
        Status {
            version: "0.1.0".to_owned(),
            pid: 7,
            started: unix(1_700_000_000),
            uptime_seconds: 5,
            connections: 3,
            listeners: Vec::new(),
            config_file: "/etc/snigate/snigate.yaml".into(),
            last_reload: None,
        }
    }

    fn sites(&self) -> Vec<SiteView> {
        Vec::new()
    }

    fn upstreams(&self) -> Vec<UpstreamView> {
        Vec::new()
    }

    fn set_drained(&self, _: &str, _: &str, _: bool) -> bool {
        false
    }

    fn log(&self) -> LogView {
        LogView::default()
    }

    fn set_log_level(&self, level: &str) -> Result<LogView, String> {
        match level {
            "debug" => Ok(LogView {
                level: level.to_owned(),
                configured: "info".to_owned(),
            }),
            _ => Err("did you mean 'debug'?".to_owned()),
        }
    }

    async fn preflight(&self, name: Pattern, ports: Ports) -> PreflightView {
        PreflightView {
            name: name.to_string(),
            would_issue: true,
            note: format!("looked at {} and {}", ports.http, ports.https),
            issuers: Vec::new(),
        }
    }

    fn certificates(&self) -> Vec<CertificateView> {
        self.views.clone()
    }

    fn chain(&self, fingerprint: &str) -> Option<String> {
        Some(format!("the chain of {fingerprint}"))
    }

    fn renew(&self, subject: &str, force: bool) -> Result<CertificateView, RenewError> {
        if let Some(error) = &self.refuses {
            return Err(error.clone());
        }
        let mut renewed = self.renewed.lock().expect("not poisoned");
        renewed.push((subject.to_owned(), force));
        let is_meant = |view: &&CertificateView| {
            let renewal = view.renewal.as_ref();
            renewal.is_some_and(|renewal| renewal.subject == subject)
        };
        let view = self.views.iter().find(is_meant);
        view.cloned().ok_or(RenewError::Unknown)
    }

    async fn revoke(
        &self,
        fingerprint: &str,
        reason: RevocationReason,
    ) -> Result<bool, ActionError> {
        if let Some(error) = &self.not_done {
            return Err(error.clone());
        }
        let mut revoked = self.revoked.lock().expect("not poisoned");
        revoked.push((fingerprint.to_owned(), reason));
        Ok(true)
    }

    fn issuers(&self) -> Vec<IssuerView> {
        vec![IssuerView {
            name: "ca".to_owned(),
            kind: "acme".to_owned(),
            directory: Some("https://ca.test/dir".to_owned()),
        }]
    }

    async fn account(&self, issuer: &str, task: AccountTask) -> Result<AccountFacts, ActionError> {
        if let Some(error) = &self.not_done {
            return Err(error.clone());
        }
        let mut cared = self.cared.lock().expect("not poisoned");
        cared.push((issuer.to_owned(), task));
        Ok(AccountFacts {
            directory: "https://ca.test/dir".to_owned(),
            url: "https://ca.test/account/1".to_owned(),
            status: Some("valid".to_owned()),
            contacts: Vec::new(),
            bound_to: None,
            thumbprint: "thumb".to_owned(),
            note: None,
        })
    }

    fn events(&self) -> EventBus {
        self.events.clone()
    }

    async fn test_notifications(&self, hook: Option<&str>) -> Option<Vec<TestOutcome>> {
        let outcome = TestOutcome {
            name: "ops".to_owned(),
            kind: "webhook".to_owned(),
            delivered: true,
            error: None,
        };
        let is_known = hook.is_none_or(|hook| hook == outcome.name);
        is_known.then(|| vec![outcome])
    }

    async fn reload(&self) -> Result<ReloadSummary, ReloadError> {
        self.reloads.fetch_add(1, Ordering::Relaxed);
        if self.rejects {
            return Err(ReloadError::Rejected(vec![json!({ "message": "no" })]));
        }
        Ok(ReloadSummary {
            sites: 2,
            ..ReloadSummary::default()
        })
    }

    fn stop(&self) {
        self.stops.fetch_add(1, Ordering::Relaxed);
    }
}

fn admin(fake: Fake) -> (Arc<Fake>, AdminState) {
    let control = Arc::new(fake);
    let state = AdminState {
        control: control.clone(),
        metrics: Metrics::new().expect("metrics"),
        readiness: Readiness::default(),
        pulse: Pulse::default(),
        place: Place::Tcp("127.0.0.1:9180".parse().expect("an address")),
    };
    (control, state)
}

async fn ask(
    state: &AdminState,
    method: Method,
    path: &str,
    headers: &[(&str, &str)],
) -> (Response, Vec<u8>) {
    ask_with(state, method, path, headers, Body::empty()).await
}

async fn ask_with(
    state: &AdminState,
    method: Method,
    path: &str,
    headers: &[(&str, &str)],
    body: Body,
) -> (Response, Vec<u8>) {
    let mut request = Request::builder().method(method).uri(path);
    if !headers.iter().any(|(name, _)| *name == "host") {
        request = request.header("host", "127.0.0.1:9180");
    }
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let (_running, shutdown) = watch::channel(false);
    let connection = connection::Connection::new(shutdown);
    let request = request.extension(connection.clone());
    let request = request.body(body).expect("a request");
    let response = router(state.clone())
        .oneshot(request)
        .await
        .expect("infallible");
    let (parts, body) = response.into_parts();
    let body = body.collect().await.expect("a body").to_bytes().to_vec();
    connection.ended();
    (Response::from_parts(parts, Body::empty()), body)
}

fn problem((response, body): &(Response, Vec<u8>)) -> Value {
    assert_eq!(
        response.headers()[header::CONTENT_TYPE],
        "application/problem+json"
    );
    let problem: Value = serde_json::from_slice(body).expect("JSON");
    assert_eq!(problem["status"], response.status().as_u16());
    problem
}

#[tokio::test]
async fn readiness_says_what_it_waits_for() {
    let (_, state) = admin(Fake::default());
    assert_eq!(
        ask(&state, Method::GET, "/healthz", &[]).await.0.status(),
        StatusCode::OK
    );
    assert_eq!(
        ask(&state, Method::GET, "/readyz", &[]).await.0.status(),
        StatusCode::OK
    );

    state
        .readiness
        .set("certificates", vec!["a.example has none".to_owned()]);
    let waiting = ask(&state, Method::GET, "/readyz", &[]).await;
    assert_eq!(waiting.0.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(
        problem(&waiting)["waiting"]["certificates"][0],
        "a.example has none"
    );
}

#[tokio::test]
async fn what_runs_is_told() {
    let (_, state) = admin(Fake::default());
    let (response, body) = ask(&state, Method::GET, "/api/v1/status", &[]).await;
    let status: Value = serde_json::from_slice(&body).expect("JSON");
    assert_eq!(status["started"], "2023-11-14T22:13:20Z");
    assert_eq!(status["connections"], 3);

    assert_eq!(response.headers()[header::CACHE_CONTROL], "no-store");

    let (_, metrics) = ask(&state, Method::GET, "/metrics", &[]).await;
    let metrics = String::from_utf8(metrics).expect("text");
    assert!(
        metrics.contains("snigate_tls_unknown_names_total 0"),
        "{metrics}"
    );
}

#[tokio::test]
async fn a_reload_reports_its_result() {
    let (control, state) = admin(Fake::default());
    let (response, body) = ask(&state, Method::POST, "/api/v1/reload", &[]).await;
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(
        serde_json::from_slice::<Value>(&body).expect("JSON")["sites"],
        2
    );
    assert_eq!(control.reloads.load(Ordering::Relaxed), 1);

    let (_, state) = admin(Fake {
        rejects: true,
        ..Fake::default()
    });
    let refused = ask(&state, Method::POST, "/api/v1/reload", &[]).await;
    assert_eq!(refused.0.status(), StatusCode::BAD_REQUEST);
    assert_eq!(problem(&refused)["errors"][0]["message"], "no");
}

#[tokio::test]
async fn unknown_paths_and_methods_are_problems() {
    let (control, state) = admin(Fake::default());
    let missing = ask(&state, Method::GET, "/api/v1/keys", &[]).await;
    assert_eq!(missing.0.status(), StatusCode::NOT_FOUND);
    problem(&missing);

    let wrong = ask(&state, Method::GET, "/api/v1/stop", &[]).await;
    assert_eq!(wrong.0.status(), StatusCode::METHOD_NOT_ALLOWED);
    assert_eq!(wrong.0.headers()[header::ALLOW], "POST");
    problem(&wrong);
    assert_eq!(control.stops.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn a_token_guards_all_but_the_probes() {
    let (_, state) = admin(Fake {
        token: Some("correct horse"),
        ..Fake::default()
    });
    state
        .readiness
        .set("listeners", vec!["not bound".to_owned()]);
    for path in ["/metrics", "/api/v1/status", "/nothing"] {
        let refused = ask(&state, Method::GET, path, &[]).await;
        assert_eq!(refused.0.status(), StatusCode::UNAUTHORIZED, "{path}");
        assert!(refused.0.headers().contains_key(header::WWW_AUTHENTICATE));
        problem(&refused);
    }
    for wrong in [
        "Bearer correct hors",
        "Bearer ",
        "Basic correct horse",
        "correct horse",
    ] {
        let refused = ask(&state, Method::GET, "/metrics", &[("authorization", wrong)]).await;
        assert_eq!(refused.0.status(), StatusCode::UNAUTHORIZED, "{wrong}");
    }
    assert_eq!(
        ask(&state, Method::GET, "/healthz", &[]).await.0.status(),
        StatusCode::OK
    );
    let waiting = problem(&ask(&state, Method::GET, "/readyz", &[]).await);
    assert_eq!(waiting.get("waiting"), None);

    let headers = [
        ("authorization", "bearer correct horse"),
        ("host", "gateway.example"),
    ];
    let (response, _) = ask(&state, Method::GET, "/api/v1/status", &headers).await;
    assert_eq!(response.status(), StatusCode::OK);
}

#[tokio::test]
async fn pages_of_other_sites_get_nothing() {
    let (control, state) = admin(Fake::default());
    let rebound = ask(
        &state,
        Method::GET,
        "/api/v1/sites",
        &[("host", "evil.example")],
    )
    .await;
    assert_eq!(rebound.0.status(), StatusCode::FORBIDDEN);
    problem(&rebound);

    for header in [
        ("origin", "https://evil.example"),
        ("origin", "null"),
        ("sec-fetch-site", "cross-site"),
    ] {
        let refused = ask(&state, Method::POST, "/api/v1/stop", &[header]).await;
        assert_eq!(refused.0.status(), StatusCode::FORBIDDEN, "{header:?}");
    }
    assert_eq!(control.stops.load(Ordering::Relaxed), 0);

    let own = [
        ("origin", "http://127.0.0.1:9180"),
        ("sec-fetch-site", "same-origin"),
    ];
    let (response, _) = ask(&state, Method::POST, "/api/v1/stop", &own).await;
    assert_eq!(response.status(), StatusCode::ACCEPTED);
    assert_eq!(control.stops.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn a_huge_body_is_refused() {
    let (control, state) = admin(Fake::default());
    let huge = [("content-length", "1000000")];
    let (response, _) = ask(&state, Method::POST, "/api/v1/reload", &huge).await;
    assert_eq!(response.status(), StatusCode::PAYLOAD_TOO_LARGE);
    assert_eq!(control.reloads.load(Ordering::Relaxed), 0);
}

/// Sockets are bound before privileges are dropped, and so before there is any runtime.
#[test]
fn binding_needs_no_runtime() {
    let at = Admin::Tcp("127.0.0.1:0".parse().expect("an address"));
    let listener = Listener::bind(&at).expect("bound").expect("somewhere");
    let Ok(Place::Tcp(address)) = listener.place() else {
        panic!("a TCP listener")
    };
    assert_ne!(address.port(), 0);
    let taken = Listener::bind(&Admin::Tcp(address))
        .expect_err("in use")
        .to_string();
    assert!(taken.contains(&address.to_string()), "{taken}");
    assert!(
        Listener::bind(&Admin::Off)
            .expect("nothing to fail")
            .is_none()
    );
}

#[tokio::test]
async fn a_socket_is_private_and_replaces_only_a_dead_one() {
    use std::os::unix::fs::PermissionsExt;

    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("admin.sock");
    // A socket file that nobody listens on, as left by a killed gateway.
    drop(std::os::unix::net::UnixListener::bind(&path).expect("a socket"));
    let at = Admin::Unix(path.clone());
    let listener = Listener::bind(&at).expect("bound").expect("somewhere");
    let mode = std::fs::metadata(&path)
        .expect("a file")
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
    assert!(matches!(Listener::bind(&at), Err(BindError::InUse(_))));

    let (_, mut state) = admin(Fake::default());
    state.place = listener.place().expect("a place");
    let (stop, stopped) = watch::channel(false);
    let server = tokio::spawn(serve(listener, router(state), stopped));
    let mut client = tokio::net::UnixStream::connect(&path)
        .await
        .expect("connected");
    client
        .write_all(b"GET /api/v1/status HTTP/1.1\r\nHost: x\r\n\r\n")
        .await
        .expect("sent");
    let mut head = [0; 15];
    client.read_exact(&mut head).await.expect("an answer");
    assert_eq!(&head, b"HTTP/1.1 200 OK");

    stop.send(true).expect("the server listens");
    tokio::time::timeout(Duration::from_secs(5), server)
        .await
        .expect("an idle connection does not hold the stop")
        .expect("no panic");
    assert!(!path.exists());

    std::fs::write(&path, "precious").expect("written");
    assert!(matches!(Listener::bind(&at), Err(BindError::NotASocket(_))));
    assert!(path.exists());
}

#[tokio::test]
async fn without_a_token_only_loopback_is_trusted() {
    let (_, mut state) = admin(Fake::default());
    state.place = Place::Tcp("192.0.2.7:9180".parse().expect("an address"));
    for host in ["192.0.2.7:9180", "127.0.0.1:9180", "localhost"] {
        let answer = ask(&state, Method::GET, "/api/v1/status", &[("host", host)]).await;
        assert_eq!(answer.0.status(), StatusCode::FORBIDDEN, "{host}");
    }
    let alive = ask(&state, Method::GET, "/healthz", &[]).await;
    assert_eq!(alive.0.status(), StatusCode::OK);
}
