//! A preflight: whether an issuer would issue a certificate, found out without ordering one.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::host::Pattern;

/// What to try.
#[derive(Clone, Debug)]
pub struct Preflight {
    /// The name of the certificate that nobody asks for yet.
    pub name: Pattern,
    /// The entry of `dns` in the configuration that the certificate would name.
    pub dns: Option<Arc<str>>,
    /// Where the CA looks.
    pub ports: Ports,
}

/// The ports at which a CA looks for proofs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ports {
    /// For http-01; RFC 8555, section 8.3 says 80.
    pub http: u16,
    /// For tls-alpn-01; RFC 8737, section 3 says 443.
    pub https: u16,
}

impl Default for Ports {
    fn default() -> Self {
        Self {
            http: 80,
            https: 443,
        }
    }
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct Finding {
    /// What was looked at: `directory`, `limits`, `caa`, `challenges`, or one type of them.
    pub about: String,
    /// What it means.
    pub verdict: Verdict,
    /// What was found, for people; where it is bad, with what to do next.
    pub message: String,
}

/// What a finding means for the certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// It is in order.
    Good,
    /// Nothing is known to stand against it.
    Unknown,
    /// There would be none; of types of challenge: by no type that is so.
    Bad,
}

impl Finding {
    /// A finding with these.
    pub fn new(about: &str, verdict: Verdict, message: impl Into<String>) -> Self {
        Self {
            about: about.to_owned(),
            verdict,
            message: message.into(),
        }
    }

    /// Whether it is about a type of challenge, of which one that works is enough.
    pub fn is_of_a_challenge(&self) -> bool {
        self.about.ends_with("-01")
    }
}

/// Whether these findings of one issuer add up to a certificate.
pub fn would_issue(findings: &[Finding]) -> bool {
    let (challenges, others): (Vec<_>, Vec<_>) =
        findings.iter().partition(|one| one.is_of_a_challenge());
    let is_bad = |one: &&Finding| one.verdict == Verdict::Bad;
    !others.iter().any(is_bad) && (challenges.is_empty() || !challenges.iter().all(is_bad))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_challenge_that_works_is_enough_and_all_else_has_to_be_in_order() {
        let finding = |about: &str, verdict| Finding::new(about, verdict, "");
        let http = |verdict| finding("http-01", verdict);
        let tls = |verdict| finding("tls-alpn-01", verdict);
        for (findings, expected) in [
            (vec![], true),
            (
                vec![finding("caa", Verdict::Good), http(Verdict::Good)],
                true,
            ),
            (vec![http(Verdict::Bad), tls(Verdict::Good)], true),
            (vec![http(Verdict::Bad), tls(Verdict::Unknown)], true),
            (vec![http(Verdict::Bad), tls(Verdict::Bad)], false),
            (
                vec![finding("caa", Verdict::Bad), http(Verdict::Good)],
                false,
            ),
            (
                vec![finding("limits", Verdict::Unknown), http(Verdict::Good)],
                true,
            ),
        ] {
            assert_eq!(would_issue(&findings), expected, "{findings:?}");
        }
    }
}
