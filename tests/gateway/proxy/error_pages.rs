//! Error pages of the configuration, in place of the gateway's own and of servers'.

use std::fs;

use super::{VERSIONS, over};
use crate::support::{Act, Builder, Gateway, Origin, TlsClient, serving, wait_for};

/// Writes files into the directory of a gateway to be.
fn with_files(builder: Builder, files: &[(&str, &str)]) -> Builder {
    for (name, text) in files {
        let path = builder.dir().join(name);
        fs::create_dir_all(path.parent().expect("a directory")).expect("a directory");
        fs::write(path, text).expect("a file");
    }
    builder
}

fn gateway() -> Gateway {
    let nobody = Origin::refusing();
    let builder = serving(
        &[&["a.test", "b.test"]],
        format!(
            "upstreams: {{ app: {{ servers: [\"{}\"] }} }}\n\
             sites:\n\
             - hosts: [a.test]\n  \
               error_pages: {{ 404: [a.html, a.json] }}\n  \
               routes: [{{ path: /app, upstream: app }}, {{ path: /own, respond: {{ status: 404 }} }}]\n\
             - hosts: [b.test]\n  \
               routes: [{{ path: /app, upstream: app }}]\n\
             log: {{ access: off }}\n",
            nobody.address(),
        ),
    );
    let builder =
        builder.server("error_pages: { 404: pages/404.html, 5xx: pages/5xx.html, 4xx: x.txt }");
    let page = |name: &str| format!("<p>{name}: {{status}} {{host}} {{request_id}} {{other}}</p>");
    with_files(
        builder,
        &[
            ("a.html", &page("a")),
            ("a.json", "{\"id\":\"{request_id}\"}"),
            ("pages/404.html", &page("server")),
            ("pages/5xx.html", &page("server")),
            ("x.txt", "refused with {status}\n"),
        ],
    )
    .start()
}

#[test]
fn they_replace_those_of_the_gateway() {
    let gateway = gateway();
    for version in VERSIONS {
        for (host, path, status, name) in [
            ("a.test", "/", 404, "a"),
            ("b.test", "/", 404, "server"),
            ("a.test", "/app", 502, "server"),
        ] {
            let reply = over(version, &gateway, host, path).send();
            let id = reply.header("x-request-id").expect("an id");
            assert_eq!(reply.status, status);
            let expected = format!("<p>{name}: {status} {host} {id} {{other}}</p>");
            assert_eq!(reply.text(), expected);
            let media_type = reply.header("content-type");
            assert_eq!(media_type, Some("text/html; charset=utf-8"));
            assert_eq!(reply.header("cache-control"), Some("no-store"));

            if status == 404 {
                let head = over(version, &gateway, host, path).arg("--head").send();
                let length = expected.len().to_string();
                assert_eq!(head.header("content-length"), Some(&*length));
                assert_eq!((head.status, head.text()), (status, String::new()));
            }
        }
        // What is configured as a response is none of the gateway's errors.
        let own = over(version, &gateway, "a.test", "/own").send();
        assert_eq!((own.status, own.text()), (404, String::new()));
    }
}

#[test]
fn clients_that_want_another_form_get_it() {
    let gateway = gateway();
    for version in VERSIONS {
        let ask = |host, path, field| {
            over(version, &gateway, host, path)
                .args(["--header", field])
                .send()
        };
        let json = "Accept: application/json";
        let reply = ask("a.test", "/", json);
        let id = reply.header("x-request-id").expect("an id");
        assert_eq!(reply.text(), format!("{{\"id\":\"{id}\"}}"));
        assert_eq!(reply.header("content-type"), Some("application/json"));
        for (host, path) in [("b.test", "/"), ("a.test", "/app")] {
            let reply = ask(host, path, json);
            assert_eq!(
                reply.header("content-type"),
                Some("application/problem+json")
            );
            let id = reply.header("x-request-id").expect("an id");
            assert!(reply.text().contains(id));
        }
        // gRPC has errors of its own.
        let call = ask("a.test", "/", "Content-Type: application/grpc");
        assert!(!call.text().contains("<p>"), "{}", call.text());
    }
}

#[test]
fn requests_without_a_site_get_those_of_the_server() {
    let gateway = gateway();
    for request in [
        "GET / HTTP/1.1\r\nHost: a.test\r\nHost: a.test\r\n\r\n",
        "GET /%2f\0 HTTP/1.1\r\nHost: a.test\r\n\r\n",
        "TRACE / HTTP/1.1\r\nHost: a.test\r\n\r\n",
        "CONNECT a.test:443 HTTP/1.1\r\nHost: a.test:443\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: c.test\r\n\r\n",
    ] {
        let mut stream = TlsClient::named("a.test").connect(gateway.https);
        let reply = stream.request(request);
        let expected = format!("refused with {}\n", reply.status);
        assert_eq!(reply.text(), expected, "{request:?}");
        assert!(reply.header("x-request-id").is_some());
    }
    let traced = over("2", &gateway, "a.test", "/")
        .args(["--request", "TRACE"])
        .send();
    assert_eq!(
        (traced.status, traced.text()),
        (405, "refused with 405\n".to_owned())
    );
}

#[test]
fn they_replace_those_of_servers_if_they_are_for_them() {
    let origin = Origin::start(|request| {
        let path = request.line().split(' ').nth(1).expect("a target");
        let status = path.trim_start_matches('/');
        let fields = "Set-Cookie: a=b\r\nWWW-Authenticate: Basic\r\nETag: \"1\"\r\n\
                      Content-Encoding: x\r\nX-Gone: 1\r\nCache-Control: max-age=9";
        match status {
            "500" => {
                // A body that never ends.
                let head = format!(
                    "HTTP/1.1 500 No\r\n{fields}\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"
                );
                vec![Act::send(head), Act::Silence]
            }
            status => {
                let body = if request.line().starts_with("HEAD") {
                    ""
                } else {
                    "theirs"
                };
                vec![Act::send(format!(
                    "HTTP/1.1 {status} Theirs\r\n{fields}\r\nContent-Length: 6\r\n\r\n{body}"
                ))]
            }
        }
    });
    let builder = serving(
        &[&["a.test"]],
        format!(
            "upstreams: {{ app: {{ servers: [\"{}\"] }} }}\n\
             sites:\n\
             - hosts: [a.test]\n  \
               error_pages: {{ 4xx: {{ file: page.html, upstream: true }}, 403: page.html, \
                 5xx: {{ file: [page.html], upstream: true }} }}\n  \
               routes: [{{ upstream: app, response_headers: {{ set: {{ X-Own: \"1\" }}, remove: [X-Gone] }} }}]\n\
             log: {{ access: off }}\n",
            origin.address(),
        ),
    );
    let gateway = with_files(builder, &[("page.html", "ours: {status}")]).start();
    for version in VERSIONS {
        let connections = origin.connections();
        for _ in 0..2 {
            let reply = over(version, &gateway, "a.test", "/401").send();
            assert_eq!((reply.status, reply.text()), (401, "ours: 401".to_owned()));
            for (name, value) in [
                ("set-cookie", Some("a=b")),
                ("www-authenticate", Some("Basic")),
                ("x-own", Some("1")),
                ("content-length", Some("9")),
                ("cache-control", Some("no-store")),
                ("etag", None),
                ("content-encoding", None),
                ("x-gone", None),
            ] {
                assert_eq!(reply.header(name), value, "{name}");
            }
            assert!(reply.header("x-request-id").is_some());
        }
        let head = over(version, &gateway, "a.test", "/404")
            .arg("--head")
            .send();
        assert_eq!(
            (head.status, head.header("content-length")),
            (404, Some("9"))
        );
        assert!(origin.connections() <= connections + 1, "they are kept");

        let endless = over(version, &gateway, "a.test", "/500").send();
        assert_eq!(
            (endless.status, endless.text()),
            (500, "ours: 500".to_owned())
        );
        for (path, field) in [
            ("/403", "Accept: */*"),
            ("/404", "Accept: application/json"),
            ("/404", "Content-Type: application/grpc"),
            ("/200", "Accept: */*"),
        ] {
            let reply = over(version, &gateway, "a.test", path)
                .args(["--header", field])
                .send();
            assert_eq!(reply.text(), "theirs", "{path} {field}");
            assert_eq!(reply.header("etag"), Some("\"1\""));
        }
        let posted = over(version, &gateway, "a.test", "/404")
            .args(["--data", "body"])
            .send();
        assert_eq!(
            (posted.status, posted.text()),
            (404, "ours: 404".to_owned())
        );
    }
}

#[test]
fn a_page_is_sent_only_if_no_other_server_is_tried() {
    let busy = Origin::start(|_| vec![Act::respond(503, "busy")]);
    let idle = Origin::named("idle");
    let builder = serving(
        &[&["a.test"]],
        format!(
            "upstreams: {{ app: {{ servers: [\"{}\", {{ address: \"{}\", backup: true }}] }} }}\n\
             sites:\n\
             - hosts: [a.test]\n  \
               error_pages: {{ 503: {{ file: page.txt, upstream: true }} }}\n  \
               routes: [{{ upstream: app, retries: {{ on: [503] }} }}]\n\
             log: {{ access: off }}\n",
            busy.address(),
            idle.address(),
        ),
    );
    let gateway = with_files(builder, &[("page.txt", "ours")]).start();
    for version in VERSIONS {
        let retried = over(version, &gateway, "a.test", "/").send();
        assert_eq!((retried.status, retried.text()), (200, "idle".to_owned()));
        let posted = over(version, &gateway, "a.test", "/")
            .args(["--data", "body"])
            .send();
        assert_eq!((posted.status, posted.text()), (503, "ours".to_owned()));
    }
}

#[test]
fn a_changed_page_is_read_again() {
    let gateway = gateway();
    let text = || over("2", &gateway, "b.test", "/").send().text();
    assert!(text().starts_with("<p>server"));
    gateway.write("pages/404.html", "new");
    wait_for("the new page", || (text() == "new").then_some(()));
    // Without it, the old one stays.
    fs::remove_file(gateway.dir().join("pages/404.html")).expect("there");
    gateway.wait_for_log("pages/404.html' cannot be read");
    assert_eq!(text(), "new");
}
