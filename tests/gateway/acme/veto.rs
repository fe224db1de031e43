//! Hooks that are asked before a certificate is ordered.

use std::fs;

use serde_json::Value;

use super::{RETRY, command, fake_issuer, press, sites, try_served, wait_until_served};
use crate::support::{Act, FakeCa, Gateway, Origin, ROOT, within};

/// A configuration with these entries of `events`.
fn asking(ca: &FakeCa, hosts: &[&str], hooks: &str) -> String {
    format!(
        "issuers:\n{}renewal: {{ check_every: 1s }}\nevents:\n{hooks}{}",
        fake_issuer(ca),
        sites(hosts)
    )
}

/// An entry that asks a program.
fn program(name: &str, script: &str, timeout: &str) -> String {
    format!(
        "- {{ name: {name}, on: [certificate_obtaining], veto: true, exec: {{ command: [/bin/sh, -c, \
         {script:?}], timeout: {timeout} }} }}\n"
    )
}

#[test]
fn no_order_is_made_while_a_program_objects() {
    let fake = FakeCa::start(|_| None);
    let builder = Gateway::builder();
    let (hold, asked) = (builder.dir().join("hold"), builder.dir().join("asked"));
    fs::write(&hold, "").expect("ours");
    let script = format!(
        "cat > {asked:?}; echo \"$SNIGATE_EVENT_NAMES\" >> {asked:?}; if [ -e {hold:?} ]; then echo; \
         echo 'frozen until Monday'; echo more; exit 1; fi"
    );
    let yaml = asking(&fake, &["a.test"], &program("freeze", &script, "10s"));
    let gateway = builder.config(yaml).spawn();
    let vetoed = gateway.wait_for_event("veto", |event| event.is("certificate_vetoed", "a.test"));
    assert_eq!(vetoed.severity, "warning", "{vetoed:?}");
    let why = "the hook freeze objects: frozen until Monday";
    assert!(vetoed.message.contains(why), "{vetoed:?}");
    assert!(vetoed.next.is_some(), "{vetoed:?}");
    assert_eq!(fake.asked("order").len(), 0);
    let listed = command(&gateway, &["certs", "list"]).stdout;
    assert!(listed.contains("held by a hook"), "{listed}");
    let shown = command(&gateway, &["certs", "show", "a.test"]).stdout;
    assert!(
        shown.contains("held by a hook") && shown.contains(why),
        "{shown}"
    );
    let question = fs::read_to_string(&asked).expect("it was asked");
    let (json, names) = question.rsplit_once('}').expect("JSON");
    assert_eq!(names.trim(), "a.test");
    let json: Value = serde_json::from_str(&format!("{json}}}")).expect("JSON");
    assert_eq!(json["names"], serde_json::json!(["a.test"]));
    assert_eq!(json["entries"][0]["kind"], "certificate_obtaining");
    assert_eq!(json["entries"][0]["issuer"], "fake");

    fs::remove_file(&hold).expect("ours");
    press(&gateway, "a.test");
    wait_until_served(&gateway, "a.test", fake.root().certificate());
    assert_eq!(fake.asked("order").len(), 1);
}

#[test]
fn a_hook_that_fails_keeps_nothing_from_being_ordered() {
    let fake = FakeCa::start(|_| None);
    let missing = "- { name: missing, on: [certificate_obtaining], veto: true, exec: { command: \
                   [/nowhere/hook] } }\n";
    let hooks = [
        program("hangs", "sleep 100", "1s"),
        program("breaks", "echo what; exit 3", "10s"),
        missing.to_owned(),
        "- { name: other, on: [certificate_obtaining], veto: true, sites: [b.test], exec: { command: \
         [/bin/false] } }\n"
            .to_owned(),
    ];
    let yaml = asking(&fake, &["a.test"], &hooks.concat());
    let gateway = Gateway::builder().config(yaml).spawn();
    wait_until_served(&gateway, "a.test", fake.root().certificate());
    for words in [
        "did not finish within 1s and was killed",
        "exit status: 3",
        "cannot be run",
    ] {
        gateway.wait_for_log(words);
    }
    assert_eq!(gateway.count("certificate_vetoed", "a.test"), 0);
}

#[test]
fn a_server_objects_with_403_and_a_reload_asks_another() {
    let fake = FakeCa::start(|_| None);
    let server = Origin::start(|request| {
        let body: Value = serde_json::from_slice(&request.body).expect("JSON");
        let is_held = body["names"][0] == "a.test";
        vec![match is_held {
            true => Act::respond(403, "a.test is not paid for\n"),
            false => Act::respond(204, ""),
        }]
    });
    let hook = |address: std::net::SocketAddr| {
        format!(
            "- {{ on: [certificate_obtaining], veto: true, webhook: {{ url: \
             \"http://{address}/may\" }} }}\n"
        )
    };
    let yaml = asking(&fake, &["a.test", "b.test"], &hook(server.address()));
    let mut gateway = Gateway::builder().config(yaml).spawn();
    wait_until_served(&gateway, "b.test", fake.root().certificate());
    let vetoed = gateway.wait_for_event("veto", |event| event.is("certificate_vetoed", "a.test"));
    // One name among many counts.
    within(RETRY, "the host to count", || {
        (gateway.metric("snigate_hosts_not_covered") == Some(1.0)).then_some(())
    });
    let why = "the hook webhook objects: a.test is not paid for";
    assert!(vetoed.message.contains(why), "{vetoed:?}");
    let ordered = fake.asked("order");
    assert!(ordered.iter().all(|order| order.names == ["b.test"]));

    let broken = Origin::start(|_| vec![Act::respond(500, "I do not know")]);
    gateway.replace_config(asking(
        &fake,
        &["a.test", "b.test"],
        &hook(broken.address()),
    ));
    assert_eq!(gateway.reload().0, 200);
    press(&gateway, "a.test");
    wait_until_served(&gateway, "a.test", fake.root().certificate());
    within(RETRY, "the host to be covered", || {
        (gateway.metric("snigate_hosts_not_covered") == Some(0.0)).then_some(())
    });
    within(RETRY, "the question", || {
        (!broken.requests().is_empty()).then_some(())
    });
    gateway.wait_for_log("I do not know");
}

#[test]
fn a_name_on_demand_that_a_hook_objects_to_is_refused_for_some_minutes() {
    let fake = FakeCa::start(|_| None);
    let builder = Gateway::builder();
    let hold = builder.dir().join("hold");
    fs::write(&hold, "").expect("ours");
    let script = format!("if [ -e {hold:?} ]; then echo 'has not paid'; exit 1; fi");
    let pair = ROOT.leaf(&["default.test"]).make();
    pair.write(builder.dir(), "default");
    let yaml = format!(
        "issuers:\n{}certificates: [{{ files: {{ cert: default.pem, key: default.key }} }}]\n\
         tls: {{ default_certificate: default.test }}\n\
         on_demand: {{ issuer: [fake], allow: [\"*.shop.test\"] }}\n\
         log: {{ format: json, access: off }}\nevents:\n{}\
         sites: [{{ hosts: [\"*\"], routes: [{{ respond: {{ body: shop }} }}] }}]\n",
        fake_issuer(&fake),
        program("paid", &script, "10s"),
    );
    let mut gateway = builder.config(yaml).start();
    let (host, root) = ("a.shop.test", fake.root().certificate());
    assert!(try_served(&gateway, host, root).is_err());
    let vetoed = gateway.wait_for_event("veto", |event| event.is("certificate_vetoed", host));
    assert!(
        vetoed
            .message
            .contains("the hook paid objects: has not paid"),
        "{vetoed:?}"
    );
    assert_eq!(fake.asked("order").len(), 0);
    // It is no reason to ask at each handshake.
    assert!(try_served(&gateway, host, root).is_err());
    assert_eq!(gateway.count("certificate_vetoed", host), 1);

    // A restart asks anew.
    fs::remove_file(&hold).expect("ours");
    gateway.restart();
    within(RETRY, "the name to be served", || {
        try_served(&gateway, host, root).ok()
    });
    assert_eq!(fake.asked("order").len(), 1);
}
