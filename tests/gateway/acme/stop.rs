//! The gateway is stopped in order in the middle of things, and continues where it was.

use std::io::Write;
use std::time::Instant;

use nix::sys::signal::Signal;

use super::{RETRY, SECOND, config, issued, orders, pebble_issuer, root, wait_until_served};
use crate::support::{Act, Gateway, Origin, Pebble, Relay, Switch, connect, within};

const HOSTS: [&str; 3] = ["a.test", "b.test", "c.test"];

/// A request in flight keeps the gateway draining, with its listeners closed.
#[test]
fn orders_are_finished_after_a_stop() {
    let origin = Origin::start(|_| vec![Act::Hold, Act::respond(200, "slow")]);
    let builder = Gateway::builder().server("grace_period: 20s");
    let looking = Relay::to(builder.http(), Switch::Hold);
    let pebble = Pebble::builder().http_port(looking.port()).start();
    let issuer = pebble_issuer(&pebble, "challenges: [http-01]");
    let mut gateway = builder
        .config(format!(
            "{}  - {{ hosts: [slow.test], tls: off, routes: [{{ upstream: slow }}] }}\n\
             upstreams: {{ slow: {{ servers: [\"{}\"] }} }}\n",
            config(&issuer, &HOSTS),
            origin.address()
        ))
        .spawn();
    within(RETRY, "the CA to look at every name", || {
        // Three times at each.
        (looking.connections() >= 3 * HOSTS.len()).then_some(())
    });
    let mut busy = connect(gateway.http);
    busy.write_all(b"GET / HTTP/1.1\r\nHost: slow.test\r\n\r\n")
        .expect("taken");
    origin.wait_for_requests(1);

    gateway.signal(Signal::SIGTERM);
    gateway.wait_for_log("stopping");
    within(RETRY, "new connections to be refused", || {
        std::net::TcpStream::connect(gateway.http).err()
    });
    assert!(gateway.is_running(), "it waits for what is in flight");
    origin.release();
    let stopping = Instant::now();
    assert!(gateway.wait().success());
    assert!(stopping.elapsed() < SECOND, "the CA is not waited for");

    gateway.restart_unready();
    within(RETRY, "the gateway", || {
        std::net::TcpStream::connect(gateway.http).ok()
    });
    looking.turn(Switch::Pass);
    let root = root(&pebble);
    for host in HOSTS {
        wait_until_served(&gateway, host, &root);
        assert_eq!(gateway.count("certificate_failed", host), 0, "{host}");
    }
    assert_eq!(orders(&pebble), HOSTS.len(), "no second order");
    assert_eq!(issued(&pebble), HOSTS.len());
}
