//! DNS challenges: when they are available, and that they validate wildcards.

use super::acme::{acme, configured, odd};
use super::*;
use crate::config::model::ChallengeType;

/// Entries of `dns` with these names.
fn entries(names: &[&str]) -> String {
    let entries = names
        .iter()
        .map(|name| format!("{name}: {{ rfc2136: {{ server: \"10.0.0.53:53\" }} }}"));
    format!("dns: {{ {} }}\n", entries.collect::<Vec<_>>().join(", "))
}

#[test]
fn dns_01_is_added_where_somebody_sets_records() {
    use ChallengeType::{Dns01, DnsAccount01, DnsPersist01, Http01, TlsAlpn01};
    for (names, keys, challenges) in [
        (&["main"][..], "", &[TlsAlpn01, Http01, Dns01][..]),
        (&["main", "other"], "", &[TlsAlpn01, Http01]),
        (
            &["main", "other"],
            "dns: other",
            &[TlsAlpn01, Http01, Dns01],
        ),
        (&["main"], "challenges: [http-01]", &[Http01]),
        (
            &["main"],
            "challenges: [dns-account-01, dns-01, tls-alpn-01]",
            &[DnsAccount01, Dns01, TlsAlpn01],
        ),
        (&[], "challenges: [dns-persist-01]", &[DnsPersist01]),
    ] {
        let dns = if names.is_empty() {
            String::new()
        } else {
            entries(names)
        };
        let text = dns + &configured(keys);
        let loaded = accept(&text);
        assert_eq!(acme(&loaded.config).challenges, challenges, "{text}");
    }
    // It needs no listener.
    let text = entries(&["main"]) + "server: { http: [] }\n" + &configured("challenges: [dns-01]");
    assert_eq!(odd(&text), [""; 0]);
}

#[test]
fn wildcards_are_proved_over_the_dns() {
    let wild = "certificates: [{ names: [\"*.example.com\"] }]\n";
    let named = "certificates: [{ names: [\"*.example.com\"], dns: main }]\n";
    let site = "sites: [{ hosts: [\"*.example.com\"], routes: [{ respond: {} }] }]\n";
    for (dns, keys, text) in [
        (entries(&["main"]), "", wild),
        (entries(&["main"]), "", site),
        (entries(&["main"]), "challenges: [dns-account-01]", wild),
        (entries(&["main"]), "challenges: [http-01]", named),
        (entries(&["main", "other"]), "dns: other", named),
        (String::new(), "challenges: [dns-persist-01]", wild),
        (String::new(), "challenges: [dns-persist-01]", site),
    ] {
        let text = format!("{dns}{text}issuers: {{ a: {{ acme: {{ {keys} }} }} }}");
        assert_eq!(odd(&text), [""; 0], "{text}");
    }
    for (dns, keys, words) in [
        (
            entries(&["main"]),
            "challenges: [http-01]",
            "add dns-01 to them",
        ),
        (
            entries(&["main", "other"]),
            "",
            "add 'dns: NAME' to the issuer or the certificate",
        ),
        (String::new(), "", "there is no entry in 'dns'"),
    ] {
        let text = format!("{dns}{wild}issuers: {{ a: {{ acme: {{ {keys} }} }} }}");
        let found = errors(&text);
        let [error] = found.as_slice() else {
            panic!("{text}\n{found:#?}")
        };
        assert!(
            error.contains(words) && error.contains("certificates[0].names[0]"),
            "{text}\n{error}"
        );
        let text = format!("{dns}{site}issuers: {{ a: {{ acme: {{ {keys} }} }} }}");
        let warnings = accept(&text).warnings;
        assert!(
            warnings
                .iter()
                .any(|warning| warning.to_string().contains(words)),
            "{text}\n{warnings:?}"
        );
    }
    // A mistyped entry is the only mistake.
    let text = entries(&["main"]) + wild + "issuers: { a: { acme: { dns: mian } } }";
    let found = errors(&text);
    let [error] = found.as_slice() else {
        panic!("{found:#?}")
    };
    assert!(error.contains("issuers.a.acme.dns"), "{error}");
    let text = entries(&["main", "other"]) + &configured("challenges: [dns-01, http-01]");
    assert!(odd(&text).contains(&"issuers.a.acme.challenges[0]".to_owned()));
}
