//! Issuers with ACME: the resulting models, and warnings.

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::config::model::*;

/// An issuer `a` with this in its braces, and a site that uses it.
pub(super) fn configured(acme: &str) -> String {
    format!(
        "issuers: {{ a: {{ acme: {{ {acme} }} }} }}\n\
         sites: [{{ hosts: [www.example.com], routes: [{{ respond: {{}} }}] }}]\n"
    )
}

/// The first issuer.
pub(super) fn acme(config: &Config) -> Arc<Acme> {
    match config.issuers.values().next() {
        Some(Issuer::Acme(acme)) => Arc::clone(acme),
        other => panic!("{other:?}"),
    }
}

/// The paths of the warnings.
pub(super) fn odd(text: &str) -> Vec<String> {
    let warnings = accept(text).warnings;
    assert!(
        warnings
            .iter()
            .all(|warning| warning.severity == Severity::Warning && warning.hint.is_some())
    );
    warnings.into_iter().map(|warning| warning.path).collect()
}

#[test]
fn lets_encrypt_is_the_default() {
    let loaded = accept(&configured(""));
    assert_eq!(loaded.warnings, []);
    assert_eq!(
        *acme(&loaded.config),
        Acme {
            directory: "https://acme-v02.api.letsencrypt.org/directory".to_owned(),
            staging: Some("https://acme-staging-v02.api.letsencrypt.org/directory".to_owned()),
            email: None,
            challenges: vec![ChallengeType::TlsAlpn01, ChallengeType::Http01],
            dns: None,
            order: OrderTerms::default(),
            key_type: KeyType::P256,
            reuse_key: false,
            ca_file: None,
            eab: None,
            zerossl: None,
            proxy: None,
            check_caa: true,
            resolvers: Vec::new(),
            order_limit: OrderLimit {
                orders: 10,
                per: Duration::from_secs(10),
            },
        }
    );
    assert_eq!(loaded.config.sites[0].tls, SiteTls::Auto(vec!["a".into()]));
}

#[test]
fn everything_about_a_ca_can_be_chosen() {
    let dir = tempfile::tempdir().unwrap();
    let key = rcgen::KeyPair::generate().unwrap();
    let root = rcgen::CertificateParams::new(["ca.corp".to_owned()])
        .unwrap()
        .self_signed(&key)
        .unwrap();
    fs::write(dir.path().join("root.pem"), root.pem()).unwrap();
    let text = configured(
        "directory: \"https://ca.corp:8443/acme/directory\", staging: \"https://stage.corp/dir\", \
         email: Ops@Bücher.Example, challenges: [http-01], profile: { name: shortlived, required: true }, \
         preferred_chain: { root: Corp Root }, lifetime: 7d, common_name: true, key_type: rsa4096, \
         reuse_key: true, ca_file: ./root.pem, eab: { key_id: kid-1, hmac_key: \"ab-_cQ==\" }, \
         proxy: \"http://[::1]:3128\", limit: { orders: 300, per: 3h }, check_caa: false, \
         resolvers: [\"10.0.0.53:53\", \"[::1]:5353\"]",
    );
    let loaded = Loader::new().load_str(&text, dir.path()).unwrap();
    assert_eq!(loaded.warnings, []);
    let ca_file = dir.path().join("root.pem");
    let read = std::slice::from_ref(&ca_file);
    assert_eq!(loaded.files, read, "its change is seen");
    assert_eq!(
        *acme(&loaded.config),
        Acme {
            directory: "https://ca.corp:8443/acme/directory".to_owned(),
            staging: Some("https://stage.corp/dir".to_owned()),
            email: Some("Ops@xn--bcher-kva.example".to_owned()),
            challenges: vec![ChallengeType::Http01],
            dns: None,
            order: OrderTerms {
                profile: Some(Profile {
                    name: "shortlived".to_owned(),
                    required: true,
                }),
                preferred_chain: Some(PreferredChain::Root("Corp Root".to_owned())),
                lifetime: Some(Duration::from_secs(7 * 86_400)),
                common_name: true,
                must_staple: false,
            },
            key_type: KeyType::Rsa4096,
            reuse_key: true,
            ca_file: Some(ca_file),
            eab: Some(ExternalAccount {
                key_id: "kid-1".to_owned(),
                hmac_key: crate::secret::Secret::new("ab-_cQ".to_owned()),
            }),
            zerossl: None,
            proxy: Some("http://[::1]:3128".parse().unwrap()),
            check_caa: false,
            resolvers: vec![
                "10.0.0.53:53".parse().unwrap(),
                "[::1]:5353".parse().unwrap(),
            ],
            order_limit: OrderLimit {
                orders: 300,
                per: Duration::from_secs(3 * 3600),
            },
        }
    );
    assert!(!format!("{loaded:?}").contains("ab-_cQ"));
}

#[test]
fn presets_know_their_staging() {
    let eab = "eab: { key_id: k, hmac_key: abcd }";
    let stage = "https://acme-staging-v02.api.letsencrypt.org/directory";
    for (keys, directory, staging) in [
        ("staging: off", "acme-v02.api.letsencrypt.org", None),
        (
            "staging: letsencrypt-staging",
            "acme-v02.api.letsencrypt.org",
            Some(stage),
        ),
        (
            "directory: \"https://acme-v02.api.letsencrypt.org/directory\"",
            "acme-v02.api.letsencrypt.org",
            Some(stage),
        ),
        ("directory: letsencrypt-staging", "acme-staging-v02", None),
        (
            &format!("directory: google, {eab}"),
            "//dv.acme-v02.api.pki.goog/directory",
            None,
        ),
        (
            &format!("directory: google-staging, {eab}"),
            "//dv.acme-v02.test-api.pki.goog/directory",
            None,
        ),
        (
            &format!("directory: zerossl, {eab}"),
            "https://acme.zerossl.com/v2/DV90",
            None,
        ),
        (
            &format!("directory: sslcom, {eab}"),
            "acme.ssl.com/sslcom-dv-ecc",
            None,
        ),
        (
            &format!("directory: sslcom-rsa, key_type: rsa2048, {eab}"),
            "acme.ssl.com/sslcom-dv-rsa",
            None,
        ),
        (
            "directory: \"https://127.0.0.1:14000/dir\"",
            "14000/dir",
            None,
        ),
    ] {
        let loaded = accept(&configured(keys));
        assert_eq!(loaded.warnings, [], "{keys}");
        let acme = acme(&loaded.config);
        assert!(acme.directory.contains(directory), "{keys}: {acme:?}");
        assert_eq!(acme.staging.as_deref(), staging, "{keys}");
    }
}

#[test]
fn challenges_without_a_listener_are_left_out() {
    for (server, keys, challenges, warned) in [
        ("http: []", "", &[ChallengeType::TlsAlpn01][..], &[][..]),
        (
            "http: []",
            "challenges: [http-01, tls-alpn-01]",
            &[ChallengeType::TlsAlpn01],
            &["issuers.a.acme.challenges[0]"],
        ),
        (
            "https: []",
            "challenges: [tls-alpn-01, http-01]",
            &[ChallengeType::Http01],
            &["issuers.a.acme.challenges[0]", "sites[0]"],
        ),
    ] {
        let text = format!("server: {{ {server} }}\n{}", configured(keys));
        assert_eq!(acme(&accept(&text).config).challenges, challenges, "{text}");
        let mut paths = odd(&text);
        paths.sort();
        assert_eq!(paths, warned, "{text}");
    }
}

#[test]
fn keys_of_ed25519_are_for_private_cas() {
    assert_eq!(
        odd(&configured("key_type: ed25519")),
        ["issuers.a.acme.key_type"]
    );
    let private = configured("directory: \"https://ca.corp/\", key_type: ed25519");
    assert_eq!(odd(&private), [""; 0]);
    assert_eq!(acme(&accept(&private).config).key_type, KeyType::Ed25519);
}

#[test]
fn the_issuers_of_a_certificate_are_tried_in_order() {
    let loaded = accept(
        "issuers: { a: { acme: }, b: { acme: { directory: \"https://b.corp/\" } } }\n\
         certificates: [{ names: [www.example.com, example.com], issuer: [b, a] }]\n",
    );
    assert!(matches!(&*loaded.config.certificates,
        [CertificateSource::Managed { issuers, .. }] if *issuers == ["b".into(), "a".into()]));
}

#[test]
fn names_that_public_cas_refuse_are_told() {
    let issuers = "issuers: { public: { acme: }, own: { acme: { directory: \"https://ca.corp/\" } }, \
                   local: { local_ca: } }";
    let respond = "routes: [{ respond: {} }]";
    // All issuers are used, so there are no other warnings.
    let used = "{ names: [used.example.com], issuer: [public, own, local] }";
    for (text, paths) in [
        (
            format!("certificates: [{{ names: [a.example.com, b.local, c] }}, {used}]"),
            &["certificates[0].names[1]", "certificates[0].names[2]"][..],
        ),
        (
            format!("certificates: [{{ names: [a.local], issuer: [own, local] }}, {used}]"),
            &[],
        ),
        (
            format!("certificates: [{{ names: [a.local], issuer: [own, public] }}, {used}]"),
            &["certificates[0].names[0]"],
        ),
        (
            format!(
                "certificates: [{used}]\nsites: [{{ hosts: [localhost, a.example.com], {respond} }}]"
            ),
            &["sites[0].hosts[0]"],
        ),
        (
            format!(
                "certificates: [{used}]\nsites: [{{ hosts: [a.internal], tls: public, {respond} }}, \
                 {{ hosts: [b.internal], tls: own, {respond} }}, \
                 {{ hosts: [c.internal], tls: local, {respond} }}]"
            ),
            &["sites[0].hosts[0]"],
        ),
        // A wildcard is as private as its parent.
        (
            format!(
                "dns: {{ main: {{ rfc2136: {{ server: \"10.0.0.53:53\" }} }} }}\n\
                 certificates: [{{ names: [\"*.corp.internal\", \"*.example.com\", \"*.corp\"], \
                 issuer: public }}, {used}]"
            ),
            &["certificates[0].names[0]", "certificates[0].names[2]"],
        ),
        // Another certificate may exist, unless the issuer is named.
        (
            format!(
                "certificates: [{{ names: [\"*.internal.lan\"], issuer: local }}, {used}]\n\
                 sites: [{{ hosts: [a.internal.lan], {respond} }}]"
            ),
            &[],
        ),
        (
            format!(
                "certificates: [{{ directory: sites }}, {used}]\n\
                 sites: [{{ hosts: [a.internal, \"*.internal\"], {respond} }}]"
            ),
            &[],
        ),
        (
            format!(
                "certificates: [{{ directory: sites }}, {used}]\n\
                 sites: [{{ hosts: [a.internal], tls: public, {respond} }}]"
            ),
            &["sites[0].hosts[0]"],
        ),
    ] {
        assert_eq!(odd(&format!("{text}\n{issuers}")), paths, "{text}");
    }
}

#[test]
fn wildcards_may_be_covered_otherwise() {
    let issuers = "issuers: { acme: { acme: }, local: { local_ca: } }";
    let wild = "sites: [{ hosts: [\"*.example.com\"], routes: [{ respond: {} }] }]";
    for (text, paths) in [
        (
            format!("certificates: [{{ names: [a.example.com], issuer: local }}]\n{wild}"),
            &["sites[0].hosts[0]"][..],
        ),
        (
            format!("certificates: [{{ names: [\"*.example.com\"], issuer: local }}]\n{wild}"),
            &[],
        ),
        (
            "certificates: [{ names: [\"*.example.com\"], issuer: [acme, local] }]".to_owned(),
            &["certificates[0].names[0]"],
        ),
    ] {
        assert_eq!(odd(&format!("{text}\n{issuers}")), paths, "{text}");
    }
    let text = format!("{wild}\nissuers: {{ acme: {{ acme: }} }}");
    let warning = accept(&text).warnings[0].to_string();
    assert!(warning.contains("needs a DNS challenge"), "{warning}");
    assert!(warning.contains("add one"), "{warning}");
}

#[test]
fn nothing_is_asked_for_every_other_host() {
    let text = "issuers: { a: { acme: } }\n\
                sites: [{ hosts: [\"*\"], tls: a, routes: [{ respond: {} }] }]";
    let warnings = accept(text).warnings;
    assert_eq!(warnings.len(), 1);
    assert!(warnings[0].message.contains("no certificate can cover '*'"));
}

#[test]
fn a_file_of_roots_is_looked_into() {
    let dir = tempfile::tempdir().unwrap();
    let text = configured("ca_file: root.pem");
    let load = || {
        let refused = Loader::new().load_str(&text, dir.path());
        refused.map_err(|diagnostics| diagnostics.to_string())
    };
    for (content, words) in [
        (&b""[..], "holds no certificate"),
        (
            b"-----BEGIN CERTIFICATE-----\nAAAA\n",
            "holds no certificate",
        ),
        (b"\x30\x82\x01\xff\xfe", "holds no certificate"),
        (&vec![b'a'; 2 << 20], "larger than"),
    ] {
        fs::write(dir.path().join("root.pem"), content).unwrap();
        let refused = load().unwrap_err();
        assert!(refused.contains(words), "{refused}");
        assert!(refused.contains("issuers.a.acme.ca_file"), "{refused}");
    }
}

#[test]
fn what_to_do_without_a_certificate() {
    let loaded = accept(&format!(
        "renewal: {{ required_at_start: true }}\nserver: {{ https_optional: true }}\n{GOOD}"
    ));
    assert!(loaded.config.renewal.required_at_start);
    assert!(loaded.config.server.https_optional);
    assert_eq!(loaded.warnings, []);
    let config = accept(GOOD).config;
    assert!(!config.renewal.required_at_start && !config.server.https_optional);
    let deaf = format!("server: {{ https_optional: true, http: [] }}\n{GOOD}");
    assert_eq!(odd(&deaf), ["server.https_optional"]);
}
