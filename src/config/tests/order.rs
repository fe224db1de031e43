//! What orders request, and what CAs are sure to refuse.

use super::acme::{configured, odd};
use super::*;
use crate::host::Pattern;

#[test]
fn what_a_ca_is_sure_to_refuse_is_an_error() {
    let eab = "eab: { key_id: k, hmac_key: abcd }";
    for (keys, path, words) in [
        (
            "must_staple: true",
            "must_staple",
            "no longer supports OCSP",
        ),
        (
            &*format!("directory: google, {eab}, must_staple: true"),
            "must_staple",
            "'google'",
        ),
        ("lifetime: 7d", "lifetime", "'profile: shortlived'"),
        ("lifetime: 10m, staging: off", "lifetime", "at least 1h"),
        (
            "preferred_chain: { root: \"\" }",
            "preferred_chain.root",
            "not empty",
        ),
        (
            "profile: { name: \"a b\" }",
            "profile.name",
            "not the name of a profile",
        ),
    ] {
        let refused = refuse(&configured(keys));
        let errors: Vec<_> = refused.errors().map(ToString::to_string).collect();
        let found = errors.iter().find(|error| error.contains(words));
        let found = found.unwrap_or_else(|| panic!("{keys}: {errors:?}"));
        assert!(found.contains(&format!("issuers.a.acme.{path}")), "{found}");
    }
    // Unknown features are tried.
    for (keys, paths) in [
        (&*format!("directory: google, {eab}, lifetime: 7d"), &[][..]),
        ("directory: \"https://ca.corp/dir\", must_staple: true", &[]),
        ("profile: shortlife", &["issuers.a.acme.profile"]),
        ("profile: { name: tlsserver, required: true }", &[]),
        ("preferred_chain: shortest", &[]),
    ] {
        assert_eq!(odd(&configured(keys)), paths, "{keys}");
    }
    let near = accept(&configured("profile: shortlife")).warnings[0].to_string();
    assert!(near.contains("did you mean 'shortlived'?"), "{near}");
}

#[test]
fn must_staple_needs_responses_to_staple() {
    let strict = configured("directory: \"https://ca.corp/dir\", must_staple: true");
    let refused = refuse(&format!("{strict}revocation: {{ ocsp: false }}\n"));
    let errors: Vec<_> = refused.errors().map(ToString::to_string).collect();
    assert_eq!(errors.len(), 1, "{errors:?}");
    assert!(errors[0].contains("'revocation.ocsp' is off"), "{errors:?}");
    let lists = accept(&format!("{strict}revocation: {{ crl: false }}\n"));
    assert!(lists.config.revocation.ocsp && !lists.config.revocation.crl);
    let refused = refuse(&format!(
        "{strict}revocation: {{ proxy: \"https://p:1\" }}\n"
    ));
    assert!(
        refused
            .errors()
            .any(|one| one.to_string().contains("revocation.proxy"))
    );
    let odd = "revocation: { ocsp: false, crl: false, proxy: \"http://p:1\" }\n";
    let text = format!("{}{odd}", configured(""));
    assert_eq!(self::odd(&text), ["revocation.proxy"]);
}

#[test]
fn addresses_are_asked_of_cas_that_certify_them() {
    let with = |issuers: &str, host: &str| {
        format!(
            "issuers: {{ {issuers} }}\n\
             certificates: [{{ names: [\"{host}\"], issuer: [a, b] }}]\n\
             sites: [{{ hosts: [\"{host}\"], routes: [{{ respond: {{}} }}] }}]\n"
        )
    };
    let short = "{ acme: { profile: shortlived } }";
    let usual = "{ acme: { email: ops@example.com } }";
    let ssl = "{ acme: { directory: sslcom, eab: { key_id: k, hmac_key: abcd } } }";
    let dns = "{ acme: { directory: \"https://ca.corp/dir\", challenges: [http-01] } }";
    let own = "{ local_ca: { name: Own } }";
    for (first, second, is_good, warnings) in [
        (short, dns, true, 0),
        (usual, short, true, 1),
        (usual, own, true, 1),
        (usual, ssl, false, 0),
    ] {
        let text = with(&format!("a: {first}, b: {second}"), "1.1.1.1");
        let loaded = Loader::new().load_str(&text, Path::new("."));
        match loaded {
            Ok(loaded) => {
                assert!(is_good, "{text}");
                assert_eq!(
                    loaded.warnings.len(),
                    warnings,
                    "{text}: {:?}",
                    loaded.warnings
                );
            }
            Err(refused) => {
                assert!(!is_good, "{refused}");
                let error = refused.errors().next().unwrap().to_string();
                assert!(error.contains("certificates[0].names[0]"), "{error}");
                assert!(error.contains("shortlived"), "{error}");
            }
        }
    }
    // An address that no public CA can reach.
    let text = with(&format!("a: {short}, b: {own}"), "10.0.0.1");
    let warning = accept(&text).warnings[0].to_string();
    assert!(warning.contains("not a public address"), "{warning}");
    let config = accept(&with(&format!("a: {own}, b: {own}"), "2001:DB8:0::1")).config;
    let address = Pattern::Ip("2001:db8::1".parse().unwrap());
    assert_eq!(config.sites[0].hosts, [address]);
    let on_demand = "issuers: { a: { local_ca: } }\non_demand: { allow: [1.1.1.1] }\n";
    let refused = refuse(on_demand).to_string();
    assert!(refused.contains("on_demand.allow[0]"), "{refused}");
}

/// No DNS record validates an address, whatever the certificate says.
#[test]
fn addresses_are_proved_at_a_listener_alone() {
    let with = |server: &str, challenges: &str| {
        format!(
            "server: {{ {server} }}\ndns: {{ main: {{ rfc2136: {{ server: \"10.0.0.53:53\" }} }} }}\n\
             issuers: {{ a: {{ acme: {{ profile: shortlived, challenges: [{challenges}] }} }} }}\n\
             certificates: [{{ names: [1.1.1.1], dns: main }}]\n"
        )
    };
    for (server, challenges, words) in [
        ("", "dns-01", "add one of the two"),
        ("http: []", "http-01, dns-01", "'server.http' is empty"),
        (
            "https: []",
            "tls-alpn-01, dns-01",
            "'server.https' is empty",
        ),
    ] {
        let found = errors(&with(server, challenges));
        let [error] = found.as_slice() else {
            panic!("{found:#?}")
        };
        assert!(error.contains(words), "{error}");
        assert!(error.contains("certificates[0].names[0]"), "{error}");
    }
    assert_eq!(odd(&with("http: []", "tls-alpn-01, dns-01")), [""; 0]);
    // An issuer without any usable challenge is reported once.
    let found = errors(&with("http: []", "http-01"));
    assert_eq!(found.len(), 1, "{found:#?}");
}

#[test]
fn an_address_of_a_site_is_asked_of_the_first_issuer() {
    let with = |issuers: &str, more: &str| {
        format!(
            "issuers: {{ {issuers} }}\n{more}\
             sites: [{{ hosts: [1.1.1.1], routes: [{{ respond: {{}} }}] }}]\n"
        )
    };
    let usual = "a: { acme: }";
    let warnings = accept(&with(usual, "")).warnings;
    let [warning] = warnings.as_slice() else {
        panic!("{warnings:?}")
    };
    assert_eq!(warning.path, "sites[0].hosts[0]");
    let told = warning.to_string();
    assert!(told.contains("'a' issues none for addresses"), "{told}");
    assert!(told.contains("shortlived"), "{told}");
    let covered = "certificates: [{ names: [1.1.1.1], issuer: own }]\n";
    for (issuers, more) in [
        ("a: { acme: { profile: shortlived } }", ""),
        ("own: { local_ca: }", ""),
        ("a: { acme: }, own: { local_ca: }", covered),
    ] {
        let warnings = accept(&with(issuers, more)).warnings;
        let found: Vec<_> = warnings
            .iter()
            .filter(|warning| warning.path.starts_with("sites"))
            .collect();
        assert!(found.is_empty(), "{issuers}: {found:?}");
    }
}
