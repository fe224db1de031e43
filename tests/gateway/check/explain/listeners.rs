//! Requests and connections by where they arrive.

use super::{CONFIG, config, explain};

#[test]
fn connections_that_are_passed_on_are_explained() {
    let (_dir, path) = config();
    for (request, answer) in [
        (
            "https://raw.example/x",
            "by a server of the upstream app: the connection is passed through\n",
        ),
        (
            "http://raw.example/x",
            "308 redirect to https://raw.example:8443/x\n",
        ),
        (
            "https://tcp.example/",
            "by a server of the upstream app: it gets the octets within TLS",
        ),
        ("http://tcp.example/", "421 Misdirected Request"),
    ] {
        let printed = explain(&path, &[request]);
        let line = format!("answer: {answer}");
        assert!(printed.stdout.contains(&line), "{printed:?}");
    }
}

#[test]
fn a_listener_with_sites_of_its_own_is_named() {
    let (_dir, path) = config();
    let inside = explain(
        &path,
        &["https://a.example/inside", "--at", "127.0.0.1:9443"],
    );
    assert_eq!(inside.code, Some(0), "{}", inside.stderr);
    assert!(inside.stdout.contains("/inside"), "{}", inside.stdout);
    let line = CONFIG.lines().position(|line| line.contains("/inside"));
    let place = format!("snigate.yaml:{}:", line.expect("it is there") + 1);
    assert!(inside.stdout.contains(&place), "{}", inside.stdout);
    let outside = explain(
        &path,
        &["https://a.example/inside", "--at", "127.0.0.1:8443"],
    );
    assert_eq!(
        outside.stdout,
        explain(&path, &["https://a.example/inside"]).stdout
    );
    assert!(!outside.stdout.contains(&place), "{}", outside.stdout);
    let other = explain(&path, &["https://b.b.example/", "--at", "127.0.0.1:9443"]);
    assert!(other.stdout.contains("421"), "{}", other.stdout);
    let unknown = explain(&path, &["https://a.example/", "--at", ":9443"]);
    assert_eq!(unknown.code, Some(2));
    assert!(
        unknown.stderr.contains("no listener at :9443"),
        "{}",
        unknown.stderr
    );
    assert!(
        unknown.stderr.contains("127.0.0.1:8443, 127.0.0.1:9443"),
        "{}",
        unknown.stderr
    );
}
