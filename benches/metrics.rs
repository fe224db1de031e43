//! What reading `/metrics` costs with 100,000 certificates and 5,000 sites that have had requests.

#![allow(
    clippy::expect_used,
    reason = "what is measured is made by hand and valid"
)]

use std::hint::black_box;
use std::io::Write as _;
use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use flate2::Compression;
use flate2::write::GzEncoder;
use snigate::metrics::{End, Ended, Format, Metrics};

/// As many as are shown by name, of 100,000.
const SHOWN: usize = 10_000;

fn rendering(criterion: &mut Criterion) {
    let metrics = Metrics::new().expect("metrics");
    let sites: Vec<_> = (0..5_000)
        .map(|number| metrics.site(&format!("site{number}.example.com").into()))
        .collect();
    for site in &sites {
        site.observe(&Ended {
            status: 200,
            duration: Duration::from_millis(3),
            octets: 1000,
            received: 0,
            is_maintenance: false,
            traced: None,
        });
    }
    metrics.certificate_ends.show(|| {
        let end = |number| End {
            name: format!("site{number}.example.com"),
            source: "letsencrypt".to_owned(),
            end: 1_800_000_000,
        };
        ((0..SHOWN).map(end).collect(), 100_000 - SHOWN)
    });
    criterion.bench_function("metrics/text", |bencher| {
        bencher.iter(|| black_box(metrics.render(Format::Text)));
    });
    let text = metrics.render(Format::OpenMetrics);
    criterion.bench_function("metrics/gzip", |bencher| {
        bencher.iter(|| {
            let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
            encoder.write_all(&text).expect("in memory");
            black_box(encoder.finish().expect("in memory"))
        });
    });
}

criterion_group!(benches, rendering);
criterion_main!(benches);
