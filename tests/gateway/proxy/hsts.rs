//! `Strict-Transport-Security`: on every response over TLS of a site that has it, and on no other.

use super::{PINGORA, VERSIONS, all, over};
use crate::support::{Act, Gateway, Origin, TlsClient, serving, wait_for};

const STS: &str = "strict-transport-security";

#[test]
fn every_response_of_the_site_over_tls_has_it() {
    let origin = Origin::start(|_| {
        vec![Act::send(
            "HTTP/1.1 200 OK\r\nStrict-Transport-Security: max-age=1\r\nContent-Length: 0\r\n\r\n",
        )]
    });
    let gone = Origin::refusing();
    let yaml = format!(
        r#"
upstreams:
  app: {{ servers: ["{}"] }}
  gone: {{ servers: ["{}"] }}
sites:
  - hosts: [a.test]
    hsts: {{ max_age: 365d, subdomains: true, preload: true }}
    routes:
      - {{ path: /app, upstream: app }}
      - {{ path: /gone, upstream: gone }}
      - {{ path: /own, respond: {{ body: own }} }}
      - {{ path: /moved, redirect: {{ to: "https://b.test{{path}}" }} }}
  - {{ hosts: [b.test], hsts: {{ max_age: 0s }}, upstream: app }}
  - {{ hosts: [c.test], upstream: app }}
  - {{ hosts: [plain.test], tls: off, upstream: app }}
log: {{ access: off }}
"#,
        origin.address(),
        gone.address()
    );
    let certificates: [&[&str]; 1] = [&["a.test", "b.test", "c.test"]];
    let own = serving(&certificates, &yaml).start();
    let pingora = serving(&certificates, &yaml)
        .over_own_lane()
        .run_by(&PINGORA)
        .start();
    for gateway in [&own, &pingora] {
        for version in VERSIONS {
            for (path, status) in [
                ("/app", 200),
                ("/gone", 502),
                ("/own", 200),
                ("/moved", 302),
                ("/nothing", 404),
                ("/app/..%2fown", 400),
            ] {
                let reply = over(version, gateway, "a.test", path)
                    .arg("--path-as-is")
                    .send();
                assert_eq!(reply.status, status, "{path}");
                let expected = ["max-age=31536000; includeSubDomains; preload"];
                assert_eq!(all(&reply.head, STS), expected, "{path} over {version}");
            }
            let of = |host| over(version, gateway, host, "/").send().head;
            assert_eq!(all(&of("b.test"), STS), ["max-age=0"]);
            // What a server sends of its own is left to it.
            assert_eq!(all(&of("c.test"), STS), ["max-age=1"]);
        }
        let to_tls = gateway.curl_http("a.test", "/own").send();
        assert_eq!((to_tls.status, to_tls.header(STS)), (308, None));
    }
}

/// The response to a request with these lines, on a connection for a host.
fn ask(gateway: &Gateway, host: &str, lines: &str) -> (u16, Option<String>) {
    let mut client = TlsClient::named(host).connect(gateway.https);
    let reply = client.request(format!("{lines}\r\n\r\n"));
    (reply.status, reply.header(STS).map(str::to_owned))
}

#[test]
fn a_refusal_before_a_site_is_found_has_it_too() {
    let gateway = serving(
        &[&["a.test", "b.test"]],
        "sites:\n\
         - { hosts: [a.test], hsts: { max_age: 1d }, routes: [{ respond: { body: a } }] }\n\
         - { hosts: [b.test], routes: [{ respond: { body: b } }] }\n\
         log: { access: off }\n",
    )
    .start();
    let hsts = || Some("max-age=86400".to_owned());
    for (lines, status) in [
        ("TRACE / HTTP/1.1\r\nHost: A.test.:443", 405),
        ("GET / HTTP/1.1\r\nHost: a.test\r\nExpect: 200-ok", 417),
        ("GET / HTTP/1.1\r\nHost: a.test\r\nX Y: 1", 400),
        // The handshake has named the host.
        ("GET / HTTP/1.1", 400),
        ("GET / HTTP/1.1\r\nHost: a..test", 400),
    ] {
        assert_eq!(ask(&gateway, "a.test", lines), (status, hsts()), "{lines}");
        let lines = lines
            .replace("a.test", "b.test")
            .replace("A.test", "B.test");
        assert_eq!(ask(&gateway, "b.test", &lines), (status, None), "{lines}");
    }
    // Of a host that is not served on the connection nothing is said.
    let other = ask(&gateway, "a.test", "GET / HTTP/1.1\r\nHost: c.test");
    assert_eq!(other, (421, None));
    let http2 = over("2", &gateway, "a.test", "/")
        .args(["-X", "TRACE"])
        .send();
    assert_eq!((http2.status, http2.header(STS)), (405, hsts().as_deref()));
    let plain = gateway
        .curl_http("a.test", "/")
        .arg("-X")
        .arg("TRACE")
        .send();
    assert_eq!((plain.status, plain.header(STS)), (405, None));
}

#[test]
fn a_site_without_a_certificate_is_served_without_it() {
    let gateway = serving(
        &[&["b.test"]],
        "issuers: { none: { acme: { directory: \"https://127.0.0.1:1/\" } } }\n\
         sites: [{ hosts: [a.test], hsts: { max_age: 1d }, routes: [{ respond: { body: a } }] }]\n\
         log: { access: off }\n",
    )
    .server("https_optional: true")
    .spawn();
    let plain = wait_for("plain HTTP", || {
        let reply = gateway.curl_http("a.test", "/").try_send().ok();
        reply.filter(|reply| reply.status == 200)
    });
    assert_eq!(plain.header(STS), None);
}
