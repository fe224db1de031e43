//! By which types of challenge the names of one certificate may be proved, and who does it.

use std::sync::Arc;

use super::AcmeIssuer;
use crate::challenge::{ChallengeSolver, ChallengeType};
use crate::host::Pattern;
use crate::issuer::Request;
use crate::schedule::{Failure, FailureClass};

/// The types that are configured and can be solved, most wanted first.
pub(super) struct Ways(Vec<Arc<dyn ChallengeSolver>>);

impl Ways {
    /// What there is for this certificate. One that names an entry of `dns` is to be proved over the
    /// DNS: those types go first then, `dns-01` where the issuer is not configured for any.
    pub(super) fn of(issuer: &AcmeIssuer, request: &Request) -> Self {
        let mut kinds = issuer.config.challenges.clone();
        if request.dns.is_some() {
            if !kinds.iter().any(|kind| kind.is_over_dns()) {
                kinds.push(ChallengeType::Dns01);
            }
            kinds.sort_by_key(|kind| !kind.is_over_dns());
        }
        let entry = request.dns.as_deref().or(issuer.config.dns.as_deref());
        let solver = |kind: ChallengeType| {
            let own = issuer.solvers.iter().find(|solver| solver.kind() == kind);
            let dns = &issuer.shared.dns;
            own.cloned().or_else(|| dns.as_ref()?.solver(kind, entry))
        };
        Self(kinds.into_iter().filter_map(solver).collect())
    }

    /// Those for one name: a wildcard is proved over the DNS alone (RFC 8555, section 8.4).
    pub(super) fn for_name(
        &self,
        is_wildcard: bool,
    ) -> impl Iterator<Item = &Arc<dyn ChallengeSolver>> {
        let fits = move |kind: ChallengeType| !is_wildcard || kind.is_over_dns();
        self.0.iter().filter(move |solver| fits(solver.kind()))
    }

    /// # Errors
    /// Where one of the names cannot be proved by any of them.
    pub(super) fn check(&self, names: &[Pattern]) -> Result<(), Failure> {
        let has_dns = self.for_name(true).next().is_some();
        let lost = names.iter().find(|name| match name {
            Pattern::Any => true,
            Pattern::Wildcard(_) => !has_dns,
            Pattern::Exact(_) => false,
        });
        let Some(name) = lost else {
            return Ok(());
        };
        let message = format!(
            "a certificate for {name} takes a validation over the DNS: add an entry below 'dns', \
             and 'dns-01' to 'challenges' of the issuer, or name the hosts one by one"
        );
        Err(Failure::new(FailureClass::Configuration, message))
    }
}
