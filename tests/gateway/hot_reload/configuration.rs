//! A new configuration is applied or refused as a whole.

use std::fs;

use nix::sys::signal::Signal;

use super::{
    body, config, gateway, lines_with, presents, reloads, site, under_connections, wait_for_body,
};
use crate::support::{Gateway, TlsClient, snigate, wait_for};

#[test]
fn a_hangup_and_the_command_reload_at_once() {
    let (mut gateway, _) = gateway();
    assert_eq!(reloads(&gateway, "ok"), 0.0);
    gateway.signal(Signal::SIGHUP);
    wait_for("the reload", || {
        (reloads(&gateway, "ok") == 1.0).then_some(())
    });
    let admin = gateway.admin.to_string();
    let reload = || snigate(&["reload", "--admin", &admin]);
    let printed = reload();
    assert_eq!(printed.code, Some(0), "{printed:?}");
    assert_eq!(printed.stdout, "");
    assert!(
        printed.stderr.contains("1 site, 1 certificate"),
        "{printed:?}"
    );

    // What was written before is in force when it returns.
    for round in 0..5 {
        gateway.replace_config(config(&format!("round {round}")));
        assert_eq!(reload().code, Some(0));
        assert_eq!(body(&gateway, "a.example"), Ok(format!("round {round}")));
    }
    gateway.replace_config("sites:\n  - hosts: [a.example]\n    upstraem: app\n");
    let printed = reload();
    assert_eq!((printed.code, printed.stdout.as_str()), (Some(3), ""));
    let place = format!("{}:", gateway.config.display());
    assert!(printed.stderr.starts_with(&place), "{printed:?}");
    assert!(
        printed.stderr.contains("did you mean 'upstream'?"),
        "{printed:?}"
    );
    assert_eq!(body(&gateway, "a.example").as_deref(), Ok("round 4"));
    gateway.kill();
    assert_eq!(reload().code, Some(1));
}

#[test]
fn a_bad_configuration_changes_nothing_and_is_told_once() {
    let (mut gateway, ca) = gateway();
    let text = fs::read_to_string(&gateway.config).expect("readable");
    let line = text
        .lines()
        .position(|line| line.starts_with("certificates"))
        .expect("there")
        + 1;
    let seen = under_connections(&gateway, "a.example", ca.certificate(), || {
        gateway_refuses(
            &gateway,
            &text.replace("directory: certs", "directry: certs"),
            line,
        );
    });
    assert!(seen.pairs.iter().all(|(_, body)| body == "one"), "{seen:?}");
    // Certificates are still looked after while the configuration is bad.
    let renewed = ca.leaf(&["a.example"]).valid(-1, 100).make();
    renewed.write(&gateway.dir().join("certs"), "a.example");
    wait_for("the renewed certificate", || {
        presents(&gateway, "a.example", &renewed).then_some(())
    });
    assert_eq!(body(&gateway, "a.example").as_deref(), Ok("one"));
    let told = |gateway: &Gateway| lines_with(gateway, &["ERROR", "refused"]).len();
    assert_eq!(told(&gateway), 1, "{}", gateway.log());
    assert_eq!(
        gateway.metric("snigate_config_last_reload_successful"),
        Some(0.0)
    );

    gateway.replace_config(config("two"));
    wait_for_body(&gateway, "a.example", "two");
    assert_eq!(
        gateway.metric("snigate_config_last_reload_successful"),
        Some(1.0)
    );
    assert_eq!(
        (reloads(&gateway, "ok"), reloads(&gateway, "refused")),
        (1.0, 1.0)
    );
}

fn gateway_refuses(gateway: &Gateway, text: &str, line: usize) {
    gateway.write("snigate.yaml", text);
    gateway.wait_for_log("did you mean 'directory'?");
    let place = format!("{}:{line}:", gateway.config.display());
    let told = lines_with(gateway, &["ERROR", "did you mean 'directory'?", &place]);
    assert_eq!(told.len(), 1, "{told:?}");
}

#[test]
fn sites_and_directories_come_and_go() {
    let (mut gateway, ca) = gateway();
    let more = gateway.dir().join("more");
    let wanted = format!(
        "certificates: [{{ directory: certs }}, {{ directory: more }}]\nsites:\n{}{}",
        site("a.example", "one"),
        site("b.example", "two")
    );
    // The directory is not there yet: the site is taken, and told to lack a certificate.
    gateway.replace_config(&wanted);
    gateway.wait_for_log("cannot be listed");
    wait_for("readiness to go", || {
        let answer = gateway.ask("GET", "/readyz");
        (answer.status == 503 && answer.text().contains("b.example")).then_some(())
    });
    assert_eq!(body(&gateway, "a.example").as_deref(), Ok("one"));
    let pair = ca.leaf(&["b.example"]).make();
    pair.write(&more, "b.example");
    wait_for_body(&gateway, "b.example", "two");
    gateway.wait_until_ready();

    // A connection that is open when its site goes gets an error, and no response of another.
    let mut open = TlsClient::named("b.example").connect(gateway.https);
    assert_eq!(open.get("b.example", "/").text(), "two");
    gateway.replace_config(config("three"));
    wait_for_body(&gateway, "a.example", "three");
    let refused = body(&gateway, "b.example");
    assert!(refused.is_err_and(|error| error.contains("unrecognized name")));
    assert_eq!(open.get("b.example", "/").status, 421);
    assert_eq!(
        gateway.metric("snigate_certificates{source=\"directory\"}"),
        Some(1.0)
    );

    // A file of a directory, too.
    pair.write(&gateway.dir().join("certs"), "b.example");
    wait_for("the certificate", || {
        presents(&gateway, "b.example", &pair).then_some(())
    });
    fs::remove_file(gateway.dir().join("certs/b.example.pem")).expect("removed");
    wait_for("it to go", || {
        TlsClient::named("b.example")
            .try_connect(gateway.https)
            .err()
    });
}

#[test]
fn what_needs_a_restart_is_named() {
    let (mut gateway, _) = gateway();
    let before = fs::read_to_string(&gateway.config).expect("readable");
    let port = crate::support::Port::take();
    let mut text = before.replace(
        &format!("admin: \"{}\"", gateway.admin),
        &format!("admin: \"{}\"", port.address()),
    );
    text = text.replace("  grace_period", "  threads: 3\n  grace_period");
    text = text.replace("\"one\"", "\"two\"");
    gateway.write("snigate.yaml", &text);
    let printed = snigate(&["reload", "--admin", &gateway.admin.to_string()]);
    assert_eq!(printed.code, Some(0), "{printed:?}");
    let told = printed.stderr.contains("server.admin") && printed.stderr.contains("server.threads");
    assert!(told && printed.stderr.contains("restart"), "{printed:?}");
    // The rest is in force, and so are the old listeners.
    assert_eq!(body(&gateway, "a.example").as_deref(), Ok("two"));
    assert!(std::net::TcpStream::connect(port.address()).is_err());
    let (status, summary) = gateway.reload();
    assert_eq!(status, 200);
    let keys = summary["restart_needed"].to_string();
    assert!(
        keys.contains("server.admin") && keys.contains("server.threads"),
        "{summary}"
    );
    let log = lines_with(&gateway, &["WARN", "server.admin"]);
    assert!(!log.is_empty(), "{}", gateway.log());

    gateway.write("snigate.yaml", &before);
    let (_, summary) = gateway.reload();
    assert_eq!(
        summary["restart_needed"],
        serde_json::json!([]),
        "as it was at the start"
    );
    gateway.write("snigate.yaml", &text);
    gateway.admin = port.address();
    gateway.restart();
    let (_, summary) = gateway.reload();
    assert_eq!(summary["restart_needed"], serde_json::json!([]));
}

#[test]
fn the_log_changes_its_format_while_it_runs() {
    let (gateway, _) = gateway();
    let before = fs::read_to_string(&gateway.config).expect("readable");
    for (format, begins) in [("json", "{\"timestamp\""), ("text", "20")] {
        let told = gateway.log().len();
        let text = format!("{before}log: {{ format: {format}, access: off }}\n");
        gateway.write("snigate.yaml", &text);
        let (status, summary) = gateway.reload();
        assert_eq!(
            (status, &summary["restart_needed"]),
            (200, &serde_json::json!([]))
        );
        let line = wait_for("the reload in the log", || {
            let log = gateway.log().split_off(told);
            // Noticing the change by itself, it may have reloaded before it was asked to.
            let mut lines = log.lines().filter(|line| line.starts_with(begins));
            let line = lines.find(|line| line.contains("configuration reloaded"));
            line.map(str::to_owned)
        });
        if format == "json" {
            let line: serde_json::Value = serde_json::from_str(&line).expect("JSON");
            assert_eq!(line["message"], "configuration reloaded");
            assert_eq!(
                (&line["level"], &line["sites"]),
                (&"INFO".into(), &1.into())
            );
        }
    }
}
