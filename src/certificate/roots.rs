//! The roots that this machine trusts, as far as certificates can be held against them.

use std::collections::HashMap;
use std::fs;
use std::sync::OnceLock;

use openssl::x509::{X509, X509Ref};

use super::chain::issued;

/// The roots of a machine, by the hash of their names.
#[derive(Default)]
pub(super) struct Roots(HashMap<u32, Vec<X509>>);

impl Roots {
    /// Those of this machine, read when they are first needed; none if it has none.
    pub(super) fn of_machine() -> &'static Self {
        static ROOTS: OnceLock<Roots> = OnceLock::new();
        ROOTS.get_or_init(|| {
            let file = openssl_probe::probe().cert_file;
            let pem = file
                .and_then(|file| fs::read(file).ok())
                .unwrap_or_default();
            Self::of(X509::stack_from_pem(&pem).unwrap_or_default())
        })
    }

    fn of(certificates: Vec<X509>) -> Self {
        let mut roots = HashMap::<u32, Vec<X509>>::new();
        for root in certificates {
            let known = roots.entry(root.subject_name_hash()).or_default();
            known.push(root);
        }
        Self(roots)
    }

    /// Returns true if there are any.
    pub(super) fn are_known(&self) -> bool {
        !self.0.is_empty()
    }

    /// The one of them that has signed `certificate`.
    pub(super) fn issuer_of(&self, certificate: &X509Ref) -> Option<X509> {
        let above = self.0.get(&certificate.issuer_name_hash());
        let mut above = above.into_iter().flatten();
        above.find(|root| issued(root, certificate, true)).cloned()
    }

    /// Returns true if one of them issued `certificate`, or has its name and key.
    pub(super) fn lead_from(&self, certificate: &X509Ref) -> bool {
        let above = self.0.get(&certificate.issuer_name_hash());
        let mut above = above.into_iter().flatten();
        let alike = self.0.get(&certificate.subject_name_hash());
        let mut alike = alike.into_iter().flatten();
        above.any(|root| issued(root, certificate, false))
            || alike.any(|root| match (root.public_key(), certificate.public_key()) {
                (Ok(root), Ok(own)) => root.public_eq(&own),
                _ => false,
            })
    }
}
