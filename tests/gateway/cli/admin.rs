//! How commands find their gateway, and what they make of its answers.

use std::io::Write;
use std::net::TcpListener;
use std::thread;

use super::{VALID, configured, run, snigate, stderr, stdout};
use crate::support::{Gateway, Port, read_head};

#[test]
fn an_admin_interface_that_is_off_is_told_as_such() {
    let (_dir, path) = configured(VALID);
    let output = run(&["reload", "--config", &path]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("SIGHUP"), "{}", stderr(&output));
}

#[test]
fn the_admin_address_is_taken_from_the_configuration() {
    let (dir, path) = configured(&VALID.replace("admin: off", "admin: unix:admin.sock"));
    let output = run(&["status", "--config", &path]);
    assert_eq!(output.status.code(), Some(1));
    let socket = dir.path().join("admin.sock");
    let said = stderr(&output);
    assert!(
        said.contains(&format!("unix:{}", socket.display())),
        "{said}"
    );
}

#[test]
fn commands_find_their_gateway_though_the_file_is_broken() {
    let gateway = Gateway::builder()
        .token("secret-token")
        .config("include: [more.yaml, also.yaml]")
        .config("log: { access: off }");
    std::fs::write(gateway.dir().join("more.yaml"), "\n").expect("a file");
    let sites = "sites: [{ hosts: [a.test], tls: off, routes: [{ respond: {} }] }]\n";
    std::fs::write(gateway.dir().join("also.yaml"), sites).expect("a file");
    let gateway = gateway.start();
    let path = gateway.config.to_str().expect("text").to_owned();
    let reloaded = run(&["reload", "--config", &path]);
    assert_eq!(reloaded.status.code(), Some(0), "{}", stderr(&reloaded));
    for broken in [
        "nonsense: 1\n",
        "sites: 5\nupstreams: [\n",
        "sites:\n\t- x\n",
        "issuers: { a: { local_ca: { } } }\n--- \n",
    ] {
        gateway.write_config(broken);
        let output = run(&["reload", "--config", &path]);
        let said = stderr(&output);
        assert_eq!(output.status.code(), Some(3), "{broken}: {said}");
        assert!(said.starts_with(&path), "{broken}: {said}");
        let output = run(&["status", "--config", &path]);
        assert_eq!(
            output.status.code(),
            Some(0),
            "{broken}: {}",
            stderr(&output)
        );
    }
    // An included file that is broken says nothing of the address.
    gateway.write_config("");
    gateway.write("more.yaml", "sites: [\n");
    let output = run(&["certs", "list", "--config", &path]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let output = run(&["stop", "--config", &path]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
}

#[test]
fn no_other_gateway_is_reached_because_a_file_is_broken() {
    for (broken, mistake) in [
        // The address may stand in what cannot be read.
        (
            "sites: [\nserver: { admin: \"127.0.0.1:9\" }\n",
            "not valid YAML",
        ),
        ("server: { admin: \"127.0.0.1:9", "not valid YAML"),
        ("include: [missing.yaml]\n", "missing.yaml"),
        // It is there, in a way that nobody can read.
        ("server: { admn: \"127.0.0.1:9\" }\n", "'admn'"),
        ("sever: { admin: \"127.0.0.1:9\" }\n", "'sever'"),
        ("server: { admin: [] }\n", "server.admin"),
        ("server: { admin: somewhere }\n", "server.admin"),
        (
            "server: { admin: \"${SNIGATE_TEST_NOT_SET}\" }\n",
            "SNIGATE_TEST_NOT_SET",
        ),
    ] {
        let (_dir, path) = configured(broken);
        for verb in [&["reload"][..], &["status"], &["stop"], &["certs", "list"]] {
            let output = run(&[verb, &["--config", &path]].concat());
            let said = stderr(&output);
            assert_eq!(output.status.code(), Some(3), "{verb:?} {broken}: {said}");
            assert!(said.contains(mistake), "{verb:?} {broken}: {said}");
        }
    }
}

#[test]
fn a_gateway_that_does_not_run_is_named_with_what_to_do() {
    let port = Port::take();
    let address = port.address().to_string();
    for verb in [
        &["reload"][..],
        &["status"],
        &["stop"],
        &["certs", "list", "--fail-within", "14d"],
        &["certs", "show", "a.example"],
        &["certs", "obtain", "a.example"],
        &["certs", "renew", "a.example", "--no-wait"],
    ] {
        let output = run(&[verb, &["--admin", &address]].concat());
        assert_eq!(output.status.code(), Some(1), "{verb:?}");
        assert_eq!(stdout(&output), "", "{verb:?}");
        let said = stderr(&output);
        assert!(
            said.contains(&address) && said.contains("hint:"),
            "{verb:?}: {said}"
        );
    }
    let output = run(&["status", "--admin", "unix:/nonexistent/admin.sock"]);
    assert_eq!(output.status.code(), Some(1));
    let output = snigate(&["status"])
        .env("SNIGATE_ADMIN", &address)
        .output()
        .expect("the program starts");
    assert!(
        stderr(&output).contains(&address),
        "the environment names it"
    );
    let output = run(&["status", "--config", "/nonexistent/snigate.yaml"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("/nonexistent/snigate.yaml"));
}

/// Answers one request with this, and returns its head.
fn answering(response: &'static str) -> (String, thread::JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("an address").to_string();
    let answering = thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a client");
        let head = read_head(&mut stream)
            .expect("readable")
            .expect("a request");
        stream.write_all(response.as_bytes()).expect("taken");
        String::from_utf8(head).expect("text")
    });
    (address, answering)
}

#[test]
fn a_refused_reload_shows_every_mistake_and_ends_with_3() {
    let (address, gateway) = answering(concat!(
        "HTTP/1.1 400 Bad Request\r\nContent-Type: application/problem+json\r\n",
        "Connection: close\r\n\r\n",
        r#"{"detail":"the configuration is invalid","errors":["#,
        r#"{"file":"a.yaml","line":3,"column":5,"message":"no such upstream"},"#,
        r#"{"file":"a.yaml","line":9,"column":1,"message":"unknown key"}]}"#,
    ));
    let output = snigate(&["reload", "--admin", &address])
        .env("SNIGATE_TOKEN", "correct horse")
        .output()
        .expect("the program starts");
    assert_eq!(output.status.code(), Some(3));
    let said = stderr(&output);
    assert!(said.contains("a.yaml:3:5: no such upstream\n"), "{said}");
    assert!(said.contains("a.yaml:9:1: unknown key\n"), "{said}");
    let head = gateway.join().expect("one request").to_ascii_lowercase();
    assert!(
        head.starts_with("post /api/v1/reload http/1.1\r\n"),
        "{head}"
    );
    assert!(
        head.contains("\r\nauthorization: bearer correct horse\r\n"),
        "{head}"
    );
    assert!(head.contains(&format!("\r\nhost: {address}\r\n")), "{head}");
}

#[test]
fn a_wrong_token_is_told_as_such() {
    let (address, gateway) = answering(
        "HTTP/1.1 401 Unauthorized\r\nConnection: close\r\n\r\n{\"detail\":\"the token is wrong\"}",
    );
    let output = run(&["stop", "--admin", &address, "--token", "guess"]);
    assert_eq!(output.status.code(), Some(1));
    let said = stderr(&output);
    assert!(
        said.contains("the token is wrong") && said.contains("--token"),
        "{said}"
    );
    assert!(!said.contains("guess"), "{said}");
    gateway.join().expect("one request");
}

#[test]
fn something_else_at_the_admin_address_is_no_success() {
    for answer in [
        "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n<html>",
        "SSH-2.0-OpenSSH_9.2\r\n",
    ] {
        let (address, gateway) = answering(answer);
        let output = run(&["reload", "--admin", &address]);
        assert_eq!(
            output.status.code(),
            Some(1),
            "{answer}: {}",
            stderr(&output)
        );
        gateway.join().expect("one request");
    }
}
