//! Tokens: which requests are served with one, and where their keys come from.

mod key_servers;

use std::fs;

use serde_json::json;

use super::{VERSIONS, all, over, refused, wait_for_line};
use crate::support::{
    Act, Builder, CurlReply, Gateway, Origin, TlsClient, TokenSigner, base64url, read_head,
    serving, unix_time, wait_for,
};

/// A gateway whose site needs tokens as `keys` say, with routes of every kind.
fn guarded(app: &Origin, keys: &str) -> Builder {
    let builder = serving(&[&["a.test"]], config(app, keys));
    fs::write(builder.dir().join("file.txt"), "file").expect("a file");
    builder
}

fn write_keys(builder: &Builder, text: &str) {
    fs::write(builder.dir().join("keys.json"), text).expect("a file");
}

fn config(app: &Origin, keys: &str) -> String {
    format!(
        "upstreams: {{ app: {{ servers: [\"{}\"] }} }}\n\
         sites:\n\
         - hosts: [a.test]\n  \
           jwt: {{ {keys} }}\n  \
           routes:\n  \
           - {{ upstream: app, request_headers: {{ set: {{ X-User: \"{{user}}\", X-Role: \"{{claim:role}}\" }} }} }}\n  \
           - {{ path: /own, respond: {{ body: own }} }}\n  \
           - {{ path: /files, files: {{ root: . }}, strip_prefix: true }}\n  \
           - {{ path: /away, redirect: {{ to: \"https://b.test/{{claim:role}}\" }} }}\n  \
           - {{ path: /open, jwt: off, respond: {{ body: open }} }}\n\
         log: {{ access: access.log }}\n",
        app.address(),
    )
}

const PATHS: [(&str, u16); 4] = [
    ("/", 200),
    ("/own", 200),
    ("/files/file.txt", 200),
    ("/away", 302),
];

/// A request with this token.
fn with_token(gateway: &Gateway, version: &str, path: &str, token: &str) -> CurlReply {
    let field = format!("Authorization: Bearer {token}");
    let asked = over(version, gateway, "a.test", path);
    asked.args(["--header", &*field]).send()
}

fn status(gateway: &Gateway, token: &str) -> u16 {
    with_token(gateway, "2", "/", token).status
}

#[test]
fn requests_with_a_token_are_served() {
    let (app, signer) = (Origin::named("app"), TokenSigner::new("a"));
    let builder = guarded(&app, "keys_file: keys.json, audience: api");
    write_keys(&builder, &signer.set());
    let gateway = builder.start();
    let token = signer.token(&json!({ "sub": "ann", "aud": "api", "role": "a/b" }));
    for version in VERSIONS {
        for (path, status) in PATHS {
            let reply = with_token(&gateway, version, path, &token);
            assert_eq!(reply.status, status, "{version} {path}");
            if path == "/away" {
                assert_eq!(reply.header("location"), Some("https://b.test/a%2Fb"));
            }
            let refused = over(version, &gateway, "a.test", path).send();
            assert_eq!(refused.status, 401, "{version} {path}");
            assert_eq!(
                refused.header("www-authenticate"),
                Some("Bearer realm=\"Restricted\"")
            );
        }
        assert_eq!(
            over(version, &gateway, "a.test", "/open").send().status,
            200
        );
        let lying = over(version, &gateway, "a.test", "/lying").args([
            "--header",
            &format!("authorization: bearer {token}"),
            "--header",
            "X-User: root",
            "--header",
            "x-role: admin",
            "--data",
            "body",
        ]);
        assert_eq!(lying.send().status, 200);
        // Credentials of another kind are no token.
        let basic = over(version, &gateway, "a.test", "/").args(["--user", "ann:hunter2"]);
        let basic = basic.send();
        assert_eq!(basic.status, 401);
        assert_eq!(
            basic.header("www-authenticate"),
            Some("Bearer realm=\"Restricted\"")
        );
        let call = over(version, &gateway, "a.test", "/");
        let call = call.args(["--header", "Content-Type: application/grpc", "--data", "x"]);
        let call = call.send();
        assert_eq!((call.status, call.header("grpc-status")), (200, Some("16")));
    }
    assert_eq!(app.requests().len(), 4);
    for request in app.requests() {
        assert_eq!(all(&request.head, "x-user"), ["ann"], "{}", request.head);
        assert_eq!(all(&request.head, "x-role"), ["a/b"], "{}", request.head);
        assert!(request.header("authorization").is_some());
    }
    wait_for_line(&gateway, " - ann [");
    wait_for_line(&gateway, " refused=jwt");
    assert_eq!(refused(&gateway, "jwt"), 12.0);
    // What the token does not say is not what the client says.
    let token = signer.token(&json!({ "sub": "bob", "aud": "api", "role": ["admin"] }));
    let lying = over("2", &gateway, "a.test", "/").args([
        "--header",
        &format!("Authorization: Bearer {token}"),
        "--header",
        "X-Role: admin",
    ]);
    assert_eq!(lying.send().status, 200);
    let last = app.requests().pop().expect("a request");
    assert_eq!(all(&last.head, "x-role"), [""; 0], "{}", last.head);
    // Nor what must not stand in a field.
    let token = signer.token(&json!({ "sub": "b\r\nX-Admin: 1", "aud": "api" }));
    let count = app.requests().len();
    assert_eq!(status(&gateway, &token), 400);
    assert_eq!(app.requests().len(), count);
}

#[test]
fn forged_tokens_are_refused() {
    let (app, signer) = (Origin::named("app"), TokenSigner::new("a"));
    let builder = guarded(
        &app,
        "keys_file: keys.json, issuer: \"https://login.test\", audience: [api, web]",
    );
    write_keys(&builder, &signer.set());
    let gateway = builder.start();
    let claims = json!({ "sub": "ann", "iss": "https://login.test", "aud": "web" });
    let with = |name: &str, value: serde_json::Value| {
        let mut claims = claims.clone();
        claims[name] = value;
        signer.token(&claims)
    };
    let good = signer.token(&claims);
    let (signed, signature) = good.rsplit_once('.').expect("three parts");
    let (header, _) = signed.split_once('.').expect("three parts");
    let root = base64url(br#"{"sub":"root","exp":4000000000}"#);
    let refusals = [
        (TokenSigner::new("a").token(&claims), "signature"),
        (TokenSigner::new("b").token(&claims), "unknown key"),
        (signer.unsigned(&claims), "malformed"),
        (format!("{}AA", signer.unsigned(&claims)), "signed in a way"),
        (signer.with_public_key_as_secret(&claims), "signed in a way"),
        (
            signer.with_header(r#"{"alg":"EdDSA","kid":"a","crit":["x"],"x":1}"#, &claims),
            "extensions",
        ),
        (
            signer.with_header(r#"{"alg":"EdDSA","kid":"a","kid":"a"}"#, &claims),
            "malformed",
        ),
        (format!("{header}.{root}.{signature}"), "signature"),
        (format!("{signed}."), "malformed"),
        (signed.to_owned(), "malformed"),
        ("x".repeat(9000), "too long"),
        ("token".to_owned(), "malformed"),
        (with("exp", json!(1_000_000_000)), "has expired"),
        (with("exp", json!(null)), "malformed"),
        (with("nbf", json!(4_000_000_000_i64)), "not valid yet"),
        (with("iss", json!("https://evil.test")), "another issuer"),
        (with("aud", json!(["other"])), "another audience"),
    ];
    for version in VERSIONS {
        for (token, why) in &refusals {
            let reply = with_token(&gateway, version, "/", token);
            assert_eq!(reply.status, 401, "{version} {why} {token}");
            let challenge = reply.header("www-authenticate").unwrap_or_default();
            let begin = "Bearer realm=\"Restricted\", error=\"invalid_token\", error_description=";
            assert!(
                challenge.starts_with(begin) && challenge.contains(why),
                "{why}: {challenge}"
            );
        }
        // A server might read the other one.
        let field = format!("Authorization: Bearer {good}");
        let two = over(version, &gateway, "a.test", "/");
        let two = two.args(["--header", &*field, "--header", "authorization: Bearer x"]);
        assert_eq!(two.send().status, 401);
        // A verified token is cached, and nothing that resembles it.
        assert_eq!(with_token(&gateway, version, "/", &good).status, 200);
        assert_eq!(
            with_token(&gateway, version, "/", &format!("{good}A")).status,
            401
        );
    }
    assert_eq!(app.requests().len(), 2);
}

#[test]
fn a_token_that_expires_is_no_longer_remembered() {
    let (app, signer) = (Origin::named("app"), TokenSigner::new("a"));
    let builder = guarded(&app, "keys_file: keys.json, clock_skew: 0s");
    write_keys(&builder, &signer.set());
    let gateway = builder.start();
    let token = signer.token(&json!({ "sub": "ann", "exp": unix_time() + 3 }));
    assert_eq!(status(&gateway, &token), 200);
    wait_for("the token to expire", || {
        (status(&gateway, &token) == 401).then_some(())
    });
}

#[test]
fn tokens_have_to_say_what_is_demanded() {
    let (app, signer) = (Origin::named("app"), TokenSigner::new("a"));
    let keys = "keys_file: keys.json, claims: { role: [admin, ops], scope: write, level: 3 }";
    let builder = guarded(&app, keys);
    write_keys(&builder, &signer.set());
    let gateway = builder.start();
    let scope = "read write";
    for version in VERSIONS {
        for (claims, expected) in [
            (json!({ "role": "ops", "scope": scope, "level": 3 }), 200),
            (
                json!({ "role": ["x", "admin"], "scope": scope, "level": 3 }),
                200,
            ),
            (json!({ "role": "guest", "scope": scope, "level": 3 }), 403),
            (json!({ "role": "ops", "scope": "read", "level": 3 }), 403),
            (json!({ "role": "ops", "scope": scope, "level": 4 }), 403),
            (json!({}), 403),
        ] {
            let reply = with_token(&gateway, version, "/", &signer.token(&claims));
            assert_eq!(reply.status, expected, "{version} {claims}");
            if expected == 403 {
                let challenge = reply.header("www-authenticate").unwrap_or_default();
                assert!(
                    challenge.contains("error=\"insufficient_scope\""),
                    "{challenge}"
                );
            }
        }
    }
    wait_for_line(&gateway, " refused=jwt");
}

#[test]
fn tokens_are_found_where_clients_send_them() {
    let (app, signer) = (Origin::named("app"), TokenSigner::new("a"));
    let token = signer.token(&json!({ "sub": "ann" }));
    for (place, fields, expected) in [
        (
            "cookie: session",
            vec![format!("Cookie: a=b; session={token}")],
            200,
        ),
        (
            "cookie: session",
            vec![format!("Cookie: session={token}; session=x")],
            401,
        ),
        (
            "cookie: session",
            vec![format!("Cookie: Session={token}")],
            401,
        ),
        (
            "cookie: session",
            vec![format!("Authorization: Bearer {token}")],
            401,
        ),
        ("header: X-Token", vec![format!("x-token: {token}")], 200),
        (
            "header: X-Token",
            vec![format!("X-Token: Bearer {token}")],
            200,
        ),
        (
            "header: X-Token",
            vec![format!("Authorization: Bearer {token}")],
            401,
        ),
        (
            "header: X-Token",
            vec![format!("X-Token: {token}"), format!("X-Token: {token}")],
            401,
        ),
    ] {
        let builder = guarded(&app, &format!("keys_file: keys.json, {place}"));
        write_keys(&builder, &signer.set());
        let gateway = builder.start();
        for version in VERSIONS {
            let mut asked = over(version, &gateway, "a.test", "/");
            for field in &fields {
                asked = asked.args(["--header", &**field]);
            }
            assert_eq!(
                asked.send().status,
                expected,
                "{version} {place} {fields:?}"
            );
        }
    }
}

#[test]
fn keys_change_with_their_file() {
    let (app, old, new) = (
        Origin::named("app"),
        TokenSigner::new("a"),
        TokenSigner::new("a"),
    );
    let builder = guarded(&app, "keys_file: keys.json");
    write_keys(&builder, &old.set());
    let gateway = builder.start();
    let (of_old, of_new) = (old.token(&json!({})), new.token(&json!({})));
    assert_eq!(
        (status(&gateway, &of_old), status(&gateway, &of_new)),
        (200, 401)
    );
    gateway.write("keys.json", &new.pem());
    wait_for("the new key", || {
        (status(&gateway, &of_new) == 200).then_some(())
    });
    assert_eq!(status(&gateway, &of_old), 401, "remembered with its key");
    // A file with a mistake changes nothing.
    gateway.write("keys.json", "{ \"keys\": [] }");
    wait_for("a complaint", || {
        gateway.log().contains("has no public key").then_some(())
    });
    assert_eq!(status(&gateway, &of_new), 200);
}

#[test]
fn websockets_are_opened_with_a_token() {
    let app = Origin::start(|_| {
        vec![
            Act::send(
                "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
            ),
            Act::Silence,
        ]
    });
    let signer = TokenSigner::new("a");
    let builder = guarded(&app, "keys_file: keys.json, cookie: session");
    write_keys(&builder, &signer.set());
    let gateway = builder.start();
    let token = signer.token(&json!({ "sub": "ann" }));
    for (cookie, begin) in [(&*token, "HTTP/1.1 101"), ("x", "HTTP/1.1 401")] {
        let mut client = TlsClient::named("a.test").connect(gateway.https);
        let request = format!(
            "GET /ws HTTP/1.1\r\nHost: a.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Cookie: session={cookie}\r\n\r\n"
        );
        std::io::Write::write_all(&mut client, request.as_bytes()).expect("taken");
        let head = read_head(&mut client).expect("a head").expect("a response");
        let head = String::from_utf8(head).expect("text");
        assert!(head.starts_with(begin), "{head}");
    }
    let got = &app.wait_for_requests(1)[0];
    assert_eq!(all(&got.head, "x-user"), ["ann"]);
}
