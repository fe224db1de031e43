//! Tokens that requests need.

use std::fs;
use std::sync::Arc;

use super::*;
use crate::config::model::{TokenKeys, TokenPlace};
use crate::jwt::{Algorithm, Audience};

fn text(site: &str, route: &str) -> String {
    format!(
        "upstreams: {{ app: {{ servers: [\"10.0.0.1:80\"] }} }}\n\
         sites: [{{ hosts: [a.example], tls: off, {site} routes: [{{ {route} upstream: app }}] }}]\n"
    )
}

const URL: &str = "jwks_url: \"https://login.example/keys\"";

/// The public key of RFC 8037, appendix A.2.
const KEYS: &str =
    r#"{"keys":[{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#;

fn of(access: &Option<Arc<model::Access>>) -> Option<Arc<model::Jwt>> {
    access.as_ref().and_then(|access| access.jwt.clone())
}

#[test]
fn tokens_have_defaults_and_may_be_off_for_a_route() {
    let jwt = format!("jwt: {{ {URL} }},");
    let config = accept(&text(&jwt, &jwt)).config;
    let site = &config.sites[0];
    let first = of(&site.access).expect("tokens");
    let second = of(&site.routes[0].access).expect("tokens");
    assert!(Arc::ptr_eq(&first, &second));
    assert_eq!(first.place, TokenPlace::Authorization);
    assert_eq!(&*first.rules.algorithms, Algorithm::ALL);
    assert_eq!(first.rules.audience, Audience::Of([].into()));
    assert_eq!(first.rules.clock_skew, 60);
    assert!(matches!(first.keys, TokenKeys::Server(_)));
    let config = accept(&text(&jwt, "jwt: off,")).config;
    assert!(of(&config.sites[0].routes[0].access).is_none());
    assert_eq!(config.key_servers.len(), 1);
}

#[test]
fn servers_of_keys_are_shared_by_what_needs_them() {
    let one = format!("jwt: {{ {URL}, audience: a }},");
    let other =
        format!("jwt: {{ {URL}, audience: [b, c], cookie: t, claims: {{ n: 7, x: [a, true] }} }},");
    let config = accept(&text(&one, &other)).config;
    let route = of(&config.sites[0].routes[0].access).expect("tokens");
    assert_eq!(config.key_servers.len(), 1);
    let TokenKeys::Server(server) = &route.keys else {
        panic!("a server");
    };
    assert!(Arc::ptr_eq(server, &config.key_servers[0]));
    assert_eq!(route.place, TokenPlace::Cookie("t".into()));
    let texts = |list: &[&str]| {
        list.iter()
            .map(|text| Box::from(*text))
            .collect::<Box<[Box<str>]>>()
    };
    assert_eq!(
        *route.rules.claims,
        [
            (Box::from("n"), texts(&["7"])),
            (Box::from("x"), texts(&["a", "true"]))
        ]
    );
    let config = accept(&text(&format!("jwt: {{ {URL}, audience: off }},"), "")).config;
    let site = of(&config.sites[0].access).expect("tokens");
    assert_eq!(site.rules.audience, Audience::Any);
}

#[test]
fn what_tokens_cannot_be_verified_with_is_refused() {
    for (keys, words) in [
        ("audience: a", "nothing says which keys"),
        (
            "keys_file: k, jwks_url: \"https://a.test/\"",
            "exclude each other",
        ),
        ("keys_file: none.json", "cannot be read"),
        ("keys_file: \"\"", "the path is empty"),
        ("jwks_url: keys", "'keys' is not a URL of http or https"),
        (
            "jwks_url: \"ftp://a.test/\"",
            "is not a URL of http or https",
        ),
        ("jwks_url: \"https://ann:secret@a.test/\"", "jwt.jwks_url"),
        (
            "jwks_url: \"http://[::1]/\", ca_file: a.pem",
            "no meaning for a URL of http",
        ),
        (
            "jwks_url: \"https://a.test/\", ca_file: a.pem",
            "cannot be read",
        ),
        (
            "jwks_url: \"https://a.test/\", refresh: 10ms",
            "jwt.refresh",
        ),
        (
            "jwks_url: \"https://a.test/\", clock_skew: 1h",
            "jwt.clock_skew",
        ),
        (
            "jwks_url: \"https://a.test/\", algorithms: [HS256]",
            "'HS256' is not known here",
        ),
        (
            "jwks_url: \"https://a.test/\", algorithms: [none]",
            "'none' is not known here",
        ),
        (
            "jwks_url: \"https://a.test/\", algorithms: []",
            "algorithms",
        ),
        (
            "jwks_url: \"https://a.test/\", audience: []",
            "is an empty list",
        ),
        (
            "jwks_url: \"https://a.test/\", header: \"a b\"",
            "not the name of a header field",
        ),
        (
            "jwks_url: \"https://a.test/\", header: Cookie",
            "more than a token",
        ),
        (
            "jwks_url: \"https://a.test/\", cookie: \"a=b\"",
            "not the name of a cookie",
        ),
        (
            "jwks_url: \"https://a.test/\", header: a, cookie: b",
            "exclude each other",
        ),
    ] {
        let errors = errors(&text("", &format!("jwt: {{ {keys} }},")));
        assert!(
            errors.len() == 1 && errors[0].contains(words),
            "{keys}: {errors:?}"
        );
        assert!(!errors[0].contains("secret"), "{errors:?}");
    }
    let basic = "basic_auth: { users_file: users },";
    let errors = errors(&text(&format!("jwt: {{ {URL} }},"), basic));
    assert!(
        errors
            .iter()
            .any(|error| error.contains("a request has one user")),
        "{errors:?}"
    );
}

#[test]
fn keys_fetched_in_the_clear_are_warned_of() {
    let warnings = |url: &str| {
        accept(&text("", &format!("jwt: {{ jwks_url: \"{url}\" }},")))
            .warnings
            .len()
    };
    assert_eq!(warnings("http://login.example/keys"), 1);
    for url in [
        "http://127.0.0.1:8080/",
        "http://[::1]/",
        "http://localhost/",
        "https://login.example/",
    ] {
        assert_eq!(warnings(url), 0, "{url}");
    }
}

#[test]
fn without_their_keys_nobody_is_served() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("snigate.yaml");
    fs::write(&path, text("", "jwt: { keys_file: keys.json },")).expect("a file");
    let loaded = load_for_start(&path).expect("tolerated");
    assert_eq!(loaded.faults.len(), 1);
    let jwt = of(&loaded.config.sites[0].routes[0].access).expect("still needed");
    assert!(jwt.keys.known().is_err());
    fs::write(directory.path().join("keys.json"), KEYS).expect("a file");
    let loaded = load_for_start(&path).expect("good");
    assert!(loaded.faults.is_empty());
    let jwt = of(&loaded.config.sites[0].routes[0].access).expect("needed");
    assert_eq!(jwt.keys.known().expect("keys").count(), 1);
}

#[test]
fn what_is_loaded_again_without_a_change_is_equal() {
    let directory = tempfile::tempdir().expect("a directory");
    let put = |name: &str, text: &str| {
        fs::write(directory.path().join(name), text).expect("a file");
    };
    let root = || {
        let made = rcgen::generate_simple_self_signed(["a.test".to_owned()]);
        made.expect("a certificate").cert.pem()
    };
    let configured = |refresh: &str| {
        let server = format!("jwt: {{ {URL}, refresh: {refresh}, ca_file: roots.pem }},");
        let service = "forward_auth: { url: \"https://10.0.0.9/\", ca_file: roots.pem },";
        text(
            &format!("{server} {service}"),
            "jwt: { keys_file: keys.json, audience: api, claims: { role: admin } },",
        )
    };
    put("keys.json", KEYS);
    put("roots.pem", &root());
    put("snigate.yaml", &configured("10m"));
    let load = || load_for_start(&directory.path().join("snigate.yaml")).expect("good");
    let first = load();
    assert!(load() == first);
    put("keys.json", &format!("{KEYS}\n"));
    let second = load();
    assert!(second != first);
    put("roots.pem", &root());
    let third = load();
    assert!(third != second);
    put("snigate.yaml", &configured("11m"));
    let fourth = load();
    assert!(fourth != third);
    put("snigate.yaml", &configured("11m").replace("admin", "user"));
    assert!(load() != fourth);
}

#[test]
fn doubtful_keys_of_a_file_are_warned_of() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("snigate.yaml");
    fs::write(&path, text("", "jwt: { keys_file: keys.pem },")).expect("a file");
    let small = openssl::rsa::Rsa::generate(1024).expect("a key");
    let mut pem = small.public_key_to_pem().expect("PEM");
    let key = rcgen::KeyPair::generate().expect("a key");
    let mut expired = rcgen::CertificateParams::new(["a.test".to_owned()]).expect("parameters");
    expired.not_after = rcgen::date_time_ymd(2020, 1, 1);
    let expired = expired.self_signed(&key).expect("a certificate");
    pem.extend(expired.pem().into_bytes());
    fs::write(directory.path().join("keys.pem"), pem).expect("a file");
    let loaded = load_for_start(&path).expect("good");
    let warnings: Vec<_> = loaded.warnings.iter().map(ToString::to_string).collect();
    assert_eq!(warnings.len(), 2, "{warnings:?}");
    assert!(
        warnings[0].contains("1 of the keys in the file"),
        "{warnings:?}"
    );
    assert!(warnings[1].contains("expired certificates"), "{warnings:?}");
}
