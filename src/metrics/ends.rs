//! When certificates expire: a gauge for each of those that expire first, made at the time of the
//! scrape.
//!
//! A million gauges would take a gigabyte here, and more wherever they are collected.

use std::fmt;
use std::sync::{Arc, Mutex};

use crate::lock::MutexExt;
use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{IntGauge, IntGaugeVec, Opts};

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
#[derive(Clone)]
pub struct CertificateEnds {
    ends: Opts,
    hidden: IntGauge,
    desc: Desc,
    shown: Arc<Mutex<Option<Box<Shown>>>>,
}

impl CertificateEnds {
    /// Gauges with these names and descriptions, one for each end and one for all others.
    pub(super) fn new(ends: (&str, &str), hidden: (&str, &str)) -> Result<Self, prometheus::Error> {
        let ends = Opts::new(ends.0, ends.1);
        let labels = LABELS.map(str::to_owned).to_vec();
        Ok(Self {
            desc: Desc::new(
                ends.fq_name(),
                ends.help.clone(),
                labels,
                ends.const_labels.clone(),
            )?,
            ends,
            hidden: IntGauge::new(hidden.0, hidden.1)?,
            shown: Arc::default(),
        })
    }

    /// Shows from now on what `shown` returns.
    pub fn show(&self, shown: impl Fn() -> (Vec<End>, usize) + Send + Sync + 'static) {
        let mut place = self.shown.lock_unpoisoned();
        *place = Some(Box::new(shown));
    }
}

const LABELS: [&str; 2] = ["name", "source"];

impl Collector for CertificateEnds {
    fn desc(&self) -> Vec<&Desc> {
        let mut descs = vec![&self.desc];
        descs.extend(self.hidden.desc());
        descs
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let place = self.shown.lock_unpoisoned();
        let (ends, hidden) = place.as_ref().map(|shown| shown()).unwrap_or_default();
        drop(place);
        let Ok(gauges) = IntGaugeVec::new(self.ends.clone(), &LABELS) else {
            return Vec::new();
        };
        // The last entry of a name is the one that expires first.
        for End { name, source, end } in ends.iter().rev() {
            gauges.with_label_values(&[name, source]).set(*end);
        }
        self.hidden.set(i64::try_from(hidden).unwrap_or(i64::MAX));
        let mut families = gauges.collect();
        families.extend(self.hidden.collect());
        families
    }
}

impl fmt::Debug for CertificateEnds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CertificateEnds").finish_non_exhaustive()
    }
}
