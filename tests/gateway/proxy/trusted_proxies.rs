//! Proxies in front: whom the gateway believes about its clients, and what it makes of it.

use std::fs;
use std::path::Path;

use super::{VERSIONS, all};
use crate::support::{
    Act, Balancer, Builder, Curl, Gateway, Nginx, Origin, Sending, check, connect, curl, exchange,
    serving, wait_for,
};

/// An origin that sends back the head that it got.
fn telling() -> Origin {
    Origin::start(|request| vec![Act::respond(200, &request.head)])
}

/// Begins a gateway that believes `trusted`, in front of `origin`.
fn behind(origin: &Origin, trusted: &str) -> Builder {
    let routes = "routes:\n  \
                  - { path: /to, redirect: { to: \"{scheme}://{host}:{port}/\", status: 307 } }\n  \
                  - { upstream: app, request_headers: { set: { X-Client: \"{client_ip}\" } } }";
    serving(
        &[&["a.test"]],
        format!(
            "upstreams: {{ app: {{ servers: [\"{}\"] }} }}\n\
             sites:\n\
             - hosts: [a.test]\n  hsts: {{ max_age: 1d }}\n  {routes}\n\
             - hosts: [plain.test]\n  tls: off\n  {routes}\n\
             log: {{ access: access.log }}\n",
            origin.address()
        ),
    )
    .server(&format!("trusted_proxies: [{trusted}]"))
}

/// A request from 127.0.0.1 with these fields.
fn ask(gateway: &Gateway, version: &str, fields: &[&str]) -> Curl {
    let curl = match version {
        "plain" => gateway.curl_http("plain.test", "/"),
        "1.1" => tls(gateway).arg("--http1.1"),
        _ => tls(gateway).arg("--http2"),
    };
    with_fields(curl, fields)
}

fn tls(gateway: &Gateway) -> Curl {
    gateway
        .curl("a.test", "/")
        .cacert(&gateway.dir().join("root.pem"))
}

fn with_fields(curl: Curl, fields: &[&str]) -> Curl {
    let add = |curl: Curl, field: &&str| curl.args(["--header", *field]);
    fields.iter().fold(curl, add)
}

/// The client as the server, a template and the access log have it.
fn clients(head: &str) -> [String; 3] {
    ["X-Forwarded-For", "X-Real-IP", "X-Client"].map(|name| all(head, name).join("|"))
}

const WAYS: [&str; 3] = ["plain", "1.1", "2"];

#[test]
fn trusted_proxies_say_who_the_client_is() {
    let origin = telling();
    let gateway = behind(&origin, "127.0.0.1, \"10.0.0.0/8\", \"2001:db8:1::/48\"").start();
    for way in WAYS {
        for (fields, client, chain) in [
            (
                &["X-Forwarded-For: 192.0.2.1"][..],
                "192.0.2.1",
                "192.0.2.1, 127.0.0.1",
            ),
            (
                &["X-Forwarded-For: 6.6.6.6, 192.0.2.2, 10.0.0.3, 2001:db8:1::2"],
                "192.0.2.2",
                "192.0.2.2, 10.0.0.3, 2001:db8:1::2, 127.0.0.1",
            ),
            (
                &["X-Forwarded-For: 6.6.6.6", "X-Forwarded-For: 2001:db8::9"],
                "2001:db8::9",
                "2001:db8::9, 127.0.0.1",
            ),
            (
                &["X-Forwarded-For: ::ffff:192.0.2.1"],
                "192.0.2.1",
                "192.0.2.1, 127.0.0.1",
            ),
            (
                &["X-Forwarded-For: 6.6.6.6, unknown"],
                "127.0.0.1",
                "127.0.0.1",
            ),
            (
                &["Forwarded: for=6.6.6.6, for=\"[2001:db8::7]:80\";proto=https"],
                "2001:db8::7",
                "2001:db8::7, 127.0.0.1",
            ),
            (
                &["Forwarded: for=6.6.6.6", "X-Forwarded-For: 192.0.2.1"],
                "192.0.2.1",
                "192.0.2.1, 127.0.0.1",
            ),
            (
                &["X-Real-IP: 6.6.6.6", "Client-IP: 6.6.6.6"],
                "127.0.0.1",
                "127.0.0.1",
            ),
        ] {
            let head = ask(&gateway, way, fields).send().text();
            assert_eq!(clients(&head), [chain, client, client], "{way} {fields:?}");
            let forwarded = all(&head, "Forwarded").join("|");
            let quoted = match client.contains(':') {
                true => format!("for=\"[{client}]\";"),
                false => format!("for={client};"),
            };
            assert!(forwarded.starts_with(&quoted), "{way} {forwarded}");
            assert!(!head.contains("6.6.6.6"), "{way} {head}");
        }
    }
    let path = gateway.dir().join("access.log");
    wait_for("the access log", || {
        let text = fs::read_to_string(&path).unwrap_or_default();
        let has = |client: &str| text.matches(client).count() >= 3;
        (has("192.0.2.2") && has("2001:db8::9") && has("2001:db8::7")).then_some(())
    });
    assert!(
        !fs::read_to_string(&path)
            .expect("a log")
            .contains("6.6.6.6")
    );
}

#[test]
fn nobody_else_is_believed() {
    let origin = telling();
    let lies = [
        "X-Forwarded-For: 6.6.6.6",
        "Forwarded: for=6.6.6.6;proto=https",
        "X-Forwarded-Proto: ftp",
        "X-Forwarded-Port: 1",
    ];
    for trusted in ["", "\"127.0.0.2/31\""] {
        let gateway = behind(&origin, trusted).start();
        for way in WAYS {
            let head = ask(&gateway, way, &lies).send().text();
            assert_eq!(clients(&head), ["127.0.0.1"; 3], "{way} {trusted}");
            assert!(!head.contains("6.6.6.6"), "{head}");
            assert_ne!(all(&head, "X-Forwarded-Port"), ["1"], "{way}");
            let scheme = if way == "plain" { "http" } else { "https" };
            assert_eq!(all(&head, "X-Forwarded-Proto"), [scheme], "{way}");
        }
    }
}

#[test]
fn the_scheme_is_that_of_the_client() {
    let origin = telling();
    let gateway = behind(&origin, "127.0.0.1").start();
    for (way, field, scheme, port) in [
        ("plain", "X-Forwarded-Proto: https", "https", Some("443")),
        (
            "plain",
            "Forwarded: for=192.0.2.1;proto=https",
            "https",
            Some("443"),
        ),
        ("plain", "X-Forwarded-Proto: http", "http", None),
        ("plain", "X-Forwarded-Proto: gopher", "http", None),
        ("1.1", "X-Forwarded-Proto: http", "http", Some("80")),
        ("2", "X-Forwarded-Proto: http", "http", Some("80")),
        ("2", "X-Forwarded-Proto: https", "https", None),
    ] {
        let head = ask(&gateway, way, &[field]).send().text();
        assert_eq!(all(&head, "X-Forwarded-Proto"), [scheme], "{way} {field}");
        let forwarded = all(&head, "Forwarded").join("|");
        assert!(
            forwarded.contains(&format!("proto={scheme};")),
            "{forwarded}"
        );
        if let Some(port) = port {
            assert_eq!(all(&head, "X-Forwarded-Port"), [port], "{way} {field}");
        }
    }
    // Redirects, and what only clients with TLS get.
    let url = format!("http://plain.test:{}/to", gateway.http.port());
    let to = curl(&url).resolve("plain.test", gateway.http);
    let to = with_fields(to, &["X-Forwarded-Proto: https", "X-Forwarded-Port: 8443"]);
    let to = to.send();
    assert_eq!(to.header("location"), Some("https://plain.test:8443/"));
    let secure = tls(&gateway).send();
    assert!(secure.header("strict-transport-security").is_some());
    let plain = with_fields(tls(&gateway), &["X-Forwarded-Proto: http"]).send();
    assert_eq!(plain.header("strict-transport-security"), None);
}

#[test]
fn a_client_that_speaks_tls_with_its_proxy_is_not_sent_there() {
    let origin = telling();
    let gateway = behind(&origin, "127.0.0.1").start();
    let ask = |source: &str, field: &str| {
        let curl = gateway
            .curl_http("a.test", "/")
            .args(["--interface", source]);
        with_fields(curl, &[field]).send()
    };
    let served = ask("127.0.0.1", "X-Forwarded-Proto: https");
    assert_eq!(served.status, 200);
    assert!(served.header("strict-transport-security").is_some());
    for (source, field) in [
        ("127.0.0.1", "X-Forwarded-Proto: http"),
        ("127.0.0.1", "X-Forwarded-For: 192.0.2.1"),
        ("127.0.0.2", "X-Forwarded-Proto: https"),
    ] {
        assert_eq!(ask(source, field).status, 308, "{source} {field}");
    }
    let unknown = with_fields(
        gateway.curl_http("other.test", "/"),
        &["X-Forwarded-Proto: https"],
    );
    assert_eq!(unknown.send().status, 404);
}

#[test]
fn the_address_decides_what_depends_on_the_client() {
    let nginx = Nginx::reading_proxy_protocol(None);
    let gateway = serving(
        &[&["a.test"]],
        format!(
            "upstreams: {{ app: {{ servers: [\"{}\"], send_proxy_protocol: v2 }} }}\n\
             sites:\n\
             - hosts: [a.test]\n  maintenance: {{ allow: [\"192.0.2.0/24\"] }}\n  \
               routes: [{{ upstream: app }}]\n\
             log: {{ access: off }}\n",
            nginx.address()
        ),
    )
    .server("trusted_proxies: [127.0.0.1]")
    .start();
    for version in VERSIONS {
        let refused = ask(&gateway, version, &["X-Forwarded-For: 192.0.3.1"]).send();
        assert_eq!(refused.status, 503, "{version}");
        let served = ask(&gateway, version, &["X-Forwarded-For: 192.0.2.1"]).send();
        let text = served.text();
        assert_eq!(served.status, 200, "{text}");
        // The client's port is not known, and nginx does not show port 0.
        assert!(
            text.starts_with("192.0.2.1  127.0.0.1 "),
            "{version} {text}"
        );
    }
}

#[test]
fn a_balancer_may_name_a_trusted_proxy() {
    let origin = telling();
    let gateway = behind(&origin, "192.0.2.0/24")
        .server("proxy_protocol: { trusted: [\"127.0.0.77\"] }")
        .start();
    let ask = |proxy: &str| {
        let header = format!("PROXY TCP4 {proxy} 198.51.100.7 1 443\r\n");
        let balancer = Balancer::start(gateway.https, header, Sending::First);
        let url = format!("https://a.test:{}/", balancer.address().port());
        let curl = curl(&url)
            .resolve("a.test", balancer.address())
            .cacert(&gateway.dir().join("root.pem"));
        with_fields(curl, &["X-Forwarded-For: 203.0.113.5"])
            .send()
            .text()
    };
    assert_eq!(clients(&ask("192.0.2.9"))[0], "203.0.113.5, 192.0.2.9");
    assert_eq!(clients(&ask("192.0.3.9"))[0], "192.0.3.9");
}

#[test]
fn who_is_trusted_changes_with_a_reload_even_for_open_connections() {
    let origin = telling();
    let gateway = behind(&origin, "127.0.0.1").start();
    let mut stream = connect(gateway.http);
    let request = "GET / HTTP/1.1\r\nHost: plain.test\r\nX-Forwarded-For: 192.0.2.1\r\n";
    let mut ask = || {
        use std::io::Write as _;
        stream
            .write_all(format!("{request}\r\n").as_bytes())
            .expect("taken");
        let response = crate::support::read_response(&mut stream);
        clients(&response.expect("a response").text())[1].clone()
    };
    assert_eq!(ask(), "192.0.2.1");
    let config = fs::read_to_string(&gateway.config).expect("a file");
    let without = config.replace("trusted_proxies: [127.0.0.1]", "trusted_proxies: []");
    gateway.write("snigate.yaml", &without);
    assert_eq!(gateway.reload().0, 200);
    assert_eq!(ask(), "127.0.0.1");
    let closed = format!("{request}Connection: close\r\n\r\n");
    let answer = exchange(&mut connect(gateway.http), closed);
    assert!(!String::from_utf8_lossy(&answer).contains("192.0.2.1"));
}

/// Writes the list of a provider, as an operator's job does.
fn write_list(directory: &Path, name: &str, text: &str) {
    let networks = directory.join("networks");
    fs::create_dir_all(&networks).expect("a directory");
    let fresh = networks.join("fresh");
    fs::write(&fresh, text).expect("a file");
    fs::rename(fresh, networks.join(name)).expect("a file");
}

#[test]
fn lists_of_providers_are_read_from_files_that_may_change() {
    let origin = telling();
    let builder = behind(&origin, "cloudflare, { file: own.txt }");
    let list = |network: &str| format!(r#"{{"result":{{"ipv4_cidrs":["{network}"]}}}}"#);
    write_list(builder.dir(), "cloudflare", &list("198.51.100.0/24"));
    fs::write(builder.dir().join("own.txt"), "# ours\n127.0.0.2\n").expect("a file");
    let gateway = builder.start();
    let client = |source: &str| {
        let curl = gateway
            .curl_http("plain.test", "/")
            .args(["--interface", source]);
        let head = with_fields(curl, &["X-Forwarded-For: 192.0.2.1"])
            .send()
            .text();
        clients(&head)[1].clone()
    };
    assert_eq!(client("127.0.0.1"), "127.0.0.1");
    assert_eq!(client("127.0.0.2"), "192.0.2.1");
    // It is noticed without a request to reload.
    write_list(gateway.dir(), "cloudflare", &list("127.0.0.1/32"));
    wait_for("the new list", || {
        (client("127.0.0.1") == "192.0.2.1").then_some(())
    });
    // One that cannot be read leaves the old one in force.
    write_list(gateway.dir(), "cloudflare", "<html>");
    gateway.wait_for_log("'<html>' in line 1");
    assert_eq!(client("127.0.0.1"), "192.0.2.1");
}

#[test]
fn a_list_that_is_missing_is_reported_with_how_to_get_it() {
    let dir = tempfile::tempdir().expect("a directory");
    let config = dir.path().join("snigate.yaml");
    for (name, url) in [
        ("cloudflare", "https://api.cloudflare.com/client/v4/ips"),
        ("fastly", "https://api.fastly.com/public-ip-list"),
        (
            "aws-cloudfront",
            "https://ip-ranges.amazonaws.com/ip-ranges.json",
        ),
    ] {
        let text = format!(
            "server: {{ trusted_proxies: [{name}] }}\n\
             sites: [{{ hosts: [a.test], tls: off, routes: [{{ respond: {{ body: x }} }}] }}]\n"
        );
        fs::write(&config, text).expect("a file");
        let path = dir.path().join("networks").join(name);
        let command = format!("curl -fsS --create-dirs -o {} {url}", path.display());
        let printed = check(&config);
        let said = printed.stdout + &printed.stderr;
        assert!(said.contains("trusted_proxies[0]"), "{said}");
        assert!(said.contains(&command), "{said}");
        assert_eq!(printed.code, Some(3), "{said}");
    }
}
