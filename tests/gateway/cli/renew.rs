//! `snigate certs renew` follows an order to its end, against a scripted gateway.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::process::Stdio;
use std::thread;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::{run, snigate, stderr, stdout};
use crate::support::read_head;

const VIEW: &str = r#"{"name":"a.example","names":["a.example"],"state":"STATE","source":"test",
"issuer":null,"not_before":null,"not_after":null,"days_left":null,"key":null,"serial":null,
"fingerprint":null,"file":null,"renewal":{"subject":"a.example","issuers":["test"],
"obtaining":OBTAINING,"next":"2030-01-01T00:00:00Z","failures":FAILURES,"last_failure":FAILURE}}"#;

fn view(state: &str, obtaining: bool, failure: Option<&str>) -> String {
    let told = failure.map_or_else(
        || "null".to_owned(),
        |message| {
            format!(
                r#"{{"at":"2026-01-01T00:00:00Z","issuer":"test","class":"validation",
                "message":"{message}","url":"https://ca.example/why","retry_after":null}}"#
            )
        },
    );
    VIEW.replace("STATE", state)
        .replace("OBTAINING", if obtaining { "true" } else { "false" })
        .replace("FAILURES", if failure.is_some() { "1" } else { "0" })
        .replace("FAILURE", &told)
}

fn event(kind: &str, message: &str, not_after: &str) -> String {
    format!(
        "data: {{\"at\":\"2026-01-01T00:00:00Z\",\"kind\":\"{kind}\",\"severity\":\"info\",\
         \"domain\":\"a.example\",\"issuer\":\"test\",\"attempt\":1,\"next\":null,\
         \"not_after\":{not_after},\"message\":\"{message}\",\"url\":null}}\n\n"
    )
}

/// A gateway that asks an issuer on demand: then come these events, and `after` is how the
/// certificate stands. The stream of events ends where `ends` says so.
fn issuing(events: String, after: String, ends: bool) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("an address").to_string();
    thread::spawn(move || {
        let mut asked = false;
        let mut subscriber = None;
        for stream in listener.incoming() {
            let mut stream = stream.expect("a client");
            let Ok(Some(head)) = read_head(&mut stream) else {
                continue;
            };
            let head = String::from_utf8(head).expect("text");
            let path = head.split(' ').nth(1).expect("a path").to_owned();
            let (status, body) = match &path[..] {
                "/api/v1/events?domain=a.example&live=true" => {
                    let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\
                                Connection: close\r\n\r\n: hello\n\n";
                    stream.write_all(head.as_bytes()).expect("taken");
                    subscriber = Some(stream);
                    continue;
                }
                "/api/v1/certificates/a.example/renew" => {
                    asked = true;
                    ("202 Accepted", view("obtaining", true, None))
                }
                "/api/v1/certificates/a.example" if asked => ("200 OK", after.clone()),
                "/api/v1/certificates/a.example" => ("200 OK", view("missing", false, None)),
                other => panic!("{other}"),
            };
            let answer = format!("HTTP/1.1 {status}\r\nConnection: close\r\n\r\n{body}");
            // Whoever was interrupted reads no more.
            let _ = stream.write_all(answer.as_bytes());
            drop(stream);
            if path.ends_with("/renew")
                && let Some(mut stream) = subscriber.take()
            {
                let _ = stream.write_all(events.as_bytes());
                if !ends {
                    subscriber = Some(stream);
                }
            }
        }
    });
    address
}

fn steps() -> String {
    event("certificate_obtaining", "asking for a certificate", "null")
        + &event(
            "certificate_progress",
            "http-01: waiting for the CA",
            "null",
        )
        + &event(
            "certificate_progress",
            "http-01: waiting for the CA",
            "null",
        )
}

#[test]
fn the_steps_to_a_certificate_are_shown() {
    let given = event(
        "certificate_obtained",
        "a certificate",
        "\"2030-01-01T00:00:00Z\"",
    );
    let address = issuing(steps() + &given, view("obtaining", true, None), false);
    let output = run(&["certs", "renew", "A.example", "--admin", &address]);
    let said = stderr(&output);
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert_eq!(stdout(&output), "");
    assert!(!said.contains(['\x1b', '\r']), "{said:?}");
    let lines: Vec<&str> = said.lines().map(str::trim).collect();
    assert_eq!(lines.len(), 4, "{said}");
    assert!(
        lines[0].ends_with(" s  requested a certificate for a.example"),
        "{said}"
    );
    assert!(
        lines[1].ends_with("test: asking for a certificate"),
        "{said}"
    );
    assert!(
        lines[2].ends_with("test: http-01: waiting for the CA"),
        "{said}"
    );
    assert!(
        lines[3].starts_with("obtained: a certificate for a.example, valid until 2030-01-01T"),
        "{said}"
    );
}

#[test]
fn a_failure_is_shown_in_the_words_of_the_ca() {
    let failed = event("certificate_failed", "no answer from 192.0.2.1", "null");
    let after = view("failed", false, Some("no answer\\u001b[2J from 192.0.2.1"));
    let address = issuing(steps() + &failed, after, false);
    let output = run(&["certs", "renew", "a.example", "--admin", &address]);
    assert_eq!(output.status.code(), Some(1));
    let said = stderr(&output);
    for part in [
        "error: no certificate for a.example",
        "from 192.0.2.1\nsee https://ca.example/why\n",
        "hint: the gateway will retry",
        "2030-01-01T00:00:00Z",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
    assert!(
        !said.contains('\x1b'),
        "a CA commands no terminal: {said:?}"
    );
}

/// An event may be lost; the gateway knows how it stands all the same.
#[test]
fn an_end_without_an_event_is_seen() {
    let address = issuing(String::new(), view("failed", false, Some("no")), false);
    let output = run(&["certs", "renew", "a.example", "--admin", &address]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("no certificate for a.example"));
}

#[test]
fn watching_ends_where_the_watcher_or_the_gateway_does() {
    let under_way = || view("obtaining", true, None);
    let address = issuing(steps(), under_way(), false);
    let arguments = ["certs", "renew", "a.example", "--admin", &address];
    let output = run(&[&arguments[..], &["--timeout", "1s"]].concat());
    assert_eq!(output.status.code(), Some(1));
    let said = stderr(&output);
    assert!(
        said.contains("within 1s") && said.contains("continues"),
        "{said}"
    );

    let output = run(&[
        "certs",
        "renew",
        "a.example",
        "--no-wait",
        "--admin",
        &address,
    ]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));

    let address = issuing(steps(), under_way(), true);
    let output = run(&["certs", "renew", "a.example", "--admin", &address]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("stopped"), "{}", stderr(&output));

    let address = issuing(steps(), under_way(), false);
    let mut child = snigate(&["certs", "renew", "a.example", "--admin", &address])
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    let mut stderr = BufReader::new(child.stderr.take().expect("a pipe"));
    let mut said = String::new();
    while !said.contains("waiting for the CA") {
        assert_ne!(stderr.read_line(&mut said).expect("text"), 0, "{said}");
    }
    let pid = i32::try_from(child.id()).expect("a process id");
    kill(Pid::from_raw(pid), Signal::SIGINT).expect("a signal");
    stderr.read_to_string(&mut said).expect("text");
    assert_eq!(child.wait().expect("an end").code(), Some(1), "{said}");
    assert!(said.contains("the gateway continues"), "{said}");
}
