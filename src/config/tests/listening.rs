//! Where a gateway listens: the forms of addresses, and those of sites.

use super::{accept, errors};
use crate::config::model::ListenAddress;

#[test]
fn addresses_have_many_forms() {
    let listening = |text: &str| {
        let text = format!(
            "server: {{ https: [\"{text}\"], http: [] }}\n\
             sites: [{{ hosts: [a.example], routes: [{{ respond: {{ }} }}] }}]\n"
        );
        let https = accept(&text).config.server.https;
        https.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    for (text, addresses) in [
        ("192.0.2.1:443", vec!["192.0.2.1:443"]),
        ("[2001:db8::1]:443", vec!["[2001:db8::1]:443"]),
        ("[fe80::1%eth0]:443", vec!["[fe80::1%eth0]:443"]),
        (":443", vec!["0.0.0.0:443", "[::]:443"]),
        ("eth0.7:443", vec!["0.0.0.0%eth0.7:443", "[::]%eth0.7:443"]),
        ("unix:web.sock", vec!["unix:/base/web.sock"]),
        ("unix:/run/web.sock|0666", vec!["unix:/run/web.sock"]),
        ("systemd:web", vec!["systemd:web"]),
    ] {
        assert_eq!(listening(text), addresses, "{text}");
    }
    let text = "server: { https: [\"unix:/a\", \"unix:/b|600\"] }\n\
                sites: [{ hosts: [a.example], routes: [{ respond: { } }] }]\n";
    let modes = accept(text).config.server.https;
    let modes = modes.into_iter().map(|address| match address {
        ListenAddress::Unix { mode, .. } => mode,
        other => panic!("{other}"),
    });
    assert_eq!(modes.collect::<Vec<_>>(), [0o660, 0o600]);
}

/// A configuration with these addresses, and sites with these keys.
fn sites(https: &str, http: &str, sites: &[&str]) -> String {
    let sites = sites
        .iter()
        .map(|keys| format!("  - {{ {keys}, routes: [{{ respond: {{ }} }}] }}\n"));
    format!(
        "server: {{ https: [{https}], http: [{http}], admin: off }}\nsites:\n{}",
        sites.collect::<String>()
    )
}

const HTTPS: &str = "\"127.0.0.1:443\"";
const HTTP: &str = "\"127.0.0.1:80\"";

#[test]
fn a_host_belongs_to_one_site_at_each_address() {
    for [one, other] in [
        ["", "listen: [\"127.0.0.1:1\"], "],
        [
            "listen: [\"127.0.0.1:1\"], ",
            "listen: [\"127.0.0.1:2\", \"127.0.0.1:3\"], ",
        ],
    ] {
        let [one, other] = [one, other].map(|listen| format!("{listen}hosts: [a.example]"));
        let config = accept(&sites(HTTPS, HTTP, &[&one, &other])).config;
        assert_eq!(config.sites.len(), 2);
    }
    for [one, other] in [
        ["", "listen: [\"127.0.0.1:443\"], "],
        [
            "listen: [\"127.0.0.1:1\"], ",
            "listen: [\"127.0.0.1:2\", \"127.0.0.1:1\"], ",
        ],
        ["", ""],
    ] {
        let [one, other] = [one, other].map(|listen| format!("{listen}hosts: [a.example]"));
        let errors = errors(&sites(HTTPS, HTTP, &[&one, &other]));
        let is_told = errors
            .iter()
            .any(|error| error.contains("is already in sites[0]"));
        assert!(is_told && errors.len() == 1, "{errors:#?}");
    }
    // Not even twice in one.
    let twice = "listen: [\"127.0.0.1:1\"], hosts: [a.example, a.example]";
    assert_eq!(errors(&sites(HTTPS, HTTP, &[twice])).len(), 1);
}

#[test]
fn the_port_of_a_site_is_that_of_its_first_address_for_https() {
    for (keys, port) in [
        ("hosts: [a.example]", None),
        (
            "hosts: [a.example], listen: [\"127.0.0.1:80\", \"127.0.0.1:1\"]",
            Some(1),
        ),
        ("hosts: [a.example], listen: [\"unix:/x\"]", Some(443)),
        ("hosts: [a.example], listen: [\":1\"], tls: off", None),
    ] {
        let config = accept(&sites(HTTPS, HTTP, &[keys])).config;
        assert_eq!(config.sites[0].https_port, port, "{keys}");
    }
    // A listener of a site is enough.
    let keys = "hosts: [a.example], listen: [\"127.0.0.1:1\"]";
    accept(&sites("", "", &[keys]));
}

#[test]
fn an_address_is_for_one_protocol() {
    let at = |address: &str, more: &str| {
        format!(
            "hosts: [{more}.example], listen: [\"{address}\"]{}",
            match more {
                "off" => ", tls: off",
                _ => "",
            }
        )
    };
    for (first, second, why) in [
        (
            at("127.0.0.1:443", "off"),
            None,
            "since 'server.https' has it",
        ),
        (
            at("127.0.0.1:80", "a"),
            None,
            "all its addresses are for HTTP",
        ),
        (
            at("127.0.0.1:1", "a"),
            Some(at("127.0.0.1:1", "off")),
            "cannot be for HTTP: sites[0].listen[0]",
        ),
        (
            at("127.0.0.1:1", "off"),
            Some(at("127.0.0.1:1", "a")),
            "cannot be for HTTPS: sites[0].listen[0]",
        ),
        (
            at("0.0.0.0:443", "a"),
            None,
            "overlaps an address of 'server.https'",
        ),
        (
            at("0.0.0.0:1", "a"),
            Some(at("127.0.0.1:1", "b")),
            "overlaps sites[0].listen[0]",
        ),
        (at("nowhere", "a"), None, "is not an address to listen on"),
    ] {
        let all: Vec<_> = [Some(&*first), second.as_deref()]
            .into_iter()
            .flatten()
            .collect();
        let errors = errors(&sites(HTTPS, HTTP, &all));
        let is_told = errors.iter().any(|error| error.contains(why));
        assert!(is_told && errors.len() == 1, "{why}: {errors:#?}");
    }
}
