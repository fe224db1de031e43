//! How long it takes to make a certificate that can be served from its PEM, where its issuer is known.

#![allow(
    clippy::expect_used,
    reason = "a bench that cannot begin has nothing to say"
)]

use criterion::{Criterion, criterion_group, criterion_main};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, KeyUsagePurpose,
};
use snigate::certificate::{Loader, Source};

fn params(names: &[&str], common_name: &str) -> CertificateParams {
    let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut params = CertificateParams::new(names).expect("names");
    params
        .distinguished_name
        .push(DnType::CommonName, common_name);
    params.use_authority_key_identifier_extension = true;
    params
}

fn ca(common_name: &str) -> CertificateParams {
    let mut params = params(&[], common_name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params
}

fn load(criterion: &mut Criterion) {
    let key = || KeyPair::generate().expect("a key");
    let root = CertifiedIssuer::self_signed(ca("root"), key()).expect("a root");
    let issuer = CertifiedIssuer::signed_by(ca("issuer"), key(), &root).expect("an issuer");
    let own = key();
    let leaf = params(&["www.customer.example", "customer.example"], "leaf");
    let leaf = leaf.signed_by(&own, &issuer).expect("a leaf");
    let (leaf, issuer, key) = (leaf.pem(), issuer.pem(), own.serialize_pem());
    let loader = Loader::new().expect("OpenSSL");
    let pem = [&*leaf, &*issuer, &*key].concat();
    let load = || loader.load(pem.as_bytes(), Source::Program).expect("good");
    assert_eq!(load().certificate.chain_len(), 2);
    criterion.bench_function("load", |b| b.iter(load));
}

criterion_group!(benches, load);
criterion_main!(benches);
