//! When certificates expire: a sample for each of those that expire first, made at the time of the
//! scrape.
//!
//! A million gauges would take a gigabyte here, and more wherever they are collected.

use std::collections::HashSet;
use std::fmt;
use std::sync::{Arc, Mutex};

use super::exposition::{Exposition, Family, Kind, Source};
use crate::lock::MutexExt;

/// The end of a certificate's validity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct End {
    pub name: String,
    pub source: String,
    /// In Unix time.
    pub end: i64,
}

/// Those that expire first, in this order, and the number of the others.
type Shown = dyn Fn() -> (Vec<End>, usize) + Send + Sync;

/// The gauges. A handle; clones show the same.
#[derive(Clone, Default)]
pub struct CertificateEnds {
    shown: Arc<Mutex<Option<Box<Shown>>>>,
}

const ENDS: Family = Family {
    name: "snigate_certificate_not_after_seconds",
    kind: Kind::Gauge,
    labels: &["name", "source"],
    help: "Unix time at which the certificate of a site's name expires, of those that expire first.",
};

const HIDDEN: Family = Family {
    name: "snigate_certificates_not_shown",
    kind: Kind::Gauge,
    labels: &[],
    help: "Certificates whose expiry is not shown because others expire earlier.",
};

/// What is written here.
pub(super) const FAMILIES: [Family; 2] = [ENDS, HIDDEN];

impl CertificateEnds {
    /// Shows from now on what `shown` returns.
    pub fn show(&self, shown: impl Fn() -> (Vec<End>, usize) + Send + Sync + 'static) {
        let mut place = self.shown.lock_unpoisoned();
        *place = Some(Box::new(shown));
    }
}

impl Source for CertificateEnds {
    fn write(&self, to: &mut Exposition) {
        let place = self.shown.lock_unpoisoned();
        let (ends, hidden) = place.as_ref().map(|shown| shown()).unwrap_or_default();
        drop(place);
        if !ends.is_empty() {
            to.begin(ENDS.name, ENDS.kind, ENDS.help);
        }
        // The first entry of a name is the one that expires first.
        let mut written = HashSet::with_capacity(ends.len());
        for End { name, source, end } in &ends {
            if written.insert((name, source)) {
                let labels = [("name", &**name), ("source", &**source)];
                to.sample(ENDS.name, &labels, *end as f64);
            }
        }
        to.begin(HIDDEN.name, HIDDEN.kind, HIDDEN.help);
        to.integer(HIDDEN.name, &[], hidden as u64);
    }
}

impl fmt::Debug for CertificateEnds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CertificateEnds").finish_non_exhaustive()
    }
}
