//! Cookies that keep clients at their servers.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::{PINGORA, VERSIONS, all, over, with_upstream};
use crate::support::{Act, Gateway, Origin, serving, snigate, wait_for};

/// Three origins, each with cookies of its own.
fn origins() -> [Origin; 3] {
    ["1", "2", "3"].map(|name| {
        Origin::start(move |_| {
            let head = "HTTP/1.1 200 OK\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2; Path=/\r\n\
                        Content-Length: 1\r\n\r\n";
            vec![Act::send(format!("{head}{name}"))]
        })
    })
}

fn servers(origins: &[Origin]) -> String {
    let servers: Vec<String> = origins
        .iter()
        .map(|origin| format!("\"{}\"", origin.address()))
        .collect();
    format!("servers: [{}]", servers.join(", "))
}

/// The body of the response to a request with these cookies, and the sticky cookie that it sets.
#[track_caller]
fn ask(version: &str, gateway: &Gateway, cookies: &str) -> (String, Option<String>) {
    let mut request = over(version, gateway, "a.test", "/");
    if !cookies.is_empty() {
        request = request.args(["-H", &format!("Cookie: {cookies}")]);
    }
    let reply = request.send();
    assert_eq!(reply.status, 200, "{}", reply.head);
    let mut set: Vec<&str> = all(&reply.head, "set-cookie");
    set.retain(|cookie| cookie.starts_with("snigate="));
    assert!(set.len() <= 1, "{}", reply.head);
    (reply.text(), set.pop().map(str::to_owned))
}

/// `NAME=VALUE` of a cookie that was set.
fn pair(set: &str) -> &str {
    set.split(';').next().unwrap_or_default()
}

#[test]
fn a_client_stays_at_its_server() {
    let origins = origins();
    let config = format!("{}, sticky: {{ cookie: snigate }}", servers(&origins));
    for gateway in [
        with_upstream(&config).start(),
        with_upstream(&config)
            .over_own_lane()
            .run_by(&PINGORA)
            .start(),
    ] {
        for version in VERSIONS {
            let (home, set) = ask(version, &gateway, "");
            let set = set.expect("a cookie");
            let (cookie, attributes) = set.split_once("; ").expect("attributes");
            assert_eq!(attributes, "Path=/; HttpOnly; Secure; SameSite=Lax");
            for origin in &origins {
                let port = origin.address().port().to_string();
                assert!(!cookie.contains(&port), "{cookie}");
            }
            for other in VERSIONS {
                for _ in 0..3 {
                    let cookies = format!("theme=dark; {cookie}");
                    assert_eq!(ask(other, &gateway, &cookies), (home.clone(), None));
                }
            }
        }
        // The server gets the cookie, and its own reach the client.
        let reply = over("2", &gateway, "a.test", "/")
            .args(["-H", "Cookie: x=y"])
            .send();
        let set = all(&reply.head, "set-cookie");
        assert_eq!(set[..2], ["a=1", "b=2; Path=/"]);
        assert_eq!(set.len(), 3);
    }
    let seen = origins.iter().flat_map(Origin::requests);
    let with_cookie =
        seen.filter(|one| one.header("cookie").is_some_and(|c| c.contains("snigate=")));
    assert!(with_cookie.count() > 0);
}

#[test]
fn what_is_no_cookie_of_the_upstream_is_replaced() {
    let origins = origins();
    let servers = servers(&origins);
    let sticky = "sticky: { cookie: snigate }";
    let gateway = serving(
        &[&["a.test", "b.test"]],
        format!(
            "upstreams: {{ app: {{ {servers}, {sticky} }}, other: {{ {servers}, {sticky} }} }}\n\
             sites:\n\
             - {{ hosts: [a.test], upstream: app }}\n\
             - {{ hosts: [b.test], upstream: other }}\n"
        ),
    )
    .start();
    let foreign = over("2", &gateway, "b.test", "/").send();
    let foreign = pair(all(&foreign.head, "set-cookie")[2]).to_owned();
    let (_, own) = ask("2", &gateway, "");
    let own = pair(&own.expect("a cookie")).to_owned();
    let cut = own[..own.len() - 1].to_owned();
    let turned = format!("{cut}{}", if own.ends_with('A') { 'B' } else { 'A' });
    for wrong in [
        &*foreign,
        &cut,
        &turned,
        "snigate=",
        "snigate=127.0.0.1:80",
        &format!("{own}A"),
    ] {
        for version in VERSIONS {
            let mut used: Vec<String> = Vec::new();
            for _ in 0..3 {
                let (server, set) = ask(version, &gateway, wrong);
                assert!(set.is_some(), "{wrong}");
                used.push(server);
            }
            used.sort_unstable();
            assert_eq!(used, ["1", "2", "3"], "{wrong}");
        }
    }
}

#[test]
fn a_cookie_fits_its_connection_and_configuration() {
    let origins = origins();
    let servers = servers(&origins);
    let gateway = serving(
        &[&["a.test"]],
        format!(
            "upstreams: {{ app: {{ {servers}, sticky: {{ cookie: snigate, max_age: 2h }} }} }}\n\
             sites: [{{ hosts: [plain.test], tls: off, upstream: app }}]\n"
        ),
    )
    .start();
    let reply = gateway.curl_http("plain.test", "/").send();
    let set = all(&reply.head, "set-cookie")[2].to_owned();
    let (_, attributes) = set.split_once("; ").expect("attributes");
    assert_eq!(attributes, "Path=/; Max-Age=7200; HttpOnly; SameSite=Lax");
}

#[test]
fn a_client_whose_server_fails_moves_to_another_and_stays_there() {
    let works = Arc::new(AtomicBool::new(true));
    let moody = Arc::clone(&works);
    let failing = Origin::start(move |_| match moody.load(Ordering::Relaxed) {
        true => vec![Act::respond(200, "first")],
        false => vec![Act::Reset],
    });
    let other = Origin::named("second");
    let gateway = with_upstream(&format!(
        "servers: [\"{}\", \"{}\"], sticky: {{ cookie: snigate }}",
        failing.address(),
        other.address()
    ))
    .start();
    let cookie = wait_for("a client of the first", || {
        let (server, set) = ask("1.1", &gateway, "");
        (server == "first").then_some(set.expect("a cookie"))
    });
    works.store(false, Ordering::Relaxed);
    for version in VERSIONS {
        let (server, set) = ask(version, &gateway, pair(&cookie));
        assert_eq!(server, "second", "{version}");
        let moved = set.expect("another cookie");
        assert_ne!(pair(&moved), pair(&cookie));
        assert_eq!(
            ask(version, &gateway, pair(&moved)),
            ("second".to_owned(), None)
        );
    }
    // A page of the gateway sets none.
    let address = other.address().to_string();
    let first = failing.address().to_string();
    let admin = gateway.admin.to_string();
    for server in [&address, &first] {
        let drained = snigate(&["upstreams", "drain", "app", server, "--admin", &admin]);
        assert_eq!(drained.code, Some(0), "{}", drained.stderr);
    }
    let page = over("2", &gateway, "a.test", "/").send();
    assert_eq!(page.status, 503);
    assert_eq!(all(&page.head, "set-cookie"), [""; 0]);
}

#[test]
fn a_client_of_a_drained_server_moves() {
    let origins = origins();
    let gateway = with_upstream(&format!(
        "{}, sticky: {{ cookie: snigate }}",
        servers(&origins)
    ))
    .start();
    let (home, set) = ask("2", &gateway, "");
    let set = set.expect("a cookie");
    let number: usize = home.parse().expect("a number");
    let address = origins[number - 1].address().to_string();
    let admin = gateway.admin.to_string();
    let run = |verb| snigate(&["upstreams", verb, "app", &address, "--admin", &admin]).code;
    assert_eq!(run("drain"), Some(0));
    let (server, moved) = ask("2", &gateway, pair(&set));
    assert_ne!(server, home);
    let moved = moved.expect("another cookie");
    assert_eq!(run("resume"), Some(0));
    assert_eq!(ask("2", &gateway, pair(&moved)), (server, None));
    assert_eq!(ask("2", &gateway, pair(&set)), (home, None));
}

#[test]
fn a_client_stays_at_its_server_over_a_restart_and_a_reload() {
    let origins = origins();
    let keys = servers(&origins);
    let mut gateway = with_upstream(&format!("{keys}, sticky: {{ cookie: snigate }}")).start();
    let (home, set) = ask("2", &gateway, "");
    let set = set.expect("a cookie");
    let stays = |gateway: &Gateway| {
        for _ in 0..3 {
            assert_eq!(ask("1.1", gateway, pair(&set)), (home.clone(), None));
        }
    };
    let key = gateway.dir().join("data/sticky/key.json");
    let mode = fs::metadata(&key).expect("the key").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    gateway.restart();
    stays(&gateway);
    // A server that is added changes nothing for those who are somewhere.
    let more = Origin::named("4");
    let servers = keys.replace("servers: [", &format!("servers: [\"{}\", ", more.address()));
    gateway.replace_config(format!(
        "certificates: [{{ directory: certs }}]\n\
         upstreams: {{ app: {{ {servers}, sticky: {{ cookie: snigate }} }} }}\n\
         sites: [{{ hosts: [a.test], upstream: app }}]\n"
    ));
    assert_eq!(gateway.reload().0, 200);
    stays(&gateway);
}

#[test]
fn two_gateways_of_a_storage_know_each_others_clients() {
    let origins = origins();
    let shared = tempfile::tempdir().expect("a directory");
    let config = format!(
        "upstreams: {{ app: {{ {}, sticky: {{ cookie: snigate }} }} }}\n\
         sites: [{{ hosts: [a.test], upstream: app }}]\n\
         storage: {{ file: {{ path: {:?} }} }}\n",
        servers(&origins),
        shared.path()
    );
    let gateways = [(); 2].map(|()| serving(&[&["a.test"]], &config).start());
    let (home, set) = ask("2", &gateways[0], "");
    let set = set.expect("a cookie");
    assert_eq!(ask("2", &gateways[1], pair(&set)), (home, None));
}
