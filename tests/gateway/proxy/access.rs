//! Who may have what is served: by address, and by name and password.

use std::fs;
use std::thread;
use std::time::Instant;

use super::{VERSIONS, over, wait_for_line};
use crate::support::{Builder, Gateway, Origin, serving, wait_for};

/// The password is `hunter2`.
const ANN: &str = "ann:$2b$04$abcdefghijklmnopqrstuuV3duMsC0HpUex6N9qapiuOHHWkwRXVm\n";
const BOB: &str = "bob:$6$rounds=1400$anotherlongsalts$BSfHT/edpI8onOAkOczVvSheRSAUDmhNWTFYNeb1mzPKsHGbhB\
                   ZglmaUJUtPZncC4BNNYP4AjXmKR/ArAcOiv.\n";

/// A gateway whose site has these keys, and routes of every kind.
fn guarded(origin: &Origin, site: &str) -> Builder {
    let builder = serving(&[&["a.test"]], config(origin, site));
    fs::write(
        builder.dir().join("users"),
        format!("# users\n\n{ANN}{BOB}"),
    )
    .expect("a file");
    fs::write(builder.dir().join("file.txt"), "file").expect("a file");
    builder
}

fn config(origin: &Origin, site: &str) -> String {
    format!(
        "upstreams: {{ app: {{ servers: [\"{}\"] }} }}\n\
         sites:\n\
         - hosts: [a.test]\n  \
           {site}\n  \
           routes:\n  \
           - {{ upstream: app, request_headers: {{ set: {{ X-User: \"{{user}}\" }} }} }}\n  \
           - {{ path: /own, respond: {{ body: own }} }}\n  \
           - {{ path: /files, files: {{ root: . }}, strip_prefix: true }}\n  \
           - {{ path: /away, redirect: {{ to: \"https://b.test{{path}}\" }} }}\n  \
           - {{ path: /open, allow: [], deny: [], basic_auth: off, respond: {{ body: open }} }}\n\
         log: {{ access: access.log }}\n",
        origin.address(),
    )
}

const PATHS: [&str; 4] = ["/", "/own", "/files/file.txt", "/away"];

fn status(gateway: &Gateway, version: &str, path: &str, user: &str) -> u16 {
    let asked = over(version, gateway, "a.test", path);
    match user {
        "" => asked.send().status,
        user => asked.args(["--user", user]).send().status,
    }
}

#[test]
fn clients_are_served_by_their_address() {
    let origin = Origin::named("app");
    for (keys, is_served) in [
        ("allow: [\"127.0.0.0/8\"]", true),
        ("allow: [\"10.0.0.0/8\", \"::1\"]", false),
        ("deny: [\"127.0.0.1\"]", false),
        ("deny: [\"10.0.0.0/8\"]", true),
        ("{ allow: [\"127.0.0.0/8\"], deny: [\"127.0.0.1\"] }", false),
    ] {
        let keys = keys
            .trim_matches(['{', '}', ' '])
            .replace(", deny", "\n  deny");
        let gateway = guarded(&origin, &keys).start();
        for version in VERSIONS {
            for path in PATHS {
                let served = if path == "/away" { 302 } else { 200 };
                let expected = if is_served { served } else { 403 };
                let status = status(&gateway, version, path, "");
                assert_eq!(status, expected, "{keys} {version} {path}");
            }
            assert_eq!(status(&gateway, version, "/open", ""), 200, "{keys}");
        }
        if !is_served {
            wait_for_line(&gateway, " 403 ");
            wait_for_line(&gateway, " refused=forbidden");
            let refused = gateway.metric("snigate_requests_refused_total{reason=\"forbidden\"}");
            assert_eq!(refused, Some(8.0));
        }
    }
}

#[test]
fn users_are_served_by_name_and_password() {
    let origin = Origin::named("app");
    let gateway = guarded(
        &origin,
        "basic_auth: { users_file: users, realm: \"the back\" }",
    )
    .start();
    for version in VERSIONS {
        for path in PATHS {
            let served = if path == "/away" { 302 } else { 200 };
            for user in ["ann:hunter2", "bob:hunter2"] {
                assert_eq!(
                    status(&gateway, version, path, user),
                    served,
                    "{path} {user}"
                );
            }
            let refused = over(version, &gateway, "a.test", path).send();
            assert_eq!(refused.status, 401, "{path}");
            assert_eq!(
                refused.header("www-authenticate"),
                Some("Basic realm=\"the back\", charset=\"UTF-8\"")
            );
        }
        assert_eq!(status(&gateway, version, "/open", ""), 200);
        for wrong in ["ann:wrong", "eve:hunter2"] {
            assert_eq!(status(&gateway, version, "/", wrong), 401, "{wrong}");
        }
        // A body that follows is no reason for another answer.
        let posted = over(version, &gateway, "a.test", "/").args(["--data", "body"]);
        assert_eq!(posted.send().status, 401);
        let posted = over(version, &gateway, "a.test", "/").args([
            "--data",
            "body",
            "--user",
            "ann:hunter2",
        ]);
        assert_eq!(posted.send().status, 200);
    }
    let users: Vec<_> = origin.requests();
    assert!(
        users
            .iter()
            .any(|request| request.header("x-user") == Some("bob"))
    );
    assert!(
        users
            .iter()
            .all(|request| request.header("x-user").is_some())
    );
    wait_for_line(&gateway, " - ann [");
    wait_for_line(&gateway, " refused=unauthorized");
}

#[test]
fn a_client_that_guesses_has_to_wait_and_no_other_client() {
    let origin = Origin::named("app");
    let gateway = guarded(&origin, "basic_auth: { users_file: users }").start();
    assert_eq!(status(&gateway, "1.1", "/", "ann:hunter2"), 200);
    for guess in 0..10 {
        assert_eq!(status(&gateway, "2", "/", &format!("ann:{guess}")), 401);
    }
    let asked = || over("2", &gateway, "a.test", "/").args(["--user", "ann:11"]);
    let refused = asked().send();
    assert_eq!(
        (refused.status, refused.header("retry-after")),
        (429, Some("60"))
    );
    // What was right before still is.
    assert_eq!(status(&gateway, "2", "/", "ann:hunter2"), 200);
    let other = asked().args(["--interface", "127.0.0.2"]);
    assert_eq!(other.send().status, 401);
}

#[test]
fn slow_passwords_hold_up_nobody_else() {
    let origin = Origin::named("app");
    let builder = guarded(&origin, "basic_auth: { users_file: users }");
    // Each check takes about a second.
    let slow = "ann:$2b$13$abcdefghijklmnopqrstuuV3duMsC0HpUex6N9qapiuOHHWkwRXVm\n";
    fs::write(builder.dir().join("users"), slow).expect("a file");
    let gateway = builder.start();
    thread::scope(|scope| {
        let guesses: Vec<_> = (0..4)
            .map(|number| {
                let user = format!("ann:{number}");
                let gateway = &gateway;
                scope.spawn(move || status(gateway, "2", "/", &user))
            })
            .collect();
        let begun = Instant::now();
        let mut served = 0;
        while !guesses.iter().all(thread::ScopedJoinHandle::is_finished) {
            assert_eq!(status(&gateway, "1.1", "/open", ""), 200);
            served += 1;
        }
        eprintln!("{served} requests in {:?}", begun.elapsed());
        for guess in guesses {
            assert_eq!(guess.join().expect("no panic"), 401);
        }
    });
}

#[test]
fn users_change_with_their_file() {
    let origin = Origin::named("app");
    let gateway = guarded(&origin, "basic_auth: { users_file: users }").start();
    assert_eq!(status(&gateway, "2", "/", "ann:hunter2"), 200);
    fs::write(gateway.dir().join("users"), BOB).expect("a file");
    wait_for("the new users", || {
        let asked = over("2", &gateway, "a.test", "/").args(["--interface", "127.0.0.3"]);
        let asked = asked.args(["--user", "ann:hunter2"]);
        (asked.send().status != 200).then_some(())
    });
    assert_eq!(status(&gateway, "2", "/", "bob:hunter2"), 200);
    // A file with a mistake changes nothing.
    fs::write(gateway.dir().join("users"), "bob:secret\n").expect("a file");
    wait_for("a complaint", || {
        gateway.log().contains("line 1 of the file").then_some(())
    });
    assert!(!gateway.log().contains("secret"));
    assert_eq!(status(&gateway, "2", "/", "bob:hunter2"), 200);
}
