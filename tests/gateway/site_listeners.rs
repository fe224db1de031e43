//! Sites that say where they are served: there, and nowhere else.

use std::fs;
use std::net::SocketAddr;

use openssl::ssl::SslVersion;

use crate::support::{
    Builder, Ca, Gateway, H2, Port, TlsClient, connect, exchange, is_closed, serving,
};

/// All are in one certificate, so it is not the certificate that separates them.
const HOSTS: [&str; 4] = ["public.test", "inside.test", "both.test", "plain.test"];

struct Fixture {
    gateway: Gateway,
    /// Where `inside.test` is served by TLS, and another `both.test`.
    inside: SocketAddr,
    /// Where `plain.test` is served without.
    plain: SocketAddr,
    _ports: [Port; 2],
}

fn sites(inside: SocketAddr, plain: SocketAddr, more: &str) -> String {
    format!(
        "sites:
  - {{ hosts: [public.test], routes: [{{ respond: {{ body: public }} }}] }}
  - {{ hosts: [inside.test], listen: [\"{inside}\"], routes: [{{ respond: {{ body: inside }} }}] }}
  - {{ hosts: [both.test], routes: [{{ respond: {{ body: outside }} }}] }}
  - {{ hosts: [both.test], listen: [\"{inside}\"]{more}, routes: [{{ respond: {{ body: inside }} }}] }}
  - {{ hosts: [plain.test], listen: [\"{plain}\"], tls: off, routes: [{{ respond: {{ body: plain }} }}] }}
"
    )
}

impl Fixture {
    fn start(rest: &str, more: &str) -> Self {
        Self::with(|builder| builder.config(rest), more)
    }

    fn with(set: impl FnOnce(Builder) -> Builder, more: &str) -> Self {
        let ports = [Port::take(), Port::take()];
        let [inside, plain] = [ports[0].address(), ports[1].address()];
        let builder = set(serving(&[&HOSTS], sites(inside, plain, more)));
        Self {
            gateway: builder.start(),
            inside,
            plain,
            _ports: ports,
        }
    }
}

/// Status and body of a request for `host` over a connection made for `name`; the error where there is
/// no connection.
fn over(address: SocketAddr, name: &str, host: &str) -> Result<(u16, String), String> {
    let mut stream = TlsClient::named(name).try_connect(address)?;
    let response = stream.get(host, "/");
    Ok((response.status, response.text()))
}

/// The same over HTTP/2.
fn over_h2(address: SocketAddr, name: &str, host: &str) -> (u16, String) {
    let mut connection = H2::connect(address, name);
    let request = http::Request::builder().uri(format!("https://{host}/"));
    let reply = connection.send(request, None).expect("an answer");
    (reply.status, reply.text())
}

/// Status and location, or body, of a plain request.
fn plainly(address: SocketAddr, host: &str) -> (u16, String) {
    let request = format!("GET /x HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    let answer = exchange(&mut connect(address), request);
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let status = answer
        .split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok());
    let location = answer.lines().find_map(|line| {
        let (name, value) = line.split_once(": ")?;
        name.eq_ignore_ascii_case("location")
            .then(|| value.to_owned())
    });
    let body = answer.split("\r\n\r\n").nth(1).unwrap_or_default();
    (
        status.expect("a status"),
        location.unwrap_or_else(|| body.to_owned()),
    )
}

fn ok(body: &str) -> (u16, String) {
    (200, body.to_owned())
}

#[test]
fn a_site_is_served_where_it_says_and_nowhere_else() {
    let fixture = Fixture::start("", "");
    let (outside, inside) = (fixture.gateway.https, fixture.inside);
    for (address, name, body) in [
        (outside, "public.test", "public"),
        (outside, "both.test", "outside"),
        (inside, "inside.test", "inside"),
        (inside, "both.test", "inside"),
    ] {
        assert_eq!(
            over(address, name, name),
            Ok(ok(body)),
            "{name} at {address}"
        );
        assert_eq!(
            over_h2(address, name, name),
            ok(body),
            "{name} at {address}"
        );
    }
    // A name that is served elsewhere is unknown, though there is a certificate for it.
    for (address, name) in [(outside, "inside.test"), (inside, "public.test")] {
        let refused = over(address, name, name).expect_err("an alert");
        assert!(refused.contains("unrecognized name"), "{refused}");
    }
    // Neither `Host` nor a connection that is reused leads to another listener's site.
    for (address, name, host) in [
        (outside, "public.test", "inside.test"),
        (inside, "inside.test", "public.test"),
        (outside, "public.test", "plain.test"),
    ] {
        let (status, body) = over(address, name, host).expect("a connection");
        assert_eq!(status, 421, "{host} at {address}: {body}");
        assert_eq!(over_h2(address, name, host).0, 421, "{host} at {address}");
    }
    assert_eq!(over_h2(inside, "inside.test", "both.test"), ok("inside"));
    assert_eq!(over_h2(outside, "public.test", "both.test"), ok("outside"));

    let http = fixture.gateway.http;
    assert_eq!(plainly(fixture.plain, "plain.test"), ok("plain"));
    for (address, host) in [
        (http, "plain.test"),
        (http, "inside.test"),
        (fixture.plain, "public.test"),
        (fixture.plain, "inside.test"),
    ] {
        assert_eq!(plainly(address, host).0, 404, "{host} at {address}");
    }
    let port = outside.port();
    let to = |path: &str| (308, format!("https://{path}"));
    assert_eq!(
        plainly(http, "both.test"),
        to(&format!("both.test:{port}/x"))
    );
    let listed = fixture.gateway.ask("GET", "/api/v1/sites").text();
    assert!(
        listed.contains(&format!("\"listen\":[\"{inside}\"]")),
        "{listed}"
    );
}

#[test]
fn a_name_that_is_served_elsewhere_gets_the_default_certificate_and_421() {
    let fixture = Fixture::start("tls: { default_certificate: public.test }", "");
    for (address, name) in [
        (fixture.gateway.https, "inside.test"),
        (fixture.inside, "public.test"),
    ] {
        let (status, body) = over(address, name, name).expect("a connection");
        assert_eq!(status, 421, "{name} at {address}: {body}");
    }
    let mut nameless = TlsClient::nameless().connect(fixture.inside);
    assert_eq!(nameless.get("public.test", "/").status, 421);
}

#[test]
fn a_session_opens_no_other_listener() {
    let fixture = Fixture::start("", "");
    let (outside, inside) = (fixture.gateway.https, fixture.inside);
    for version in [SslVersion::TLS1_2, SslVersion::TLS1_3] {
        for (made_at, other) in [(outside, inside), (inside, outside)] {
            let mut first = TlsClient::named("both.test")
                .version(version)
                .connect(made_at);
            assert_eq!(first.get("both.test", "/").status, 200);
            let session = first.session().expect("a session");
            let resume = |address| {
                let client = TlsClient::named("both.test").version(version);
                let mut stream = client.session(&session).connect(address);
                let body = stream.get("both.test", "/").text();
                (stream.resumed(), body)
            };
            let body = |address| match address == outside {
                true => "outside".to_owned(),
                false => "inside".to_owned(),
            };
            assert_eq!(resume(other), (false, body(other)), "{version:?}");
            assert_eq!(resume(made_at), (true, body(made_at)), "{version:?}");
        }
    }
}

#[test]
fn what_a_site_demands_of_clients_is_demanded_at_its_listener_alone() {
    let clients = Ca::new("Clients Root");
    let with = |builder: Builder| {
        fs::write(builder.dir().join("clients.pem"), clients.pem()).expect("written");
        builder
    };
    let fixture = Fixture::with(with, ", client_auth: { ca: clients.pem }");
    let (outside, inside) = (fixture.gateway.https, fixture.inside);
    for version in [SslVersion::TLS1_2, SslVersion::TLS1_3] {
        let mut free = TlsClient::named("both.test")
            .version(version)
            .connect(outside);
        assert_eq!(free.get("both.test", "/").text(), "outside");
        let session = free.session().expect("a session");
        for client in [
            TlsClient::named("both.test").version(version),
            TlsClient::named("both.test")
                .version(version)
                .session(&session),
        ] {
            // In TLS 1.3 the client learns it only when it reads.
            let answer = client.try_connect(inside).map(|mut stream| {
                let request = "GET / HTTP/1.1\r\nHost: both.test\r\nConnection: close\r\n\r\n";
                stream.exchange(request)
            });
            assert!(answer.as_ref().map_or(true, Vec::is_empty), "{answer:?}");
        }
    }
    // Nor by a connection that was made for another of its sites.
    let (status, body) = over(inside, "inside.test", "both.test").expect("a connection");
    assert_eq!(status, 421, "{body}");
}

#[test]
fn redirects_lead_to_the_port_of_the_site() {
    let ports = [Port::take(), Port::take()];
    let [first, second] = [ports[0].address(), ports[1].address()];
    let builder = serving(&[&HOSTS], "");
    let http = builder.http();
    let gateway = builder
        .config(format!(
            "sites:
  - {{ hosts: [inside.test], listen: [\"{first}\", \"{http}\"], routes: [{{ respond: {{ body: a }} }}] }}
  - {{ hosts: [both.test], listen: [\"{http}\", \"{second}\"], routes: [{{ respond: {{ body: b }} }}] }}
  - {{ hosts: [public.test], routes: [{{ respond: {{ body: c }} }}] }}
"
        ))
        .start();
    for (host, address) in [
        ("inside.test", first),
        ("both.test", second),
        ("public.test", gateway.https),
    ] {
        let to = format!("https://{host}:{}/x", address.port());
        assert_eq!(plainly(http, host), (308, to));
    }
    assert_eq!(over(second, "both.test", "both.test"), Ok(ok("b")));
}

#[test]
fn sites_move_between_listeners_on_reload() {
    let mut fixture = Fixture::start("", "");
    let (outside, inside, plain) = (fixture.gateway.https, fixture.inside, fixture.plain);
    let mut open = TlsClient::named("inside.test").connect(inside);
    assert_eq!(open.get("inside.test", "/").text(), "inside");
    let certificates = "certificates: [{ directory: certs }]\n";
    let swapped = "\
sites:
  - { hosts: [inside.test], routes: [{ respond: { body: moved } }] }
  - { hosts: [public.test], listen: [\"INSIDE\"], routes: [{ respond: { body: moved } }] }
";
    let swapped = swapped.replace("INSIDE", &inside.to_string());
    fixture
        .gateway
        .replace_config(format!("{certificates}{swapped}"));
    assert_eq!(fixture.gateway.reload().0, 200);
    assert_eq!(over(outside, "inside.test", "inside.test"), Ok(ok("moved")));
    assert_eq!(over(inside, "public.test", "public.test"), Ok(ok("moved")));
    assert!(over(inside, "inside.test", "inside.test").is_err());
    assert!(is_closed(plain));
    // A connection stays at its address.
    assert_eq!(open.get("inside.test", "/").status, 421);

    fixture
        .gateway
        .replace_config(format!("{certificates}{}", sites(inside, plain, "")));
    assert_eq!(fixture.gateway.reload().0, 200);
    assert_eq!(open.get("inside.test", "/").text(), "inside");
    assert_eq!(plainly(plain, "plain.test"), ok("plain"));
}
