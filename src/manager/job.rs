//! Work on one certificate, as it goes from the manager to whoever does it and back.

use std::sync::Arc;

use prometheus::IntCounterVec;

use super::health::Health;
use super::needs::Need;
use super::stored::Parcel;
use crate::certificate::{Loader, TlsCertificate};
use crate::clock::Clock;
use crate::event::EventBus;
use crate::issuer::Issuer;
use crate::local_ca::LocalCa;
use crate::schedule::{Failure, FailureClass};
use crate::storage::Storage;

/// What work on a certificate needs.
#[derive(Clone)]
pub struct Tools {
    pub(super) storage: Arc<dyn Storage>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) loader: Arc<Loader>,
    pub(super) events: EventBus,
    pub(super) health: Arc<Health>,
    /// Counts certificates that were asked for, by issuer and result.
    pub(super) renewals: Option<IntCounterVec>,
}

impl Tools {
    /// Where it is told what happens.
    pub fn events(&self) -> &EventBus {
        &self.events
    }
}

/// A certificate to be obtained or renewed.
pub struct Job {
    pub(super) need: Arc<Need>,
    pub(super) subject: String,
    pub(super) issuers: Vec<Authority>,
    /// How often in a row this has failed before.
    pub(super) failures: u32,
    /// The certificate to be replaced.
    pub(super) present: Option<Arc<TlsCertificate>>,
    /// See [`crate::config::model::Renewal::window`].
    pub(super) window: f64,
}

impl Job {
    /// The first name, by which people know the certificate.
    pub fn domain(&self) -> String {
        self.need.domain()
    }

    /// What is left of this in case that the work breaks off.
    pub fn unfinished(&self) -> Unfinished {
        Unfinished(Arc::clone(&self.need))
    }
}

/// Whom to ask for a certificate.
#[derive(Clone)]
pub(super) enum Authority {
    Remote(Arc<dyn Issuer>),
    Local(Arc<LocalCa>),
}

impl Authority {
    pub(super) fn name(&self) -> &Arc<str> {
        match self {
            Self::Remote(issuer) => issuer.name(),
            Self::Local(ca) => ca.issuer(),
        }
    }
}

/// Work that broke off, which is a defect.
pub struct Unfinished(Arc<Need>);

impl Unfinished {
    /// What is to be said of it.
    pub fn broken_off(self) -> Done {
        let Self(need) = self;
        let why = "the work on it broke off, which is a defect; see the log";
        let issuer = need.issuers.first().cloned();
        Done {
            need,
            outcome: Outcome::Failed {
                failure: Failure::new(FailureClass::Internal, why),
                issuer: issuer.unwrap_or_else(|| "".into()),
            },
        }
    }
}

/// What came of a [`Job`].
pub struct Done {
    pub(super) need: Arc<Need>,
    pub(super) outcome: Outcome,
}

pub(super) enum Outcome {
    /// There is a certificate.
    Issued {
        certificate: Arc<TlsCertificate>,
        issuer: Arc<str>,
        /// What could not be stored.
        unsaved: Option<Parcel>,
    },
    /// Another instance has stored one.
    Found(Arc<TlsCertificate>),
    /// Another instance is at it.
    Elsewhere,
    Failed {
        failure: Failure,
        issuer: Arc<str>,
    },
}
