//! Actions of people on certificates and accounts.

use super::*;
use crate::schedule::{Failure, FailureClass};

fn issued() -> CertificateView {
    CertificateView {
        fingerprint: Some("ab".repeat(32)),
        state: CertificateState::Valid,
        ..CertificateView::missing(vec!["a.test".to_owned()])
    }
}

async fn post(state: &AdminState, path: &str, body: &'static str) -> (Response, Vec<u8>) {
    ask_with(state, Method::POST, path, &[], Body::from(body)).await
}

#[tokio::test]
async fn a_certificate_is_revoked_for_a_reason() {
    let (fake, state) = admin(Fake {
        views: vec![issued()],
        ..Fake::default()
    });
    let path = "/api/v1/certificates/a.test/revoke";
    let (response, body) = post(&state, path, r#"{"reason":"keyCompromise"}"#).await;
    assert_eq!(response.status(), StatusCode::ACCEPTED);
    let view: CertificateView = serde_json::from_slice(&body).expect("a view");
    assert_eq!(view.name, "a.test");
    assert_eq!(
        post(&state, path, "").await.0.status(),
        StatusCode::ACCEPTED
    );
    assert_eq!(
        *fake.revoked.lock().expect("not poisoned"),
        [
            ("ab".repeat(32), RevocationReason::KeyCompromise),
            ("ab".repeat(32), RevocationReason::Unspecified),
        ]
    );
    for (path, body, status, words) in [
        (path, r#"{"reason":"lost"}"#, 400, "keyCompromise"),
        (path, r#"{"because":"lost"}"#, 400, "because"),
        (path, "reason=1", 400, "send JSON"),
        (
            "/api/v1/certificates/b.test/revoke",
            "",
            404,
            "did you mean a.test",
        ),
    ] {
        let answer = post(&state, path, body).await;
        assert_eq!(answer.0.status().as_u16(), status, "{body}");
        let detail = problem(&answer)["detail"].to_string();
        assert!(detail.contains(words), "{detail}");
    }
    assert_eq!(fake.revoked.lock().expect("not poisoned").len(), 2);
}

#[tokio::test]
async fn what_is_not_revoked_is_explained() {
    let failure = |class| ActionError::Failed(Failure::new(class, "the CA says no"));
    for (error, status) in [
        (ActionError::Refused("the CA says no".to_owned()), 409),
        (failure(FailureClass::Configuration), 409),
        (failure(FailureClass::Network), 502),
        (failure(FailureClass::RateLimited), 429),
        (failure(FailureClass::Storage), 503),
    ] {
        let (_, state) = admin(Fake {
            views: vec![issued()],
            not_done: Some(error),
            ..Fake::default()
        });
        for path in [
            "/api/v1/certificates/a.test/revoke",
            "/api/v1/issuers/ca/account/rollover",
        ] {
            let answer = post(&state, path, "").await;
            assert_eq!(answer.0.status().as_u16(), status);
            assert_eq!(problem(&answer)["detail"], "the CA says no");
        }
    }
    let (_, state) = admin(Fake {
        views: vec![CertificateView::missing(vec!["a.test".to_owned()])],
        ..Fake::default()
    });
    let answer = post(&state, "/api/v1/certificates/a.test/revoke", "").await;
    assert_eq!(answer.0.status(), StatusCode::CONFLICT);
}

#[tokio::test]
async fn accounts_are_looked_after() {
    let (fake, state) = admin(Fake::default());
    let (response, body) = ask(&state, Method::GET, "/api/v1/issuers", &[]).await;
    assert_eq!(response.status(), StatusCode::OK);
    let issuers: Vec<IssuerView> = serde_json::from_slice(&body).expect("issuers");
    assert_eq!(issuers[0].name, "ca");

    let path = "/api/v1/issuers/ca/account";
    let (response, body) = ask(&state, Method::GET, path, &[]).await;
    assert_eq!(response.status(), StatusCode::OK);
    let view: Value = serde_json::from_slice(&body).expect("JSON");
    assert_eq!(view["issuer"], "ca");
    assert_eq!(view["url"], "https://ca.test/account/1");
    for (task, body) in [
        ("create", ""),
        ("rollover", ""),
        ("contact", r#"{"email":["a@b.test"]}"#),
        ("deactivate", ""),
    ] {
        let answer = post(&state, &format!("{path}/{task}"), body).await;
        assert_eq!(answer.0.status(), StatusCode::OK, "{task}");
    }
    let cared: Vec<_> = {
        let cared = fake.cared.lock().expect("not poisoned");
        cared.iter().map(|(_, task)| task.clone()).collect()
    };
    let email = vec!["a@b.test".to_owned()];
    assert_eq!(
        cared,
        [
            AccountTask::Show,
            AccountTask::Create,
            AccountTask::Rollover,
            AccountTask::Contact(email),
            AccountTask::Deactivate,
        ]
    );
    for (task, body, status) in [
        ("contact", "", 400),
        ("contact", r#"{"email":["nobody"]}"#, 400),
        ("explode", "", 404),
    ] {
        let answer = post(&state, &format!("{path}/{task}"), body).await;
        assert_eq!(answer.0.status().as_u16(), status, "{task}");
        problem(&answer);
    }
}

#[tokio::test]
async fn what_merely_covers_a_name_is_not_revoked_for_it() {
    let mut wildcard = issued();
    wildcard.name = "*.a.test".to_owned();
    wildcard.names = vec![wildcard.name.clone(), "b.test".to_owned()];
    let (fake, state) = admin(Fake {
        views: vec![wildcard],
        ..Fake::default()
    });
    let answer = post(&state, "/api/v1/certificates/typo.a.test/revoke", "").await;
    assert_eq!(answer.0.status(), StatusCode::CONFLICT);
    let detail = problem(&answer)["detail"].to_string();
    assert!(detail.contains("`*.a.test` covers it"), "{detail}");
    assert!(fake.revoked.lock().expect("not poisoned").is_empty());
    for name in ["*.A.test", "b.test", &"AB".repeat(32)] {
        let answer = post(&state, &format!("/api/v1/certificates/{name}/revoke"), "").await;
        assert_eq!(answer.0.status(), StatusCode::ACCEPTED, "{name}");
    }
}

#[tokio::test]
async fn what_cannot_be_read_is_a_problem() {
    let (_, state) = admin(Fake {
        views: vec![issued()],
        ..Fake::default()
    });
    for path in [
        "/api/v1/issuers/%ff/account/create",
        "/api/v1/certificates/%ff/revoke",
    ] {
        let answer = post(&state, path, "").await;
        assert_eq!(answer.0.status(), StatusCode::BAD_REQUEST, "{path}");
        problem(&answer);
    }
    // Its length is not announced.
    let chunks = (0..66).map(|_| Ok::<_, std::io::Error>(vec![b' '; 1024]));
    let body = Body::from_stream(futures::stream::iter(chunks));
    let path = "/api/v1/certificates/a.test/revoke";
    let answer = ask_with(&state, Method::POST, path, &[], body).await;
    assert_eq!(answer.0.status(), StatusCode::PAYLOAD_TOO_LARGE);
    problem(&answer);
}
