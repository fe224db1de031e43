//! Restarts, kills and full disks: nothing that was accepted is lost, and nobody hears twice.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::*;
use crate::support::{Act, PATIENCE, Port, serving, within};

/// A receiver that refuses for now until it is told otherwise.
fn receiver() -> (Origin, Arc<AtomicBool>) {
    let is_open = Arc::new(AtomicBool::new(false));
    let open = Arc::clone(&is_open);
    let origin = Origin::start(move |_| match open.load(Ordering::Relaxed) {
        true => vec![Act::respond(200, "")],
        false => vec![Act::respond(503, "")],
    });
    (origin, is_open)
}

#[test]
fn a_kill_at_any_time_loses_nothing_and_the_id_stays() {
    let (origin, is_open) = receiver();
    let mut gateway = Gateway::start(config(&hook(&origin, "config_reloaded", "")));
    for count in 1..=3 {
        gateway.reload();
        wait_for("the event to be kept", || {
            (waiting(&gateway, "webhook") >= f64::from(count)).then_some(())
        });
        origin.wait_for_requests(usize::try_from(count).expect("small"));
        gateway.restart();
    }
    let ids = |requests: &[Received]| {
        let mut ids: Vec<String> = requests
            .iter()
            .filter_map(|request| request.header("snigate-notification-id"))
            .map(str::to_owned)
            .collect();
        ids.dedup();
        ids
    };
    let before = ids(&origin.requests());
    assert_eq!(before.len(), 1, "the first one is tried again and again");
    is_open.store(true, Ordering::Relaxed);
    wait_for_deliveries(&gateway, "webhook", 3.0);
    let after = ids(&origin.requests());
    assert_eq!(after.len(), 3, "{after:?}");
    assert_eq!(after[0], before[0]);
    gateway.restart();
    gateway.reload();
    wait_for_deliveries(&gateway, "webhook", 1.0);
    assert_eq!(ids(&origin.requests()).len(), 4, "nothing comes twice");
}

#[test]
fn a_trouble_is_not_repeated_after_a_restart_and_its_end_is_not_forgotten() {
    let (origin, is_open) = receiver();
    is_open.store(true, Ordering::Relaxed);
    let events = hook(&origin, "config_rejected", "");
    let mut gateway = Gateway::start(config(&events));
    gateway.replace_config(format!("{WRONG}events:\n{events}"));
    wait_for("a refusal", || (gateway.reload().0 == 400).then_some(()));
    wait_for_deliveries(&gateway, "webhook", 1.0);
    // It is refused again, but that is no news.
    gateway.reload();
    gateway.kill();
    gateway.replace_config(config(&events));
    gateway.restart();
    assert_eq!(origin.requests().len(), 1);
    gateway.reload();
    let requests = origin.wait_for_requests(2);
    assert_eq!(entries(&requests[0]), [pair("config_rejected", "happened")]);
    assert_eq!(
        entries(&requests[1]),
        [pair("config_reloaded", "recovered")]
    );
    assert_eq!(
        notification(&requests[0])["entries"][0]["since"],
        notification(&requests[1])["entries"][0]["since"]
    );
}

#[test]
fn a_graceful_stop_keeps_what_waits() {
    let (origin, is_open) = receiver();
    let events = hook(&origin, "config_reloaded", "").replace("digest: 0s", "digest: 1h");
    let mut gateway = Gateway::start(config(&events));
    gateway.reload();
    gateway.reload();
    assert!(gateway.stop().success());
    is_open.store(true, Ordering::Relaxed);
    // With another time to collect, it is still the same recipient.
    gateway.replace_config(config(&hook(&origin, "config_reloaded", "")));
    gateway.restart();
    wait_for_deliveries(&gateway, "webhook", 2.0);
}

#[test]
fn a_full_disk_is_reported_once_and_delays_nothing() {
    let (origin, is_open) = receiver();
    is_open.store(true, Ordering::Relaxed);
    let builder = Gateway::builder().config(config(&hook(&origin, "config_reloaded", "")));
    let gateway = builder.disk().start();
    gateway.reload();
    wait_for_deliveries(&gateway, "webhook", 1.0);
    gateway.fill_disk(true);
    for count in 2..=4 {
        gateway.reload();
        wait_for_deliveries(&gateway, "webhook", f64::from(count));
    }
    let said = |text: &str| gateway.log().matches(text).count();
    gateway.wait_for_log("notifications cannot be kept");
    assert_eq!(said("notifications cannot be kept"), 1, "{}", gateway.log());
    gateway.fill_disk(false);
    gateway.wait_for_log("notifications are kept in their directory again");
}

#[test]
fn a_kill_with_a_full_queue_loses_nothing_that_was_accepted() {
    const HOSTS: usize = 2500;
    let port = Port::take();
    let address = port.address();
    let config = |digest: &str| {
        let hosts: Vec<String> = (0..HOSTS).map(|number| format!("s{number}.test")).collect();
        format!(
            "log: {{ level: warn, access: off }}\nsites: [{{ hosts: [{}], routes: [{{ respond: {{ status: \
             200 }} }}] }}]\nevents:\n- {{ on: [certificate_flawed], digest: {digest}, webhook: {{ url: \
             \"http://{address}/hook\" }} }}\n",
            hosts.join(", ")
        )
    };
    // It is not ready without certificates.
    let mut gateway = serving(&[&["a.test"]], config("1h")).spawn();
    within(PATIENCE * 2, "a full queue", || {
        std::net::TcpStream::connect(gateway.admin).ok()?;
        let is_full = waiting(&gateway, "webhook") >= 2000.0;
        let dropped = "snigate_notification_events_dropped_total{hook=\"webhook\"}";
        let dropped = gateway.metric(dropped).unwrap_or_default();
        (is_full && dropped >= 500.0).then_some(())
    });
    gateway.kill();
    gateway.replace_config(format!(
        "certificates: [{{ directory: certs }}]\n{}",
        config("2s")
    ));
    gateway.restart_unready();
    let origin = Origin::start_at(address, |_| vec![Act::respond(200, "")]);
    let first = notification(&origin.wait_for_requests(1)[0]);
    let entries = first["entries"].as_array().expect("entries").len();
    let omitted = first["omitted"].as_u64().expect("some are only counted");
    assert_eq!(entries, 500);
    assert!(entries as u64 + omitted >= HOSTS as u64, "{omitted}");
}
