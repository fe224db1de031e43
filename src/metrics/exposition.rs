//! Writes metrics as text: in Prometheus's format 0.0.4, or as OpenMetrics 1.0.0.
//!
//! The encoder of the `prometheus` crate knows only the former and no exemplars, and allocates for
//! each sample. The crates that write OpenMetrics bring metric types of their own, to which every
//! counter of the gateway would have to move; this file is the smaller change. What has many samples
//! writes them here directly ([`Source`]).
//!
//! `_created` is left out: it would double the number of counters, and the time at which the process
//! started is a metric of its own.

use std::io::Write as _;

use prometheus::proto::{Histogram, MetricFamily, MetricType};

use super::exemplar::Exemplar;

/// A text format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Prometheus's own, version 0.0.4.
    Text,
    /// OpenMetrics 1.0.0, which has exemplars.
    OpenMetrics,
}

impl Format {
    /// Its media type.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// What kind of metric a family has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Counter,
    Gauge,
    Histogram,
    /// A gauge that is always 1, whose labels are the information.
    Info,
}

impl Kind {
    /// Its name in the documentation and in OpenMetrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
            Self::Info => "info",
        }
    }
}

/// What writes its samples itself.
pub(super) trait Source: Send + Sync {
    /// Writes whole families.
    fn write(&self, to: &mut Exposition);
}

/// The name, the kind and the description of a metric.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Family {
    /// With the suffix that samples of counters have.
    pub name: &'static str,
    pub kind: Kind,
    pub labels: &'static [&'static str],
    pub help: &'static str,
}

/// The labels of a sample.
pub(super) type Labels<'a> = &'a [(&'a str, &'a str)];

/// A text in the making.
pub(super) struct Exposition {
    format: Format,
    text: Vec<u8>,
}

impl Exposition {
    pub(super) fn new(format: Format) -> Self {
        Self {
            format,
            text: Vec::with_capacity(64 << 10),
        }
    }

    /// Begins a family, all samples of which follow.
    pub(super) fn begin(&mut self, name: &str, kind: Kind, help: &str) {
        let is_open = self.format == Format::OpenMetrics;
        let (family, kind_name) = match (is_open, kind) {
            (true, Kind::Counter) => (name.strip_suffix("_total").unwrap_or(name), kind.as_str()),
            (true, Kind::Info) => (name.strip_suffix("_info").unwrap_or(name), kind.as_str()),
            (false, Kind::Info) => (name, Kind::Gauge.as_str()),
            _ => (name, kind.as_str()),
        };
        self.push(&["# HELP ", family, " "]);
        escape(&mut self.text, help, is_open);
        self.push(&["\n# TYPE ", family, " ", kind_name, "\n"]);
        if is_open && let Some(unit) = unit(family) {
            self.push(&["# UNIT ", family, " ", unit, "\n"]);
        }
    }

    /// Writes a sample of a counter or a gauge.
    pub(super) fn sample(&mut self, name: &str, labels: Labels<'_>, value: f64) {
        self.begin_sample(name, "", labels);
        self.number(value);
        self.text.push(b'\n');
    }

    /// Writes a sample of a counter or a gauge that is a whole number.
    pub(super) fn integer(&mut self, name: &str, labels: Labels<'_>, value: u64) {
        self.begin_sample(name, "", labels);
        self.whole(value);
        self.text.push(b'\n');
    }

    /// Writes a histogram: for each bucket its upper bound, how many values are in it or in one
    /// before, and perhaps one of them.
    pub(super) fn histogram(
        &mut self,
        name: &str,
        labels: Labels<'_>,
        buckets: impl Iterator<Item = (f64, u64, Option<Exemplar>)>,
        sum: f64,
    ) {
        // All buckets of a histogram begin with the same text.
        let start = self.text.len();
        self.push(&[name, "_bucket{"]);
        for (label, value) in labels {
            self.push(&[label, "=\""]);
            escape(&mut self.text, value, true);
            self.push(&["\","]);
        }
        self.push(&["le=\""]);
        let end = self.text.len();
        let (mut count, mut is_first) = (0, true);
        for (bound, cumulative, exemplar) in buckets {
            if !std::mem::replace(&mut is_first, false) {
                self.text.extend_from_within(start..end);
            }
            self.bound(bound);
            self.push(&["\"} "]);
            self.whole(cumulative);
            if let (Format::OpenMetrics, Some(exemplar)) = (self.format, exemplar) {
                // Writing to memory does not fail.
                _ = write!(
                    self.text,
                    " # {{trace_id=\"{:032x}\"}} {} {}",
                    exemplar.traced.id,
                    exemplar.value,
                    exemplar.traced.at.as_secs(),
                );
            }
            self.text.push(b'\n');
            count = cumulative;
        }
        self.begin_sample(name, "_sum", labels);
        self.number(sum);
        self.text.push(b'\n');
        self.begin_sample(name, "_count", labels);
        self.whole(count);
        self.text.push(b'\n');
    }

    /// Writes a family that a registry has gathered.
    pub(super) fn family(&mut self, family: &MetricFamily) {
        let name = family.name();
        let kind = match family.get_field_type() {
            MetricType::COUNTER => Kind::Counter,
            MetricType::HISTOGRAM => Kind::Histogram,
            _ if name.ends_with("_info") => Kind::Info,
            _ => Kind::Gauge,
        };
        self.begin(name, kind, family.help());
        let mut labels = Vec::new();
        for metric in family.get_metric() {
            labels.clear();
            let pairs = metric.get_label().iter();
            labels.extend(pairs.map(|pair| (pair.name(), pair.value())));
            match kind {
                Kind::Counter => self.sample(name, &labels, metric.get_counter().get_value()),
                Kind::Gauge | Kind::Info => {
                    self.sample(name, &labels, metric.get_gauge().get_value());
                }
                Kind::Histogram => {
                    let histogram = metric.get_histogram();
                    let sum = histogram.get_sample_sum();
                    self.histogram(name, &labels, buckets(histogram), sum);
                }
            }
        }
    }

    /// The whole text.
    pub(super) fn finish(mut self) -> Vec<u8> {
        if self.format == Format::OpenMetrics {
            self.push(&["# EOF\n"]);
        }
        self.text
    }

    fn begin_sample(&mut self, name: &str, suffix: &str, labels: Labels<'_>) {
        self.push(&[name, suffix]);
        let mut before = "{";
        for (label, value) in labels {
            self.push(&[before, label, "=\""]);
            escape(&mut self.text, value, true);
            self.push(&["\""]);
            before = ",";
        }
        self.push(&[if labels.is_empty() { " " } else { "} " }]);
    }

    fn push(&mut self, parts: &[&str]) {
        for part in parts {
            self.text.extend_from_slice(part.as_bytes());
        }
    }

    fn number(&mut self, value: f64) {
        let infinite = if value > 0.0 { "+Inf" } else { "-Inf" };
        if value.is_infinite() {
            return self.push(&[infinite]);
        }
        // Writing to memory does not fail. It has no exponent, and NaN is written so.
        _ = write!(self.text, "{value}");
    }

    fn whole(&mut self, value: u64) {
        let mut digits = [0; 20];
        let mut at = digits.len();
        let mut rest = value;
        for (place, digit) in digits.iter_mut().enumerate().rev() {
            *digit = b'0' + (rest % 10) as u8;
            (rest, at) = (rest / 10, place);
            if rest == 0 {
                break;
            }
        }
        self.text
            .extend_from_slice(digits.get(at..).unwrap_or_default());
    }

    /// Writes a bucket's upper bound. OpenMetrics has one form for each number, with a point.
    fn bound(&mut self, bound: f64) {
        let start = self.text.len();
        self.number(bound);
        let written = self.text.get(start..).unwrap_or_default();
        let is_whole = written.iter().all(u8::is_ascii_digit);
        if is_whole && self.format == Format::OpenMetrics {
            self.push(&[".0"]);
        }
    }
}

/// The buckets of a histogram, with that of all values.
fn buckets(histogram: &Histogram) -> impl Iterator<Item = (f64, u64, Option<Exemplar>)> {
    let buckets = histogram.get_bucket().iter();
    let buckets = buckets.map(|bucket| (bucket.upper_bound(), bucket.cumulative_count(), None));
    let all = (f64::INFINITY, histogram.get_sample_count(), None);
    buckets.filter(|(bound, ..)| bound.is_finite()).chain([all])
}

/// The unit at the end of a family's name.
fn unit(family: &str) -> Option<&'static str> {
    ["seconds", "bytes"].into_iter().find(|unit| {
        family
            .strip_suffix(unit)
            .is_some_and(|rest| rest.ends_with('_'))
    })
}

/// Writes a text so that it ends neither its line nor, if it is in quotes, its value.
fn escape(text: &mut Vec<u8>, value: &str, is_quoted: bool) {
    let mut rest = value.as_bytes();
    while let Some(at) = rest
        .iter()
        .position(|octet| matches!(octet, b'\\' | b'\n') || (is_quoted && *octet == b'"'))
    {
        let (plain, special) = rest.split_at(at);
        text.extend_from_slice(plain);
        text.extend_from_slice(match special.first() {
            Some(b'\n') => b"\\n",
            Some(b'"') => b"\\\"",
            _ => b"\\\\",
        });
        rest = special.get(1..).unwrap_or_default();
    }
    text.extend_from_slice(rest);
}

#[cfg(test)]
mod tests {
    use super::super::exemplar::Traced;
    use super::*;
    use crate::clock::unix;

    const EXEMPLAR: Exemplar = Exemplar {
        traced: Traced {
            id: 0xab,
            at: unix(1_700_000_000),
        },
        value: 0.25,
    };

    fn sample(format: Format) -> String {
        let mut text = Exposition::new(format);
        text.begin("a_requests_total", Kind::Counter, "Says \"a\\b\".\nOr not.");
        text.integer("a_requests_total", &[("site", "a\"\\\nb"), ("x", "")], 10);
        text.begin("a_build_info", Kind::Info, "Which.");
        text.sample("a_build_info", &[("version", "1")], 1.0);
        text.begin("a_size_bytes", Kind::Gauge, "How much.");
        text.sample("a_size_bytes", &[], -1.5);
        text.begin("a_wait_seconds", Kind::Histogram, "How long.");
        let buckets = [
            (0.5, 1, Some(EXEMPLAR)),
            (1.0, 1, None),
            (f64::INFINITY, 2, None),
        ];
        text.histogram("a_wait_seconds", &[("u", "x")], buckets.into_iter(), 2.75);
        text.begin("a_idle_seconds", Kind::Histogram, "How long.");
        let none = [(f64::INFINITY, u64::MAX, None)];
        text.histogram("a_idle_seconds", &[], none.into_iter(), 0.0);
        String::from_utf8(text.finish()).expect("text")
    }

    #[test]
    fn prometheus_gets_its_own_format() {
        assert_eq!(
            sample(Format::Text),
            r#"# HELP a_requests_total Says "a\\b".\nOr not.
# TYPE a_requests_total counter
a_requests_total{site="a\"\\\nb",x=""} 10
# HELP a_build_info Which.
# TYPE a_build_info gauge
a_build_info{version="1"} 1
# HELP a_size_bytes How much.
# TYPE a_size_bytes gauge
a_size_bytes -1.5
# HELP a_wait_seconds How long.
# TYPE a_wait_seconds histogram
a_wait_seconds_bucket{u="x",le="0.5"} 1
a_wait_seconds_bucket{u="x",le="1"} 1
a_wait_seconds_bucket{u="x",le="+Inf"} 2
a_wait_seconds_sum{u="x"} 2.75
a_wait_seconds_count{u="x"} 2
# HELP a_idle_seconds How long.
# TYPE a_idle_seconds histogram
a_idle_seconds_bucket{le="+Inf"} 18446744073709551615
a_idle_seconds_sum 0
a_idle_seconds_count 18446744073709551615
"#
        );
    }

    #[test]
    fn open_metrics_has_units_exemplars_and_an_end() {
        assert_eq!(
            sample(Format::OpenMetrics),
            r#"# HELP a_requests Says \"a\\b\".\nOr not.
# TYPE a_requests counter
a_requests_total{site="a\"\\\nb",x=""} 10
# HELP a_build Which.
# TYPE a_build info
a_build_info{version="1"} 1
# HELP a_size_bytes How much.
# TYPE a_size_bytes gauge
# UNIT a_size_bytes bytes
a_size_bytes -1.5
# HELP a_wait_seconds How long.
# TYPE a_wait_seconds histogram
# UNIT a_wait_seconds seconds
a_wait_seconds_bucket{u="x",le="0.5"} 1 # {trace_id="000000000000000000000000000000ab"} 0.25 1700000000
a_wait_seconds_bucket{u="x",le="1.0"} 1
a_wait_seconds_bucket{u="x",le="+Inf"} 2
a_wait_seconds_sum{u="x"} 2.75
a_wait_seconds_count{u="x"} 2
# HELP a_idle_seconds How long.
# TYPE a_idle_seconds histogram
# UNIT a_idle_seconds seconds
a_idle_seconds_bucket{le="+Inf"} 18446744073709551615
a_idle_seconds_sum 0
a_idle_seconds_count 18446744073709551615
# EOF
"#
        );
    }
}
