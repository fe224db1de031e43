//! `issuers`: who issues certificates. What a CA with ACME needs is in `acme`,
//! what ZeroSSL has beyond that in `zerossl`.

use std::borrow::Cow;
use std::sync::Arc;

use indexmap::IndexMap;

use super::Validator;
use crate::config::model::Issuer;
use crate::config::problem::{At, quote};
use crate::config::schema;

impl Validator<'_> {
    pub(super) fn issuers(
        &mut self,
        raw: &schema::Root,
        at: &At<'_>,
    ) -> IndexMap<Arc<str>, Issuer> {
        let mut issuers = IndexMap::with_capacity(raw.issuers.len());
        for (name, issuer) in &raw.issuers {
            let at = at.key(name);
            self.name(&at, name);
            if matches!(&**name, "auto" | "off") {
                self.problems.error(
                    &at.at_key(),
                    format!("an issuer cannot be named {}", quote(name)),
                    "choose another: a site's 'tls' has a meaning for this word",
                );
            }
            let name = Arc::from(name.as_str());
            if let Some(acme) = &issuer.acme {
                let at = at.key("acme");
                self.binding_is_given(acme, &at);
                let acme = self.acme(acme, raw, &at);
                issuers.insert(name, Issuer::Acme(Arc::new(acme)));
            } else if let Some(zerossl) = &issuer.zerossl {
                let acme = self.zerossl(zerossl, raw, &at.key("zerossl"));
                issuers.insert(name, Issuer::Acme(Arc::new(acme)));
            } else if let Some(ca) = &issuer.local_ca {
                let ca = self.local_ca(ca, &at.key("local_ca"));
                issuers.insert(name, ca);
            }
        }
        issuers
    }

    fn local_ca(&mut self, raw: &schema::LocalCa, at: &At<'_>) -> Issuer {
        let length = raw.name.chars().count();
        // RFC 5280, appendix A.1: ub-common-name.
        if !(1..=64).contains(&length) || raw.name.chars().any(char::is_control) {
            let message = "the name of a root certificate has 1 to 64 characters";
            self.problems
                .error(&at.key("name"), message, "choose another name");
        }
        Issuer::LocalCa {
            name: raw.name.clone(),
        }
    }
}

/// What is configured for an issuer with ACME; `None` where it is of another kind.
pub(super) fn acme_of<'r>(raw: &'r schema::Root, issuer: &str) -> Option<Cow<'r, schema::Acme>> {
    let issuer = raw.issuers.get(issuer)?;
    let zerossl = || Some(Cow::Owned(issuer.zerossl.as_ref()?.as_acme()));
    issuer.acme.as_ref().map(Cow::Borrowed).or_else(zerossl)
}
