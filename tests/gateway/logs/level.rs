//! The level of the gateway's own log, at run time.

use serde_json::Value;

use super::logging;
use crate::support::{Origin, snigate, wait_for};

#[test]
fn the_level_is_changed_at_run_time() {
    let origin = Origin::named("hello");
    let gateway = logging(&origin, "access: off, level: warn").start();
    let admin = gateway.admin.to_string();
    let log = |level: &[&str]| snigate(&[&["log", "--admin", &*admin], level].concat());
    let shown = log(&[]);
    assert_eq!(
        (shown.code, shown.stdout.as_str()),
        (Some(0), "warn\n"),
        "{shown:?}"
    );
    let changed = log(&["info,snigate::reload=debug", "--json"]);
    assert_eq!(changed.code, Some(0), "{changed:?}");
    let view: Value = serde_json::from_str(&changed.stdout).expect("JSON");
    assert_eq!(view["level"], "info,snigate::reload=debug");
    assert_eq!(view["configured"], "warn");
    gateway.wait_for_log("the log level has changed");
    for (wrong, hint) in [("inof", "did you mean 'info'?"), ("a=b=c", "give one of")] {
        let refused = log(&[wrong]);
        assert_eq!(refused.code, Some(1), "{refused:?}");
        assert!(refused.stderr.contains(hint), "{refused:?}");
    }
    // A reload keeps it unless the configuration has another one.
    let reload = || snigate(&["reload", "--admin", &admin]);
    assert_eq!(reload().code, Some(0));
    gateway.wait_for_log("reloaded");
    assert_eq!(log(&[]).stdout, "info,snigate::reload=debug\n");
    let text = std::fs::read_to_string(&gateway.config).expect("readable");
    let text = text.replace("level: warn", "level: error");
    std::fs::write(&gateway.config, text).expect("writable");
    assert_eq!(reload().code, Some(0));
    wait_for("the level", || (log(&[]).stdout == "error\n").then_some(()));
}

#[test]
fn a_full_disk_does_not_hold_the_gateway_up() {
    let origin = Origin::named("hello");
    let builder = logging(&origin, "access: access.log, target: own.log, level: debug");
    for file in ["access.log", "own.log"] {
        std::os::unix::fs::symlink("/dev/full", builder.dir().join(file)).expect("linked");
    }
    let gateway = builder.start();
    let mut stream = crate::support::TlsClient::named("a.test").connect(gateway.https);
    for _ in 0..50 {
        assert_eq!(stream.get("a.test", "/").status, 200);
    }
    for metric in [
        "snigate_access_log_lines_lost_total",
        "snigate_log_lines_lost_total",
    ] {
        wait_for("lost lines", || {
            gateway.metric(metric).filter(|lost| *lost > 0.0)
        });
    }
    assert_eq!(stream.get("a.test", "/").status, 200);
}
