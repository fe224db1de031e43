//! Chooses among the chains that a CA offers for a certificate (RFC 8555, section 7.4.2).
//!
//! A CA returns one chain and links to others, which lead to other roots. They are downloaded only
//! if one is preferred and the first is not it.

use openssl::nid::Nid;
use openssl::x509::{X509, X509NameRef};

use super::download::certificates;
use crate::acme::jws;
use crate::acme::order_ctx::OrderCtx;
use crate::config::model::PreferredChain;

/// How many other chains are downloaded; CAs have two or three.
const MOST: usize = 8;

/// A chain that the CA offers.
struct Offer {
    pem: String,
    certificates: Vec<X509>,
}

/// The preferred chain, or `first` if it is not available. Call this right after the CA has
/// returned `first`.
pub(super) async fn choose_chain(ctx: &OrderCtx<'_>, first: String) -> String {
    let Some(wanted) = &ctx.issuer.config.order.preferred_chain else {
        return first;
    };
    let others = ctx.client.alternates();
    // Certificates of a staging environment are never served.
    if ctx.ca.key != ctx.issuer.ca.key {
        return first;
    }
    let Some(offer) = Offer::read(first.clone()) else {
        return first;
    };
    let mut offers = vec![offer];
    for url in others.iter().take(MOST) {
        if offers.last().is_some_and(|last| last.is(wanted)) {
            break;
        }
        let other = fetch_chain(ctx, url).await;
        offers.extend(other.filter(|other| offers.iter().all(|one| one.is_of_same_leaf(other))));
    }
    let Some(best) = choose_offer(&offers, wanted) else {
        let (what, name) = match wanted {
            PreferredChain::Root(name) => ("to the root", name.as_str()),
            PreferredChain::Issuer(name) => ("through", name.as_str()),
            PreferredChain::Shortest => ("of any", "length"),
        };
        let roots: Vec<String> = offers.iter().filter_map(Offer::root).collect();
        ctx.emit_caution(format!(
            "{} has no chain {what} {name:?}, only to {}: using its default",
            ctx.ca.host,
            roots.join(", "),
        ));
        return first;
    };
    if best.pem != first {
        ctx.emit_progress(format!(
            "using the chain of {} that leads to {}",
            ctx.ca.host,
            best.root().unwrap_or_default(),
        ));
    }
    best.pem.clone()
}

/// Downloads another chain; that it is unavailable is not a failure.
async fn fetch_chain(ctx: &OrderCtx<'_>, url: &str) -> Option<Offer> {
    let reply = match ctx.stored_account.signer() {
        Ok(signer) => jws::post_jws(ctx.client, &signer, url, None).await,
        Err(error) => Err(error),
    };
    match reply.map(|reply| certificates(reply.body()).and_then(Offer::read)) {
        Ok(offer) => offer,
        Err(error) => {
            let ca = &ctx.ca.host;
            tracing::warn!(
                ca,
                url,
                %error,
                "cannot download an alternate chain of a certificate"
            );
            None
        }
    }
}

/// The best of the offers.
fn choose_offer<'o>(offers: &'o [Offer], wanted: &PreferredChain) -> Option<&'o Offer> {
    match wanted {
        PreferredChain::Shortest => offers.iter().min_by_key(|one| one.certificates.len()),
        PreferredChain::Issuer(_) | PreferredChain::Root(_) => {
            offers.iter().find(|one| one.is(wanted))
        }
    }
}

impl Offer {
    /// `None` if `pem` is not a chain.
    fn read(pem: String) -> Option<Self> {
        let certificates = X509::stack_from_pem(pem.as_bytes()).ok()?;
        (!certificates.is_empty()).then_some(Self { pem, certificates })
    }

    /// Returns true if no other chain can be preferable.
    fn is(&self, wanted: &PreferredChain) -> bool {
        let issuers = || self.certificates.iter().map(|one| one.issuer_name());
        match wanted {
            PreferredChain::Issuer(name) => issuers().any(|issuer| is_named(issuer, name)),
            PreferredChain::Root(name) => issuers()
                .next_back()
                .is_some_and(|issuer| is_named(issuer, name)),
            // A lone leaf; otherwise all have to be compared.
            PreferredChain::Shortest => self.certificates.len() == 1,
        }
    }

    /// The common name of the root that it leads to.
    fn root(&self) -> Option<String> {
        common_name(self.certificates.last()?.issuer_name())
    }

    fn is_of_same_leaf(&self, other: &Self) -> bool {
        let key = |offer: &Self| offer.certificates.first()?.public_key().ok();
        match (key(self), key(other)) {
            (Some(one), Some(other)) => one.public_eq(&other),
            _ => false,
        }
    }
}

fn is_named(name: &X509NameRef, wanted: &str) -> bool {
    common_name(name).is_some_and(|name| name == wanted)
}

fn common_name(name: &X509NameRef) -> Option<String> {
    let entry = name.entries_by_nid(Nid::COMMONNAME).next()?;
    entry.data().to_string().ok()
}

#[cfg(test)]
mod tests {
    use openssl::asn1::Asn1Time;
    use openssl::hash::MessageDigest;
    use openssl::pkey::{PKey, Private};
    use openssl::x509::{X509Builder, X509Name, X509NameBuilder};

    use super::*;
    use crate::acme::key::generate;
    use crate::config::model::KeyType;

    fn name(text: &str) -> X509Name {
        let mut name = X509NameBuilder::new().expect("a builder");
        name.append_entry_by_nid(Nid::COMMONNAME, text)
            .expect("an entry");
        name.build()
    }

    /// A chain by common names, from the leaf to the root, which is not included.
    fn chain(key: &PKey<Private>, names: &[&str]) -> Offer {
        let pems: Vec<u8> = names
            .windows(2)
            .flat_map(|pair| {
                let mut builder = X509Builder::new().expect("a builder");
                builder.set_subject_name(&name(pair[0])).expect("set");
                builder.set_issuer_name(&name(pair[1])).expect("set");
                builder.set_pubkey(key).expect("set");
                let now = Asn1Time::days_from_now(0).expect("a time");
                builder.set_not_before(&now).expect("set");
                builder.set_not_after(&now).expect("set");
                builder.sign(key, MessageDigest::sha256()).expect("signed");
                builder.build().to_pem().expect("PEM")
            })
            .collect();
        Offer::read(String::from_utf8(pems).expect("PEM")).expect("a chain")
    }

    #[test]
    fn chains_are_chosen_by_root_issuer_and_length() {
        let key = generate(KeyType::P256).expect("a key");
        let offers = [
            chain(&key, &["a.example", "R1", "Young Root", "Old Root"]),
            chain(&key, &["a.example", "R1", "Young Root"]),
            chain(&key, &["a.example", "R1", "Other Root"]),
        ];
        let chosen = |wanted: PreferredChain| {
            let best = choose_offer(&offers, &wanted)?;
            offers.iter().position(|one| std::ptr::eq(one, best))
        };
        let root = |name: &str| PreferredChain::Root(name.to_owned());
        let issuer = |name: &str| PreferredChain::Issuer(name.to_owned());
        assert_eq!(chosen(root("Old Root")), Some(0));
        assert_eq!(chosen(root("Young Root")), Some(1));
        assert_eq!(chosen(root("R1")), None, "that is no root");
        assert_eq!(chosen(issuer("Young Root")), Some(0));
        assert_eq!(chosen(issuer("Other Root")), Some(2));
        assert_eq!(chosen(issuer("Nobody")), None);
        assert_eq!(chosen(PreferredChain::Shortest), Some(1));
        assert_eq!(offers[2].root().as_deref(), Some("Other Root"));
    }

    #[test]
    fn a_chain_of_another_certificate_is_none() {
        let keys = [(); 2].map(|()| generate(KeyType::P256).expect("a key"));
        let ours = chain(&keys[0], &["a.example", "R1"]);
        assert!(ours.is_of_same_leaf(&chain(&keys[0], &["a.example", "R2"])));
        assert!(!ours.is_of_same_leaf(&chain(&keys[1], &["a.example", "R1"])));
        assert!(Offer::read("no chain".to_owned()).is_none());
    }
}
