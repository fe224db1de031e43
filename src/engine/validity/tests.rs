//! Passes over very many certificates.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::pass::Pass;
use crate::certificate::from_index::CertificateFacts;
use crate::certificate::material::{CertSource, Fetched};
use crate::certificate::sni::SniMap;
use crate::certificate::testing::{DAY, NOW};
use crate::certificate::{Fingerprint, Flaws, KeyKind, Loader, Source, TlsCertificate};
use crate::clock::ManualClock;
use crate::engine::{Engine, EngineSetup};
use crate::storage::MemoryStorage;

/// So many certificates are to be judged within [`MOST`].
const MANY: i64 = 100_000;

/// Processor time for all of them.
const MOST: Duration = Duration::from_secs(2);

/// Has nothing: what does not change is known.
struct Nothing;

impl CertSource for Nothing {
    fn fetch(&self, _: &TlsCertificate) -> Result<Fetched, String> {
        Err("nothing is read in a pass".to_owned())
    }
}

/// A map of certificates of which every tenth expires soon, and each has two names.
fn map(count: i64) -> SniMap {
    let loader = Loader::new().expect("a loader");
    let chain = loader.share_chain(&[]).expect("a chain");
    let nothing: Arc<dyn CertSource> = Arc::new(Nothing);
    let certificates: Vec<_> = (0..count)
        .map(|number| {
            let names = ["", "www."].map(|www| {
                let name = format!("{www}{number}.example");
                name.parse().expect("a name")
            });
            let days = if number % 10 == 0 { 5 } else { 60 };
            let facts = CertificateFacts {
                names: names.into(),
                kind: KeyKind::Ecdsa,
                not_before: NOW - 30 * DAY,
                not_after: NOW + days * DAY,
                fingerprint: Fingerprint(openssl::sha::sha256(&number.to_be_bytes())),
                flaws: Flaws::default(),
                status: None,
            };
            let source = Source::Program;
            Arc::new(TlsCertificate::from_index(
                facts,
                &chain,
                source,
                Arc::clone(&nothing),
            ))
        })
        .collect();
    SniMap::of(&certificates, NOW)
}

#[test]
#[expect(clippy::print_stderr, reason = "a figure for whoever measures")]
fn a_pass_over_a_hundred_thousand_takes_little_time_in_short_slices() {
    let setup = EngineSetup {
        clock: Arc::new(ManualClock::at(NOW)),
        ..EngineSetup::new(Arc::new(MemoryStorage::default()))
    };
    let engine = Engine::new(setup).expect("an engine");
    engine.map.store(Arc::new(map(MANY)));
    let mut pass = Pass::begin(&engine);
    let (mut slices, mut longest) = (0, Duration::ZERO);
    loop {
        let begun = Instant::now();
        let is_more = pass.run_slice(&engine);
        longest = longest.max(begun.elapsed());
        slices += 1;
        if !is_more {
            break;
        }
    }
    eprintln!(
        "{:?} in {slices} slices, the longest {longest:?}",
        pass.cost
    );
    assert_eq!(pass.len() as i64, MANY);
    assert_eq!(pass.found.len() as i64, MANY / 10);
    assert!(pass.cost < MOST, "{:?}", pass.cost);
    assert!(slices > 10, "{slices}");
}
