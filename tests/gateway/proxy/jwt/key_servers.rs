//! Servers that publish keys: they rotate them, lie, are silent, and die.

use std::fs;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;

use super::{config, guarded, status, with_token};
use crate::proxy::{VERSIONS, over, refused, wait_for_line};
use crate::support::{Act, Ca, Gateway, Origin, TlsOrigin, TokenSigner, key_set, wait_for};

/// A server that does what it is set to do, each time it is asked.
struct Keys {
    server: Origin,
    acts: Arc<Mutex<Vec<Act>>>,
}

impl Keys {
    fn new(acts: Vec<Act>) -> Self {
        let acts = Arc::new(Mutex::new(acts));
        let shared = Arc::clone(&acts);
        let server = Origin::start(move |_| shared.lock().expect("not poisoned").clone());
        Self { server, acts }
    }

    fn of(signers: &[&TokenSigner]) -> Self {
        Self::new(published(signers))
    }

    fn set(&self, acts: Vec<Act>) {
        *self.acts.lock().expect("not poisoned") = acts;
    }

    fn url(&self) -> String {
        format!("jwks_url: \"http://{}/keys\"", self.server.address())
    }

    fn fetches(&self) -> usize {
        self.server.requests().len()
    }
}

fn published(signers: &[&TokenSigner]) -> Vec<Act> {
    vec![Act::respond(200, key_set(signers))]
}

fn fetched(gateway: &Gateway, keys: &Keys, result: &str) -> f64 {
    let server = keys.server.address();
    let metric = format!("snigate_jwks_fetches_total{{result=\"{result}\",server=\"{server}\"}}");
    gateway.metric(&metric).unwrap_or_default()
}

#[test]
fn keys_are_fetched_again_when_a_token_has_a_new_one() {
    let (app, first, second) = (
        Origin::named("app"),
        TokenSigner::new("1"),
        TokenSigner::new("2"),
    );
    let keys = Keys::of(&[&first]);
    let begun = Instant::now();
    let gateway = guarded(&app, &keys.url()).start();
    // One more if the configuration is loaded again before there are keys.
    let most = || 2 + usize::try_from(begun.elapsed().as_secs() / 10).expect("a few");
    let (of_first, of_second) = (first.token(&json!({})), second.token(&json!({})));
    for version in VERSIONS {
        assert_eq!(with_token(&gateway, version, "/", &of_first).status, 200);
        assert_eq!(with_token(&gateway, version, "/", &of_second).status, 401);
    }
    assert!((1..=most()).contains(&keys.fetches()), "{}", keys.fetches());
    let request = &keys.server.requests()[0];
    assert_eq!(request.line(), "GET /keys HTTP/1.1");
    keys.set(published(&[&second]));
    // Not for each such token: whoever makes them up does not cause fetches.
    wait_for("the new key", || {
        (status(&gateway, &of_second) == 200).then_some(())
    });
    assert!((2..=most()).contains(&keys.fetches()), "{}", keys.fetches());
    assert_eq!(status(&gateway, &of_first), 401, "its key is gone");
    assert!(fetched(&gateway, &keys, "ok") >= 2.0);
}

#[test]
fn keys_are_fetched_periodically() {
    let (app, first, second) = (
        Origin::named("app"),
        TokenSigner::new("1"),
        TokenSigner::new("2"),
    );
    let keys = Keys::of(&[&first]);
    let gateway = guarded(&app, &format!("{}, refresh: 1s", keys.url())).start();
    let of_first = first.token(&json!({}));
    assert_eq!(status(&gateway, &of_first), 200);
    keys.set(published(&[&second]));
    wait_for("the end of the old key", || {
        (status(&gateway, &of_first) == 401).then_some(())
    });
    assert_eq!(status(&gateway, &second.token(&json!({}))), 200);
}

#[test]
fn known_keys_stay_in_use_whatever_their_server_does() {
    let (app, signer, other) = (
        Origin::named("app"),
        TokenSigner::new("1"),
        TokenSigner::new("2"),
    );
    let keys = Keys::of(&[&signer]);
    let gateway = guarded(&app, &format!("{}, refresh: 1s", keys.url())).start();
    let (good, foreign) = (signer.token(&json!({})), other.token(&json!({})));
    assert_eq!(status(&gateway, &good), 200);
    let send = |text: &str| vec![Act::send(text), Act::Close];
    for (what, acts) in [
        ("an error", vec![Act::respond(500, key_set(&[&other]))]),
        (
            "a redirect",
            send("HTTP/1.1 302 Found\r\nLocation: /x\r\nContent-Length: 0\r\n\r\n"),
        ),
        (
            "another text",
            vec![Act::respond(200, "<html>log in</html>")],
        ),
        (
            "a private key",
            vec![Act::respond(200, r#"{"keys":[{"kty":"OKP","d":"AAAA"}]}"#)],
        ),
        ("too much", vec![Act::respond(200, "x".repeat(300 * 1024))]),
        (
            "a part",
            send("HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{\"keys\":["),
        ),
        ("no HTTP", send("keys\r\n\r\n")),
        ("a reset", vec![Act::Reset]),
        ("silence", vec![Act::Silence]),
    ] {
        keys.set(acts);
        let (begun, failed) = (keys.fetches(), fetched(&gateway, &keys, "failed"));
        wait_for(what, || {
            // Clients do not wait for the server, and cause no more fetches than there are anyway.
            assert_eq!(status(&gateway, &good), 200, "{what}");
            (fetched(&gateway, &keys, "failed") > failed).then_some(())
        });
        assert!(keys.fetches() > begun, "{what}");
        assert_eq!(status(&gateway, &foreign), 401, "{what}");
    }
    let complaints = gateway.log().matches("cannot fetch the JWKS").count();
    assert!((1..=4).contains(&complaints), "{complaints}");
    // A new configuration knows the keys of the old one.
    let text = config(
        &app,
        &format!("{}, refresh: 2s, clock_skew: 1s", keys.url()),
    );
    let file = gateway.dir().join("snigate.yaml");
    let before = fs::read_to_string(&file).expect("a configuration");
    let begin = before.find("upstreams:").expect("the own part");
    let changed = before[begin..].replace("respond: { body: own }", "respond: { body: new }");
    assert!(text.contains("body: own") && changed.contains("body: new"));
    gateway.write("snigate.yaml", &format!("{}{changed}", &before[..begin]));
    wait_for("the new configuration", || {
        let reply = with_token(&gateway, "2", "/own", &good);
        assert_eq!(reply.status, 200);
        (reply.text() == "new").then_some(())
    });
    keys.set(published(&[&other]));
    wait_for("the other key", || {
        (status(&gateway, &foreign) == 200).then_some(())
    });
}

#[test]
fn keys_without_ids_are_fetched_again_when_they_change() {
    let (app, first, second) = (
        Origin::named("app"),
        TokenSigner::new("1"),
        TokenSigner::new("1"),
    );
    let anonymous = |signer: &TokenSigner| {
        let set = signer.set().replace("\"kid\":\"1\",", "");
        assert!(!set.contains("kid"), "{set}");
        vec![Act::respond(200, set)]
    };
    let keys = Keys::new(anonymous(&first));
    let gateway = guarded(&app, &keys.url()).start();
    let token = |signer: &TokenSigner| signer.with_header(r#"{"alg":"EdDSA"}"#, &json!({}));
    assert_eq!(status(&gateway, &token(&first)), 200);
    keys.set(anonymous(&second));
    wait_for("the new key", || {
        (status(&gateway, &token(&second)) == 200).then_some(())
    });
    assert_eq!(status(&gateway, &token(&first)), 401, "its key is gone");
}

#[test]
fn an_issuer_can_withdraw_all_keys() {
    let (app, signer) = (Origin::named("app"), TokenSigner::new("1"));
    for nothing in [r#"{"keys":[]}"#, r#"{"keys":[{"kty":"oct","k":"AAAA"}]}"#] {
        let keys = Keys::of(&[&signer]);
        let gateway = guarded(&app, &format!("{}, refresh: 1s", keys.url())).start();
        let token = signer.token(&json!({}));
        assert_eq!(status(&gateway, &token), 200);
        keys.set(vec![Act::respond(200, nothing)]);
        wait_for("the end of the key", || {
            (status(&gateway, &token) == 401).then_some(())
        });
        gateway.wait_for_log("all tokens are refused");
        keys.set(published(&[&signer]));
        wait_for("the key again", || {
            (status(&gateway, &token) == 200).then_some(())
        });
    }
}

#[test]
fn without_keys_nobody_is_served() {
    let (app, signer) = (Origin::named("app"), TokenSigner::new("1"));
    let keys = Keys::new(vec![Act::Silence]);
    let gateway = guarded(&app, &keys.url()).start();
    let token = signer.token(&json!({}));
    for version in VERSIONS {
        let begun = Instant::now();
        let reply = with_token(&gateway, version, "/", &token);
        assert_eq!(reply.status, 503, "{}", reply.text());
        assert_eq!(reply.header("www-authenticate"), None);
        assert!(begun.elapsed() < Duration::from_secs(8));
        // It makes no difference to those without a token, nor to what needs none.
        assert_eq!(over(version, &gateway, "a.test", "/").send().status, 401);
        assert_eq!(
            over(version, &gateway, "a.test", "/open").send().status,
            200
        );
    }
    wait_for_line(&gateway, " refused=jwt_keys");
    assert!(refused(&gateway, "jwt_keys") >= 2.0);
    keys.set(published(&[&signer]));
    wait_for("the keys", || {
        (status(&gateway, &token) == 200).then_some(())
    });
}

#[test]
fn requests_that_wait_for_keys_cause_one_fetch() {
    let (app, signer) = (Origin::named("app"), TokenSigner::new("1"));
    let keys = Keys::new(vec![Act::Hold, Act::respond(200, key_set(&[&signer]))]);
    let gateway = guarded(&app, &keys.url()).start();
    let token = signer.token(&json!({}));
    thread::scope(|scope| {
        let waiting: Vec<_> = (0..8)
            .map(|_| scope.spawn(|| status(&gateway, &token)))
            .collect();
        keys.server.wait_for_requests(1);
        assert_eq!(over("2", &gateway, "a.test", "/open").send().status, 200);
        keys.server.release();
        for one in waiting {
            assert_eq!(one.join().expect("no panic"), 200);
        }
    });
    // One more if the configuration is loaded again before there are keys.
    assert!((1..=2).contains(&keys.fetches()), "{}", keys.fetches());
}

#[test]
fn a_server_of_keys_is_trusted_by_its_roots() {
    let app = Origin::named("app");
    let (ca, other) = (Ca::new("Keys"), Ca::new("Others"));
    let server = TlsOrigin::start(&ca.leaf(&["localhost"]).make());
    let directory = tempfile::tempdir().expect("a directory");
    let foreign = other.write(directory.path());
    let url = format!(
        "jwks_url: \"https://localhost:{}/\"",
        server.address().port()
    );
    let keys = format!("{url}, ca_file: {}", foreign.display());
    let gateway = guarded(&app, &keys).start();
    wait_for("the reason in the log", || {
        gateway
            .log()
            .contains("certificate verify failed")
            .then_some(())
    });
    assert_eq!(
        status(&gateway, &TokenSigner::new("1").token(&json!({}))),
        503
    );
}
