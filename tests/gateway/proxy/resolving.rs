//! Names of servers: when their addresses are looked up again, and what becomes of bad answers.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::thread;
use std::time::{Duration, Instant};

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::RecordType;

use super::{VERSIONS, in_front_of_all, over, states, wait_for_state, with_upstream};
use crate::support::{
    Act, Crowded, Gateway, Mood, Origin, Received, Resolver, TlsClient, in_own_network, serving,
    wait_for,
};

const NAME: &str = "app.internal";

fn loopback(last: u8) -> IpAddr {
    Ipv4Addr::new(127, 0, 0, last).into()
}

/// Two origins at 127.0.0.1 and 127.0.0.2 with one port. What is asked for at `/held` waits until it
/// is released.
fn origins() -> [Origin; 2] {
    let script = |name: &'static str| {
        move |request: &Received| {
            let response = Act::respond(200, name);
            match request.line().starts_with("GET /held ") {
                true => vec![Act::Hold, response],
                false => vec![response],
            }
        }
    };
    let one = Origin::start(script("one"));
    let address = SocketAddr::new(loopback(2), one.address().port());
    [one, Origin::start_at(address, script("two"))]
}

/// A gateway in front of this server, whose name this resolver looks up.
#[track_caller]
fn resolving(resolver: &Resolver, keys: &str) -> Gateway {
    with_upstream(keys)
        .server(&format!("resolvers: [\"{}\"]", resolver.address()))
        .start()
}

#[test]
fn a_change_is_noticed_when_the_answer_has_expired() {
    const TTL: u32 = 2;
    let resolver = Resolver::start();
    let [one, two] = origins();
    let port = one.address().port();
    resolver.set_addresses(NAME, TTL, &[loopback(1)]);
    let gateway = resolving(&resolver, &format!("servers: [\"{NAME}:{port}\"]"));
    let mut stream = TlsClient::named("a.test").connect(gateway.https);
    assert_eq!(stream.get("a.test", "/").text(), "one");
    thread::scope(|scope| {
        let held = scope.spawn(|| over("1.1", &gateway, "a.test", "/held").send());
        one.wait_for_requests(2);
        let (start, before) = (Instant::now(), resolver.questions(NAME, RecordType::A));
        for (number, address, name) in [(1, 2, "two"), (2, 1, "one"), (3, 2, "two")] {
            let changed = Instant::now();
            resolver.set_addresses(NAME, TTL, &[loopback(address)]);
            wait_for("the change to be noticed", || {
                (stream.get("a.test", "/").text() == name).then_some(())
            });
            let waited = changed.elapsed();
            eprintln!("change {number} was noticed after {waited:.2?}, with a TTL of {TTL} s");
            assert!(waited < Duration::from_secs(TTL.into()) + Duration::from_millis(1500));
        }
        // Not more often than the records say.
        let most = start.elapsed().as_secs() / u64::from(TTL) + 1;
        let asked = resolver.questions(NAME, RecordType::A) - before;
        assert!(
            u64::try_from(asked).is_ok_and(|asked| asked <= most),
            "{asked}"
        );
        // The address of a request under way is gone, the request is not.
        assert!(!held.is_finished());
        one.release();
        let reply = held.join().expect("no panic");
        assert_eq!((reply.status, &*reply.text()), (200, "one"));
    });
    drop(two);
}

#[test]
fn all_addresses_of_both_families_are_used() {
    let resolver = Resolver::start();
    let [one, two] = origins();
    let port = one.address().port();
    let six: IpAddr = "::1".parse().expect("an address");
    resolver.set_addresses(NAME, 60, &[loopback(1), six, loopback(2)]);
    let gateway = resolving(&resolver, &format!("servers: [\"{NAME}:{port}\"]"));
    let known = states(&gateway);
    let expected = [loopback(1), loopback(2), six].map(|ip| SocketAddr::new(ip, port));
    assert_eq!(known.len(), 3, "{known:?}");
    assert!(expected.iter().all(|address| known.contains_key(address)));
    let mut stream = TlsClient::named("a.test").connect(gateway.https);
    for _ in 0..12 {
        // Nobody listens on ::1: another address of the name is tried, whatever the route's retries.
        assert_eq!(stream.get("a.test", "/").status, 200);
    }
    assert!(!one.requests().is_empty() && !two.requests().is_empty());
}

#[test]
fn another_address_is_a_retry_if_the_request_may_have_been_sent() {
    let resolver = Resolver::start();
    let first = Origin::start(|_| vec![Act::Reset]);
    let port = first.address().port();
    let at = |last| SocketAddr::new(loopback(last), port);
    let others = [2, 3].map(|last| Origin::start_at(at(last), |_| vec![Act::Reset]));
    resolver.set_addresses(NAME, 60, &[1, 2, 3].map(loopback));
    let seen = || {
        let all = others.iter().chain([&first]);
        all.map(|origin| origin.requests().len()).sum::<usize>()
    };
    for (retries, retried) in [
        ("0", 0),
        ("{ attempts: 5, on: [connect] }", 0),
        ("1", 1),
        ("{ attempts: 5, on: [reset] }", 2),
    ] {
        let gateway = serving(
            &[&["a.test"]],
            format!(
                "upstreams: {{ app: {{ servers: [\"{NAME}:{port}\"] }} }}\n\
                 sites: [{{ hosts: [a.test], routes: [{{ upstream: app, retries: {retries} }}] }}]\n\
                 log: {{ access: off }}\n"
            ),
        )
        .server(&format!("resolvers: [\"{}\"]", resolver.address()))
        .start();
        let before = seen();
        let reply = over("1.1", &gateway, "a.test", "/").send();
        assert_eq!(reply.status, 502, "{retries}");
        assert_eq!(seen() - before, 1 + retried, "{retries}");
        let sent = "snigate_upstream_retries_total{result=\"sent\",upstream=\"app\"}";
        assert_eq!(gateway.metric(sent), Some(retried as f64), "{retries}");
    }
}

#[test]
fn the_last_answer_stays_where_a_resolver_is_dead_or_lies() {
    let moods = [
        Mood::Silent,
        Mood::WrongId,
        Mood::Empty,
        Mood::Fails(ResponseCode::ServFail),
        Mood::Fails(ResponseCode::NXDomain),
        Mood::Fails(ResponseCode::Refused),
    ];
    let resolver = Resolver::start();
    let [one, _two] = origins();
    let port = one.address().port();
    let names: Vec<String> = (0..moods.len()).map(|n| format!("u{n}.internal")).collect();
    for name in &names {
        resolver.set_addresses(name, 1, &[loopback(1)]);
    }
    let upstreams: Vec<String> = names
        .iter()
        .map(|name| format!("servers: [\"{name}:{port}\"]"))
        .collect();
    let gateway = in_front_of_all(&upstreams)
        .server(&format!("resolvers: [\"{}\"]", resolver.address()))
        .start();
    let all_say = |said: &str| {
        let mut texts = (0..moods.len()).map(|number| {
            let reply = over("1.1", &gateway, "a.test", &format!("/{number}/")).send();
            (reply.status, reply.text())
        });
        texts.all(|text| text == (200, said.to_owned()))
    };
    assert!(all_say("one"));
    for (name, mood) in names.iter().zip(moods) {
        resolver.set_mood(name, mood);
        resolver.set_addresses(name, 1, &[loopback(2)]);
    }
    let count = |text: &str| gateway.log().matches(text).count();
    let failed = "its last addresses stay in use";
    wait_for("all look-ups to fail", || {
        (count(failed) == moods.len()).then_some(())
    });
    // And once more.
    resolver.wait_for_questions(&names[3], 2);
    assert!(all_say("one"));
    assert_eq!(count(failed), moods.len(), "each is reported once");
    for name in &names {
        resolver.set_mood(name, Mood::Honest);
    }
    wait_for("all look-ups to succeed", || all_say("two").then_some(()));
    wait_for("that to be told", || {
        (count("can be looked up again") == moods.len()).then_some(())
    });
}

#[test]
fn aliases_and_long_answers_are_followed_to_their_end() {
    let resolver = Resolver::start();
    let [one, _] = origins();
    let port = one.address().port();
    resolver.set_alias("first.internal", 60, "second.internal");
    resolver.set_alias("lazy.internal", 60, "first.internal");
    resolver.set_mood("lazy.internal", Mood::Lazy);
    resolver.set_alias("second.internal", 60, NAME);
    resolver.set_addresses(NAME, 60, &[loopback(1)]);
    resolver.set_addresses("long.internal", 60, &[loopback(1)]);
    resolver.set_mood("long.internal", Mood::Truncating);
    let upstreams =
        ["first", "lazy", "long"].map(|name| format!("servers: [\"{name}.internal:{port}\"]"));
    let gateway = in_front_of_all(&upstreams)
        .server(&format!("resolvers: [\"{}\"]", resolver.address()))
        .start();
    for number in 0..upstreams.len() {
        let reply = over("1.1", &gateway, "a.test", &format!("/{number}/")).send();
        assert_eq!((reply.status, &*reply.text()), (200, "one"), "{number}");
    }
    assert!(resolver.over_tcp() > 0);
}

#[test]
fn times_to_live_have_bounds() {
    let resolver = Resolver::start();
    let [one, _] = origins();
    let port = one.address().port();
    resolver.set_addresses("zero.internal", 0, &[loopback(1)]);
    resolver.set_addresses("long.internal", 10_000_000, &[loopback(1)]);
    let gateway = resolving(
        &resolver,
        &format!("servers: [\"zero.internal:{port}\", \"long.internal:{port}\"]"),
    );
    assert_eq!(over("1.1", &gateway, "a.test", "/").send().status, 200);
    let long = resolver.questions("long.internal", RecordType::A);
    resolver.wait_for_questions("zero.internal", 1);
    let start = Instant::now();
    resolver.wait_for_questions("zero.internal", 2);
    let waited = start.elapsed();
    assert!(waited >= Duration::from_millis(1900), "{waited:?}");
    assert_eq!(resolver.questions("long.internal", RecordType::A), long);
}

#[test]
fn srv_records_name_servers_with_ports_priorities_and_weights() {
    const SERVICE: &str = "_http._tcp.app.internal";
    let resolver = Resolver::start();
    let origins = ["a", "b", "c"].map(Origin::named);
    let [a, b, c] = origins.each_ref().map(|origin| origin.address().port());
    for host in ["a", "b", "c"] {
        resolver.set_addresses(&format!("{host}.internal"), 1, &[loopback(1)]);
    }
    let last = (20, 0, c, "c.internal");
    resolver.set_services(
        SERVICE,
        1,
        &[last, (10, 30, a, "a.internal"), (10, 10, b, "b.internal")],
    );
    let gateway = resolving(&resolver, &format!("servers: [\"srv:{SERVICE}\"]"));
    let mut stream = TlsClient::named("a.test").connect(gateway.https);
    for _ in 0..40 {
        assert_eq!(stream.get("a.test", "/").status, 200);
    }
    let counts = origins.each_ref().map(|origin| origin.requests().len());
    assert_eq!(counts, [30, 10, 0]);

    // Nobody listens on the ports of the lowest priority.
    let [dead, gone] = [Origin::refusing(), Origin::refusing()];
    let refusing = [
        (10, 1, dead.number(), "a.internal"),
        (10, 1, gone.number(), "b.internal"),
        last,
    ];
    resolver.set_services(SERVICE, 1, &refusing);
    wait_for_state(&gateway, dead.address(), "up");
    for _ in 0..4 {
        assert_eq!(stream.get("a.test", "/").text(), "c");
    }
    // There is no service any more, which is taken for a failure of the DNS.
    resolver.set_services(SERVICE, 1, &[(0, 0, 0, "")]);
    gateway.wait_for_log("its last addresses stay in use");
    assert_eq!(stream.get("a.test", "/").text(), "c");
}

#[test]
fn an_address_that_stays_keeps_its_state() {
    let resolver = Resolver::start();
    let [one, _two] = origins();
    let port = one.address().port();
    let dead = SocketAddr::new(loopback(3), port);
    resolver.set_addresses(NAME, 1, &[loopback(1), loopback(3)]);
    let gateway = resolving(
        &resolver,
        &format!("servers: [\"{NAME}:{port}\"], eject: {{ failures: 1, for: 1h }}"),
    );
    let mut stream = TlsClient::named("a.test").connect(gateway.https);
    wait_for("an ejection", || {
        assert_eq!(stream.get("a.test", "/").text(), "one");
        (states(&gateway)[&dead] == "ejected").then_some(())
    });
    resolver.set_addresses(NAME, 1, &[loopback(2), loopback(3)]);
    wait_for_state(&gateway, SocketAddr::new(loopback(2), port), "up");
    let known = states(&gateway);
    assert_eq!((known.len(), &*known[&dead]), (2, "ejected"));
}

#[test]
fn the_system_says_who_resolves_names() {
    if !in_own_network(the_system_says_who_resolves_names) {
        return;
    }
    let system = "search cluster.test\nnameserver 127.0.0.1\noptions ndots:2\n";
    fs::write("/etc/resolv.conf", system).expect("of this network");
    let resolver = Resolver::start_at(([127, 0, 0, 1], 53).into());
    let [one, _two] = origins();
    let port = one.address().port();
    resolver.set_addresses("app.ns.cluster.test", 1, &[loopback(1)]);
    let keys = [
        format!("servers: [\"app.ns:{port}\"]"),
        format!("servers: [\"localhost:{port}\"]"),
    ];
    let gateway = in_front_of_all(&keys).start();
    let text = |number: usize| {
        let reply = over("1.1", &gateway, "a.test", &format!("/{number}/")).send();
        (reply.status, reply.text())
    };
    assert_eq!(text(0), (200, "one".to_owned()));
    assert_eq!(text(1), (200, "one".to_owned()));
    assert_eq!(resolver.questions("localhost", RecordType::A), 0);
    resolver.set_addresses("app.ns.cluster.test", 1, &[loopback(2)]);
    wait_for("the change", || (text(0).1 == "two").then_some(()));
}

#[test]
fn other_resolvers_are_asked_after_a_reload() {
    let (first, second) = (Resolver::start(), Resolver::start());
    let [one, _two] = origins();
    let port = one.address().port();
    first.set_addresses(NAME, 1, &[loopback(1)]);
    second.set_addresses(NAME, 1, &[loopback(2)]);
    let gateway = resolving(&first, &format!("servers: [\"{NAME}:{port}\"]"));
    let text = || over("1.1", &gateway, "a.test", "/").send().text();
    assert_eq!(text(), "one");
    let written = fs::read_to_string(&gateway.config).expect("readable");
    let changed = written.replace(&first.address().to_string(), &second.address().to_string());
    gateway.write("snigate.yaml", &changed);
    assert_eq!(gateway.reload().0, 200);
    wait_for("the other resolver's answer", || {
        (text() == "two").then_some(())
    });
}

#[test]
fn the_next_address_is_tried_while_one_does_not_answer() {
    let resolver = Resolver::start();
    let [one, _two] = origins();
    let port = one.address().port();
    let _crowded = Crowded::start_at(SocketAddr::new(loopback(3), port));
    resolver.set_addresses(NAME, 60, &[loopback(3), loopback(1)]);
    let gateway = serving(
        &[&["a.test"]],
        format!(
            "upstreams: {{ app: {{ servers: [\"{NAME}:{port}\"] }} }}\n\
             sites: [{{ hosts: [a.test], \
             routes: [{{ upstream: app, timeout: {{ connect: 10s }}, retries: 0 }}] }}]\n"
        ),
    )
    .server(&format!("resolvers: [\"{}\"]", resolver.address()))
    .start();
    let mut longest = Duration::ZERO;
    for version in VERSIONS {
        for _ in 0..4 {
            let start = Instant::now();
            let reply = over(version, &gateway, "a.test", "/")
                .args(["-d", "x"])
                .send();
            longest = longest.max(start.elapsed());
            assert_eq!((reply.status, &*reply.text()), (200, "one"));
        }
    }
    eprintln!("a request took at most {longest:.2?} with one of two addresses dead");
    assert!(longest < Duration::from_secs(5), "{longest:?}");
}
