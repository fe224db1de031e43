//! Troubles of upstreams, whatever becomes of their configuration.

use super::*;
use crate::support::{Act, Port};

/// An application that responds to everything but `/wrong`.
fn app() -> Origin {
    Origin::start(|request| {
        let is_wrong = request.line().contains("/wrong");
        vec![Act::respond(if is_wrong { 500 } else { 200 }, "")]
    })
}

/// A site with these servers, checked at this path.
fn serving(servers: &[String], path: &str, events: &str) -> String {
    let servers = servers.join("\", \"");
    format!(
        "upstreams: {{ app: {{ servers: [\"{servers}\"], health: {{ path: {path}, every: 100ms, \
         unhealthy: 1, healthy: 1 }} }} }}\n\
         sites: [{{ hosts: [plain.test], tls: off, upstream: app }}]\nevents:\n{events}"
    )
}

#[test]
fn an_upstream_recovers_when_its_health_check_is_mended() {
    let (app, origin) = (app(), Origin::start(|_| vec![Act::respond(200, "")]));
    let servers = [app.address().to_string()];
    let events = hook(&origin, "upstream_down", "");
    let mut gateway = Gateway::start(serving(&servers, "/wrong", &events));
    let first = origin.wait_for_requests(1).remove(0);
    assert_eq!(entries(&first), [pair("upstream_down", "happened")]);
    // The upstream of another configuration begins as a healthy one.
    gateway.replace_config(serving(&servers, "/right", &events));
    assert_eq!(gateway.reload().0, 200);
    let second = origin.wait_for_requests(2).remove(1);
    assert_eq!(entries(&second), [pair("upstream_up", "recovered")]);
    let trouble = |request: &Received| notification(request)["entries"][0]["trouble"].clone();
    assert_eq!(trouble(&first), trouble(&second));
}

#[test]
fn a_server_that_is_removed_while_it_is_down_is_no_trouble_any_more() {
    let (app, dead) = (app(), Port::take());
    let origin = Origin::start(|_| vec![Act::respond(200, "")]);
    let both = [app.address().to_string(), dead.address().to_string()];
    let events = hook(&origin, "upstream_down", "");
    let mut gateway = Gateway::start(serving(&both, "/", &events));
    origin.wait_for_requests(1);
    gateway.replace_config(serving(&both[..1], "/", &events));
    assert_eq!(gateway.reload().0, 200);
    let second = origin.wait_for_requests(2).remove(1);
    assert_eq!(entries(&second), [pair("upstream_up", "recovered")]);
    let message = notification(&second)["entries"][0]["message"].to_string();
    assert!(message.contains("no longer checked"), "{message}");
}

#[test]
fn who_asks_later_hears_of_what_still_lasts() {
    let [first, second] = [(); 2].map(|()| Origin::start(|_| vec![Act::respond(200, "")]));
    let dead = [Port::take().address().to_string()];
    let events = hook(&first, "upstream_down", "");
    let grave = |severity: &str| hook(&second, "upstream_*", &format!(", severity: {severity}"));
    let mut gateway = Gateway::start(serving(&dead, "/", &events));
    let told = first.wait_for_requests(1).remove(0);
    assert_eq!(entries(&told), [pair("upstream_down", "happened")]);
    // The only server of an upstream is critical.
    for (count, more) in [(1, grave("critical")), (1, grave("warning"))] {
        gateway.replace_config(serving(&dead, "/", &format!("{events}{more}")));
        assert_eq!(gateway.reload().0, 200);
        let told = second.wait_for_requests(count).remove(0);
        assert_eq!(entries(&told), [pair("upstream_down", "happened")]);
    }
    gateway.replace_config(config(&format!("{events}{}", grave("warning"))));
    assert_eq!(gateway.reload().0, 200);
    let told = second.wait_for_requests(2).remove(1);
    assert_eq!(entries(&told), [pair("upstream_up", "recovered")]);
    assert_eq!(first.wait_for_requests(2).len(), 2);
}

#[test]
fn what_an_entry_no_longer_asks_for_is_not_repeated() {
    let origin = Origin::start(|_| vec![Act::respond(200, "")]);
    let dead = [Port::take().address().to_string()];
    let events = hook(&origin, "upstream_down, config_reloaded", ", repeat: 1m");
    let mut gateway = Gateway::start(serving(&dead, "/", &events));
    origin.wait_for_requests(1);
    let events = hook(&origin, "config_reloaded", ", repeat: 1m");
    gateway.replace_config(serving(&dead, "/", &events));
    assert_eq!(gateway.reload().0, 200);
    origin.wait_for_requests(2);
    // Neither is its end reported: nobody asks for it.
    gateway.replace_config(config(&events));
    assert_eq!(gateway.reload().0, 200);
    let requests = origin.wait_for_requests(3);
    for request in &requests[1..] {
        assert_eq!(entries(request), [pair("config_reloaded", "happened")]);
    }
}
