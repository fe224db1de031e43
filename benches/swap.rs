//! How long it takes to change the certificate of one name among many, published to readers.

#![allow(
    clippy::expect_used,
    reason = "a bench that cannot begin has nothing to say"
)]

use std::hint::black_box;
use std::sync::Arc;

use arc_swap::ArcSwap;
use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use snigate::certificate::sni::{CertificateSet, SniMap};
use snigate::host::Pattern;

fn swap(c: &mut Criterion) {
    let set = || {
        Arc::new(CertificateSet {
            by_kind: Vec::new(),
        })
    };
    let mut group = c.benchmark_group("swap");
    for names in [1_000, 100_000, 1_000_000] {
        let old = set();
        let patterns: Vec<Pattern> = (0..names)
            .map(|i| {
                format!("site-{i}.customers.example")
                    .parse()
                    .expect("a pattern")
            })
            .collect();
        let entries = patterns
            .iter()
            .map(|name| (name.clone(), Some(Arc::clone(&old))));
        let published = ArcSwap::from_pointee(SniMap::default().with_changes(entries));
        group.bench_function(BenchmarkId::new("one_of", names), |b| {
            let mut patterns = patterns.iter().cycle().step_by(7919);
            b.iter(|| {
                let name = patterns.next().expect("without end").clone();
                let map = published.load().with_changes([(name, Some(set()))]);
                published.store(Arc::new(black_box(map)));
            });
        });
    }
    group.finish();
}

criterion_group!(benches, swap);
criterion_main!(benches);
