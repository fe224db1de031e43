//! The whole files in `conf/examples`, each with servers behind it.

use std::fs;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};

use super::named_echo;
use crate::support::{Call, Gateway, H2, H2Server, check};

fn path(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("conf/examples");
    folder.join(name)
}

/// Starts a gateway with an example, in which each of these texts stands in place of another: all
/// that depends on the machine. Certificates are from a local CA.
fn start(name: &str, replaced: &[(&str, &str)]) -> Gateway {
    let mut text = fs::read_to_string(path(name)).expect("an example");
    let certificates = [
        (
            "letsencrypt: { acme: { directory: letsencrypt, email: ops@example.com } }",
            "local: { local_ca: { name: Test } }",
        ),
        ("/var/lib/snigate", "./data"),
    ];
    for (old, new) in certificates.iter().chain(replaced) {
        assert!(text.contains(old), "{name} has no {old}");
        text = text.replace(old, new);
    }
    Gateway::start(text)
}

/// The server that a request reached, and what it got.
fn reached(gateway: &Gateway, host: &str, path: &str) -> String {
    let reply = gateway.curl(host, path).arg("--insecure").send();
    assert_eq!(reply.status, 200, "{host}{path}: {}", reply.text());
    reply.text()
}

fn status(gateway: &Gateway, host: &str, path: &str) -> u16 {
    let reply = gateway.curl(host, path).arg("--insecure").send();
    reply.status
}

#[test]
fn every_example_is_exercised_here() {
    let entries = fs::read_dir(path("")).expect("the examples");
    let mut names: Vec<_> = entries
        .map(|entry| entry.expect("an entry").file_name())
        .collect();
    names.sort_unstable();
    assert_eq!(
        names,
        [
            "grpc-api.yaml",
            "several-applications.yaml",
            "single-application.yaml",
            "static-site.yaml",
            "wordpress.yaml",
        ]
    );
}

/// As they are, without the files of a site.
#[test]
fn the_examples_are_valid() {
    for name in [
        "grpc-api.yaml",
        "several-applications.yaml",
        "single-application.yaml",
        "wordpress.yaml",
    ] {
        let printed = check(&path(name));
        assert_eq!(printed.code, Some(0), "{name}: {}", printed.stderr);
    }
}

#[test]
fn a_single_application() {
    let [one, other] = [named_echo("one"), named_echo("other")];
    let gateway = start(
        "single-application.yaml",
        &[
            ("127.0.0.1:3000", &one.address().to_string()),
            ("127.0.0.1:3001", &other.address().to_string()),
        ],
    );
    let got = reached(&gateway, "example.com", "/x?y=1");
    assert!(got.contains("GET /x?y=1"), "{got}");
    assert!(
        got.to_lowercase().contains("x-forwarded-proto: https"),
        "{got}"
    );
    let reply = gateway.curl("www.example.com", "/x?y=1");
    let reply = reply.arg("--insecure").send();
    assert_eq!(reply.status, 308);
    assert_eq!(reply.header("location"), Some("https://example.com/x?y=1"));
    let reply = gateway.curl("example.com", "/").arg("--insecure").send();
    let hsts = reply.header("strict-transport-security");
    assert_eq!(hsts, Some("max-age=31536000"));
    assert_eq!(gateway.curl_http("example.com", "/").send().status, 308);
}

#[test]
fn several_applications() {
    let [shop, blog, chat, other] = ["shop", "blog", "chat", "chat"].map(named_echo);
    let gateway = start(
        "several-applications.yaml",
        &[
            ("127.0.0.1:3000", &shop.address().to_string()),
            ("127.0.0.1:3001", &blog.address().to_string()),
            ("127.0.0.1:3002", &chat.address().to_string()),
            ("127.0.0.1:3003", &other.address().to_string()),
        ],
    );
    for (path, server, line) in [
        ("/", "shop", "GET / "),
        ("/blogs", "shop", "GET /blogs "),
        ("/blog", "blog", "GET / "),
        ("/blog/post", "blog", "GET /post "),
        ("/chat/room", "chat", "GET /chat/room "),
    ] {
        let got = reached(&gateway, "example.com", path);
        let expected = format!("{server}\n{line}");
        assert!(got.starts_with(&expected), "{path}: {got}");
    }
    assert_eq!(reached(&gateway, "example.com", "/ping"), "pong\n");
    assert_eq!(status(&gateway, "example.com", "/old-blog"), 301);
    let reply = gateway.curl("example.com", "/chat").arg("--insecure");
    let cookie = reply.send().header("set-cookie").map(str::to_owned);
    assert!(cookie.is_some_and(|cookie| cookie.starts_with("chat=")));
    let reply = gateway.curl("admin.example.com", "/").arg("--insecure");
    let reply = reply.send();
    assert_eq!(reply.header("x-powered-by"), None);
    assert_eq!(reply.header("x-frame-options"), Some("DENY"));
    let got = reply.text().to_lowercase();
    assert!(got.contains("\r\nhost: shop.internal\r\n"), "{got}");
    assert!(got.contains("\r\nx-admin: 1\r\n"), "{got}");
}

#[test]
fn an_api_with_grpc() {
    let calls = || {
        H2Server::start(|mut call: Call| async move {
            let message: &[u8] = match call.head.uri.path() {
                "/grpc.health.v1.Health/Check" => &[0, 0, 0, 0, 2, 8, 1],
                _ => b"\0\0\0\0\x02hi",
            };
            let mut body = call.send_head(200, &[("content-type", "application/grpc")], false);
            // A gateway that is gone needs no response.
            let sent = body.send_data(Bytes::from_static(message), false);
            let status = HeaderMap::from_iter([(
                HeaderName::from_static("grpc-status"),
                HeaderValue::from_static("0"),
            )]);
            _ = sent.and_then(|()| body.send_trailers(status));
        })
    };
    let [one, other] = [calls(), calls()];
    let rest = named_echo("rest");
    let gateway = start(
        "grpc-api.yaml",
        &[
            ("127.0.0.1:50051", &one.address().to_string()),
            ("127.0.0.1:50052", &other.address().to_string()),
            ("127.0.0.1:3000", &rest.address().to_string()),
        ],
    );
    let mut client = H2::connect(gateway.https, "api.example.com");
    let call = client
        .request("POST", "/shop.v1.Cart/Get")
        .header("content-type", "application/grpc")
        .header("te", "trailers");
    let (answer, mut message) = client.begin(call.body(()).expect("a request"), true);
    let (body, trailers) = client.block_on(async {
        message
            .send_data(Bytes::from_static(b"\0\0\0\0\0"), true)
            .expect("an open stream");
        let mut body = answer.await.expect("a response").into_body();
        let part = body.data().await.expect("a message").expect("no failure");
        assert!(body.data().await.is_none());
        (part, body.trailers().await.expect("no failure"))
    });
    assert_eq!(&*body, b"\0\0\0\0\x02hi");
    assert_eq!(trailers.expect("trailers")["grpc-status"], "0");
    let got = reached(&gateway, "api.example.com", "/v1/carts");
    assert!(got.starts_with("rest\nGET /v1/carts "), "{got}");
    assert_eq!(status(&gateway, "api.example.com", "/other"), 404);
    let trace = gateway.curl("api.example.com", "/v1/carts");
    let trace = trace.args(["--insecure", "--request", "OPTIONS"]).send();
    assert_ne!(trace.status, 200, "only the methods of the route");
}

#[test]
fn wordpress() {
    let php = named_echo("php");
    let files = tempfile::tempdir().expect("a directory");
    let uploads = files.path().join("wp-content/uploads");
    fs::create_dir_all(&uploads).expect("a directory");
    fs::write(uploads.join("a.css"), "body {}").expect("a file");
    fs::write(uploads.join("a.php"), "<?php secret();").expect("a file");
    let gateway = start(
        "wordpress.yaml",
        &[
            ("127.0.0.1:3000", &php.address().to_string()),
            ("/var/www/html", files.path().to_str().expect("text")),
        ],
    );
    let reply = gateway.curl("example.com", "/wp-content/uploads/a.css");
    let reply = reply.arg("--insecure").send();
    assert_eq!((reply.status, &*reply.text()), (200, "body {}"));
    assert_eq!(
        reply.header("cache-control"),
        Some("public, max-age=604800")
    );
    for path in [
        "/wp-content/uploads/a.php",
        "/2026/11/post/",
        "/wp-login.php",
    ] {
        let got = reached(&gateway, "example.com", path);
        assert!(got.starts_with(&format!("php\nGET {path} ")), "{got}");
    }
    assert_eq!(status(&gateway, "example.com", "/xmlrpc.php"), 403);
    assert_eq!(status(&gateway, "example.com", "/xmlrpc.php/x"), 403);
    assert_eq!(status(&gateway, "example.com", "/wp-config.php"), 404);
    assert_eq!(status(&gateway, "www.example.com", "/"), 308);
}

#[test]
fn a_static_site() {
    let files = tempfile::tempdir().expect("a directory");
    let [www, app] = ["www", "app"].map(|name| files.path().join(name));
    for (file, text) in [
        (www.join("index.html"), "home"),
        (www.join("404.html"), "nothing here"),
        (www.join("assets/a.js"), "let a;"),
        (www.join("assets/a.js.gz"), "zipped"),
        (app.join("index.html"), "the app"),
        (app.join("a.png"), "picture"),
    ] {
        fs::create_dir_all(file.parent().expect("a folder")).expect("a directory");
        fs::write(file, text).expect("a file");
    }
    let gateway = start(
        "static-site.yaml",
        &[
            ("/srv/www", www.to_str().expect("text")),
            ("/srv/app", app.to_str().expect("text")),
        ],
    );
    let get = |host: &str, path: &str| gateway.curl(host, path).arg("--insecure");
    assert_eq!(get("example.com", "/").send().text(), "home");
    let missing = get("example.com", "/missing").send();
    assert_eq!((missing.status, &*missing.text()), (404, "nothing here"));
    let asset = get("example.com", "/assets/a.js");
    let asset = asset.args(["--header", "Accept-Encoding: gzip"]).send();
    assert_eq!(asset.text(), "zipped");
    let cache_control = asset.header("cache-control");
    assert_eq!(cache_control, Some("public, max-age=31536000, immutable"));
    for (path, text) in [
        ("/", "the app"),
        ("/a.png", "picture"),
        ("/user/1", "the app"),
    ] {
        assert_eq!(get("app.example.com", path).send().text(), text, "{path}");
    }
    assert_eq!(status(&gateway, "www.example.com", "/"), 308);
}
