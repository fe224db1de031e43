use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::certificate::testing::{DAY, NOW, TestCa, intermediate_of, leaf_params, p256, rsa};
use crate::certificate::{KeyKind, Loader, Source, TlsCertificate};

struct Fixture {
    ca: TestCa,
    loader: Loader,
}

impl Fixture {
    fn new() -> Self {
        Self {
            ca: TestCa::new("sni"),
            loader: Loader::new().expect("a loader"),
        }
    }

    /// A certificate valid from `from` to `to` days after now.
    fn certificate(&self, names: &[&str], from: i64, to: i64) -> Arc<TlsCertificate> {
        self.ca
            .certificate(&self.loader, names, NOW + from * DAY, NOW + to * DAY)
    }
}

/// A certificate for `names` with this key, valid to `end` days after now, whose intermediate
/// expires `chain_end` days after now.
fn chained(names: &[&str], key: &rcgen::KeyPair, end: i64, chain_end: i64) -> Arc<TlsCertificate> {
    let (ca, own) = (TestCa::new("chained"), p256());
    let intermediate = intermediate_of("own", &own, &ca.root, NOW + chain_end * DAY);
    let issuer = rcgen::Issuer::from_ca_cert_pem(&intermediate, own).expect("an issuer");
    let params = leaf_params(names, NOW - DAY, NOW + end * DAY);
    let leaf = params.signed_by(key, &issuer).expect("a leaf");
    let pem = leaf.pem() + &intermediate + &key.serialize_pem();
    let loader = Loader::new().expect("a loader");
    let loaded = loader.load(pem.as_bytes(), Source::Program);
    Arc::new(loaded.expect("a good certificate").certificate)
}

fn serves(map: &SniMap, host: &str, certificate: &Arc<TlsCertificate>) -> bool {
    map.lookup(host)
        .is_some_and(|set| set.is_same_as(std::slice::from_ref(certificate)))
}

#[test]
fn an_exact_name_goes_before_a_wildcard_and_a_wildcard_covers_one_label() {
    let fixture = Fixture::new();
    let exact = fixture.certificate(&["a.example.com"], -1, 30);
    let wildcard = fixture.certificate(&["*.example.com"], -1, 90);
    let map = SniMap::of([&exact, &wildcard], NOW);
    assert_eq!(map.len(), 2);
    assert!(serves(&map, "a.example.com", &exact));
    assert!(serves(&map, "b.example.com", &wildcard));
    for host in ["example.com", "a.b.example.com", "com", "localhost"] {
        assert!(map.lookup(host).is_none(), "{host}");
    }
    assert!(map.default_set().is_none() && map.on_demand().is_none());
    assert_eq!(map.iter().count(), 2);
    let with_default = map.with_default(map.lookup("a.example.com").cloned());
    assert!(with_default.default_set().is_some() && map.default_set().is_none());
}

#[test]
fn the_certificate_that_clients_accept_longest_is_served() {
    let of = |end, chain_end| chained(&["a.example"], &p256(), end, chain_end);
    let cut = of(90, 10);
    let whole = of(40, 400);
    let cut_soon = of(80, -1);
    let mut candidates = Candidates::default();
    for certificate in [&cut_soon, &cut, &whole] {
        candidates.add(certificate, Precedence::Configured);
    }
    let map = candidates.update(&SniMap::default(), NOW);
    assert!(serves(&map, "a.example", &whole));
    candidates.remove(&whole);
    let map = candidates.update(&map, NOW);
    assert!(serves(&map, "a.example", &cut));
    // The end of a chain is noticed like that of a certificate.
    let least = of(5, 400);
    candidates.add(&least, Precedence::OnDemand);
    let longer = of(30, 400);
    candidates.add(&longer, Precedence::OnDemand);
    let map = candidates.update(&map, NOW);
    assert!(serves(&map, "a.example", &cut), "its standing is higher");
    candidates.pass_time(NOW, NOW + 11 * DAY);
    assert!(!candidates.is_settled());
    let map = candidates.update(&map, NOW + 11 * DAY);
    assert!(serves(&map, "a.example", &longer));
    // Some clients have another path to a root, so it takes precedence over one that has expired
    // itself.
    candidates.remove(&longer);
    let map = candidates.update(&map, NOW + 11 * DAY);
    assert!(serves(&map, "a.example", &cut));
    candidates.remove(&cut);
    candidates.remove(&cut_soon);
    let map = candidates.update(&map, NOW + 11 * DAY);
    assert!(serves(&map, "a.example", &least), "better than nothing");
}

#[test]
fn a_kind_of_key_stays_though_its_chain_has_ended() {
    let ecdsa = chained(&["a.example"], &p256(), 30, 400);
    let rsa = chained(&["a.example"], &rsa(2048), 90, -1);
    let map = SniMap::of([&ecdsa, &rsa], NOW);
    let set = map.lookup("a.example").expect("served");
    let kinds: Vec<_> = set.by_kind.iter().map(|one| one.kind()).collect();
    assert_eq!(kinds, [KeyKind::Ecdsa, KeyKind::Rsa]);
}

#[test]
fn a_name_whose_chain_has_ended_is_left_to_a_valid_wildcard() {
    let cut = chained(&["a.example.com"], &p256(), 90, 10);
    let wildcard = chained(&["*.example.com"], &p256(), 60, 400);
    let mut candidates = Candidates::default();
    candidates.add(&cut, Precedence::Configured);
    candidates.add(&wildcard, Precedence::Configured);
    let map = candidates.update(&SniMap::default(), NOW);
    assert!(serves(&map, "a.example.com", &cut));
    candidates.pass_time(NOW, NOW + 11 * DAY);
    let map = candidates.update(&map, NOW + 11 * DAY);
    assert!(serves(&map, "a.example.com", &wildcard));
    candidates.remove(&wildcard);
    let map = candidates.update(&map, NOW + 11 * DAY);
    assert!(serves(&map, "a.example.com", &cut), "better than nothing");
}

#[test]
fn the_certificate_valid_longest_is_served_and_the_next_best_takes_over() {
    let fixture = Fixture::new();
    let short = fixture.certificate(&["a.example"], -1, 30);
    let long = fixture.certificate(&["a.example"], -1, 60);
    let expired = fixture.certificate(&["a.example"], -400, -1);
    let future = fixture.certificate(&["a.example"], 5, 400);
    let mut candidates = Candidates::default();
    for certificate in [&expired, &long, &future, &short] {
        candidates.add(certificate, Precedence::Configured);
    }
    let map = candidates.update(&SniMap::default(), NOW);
    assert!(serves(&map, "a.example", &long));
    candidates.remove(&long);
    let map = candidates.update(&map, NOW);
    assert!(
        serves(&map, "a.example", &short),
        "never the expired or the future one"
    );
    candidates.pass_time(NOW, NOW + 6 * DAY);
    let map = candidates.update(&map, NOW + 6 * DAY);
    assert!(serves(&map, "a.example", &future), "once it is valid");
    candidates.remove(&future);
    candidates.remove(&short);
    let map = candidates.update(&map, NOW);
    assert!(serves(&map, "a.example", &expired), "better than nothing");
    candidates.remove(&expired);
    let map = candidates.update(&map, NOW);
    assert!(map.is_empty() && candidates.by_pattern_len() == 0);
}

#[test]
fn an_expired_certificate_leaves_its_name_to_a_valid_wildcard() {
    let fixture = Fixture::new();
    let exact = fixture.certificate(&["a.example.com"], -30, 5);
    let wildcard = fixture.certificate(&["*.example.com"], -1, 90);
    let mut candidates = Candidates::default();
    candidates.add(&exact, Precedence::Configured);
    candidates.add(&wildcard, Precedence::Configured);
    let map = candidates.update(&SniMap::default(), NOW);
    assert!(serves(&map, "a.example.com", &exact));
    candidates.pass_time(NOW, NOW + 6 * DAY);
    let map = candidates.update(&map, NOW + 6 * DAY);
    assert!(serves(&map, "a.example.com", &wildcard));
    candidates.remove(&wildcard);
    let map = candidates.update(&map, NOW + 6 * DAY);
    assert!(
        serves(&map, "a.example.com", &exact),
        "nothing else is left"
    );
    candidates.add(&wildcard, Precedence::Configured);
    let map = candidates.update(&map, NOW + 6 * DAY);
    assert!(serves(&map, "a.example.com", &wildcard));
}

#[test]
fn standing_goes_before_validity_but_not_before_being_valid() {
    let fixture = Fixture::new();
    let demanded = fixture.certificate(&["a.example"], -1, 7);
    let file = fixture.certificate(&["a.example"], -1, 90);
    let mut candidates = Candidates::default();
    candidates.add(&demanded, Precedence::Required);
    candidates.add(&file, Precedence::Configured);
    let map = candidates.update(&SniMap::default(), NOW);
    assert!(serves(&map, "a.example", &demanded));
    candidates.pass_time(NOW, NOW + 8 * DAY);
    let map = candidates.update(&map, NOW + 8 * DAY);
    assert!(serves(&map, "a.example", &file));
    let name = "a.example".parse().expect("a name");
    assert!(candidates.covers(&name, NOW));
    candidates.remove(&file);
    assert!(
        !candidates.covers(&name, NOW),
        "what was issued for the name does not count"
    );
}

#[test]
fn a_set_holds_one_certificate_of_each_kind() {
    let fixture = Fixture::new();
    let ecdsa = fixture.certificate(&["a.example"], -1, 30);
    let key = rsa(2048);
    let leaf = fixture
        .ca
        .leaf_with(&["a.example"], NOW - DAY, NOW + 20 * DAY, &key);
    let pem = fixture.ca.chain(&leaf) + &leaf.key;
    let rsa = fixture
        .loader
        .load(pem.as_bytes(), Source::Program)
        .expect("good");
    let rsa = Arc::new(rsa.certificate);
    let mut candidates = Candidates::default();
    candidates.add(&rsa, Precedence::Configured);
    candidates.add(&ecdsa, Precedence::Configured);
    let map = candidates.update(&SniMap::default(), NOW);
    let set = map.lookup("a.example").expect("a set");
    assert!(set.is_same_as(&[Arc::clone(&ecdsa), Arc::clone(&rsa)]));
    candidates.pass_time(NOW, NOW + 25 * DAY);
    let map = candidates.update(&map, NOW + 25 * DAY);
    assert!(
        serves(&map, "a.example", &ecdsa),
        "the expired kind is not served"
    );
}

#[test]
fn unchanged_sets_keep_their_identity() {
    let fixture = Fixture::new();
    let one = fixture.certificate(&["a.example", "b.example"], -1, 30);
    let worse = fixture.certificate(&["a.example"], -1, 20);
    let mut candidates = Candidates::default();
    candidates.add(&one, Precedence::Configured);
    let map = candidates.update(&SniMap::default(), NOW);
    let (a, b) = (
        map.lookup("a.example").cloned(),
        map.lookup("b.example").cloned(),
    );
    let (a, b) = (a.expect("a set"), b.expect("a set"));
    assert!(Arc::ptr_eq(&a, &b), "names of one certificate share a set");
    candidates.add(&worse, Precedence::Configured);
    let map = candidates.update(&map, NOW);
    assert!(Arc::ptr_eq(&a, map.lookup("a.example").expect("a set")));
}

#[test]
fn a_change_leaves_the_old_map_and_the_other_names_as_they_were() {
    let fixture = Fixture::new();
    let set = |name: &str| Arc::new(CertificateSet::single(fixture.certificate(&[name], -1, 1)));
    let (old, new) = (set("old.example"), set("new.example"));
    let name = |i: usize| format!("host-{i}.example").parse().expect("a name");
    let map = SniMap::default().with_changes((0..5_000).map(|i| (name(i), Some(Arc::clone(&old)))));
    assert_eq!(map.len(), 5_000);
    let changed = map.with_changes([(name(7), Some(Arc::clone(&new))), (name(8), None)]);
    assert_eq!((map.len(), changed.len()), (5_000, 4_999));
    assert!(Arc::ptr_eq(
        map.lookup("host-7.example").expect("a set"),
        &old
    ));
    assert!(Arc::ptr_eq(
        changed.lookup("host-7.example").expect("a set"),
        &new
    ));
    assert!(changed.lookup("host-8.example").is_none());
    for i in (0..5_000).filter(|i| *i != 7 && *i != 8) {
        let host = format!("host-{i}.example");
        assert!(
            Arc::ptr_eq(changed.lookup(&host).expect("a set"), &old),
            "{host}"
        );
    }
    let emptied = changed.with_changes((0..5_000).map(|i| (name(i), None)));
    assert!(emptied.is_empty());
    assert!(emptied.with_changes([(Pattern::Any, Some(old))]).is_empty());
}

proptest! {
    /// The map agrees with a plain one under any changes.
    #[test]
    fn agrees_with_a_plain_map(changes in prop::collection::vec((0..300_u32, any::<bool>()), 0..900)) {
        let fixture = Fixture::new();
        let set = Arc::new(CertificateSet::single(fixture.certificate(&["a.example"], -1, 1)));
        let mut plain = std::collections::BTreeSet::new();
        let mut map = SniMap::default();
        for batch in changes.chunks(7) {
            map = map.with_changes(batch.iter().map(|(i, add)| {
                if *add { plain.insert(*i) } else { plain.remove(i) };
                let name = format!("{i}.example").parse().expect("a name");
                (name, add.then(|| Arc::clone(&set)))
            }));
        }
        prop_assert_eq!(map.len(), plain.len());
        prop_assert_eq!(map.iter().count(), plain.len());
        for i in 0..300 {
            let host = format!("{i}.example");
            prop_assert_eq!(map.lookup(&host).is_some(), plain.contains(&i));
        }
    }
}
