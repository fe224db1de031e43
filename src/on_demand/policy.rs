//! Which names may have a certificate, as far as their letters tell.

use std::collections::HashSet;

use crate::config::model::OnDemand;
use crate::config::never_certified;
use crate::host::{HostName, Pattern, parent};

/// The most labels that a name has below its registered domain.
const MAX_LABELS: usize = 5;

/// The longest name: with `_acme-challenge.` before it, it is still one of the DNS.
const MAX_LENGTH: usize = 253 - "_acme-challenge.".len();

/// What is configured on names, ready to be looked up.
#[derive(Debug)]
pub(super) struct Policy {
    /// Whether every name may be asked for.
    any: bool,
    exact: HashSet<HostName, ahash::RandomState>,
    /// By the name without its first label.
    wildcard: HashSet<HostName, ahash::RandomState>,
    /// Whether a public CA is to certify them.
    public: bool,
}

/// What the letters of a name say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NameVerdict {
    /// It is not covered, and nothing of it is to be served.
    NotCovered,
    /// It is covered, but no sensible name to get a certificate for.
    Implausible,
    /// It is covered.
    Acceptable,
}

impl Policy {
    pub(super) fn new(config: &OnDemand) -> Self {
        let mut policy = Self {
            any: config.allow.is_empty() && config.ask.is_some(),
            exact: HashSet::default(),
            wildcard: HashSet::default(),
            public: config.public,
        };
        for pattern in &config.allow {
            match pattern {
                Pattern::Any => policy.any = true,
                Pattern::Exact(name) => drop(policy.exact.insert(name.clone())),
                Pattern::Wildcard(of) => drop(policy.wildcard.insert(of.clone())),
                Pattern::Ip(_) => {}
            }
        }
        policy
    }

    /// Looks at `host`, a name in normal form.
    pub(super) fn judge_name(&self, host: &str) -> NameVerdict {
        if self.exact.contains(host) {
            // Somebody wrote this very name.
            return NameVerdict::Acceptable;
        }
        let Some(above) = parent(host) else {
            return NameVerdict::NotCovered;
        };
        if !self.any && !self.wildcard.contains(above) {
            NameVerdict::NotCovered
        } else if is_plausible(host) && !(self.public && never_certified(host).is_some()) {
            NameVerdict::Acceptable
        } else {
            NameVerdict::Implausible
        }
    }
}

/// Whether `config` lets `host`, a name in normal form, have a certificate, as far as can be told
/// without asking anybody.
pub fn allows(config: &OnDemand, host: &str) -> bool {
    let has_dot = host.contains('.');
    if config.allow.is_empty() {
        return config.ask.is_some() && has_dot;
    }
    config.allow.iter().any(|pattern| match pattern {
        Pattern::Exact(_) => pattern.covers(host),
        Pattern::Ip(_) => false,
        Pattern::Any | Pattern::Wildcard(_) => has_dot && pattern.covers(host),
    })
}

/// Whether `config` lets every name that `host` stands for have a certificate, as far as can be
/// told without asking anybody.
pub fn covers(config: &OnDemand, host: &Pattern) -> bool {
    match host {
        Pattern::Exact(name) => allows(config, name.as_str()),
        Pattern::Ip(_) => false,
        Pattern::Any | Pattern::Wildcard(_) if config.allow.is_empty() => config.ask.is_some(),
        Pattern::Any | Pattern::Wildcard(_) => {
            config.allow.contains(host) || config.allow.contains(&Pattern::Any)
        }
    }
}

/// The domain that somebody registered and that `host` lies in; `host` itself where there is none.
pub(super) fn registered(host: &str) -> &str {
    psl::domain_str(host).unwrap_or(host)
}

/// Whether `host` looks like a name that somebody set up, and not like one of a flood: scanners
/// ask for `www.www.www.` before every name that they find in a log of certificates, and a
/// wildcard in the DNS answers for them all.
fn is_plausible(host: &str) -> bool {
    if host.len() > MAX_LENGTH {
        return false;
    }
    let Some(below) = host.strip_suffix(registered(host)) else {
        return false;
    };
    let below = below.strip_suffix('.').unwrap_or(below);
    if below.is_empty() {
        return true;
    }
    let mut labels = [""; MAX_LABELS];
    let mut count = 0;
    for label in below.split('.') {
        let Some(slot) = labels.get_mut(count) else {
            return false;
        };
        *slot = label;
        count += 1;
    }
    let labels = labels.get(..count).unwrap_or_default();
    // A run of labels that comes twice in a row.
    !(1..=count / 2).any(|run| {
        labels
            .windows(2 * run)
            .any(|window| window.get(..run) == window.get(run..))
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::on_demand::tests::{config, with_ask};

    #[test]
    fn patterns_decide() {
        let policy = Policy::new(&config(&["*.customers.example", "intranet", "x.y.example"]));
        for host in ["a.customers.example", "intranet", "x.y.example"] {
            assert_eq!(policy.judge_name(host), NameVerdict::Acceptable, "{host}");
            assert!(allows(
                &config(&["*.customers.example", "intranet", host]),
                host
            ));
        }
        for host in [
            "customers.example",
            "a.b.customers.example",
            "other",
            "y.example",
            "z.y.example",
        ] {
            assert_eq!(policy.judge_name(host), NameVerdict::NotCovered, "{host}");
        }
        let any = Policy::new(&config(&["*"]));
        assert_eq!(any.judge_name("a.example"), NameVerdict::Acceptable);
        assert_eq!(any.judge_name("single"), NameVerdict::NotCovered);
        let nothing = Policy::new(&config(&[]));
        assert_eq!(nothing.judge_name("a.example"), NameVerdict::NotCovered);
        assert!(!allows(&config(&[]), "a.example"));
        let asked = with_ask(&[], "http://127.0.0.1:1/");
        assert_eq!(
            Policy::new(&asked).judge_name("a.example"),
            NameVerdict::Acceptable
        );
        assert_eq!(
            Policy::new(&asked).judge_name("single"),
            NameVerdict::NotCovered
        );
        assert!(allows(&asked, "a.example") && !allows(&asked, "single"));
    }

    #[test]
    fn floods_of_labels_make_no_sense() {
        let policy = Policy::new(&config(&["*", "www.www.listed.example"]));
        for host in [
            "www.www.a.example",
            "www.www.www.a.co.uk",
            "x.www.www.a.example",
            "a.b.a.b.shop.example",
            "1.2.3.4.5.6.a.example",
        ] {
            assert_eq!(policy.judge_name(host), NameVerdict::Implausible, "{host}");
        }
        for host in [
            "www.a.example",
            "a.a.example",
            "www.www.com",
            "dev.api.dev.a.example",
            "5.4.3.2.1.a.co.uk",
            "a.b.github.io",
            "www.www.listed.example",
        ] {
            assert_eq!(policy.judge_name(host), NameVerdict::Acceptable, "{host}");
        }
        let label = "x".repeat(60);
        let long = format!("{label}.{label}.{label}.{label}.example");
        assert!(long.len() <= 253, "a name");
        assert_eq!(policy.judge_name(&long), NameVerdict::Implausible);
    }

    #[test]
    fn a_public_ca_is_not_asked_in_vain() {
        let public = OnDemand {
            public: true,
            ..config(&["*"])
        };
        let policy = Policy::new(&public);
        for host in ["a.localhost", "a.internal", "a_b.example.com"] {
            assert_eq!(policy.judge_name(host), NameVerdict::Implausible, "{host}");
        }
        assert_eq!(policy.judge_name("a.example.com"), NameVerdict::Acceptable);
    }

    proptest! {
        #[test]
        fn what_repeats_itself_never_passes(
            run in proptest::collection::vec("[a-z]{1,5}", 1..3),
            domain in "[a-z]{3,8}\\.example",
        ) {
            let run = run.join(".");
            let flood = format!("{run}.{run}.{domain}");
            prop_assert!(!is_plausible(&flood));
        }

        #[test]
        fn no_name_makes_it_stumble(host in "([a-z0-9_-]{1,9}\\.){0,12}[a-z]{1,9}") {
            let policy = Policy::new(&config(&["*"]));
            let letters = policy.judge_name(&host);
            prop_assert!(host.contains('.') || letters == NameVerdict::NotCovered);
        }
    }
}
