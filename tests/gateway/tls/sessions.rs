//! Sessions are resumed for the name and the policy that they were made for.

use std::io::Write;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};

use openssl::ssl::SslVersion;

use super::{gateway, metric_sum};
use crate::support::{Gateway, TlsClient};

/// A request by `openssl s_client`, which keeps a session in a file or resumes the one there.
/// Whether it was resumed, and what came.
fn by_session(
    address: SocketAddr,
    name: &str,
    version: &str,
    option: &str,
    file: &Path,
) -> (bool, String) {
    let mut child = Command::new("openssl")
        .args([
            "s_client",
            "-connect",
            &address.to_string(),
            "-servername",
            name,
        ])
        .args([version, "-ign_eof", option])
        .arg(file)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("openssl is installed");
    let request = format!("GET / HTTP/1.1\r\nHost: {name}\r\nConnection: close\r\n\r\n");
    let mut stdin = child.stdin.take().expect("a pipe");
    stdin.write_all(request.as_bytes()).expect("taken");
    let output = child.wait_with_output().expect("an end");
    drop(stdin);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        said.contains("\nNew, ") || said.contains("\nReused, "),
        "{said}"
    );
    (said.contains("\nReused, "), said)
}

#[test]
fn sessions_are_resumed_for_the_same_name_and_never_for_another() {
    // The wildcard's own certificate covers both of its names, and still a session is of one.
    let gateway = gateway("tls: { default_certificate: a.example }\n");
    for version in ["-tls1_2", "-tls1_3"] {
        let file = gateway.dir().join(format!("session{version}"));
        let go = |name: &str, option: &str| by_session(gateway.https, name, version, option, &file);
        let (resumed, said) = go("y.wild.example", "-sess_out");
        assert!(!resumed && said.contains("200 OK"), "{said}");
        for _ in 0..2 {
            let (resumed, said) = go("y.wild.example", "-sess_in");
            assert!(resumed, "{version}: {said}");
            assert!(said.contains("*.wild.example"), "{said}");
        }
        let (resumed, _) = go("Y.Wild.Example", "-sess_in");
        assert!(resumed, "{version}: the same name in other letters");
        for other in [
            "z.wild.example",
            "x.wild.example",
            "a.example",
            "unknown.example",
        ] {
            let (resumed, said) = go(other, "-sess_in");
            assert!(!resumed, "{version}: {other}: {said}");
        }
    }
    let resumed = |version: &str| {
        metric_sum(
            &gateway,
            "snigate_tls_handshakes_total",
            &["result=\"ok\"", "resumed=\"true\"", version],
        )
    };
    assert_eq!((resumed("TLSv1.2"), resumed("TLSv1.3")), (3.0, 3.0));
}

#[test]
fn a_session_is_good_across_a_reload_but_not_across_another_policy() {
    let mut gateway = gateway("");
    let config = std::fs::read_to_string(&gateway.config).expect("readable");
    let rest = config
        .split_once("certificates:")
        .expect("certificates")
        .1
        .to_owned();
    let session = |gateway: &Gateway| {
        let client = TlsClient::named("a.example").version(SslVersion::TLS1_3);
        let mut stream = client.connect(gateway.https);
        assert_eq!(stream.get("a.example", "/").status, 200);
        stream.session().expect("a ticket")
    };
    let resumes = |gateway: &Gateway, session: &openssl::ssl::SslSessionRef| {
        let client = TlsClient::named("a.example").version(SslVersion::TLS1_3);
        let mut stream = client.session(session).connect(gateway.https);
        assert_eq!(stream.get("a.example", "/").text(), "a.example");
        stream.resumed()
    };
    let before = session(&gateway);
    assert!(resumes(&gateway, &before));
    assert_eq!(gateway.reload().0, 200);
    assert!(resumes(&gateway, &before), "a reload costs no session");

    gateway.replace_config(format!("tls: {{ profile: modern }}\ncertificates:{rest}"));
    assert_eq!(gateway.reload().0, 200);
    assert!(!resumes(&gateway, &before), "made under another policy");
    let under_modern = session(&gateway);
    assert!(resumes(&gateway, &under_modern));
    gateway.replace_config(format!(
        "tls: {{ profile: modern, session_tickets: off }}\ncertificates:{rest}"
    ));
    assert_eq!(gateway.reload().0, 200);
    assert!(!resumes(&gateway, &under_modern), "tickets are off");
    let client = TlsClient::named("a.example");
    let mut stream = client.connect(gateway.https);
    assert_eq!(stream.get("a.example", "/").status, 200);
    assert!(stream.session().is_none(), "none is given either");

    // Keys live in memory alone.
    gateway.replace_config(format!("certificates:{rest}"));
    gateway.restart();
    assert!(!resumes(&gateway, &before));
}
