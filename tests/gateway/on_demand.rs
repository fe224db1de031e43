//! Certificates on demand from outside: the very first handshake for a name has its certificate,
//! and strangers get no more than is meant for them.

use std::thread;
use std::time::{Duration, Instant};

use crate::support::{
    Act, Gateway, Origin, Received, TlsClient, check, s_client, snigate, wait_for,
};

/// A service that allows what begins with `good`, and what it says beside.
fn service(fields: &'static str) -> Origin {
    Origin::start(move |request: &Received| {
        let status = if request.line().contains("domain=good") {
            "200 OK"
        } else {
            "404 Not Found"
        };
        let answer = format!("HTTP/1.1 {status}\r\n{fields}Content-Length: 0\r\n\r\n");
        vec![Act::send(answer)]
    })
}

/// A gateway with a local CA that asks `origin`, with more under `on_demand`.
fn config(origin: &Origin, more: &str) -> String {
    let address = origin.address();
    format!(
        "issuers: {{ local: {{ local_ca: {{ name: Test }} }} }}\n\
         on_demand:\n  ask: {{ url: \"http://{address}/check?key=1\", timeout: 500ms }}\n{more}\
         sites: [{{ hosts: [\"*\"], routes: [{{ respond: {{ body: any }} }}] }}]\n"
    )
}

fn served(gateway: &Gateway, host: &str) -> bool {
    TlsClient::named(host)
        .try_connect(gateway.https)
        .is_ok_and(|stream| stream.names() == [host])
}

fn refused(gateway: &Gateway, host: &str) -> String {
    let refused = TlsClient::named(host).try_connect(gateway.https);
    refused.err().unwrap_or_default()
}

fn counted(gateway: &Gateway, result: &str) -> f64 {
    let name = format!("snigate_on_demand_total{{result=\"{result}\"}}");
    gateway.metric(&name).unwrap_or_default()
}

#[test]
fn a_crowd_shares_one_question_and_one_certificate() {
    let origin = service("");
    // The service has 50 clients beside it on this machine.
    let text = config(&origin, "").replace("timeout: 500ms", "timeout: 20s");
    let gateway = Gateway::start(text);
    let serials: std::collections::BTreeSet<_> = thread::scope(|scope| {
        let ask = || {
            let stream = TlsClient::named("good.example.com").connect(gateway.https);
            let serial = stream.certificate().serial_number().to_bn();
            serial.expect("a number").to_vec()
        };
        let asking: Vec<_> = (0..50).map(|_| scope.spawn(ask)).collect();
        let asked = asking.into_iter();
        asked.map(|one| one.join().expect("served")).collect()
    });
    assert_eq!(serials.len(), 1);
    let requests = origin.requests();
    assert_eq!(requests.len(), 1, "{requests:?}");
    assert_eq!(
        requests.first().expect("one").line(),
        "GET /check?key=1&domain=good.example.com&client=127.0.0.1 HTTP/1.1"
    );
    assert_eq!(counted(&gateway, "made").to_bits(), 1.0_f64.to_bits());
    // What is there is served on without a question.
    assert_eq!(gateway.reload().0, 200);
    assert!(served(&gateway, "good.example.com"));
    assert_eq!(origin.requests().len(), 1);
}

#[test]
fn a_refusal_is_remembered_as_long_as_the_service_says() {
    let origin = service("Cache-Control: max-age=600\r\n");
    let gateway = Gateway::start(config(&origin, ""));
    // Whoever waited for the answer gets the same alert as whoever comes after it.
    for _ in 0..4 {
        let error = refused(&gateway, "bad.example.com");
        assert!(error.contains("unrecognized name"), "{error}");
    }
    assert_eq!(origin.requests().len(), 1);
    for version in ["-tls1_2", "-tls1_3"] {
        let host = format!("bad{version}.example.com");
        let said = s_client(gateway.https, Some(&host), &[version]);
        assert!(said.contains("unrecognized name"), "{version}: {said}");
        assert!(!said.contains("handshake failure"), "{version}: {said}");
    }
    // A cipher that is not spoken is another matter, also for a name that is made.
    let arguments = ["-tls1_2", "-cipher", "AES128-SHA:@SECLEVEL=0"];
    let said = s_client(gateway.https, Some("good.example.com"), &arguments);
    assert!(said.contains("handshake failure"), "{said}");

    let origin = service("Cache-Control: no-store\r\n");
    let gateway = Gateway::start(config(&origin, ""));
    for asked in 1..4 {
        assert!(!refused(&gateway, "bad.example.com").is_empty());
        assert_eq!(origin.requests().len(), asked);
    }
}

#[test]
fn a_service_that_is_away_takes_nobody_else_with_it() {
    let origin = service("");
    let mut gateway = Gateway::start(config(&origin, ""));
    assert!(served(&gateway, "good.example.com"));
    let silent = Origin::silent();
    gateway.replace_config(config(&silent, ""));
    assert_eq!(gateway.reload().0, 200);

    let begun = Instant::now();
    assert!(!refused(&gateway, "good.example.org").is_empty());
    assert!(begun.elapsed() < Duration::from_secs(10));
    assert!(counted(&gateway, "unanswered") >= 1.0);
    assert!(served(&gateway, "good.example.com"), "it is there");
    // After some failures in a row it is left alone.
    wait_for("the service to be left alone", || {
        let before = silent.requests().len();
        let name = format!("good{before}.example.net");
        assert!(!refused(&gateway, &name).is_empty());
        (silent.requests().len() == before).then_some(())
    });
    // A service that works is asked again.
    gateway.replace_config(config(&origin, ""));
    assert_eq!(gateway.reload().0, 200);
    assert!(served(&gateway, "good.example.org"));
}

#[test]
fn floods_of_names_get_nothing() {
    let origin = service("");
    let limits = "  limits: { per_domain: { names: 3, per: 1h } }\n";
    let gateway = Gateway::start(config(&origin, limits));
    for host in [
        "good.www.www.example.com",
        "good.a.b.c.d.e.example.com",
        "192.0.2.1",
        "good",
    ] {
        let error = refused(&gateway, host);
        assert!(error.contains("unrecognized name"), "{host}: {error}");
    }
    assert!(origin.requests().is_empty(), "nobody is troubled");
    let taken = (0..6).filter(|n| served(&gateway, &format!("good{n}.example.co.uk")));
    assert_eq!(taken.count(), 3, "of one registered domain");
    assert!(served(&gateway, "good.other.co.uk"), "of another");
    assert!(counted(&gateway, "limited") >= 3.0);
}

#[test]
fn who_waits_too_long_gets_the_default_and_the_work_goes_on() {
    let held = Origin::start(|_| vec![Act::Hold, Act::respond(200, "")]);
    let more = "  limits: { max_wait: 300ms }\ntls: { default_certificate: fixed.example.com }\n\
                certificates: [{ names: [fixed.example.com] }]\n";
    let text = config(&held, more).replace("timeout: 500ms", "timeout: 60s");
    let gateway = Gateway::start(text);
    let stream = TlsClient::named("slow.example.com").connect(gateway.https);
    assert_eq!(stream.names(), ["fixed.example.com"]);
    held.release();
    wait_for("the certificate", || {
        served(&gateway, "slow.example.com").then_some(())
    });
    assert!(counted(&gateway, "waited_out") >= 1.0);
}

#[test]
fn another_policy_forgets_what_was_refused() {
    let origin = service("");
    let mut gateway = Gateway::start(config(&origin, ""));
    assert!(!refused(&gateway, "bad.example.com").is_empty());
    let allow = "issuers: { local: { local_ca: { name: Test } } }\n\
                 on_demand: { allow: [\"*.example.com\"] }\n\
                 sites: [{ hosts: [\"*\"], routes: [{ respond: { body: any } }] }]\n";
    gateway.replace_config(allow);
    assert_eq!(gateway.reload().0, 200);
    assert!(served(&gateway, "bad.example.com"));
    assert!(!refused(&gateway, "good.example.org").is_empty());
}

#[test]
fn an_open_gate_is_refused() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("snigate.yaml");
    let text = "issuers: { local: { local_ca: } }\non_demand: { issuer: local }\n\
                sites: [{ hosts: [\"*\"], routes: [{ respond: {} }] }]\n";
    std::fs::write(&path, text).expect("written");
    let printed = check(&path);
    assert_eq!(printed.code, Some(3), "{printed:?}");
    assert!(printed.stderr.contains("neither 'allow' nor 'ask'"));
    assert!(printed.stderr.contains("snigate.yaml:2:"), "{printed:?}");
}

#[test]
fn what_was_made_on_demand_is_listed() {
    let origin = service("");
    let gateway = Gateway::start(config(&origin, ""));
    let admin = gateway.admin.to_string();
    let hosts = ["good.example.com", "good.example.net", "good.example.org"];
    for host in hosts {
        assert!(served(&gateway, host));
    }
    let listed = snigate(&["certs", "list", "--admin", &admin]);
    assert_eq!(listed.code, Some(0), "{listed:?}");
    for host in hosts {
        assert!(listed.stdout.contains(host), "{listed:?}");
    }
    let shown = snigate(&["certs", "show", hosts[0], "--admin", &admin]);
    assert!(shown.stdout.contains("on demand, by a client"), "{shown:?}");
    let pem = snigate(&["certs", "show", hosts[0], "--pem", "--admin", &admin]);
    assert_eq!(
        pem.stdout.matches("BEGIN CERTIFICATE").count(),
        2,
        "{pem:?}"
    );
}
