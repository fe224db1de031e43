//! Names of servers where some resolvers never answer, and names that are not searched.

use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use hickory_proto::rr::RecordType;

use super::{over, with_upstream};
use crate::support::{Mood, Origin, Resolver, in_own_network};

const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

#[test]
fn a_reload_finds_a_name_behind_two_silent_resolvers() {
    const NAMES: [&str; 2] = ["app.internal", "new.internal"];
    let resolvers = [(); 3].map(|()| Resolver::start());
    let [first, second, good] = &resolvers;
    for name in NAMES {
        first.set_mood(name, Mood::Silent);
        second.set_mood(name, Mood::Silent);
        good.set_addresses(name, 1, &[LOOPBACK]);
    }
    let origin = Origin::named("one");
    let port = origin.address().port();
    let list = resolvers.each_ref().map(|one| one.address().to_string());
    let gateway = with_upstream(&format!("servers: [\"{}:{port}\"]", NAMES[0]))
        .server(&format!("resolvers: {list:?}"))
        .start();
    assert_eq!(over("1.1", &gateway, "a.test", "/").send().text(), "one");
    // The one that has answered is asked first from now on.
    let asked = || [first, second].map(|one| one.questions(NAMES[0], RecordType::A));
    let before = asked();
    good.wait_for_questions(NAMES[0], 2);
    assert_eq!(asked(), before);
    // The new configuration has new look-ups, and a request finds the address.
    let written = fs::read_to_string(&gateway.config).expect("readable");
    gateway.write("snigate.yaml", &written.replace(NAMES[0], NAMES[1]));
    let begun = Instant::now();
    assert_eq!(gateway.reload().0, 200);
    let taken = begun.elapsed();
    assert_eq!(over("1.1", &gateway, "a.test", "/").send().text(), "one");
    eprintln!("a reload took {taken:.2?} with two of three resolvers silent");
    assert!(taken < Duration::from_secs(3), "{taken:?}");
}

#[test]
fn targets_of_srv_records_are_not_searched() {
    if !in_own_network(targets_of_srv_records_are_not_searched) {
        return;
    }
    const SERVICE: &str = "_http._tcp.app.internal.cluster.test";
    let system = "search cluster.test\nnameserver 127.0.0.1\noptions ndots:5\n";
    fs::write("/etc/resolv.conf", system).expect("of this network");
    let resolver = Resolver::start_at(([127, 0, 0, 1], 53).into());
    let origin = Origin::named("one");
    let port = origin.address().port();
    // Nobody is there.
    let foreign = [IpAddr::V4(Ipv4Addr::new(127, 0, 0, 9))];
    let targets = ["a.internal", "b"];
    for target in targets {
        resolver.set_addresses(target, 60, &[LOOPBACK]);
        resolver.set_addresses(&format!("{target}.cluster.test"), 60, &foreign);
    }
    resolver.set_services(SERVICE, 60, &targets.map(|target| (0, 1, port, target)));
    let gateway = with_upstream("servers: [\"srv:_http._tcp.app.internal\"]").start();
    for _ in 0..4 {
        let reply = over("1.1", &gateway, "a.test", "/").send();
        assert_eq!((reply.status, &*reply.text()), (200, "one"));
    }
    for target in targets {
        let searched = resolver.questions(&format!("{target}.cluster.test"), RecordType::A);
        assert_eq!(searched, 0, "{target}");
        assert!(resolver.questions(target, RecordType::A) > 0, "{target}");
    }
}
