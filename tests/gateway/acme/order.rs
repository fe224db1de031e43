//! What is asked of a CA beside names: profiles, lifetimes, chains, extensions, and certificates of
//! IP addresses.

use std::net::{Ipv6Addr, SocketAddr};

use openssl::asn1::Asn1Time;
use openssl::nid::Nid;
use openssl::x509::X509;
use serde_json::json;

use super::{RETRY, issuer, pebble_for, pebble_issuer, root, try_served, wait_until_served};
use crate::support::{
    CaReply, FakeCa, Features, Gateway, Pebble, TlsClient, csr, curl, in_own_network, wait_for,
    within,
};

/// A CA that has these profiles.
fn fake_with_profiles(
    script: impl Fn(&crate::support::Ask) -> Option<CaReply> + Send + Sync + 'static,
) -> FakeCa {
    let meta = json!({ "profiles": { "classic": "the usual", "shortlived": "six days" } });
    let features = Features {
        meta,
        ..Features::default()
    };
    FakeCa::start_with(features, script)
}

fn fake_issuer(fake: &FakeCa, more: &str) -> String {
    issuer("fake", &fake.directory(), fake.ca_file(), more)
}

fn roots(pebble: &Pebble) -> Vec<X509> {
    let roots = pebble.roots().into_iter();
    roots
        .map(|pem| X509::from_pem(pem.as_bytes()).expect("a certificate"))
        .collect()
}

fn common_name(certificate: &X509) -> String {
    let name = certificate.subject_name();
    let entry = name.entries_by_nid(Nid::COMMONNAME).next().expect("a name");
    entry.data().to_string().expect("text")
}

/// How many seconds a certificate is valid.
fn life(certificate: &X509) -> i64 {
    let diff = certificate.not_before().diff(certificate.not_after());
    let diff = diff.expect("times");
    i64::from(diff.days) * 86_400 + i64::from(diff.secs)
}

/// A step on the way that has been told.
fn wait_for_progress(gateway: &Gateway, text: &str) {
    gateway.wait_for_event(text, |event| {
        event.kind == "certificate_progress" && event.message.contains(text)
    });
}

/// As [`super::config`], with every step in the log.
fn config(issuers: &str, hosts: &[&str]) -> String {
    let level = "log: { level: \"info,snigate::event=debug\",";
    super::config(issuers, hosts).replace("log: {", level)
}

#[test]
fn a_profile_is_asked_for_where_the_ca_has_it() {
    let fake = fake_with_profiles(|_| None);
    let issuers = fake_issuer(
        &fake,
        "profile: shortlived, must_staple: true, common_name: true",
    );
    let gateway = Gateway::builder()
        .config(config(&issuers, &["a.test"]))
        .spawn();
    wait_until_served(&gateway, "a.test", fake.root().certificate());
    let order = &fake.asked("order")[0];
    assert_eq!(order.payload["profile"], "shortlived");
    assert!(order.payload.get("notAfter").is_none(), "{order:?}");
    let request = csr(&fake.asked("finalize")[0]).expect("a request");
    let text = String::from_utf8(request.to_text().expect("text")).expect("UTF-8");
    assert!(
        text.contains("CN=a.test") || text.contains("CN = a.test"),
        "{text}"
    );
    assert!(text.contains("TLS Feature"), "{text}");
    assert!(text.contains("status_request"), "{text}");
    // This CA leaves it out.
    let told = gateway.wait_for_event("the flaw", |one| {
        one.is("certificate_flawed", "a.test") && one.reason.as_deref() == Some("no_must_staple")
    });
    assert!(
        told.message.contains("'must_staple' of its issuer"),
        "{told:?}"
    );
}

#[test]
fn nothing_is_asked_of_a_ca_without_the_required_profile() {
    let fake = fake_with_profiles(|_| None);
    let issuers = fake_issuer(&fake, "profile: { name: tlsserver, required: true }");
    let gateway = Gateway::builder()
        .config(config(&issuers, &["a.test"]))
        .spawn();
    let failed = gateway.wait_for_event("failed", |event| event.is("certificate_failed", "a.test"));
    for part in ["\"tlsserver\"", "it has classic, shortlived", "required"] {
        assert!(failed.message.contains(part), "{part}: {failed:?}");
    }
    assert!(fake.asked("order").is_empty());
    // Where it is but preferred, its default will do.
    let mut gateway = gateway;
    let issuers = fake_issuer(&fake, "profile: tlsserver");
    gateway.replace_config(config(&issuers, &["a.test"]));
    assert_eq!(gateway.reload().0, 200);
    super::press(&gateway, "a.test");
    wait_until_served(&gateway, "a.test", fake.root().certificate());
    let order = &fake.asked("order")[0];
    assert!(order.payload.get("profile").is_none(), "{order:?}");
    wait_for_progress(&gateway, "no profile \"tlsserver\"");
}

#[test]
fn a_lifetime_is_asked_for_and_given() {
    let builder = Gateway::builder();
    let pebble = pebble_for(&builder).start();
    let issuers = pebble_issuer(&pebble, "lifetime: 7d");
    let gateway = builder.config(config(&issuers, &["a.test"])).spawn();
    let served = wait_until_served(&gateway, "a.test", &root(&pebble));
    let week = 7 * 86_400;
    assert!(
        (week - 60..=week + 60).contains(&life(&served)),
        "{}",
        life(&served)
    );
    let soon = Asn1Time::days_from_now(8).expect("a time");
    assert!(served.not_after() < &*soon);
}

#[test]
fn a_ca_that_lets_nobody_choose_the_lifetime_is_explained() {
    let fake = fake_with_profiles(|ask| {
        let is_refused = ask.kind == "order" && ask.payload.get("notAfter").is_some();
        let detail = "NotBefore and NotAfter are not supported";
        is_refused.then(|| CaReply::problem(400, "malformed", detail))
    });
    let issuers = fake_issuer(&fake, "lifetime: 12h, profile: shortlived");
    let mut gateway = Gateway::builder()
        .config(config(&issuers, &["a.test"]))
        .spawn();
    let failed = gateway.wait_for_event("failed", |event| event.is("certificate_failed", "a.test"));
    for part in ["are not supported", "'lifetime'"] {
        assert!(failed.message.contains(part), "{part}: {failed:?}");
    }
    let order = &fake.asked("order")[0];
    assert_eq!(
        order.payload["identifiers"],
        json!([{ "type": "dns", "value": "a.test" }])
    );
    assert_eq!(order.payload["profile"], "shortlived");
    let issuers = fake_issuer(&fake, "profile: shortlived");
    gateway.replace_config(config(&issuers, &["a.test"]));
    assert_eq!(gateway.reload().0, 200);
    super::press(&gateway, "a.test");
    wait_until_served(&gateway, "a.test", fake.root().certificate());
}

/// It takes no notice, and the certificate is good all the same.
#[test]
fn a_ca_that_gives_another_lifetime_is_told_of() {
    let fake = fake_with_profiles(|_| None);
    let issuers = fake_issuer(&fake, "lifetime: 2h");
    let gateway = Gateway::builder()
        .config(config(&issuers, &["a.test"]))
        .spawn();
    wait_until_served(&gateway, "a.test", fake.root().certificate());
    wait_for_progress(&gateway, "asks for 2 hours");
}

#[test]
fn the_preferred_chain_is_served() {
    let builder = Gateway::builder();
    let pebble = pebble_for(&builder)
        .env("PEBBLE_ALTERNATE_ROOTS", "2")
        .env("PEBBLE_CHAIN_LENGTH", "2")
        .start();
    let roots = roots(&pebble);
    assert_eq!(roots.len(), 3);
    let wanted = format!("preferred_chain: {{ root: {:?} }}", common_name(&roots[2]));
    let mut gateway = builder
        .config(config(&pebble_issuer(&pebble, &wanted), &["a.test"]))
        .spawn();
    wait_until_served(&gateway, "a.test", &roots[2]);
    for other in &roots[..2] {
        assert!(try_served(&gateway, "a.test", other).is_err());
    }
    wait_for_progress(&gateway, &format!("leads to {}", common_name(&roots[2])));
    // It is stored as it is served.
    gateway.restart();
    assert!(try_served(&gateway, "a.test", &roots[2]).is_ok());
    assert!(try_served(&gateway, "a.test", &roots[0]).is_err());
}

#[test]
fn the_chain_of_the_ca_will_do_where_none_is_as_preferred() {
    let builder = Gateway::builder();
    let pebble = pebble_for(&builder)
        .env("PEBBLE_ALTERNATE_ROOTS", "1")
        .start();
    let roots = roots(&pebble);
    let issuers = pebble_issuer(&pebble, "preferred_chain: { root: No Such Root }");
    let gateway = builder.config(config(&issuers, &["a.test"])).spawn();
    wait_until_served(&gateway, "a.test", &roots[0]);
    let told = format!("to {}, {}", common_name(&roots[0]), common_name(&roots[1]));
    wait_for_progress(&gateway, &told);
    wait_for_progress(&gateway, "\"No Such Root\"");
}

/// What a client without SNI gets, where it trusts `root`.
fn nameless(address: SocketAddr, root: &X509) -> Option<X509> {
    std::net::TcpStream::connect(address).ok()?;
    let client = TlsClient::nameless().trusting(root);
    Some(client.try_connect(address).ok()?.certificate())
}

/// A CA looks at an address under its own, so that each type of challenge answers on it.
#[test]
fn addresses_are_certified_by_either_challenge() {
    for challenge in ["http-01", "tls-alpn-01"] {
        let builder = Gateway::builder();
        let pebble = pebble_for(&builder).start();
        let issuers = pebble_issuer(&pebble, &format!("challenges: [{challenge}]"));
        let gateway = builder
            .config(config(&issuers, &["127.0.0.1", "a.test"]))
            .spawn();
        let root = root(&pebble);
        let served = within(RETRY, "the certificate of the address", || {
            nameless(gateway.https, &root)
        });
        let names = served.subject_alt_names().expect("names");
        let addresses: Vec<_> = names.iter().filter_map(|name| name.ipaddress()).collect();
        assert_eq!(addresses, [[127, 0, 0, 1]], "{challenge}");
        // A name has its own beside it.
        wait_until_served(&gateway, "a.test", &root);
        let cacert = pebble.write_root();
        let url = format!("https://127.0.0.1:{}/", gateway.https.port());
        let reply = curl(&url).cacert(&cacert).send();
        assert_eq!((reply.status, &*reply.text()), (200, "127.0.0.1"));
        // Over plain HTTP it is sent there.
        let url = format!("http://127.0.0.1:{}/x", gateway.http.port());
        let reply = curl(&url).send();
        let to = format!("https://127.0.0.1:{}/x", gateway.https.port());
        assert_eq!((reply.status, reply.header("location")), (308, Some(&*to)));
    }
}

/// One certificate for two addresses and a name; the address of IPv6 is asked for over TLS by a name
/// below ip6.arpa.
#[test]
fn addresses_of_both_kinds_share_a_certificate() {
    if !in_own_network(addresses_of_both_kinds_share_a_certificate) {
        return;
    }
    let builder = Gateway::builder();
    let pebble = pebble_for(&builder).start();
    let issuers = pebble_issuer(&pebble, "challenges: [tls-alpn-01]");
    let yaml = format!(
        "{}certificates: [{{ names: [\"::1\", 127.0.0.1, a.test] }}]\n",
        config(&issuers, &["::1", "127.0.0.1", "a.test"]),
    );
    let gateway = builder.config(yaml).also_at(Ipv6Addr::LOCALHOST).spawn();
    let root = root(&pebble);
    let address = SocketAddr::new(Ipv6Addr::LOCALHOST.into(), gateway.https.port());
    let served = within(RETRY, "the certificate of the address", || {
        nameless(address, &root)
    });
    let names = served.subject_alt_names().expect("names");
    assert_eq!(
        names
            .iter()
            .filter(|name| name.ipaddress().is_some())
            .count(),
        2
    );
    let host = format!("https://[::1]:{}/", address.port());
    let cacert = pebble.write_root();
    let reply = wait_for("the site of the address", || {
        curl(&host).cacert(&cacert).try_send().ok()
    });
    assert_eq!((reply.status, &*reply.text()), (200, "::1"));
    wait_until_served(&gateway, "a.test", &root);
}
