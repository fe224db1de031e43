//! CAs that say what is right in ways that the RFC does not have.

mod mutations;
mod orders;

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use snigate::printable::is_control;
use snigate::schedule::FailureClass;

use super::fixture::{Fixture, WebSolver, config};
use crate::support::{Ask, CaReply, FakeCa, Features};

/// One member of the answers of a CA, and what stands there instead.
#[derive(Clone, Debug)]
struct Mutation {
    /// Which answer: its kind, and its number among those, or all of them.
    kind: String,
    number: Option<usize>,
    /// The member: a JSON pointer to the object that has it, and its name.
    object: String,
    name: String,
    /// `None` for nothing.
    value: Option<Value>,
}

impl Mutation {
    fn apply(&self, ask: &Ask, mut reply: CaReply) -> CaReply {
        if ask.kind != self.kind || self.number.is_some_and(|number| number != ask.number) {
            return reply;
        }
        let Ok(mut body) = serde_json::from_slice::<Value>(&reply.body) else {
            return reply;
        };
        let object = body.pointer_mut(&self.object);
        if let Some(members) = object.and_then(Value::as_object_mut) {
            match &self.value {
                Some(value) => members.insert(self.name.clone(), value.clone()),
                None => members.remove(&self.name),
            };
        }
        reply.body = body.to_string().into();
        reply
    }

    /// Whether nobody could do without it, of the answers that the mutation is of.
    fn matters(&self) -> bool {
        let one_of = |names: &[&str]| names.contains(&&*self.name);
        match (self.kind.as_str(), self.object.as_str()) {
            ("dir", "") => one_of(&["newNonce", "newAccount", "newOrder"]),
            // The challenge that is answered.
            ("authz", "/challenges/0") => one_of(&["type", "url", "token"]),
            ("authz", "") => self.number.is_none() && one_of(&["challenges"]),
            // Each is in several answers, and one of them is enough.
            ("order" | "orders" | "finalize", "") => {
                self.number.is_none()
                    && one_of(&["status", "authorizations", "finalize", "certificate"])
            }
            _ => false,
        }
    }
}

/// Obtains a certificate for one name from a CA that speaks like this. How many orders that cost,
/// and why there is none.
async fn obtain(
    web: &Arc<WebSolver>,
    mangle: impl Fn(&Ask, CaReply) -> CaReply + Send + Sync + 'static,
) -> (usize, Result<(), String>) {
    let ca = FakeCa::start_mangled(Features::default(), mangle);
    let fixture = Fixture::new(config(ca.directory(), ca.ca_file()), vec![web.clone()]);
    let issued = tokio::time::timeout(Duration::from_secs(60), fixture.issue(&["a.test"])).await;
    let issued = match issued {
        Ok(issued) => issued.map(drop).map_err(|failure| failure.to_string()),
        Err(_) => Err("it takes too long".to_owned()),
    };
    (ca.asked("order").len(), issued)
}

/// Whole answers that come in an odd way.
#[tokio::test(flavor = "multi_thread")]
async fn answers_are_read_whatever_stands_around_them() {
    let web = WebSolver::start();
    type Mangle = fn(&Ask, CaReply) -> CaReply;
    let ways: [(&str, Mangle); 9] = [
        ("byte order marks and zero octets", |_, mut reply| {
            if reply.body.starts_with(b"{") {
                reply.body = [b"\xef\xbb\xbf \n", reply.body.as_slice(), b"\r\n\0"].concat();
            }
            reply
        }),
        ("words before", |_, mut reply| {
            if reply.body.starts_with(b"{") {
                reply.body = [b"Notice: x in y\n", reply.body.as_slice()].concat();
            }
            reply
        }),
        ("an order without a body", |ask, mut reply| {
            if ask.kind == "order" {
                reply.body.clear();
            }
            reply
        }),
        ("an order in the clothes of a page", |ask, mut reply| {
            if ask.kind == "order" {
                reply.body = b"<html>created</html>".into();
            }
            reply
        }),
        ("a request that is taken with a page", |ask, mut reply| {
            if ask.kind == "finalize" {
                reply.body = b"<html>accepted</html>".into();
            }
            reply
        }),
        ("a challenge without a body", |ask, mut reply| {
            if ask.kind == "challenge" {
                reply.body.clear();
            }
            reply
        }),
        ("URLs without a host", |_, mut reply| {
            let text = String::from_utf8_lossy(&reply.body).into_owned();
            let bare = text
                .split("https://127.0.0.1:")
                .map(|part| part.trim_start_matches(|char: char| char.is_ascii_digit()));
            if text.contains("https://127.0.0.1:") {
                reply.body = bare.collect::<String>().into();
            }
            for (name, value) in &mut reply.headers {
                if name == "Location" {
                    let path = value.splitn(4, '/').nth(3).unwrap_or_default();
                    *value = format!("/{path}");
                }
            }
            reply
        }),
        ("Latin-1 around the chain", |ask, mut reply| {
            if ask.kind == "cert" {
                reply.body = [b"d\xe9sol\xe9\r\n", reply.body.as_slice(), b"\xe9"].concat();
            }
            reply
        }),
        (
            "line ends of Windows and none at the end",
            |ask, mut reply| {
                if ask.kind == "cert" {
                    let text = String::from_utf8_lossy(&reply.body).replace('\n', "\r\n");
                    reply.body = text.trim_end().into();
                }
                reply
            },
        ),
    ];
    for (what, mangle) in ways {
        assert_eq!(obtain(&web, mangle).await, (1, Ok(())), "{what}");
    }
}

fn refusal(odd: &Value) -> CaReply {
    let mut problem = json!({
        "type": "urn:ietf:params:acme:error:rejectedIdentifier", "detail": "not this one",
        "status": 400,
    });
    for (name, value) in odd.as_object().unwrap() {
        problem[name] = value.clone();
    }
    CaReply::json(403, &problem)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_words_of_a_ca_reach_people_whatever_stands_beside_them() {
    let web = WebSolver::start();
    for odd in [
        json!({ "subproblems": null }),
        json!({ "subproblems": 17 }),
        json!({ "subproblems": [{ "identifier": "a.test" }, { "identifier": { "value": null } }] }),
        json!({ "instance": 17 }),
        json!({ "status": "400" }),
        json!({ "status": null, "title": [], "instance": {} }),
    ] {
        let answer = refusal(&odd);
        let ca = FakeCa::start(move |ask| (ask.kind == "order").then(|| answer.clone()));
        let fixture = Fixture::new(config(ca.directory(), ca.ca_file()), vec![web.clone()]);
        let failure = fixture.issue(&["a.test"]).await.err().unwrap();
        assert_eq!(failure.class, FailureClass::Refused, "{odd}: {failure}");
        assert!(failure.message.contains("not this one"), "{odd}: {failure}");
        assert!(
            !failure.message.contains("report this as a bug"),
            "{failure}"
        );
    }
    for (answer, class, part) in [
        (
            CaReply::plain(403, "<title>Blocked by example</title>"),
            FailureClass::Network,
            "Blocked by example",
        ),
        (
            CaReply::json(403, &json!({ "message": "Forbidden by us" })),
            FailureClass::Configuration,
            "Forbidden by us",
        ),
        (CaReply::plain(404, ""), FailureClass::Network, "404"),
        (
            CaReply::problem(400, "malformed", "no more than 100 identifiers"),
            FailureClass::Configuration,
            "no more than 100 identifiers",
        ),
        (
            CaReply::plain(301, "").header("Location", "https://new.ca.test/order"),
            FailureClass::Configuration,
            "redirect to https://new.ca.test/order; signed requests",
        ),
        (
            CaReply::plain(302, "").header("Location", "https://sorry.ca.test/"),
            FailureClass::Network,
            "302 Found, a redirect to https://sorry.ca.test/",
        ),
        (
            CaReply::problem(
                403,
                "rejectedIdentifier",
                "a\u{202e}b\u{200b}c\u{2028}d\u{1b}[31m",
            ),
            FailureClass::Refused,
            "a\u{fffd}b\u{fffd}c\u{fffd}d [31m",
        ),
    ] {
        let said = answer.clone();
        let ca = FakeCa::start(move |ask| (ask.kind == "order").then(|| said.clone()));
        let fixture = Fixture::new(config(ca.directory(), ca.ca_file()), vec![web.clone()]);
        let failure = fixture.issue(&["a.test"]).await.err().unwrap();
        assert_eq!(failure.class, class, "{answer:?}: {failure}");
        assert!(failure.message.contains(part), "{part}: {failure}");
        assert!(
            failure.message.chars().all(|char| !is_control(char)),
            "{failure:?}"
        );
        assert!(
            !failure.message.contains("report this as a bug"),
            "{failure}"
        );
    }
}

/// A nonce that is not taken costs nothing, however that is said, and however nonces are given.
#[tokio::test(flavor = "multi_thread")]
async fn nonces_are_taken_as_they_come() {
    let web = WebSolver::start();
    for odd in [
        json!({ "status": 400 }),
        json!({ "subproblems": null }),
        json!({ "status": "400", "detail": null }),
        json!({ "instance": 17, "subproblems": {} }),
    ] {
        for status in [400, 403] {
            let mut problem = odd.clone();
            problem["type"] = json!("urn:ietf:params:acme:error:badNonce");
            for kind in [
                "account",
                "order",
                "authz",
                "challenge",
                "orders",
                "finalize",
                "cert",
            ] {
                let problem = problem.clone();
                let (orders, issued) = obtain(&web, move |ask, reply| {
                    // What the CA did for it is done again.
                    match ask.kind == kind && ask.number == 0 && kind != "order" {
                        true => CaReply::json(status, &problem),
                        false => reply,
                    }
                })
                .await;
                assert_eq!((orders, issued), (1, Ok(())), "{odd} {status} {kind}");
            }
        }
    }
    type Mangle = fn(&Ask, CaReply) -> CaReply;
    let ways: [(&str, Mangle); 4] = [
        ("204", |ask, reply| match ask.kind.as_str() {
            "nonce" => CaReply::plain(204, ""),
            _ => reply,
        }),
        ("202", |ask, reply| match ask.kind.as_str() {
            "nonce" => CaReply::plain(202, ""),
            _ => reply,
        }),
        ("405 to HEAD", |ask, reply| {
            match (&*ask.kind, &*ask.method) {
                ("nonce", "HEAD") => CaReply::plain(405, ""),
                ("nonce", _) => CaReply::plain(204, ""),
                _ => reply,
            }
        }),
        ("elsewhere", |ask, reply| match &*ask.path {
            "/nonce" => CaReply::plain(307, "").header("Location", "/nonce/there"),
            _ => reply,
        }),
    ];
    for (what, mangle) in ways {
        assert_eq!(obtain(&web, mangle).await, (1, Ok(())), "{what}");
        // What we sign ourselves.
        let ca = FakeCa::start_mangled(Features::default(), mangle);
        let mut config = config(ca.directory(), ca.ca_file());
        config.order.lifetime = Some(Duration::from_secs(7 * 86_400));
        let fixture = Fixture::new(config, vec![web.clone()]);
        fixture.issue(&["a.test"]).await.unwrap();
        assert_eq!(ca.asked("order").len(), 1, "{what}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_that_has_moved_is_followed_or_named() {
    let web = WebSolver::start();
    let (orders, issued) = obtain(&web, |ask, reply| match &*ask.path {
        "/dir" => CaReply::plain(301, "").header("Location", "/dir/new"),
        _ => reply,
    })
    .await;
    assert_eq!((orders, issued), (1, Ok(())));
    for (place, part) in [
        ("http://ca.test/dir", "a redirect to http://ca.test/dir"),
        ("/dir", "a redirect to"),
    ] {
        let (_, issued) = obtain(&web, move |ask, reply| match &*ask.path {
            "/dir" => CaReply::plain(301, "").header("Location", place),
            _ => reply,
        })
        .await;
        let why = issued.unwrap_err();
        assert!(why.contains(part) && why.contains("'directory'"), "{why}");
        assert!(!why.contains("EOF"), "{why}");
    }
}
