//! How the admin interface shows certificates, those that are served and those that should be.
//!
//! [`CertificateView`] is made from a loaded certificate, or from the state of one that issuers are
//! asked for, [`Managed`]. Nothing here has a place for a private key.

mod renewal;
mod staple;

use std::cmp::Reverse;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

pub use self::renewal::{AdviceView, FailureView, HeldView, RenewalView};
pub use self::staple::StapleView;
use super::view::rfc3339;
use crate::certificate::material::Description;
use crate::certificate::{TlsCertificate, Validity};
use crate::clock::UnixTime;
use crate::event::Severity;
use crate::host::Pattern;
use crate::schedule::advice::Window;
use crate::schedule::{Failure, FailureClass};
use crate::storage::keys;

const DAY: i64 = 86_400;

/// An element of `GET /api/v1/certificates`: a certificate, or one that is missing.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct CertificateView {
    /// The first of its names.
    pub name: String,
    pub names: Vec<String>,
    pub state: CertificateState,
    /// `file`, `directory`, or the name of the issuer that issued it or is asked first; `none` if
    /// it is missing and no issuer is asked.
    pub source: String,
    /// The issuer's distinguished name.
    pub issuer: Option<String>,
    #[serde(with = "rfc3339::option")]
    pub not_before: Option<UnixTime>,
    #[serde(with = "rfc3339::option")]
    pub not_after: Option<UnixTime>,
    /// Whole days until clients refuse it: to its end or that of its chain. Negative afterwards.
    pub days_left: Option<i64>,
    /// The kind of its key: `ecdsa`, `ed25519`, `rsa`.
    pub key: Option<String>,
    /// In hexadecimal.
    pub serial: Option<String>,
    /// SHA-256 of the certificate, in hexadecimal.
    pub fingerprint: Option<String>,
    /// The file it was read from. Parts of its name that are not UTF-8 are replaced, because JSON
    /// cannot hold them.
    pub file: Option<PathBuf>,
    /// The certificate above it in its chain that expires first, if that is before its own end.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub chain_end: Option<ChainEnd>,
    /// The OCSP response that is stapled to it; `None` if it names no responder.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub staple: Option<StapleView>,
    /// What is wrong with it although it is served, the gravest first.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub findings: Vec<FindingView>,
    /// How it is renewed; `None` if no issuer is asked for it.
    pub renewal: Option<RenewalView>,
    /// The certificates that clients are sent, in PEM; only if a single certificate is requested.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub chain: Option<String>,
}

/// The end of a chain that comes before that of its certificate: clients refuse both from then on.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct ChainEnd {
    /// The distinguished name of the certificate that expires.
    pub subject: String,
    #[serde(with = "rfc3339")]
    pub not_after: UnixTime,
}

impl ChainEnd {
    fn of(certificate: &TlsCertificate) -> Option<Self> {
        let (not_after, subject) = certificate.chain_end()?;
        (not_after < certificate.not_after()).then_some(Self { subject, not_after })
    }
}

/// What is wrong with a certificate that is served.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct FindingView {
    /// What it is, as in metrics: `expiring`, `chain_incomplete`.
    pub state: String,
    pub severity: Severity,
    /// The same for people, in words that follow the certificate's name.
    pub message: String,
}

/// The state of a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum CertificateState {
    /// It is valid, and nothing is due.
    Valid,
    /// It is valid, and waits for its renewal.
    Due,
    /// An issuer is being asked for the first or the next one.
    Obtaining,
    /// There is none, and no issuer has been asked yet, or none can be.
    Missing,
    /// The last attempt at the first or the next one failed; it is retried.
    Failed,
    /// The CA wants a person to act first; it is not retried.
    Paused,
    /// It was revoked, and is served until there is another.
    Revoked,
    /// It is not served, since it requires an OCSP response and has none.
    Withheld,
    /// It has expired.
    Expired,
    /// It is not valid yet.
    NotYetValid,
}

impl CertificateState {
    /// Its name in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Valid => "valid",
            Self::Due => "due",
            Self::Obtaining => "obtaining",
            Self::Missing => "missing",
            Self::Failed => "failed",
            Self::Paused => "paused",
            Self::Revoked => "revoked",
            Self::Withheld => "withheld",
            Self::Expired => "expired",
            Self::NotYetValid => "not_yet_valid",
        }
    }
}

impl fmt::Display for CertificateState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The state of a certificate that issuers are asked for.
#[derive(Clone, Debug)]
pub struct Managed {
    pub names: Vec<Pattern>,
    /// Tried in order.
    pub issuers: Vec<Arc<str>>,
    /// The one that is served; `None` before the first.
    pub certificate: Option<Arc<TlsCertificate>>,
    /// Whether the served one was revoked.
    pub revoked: bool,
    /// Whether an issuer is being asked now.
    pub obtaining: bool,
    /// Whether it was requested by a client, not by the configuration.
    pub on_demand: bool,
    /// When it is renewed or retried.
    pub next: Option<UnixTime>,
    pub held: Option<HeldView>,
    /// Why the storage cannot be read.
    pub unread: Option<Arc<str>>,
    pub advice: Option<Window>,
    pub failures: u32,
    pub last_failure: Option<LastFailure>,
    pub findings: Vec<FindingView>,
}

/// The last attempt at which no issuer issued a certificate.
#[derive(Clone, Debug)]
pub struct LastFailure {
    pub at: UnixTime,
    pub issuer: Option<Arc<str>>,
    pub failure: Failure,
}

impl CertificateView {
    /// A loaded certificate that no issuer is asked for.
    pub fn loaded(certificate: &TlsCertificate, now: UnixTime) -> Self {
        let state = invalid(certificate, now).unwrap_or_else(|| match is_revoked(certificate) {
            true => CertificateState::Revoked,
            false => CertificateState::Valid,
        });
        let names: Vec<String> = certificate
            .names()
            .iter()
            .map(ToString::to_string)
            .collect();
        let Description { issuer, serial } = certificate.describe();
        Self {
            name: names.first().cloned().unwrap_or_default(),
            names,
            state,
            source: certificate.source().label().to_owned(),
            issuer: Some(issuer),
            not_before: Some(certificate.not_before()),
            not_after: Some(certificate.not_after()),
            days_left: Some((certificate.served_until() - now).div_euclid(DAY)),
            key: Some(certificate.kind().to_string()),
            serial: Some(serial),
            fingerprint: Some(certificate.fingerprint().to_string()),
            file: certificate
                .source()
                .path()
                .map(|path| path.to_string_lossy().into_owned().into()),
            chain_end: ChainEnd::of(certificate),
            staple: StapleView::of(certificate, now),
            findings: Vec::new(),
            renewal: None,
            chain: None,
        }
    }

    /// A certificate that issuers are asked for.
    pub fn managed(managed: &Managed, now: UnixTime) -> Self {
        let certificate = managed.certificate.as_deref();
        let state = certificate
            .and_then(|certificate| invalid(certificate, now))
            .unwrap_or_else(|| standing(managed, now));
        let names: Vec<String> = managed.names.iter().map(ToString::to_string).collect();
        let mut view = match certificate {
            Some(certificate) => Self::loaded(certificate, now),
            None => Self::missing(names.clone()),
        };
        view.state = state;
        view.findings.clone_from(&managed.findings);
        view.name = names.first().cloned().unwrap_or_default();
        view.names = names;
        if let (None, Some(first)) = (certificate, managed.issuers.first()) {
            view.source = first.to_string();
        }
        view.renewal = Some(RenewalView {
            subject: keys::subject(&managed.names),
            issuers: managed.issuers.iter().map(ToString::to_string).collect(),
            obtaining: managed.obtaining,
            on_demand: managed.on_demand,
            next: managed.next,
            held: managed.held.clone(),
            unread: managed.unread.as_deref().map(str::to_owned),
            advice: managed.advice.as_ref().map(AdviceView::from),
            failures: managed.failures,
            last_failure: managed.last_failure.as_ref().map(FailureView::from),
        });
        view
    }

    /// A certificate with these names that is needed, but no issuer can be asked for it.
    pub fn missing(names: Vec<String>) -> Self {
        Self {
            name: names.first().cloned().unwrap_or_default(),
            names,
            state: CertificateState::Missing,
            source: "none".to_owned(),
            issuer: None,
            not_before: None,
            not_after: None,
            days_left: None,
            key: None,
            serial: None,
            fingerprint: None,
            file: None,
            chain_end: None,
            staple: None,
            findings: Vec::new(),
            renewal: None,
            chain: None,
        }
    }

    /// Returns true if there is a certificate, and it is within its period of validity.
    pub fn is_usable(&self) -> bool {
        self.fingerprint.is_some()
            && !matches!(
                self.state,
                CertificateState::Expired | CertificateState::NotYetValid
            )
    }

    /// Until when clients accept it: its end, or that of its chain if that comes first.
    pub fn served_until(&self) -> Option<UnixTime> {
        let chain = self.chain_end.as_ref().map(|end| end.not_after);
        self.not_after.into_iter().chain(chain).min()
    }

    /// Returns true if it covers `name`, which is normalized.
    pub(super) fn covers(&self, name: &str) -> bool {
        self.rank(name).is_some()
    }

    /// Returns true if `name` is one of its own names or its fingerprint, not just covered.
    pub(super) fn is_named(&self, name: &str) -> bool {
        let name = normal(name);
        self.fingerprint.as_ref() == Some(&name) || self.names.contains(&name)
    }

    /// How precisely `name`, which is normalized, identifies this certificate; lower is better.
    fn rank(&self, name: &str) -> Option<u8> {
        let covers = |own: &String| {
            let above = own.strip_prefix("*.");
            above.is_some() && above == crate::host::parent(name)
        };
        if self.fingerprint.as_deref() == Some(name) {
            Some(0)
        } else if self.names.iter().any(|own| own == name) {
            Some(1)
        } else {
            self.names.iter().any(covers).then_some(2)
        }
    }
}

/// Whether its CA says that it is revoked.
fn is_revoked(certificate: &TlsCertificate) -> bool {
    let status = certificate.status();
    status.is_some_and(|status| status.known().is_revoked())
}

fn invalid(certificate: &TlsCertificate, now: UnixTime) -> Option<CertificateState> {
    match certificate.validity(now) {
        Validity::Expired => Some(CertificateState::Expired),
        Validity::NotYet => Some(CertificateState::NotYetValid),
        Validity::Valid => None,
    }
}

/// The state of a certificate that is valid or missing.
fn standing(managed: &Managed, now: UnixTime) -> CertificateState {
    let class = managed.last_failure.as_ref().map(|last| last.failure.class);
    if managed.obtaining {
        CertificateState::Obtaining
    } else if managed.failures > 0 && class == Some(FailureClass::Paused) {
        CertificateState::Paused
    } else if managed.failures > 0 {
        CertificateState::Failed
    } else if managed.certificate.is_none() {
        CertificateState::Missing
    } else if managed.revoked {
        CertificateState::Revoked
    } else if managed.next.is_some_and(|next| next <= now) {
        CertificateState::Due
    } else {
        CertificateState::Valid
    }
}

/// The certificate identified by `name`: a name that it covers, or its fingerprint. Of several, the
/// one that is identified best, is managed, is usable, and lasts longest.
pub fn find<'v>(views: &'v [CertificateView], name: &str) -> Option<&'v CertificateView> {
    let name = normal(name);
    views
        .iter()
        .filter_map(|view| Some((view.rank(&name)?, view)))
        .min_by_key(|(rank, view)| {
            (
                *rank,
                view.renewal.is_none(),
                !view.is_usable(),
                Reverse(view.served_until()),
            )
        })
        .map(|(_, view)| view)
}

/// Names similar to `name`, for mistyped ones; the nearest first.
pub(super) fn nearest<'v>(views: &'v [CertificateView], name: &str) -> Vec<&'v str> {
    const MOST: usize = 3;
    // The cost of a distance is the product of the lengths.
    const LONGEST: usize = 64;
    let name = normal(name);
    // Names on one machine usually end alike.
    let limit = 1 + name.len() / 6;
    if name.len() > LONGEST {
        return Vec::new();
    }
    let mut near: Vec<(usize, &str)> = views
        .iter()
        .flat_map(|view| &view.names)
        .filter(|known| known.len() <= LONGEST && known.len().abs_diff(name.len()) <= limit)
        .map(|known| (strsim::osa_distance(&name, known), known.as_str()))
        .filter(|(distance, _)| *distance <= limit)
        .collect();
    near.sort_unstable();
    near.dedup();
    near.into_iter().take(MOST).map(|(_, name)| name).collect()
}

/// The normalized form of a name, if it is one.
pub(super) fn normal(name: &str) -> String {
    name.parse::<Pattern>()
        .map_or_else(|_| name.to_ascii_lowercase(), |pattern| pattern.to_string())
}
