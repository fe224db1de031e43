//! What people should know of a certificate that is served, at a moment.
//!
//! [`findings`] is pure: the validity service reports what it returns, and the admin interface shows
//! it.

use super::TlsCertificate;
use super::error::CertificateWarning;
use super::flaws::Flaw;
use crate::clock::UnixTime;
use crate::event::{EventKind, Severity};
use crate::schedule::{Alert, Lifetime, RenewedBy, WarnFrom, is_overdue};

/// What a finding is about. Of each there is at most one for a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Reason {
    /// It has expired, expires soon, or is not valid yet.
    Validity,
    Revoked,
    /// The chain that is sent does not lead to a root that clients have.
    ChainIncomplete,
    /// The chain that is sent is not in order.
    ChainOrder,
    /// A host of a site is served no certificate that covers it.
    NameNotCovered,
    /// A signature in the chain is weak.
    WeakSignature,
    /// A key in the chain is weak.
    WeakKey,
    /// It should have been renewed by now.
    RenewalOverdue,
    /// It does not require an OCSP response, though its issuer is asked for one that does.
    NoMustStaple,
}

impl Reason {
    /// Every reason.
    pub const ALL: &'static [Self] = &[
        Self::Validity,
        Self::Revoked,
        Self::ChainIncomplete,
        Self::ChainOrder,
        Self::NameNotCovered,
        Self::WeakSignature,
        Self::WeakKey,
        Self::RenewalOverdue,
        Self::NoMustStaple,
    ];

    /// The name for programs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Validity => "validity",
            Self::Revoked => "revoked",
            Self::ChainIncomplete => "chain_incomplete",
            Self::ChainOrder => "chain_order",
            Self::NameNotCovered => "name_not_covered",
            Self::WeakSignature => "weak_signature",
            Self::WeakKey => "weak_key",
            Self::RenewalOverdue => "renewal_overdue",
            Self::NoMustStaple => "no_must_staple",
        }
    }
}

/// What is wrong, and how urgently people should know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Finding {
    pub reason: Reason,
    /// The kind of the event that reports it.
    pub kind: EventKind,
    pub severity: Severity,
}

impl Finding {
    /// That of a certificate that is revoked.
    pub const REVOKED: Self = Self {
        reason: Reason::Revoked,
        kind: EventKind::CertificateRevoked,
        severity: Severity::Critical,
    };

    /// A flaw of this severity.
    pub fn flaw(reason: Reason, severity: Severity) -> Self {
        let kind = EventKind::CertificateFlawed;
        Self {
            reason,
            kind,
            severity,
        }
    }

    /// The state of a certificate with this finding, by its name for programs; see [`STATES`].
    pub fn state(&self) -> &'static str {
        match self.kind {
            EventKind::CertificateExpired => "expired",
            EventKind::CertificateExpiring => "expiring",
            EventKind::CertificateNotYetValid => "not_yet_valid",
            _ => self.reason.as_str(),
        }
    }
}

/// The state of a certificate that is not served, since it requires an OCSP response and has none.
pub const WITHHELD: &str = "withheld";

/// Every state that a certificate can be in.
pub const STATES: [&str; 12] = [
    "valid",
    "expired",
    "expiring",
    "not_yet_valid",
    "revoked",
    WITHHELD,
    "chain_incomplete",
    "chain_order",
    "weak_signature",
    "weak_key",
    "renewal_overdue",
    "no_must_staple",
];

/// What is known of the renewal of a certificate.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RenewalFacts {
    pub renewed_by: RenewedBy,
    /// When it is or was planned for; `None` if that is not known here.
    pub expected: Option<UnixTime>,
    pub is_revoked: bool,
    /// Whether its issuer is asked for certificates that require an OCSP response.
    pub expects_must_staple: bool,
}

impl RenewalFacts {
    /// Those of a certificate that somebody else replaces.
    pub const BY_HAND: Self = Self {
        renewed_by: RenewedBy::ByHand,
        expected: None,
        is_revoked: false,
        expects_must_staple: false,
    };
}

/// The validity that is watched. A chain that ends sooner than its certificate leaves the time to its
/// end, of as long a life: what is early is a matter of that.
fn watched_lifetime(certificate: &TlsCertificate, now: UnixTime) -> Lifetime {
    let (own, served) = (certificate.lifetime(), certificate.served_lifetime());
    if !served.has_begun(now) {
        return served;
    }
    if served.not_after == own.not_after {
        return own;
    }
    Lifetime {
        not_before: served.not_after - own.length(),
        ..served
    }
}

/// What is wrong with `certificate` at `now`, the gravest first.
pub fn findings(
    certificate: &TlsCertificate,
    facts: &RenewalFacts,
    warn: WarnFrom,
    now: UnixTime,
) -> Vec<Finding> {
    let mut findings = Vec::new();
    let life = watched_lifetime(certificate, now);
    if let Some(alert) = Alert::for_lifetime(&life, facts.renewed_by, warn, now) {
        findings.push(Finding {
            reason: Reason::Validity,
            kind: alert.kind,
            severity: alert.severity,
        });
    }
    let status = certificate.status();
    if facts.is_revoked || status.is_some_and(|status| status.known().is_revoked()) {
        findings.push(Finding::REVOKED);
    }
    if let Some(expected) = facts.expected
        && is_overdue(&certificate.lifetime(), expected, now)
    {
        findings.push(Finding {
            reason: Reason::RenewalOverdue,
            kind: EventKind::CertificateRenewalOverdue,
            severity: Severity::Warning,
        });
    }
    let flaws = certificate.flaws();
    for (found, reason, severity) in [
        (
            flaws.has(Flaw::ChainIncomplete),
            Reason::ChainIncomplete,
            Severity::Error,
        ),
        (
            flaws.has(Flaw::ChainOrder),
            Reason::ChainOrder,
            Severity::Warning,
        ),
        (
            flaws.has(Flaw::WeakSignature) || flaws.has(Flaw::ChainWeakSignature),
            Reason::WeakSignature,
            Severity::Error,
        ),
        (
            flaws.has(Flaw::WeakKey) || flaws.has(Flaw::ChainWeakKey),
            Reason::WeakKey,
            Severity::Warning,
        ),
        (
            facts.expects_must_staple
                && !status.is_some_and(|status| status.sources().requires_staple),
            Reason::NoMustStaple,
            Severity::Warning,
        ),
    ] {
        if found {
            findings.push(Finding::flaw(reason, severity));
        }
    }
    findings.sort_by(|one, other| {
        let severity = other.severity.cmp(&one.severity);
        severity.then(one.reason.cmp(&other.reason))
    });
    findings
}

/// What a finding says of `certificate`, in words that follow "the certificate for NAME". Reads the
/// certificate from its file if it is not in memory.
pub fn describe(finding: &Finding, certificate: &TlsCertificate, facts: &RenewalFacts) -> String {
    // A chain that ends before its certificate makes clients refuse it as early.
    let chain = certificate
        .chain_end()
        .filter(|(end, _)| *end < certificate.not_after());
    let begin = certificate.chain_begin();
    let begin = begin.filter(|(begin, _)| *begin > certificate.not_before());
    let end = certificate.served_until();
    match (finding.kind, &chain) {
        (EventKind::CertificateNotYetValid, _) => match &begin {
            None => format!("is not valid before {}", certificate.not_before()),
            Some((begin, subject)) => format!(
                "is served with an intermediate certificate ({subject}) that is not valid before \
                 {begin}"
            ),
        },
        (EventKind::CertificateExpired, None) => {
            format!("expired at {end} but is still served")
        }
        (EventKind::CertificateExpired, Some((_, subject))) => {
            format!("is served with an intermediate certificate ({subject}) that expired at {end}")
        }
        (EventKind::CertificateExpiring, None) => format!("expires at {end}"),
        (EventKind::CertificateExpiring, Some((_, subject))) => {
            format!("is served with an intermediate certificate ({subject}) that expires at {end}")
        }
        (EventKind::CertificateRevoked, _) => "was revoked and is still served".to_owned(),
        (EventKind::CertificateRenewalOverdue, _) => {
            let expected = facts.expected.unwrap_or_default();
            format!("should have been renewed at {expected} and has not been")
        }
        _ => describe_flaw(finding.reason, certificate),
    }
}

fn describe_flaw(reason: Reason, certificate: &TlsCertificate) -> String {
    let is_about = |warning: &CertificateWarning| match (reason, warning) {
        (Reason::ChainIncomplete, CertificateWarning::Incomplete { .. })
        | (Reason::ChainOrder, CertificateWarning::Order) => true,
        (Reason::WeakKey | Reason::WeakSignature, CertificateWarning::Weak { is_key, .. }) => {
            *is_key == (reason == Reason::WeakKey)
        }
        _ => false,
    };
    let warnings = certificate.flaw_warnings();
    let texts: Vec<String> = warnings
        .iter()
        .filter(|warning| is_about(warning))
        .map(ToString::to_string)
        .collect();
    match (texts.is_empty(), reason) {
        (false, _) => format!("has a flaw: {}", texts.join("; ")),
        (true, Reason::ChainIncomplete) => "is sent with an incomplete chain".to_owned(),
        (true, Reason::NoMustStaple) => "does not require an OCSP response (Must-Staple), though \
                                         'must_staple' of its issuer asks for that: the CA leaves \
                                         it out, or the certificate is from before"
            .to_owned(),
        (true, Reason::WeakKey) => "has a weak key in its chain".to_owned(),
        (true, Reason::WeakSignature) => "has a weak signature in its chain".to_owned(),
        (true, _) => "has a flaw".to_owned(),
    }
}
