//! Certificates: how they are shown, found and requested.

use super::*;
use crate::certificate::testing::{DAY, NOW, TestCa};
use crate::certificate::{Loader, TlsCertificate};
use crate::clock::UnixTime;
use crate::schedule::advice::Window;
use crate::schedule::{Failure, FailureClass};

fn loaded(names: &[&str], not_before: UnixTime, not_after: UnixTime) -> Arc<TlsCertificate> {
    let loader = Loader::new().expect("a loader");
    TestCa::new("Test CA").certificate(&loader, names, not_before, not_after)
}

fn managed(names: &[&str], certificate: Option<Arc<TlsCertificate>>) -> Managed {
    Managed {
        names: names
            .iter()
            .map(|name| name.parse().expect("a name"))
            .collect(),
        issuers: vec!["letsencrypt".into(), "zerossl".into()],
        advice: certificate.as_ref().map(|_| Window {
            start: NOW + 59 * DAY,
            end: NOW + 61 * DAY,
            at: NOW + 60 * DAY,
            url: None,
        }),
        certificate,
        revoked: false,
        obtaining: false,
        on_demand: false,
        next: Some(NOW + 60 * DAY),
        held: None,
        unread: None,
        failures: 0,
        last_failure: None,
        findings: Vec::new(),
    }
}

fn failed(mut managed: Managed, class: FailureClass) -> Managed {
    managed.failures = 3;
    managed.next = Some(NOW + 600);
    managed.last_failure = Some(LastFailure {
        at: NOW - 60,
        issuer: Some("zerossl".into()),
        failure: Failure {
            url: Some("https://ca.example/help".to_owned()),
            ..Failure::new(class, "the CA says no")
        },
    });
    managed
}

/// One of each kind: from a file, issued, wanted, and wanted without an issuer.
fn fake() -> Fake {
    let file = loaded(
        &["file.example", "*.file.example"],
        NOW - DAY,
        NOW + 9 * DAY,
    );
    let issued = loaded(&["issued.example"], NOW - DAY, NOW + 89 * DAY);
    let issued = managed(&["issued.example"], Some(issued));
    let wanted = failed(managed(&["wanted.example"], None), FailureClass::Network);
    let mut file = CertificateView::loaded(&file, NOW);
    file.file = Some("/etc/ssl/file.pem".into());
    Fake {
        views: vec![
            file,
            CertificateView::managed(&issued, NOW),
            CertificateView::managed(&wanted, NOW),
            CertificateView::missing(vec!["orphan.example".to_owned()]),
        ],
        ..Fake::default()
    }
}

fn json((response, body): &(Response, Vec<u8>), status: StatusCode) -> Value {
    assert_eq!(
        response.status(),
        status,
        "{}",
        String::from_utf8_lossy(body)
    );
    serde_json::from_slice(body).expect("JSON")
}

#[test]
fn states_tell_what_matters_most() {
    use CertificateState::*;
    let valid = || Some(loaded(&["a.example"], NOW - DAY, NOW + 90 * DAY));
    let state = |managed: &Managed| CertificateView::managed(managed, NOW).state;
    let names = &["a.example"];
    let with = |change: fn(&mut Managed), certificate| {
        let mut managed = managed(names, certificate);
        change(&mut managed);
        state(&managed)
    };

    assert_eq!(with(|_| {}, valid()), Valid);
    assert_eq!(with(|one| one.next = Some(NOW), valid()), Due);
    assert_eq!(with(|one| one.next = None, valid()), Valid);
    assert_eq!(with(|one| one.obtaining = true, valid()), Obtaining);
    assert_eq!(with(|one| one.obtaining = true, None), Obtaining);
    assert_eq!(with(|one| one.revoked = true, valid()), Revoked);
    assert_eq!(with(|_| {}, None), Missing);
    let failed = |certificate, class| state(&failed(managed(names, certificate), class));
    assert_eq!(failed(None, FailureClass::Network), Failed);
    assert_eq!(failed(valid(), FailureClass::Refused), Failed);
    assert_eq!(failed(valid(), FailureClass::Paused), Paused);

    // What clients see takes precedence over what is done about it.
    let expired = || Some(loaded(names, NOW - 90 * DAY, NOW - 1));
    assert_eq!(with(|one| one.obtaining = true, expired()), Expired);
    assert_eq!(failed(expired(), FailureClass::Paused), Expired);
    let future = loaded(names, NOW + 1, NOW + DAY);
    assert_eq!(with(|_| {}, Some(Arc::clone(&future))), NotYetValid);
    assert_eq!(CertificateView::loaded(&future, NOW).state, NotYetValid);
}

#[tokio::test]
async fn certificates_are_listed_with_all_that_is_known() {
    let (_, state) = admin(fake());
    let list = ask(&state, Method::GET, "/api/v1/certificates", &[]).await;
    let list = json(&list, StatusCode::OK);

    let file = &list[0];
    assert_eq!(file["name"], "file.example");
    assert_eq!(file["names"], json!(["file.example", "*.file.example"]));
    assert_eq!(file["state"], "valid");
    assert_eq!(file["issuer"], "CN=Test CA intermediate");
    assert_eq!(file["not_after"], "2025-09-24T00:00:00Z");
    assert_eq!(file["days_left"], 9);
    assert_eq!(file["key"], "ecdsa");
    assert!(
        file["serial"]
            .as_str()
            .is_some_and(|serial| !serial.is_empty())
    );
    assert_eq!(file["renewal"], Value::Null);
    assert!(file.get("chain").is_none(), "{file}");

    let issued = &list[1];
    assert_eq!(issued["renewal"]["subject"], "issued.example");
    assert_eq!(issued["renewal"]["next"], "2025-11-14T00:00:00Z");
    assert_eq!(issued["renewal"]["obtaining"], false);
    assert_eq!(
        issued["renewal"]["advice"],
        json!({
            "start": "2025-11-13T00:00:00Z",
            "end": "2025-11-15T00:00:00Z",
            "drawn": "2025-11-14T00:00:00Z",
            "url": null,
        })
    );

    let wanted = &list[2];
    assert_eq!(wanted["state"], "failed");
    assert_eq!(wanted["source"], "letsencrypt");
    assert_eq!(wanted["not_after"], Value::Null);
    assert_eq!(
        wanted["renewal"],
        json!({
            "subject": "wanted.example",
            "issuers": ["letsencrypt", "zerossl"],
            "obtaining": false,
            "next": "2025-09-15T00:10:00Z",
            "advice": null,
            "failures": 3,
            "last_failure": {
                "at": "2025-09-14T23:59:00Z",
                "issuer": "zerossl",
                "class": "network",
                "message": "the CA says no",
                "url": "https://ca.example/help",
                "retry_after": null,
            },
        })
    );
    assert_eq!(list[3]["state"], "missing");
    assert_eq!(list[3]["source"], "none");
    // Nothing is lost on the way to the command line.
    let read: Vec<CertificateView> = serde_json::from_value(list.clone()).expect("the same types");
    assert_eq!(serde_json::to_value(&read).expect("JSON"), list);
}

#[tokio::test]
async fn a_certificate_is_found_by_any_name_that_it_covers() {
    let (control, state) = admin(fake());
    let fingerprint = control.views[1].fingerprint.clone().expect("issued");
    for (asked, name) in [
        ("file.example", "file.example"),
        ("FILE.example.", "file.example"),
        ("www.file.example", "file.example"),
        ("*.file.example", "file.example"),
        ("%2A.file.example", "file.example"),
        (fingerprint.as_str(), "issued.example"),
        ("wanted.example", "wanted.example"),
    ] {
        let path = format!("/api/v1/certificates/{asked}");
        let found = json(&ask(&state, Method::GET, &path, &[]).await, StatusCode::OK);
        assert_eq!(found["name"], name, "{asked}");
        let chain = found["fingerprint"]
            .as_str()
            .map(|fingerprint| format!("the chain of {fingerprint}"));
        assert_eq!(
            found.get("chain").map(|chain| chain.as_str()),
            chain.as_deref().map(Some)
        );
    }
    for asked in ["a.b.file.example", "example", "%FF"] {
        let path = format!("/api/v1/certificates/{asked}");
        let missing = ask(&state, Method::GET, &path, &[]).await;
        assert!(missing.0.status().is_client_error(), "{asked}");
        problem(&missing);
    }
}

#[tokio::test]
async fn an_unknown_name_is_told_with_those_like_it() {
    let (_, state) = admin(fake());
    for (method, path) in [
        (Method::GET, "/api/v1/certificates/wonted.example"),
        (Method::POST, "/api/v1/certificates/wonted.example/renew"),
        (Method::POST, "/api/v1/certificates/wonted.example/obtain"),
    ] {
        let missing = ask(&state, method, path, &[]).await;
        assert_eq!(missing.0.status(), StatusCode::NOT_FOUND);
        let problem = problem(&missing);
        assert_eq!(problem["nearest"], json!(["wanted.example"]));
        assert_eq!(
            problem["detail"],
            "there is no certificate for wonted.example; did you mean wanted.example?"
        );
    }
    let path = "/api/v1/certificates/nothing.like.it.test";
    let far = problem(&ask(&state, Method::GET, path, &[]).await);
    assert_eq!(far["nearest"], json!([]));
}

#[tokio::test]
async fn of_several_the_one_that_is_kept_up_is_meant() {
    let stale = loaded(&["issued.example"], NOW - 90 * DAY, NOW - DAY);
    let wildcard = loaded(&["*.example"], NOW - DAY, NOW + 300 * DAY);
    let mut fake = fake();
    fake.views
        .insert(0, CertificateView::loaded(&wildcard, NOW));
    fake.views.insert(0, CertificateView::loaded(&stale, NOW));
    let found = find(&fake.views, "issued.example").expect("found");
    assert!(found.renewal.is_some());
    let other = find(&fake.views, "other.example").expect("found");
    assert_eq!(other.name, "*.example");
}

#[tokio::test]
async fn a_renewal_is_asked_for_at_once_and_obtaining_only_where_needed() {
    let (control, state) = admin(fake());
    let renew = "/api/v1/certificates/issued.example/renew";
    let asked = ask(&state, Method::POST, renew, &[]).await;
    assert_eq!(json(&asked, StatusCode::ACCEPTED)["name"], "issued.example");
    let obtain = "/api/v1/certificates/wanted.example/obtain";
    let asked = ask(&state, Method::POST, obtain, &[]).await;
    assert_eq!(json(&asked, StatusCode::ACCEPTED)["state"], "failed");
    // There is a valid one.
    let needless = "/api/v1/certificates/issued.example/obtain";
    let asked = ask(&state, Method::POST, needless, &[]).await;
    assert_eq!(json(&asked, StatusCode::OK)["state"], "valid");
    assert_eq!(
        *control.renewed.lock().expect("not poisoned"),
        [
            ("issued.example".to_owned(), true),
            ("wanted.example".to_owned(), false)
        ]
    );
    let reading = ask(&state, Method::GET, renew, &[]).await;
    assert_eq!(reading.0.status(), StatusCode::METHOD_NOT_ALLOWED);
    problem(&reading);
}

#[tokio::test]
async fn what_no_issuer_gives_is_not_asked_for() {
    let (control, state) = admin(fake());
    for (name, why) in [
        ("file.example", "/etc/ssl/file.pem"),
        ("orphan.example", "add one under 'issuers'"),
    ] {
        for verb in ["renew", "obtain"] {
            let path = format!("/api/v1/certificates/{name}/{verb}");
            let refused = ask(&state, Method::POST, &path, &[]).await;
            assert_eq!(refused.0.status(), StatusCode::CONFLICT);
            let detail = problem(&refused)["detail"].to_string();
            assert!(detail.contains(why), "{detail}");
        }
    }
    assert!(control.renewed.lock().expect("not poisoned").is_empty());
}

#[tokio::test]
async fn what_the_gateway_refuses_is_passed_on() {
    for (error, status) in [
        (RenewError::Unknown, StatusCode::NOT_FOUND),
        (
            RenewError::Refused("paused".to_owned()),
            StatusCode::CONFLICT,
        ),
        (
            RenewError::Unavailable("stopping".to_owned()),
            StatusCode::SERVICE_UNAVAILABLE,
        ),
    ] {
        let (_, state) = admin(Fake {
            refuses: Some(error),
            ..fake()
        });
        let path = "/api/v1/certificates/issued.example/renew";
        let refused = ask(&state, Method::POST, path, &[]).await;
        assert_eq!(refused.0.status(), status);
        problem(&refused);
    }
}

#[tokio::test]
async fn pages_of_other_sites_renew_nothing() {
    let (control, state) = admin(fake());
    let path = "/api/v1/certificates/issued.example/renew";
    for header in [
        ("origin", "https://evil.example"),
        ("sec-fetch-site", "cross-site"),
        ("host", "evil.example"),
    ] {
        let refused = ask(&state, Method::POST, path, &[header]).await;
        assert_eq!(refused.0.status(), StatusCode::FORBIDDEN, "{header:?}");
    }
    for path in ["/api/v1/events", "/api/v1/certificates/issued.example"] {
        let refused = ask(&state, Method::GET, path, &[("host", "evil.example")]).await;
        assert_eq!(refused.0.status(), StatusCode::FORBIDDEN, "{path}");
    }
    assert!(control.renewed.lock().expect("not poisoned").is_empty());
}

#[tokio::test]
async fn a_name_is_tried_whether_or_not_there_is_a_certificate_for_it() {
    let (_, state) = admin(fake());
    let path = "/api/v1/certificates/new.example/check";
    let tried = json(&ask(&state, Method::POST, path, &[]).await, StatusCode::OK);
    assert_eq!(tried["name"], "new.example");
    assert_eq!(tried["note"], "looked at 80 and 443");
    let ports = format!("{path}?http_port=5002&https_port=5001");
    let tried = ask(&state, Method::POST, &ports, &[]).await;
    let tried = json(&tried, StatusCode::OK);
    assert_eq!(tried["note"], "looked at 5002 and 5001");
    for wrong in [
        "/api/v1/certificates/*/check",
        "/api/v1/certificates/a..b/check",
        "/api/v1/certificates/a.example/check?http_port=x",
        "/api/v1/certificates/a.example/check?https_port=0",
    ] {
        let refused = ask(&state, Method::POST, wrong, &[]).await;
        assert_eq!(refused.0.status(), StatusCode::BAD_REQUEST, "{wrong}");
        problem(&refused);
    }
}
