//! Which server of an upstream gets a request, and over which connection.

use std::io::Write;
use std::net::{SocketAddr, TcpListener};

use super::{VERSIONS, in_front_of, over, passing_to};
use crate::support::{
    Act, Gateway, H2, Origin, TcpState, TlsClient, connections_to, read_head, read_response,
    serving, wait_for,
};

/// A gateway for `a.test` in front of these servers, written as the configuration has them.
#[track_caller]
fn balanced(servers: &str, route: &str) -> Gateway {
    serving(
        &[&["a.test"]],
        format!(
            "upstreams: {{ app: {{ servers: [{servers}] }} }}\n\
             sites: [{{ hosts: [a.test], routes: [{{ upstream: app{route} }}] }}]\n\
             log: {{ access: off }}\n"
        ),
    )
    .start()
}

#[test]
fn a_connection_to_an_upstream_is_used_again() {
    let origin = Origin::named("x");
    // One thread, so that one pool of connections.
    let gateway = serving(
        &[&["a.test"]],
        format!(
            "upstreams: {{ app: {{ servers: [\"{}\"] }} }}\n\
             sites: [{{ hosts: [a.test], upstream: app }}]\n",
            origin.address()
        ),
    )
    .server("threads: 1")
    .start();
    for _ in 0..5 {
        for version in VERSIONS {
            assert_eq!(over(version, &gateway, "a.test", "/").send().status, 200);
        }
    }
    let mut stream = TlsClient::named("a.test").connect(gateway.https);
    for _ in 0..10 {
        assert_eq!(stream.get("a.test", "/").text(), "x");
    }
    assert_eq!(origin.requests().len(), 20);
    assert_eq!(origin.connections(), 1);
}

#[test]
fn servers_take_turns_by_weight() {
    let (one, two) = (Origin::named("1"), Origin::named("2"));
    let gateway = balanced(
        &format!(
            "\"{}\", {{ address: \"{}\", weight: 3 }}",
            one.address(),
            two.address()
        ),
        "",
    );
    let mut stream = TlsClient::named("a.test").connect(gateway.https);
    for _ in 0..40 {
        assert_eq!(stream.get("a.test", "/").status, 200);
    }
    assert_eq!((one.requests().len(), two.requests().len()), (10, 30));
}

#[test]
fn a_server_that_refuses_is_passed_over() {
    let (dead, alive) = (Origin::refusing(), Origin::named("alive"));
    let gateway = balanced(
        &format!("\"{}\", \"{}\"", dead.address(), alive.address()),
        ", retries: 1",
    );
    for version in VERSIONS {
        for _ in 0..4 {
            let reply = over(version, &gateway, "a.test", "/")
                .args(["-d", "x"])
                .send();
            assert_eq!((reply.status, &*reply.text()), (200, "alive"));
        }
    }
    assert_eq!(alive.requests().len(), 8);
}

/// Answers the first request of each connection and breaks at every other one.
fn dies_when_used_again() -> Origin {
    Origin::start(|request| {
        if request.number == 0 {
            vec![Act::respond(200, "ok")]
        } else {
            vec![Act::Reset]
        }
    })
}

#[test]
fn a_get_is_repeated_once_on_a_dead_connection() {
    let origin = dies_when_used_again();
    let gateway = in_front_of(&origin);
    for version in VERSIONS {
        for _ in 0..4 {
            let reply = over(version, &gateway, "a.test", "/").send();
            assert_eq!((reply.status, &*reply.text()), (200, "ok"), "{version}");
        }
    }
}

#[test]
fn a_post_is_never_sent_twice() {
    let origin = dies_when_used_again();
    let gateway = in_front_of(&origin);
    for version in VERSIONS {
        for number in 0..6 {
            let path = format!("/{version}/{number}");
            let reply = over(version, &gateway, "a.test", &path)
                .args(["-d", "x"])
                .send();
            assert!(matches!(reply.status, 200 | 502), "{}", reply.status);
            let line = format!("POST {path} HTTP/1.1");
            let seen = origin
                .requests()
                .iter()
                .filter(|r| r.line() == line)
                .count();
            assert_eq!(seen, 1, "{path} answered with {}", reply.status);
        }
    }
}

#[test]
fn a_small_body_is_repeated_whole() {
    let origin = dies_when_used_again();
    let gateway = passing_to(origin.address(), "").over_own_lane().start();
    let body: Vec<u8> = (0..12_000_u32).flat_map(u32::to_be_bytes).collect();
    let mut stream = TlsClient::named("a.test").connect(gateway.https);
    let mut h2 = H2::connect(gateway.https, "a.test");
    for number in 0..3 {
        for framing in ["Content-Length: 48000", "Transfer-Encoding: chunked"] {
            let head = format!("PUT /1.1/{number} HTTP/1.1\r\nHost: a.test\r\n{framing}\r\n\r\n");
            stream.write_all(head.as_bytes()).expect("taken");
            if framing.contains("chunked") {
                stream.write_all(b"bb80\r\n").expect("taken");
                stream.write_all(&body).expect("taken");
                stream.write_all(b"\r\n0\r\n\r\n").expect("taken");
            } else {
                stream.write_all(&body).expect("taken");
            }
            let reply = read_response(&mut stream).expect("a response");
            assert_eq!((reply.status, &*reply.text()), (200, "ok"), "{framing}");
        }
        let request = h2.request("PUT", &format!("/2/{number}"));
        let reply = h2.send(request, Some(body.clone().into()));
        let reply = reply.expect("a response");
        assert_eq!((reply.status, &*reply.text()), (200, "ok"));
    }
    let requests = origin.requests();
    let repeated = requests.iter().filter(|request| request.number > 0).count();
    assert!(repeated > 0, "no connection was used again");
    assert_eq!(requests.len(), 9 + repeated, "each is repeated once");
    for request in requests.iter().filter(|request| request.number == 0) {
        assert!(request.body == body, "{} octets", request.body.len());
    }
}

#[test]
fn a_connection_that_its_server_has_closed_is_not_used() {
    let origin = Origin::start(|_| vec![Act::respond(200, "ok"), Act::Close]);
    let SocketAddr::V4(address) = origin.address() else {
        panic!("origins listen on IPv4");
    };
    let gateway = in_front_of(&origin);
    for number in 0..10 {
        for version in VERSIONS {
            // Nothing would be repeated.
            let reply = over(version, &gateway, "a.test", "/")
                .args(["-d", "x"])
                .send();
            assert_eq!(reply.status, 200, "{number} over {version}");
            wait_for("its server's end to arrive", || {
                (connections_to(address, TcpState::Established) == 0).then_some(())
            });
        }
    }
    assert_eq!(origin.connections(), 20);
    wait_for("the gateway to close them too", || {
        (origin.open_connections() == 0).then_some(())
    });
}

#[test]
fn a_get_is_not_repeated_for_ever() {
    // Every connection breaks at its first request: nothing was kept alive, nothing is repeated.
    let origin = Origin::resetting();
    let gateway = in_front_of(&origin);
    for version in VERSIONS {
        assert_eq!(over(version, &gateway, "a.test", "/").send().status, 502);
    }
    assert_eq!(origin.requests().len(), 2);
}

#[test]
fn a_get_goes_to_another_server_where_one_breaks_before_it_answers() {
    for broken in [Origin::resetting(), Origin::start(|_| vec![Act::Close])] {
        let alive = Origin::named("alive");
        let gateway = balanced(
            &format!("\"{}\", \"{}\"", broken.address(), alive.address()),
            ", retries: 1",
        );
        for version in VERSIONS {
            let reply = over(version, &gateway, "a.test", "/").send();
            assert_eq!((reply.status, &*reply.text()), (200, "alive"), "{version}");
            let reply = over(version, &gateway, "a.test", "/").send();
            assert_eq!((reply.status, &*reply.text()), (200, "alive"), "{version}");
        }
        assert_eq!(broken.requests().len(), 1, "it is passed over");
    }
}

#[test]
fn a_post_goes_to_no_other_server_once_it_was_sent() {
    let (broken, alive) = (Origin::resetting(), Origin::named("alive"));
    let gateway = balanced(
        &format!("\"{}\", \"{}\"", broken.address(), alive.address()),
        ", retries: 3",
    );
    for number in 0..6 {
        let path = format!("/{number}");
        let reply = over("1.1", &gateway, "a.test", &path)
            .args(["-d", "x"])
            .send();
        assert!(matches!(reply.status, 200 | 502), "{}", reply.status);
    }
    let mut lines: Vec<String> = [broken.requests(), alive.requests()]
        .concat()
        .iter()
        .map(|request| request.line().to_owned())
        .collect();
    let all = lines.len();
    lines.sort_unstable();
    lines.dedup();
    assert_eq!((lines.len(), all), (6, 6), "each was sent once");
}

#[test]
fn no_retries_are_none() {
    let (broken, alive) = (Origin::resetting(), Origin::named("alive"));
    let gateway = balanced(
        &format!("\"{}\", \"{}\"", broken.address(), alive.address()),
        ", retries: 0",
    );
    let statuses = [0; 2].map(|_| over("1.1", &gateway, "a.test", "/").send().status);
    assert!(statuses.contains(&502), "{statuses:?}");
}

#[test]
fn a_server_that_is_back_is_found_while_all_are_passed_over() {
    let (back, dead) = (Origin::refusing(), Origin::refusing());
    let gateway = balanced(
        &format!("\"{}\", \"{}\"", back.address(), dead.address()),
        ", retries: 1",
    );
    assert_eq!(over("1.1", &gateway, "a.test", "/").send().status, 502);
    let listener = TcpListener::bind(back.address()).expect("the port is free");
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            if let Ok(Some(_)) = read_head(&mut stream) {
                let answer =
                    b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\nConnection: close\r\n\r\nback";
                let _ = stream.write_all(answer);
            }
        }
    });
    for version in VERSIONS {
        for _ in 0..2 {
            let reply = over(version, &gateway, "a.test", "/").send();
            assert_eq!((reply.status, &*reply.text()), (200, "back"), "{version}");
        }
    }
}

#[test]
fn idle_connections_have_a_limit_and_a_time() {
    let origin = Origin::named("x");
    let with = |keepalive: &str| {
        serving(
            &[&["a.test"]],
            format!(
                "upstreams: {{ app: {{ servers: [\"{}\"], keepalive: {keepalive} }} }}\n\
                 sites: [{{ hosts: [a.test], upstream: app }}]\n\
                 log: {{ access: off }}\n",
                origin.address()
            ),
        )
        .start()
    };
    let gateway = with("{ connections: 0 }");
    let mut stream = TlsClient::named("a.test").connect(gateway.https);
    for _ in 0..3 {
        assert_eq!(stream.get("a.test", "/").text(), "x");
    }
    assert_eq!(origin.connections(), 3);
    drop(gateway);

    let gateway = with("{ idle: 100ms }");
    let mut stream = TlsClient::named("a.test").connect(gateway.https);
    assert_eq!(stream.get("a.test", "/").text(), "x");
    // The gateway closes it, as the origin does not.
    wait_for("the idle connection to be closed", || {
        (origin.open_connections() == 0).then_some(())
    });
    assert_eq!(stream.get("a.test", "/").text(), "x");
    assert_eq!(origin.connections(), 5);
}
