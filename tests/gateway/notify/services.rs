//! Services with an API of their own, from the event to what they receive; and tests of all kinds of
//! recipients.

use super::*;
use crate::support::{Act, MailServer, OnMail, Port, ROOT, snigate};

/// The JSON in a request.
fn json(request: &Received) -> Value {
    serde_json::from_slice(&request.body).expect("JSON")
}

fn accepting() -> Origin {
    Origin::start(|_| vec![Act::respond(202, "{\"status\":\"success\"}")])
}

#[test]
fn a_trouble_and_its_end_reach_slack_pagerduty_and_alertmanager() {
    let (slack, pagerduty, alertmanager) = (accepting(), accepting(), accepting());
    let key = "R0123456789ABCDEFGHIJ0123456789A";
    let entry =
        |recipient: String| format!("- {{ on: [config_rejected], digest: 0s, {recipient} }}\n");
    let events = [
        entry(format!(
            "slack: {{ url: \"http://{}/services/T0/B0/very-secret\" }}",
            slack.address()
        )),
        entry(format!(
            "pagerduty: {{ routing_key: {key}, url: \"http://{}\" }}",
            pagerduty.address()
        )),
        entry(format!(
            "alertmanager: {{ url: \"http://{}\", token: \"am-secret\" }}",
            alertmanager.address()
        )),
    ]
    .concat();
    let mut gateway = Gateway::start(config(&events));
    gateway.replace_config(format!("{WRONG}events:\n{events}"));
    wait_for("a refusal", || (gateway.reload().0 == 400).then_some(()));
    for service in [&slack, &pagerduty, &alertmanager] {
        service.wait_for_requests(1);
    }
    gateway.replace_config(config(&events));
    wait_for("a reload", || (gateway.reload().0 == 200).then_some(()));

    let requests = slack.wait_for_requests(2);
    assert_eq!(
        requests[0].line(),
        "POST /services/T0/B0/very-secret HTTP/1.1"
    );
    let text = |request: &Received| json(request)["text"].as_str().expect("a text").to_owned();
    assert!(text(&requests[0]).contains("error: config rejected"));
    assert!(text(&requests[1]).contains("recovered: config reloaded"));

    let requests = pagerduty.wait_for_requests(2);
    assert_eq!(requests[0].line(), "POST /v2/enqueue HTTP/1.1");
    let (trigger, resolve) = (json(&requests[0]), json(&requests[1]));
    assert_eq!(trigger["event_action"], "trigger");
    assert_eq!(trigger["routing_key"], key);
    assert_eq!(trigger["payload"]["severity"], "error");
    assert_eq!(resolve["event_action"], "resolve");
    assert_eq!(trigger["dedup_key"], resolve["dedup_key"]);

    let requests = alertmanager.wait_for_requests(2);
    assert_eq!(requests[0].line(), "POST /api/v2/alerts HTTP/1.1");
    let bearer = requests[0].header("authorization");
    assert_eq!(bearer, Some("Bearer am-secret"));
    let alerts = requests.iter().map(json);
    let [firing, ended] = <[Value; 2]>::try_from(alerts.collect::<Vec<_>>()).expect("two");
    let of_error = |alerts: &Value| {
        let mut alerts = alerts.as_array().expect("alerts").iter();
        let found = alerts.find(|alert| alert["labels"]["severity"] == "error");
        found.expect("that of the severity").clone()
    };
    let (firing, ended) = (of_error(&firing), of_error(&ended));
    assert_eq!(firing["labels"], ended["labels"], "the same alert");
    let end = |alert: &Value| alert["endsAt"].as_str().expect("a time").to_owned();
    assert!(end(&ended) < end(&firing), "{firing} {ended}");

    for hook in ["slack", "pagerduty", "alertmanager"] {
        wait_for_deliveries(&gateway, hook, 2.0);
    }
    for secret in ["very-secret", key, "am-secret"] {
        assert!(!gateway.log().contains(secret), "{secret}");
    }
}

#[test]
fn a_test_goes_through_each_kind_and_names_each_failure() {
    let good = accepting();
    let refusing = Origin::start(|_| vec![Act::respond(404, "no_service")]);
    let dead = Port::take();
    let pair = ROOT.leaf(&["localhost"]).make();
    let (taking, spam) = (
        MailServer::start(&pair, OnMail::Take),
        MailServer::start(&pair, OnMail::Refuse),
    );
    let mail = |name: &str, server: &MailServer, password: &str| {
        let place = server.place();
        format!(
            "name: {name}, mail: {{ server: \"{place}\", from: gw@example.com, to: [ops@example.com], \
             user: snigate, password: {password}, ca_file: root.pem }}"
        )
    };
    let (ok, no) = (good.address(), refusing.address());
    let entries = [
        format!("name: slack-ok, slack: {{ url: \"http://{ok}/services/x\" }}"),
        format!("name: slack-no, slack: {{ url: \"http://{no}/services/x\" }}"),
        format!("name: discord-ok, discord: {{ url: \"http://{ok}/webhook\" }}"),
        format!("name: teams-ok, teams: {{ url: \"http://{ok}/workflow\" }}"),
        format!("name: ntfy-ok, ntfy: {{ topic: alerts, url: \"http://{ok}\" }}"),
        format!(
            "name: ntfy-no, ntfy: {{ topic: alerts, url: \"http://{}\" }}",
            dead.address()
        ),
        format!("name: page-ok, pagerduty: {{ routing_key: R0123, url: \"http://{ok}\" }}"),
        format!("name: am-ok, alertmanager: {{ url: \"http://{ok}\" }}"),
        // It says nothing of a message.
        format!(
            "name: telegram-no, telegram: {{ token: \"1:secret-token\", chat: \"@c\", url: \
             \"http://{ok}\" }}"
        ),
        "name: exec-ok, exec: { command: [/bin/true] }".to_owned(),
        "name: exec-no, exec: { command: [/bin/false] }".to_owned(),
        mail("mail-ok", &taking, "hunter2-hunter2"),
        mail("mail-no", &spam, "hunter2-hunter2"),
        mail("mail-login", &taking, "wrong-password"),
    ];
    let entries = entries.map(|entry| format!("- {{ on: [storage_failed], {entry} }}\n"));
    let builder = Gateway::builder();
    std::fs::write(builder.dir().join("root.pem"), ROOT.pem()).expect("a file");
    let gateway = builder.config(config(&entries.concat())).start();
    let admin = gateway.admin.to_string();
    let printed = snigate(&["events", "test", "--admin", &admin]);
    assert_eq!(printed.code, Some(1), "{printed:?}");
    assert!(printed.stderr.contains("6 of 14"), "{printed:?}");
    let line = |name: &str| {
        let mut lines = printed.stdout.lines();
        let line = lines.find(|line| line.split(' ').next() == Some(name));
        line.unwrap_or_else(|| panic!("{name}: {printed:?}"))
            .to_owned()
    };
    for name in [
        "slack-ok",
        "discord-ok",
        "teams-ok",
        "ntfy-ok",
        "page-ok",
        "am-ok",
        "exec-ok",
        "mail-ok",
    ] {
        assert!(line(name).contains("delivered"), "{}", line(name));
    }
    for (name, why) in [
        ("slack-no", "responded with 404"),
        ("slack-no", "no_service"),
        ("ntfy-no", "refused"),
        ("telegram-no", "did not confirm the message"),
        ("exec-no", "exit status: 1"),
        ("mail-no", "this looks like spam"),
        ("mail-login", "check 'user' and 'password'"),
    ] {
        let line = line(name);
        assert!(line.contains("failed") && line.contains(why), "{line}");
    }
    for secret in ["secret-token", "hunter2", "wrong-password"] {
        assert!(!printed.stdout.contains(secret), "{printed:?}");
    }
    let mails = taking.mails();
    assert_eq!(mails.len(), 1);
    assert!(mails[0].contains("notification test"), "{}", mails[0]);
}
