//! What is refused: each fault alone, at its place, with the words that matter in its message.

use super::*;

/// Runs a table: `LINE:COLUMN: KEY | what the message says | what is wrong`.
fn each(table: &str, whole: impl Fn(&str) -> String) {
    let rows = table.lines().filter(|row| !row.starts_with("# "));
    for row in rows {
        let [place, words, fault] = row.splitn(3, '|').collect::<Vec<_>>()[..] else {
            panic!("{row}")
        };
        let fault = fault.trim().replace('↵', "\n").replace('→', "\t");
        one(&whole(&fault), place.trim(), words.trim());
    }
}

fn one(text: &str, place: &str, words: &str) {
    let found = errors(text);
    let [error] = found.as_slice() else {
        panic!("{text}\n{found:#?}")
    };
    let rest = error.strip_prefix(place);
    assert!(
        rest.is_some_and(|rest| rest.starts_with([':', ';', ' '])) && error.contains(words),
        "{text}\nexpected {place}: … {words}\n   found {error}"
    );
}

#[test]
fn faults_of_the_server() {
    let whole = |fault: &str| format!("{fault}\n{GOOD}");
    each(include_str!("refused/server.txt"), whole);
}

#[test]
fn faults_of_tls_and_certificates() {
    let whole = |fault: &str| format!("{fault}\n{GOOD}");
    each(include_str!("refused/certificates.txt"), whole);
}

#[test]
fn faults_of_issuers_and_upstreams() {
    let site = "sites: [{ hosts: [a.example], tls: off, routes: [{ respond: {} }] }]";
    let whole = |fault: &str| format!("{fault}\n{site}\n");
    each(include_str!("refused/names.txt"), whole);
}

#[test]
fn faults_of_sites() {
    let rest = "issuers: { local: { local_ca: } }\nupstreams: { app: { servers: [\"a:1\"] } }";
    let whole = |site: &str| format!("sites: [{{ {site} }}]\n{rest}\n");
    each(include_str!("refused/sites.txt"), whole);
}

#[test]
fn faults_of_the_text() {
    each(include_str!("refused/text.txt"), str::to_owned);
}

#[test]
fn references_that_lead_nowhere() {
    for (reference, words) in [
        ("${NOPE}", "the environment variable NOPE is not set"),
        ("a${NOPE}b", "NOPE is not set"),
        ("${}", "neither a variable"),
        ("${A-B}", "neither a variable"),
        ("${NUMBER:-5}", "neither a variable"),
        ("${1A}", "neither a variable"),
        ("${file:nowhere}", "the file /base/nowhere does not exist"),
        ("${file:}", "directory"),
    ] {
        let place = "1:17: server.user";
        let quoted = format!("server: {{ user: \"{reference}\" }}\n{GOOD}");
        if reference == "${file:}" {
            assert_eq!(errors(&quoted).len(), 1);
            continue;
        }
        one(&quoted, place, words);
        one(
            &format!("server: {{ user: {reference} }}\n{GOOD}"),
            place,
            words,
        );
    }
    one(
        &format!("server: {{ user: \"${{A\" }}\n{GOOD}"),
        "1:17: server.user",
        "has no '}'",
    );
}

#[test]
fn what_a_reference_stands_for_is_never_shown() {
    for text in [
        "server: { threads: \"${SECRET}\" }",
        "server: { grace_period: ${SECRET} }",
        "server: { admin: ${SECRET} }",
        "server: { https: [\"${SECRET}\"] }",
        "server: { limits: { max_header_bytes: ${SECRET} } }",
        "tls: { profile: ${SECRET} }",
        "tls: { default_certificate: \"${SECRET} ${SECRET}\" }",
        "tls: { session_tickets: ${SECRET} }",
        "log: { level: ${SECRET} }",
        "log: { access: ${SECRET} }",
        "certificates: [{ names: [a.example], issuer: ${SECRET} }]",
        "include: [\"${SECRET}\"]",
    ] {
        let diagnostics = refuse(&format!("{text}\n{GOOD}"));
        let shown = format!(
            "{diagnostics}{}{}",
            diagnostics.render(true),
            serde_json::to_string(&diagnostics).unwrap()
        );
        assert!(!shown.contains("hunter2"), "{shown}");
    }
    // A secret written out is not quoted from the file either.
    let rendered = refuse("server: { admin_token: hunter2, thread: 1 }").render(false);
    assert!(!rendered.contains("hunter2"), "{rendered}");
}
