//! Tells the metrics which certificates there are and when they end.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use crate::certificate::TlsCertificate;
use crate::clock::UnixTime;
use crate::metrics::Metrics;

/// The gauges of every certificate, kept up one change at a time.
pub(super) struct Gauges {
    metrics: Metrics,
    by_source: HashMap<String, i64>,
    /// When certificates end, by first name and source; several where a name has several.
    ends: HashMap<(String, String), Vec<UnixTime>>,
}

impl Gauges {
    pub(super) fn new(metrics: Metrics) -> Self {
        Self {
            metrics,
            by_source: HashMap::new(),
            ends: HashMap::new(),
        }
    }

    pub(super) fn add(&mut self, certificate: &TlsCertificate) {
        let label = label(certificate);
        self.count(&label.1, 1);
        let ends = self.ends.entry(label.clone()).or_default();
        ends.push(certificate.not_after());
        self.show(&label);
    }

    pub(super) fn remove(&mut self, certificate: &TlsCertificate) {
        let label = label(certificate);
        self.count(&label.1, -1);
        if let Entry::Occupied(mut ends) = self.ends.entry(label.clone()) {
            let ended = ends
                .get()
                .iter()
                .position(|end| *end == certificate.not_after());
            if let Some(ended) = ended {
                ends.get_mut().swap_remove(ended);
            }
            if ends.get().is_empty() {
                ends.remove();
            }
        }
        self.show(&label);
    }

    fn count(&mut self, source: &str, by: i64) {
        let count = self.by_source.entry(source.to_owned()).or_default();
        *count += by;
        self.metrics
            .certificates
            .with_label_values(&[source])
            .set(*count);
    }

    /// Shows the end that comes first, or no longer any.
    fn show(&self, label: &(String, String)) {
        let labels = [label.0.as_str(), label.1.as_str()];
        let gauge = &self.metrics.certificate_not_after;
        match self.ends.get(label).and_then(|ends| ends.iter().min()) {
            Some(first) => gauge.with_label_values(&labels).set(*first),
            // Only fails where it is not shown.
            None => drop(gauge.remove_label_values(&labels)),
        }
    }
}

/// The first name of a certificate, and its source.
fn label(certificate: &TlsCertificate) -> (String, String) {
    let name = certificate.names().first();
    let name = name.map_or_else(String::new, ToString::to_string);
    (name, certificate.source().label().to_owned())
}
