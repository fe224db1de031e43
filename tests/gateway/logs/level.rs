//! The level of the gateway's own log, at run time.

use serde_json::Value;

use super::logging;
use crate::support::{Origin, TlsClient, curl, snigate, wait_for};

#[test]
fn the_level_is_changed_at_run_time() {
    let origin = Origin::named("hello");
    let gateway = logging(&origin, "access: off, level: warn, format: json").start();
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
    let lines = gateway.log();
    let line = lines.lines().find(|line| line.contains("has changed"));
    let line: Value = serde_json::from_str(line.expect("a line")).expect("JSON");
    assert_eq!(line["level"], "INFO");
    assert_eq!(line["current"], "info,snigate::reload=debug");
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
fn the_api_changes_the_level_for_those_who_may() {
    let origin = Origin::named("hello");
    let gateway = logging(&origin, "access: off, level: info");
    let gateway = gateway.token("correct-horse").start();
    let url = format!("http://{}/api/v1/log", gateway.admin);
    let put = |token: &str, body: &str| {
        let request = curl(&url).args(["-X", "PUT", "-d", body]);
        request
            .arg("-H")
            .arg(format!("Authorization: Bearer {token}"))
            .send()
    };
    let level = || {
        let view = gateway.ask("GET", "/api/v1/log").text();
        let view: Value = serde_json::from_str(&view).expect("JSON");
        view["level"].as_str().expect("a level").to_owned()
    };
    let debug = r#"{ "level": "debug" }"#;
    assert_eq!(put("wrong", debug).status, 401);
    assert_eq!(
        curl(&url).args(["-X", "PUT", "-d", debug]).send().status,
        401
    );
    assert_eq!(
        curl(&url).send().status,
        401,
        "who may not change it may not see it"
    );
    for body in [
        "",
        "debug",
        "{}",
        "[]",
        r#"{ "level": 7 }"#,
        r#"{ "level": "" }"#,
        r#"{ "level": "inof" }"#,
        r#"{ "level": "info,a=b=c" }"#,
        r#"{ "level": "debug\u000ainfo" }"#,
        r#"{ "level": "debug", "for": "1h" }"#,
    ] {
        let reply = put("correct-horse", body);
        assert_eq!(reply.status, 400, "{body}");
        let kind = reply.header("content-type");
        assert_eq!(kind, Some("application/problem+json"), "{body}");
        assert!(!reply.text().contains('\n'), "{}", reply.text());
    }
    assert_eq!(level(), "info");

    // What is logged follows.
    let mut asked = 0;
    let mut is_logged = |name: &str| {
        asked += 1;
        let head = format!(
            "POST /{name}{asked} HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\nno\r\n"
        );
        let mut stream = TlsClient::named("a.test").connect(gateway.https);
        assert_eq!(stream.request(&head).status, 400);
        // A line that is always there comes after it.
        let before = gateway.log().len();
        assert_eq!(gateway.reload().0, 200);
        wait_for("the reload's line", || {
            let log = gateway.log();
            log[before..].contains("reloaded").then_some(())
        });
        gateway.log().matches(" DEBUG refused ").count()
    };
    assert_eq!(is_logged("quiet"), 0);
    let reply = put("correct-horse", debug);
    assert_eq!(reply.status, 200);
    let view: Value = serde_json::from_str(&reply.text()).expect("JSON");
    assert_eq!(
        (&view["level"], &view["configured"]),
        (&"debug".into(), &"info".into())
    );
    assert_eq!(level(), "debug");
    assert_eq!(is_logged("loud"), 1);
    assert_eq!(put("correct-horse", r#"{ "level": "info" }"#).status, 200);
    assert_eq!(is_logged("quiet"), 1);
    assert!(!gateway.log().contains("correct-horse"));
}

#[test]
fn a_full_disk_does_not_hold_the_gateway_up() {
    let origin = Origin::named("hello");
    let builder = logging(&origin, "access: access.log, target: own.log, level: debug");
    for file in ["access.log", "own.log"] {
        std::os::unix::fs::symlink("/dev/full", builder.dir().join(file)).expect("linked");
    }
    let gateway = builder.start();
    let mut stream = TlsClient::named("a.test").connect(gateway.https);
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
