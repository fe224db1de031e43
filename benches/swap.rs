//! How long it takes to change the certificate of one name among many, published to readers; and
//! what readers that look up all along notice of it.

#![allow(
    clippy::expect_used,
    clippy::print_stderr,
    reason = "a bench that cannot begin has nothing to say"
)]

use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use rcgen::{CertificateParams, KeyPair};
use snigate::certificate::sni::{Candidates, CertificateSet, Precedence, SniMap};
use snigate::certificate::{Loader, Source, TlsCertificate};
use snigate::clock::{Clock, SystemClock};
use snigate::host::Pattern;

fn swap(c: &mut Criterion) {
    let set = || Arc::new(CertificateSet::of(Vec::new()));
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

/// Names under each of the certificates that stay.
const NAMES_EACH: usize = 100;

/// How many certificates stay: 100,000 names in all.
const STAYING: usize = 1_000;

/// How many threads look up all along.
const READERS: usize = 4;

fn certificate(loader: &Loader, key: &KeyPair, names: Vec<String>) -> Arc<TlsCertificate> {
    let params = CertificateParams::new(names).expect("names");
    let certificate = params.self_signed(key).expect("a certificate");
    let pem = certificate.pem() + &key.serialize_pem();
    let source = Source::Issuer("bench".into());
    let loaded = loader.load(pem.as_bytes(), source);
    Arc::new(loaded.expect("a certificate").certificate)
}

/// What readers needed for a look-up each.
#[derive(Default)]
struct Times {
    calm: Vec<Duration>,
    swapping: Vec<Duration>,
}

/// Looks names up until `done`, without a pause.
fn read(published: &ArcSwap<SniMap>, swapping: &AtomicBool, done: &AtomicBool) -> Times {
    let staying = (0..NAMES_EACH).map(|number| format!("site-{}.customers.example", number * 997));
    let names: Vec<String> = staying.chain(["swapped.example".to_owned()]).collect();
    let mut times = Times::default();
    for name in names.iter().cycle() {
        if done.load(Ordering::Relaxed) {
            break;
        }
        let start = Instant::now();
        let map = published.load();
        let found = black_box(map.lookup(name)).is_some();
        let took = start.elapsed();
        assert!(found, "{name} has a certificate all along");
        let times = if swapping.load(Ordering::Relaxed) {
            &mut times.swapping
        } else {
            &mut times.calm
        };
        if times.len() < 5_000_000 {
            times.push(took);
        }
    }
    times
}

fn tell(what: &str, mut times: Vec<Duration>) {
    times.sort_unstable();
    let count = times.len();
    // In parts of 10,000.
    let at = |part: usize| times.get((count.saturating_sub(1)) * part / 10_000);
    eprintln!(
        "{READERS} readers {what}: {count} look-ups, median {:?}, 99 % {:?}, 99.9 % {:?}, \
         99.99 % {:?}, longest {:?}",
        at(5_000),
        at(9_900),
        at(9_990),
        at(9_999),
        at(10_000)
    );
}

/// Swaps one certificate among 100,000 names as the manager does, through [`Candidates`], while
/// other threads look names up. Their times are printed: with swaps they should be what they are
/// without, but for what it costs to share the processors with one more thread.
fn readers(c: &mut Criterion) {
    let loader = Loader::new().expect("OpenSSL");
    let key = KeyPair::generate().expect("a key");
    let now = SystemClock.now();
    let mut candidates = Candidates::default();
    for group in 0..STAYING {
        let name = |number| format!("site-{}.customers.example", group * NAMES_EACH + number);
        let names = (0..NAMES_EACH).map(name).collect();
        candidates.add(&certificate(&loader, &key, names), Precedence::Configured);
    }
    let swapped = || certificate(&loader, &key, vec!["swapped.example".to_owned()]);
    let (mut present, mut other) = (swapped(), swapped());
    candidates.add(&present, Precedence::Configured);
    let published = ArcSwap::from_pointee(candidates.update(&SniMap::default(), now));
    let (swapping, done) = (AtomicBool::new(false), AtomicBool::new(false));
    thread::scope(|scope| {
        let readers: Vec<_> = (0..READERS)
            .map(|_| scope.spawn(|| read(&published, &swapping, &done)))
            .collect();
        // What they need without any swap, to compare with.
        thread::sleep(Duration::from_secs(2));
        swapping.store(true, Ordering::Relaxed);
        c.bench_function("swap/through_candidates_under_readers", |b| {
            b.iter(|| {
                candidates.remove(&present);
                std::mem::swap(&mut present, &mut other);
                candidates.add(&present, Precedence::Configured);
                let map = candidates.update(&published.load(), now);
                published.store(Arc::new(map));
            });
        });
        done.store(true, Ordering::Relaxed);
        let mut all = Times::default();
        for reader in readers {
            let times = reader.join().expect("a reader");
            all.calm.extend(times.calm);
            all.swapping.extend(times.swapping);
        }
        tell("without swaps", all.calm);
        tell("with swaps", all.swapping);
    });
}

criterion_group!(benches, swap, readers);
criterion_main!(benches);
