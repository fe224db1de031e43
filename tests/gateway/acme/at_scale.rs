//! Many names in one start.

use std::time::{Duration, Instant};

use super::{SECOND, config, issued, orders, pebble_for, pebble_issuer};
use crate::support::{Gateway, within};

const NAMES: usize = 300;

#[test]
fn three_hundred_names_in_one_start() {
    let hosts: Vec<String> = (0..NAMES).map(|n| format!("site{n}.test")).collect();
    let hosts: Vec<&str> = hosts.iter().map(String::as_str).collect();
    let builder = Gateway::builder();
    let pebble = pebble_for(&builder)
        .env("PEBBLE_WFE_NONCEREJECT", "5")
        .start();
    let issuer = pebble_issuer(&pebble, "");
    let start = Instant::now();
    let gateway = builder.config(config(&issuer, &hosts)).spawn();
    let mut at = Duration::ZERO;
    within(SECOND * 180, "all to be there", || {
        if start.elapsed() - at > SECOND * 5 {
            at = start.elapsed();
            eprintln!("{} issued after {at:?}", issued(&pebble));
        }
        std::thread::sleep(SECOND / 10);
        if std::net::TcpStream::connect(gateway.admin).is_err() {
            return None;
        }
        gateway.waiting().is_empty().then_some(())
    });
    eprintln!("{NAMES} names in {:.1} s", start.elapsed().as_secs_f64());
    assert_eq!(orders(&pebble), NAMES);
    assert_eq!(issued(&pebble), NAMES);
    assert_eq!(super::accounts_made(&pebble), 1);
    for host in [hosts[0], hosts[NAMES / 2], hosts[NAMES - 1]] {
        let reply = gateway.curl(host, "/").arg("--insecure").send();
        assert_eq!(reply.text(), host);
    }
}
