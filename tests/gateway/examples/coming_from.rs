//! Each line of `docs/coming-from.md`, loaded and tried.

mod server;
mod upstreams;

use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::path::Path;

use serde_json::json;

use super::named_echo;
use crate::support::{
    Act, Builder, Ca, CurlReply, Gateway, Origin, TlsClient, TlsOrigin, TokenSigner, read_head,
    serving, wait_for,
};

/// A line of a table: what it is for, and what is written here for it.
struct Line {
    purpose: String,
    yaml: String,
}

/// The lines of the table below a heading.
fn lines(heading: &str) -> Vec<Line> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/coming-from.md");
    let text = fs::read_to_string(path).expect("the page");
    let section = text.split("\n## ").find(|part| part.starts_with(heading));
    let rows = section.expect("a section").lines();
    let rows = rows.filter(|line| line.starts_with("| ")).skip(1);
    rows.map(|row| {
        let cells: Vec<&str> = row.trim_matches('|').split('|').collect();
        assert_eq!(cells.len(), 6, "{row}");
        let yaml = cells[5].trim();
        Line {
            purpose: cells[0].trim().to_owned(),
            yaml: yaml.trim_matches('`').to_owned(),
        }
    })
    .collect()
}

/// What is within the braces of a mapping, or all of it.
fn members(yaml: &str) -> &str {
    let inner = yaml
        .strip_prefix('{')
        .and_then(|yaml| yaml.strip_suffix('}'));
    inner.unwrap_or(yaml).trim()
}

/// What tries a line.
type Trial = fn(&Bench, &str);

/// Runs the trial of each line. There is one for each, and none for others.
fn try_each(bench: &Bench, lines: &[Line], trials: &[(&str, Trial)]) {
    let purposes: Vec<&str> = lines.iter().map(|line| &*line.purpose).collect();
    let tried: Vec<&str> = trials.iter().map(|(purpose, _)| *purpose).collect();
    assert_eq!(purposes, tried, "every line is tried");
    for (number, (purpose, trial)) in trials.iter().enumerate() {
        eprintln!("{purpose}");
        trial(bench, &format!("line-{number}.test"));
    }
}

/// A gateway with all lines of a table, and servers behind it.
struct Bench {
    gateway: Gateway,
    app: Origin,
    other: Origin,
    /// Whose keys are in `keys.json`.
    issuer: TokenSigner,
}

impl Bench {
    fn start(builder: Builder, app: Origin, other: Origin) -> Self {
        let issuer = TokenSigner::new("1");
        fs::write(builder.dir().join("keys.json"), issuer.set()).expect("a file");
        let gateway = builder.start();
        Self {
            gateway,
            app,
            other,
            issuer,
        }
    }

    fn get(&self, host: &str, path: &str) -> CurlReply {
        self.with(host, path, &[])
    }

    /// The reply to a request with more arguments of curl.
    fn with(&self, host: &str, path: &str, arguments: &[&str]) -> CurlReply {
        let curl = self.gateway.curl(host, path).arg("--insecure");
        let curl = arguments
            .iter()
            .fold(curl, |curl, argument| curl.arg(*argument));
        curl.send()
    }

    /// What a server got for this path, which has to reach it.
    #[track_caller]
    fn received(&self, host: &str, path: &str, arguments: &[&str]) -> String {
        let reply = self.with(host, path, arguments);
        assert_eq!(reply.status, 200, "{host}{path}: {}", reply.text());
        reply.text()
    }

    /// Which servers so many requests reach: how many the first one, and how many the other.
    fn shares(&self, host: &str, count: usize) -> (usize, usize) {
        let replies = (0..count).map(|_| self.received(host, "/", &[]));
        let ours = replies.filter(|text| text.starts_with("app\n")).count();
        (ours, count - ours)
    }
}

fn path_of(text: &str) -> &str {
    let line = text.lines().find(|line| line.ends_with(" HTTP/1.1"));
    line.and_then(|line| line.split(' ').nth(1))
        .unwrap_or_default()
}

/// The text of a server that is a client's host in lower case, as it stands in heads.
fn has_line(text: &str, line: &str) -> bool {
    text.to_lowercase().contains(&format!("\r\n{line}\r\n"))
}

#[test]
fn sites() {
    let (app, other) = (named_echo("app"), named_echo("other"));
    let secure = TlsOrigin::start(&Ca::new("Behind").leaf(&["*.test"]).make());
    let lines = lines("Sites");
    let mut yaml = format!(
        "issuers: {{ local: {{ local_ca: {{ name: Test }} }} }}\n\
         upstreams: {{ app: {{ servers: [\"{}\"] }}, secure: {{ servers: [\"{}\"] }} }}\nsites:\n",
        app.address(),
        secure.address()
    );
    for (number, line) in lines.iter().enumerate() {
        let (host, members) = (format!("line-{number}.test"), members(&line.yaml));
        let _ = writeln!(yaml, "- {{ hosts: [{host}], {members} }}");
    }
    let builder = Gateway::builder().config(yaml);
    fs::write(builder.dir().join("404.html"), "nothing here").expect("a file");
    let clients = Ca::new("Clients");
    fs::write(builder.dir().join("clients.pem"), clients.pem()).expect("a file");
    let client = clients.leaf(&["client.test"]).for_client().make();
    client.write(builder.dir(), "client");
    let bench = Bench::start(builder, app, other);
    try_each(
        &bench,
        &lines,
        &[
            ("redirect `www`, keeping the path", |bench, host| {
                let reply = bench.get(host, "/x?y=1");
                assert_eq!(reply.status, 308);
                assert_eq!(reply.header("location"), Some("https://example.com/x?y=1"));
            }),
            ("redirect HTTP to HTTPS", |bench, host| {
                let reply = bench.gateway.curl_http(host, "/x?y=1").send();
                assert_eq!(reply.status, 308);
                let location = reply.header("location").expect("a location");
                assert!(location.starts_with("https://"), "{location}");
                assert!(location.ends_with("/x?y=1"), "{location}");
            }),
            ("serve HTTP only", |bench, host| {
                let reply = bench.gateway.curl_http(host, "/").send();
                assert_eq!(reply.status, 200);
            }),
            ("add HSTS", |bench, host| {
                let reply = bench.get(host, "/");
                let hsts = reply.header("strict-transport-security");
                assert_eq!(hsts, Some("max-age=31536000"));
            }),
            ("pass TLS through by SNI", |bench, host| {
                assert_eq!(bench.get(host, "/").text(), "nobody");
            }),
            ("pass on what is within TLS", |bench, host| {
                assert!(bench.received(host, "/", &[]).starts_with("app\n"));
            }),
            ("have error pages", |bench, host| {
                let reply = bench.get(host, "/missing");
                assert_eq!((reply.status, &*reply.text()), (404, "nothing here"));
            }),
            ("verify client certificates", |bench, host| {
                let curl = bench.gateway.curl(host, "/").arg("--insecure");
                assert!(curl.try_send().is_err());
                let file = |name| bench.gateway.dir().join(name).display().to_string();
                let (cert, key) = (file("client.pem"), file("client.key"));
                bench.received(host, "/", &["--cert", &cert, "--key", &key]);
            }),
            ("limit requests at a time", |bench, host| {
                let mut held = TlsClient::named(host).connect(bench.gateway.https);
                let part = format!("POST / HTTP/1.1\r\nHost: {host}\r\nContent-Length: 2\r\n\r\nx");
                held.write_all(part.as_bytes()).expect("taken");
                wait_for("the limit", || {
                    (bench.get(host, "/").status == 503).then_some(())
                });
                drop(held);
                wait_for("its end", || {
                    (bench.get(host, "/").status == 200).then_some(())
                });
            }),
            ("close for maintenance", |bench, host| {
                assert_eq!(bench.get(host, "/").status, 503);
            }),
        ],
    );
}

#[test]
fn routes() {
    let (app, other) = (named_echo("app"), named_echo("other"));
    let slow = Origin::silent();
    let resetting = Origin::resetting();
    let text = Origin::start(|_| {
        let body = "text ".repeat(1000);
        vec![Act::respond(200, body)]
    });
    let lines = lines("Routes");
    let mut yaml = format!(
        "upstreams:\n  app: {{ servers: [\"{}\"] }}\n  pair: {{ servers: [\"{}\", \"{}\"] }}\n  \
         slow: {{ servers: [\"{}\"] }}\n  text: {{ servers: [\"{}\"] }}\n\
         sites:\n- hosts: [\"*.test\"]\n  routes:\n",
        app.address(),
        resetting.address(),
        other.address(),
        slow.address(),
        text.address(),
    );
    for line in &lines {
        let mut route = line.yaml.clone();
        for (path, server) in [("/slow", "slow"), ("/text", "text")] {
            if route.contains(path) {
                route = route.replace("upstream: app", &format!("upstream: {server}"));
            }
        }
        let route = route.replace("127.0.0.1:3001", &other.address().to_string());
        let _ = writeln!(yaml, "    - {route}");
    }
    let builder = serving(&[&["*.test"]], yaml);
    let www = builder.dir().join("www");
    fs::create_dir(&www).expect("a directory");
    fs::write(www.join("index.html"), "the application").expect("a file");
    fs::write(www.join("a.txt"), "a file").expect("a file");
    let user = "ann:$2b$04$abcdefghijklmnopqrstuuV3duMsC0HpUex6N9qapiuOHHWkwRXVm\n";
    fs::write(builder.dir().join("users"), user).expect("a file");
    let listed = www.join("folder");
    fs::create_dir(&listed).expect("a directory");
    fs::write(listed.join("b.txt"), "another").expect("a file");
    let bench = Bench::start(builder, app, other);
    try_each(&bench, &lines, ROUTES);
}

const ROUTES: &[(&str, Trial)] = &[
    ("pass on a prefix", |bench, host| {
        assert_eq!(path_of(&bench.received(host, "/api/x", &[])), "/api/x");
    }),
    ("pass on one path", |bench, host| {
        assert_eq!(path_of(&bench.received(host, "/v1", &[])), "/v1");
        assert_eq!(bench.get(host, "/v1/x").status, 404);
    }),
    ("match an expression", |bench, host| {
        assert_eq!(path_of(&bench.received(host, "/u/12", &[])), "/u/12");
        assert_eq!(bench.get(host, "/u/x").status, 404);
    }),
    ("allow some methods", |bench, host| {
        bench.received(host, "/read", &[]);
        let reply = bench.with(host, "/read", &["--request", "DELETE"]);
        assert_eq!(reply.status, 405);
        assert_eq!(reply.header("allow"), Some("GET, HEAD"));
    }),
    ("serve some addresses", |bench, host| {
        bench.received(host, "/inside", &[]);
        let reply = bench.with(host, "/inside", &["--interface", "127.0.0.2"]);
        assert_eq!(reply.status, 403);
    }),
    ("ask for a password", |bench, host| {
        assert_eq!(bench.get(host, "/staff").status, 401);
        bench.received(host, "/staff", &["--user", "ann:hunter2"]);
    }),
    ("ask for a token", |bench, host| {
        assert_eq!(bench.get(host, "/token").status, 401);
        let token = bench.issuer.token(&json!({ "aud": "api" }));
        let field = format!("Authorization: Bearer {token}");
        bench.received(host, "/token", &["--header", &field]);
    }),
    ("have a service decide", |bench, host| {
        let text = bench.received(host, "/private", &["--header", "X-User: root"]);
        assert!(!has_line(&text, "x-user: root"), "{text}");
        let asked = bench.other.requests();
        let is_question = |line: &str| line == "GET /verify HTTP/1.1";
        assert!(asked.iter().any(|request| is_question(request.line())));
    }),
    ("limit requests", |bench, host| {
        bench.received(host, "/limited", &[]);
        bench.received(host, "/limited", &[]);
        assert_eq!(bench.get(host, "/limited").status, 429);
        bench.received(host, "/limited", &["--interface", "127.0.0.2"]);
    }),
    ("match a header field", |bench, host| {
        bench.received(host, "/beta", &["--header", "X-Beta: 1"]);
        assert_eq!(bench.get(host, "/beta").status, 404);
    }),
    ("match the query", |bench, host| {
        bench.received(host, "/query?a=b", &[]);
        assert_eq!(bench.get(host, "/query?a=c").status, 404);
    }),
    ("strip a prefix", |bench, host| {
        assert_eq!(path_of(&bench.received(host, "/app/x", &[])), "/x");
    }),
    ("rewrite the path", |bench, host| {
        let got = bench.received(host, "/files/x", &[]);
        assert_eq!(path_of(&got), "/static/files/x");
    }),
    ("send another `Host`", |bench, host| {
        let got = bench.received(host, "/host", &[]);
        assert!(has_line(&got, "host: app.internal"), "{got}");
    }),
    ("set a field of requests", |bench, host| {
        let got = bench.received(host, "/client", &["--header", "X-Client: mine"]);
        assert!(has_line(&got, "x-client: 127.0.0.1"), "{got}");
    }),
    ("remove a field of responses", |bench, host| {
        assert!(bench.get(host, "/host").header("x-powered-by").is_some());
        assert!(bench.get(host, "/powered").header("x-powered-by").is_none());
    }),
    ("respond", |bench, host| {
        let reply = bench.get(host, "/ping");
        assert_eq!((reply.status, &*reply.text()), (200, "pong"));
    }),
    ("redirect", |bench, host| {
        let reply = bench.get(host, "/old");
        assert_eq!(reply.status, 301);
        assert_eq!(reply.header("location"), Some("/new"));
    }),
    ("limit bodies", |bench, host| {
        let body = "x".repeat(1024 * 1024 + 1);
        let file = bench.gateway.dir().join("body");
        fs::write(&file, &body).expect("a file");
        let data = format!("@{}", file.display());
        let reply = bench.with(host, "/upload", &["--data-binary", &data]);
        assert_eq!(reply.status, 413);
        fs::write(&file, &body[1..]).expect("a file");
        bench.received(host, "/upload", &["--data-binary", &data]);
    }),
    ("limit the time", |bench, host| {
        assert_eq!(bench.get(host, "/slow").status, 504);
    }),
    ("retry at another server", |bench, host| {
        for _ in 0..4 {
            let got = bench.received(host, "/retry", &[]);
            assert!(got.starts_with("other\n"), "{got}");
        }
        assert!(!bench.other.requests().is_empty());
    }),
    ("compress", |bench, host| {
        let reply = bench.with(host, "/text", &["--compressed"]);
        assert!(reply.header("content-encoding").is_some(), "{}", reply.head);
        assert_eq!(reply.text(), "text ".repeat(1000));
    }),
    ("serve files", |bench, host| {
        assert_eq!(bench.get(host, "/static/a.txt").text(), "a file");
        assert_eq!(bench.get(host, "/static/b.txt").status, 404);
    }),
    ("serve a single-page application", |bench, host| {
        assert_eq!(bench.get(host, "/spa/a.txt").text(), "a file");
        assert_eq!(bench.get(host, "/spa/user/1").text(), "the application");
    }),
    ("list folders", |bench, host| {
        let list = bench.get(host, "/list/folder/").text();
        assert!(list.contains("b.txt"), "{list}");
    }),
    ("proxy WebSocket", |bench, host| {
        let mut client = TlsClient::named(host).connect(bench.gateway.https);
        let request = format!(
            "GET /ws HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        );
        client.write_all(request.as_bytes()).expect("sent");
        read_head(&mut client).expect("a response");
        let requests = bench.app.requests();
        let upgrade = requests.last().expect("a request").header("upgrade");
        assert_eq!(upgrade, Some("websocket"));
    }),
];
