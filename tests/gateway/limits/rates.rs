//! How many requests are served in a time, and at a time.

use std::fs;
use std::io::{Read as _, Write as _};
use std::thread;
use std::time::Duration;

use super::limited;
use crate::support::{
    Act, Builder, Curl, CurlReply, Gateway, Origin, TlsClient, connect, is_end, read_head, serving,
    wait_for, within,
};

const VERSIONS: [&str; 2] = ["--http1.1", "--http2"];

/// No limit of these routes has a token more within a test.
fn routes(origin: &Origin, limit: &str) -> String {
    format!(
        "upstreams: {{ app: {{ servers: [\"{}\"] }} }}\n\
         sites:\n\
         - hosts: [a.test]\n  \
           rate_limit: {{ requests: 4, per: 1h, headers: on }}\n  \
           routes:\n  \
           - {{ path: /own, rate_limit: {{ {limit} }}, respond: {{ body: own }} }}\n  \
           - {{ path: /app, rate_limit: {{ {limit} }}, upstream: app }}\n  \
           - {{ path: /key, rate_limit: {{ {limit}, by: {{ header: X-Api-Key }} }}, upstream: app }}\n  \
           - {{ path: /all, rate_limit: {{ {limit}, by: site }}, upstream: app }}\n  \
           - {{ path: /user, basic_auth: {{ users_file: users }}, upstream: app, \
                rate_limit: {{ {limit}, by: user, headers: on }} }}\n  \
           - {{ path: /closed, maintenance: on, upstream: app }}\n  \
           - {{ path: /denied, deny: [\"127.0.0.0/8\"], upstream: app }}\n  \
           - {{ path: /open, rate_limit: off, upstream: app }}\n  \
           - {{ path: /file, files: {{ root: . }}, strip_prefix: true }}\n  \
           - {{ path: /rest, upstream: app }}\n\
         log: {{ access: access.log }}\n",
        origin.address(),
    )
}

const THREE: &str = "requests: 2, per: 1h, burst: 3";

fn builder(origin: &Origin) -> Builder {
    let builder = serving(&[&["a.test"]], routes(origin, THREE));
    // The password is `hunter2`.
    let hash = "$2b$04$abcdefghijklmnopqrstuuV3duMsC0HpUex6N9qapiuOHHWkwRXVm";
    let users = format!("ann:{hash}\nbob:{hash}\n");
    fs::write(builder.dir().join("users"), users).expect("a file");
    builder
}

fn ask(gateway: &Gateway, version: &str, path: &str) -> Curl {
    let root = gateway.dir().join("root.pem");
    gateway.curl("a.test", path).cacert(&root).arg(version)
}

/// The statuses of so many requests with these arguments of curl.
fn statuses(
    gateway: &Gateway,
    version: &str,
    path: &str,
    count: usize,
    arguments: &[&str],
) -> Vec<u16> {
    let asked = || {
        let curl = ask(gateway, version, path);
        let curl = arguments.iter().fold(curl, |curl, one| curl.arg(*one));
        curl.send().status
    };
    (0..count).map(|_| asked()).collect()
}

#[test]
fn requests_beyond_a_rate_are_refused() {
    let origin = Origin::named("app");
    for version in VERSIONS {
        let gateway = builder(&origin).start();
        let statuses =
            |path, count, arguments: &[&str]| statuses(&gateway, version, path, count, arguments);
        let other = ["--interface", "127.0.0.2"];
        for path in ["/own", "/app", "/key"] {
            assert_eq!(statuses(path, 4, &[]), [200, 200, 200, 429], "{path}");
            assert_eq!(statuses(path, 4, &other), [200, 200, 200, 429], "{path}");
        }
        assert_eq!(statuses("/all", 2, &[]), [200, 200]);
        assert_eq!(statuses("/all", 2, &other), [200, 429]);
        for key in ["X-Api-Key: a", "x-api-key: b"] {
            let header = ["--header", key];
            assert_eq!(statuses("/key", 4, &header), [200, 200, 200, 429], "{key}");
        }
        let a = ["--header", "X-Api-Key: a", "--interface", "127.0.0.2"];
        assert_eq!(statuses("/key", 1, &a), [429]);
        for user in ["ann:hunter2", "bob:hunter2"] {
            let user = ["--user", user];
            assert_eq!(statuses("/user", 4, &user), [200, 200, 200, 429]);
        }
        assert_eq!(statuses("/user", 4, &[]), [401; 4], "nobody is counted");
        assert_eq!(statuses("/open", 9, &[]), [200; 9]);
        assert_eq!(statuses("/closed", 9, &[]), [503; 9]);
        assert_eq!(statuses("/denied", 9, &[]), [403; 9]);
        // What has no limit of its own counts for the site.
        assert_eq!(statuses("/rest", 2, &[]), [200, 200]);
        assert_eq!(statuses("/missing", 1, &[]), [404]);
        assert_eq!(statuses("/file/root.pem", 2, &[]), [200, 429]);
        assert_eq!(statuses("/missing", 1, &[]), [429]);
        let refused = gateway.metric("snigate_requests_refused_total{reason=\"rate_limited\"}");
        assert_eq!(refused, Some(14.0));
        wait_for("the access log", || {
            let log = fs::read_to_string(gateway.dir().join("access.log")).unwrap_or_default();
            let lines = log
                .lines()
                .filter(|line| line.contains(" 429 ") && line.contains(" refused=rate_limited"));
            (lines.count() == 14).then_some(())
        });
        let log = gateway.log();
        let lines = log.lines().filter(|line| line.contains("refused with 429"));
        assert!((1..14).contains(&lines.count()), "at most one in a second");
    }
}

/// The seconds in a field, about so many on a busy machine.
#[track_caller]
fn about(state: Option<&str>, left: u64, seconds: u64) {
    let state = state.expect("a field");
    let begin = format!("\"gateway\";r={left};t=");
    let reset = state.strip_prefix(&begin).expect(state);
    let reset: u64 = reset.parse().expect("seconds");
    assert!((seconds - 60..=seconds).contains(&reset), "{state}");
}

fn rate_fields(reply: &CurlReply) -> [Option<&str>; 3] {
    ["ratelimit-policy", "ratelimit", "retry-after"].map(|name| reply.header(name))
}

#[test]
fn responses_say_how_many_requests_are_left() {
    let origin = Origin::named("app");
    for version in VERSIONS {
        let gateway = builder(&origin).start();
        let policy = Some("\"gateway\";q=4;w=3600");
        // Time passes between them, in which the next request comes nearer.
        for (left, reset) in [(3, 900), (2, 900), (1, 900), (0, 900)] {
            let reply = ask(&gateway, version, "/rest").send();
            assert_eq!(reply.status, 200);
            let [found, state, after] = rate_fields(&reply);
            assert_eq!((found, after), (policy, None));
            about(state, left, reset);
        }
        let refused = ask(&gateway, version, "/rest").send();
        assert_eq!(refused.status, 429);
        let [found, state, after] = rate_fields(&refused);
        assert_eq!(found, policy);
        about(state, 0, 900);
        let after = after.expect("a time");
        assert_eq!(state, Some(&*format!("\"gateway\";r=0;t={after}")));
        // Of the limit that the request counts for, and only where that is wished.
        let user = ["--user", "ann:hunter2"];
        let reply = ask(&gateway, version, "/user").args(user).send();
        let [found, state, after] = rate_fields(&reply);
        assert_eq!((found, after), (Some("\"gateway\";q=3;w=5400"), None));
        about(state, 2, 1800);
        assert_eq!(
            rate_fields(&ask(&gateway, version, "/own").send()),
            [None; 3]
        );
        assert_eq!(
            rate_fields(&ask(&gateway, version, "/open").send()),
            [None; 3]
        );
    }
}

#[test]
fn a_call_of_grpc_is_refused_in_its_own_way() {
    let origin = Origin::named("app");
    let gateway = builder(&origin).start();
    let call = || {
        ask(&gateway, "--http2", "/app")
            .args(["--header", "content-type: application/grpc"])
            .args(["--data", ""])
            .send()
    };
    for _ in 0..3 {
        assert_eq!(call().header("grpc-status"), None);
    }
    let refused = call();
    assert_eq!(
        (refused.status, refused.header("grpc-status")),
        (200, Some("14"))
    );
    assert_eq!(
        refused.header("ratelimit-policy"),
        Some("\"gateway\";q=3;w=5400")
    );
}

#[test]
fn what_was_counted_outlives_a_reload() {
    let origin = Origin::named("app");
    let gateway = builder(&origin).start();
    let path = gateway.dir().join("snigate.yaml");
    let config = fs::read_to_string(path).expect("a configuration");
    let served = |gateway: &Gateway, path| statuses(gateway, "--http2", path, 1, &[]);
    for _ in 0..3 {
        assert_eq!(served(&gateway, "/own"), [200]);
    }
    assert_eq!(served(&gateway, "/own"), [429]);
    gateway.write("snigate.yaml", &config.replace("body: own", "body: other"));
    assert_eq!(gateway.reload().0, 200);
    assert_eq!(served(&gateway, "/own"), [429]);
    assert_eq!(served(&gateway, "/app"), [200]);
    gateway.write(
        "snigate.yaml",
        &config.replace(THREE, "requests: 1, per: 1h"),
    );
    assert_eq!(gateway.reload().0, 200);
    assert_eq!(served(&gateway, "/own"), [200]);
    assert_eq!(served(&gateway, "/own"), [429]);
}

#[test]
fn sites_with_the_same_routes_count_on_their_own() {
    let site = |host| {
        format!(
            "- {{ hosts: [{host}], rate_limit: {{ requests: 1, per: 1h }}, routes: [{{ respond: {{}} }}] }}\n"
        )
    };
    let config = format!("sites:\n{}{}", site("a.test"), site("b.test"));
    let gateway = serving(&[&["a.test", "b.test"]], config).start();
    for host in ["a.test", "b.test"] {
        let ask = || gateway.curl(host, "/").arg("--insecure").send().status;
        assert_eq!([ask(), ask()], [200, 429], "{host}");
    }
}

#[test]
fn a_site_serves_some_requests_at_a_time() {
    let origin = Origin::silent();
    let config = format!(
        "upstreams: {{ app: {{ servers: [\"{}\"] }} }}\n\
         sites:\n\
         - hosts: [a.test]\n  \
           max_requests: 2\n  \
           routes:\n  \
           - {{ path: /slow, upstream: app, timeout: {{ read: 60s }} }}\n  \
           - {{ path: /own, respond: {{ body: own }} }}\n\
         - {{ hosts: [b.test], routes: [{{ respond: {{}} }}] }}\n",
        origin.address(),
    );
    for version in VERSIONS {
        let gateway = serving(&[&["a.test", "b.test"]], config.clone()).start();
        let ask = |path| gateway.curl("a.test", path).args(["--insecure", version]);
        // Whatever ends them, requests make room.
        for _ in 0..3 {
            assert_eq!(ask("/own").send().status, 200);
        }
        let before = origin.requests().len();
        thread::scope(|scope| {
            let held: Vec<_> = (0..2)
                .map(|_| scope.spawn(|| ask("/slow").args(["--max-time", "3"]).try_send()))
                .collect();
            origin.wait_for_requests(before + 2);
            let refused = ask("/own").send();
            assert_eq!(
                (refused.status, refused.header("retry-after")),
                (503, Some("1"))
            );
            let other = gateway.curl("b.test", "/").arg("--insecure").send();
            assert_eq!(other.status, 200);
            for held in held {
                _ = held.join();
            }
        });
        wait_for("the clients that left to be forgotten", || {
            (ask("/own").send().status == 200).then_some(())
        });
        let refused = gateway.metric("snigate_requests_refused_total{reason=\"site_full\"}");
        assert!(refused >= Some(1.0), "{refused:?}");
    }
}

#[test]
fn a_websocket_is_in_progress_until_it_ends() {
    let origin = Origin::start(|_| {
        vec![
            Act::send(
                "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
            ),
            Act::Silence,
        ]
    });
    let config = format!(
        "upstreams: {{ app: {{ servers: [\"{}\"] }} }}\n\
         sites:\n\
         - hosts: [a.test]\n  \
           max_requests: 1\n  \
           routes:\n  \
           - {{ path: /ws, upstream: app }}\n  \
           - {{ respond: {{}} }}\n",
        origin.address(),
    );
    let gateway = serving(&[&["a.test"]], config).start();
    let ask = |version| {
        let asked = gateway.curl("a.test", "/").args(["--insecure", version]);
        asked.send().status
    };
    let open = || {
        let mut client = TlsClient::named("a.test").connect(gateway.https);
        let request =
            "GET /ws HTTP/1.1\r\nHost: a.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
        client.write_all(request.as_bytes()).expect("taken");
        let head = read_head(&mut client).expect("a head").expect("a response");
        (client, String::from_utf8(head).expect("text"))
    };
    for _ in 0..2 {
        let (client, head) = open();
        assert!(head.starts_with("HTTP/1.1 101"), "{head}");
        for version in VERSIONS {
            assert_eq!(ask(version), 503, "{version}");
        }
        let (_, head) = open();
        assert!(head.starts_with("HTTP/1.1 503"), "{head}");
        drop(client);
        wait_for("the end of the WebSocket", || {
            (ask("--http2") == 200).then_some(())
        });
    }
}

#[test]
fn balancers_learn_of_overload() {
    let origin = Origin::start(|_| vec![Act::Hold, Act::respond(200, "x")]);
    let gateway = limited(&origin, "upstream_connections: 2");
    let ready = || gateway.ask("GET", "/readyz");
    assert_eq!(ready().status, 200);
    let ask = || gateway.curl_http("plain.test", "/");
    thread::scope(|scope| {
        let held: Vec<_> = (0..2)
            .map(|_| scope.spawn(|| ask().send().status))
            .collect();
        origin.wait_for_requests(2);
        assert_eq!(ready().status, 200, "nobody has been refused");
        wait_for("the overload to be told", || {
            assert_eq!(ask().send().status, 503);
            let ready = ready();
            let is_told = ready.text().contains("upstream_connections");
            (ready.status == 503 && is_told).then_some(())
        });
        origin.release();
        for held in held {
            assert_eq!(held.join().expect("no panic"), 200);
        }
    });
    wait_for("the gateway to be ready again", || {
        (ready().status == 200).then_some(())
    });
    assert_eq!(ask().send().status, 200);
}

#[test]
fn a_client_begins_some_handshakes_in_a_second() {
    let origin = Origin::named("app");
    let gateway = limited(&origin, "max_handshakes_per_ip: 1");
    let mut closed = 0;
    let mut open = Vec::new();
    within(Duration::from_secs(30), "a connection to be closed", || {
        let mut stream = connect(gateway.https);
        stream
            .set_read_timeout(Some(Duration::from_millis(50)))
            .expect("set");
        match stream.read(&mut [0]) {
            Ok(0) => closed += 1,
            Err(error) if is_end(&error) => closed += 1,
            Ok(_) | Err(_) => open.push(stream),
        }
        (closed >= 5).then_some(())
    });
    assert!(open.len() < 30, "{} of them are open", open.len());
    let limited = "snigate_connections_limited_total{limit=\"max_handshakes_per_ip\"}";
    assert!(gateway.metric(limited) >= Some(5.0));
    gateway.wait_for_log("closed a connection before its handshake");
    // Neither others nor plain connections are affected.
    let other = gateway
        .curl("a.test", "/")
        .args(["--insecure", "--interface", "127.0.0.2"]);
    assert_eq!(other.send().status, 200);
    for _ in 0..3 {
        assert_eq!(gateway.curl_http("plain.test", "/").send().status, 200);
    }
}
