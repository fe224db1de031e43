//! What types allow and a configuration does not: empty lists, and counts of zero.
//!
//! In a file, its schema rules them out before anything else is checked.

use crate::config::schema;

/// Everything that is empty or zero and must not be.
pub(super) fn mistakes(raw: &schema::Root) -> Vec<String> {
    let mut lists = Vec::new();
    let mut counts = Vec::new();
    for (index, certificate) in raw.certificates.iter().enumerate() {
        lists.extend(certificate.names.as_ref().map(|names| {
            let path = format!("certificates[{index}].names");
            (path, names.is_empty())
        }));
    }
    for (name, issuer) in &raw.issuers {
        let acme = issuer.acme.as_ref().map(|acme| ("acme", &acme.limit));
        let zerossl = issuer.zerossl.as_ref().map(|one| ("zerossl", &one.limit));
        let acme_kinds = issuer.acme.as_ref().map(|acme| ("acme", &acme.challenges));
        let zerossl_kinds = issuer.zerossl.as_ref();
        let zerossl_kinds = zerossl_kinds.map(|one| ("zerossl", &one.challenges));
        for (kind, challenges) in acme_kinds.into_iter().chain(zerossl_kinds) {
            let path = format!("issuers.{name}.{kind}.challenges");
            lists.extend(challenges.as_ref().map(|list| (path, list.is_empty())));
        }
        counts.extend(acme.into_iter().chain(zerossl).map(|(kind, limit)| {
            let path = format!("issuers.{name}.{kind}.limit.orders");
            (path, limit.orders)
        }));
    }
    for (name, dns) in &raw.dns {
        counts.push((format!("dns.{name}.ttl"), dns.ttl));
    }
    if let Some(on_demand) = &raw.on_demand {
        let allow = on_demand.allow.as_ref();
        lists.extend(allow.map(|names| ("on_demand.allow".to_owned(), names.is_empty())));
        let limits = &on_demand.limits;
        for (key, count) in [
            ("max_waiting", Some(limits.max_waiting)),
            ("per_minute", limits.per_minute),
            ("per_domain.names", quota(limits.per_domain.as_ref())),
            ("per_client.names", quota(limits.per_client.as_ref())),
        ] {
            counts.extend(count.map(|count| (format!("on_demand.limits.{key}"), count)));
        }
    }
    let lists = lists.into_iter().filter(|(_, is_empty)| *is_empty);
    let lists = lists.map(|(path, _)| format!("{path}: the list is empty; add at least one entry"));
    let counts = counts.into_iter().filter(|(_, count)| *count == 0);
    let counts = counts.map(|(path, _)| format!("{path}: '0' is out of range; give 1 or more"));
    lists.chain(counts).collect()
}

fn quota(limit: Option<&schema::NameLimit>) -> Option<u64> {
    match limit? {
        schema::NameLimit::Names(quota) => Some(quota.names),
        schema::NameLimit::Off(_) => None,
    }
}
