//! Makes metrics, and lists them for the documentation.

use prometheus::core::Collector;
use prometheus::{IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry};

use super::exposition::{Family, Kind};

/// Registers metrics as they are made.
#[derive(Default)]
pub(super) struct Catalog {
    pub(super) registry: Registry,
    pub(super) families: Vec<Family>,
}

type Made<M> = Result<M, prometheus::Error>;

impl Catalog {
    /// A counter.
    pub(super) fn counter(&mut self, name: &'static str, help: &'static str) -> Made<IntCounter> {
        let metric = IntCounter::new(name, help)?;
        self.register(Kind::Counter, name, help, &[], metric)
    }

    /// A counter for each combination of labels.
    pub(super) fn counters(
        &mut self,
        name: &'static str,
        help: &'static str,
        labels: &'static [&'static str],
    ) -> Made<IntCounterVec> {
        let metric = IntCounterVec::new(Opts::new(name, help), labels)?;
        self.register(Kind::Counter, name, help, labels, metric)
    }

    /// A counter for each of these values of its one label, from 0: an increase is seen only by who
    /// has seen the count before.
    pub(super) fn counters_of(
        &mut self,
        name: &'static str,
        help: &'static str,
        label: &'static [&'static str; 1],
        values: &[&str],
    ) -> Made<IntCounterVec> {
        let counters = self.counters(name, help, label)?;
        for value in values {
            counters.with_label_values(&[value]);
        }
        Ok(counters)
    }

    /// A gauge.
    pub(super) fn gauge(&mut self, name: &'static str, help: &'static str) -> Made<IntGauge> {
        let metric = IntGauge::new(name, help)?;
        self.register(Kind::Gauge, name, help, &[], metric)
    }

    /// A gauge for each combination of labels.
    pub(super) fn gauges(
        &mut self,
        name: &'static str,
        help: &'static str,
        labels: &'static [&'static str],
    ) -> Made<IntGaugeVec> {
        let kind = match name.ends_with("_info") {
            true => Kind::Info,
            false => Kind::Gauge,
        };
        let metric = IntGaugeVec::new(Opts::new(name, help), labels)?;
        self.register(kind, name, help, labels, metric)
    }

    /// Lists what a source writes itself.
    pub(super) fn list(&mut self, families: &[Family]) {
        self.families.extend_from_slice(families);
    }

    fn register<M: Collector + Clone + 'static>(
        &mut self,
        kind: Kind,
        name: &'static str,
        help: &'static str,
        labels: &'static [&'static str],
        metric: M,
    ) -> Made<M> {
        self.registry.register(Box::new(metric.clone()))?;
        self.families.push(Family {
            name,
            kind,
            labels,
            help,
        });
        Ok(metric)
    }
}
