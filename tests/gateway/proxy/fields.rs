//! Which fields reach an upstream and a client.

use super::{VERSIONS, all, in_front_of, over};
use crate::support::{Act, Origin, TlsClient};

#[test]
fn what_clients_say_of_their_way_is_replaced() {
    let origin = Origin::echo();
    let gateway = in_front_of(&origin);
    for version in VERSIONS {
        let reply = over(version, &gateway, "a.test", "/")
            .args(["-H", "X-Forwarded-For: 6.6.6.6"])
            .args(["-H", "X-Forwarded-Proto: http"])
            .args(["-H", "X-Forwarded-Host: evil.test"])
            .args(["-H", "X-Forwarded-Port: 1"])
            .args(["-H", "X-Forwarded-Prefix: /evil"])
            .args(["-H", "X_Forwarded_For: 6.6.6.6"])
            .args(["-H", "X.Forwarded.Prefix: evil"])
            .args(["-H", "X~Real+IP: 6.6.6.6"])
            .args(["-H", "Content.Length: 6.6.6.6"])
            .args(["-H", "Client-IP: 6.6.6.6"])
            .args(["-H", "True-Client-IP: 6.6.6.6"])
            .args(["-H", "X-Original-URL: /evil"])
            .args(["-H", "X-Rewrite-URL: /evil"])
            .args(["-H", "X-Scheme: evil"])
            .args(["-H", "Front-End-Https: evil"])
            .args(["-H", "X-HTTP-Method-Override: PUT"])
            .args(["-H", "X-Real-IP: 6.6.6.6"])
            .args(["-H", "Forwarded: for=6.6.6.6"])
            .args(["-H", "X-Request-Id: evil"])
            .args(["-H", "Proxy: http://evil.test"])
            .send();
        let head = reply.text();
        let host = format!("a.test:{}", gateway.https.port());
        assert_eq!(all(&head, "host"), [&*host]);
        assert_eq!(all(&head, "x-forwarded-for"), ["127.0.0.1"]);
        assert_eq!(all(&head, "x-real-ip"), ["127.0.0.1"]);
        assert_eq!(all(&head, "x-forwarded-proto"), ["https"]);
        assert_eq!(all(&head, "x-forwarded-host"), [&*host]);
        let port = gateway.https.port().to_string();
        assert_eq!(all(&head, "x-forwarded-port"), [&*port]);
        let forwarded = format!("for=127.0.0.1;proto=https;host=\"{host}\"");
        assert_eq!(all(&head, "forwarded"), [&*forwarded]);
        assert_eq!(
            all(&head, "x-request-id"),
            [reply.header("x-request-id").expect("a name")]
        );
        assert_eq!(all(&head, "x-http-method-override"), ["PUT"]);
        for word in ["6.6.6.6", "evil", "Prefix"] {
            assert!(!head.contains(word), "{word} in {head}");
        }
    }
}

#[test]
fn what_belongs_to_one_connection_stays_there() {
    let origin = Origin::start(|request| {
        vec![Act::send(format!(
            "HTTP/1.1 200 OK\r\nConnection: keep-alive, X-Hop\r\nX-Hop: 1\r\n\
             Keep-Alive: timeout=9\r\nProxy-Authenticate: Basic\r\nX-End: 2\r\n\
             Content-Length: {}\r\n\r\n{}",
            request.head.len(),
            request.head
        ))]
    });
    let gateway = in_front_of(&origin);
    let mut stream = TlsClient::named("a.test").connect(gateway.https);
    let reply = stream.request(
        "GET / HTTP/1.1\r\nHost: a.test\r\nConnection: keep-alive, X-Secret, close-not\r\n\
         X-Secret: 1\r\nKeep-Alive: 300\r\nProxy-Connection: keep-alive\r\nTE: trailers\r\n\
         Proxy-Authorization: Basic eA==\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n\
         X-Stays: yes\r\n\r\n",
    );
    assert_eq!(reply.status, 200);
    let head = reply.text().to_ascii_lowercase();
    for field in [
        "x-secret",
        "keep-alive:",
        "proxy-connection",
        "proxy-authorization",
        "upgrade",
        "h2c",
    ] {
        assert!(!head.contains(field), "{field} in {head}");
    }
    assert_eq!(all(&head, "x-stays"), ["yes"]);
    for version in VERSIONS {
        let reply = over(version, &gateway, "a.test", "/").send();
        for field in ["x-hop", "keep-alive", "proxy-authenticate"] {
            assert_eq!(reply.header(field), None, "{field} over {version}");
        }
        assert_eq!(reply.header("x-end"), Some("2"));
    }
}

#[test]
fn an_upgrade_to_h2c_is_dropped() {
    let origin = Origin::echo();
    let gateway = in_front_of(&origin);
    for upgrade in ["h2c", "h2c, websocket", "websocket, h2c", "TLS/1.0"] {
        let mut stream = TlsClient::named("a.test").connect(gateway.https);
        let reply = stream.request(format!(
            "GET / HTTP/1.1\r\nHost: a.test\r\nConnection: Upgrade, HTTP2-Settings\r\n\
             Upgrade: {upgrade}\r\nHTTP2-Settings: AAMAAABk\r\n\r\n"
        ));
        assert_eq!(reply.status, 200, "{upgrade}");
        let head = reply.text().to_ascii_lowercase();
        assert!(!head.contains("upgrade"), "{upgrade}: {head}");
        assert!(!head.contains("http2-settings"), "{upgrade}: {head}");
    }
}

#[test]
fn cookies_that_http2_splits_are_one_field_again() {
    let origin = Origin::echo();
    let gateway = in_front_of(&origin);
    let reply = over("2", &gateway, "a.test", "/")
        .args(["-H", "Cookie: a=1"])
        .args(["-H", "Cookie: b=2"])
        .send();
    assert_eq!(all(&reply.text(), "cookie"), ["a=1; b=2"]);
}

#[test]
fn host_is_kept_in_normal_form() {
    let origin = Origin::echo();
    let gateway = in_front_of(&origin);
    for (sent, kept) in [
        ("A.Test", "a.test"),
        ("a.test.", "a.test"),
        ("a.test:8", "a.test:8"),
    ] {
        let mut stream = TlsClient::named("a.test").connect(gateway.https);
        let head = stream.get(sent, "/").text();
        assert_eq!(all(&head, "host"), [kept], "{sent}");
    }
}

#[test]
fn a_connection_field_that_takes_too_much_opens_no_connection() {
    let origin = Origin::echo();
    let gateway = in_front_of(&origin);
    for names in [
        "host",
        "x-forwarded-for",
        ":path",
        "\"x\"",
        "a,b,c,d,e,f,g,h,i,j",
    ] {
        let mut stream = TlsClient::named("a.test").connect(gateway.https);
        let reply = stream.request(format!(
            "GET / HTTP/1.1\r\nHost: a.test\r\nConnection: {names}\r\n\r\n"
        ));
        assert_eq!(reply.status, 400, "{names}");
        let id = reply.header("x-request-id").expect("a name");
        assert!(reply.text().contains(id), "{}", reply.text());
    }
    assert_eq!(origin.connections(), 0);
}

#[test]
fn a_target_in_absolute_form_is_passed_on_in_origin_form() {
    let origin = Origin::echo();
    let gateway = in_front_of(&origin);
    for (target, host, path) in [
        ("http://a.test/x?y", "a.test", "/x?y"),
        ("http://A.TEST./x?y", "a.test", "/x?y"),
        ("https://a.test:443/x?y", "a.test", "/x?y"),
        ("http://a.test?y", "a.test", "/?y"),
        ("http://a.test", "a.test", "/"),
    ] {
        let mut stream = TlsClient::named("a.test").connect(gateway.https);
        let reply = stream.request(format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n"));
        assert_eq!(reply.status, 200, "{target}");
        let head = reply.text();
        assert!(
            head.starts_with(&format!("GET {path} HTTP/1.1\r\n")),
            "{head}"
        );
        assert_eq!(all(&head, "host"), ["a.test"]);
    }
}
