//! The solvers that may validate the names of one certificate.

use std::net::IpAddr;
use std::sync::Arc;

use crate::acme::AcmeIssuer;
use crate::challenge::{ChallengeSolver, ChallengeType};
use crate::host::Pattern;
use crate::schedule::{Failure, FailureClass};

/// The solvers for the configured types of challenge, most preferred first.
pub(super) struct Solvers(Vec<Arc<dyn ChallengeSolver>>);

impl Solvers {
    /// The solvers for a certificate. If it names an entry of `dns`, the DNS challenges go first,
    /// with `dns-01` if the issuer has none configured.
    pub(super) fn of(issuer: &AcmeIssuer, dns: Option<&str>) -> Self {
        let mut kinds = issuer.config.challenges.clone();
        if dns.is_some() {
            if !kinds.iter().any(|kind| kind.is_over_dns()) {
                kinds.push(ChallengeType::Dns01);
            }
            kinds.sort_by_key(|kind| !kind.is_over_dns());
        }
        let entry = dns.or(issuer.config.dns.as_deref());
        let solver = |kind: ChallengeType| {
            let own = issuer.solvers.iter().find(|solver| solver.kind() == kind);
            let dns = &issuer.shared.dns;
            own.cloned().or_else(|| dns.as_ref()?.solver(kind, entry))
        };
        Self(kinds.into_iter().filter_map(solver).collect())
    }

    /// The solvers for one name: a wildcard needs a DNS challenge (RFC 8555, section 7.1.3), and an
    /// address cannot use one (RFC 8738, section 7).
    pub(super) fn for_name(&self, name: &str) -> impl Iterator<Item = &Arc<dyn ChallengeSolver>> {
        let is_wildcard = name.starts_with("*.");
        let is_address = name.parse::<IpAddr>().is_ok();
        self.0
            .iter()
            .filter(move |solver| match solver.kind().is_over_dns() {
                true => !is_address,
                false => !is_wildcard,
            })
    }

    /// Removes one type.
    pub(super) fn exclude(&mut self, kind: ChallengeType) {
        self.0.retain(|solver| solver.kind() != kind);
    }

    /// Checks that each name can be validated.
    ///
    /// # Errors
    /// If none of the solvers can validate one of the names.
    pub(super) fn check_names(&self, names: &[Pattern]) -> Result<(), Failure> {
        let lost = names.iter().find(|name| match name {
            Pattern::Any => true,
            Pattern::Wildcard(_) | Pattern::Ip(_) => {
                self.for_name(&name.to_string()).next().is_none()
            }
            Pattern::Exact(_) => false,
        });
        let message = match lost {
            None => return Ok(()),
            Some(Pattern::Ip(address)) => format!(
                "a certificate for the address {address} needs an http-01 or tls-alpn-01 \
                 challenge: add one of them to the issuer's 'challenges', and a listener for it to \
                 'server.http' or 'server.https'"
            ),
            Some(name) => format!(
                "a certificate for {name} needs a DNS challenge: add an entry below 'dns', and \
                 'dns-01' to the issuer's 'challenges', or name the hosts one by one"
            ),
        };
        Err(Failure::new(FailureClass::Configuration, message))
    }
}

#[cfg(test)]
mod tests {
    use async_trait::async_trait;

    use super::*;
    use crate::challenge::Challenge;

    /// A solver for this type.
    struct Of(ChallengeType);

    #[async_trait]
    impl ChallengeSolver for Of {
        fn kind(&self) -> ChallengeType {
            self.0
        }

        async fn present(&self, _: &Challenge) -> Result<(), Failure> {
            Ok(())
        }

        async fn clean_up(&self, _: &Challenge) {}
    }

    #[test]
    fn names_are_checked_against_the_types() {
        use ChallengeType::{Dns01, DnsPersist01, Http01, TlsAlpn01};
        for (kinds, name, words) in [
            (
                &[Dns01, DnsPersist01][..],
                "192.0.2.7",
                Some("http-01 or tls-alpn-01"),
            ),
            (&[Dns01], "2001:db8::1", Some("the address 2001:db8::1")),
            (&[Dns01, TlsAlpn01], "192.0.2.7", None),
            (&[Http01], "192.0.2.7", None),
            (&[Http01, TlsAlpn01], "*.a.test", Some("a DNS challenge")),
            (&[Http01, DnsPersist01], "*.a.test", None),
            (&[Http01], "a.test", None),
        ] {
            let solver = |kind: &ChallengeType| Arc::new(Of(*kind)) as Arc<dyn ChallengeSolver>;
            let solvers = Solvers(kinds.iter().map(solver).collect());
            let checked = solvers.check_names(&["b.test".parse().unwrap(), name.parse().unwrap()]);
            let message = checked.err().map(|failure| failure.message);
            match (words, message) {
                (None, None) => {}
                (Some(words), Some(message)) => assert!(message.contains(words), "{message}"),
                (_, message) => panic!("{kinds:?} {name}: {message:?}"),
            }
        }
    }
}
