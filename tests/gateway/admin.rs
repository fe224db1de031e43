//! The admin interface of a running gateway: what monitors and the command line rely on.

use std::process::{Command, Output};

use crate::support::{Gateway, exchange, wait_for};

const SITE: &str = r#"
issuers: { local: { local_ca: { name: "Test CA" } } }
sites:
  - hosts: [a.localhost]
    tls: local
    routes: [{ respond: { status: 200, body: first } }]
"#;

/// The command line, speaking to this gateway.
fn snigate(gateway: &Gateway, verb: &str, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_snigate"))
        .args([verb, "--admin", &gateway.admin.to_string()])
        .args(arguments)
        .env_remove("SNIGATE_TOKEN")
        .output()
        .expect("the program starts")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("text")
}

#[test]
fn what_runs_is_told() {
    let gateway = Gateway::start(SITE);
    assert_eq!(gateway.ask("GET", "/healthz").status, 200);

    let status = gateway.ask("GET", "/api/v1/status");
    let status: serde_json::Value = serde_json::from_slice(&status.body).expect("JSON");
    assert_eq!(status["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(status["pid"], gateway.pid());
    assert_eq!(
        status["config_file"],
        gateway.config.to_str().expect("text")
    );

    let sites = gateway.ask("GET", "/api/v1/sites");
    let sites: serde_json::Value = serde_json::from_slice(&sites.body).expect("JSON");
    assert_eq!(sites[0]["hosts"][0], "a.localhost");

    let certificates = gateway.ask("GET", "/api/v1/certificates").text();
    assert!(!certificates.contains("PRIVATE"), "{certificates}");
    let certificates: serde_json::Value = serde_json::from_str(&certificates).expect("JSON");
    assert_eq!(certificates[0]["name"], "a.localhost");
    assert_eq!(certificates[0]["source"], "local");
    assert_eq!(
        certificates[0]["fingerprint"].as_str().map(str::len),
        Some(64)
    );

    assert!(
        gateway
            .ask("GET", "/metrics")
            .text()
            .contains("# TYPE snigate_")
    );
    let missing = gateway.ask("GET", "/api/v1/keys");
    assert_eq!(missing.status, 404);
    assert_eq!(
        missing.header("content-type"),
        Some("application/problem+json")
    );

    let shown = snigate(&gateway, "status", &[]);
    assert!(shown.status.success(), "{}", text(&shown.stderr));
    assert!(
        text(&shown.stdout).contains("ready          yes"),
        "{}",
        text(&shown.stdout)
    );
}

#[test]
fn a_reload_is_taken_or_refused_as_a_whole() {
    let mut gateway = Gateway::start(SITE);
    gateway.replace_config(SITE.replace("first", "second"));
    let output = snigate(&gateway, "reload", &[]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let body = || {
        gateway
            .curl("a.localhost", "/")
            .arg("--insecure")
            .send()
            .text()
    };
    assert_eq!(body(), "second");
    assert_eq!(
        gateway.metric("snigate_config_last_reload_successful"),
        Some(1.0)
    );

    gateway.write_config("sites: nonsense\n");
    let (status, problem) = gateway.reload();
    assert_eq!(status, 400, "{problem}");
    assert!(problem["errors"][0]["line"].is_u64(), "{problem}");
    let output = snigate(&gateway, "reload", &[]);
    assert_eq!(output.status.code(), Some(3));
    let place = format!("{}:", gateway.config.display());
    assert!(
        text(&output.stderr).starts_with(&place),
        "{}",
        text(&output.stderr)
    );
    assert_eq!(body(), "second");
    assert_eq!(
        gateway.metric("snigate_config_last_reload_successful"),
        Some(0.0)
    );
}

#[test]
fn a_token_is_asked_for_where_one_is_configured() {
    let gateway = Gateway::builder()
        .token("correct-horse")
        .config(SITE)
        .start();
    assert_eq!(gateway.ask("GET", "/api/v1/status").status, 200);

    let refused = snigate(&gateway, "status", &["--token", "wrong"]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(text(&refused.stderr).contains("--token"));
    let shown = snigate(&gateway, "status", &["--token", "correct-horse"]);
    assert!(shown.status.success(), "{}", text(&shown.stderr));

    let log = gateway.log();
    assert!(!log.contains("correct-horse"), "{log}");
}

#[test]
fn a_name_of_another_site_gets_nothing() {
    let gateway = Gateway::start(SITE);
    let request = "GET /metrics HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n";
    let answer = exchange(&mut crate::support::connect(gateway.admin), request);
    assert!(answer.starts_with(b"HTTP/1.1 403 "), "{}", text(&answer));
}

#[test]
fn a_stop_is_graceful() {
    let mut gateway = Gateway::start(SITE);
    let output = snigate(&gateway, "stop", &[]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert!(gateway.wait().success());
    wait_for("the admin port to be closed", || {
        std::net::TcpStream::connect(gateway.admin)
            .is_err()
            .then_some(())
    });
}
