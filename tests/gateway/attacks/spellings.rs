//! Ways to write what a rule of access is for, so that the gateway and a server might disagree.

use std::io::Write;

use crate::support::{Frame, Frames, Gateway, Origin, TlsClient, serving};

/// A gateway whose `/admin` is for nobody, nor is what has a field that only staff sends.
fn guarded(origin: &Origin) -> Gateway {
    serving(
        &[&["a.test"]],
        format!(
            "upstreams: {{ app: {{ servers: [\"{}\"] }} }}\n\
             sites:\n\
             - hosts: [a.test]\n\
             \x20 routes:\n\
             \x20 - {{ path: /admin, deny: [\"0.0.0.0/0\", \"::/0\"], upstream: app }}\n\
             \x20 - {{ path: /, upstream: app }}\n\
             log: {{ access: off }}\n",
            origin.address()
        ),
    )
    .start()
}

const PATHS: [&str; 34] = [
    "/admin",
    "/admin/",
    "/admin/x",
    "/admin?x",
    "/admin;x",
    "/admin;x/y",
    "/;x/admin",
    "//admin",
    "///admin/x",
    "/./admin",
    "/x/../admin",
    "/x/..;y/admin",
    "/x/..;/admin",
    "/x/.;/../admin",
    "/x;/../admin",
    "/../admin",
    "/..//admin",
    "/%61dmin",
    "/%61%64%6d%69%6e",
    "/admi%6E",
    "/admin%2fx",
    "/admin%2Fx",
    "/%2fadmin",
    "/%2Fadmin",
    "/x%2f..%2fadmin",
    "/x/%2e%2e/admin",
    "/x/%2e./admin",
    "/x/.%2E/admin",
    "/x%5c..%5cadmin",
    "/x\\..\\admin",
    "/\\admin",
    "/%5cadmin",
    "/admin%3bx",
    "/x/..%3by/admin",
];

#[test]
fn no_spelling_of_a_path_gets_past_its_rule() {
    let origin = Origin::named("x");
    let gateway = guarded(&origin);
    let mut wrong = Vec::new();
    for path in PATHS {
        let mut stream = TlsClient::named("a.test").connect(gateway.https);
        let status = stream.get("a.test", path).status;
        if !matches!(status, 400 | 403) {
            wrong.push(format!("{path}: {status}"));
        }
        // In absolute form, and over HTTP/2.
        let mut stream = TlsClient::named("a.test").connect(gateway.https);
        let status = stream
            .get("a.test", &format!("https://a.test{path}"))
            .status;
        if !matches!(status, 400 | 403) {
            wrong.push(format!("https://a.test{path}: {status}"));
        }
        let mut frames = Frames::connect(gateway.https, "a.test", &[]);
        _ = frames.0.write_all(&Frame::get(1, "a.test", path).bytes());
        frames.until(|frame| frame.stream == 1 || frame.kind == Frame::GOAWAY);
    }
    for request in origin.requests() {
        wrong.push(format!("at the server: {}", request.line()));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
