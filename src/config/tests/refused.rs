//! Rejected configurations: each fault alone, at its place, with the relevant words in its message.

use super::*;
use crate::printable;

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
fn faults_of_issuers_with_acme() {
    let site = "sites: [{ hosts: [a.example.com], tls: off, routes: [{ respond: {} }] }]";
    let whole = |fault: &str| format!("issuers: {{ a: {{ acme: {{ {fault} }} }} }}\n{site}\n");
    each(include_str!("refused/acme.txt"), whole);
}

#[test]
fn faults_of_names_for_acme() {
    let rest = "issuers: { acme: { acme: }, other: { acme: }, local: { local_ca: } }";
    let whole = |fault: &str| format!("{fault}\n{rest}\n");
    each(include_str!("refused/acme_names.txt"), whole);
}

#[test]
fn faults_of_dns() {
    let whole = |fault: &str| format!("dns: {{ a: {{ {fault} }} }}\n{GOOD}");
    each(include_str!("refused/dns.txt"), whole);
}

#[test]
fn a_challenge_needs_a_listener() {
    let site = "sites: [{ hosts: [a.example.com], routes: [{ respond: {} }] }]";
    for (server, challenges, place, words) in [
        (
            "http: []",
            "challenges: [http-01]",
            "2:37: issuers.a.acme.challenges",
            "(http-01: it needs a listener, and 'server.http' is empty)",
        ),
        (
            "https: []",
            "challenges: [tls-alpn-01]",
            "2:37: issuers.a.acme.challenges",
            "'server.https' is empty",
        ),
    ] {
        let issuers = format!("issuers: {{ a: {{ acme: {{ {challenges} }} }} }}");
        one(
            &format!("server: {{ {server} }}\n{issuers}\n{site}\n"),
            place,
            words,
        );
    }
    // Reported once, at its origin.
    one(
        &format!("server: {{ http: [], https: [] }}\nissuers: {{ a: {{ acme: }} }}\n{site}"),
        "1:9: server",
        "there is no listener",
    );
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
fn what_the_text_says_stays_on_the_line_of_its_error() {
    for reference in ["${A\\nB}", "${A\\e[2JB}", "${A\\u202eB}", "${A\u{feff}B}"] {
        let found = errors(&format!("server: {{ user: \"{reference}\" }}\n{GOOD}"));
        let [error] = found.as_slice() else {
            panic!("{reference}: {found:#?}")
        };
        assert!(error.contains("neither a variable"), "{error}");
        assert!(!error.chars().any(printable::is_control), "{error:?}");
    }
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
        "issuers: { a: { acme: { directory: ${SECRET} } } }",
        "issuers: { a: { acme: { staging: ${SECRET} } } }",
        "issuers: { a: { acme: { email: ${SECRET} } } }",
        "issuers: { a: { acme: { ca_file: ${SECRET} } } }",
        "issuers: { a: { acme: { proxy: ${SECRET} } } }",
        "issuers: { a: { acme: { proxy: \"http://me:${SECRET}@a:1\" } } }",
        "issuers: { a: { acme: { profile: \"${SECRET} \" } } }",
        "issuers: { a: { acme: { eab: { key_id: k, hmac_key: \"${SECRET}+\" } } } }",
        "include: [\"${SECRET}\"]",
        "dns: { a: { cloudflare: { api_token: \"${SECRET} \" } } }",
        "dns: { a: { cloudflare: { api_token: t, endpoint: \"${SECRET}\" } } }",
        "dns: { a: { rfc2136: { server: \"${SECRET}\" } } }",
        "dns: { a: { exec: { command: [\"${SECRET}\"] } } }",
        "dns: { a: { exec: { command: [/a], env: { \"a=\": \"${SECRET}\" } } } }",
        "dns: { a: { hetzner: { api_token: t }, resolvers: [\"${SECRET}\"] } }",
        "certificates: [{ names: [a.example], dns: \"${SECRET}\" }]",
        "sites: [{ hosts: [a.example], routes: [{ path: { regex: \"(${SECRET}\" }, respond: {} }] }]",
        "sites: [{ hosts: [a.example], routes: [{ methods: [\"${SECRET}\"], respond: {} }] }]",
    ] {
        let good = if text.starts_with("issuers") {
            GOOD.split_once('\n').map_or(GOOD, |(_, rest)| rest)
        } else {
            GOOD
        };
        let diagnostics = refuse(&format!("{text}\n{good}"));
        let shown = format!(
            "{diagnostics}{}{}",
            diagnostics.render(true),
            serde_json::to_string(&diagnostics).unwrap()
        );
        assert!(!shown.contains("hunter2"), "{shown}");
    }
    // A literal secret is not quoted from the file either.
    for text in [
        "server: { admin_token: hunter2, thread: 1 }",
        "issuers: { a: { acme: { proxy: \"http://me:hunter2@a:1\" } } }",
        "issuers: { a: { acme: { directory: \"https://me:hunter2@a/\" } } }",
        "issuers: { a: { acme: { eab: { key_id: k, hmac_key: \"hunter2 \" } } } }",
        "dns: { a: { hetzner: { api_token: \"hunter2 \" } } }",
        "dns: { a: { exec: { command: [/a], env: { \"a=\": hunter2 } } } }",
        "dns: { a: { hetzner: { api_token: t, endpoint: \"https://me:hunter2@a\" } } }",
    ] {
        let diagnostics = refuse(text);
        let rendered = format!("{diagnostics}{}", diagnostics.render(false));
        assert!(!rendered.contains("hunter2"), "{rendered}");
    }
}
