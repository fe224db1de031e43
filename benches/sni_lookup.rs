//! How long it takes to find the certificates of a server name, and that it allocates nothing.

#![allow(
    clippy::expect_used,
    reason = "a bench that cannot begin has nothing to say"
)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use snigate::certificate::sni::{CertificateSet, SniMap};
use snigate::host::Pattern;

#[global_allocator]
static ALLOCATOR: Counting = Counting(AtomicU64::new(0));

/// Counts allocations.
struct Counting(AtomicU64);

// SAFETY: it hands everything on to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        self.0.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller keeps to the contract, which is the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps to the contract, which is the same.
        unsafe { System.dealloc(at, layout) }
    }
}

/// How many different hosts are looked up in turn, so that caches help as little as in life.
const ASKED: usize = 1024;

fn lookup(c: &mut Criterion) {
    let set = Arc::new(CertificateSet::of(Vec::new()));
    for names in [100, 10_000, 1_000_000] {
        // Half of them exact names, half wildcards.
        let patterns = (0..names).map(|i| {
            let name = if i % 2 == 0 {
                host(i)
            } else {
                format!("*.{}", host(i))
            };
            (
                name.parse::<Pattern>().expect("a pattern"),
                Some(Arc::clone(&set)),
            )
        });
        let map = SniMap::default().with_changes(patterns);
        assert_eq!(map.len(), names);
        let spread = |i: usize| i * 7919 % (names / 2) * 2;
        let cases: [(&str, Vec<String>, bool); 3] = [
            ("exact", (0..ASKED).map(|i| host(spread(i))).collect(), true),
            (
                "wildcard",
                (0..ASKED)
                    .map(|i| format!("a.{}", host(spread(i) + 1)))
                    .collect(),
                true,
            ),
            (
                "miss",
                (0..ASKED).map(|i| format!("no.{}.test", host(i))).collect(),
                false,
            ),
        ];
        let mut group = c.benchmark_group("sni_lookup");
        for (case, hosts, found) in &cases {
            assert!(
                hosts
                    .iter()
                    .all(|host| map.lookup(host).is_some() == *found),
                "{case}"
            );
            let before = ALLOCATOR.0.load(Ordering::Relaxed);
            for host in hosts {
                black_box(map.lookup(black_box(host)));
            }
            assert_eq!(
                ALLOCATOR.0.load(Ordering::Relaxed),
                before,
                "{case} allocates"
            );
            group.bench_function(BenchmarkId::new(*case, names), |b| {
                let mut hosts = hosts.iter().cycle();
                b.iter(|| {
                    hosts
                        .next()
                        .map(|host| map.lookup(black_box(host)).is_some())
                });
            });
        }
        group.finish();
    }
}

fn host(i: usize) -> String {
    format!("site-{i}.customers.example")
}

criterion_group!(benches, lookup);
criterion_main!(benches);
