//! The certificates in use by handshakes, parsed and kept within a memory limit.
//!
//! Each certificate holds its own parsed form, so a handshake finds it with one load. This limits
//! how many do: the second-chance algorithm ("clock") evicts those that were not used since it last
//! passed.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Weak};

use tokio::sync::Semaphore;

use super::TlsCertificate;
use super::material::{Material, MaterialError};
use crate::lock::MutexExt;
use crate::metrics::ParsedCacheMetrics;

/// The default capacity.
pub const CAPACITY: usize = 64 << 20;

/// How many certificates are fetched at once from where they are kept.
const FETCHED_AT_ONCE: usize = 32;

/// Limits the memory of parsed certificates.
pub struct ParsedCache {
    capacity: AtomicUsize,
    ring: Mutex<Ring>,
    fetching: Semaphore,
    metrics: ParsedCacheMetrics,
}

#[derive(Default)]
struct Ring {
    /// The parsed certificates, in the order of the clock's hand.
    parsed: VecDeque<Parsed>,
    bytes: usize,
}

struct Parsed {
    /// Dead if the certificate was replaced.
    certificate: Weak<TlsCertificate>,
    weight: usize,
}

impl ParsedCache {
    /// Keeps at most `capacity` octets of parsed certificates, and one certificate in any case.
    pub fn new(capacity: usize, metrics: ParsedCacheMetrics) -> Self {
        Self {
            capacity: AtomicUsize::new(capacity),
            ring: Mutex::default(),
            fetching: Semaphore::new(FETCHED_AT_ONCE),
            metrics,
        }
    }

    /// Keeps at most this much from now on.
    pub fn set_capacity(&self, capacity: usize) {
        if self.capacity.swap(capacity, Ordering::Relaxed) > capacity {
            self.evict_unused(&mut self.lock());
        }
    }

    /// `certificate`, ready for a handshake: immediately if it was used recently, otherwise after
    /// parsing it from memory, or after fetching it. Does not block the thread.
    ///
    /// # Errors
    /// If it cannot be fetched.
    pub async fn get_or_parse(
        &self,
        certificate: &Arc<TlsCertificate>,
    ) -> Result<Arc<Material>, MaterialError> {
        if let Some(material) = certificate.parsed.load_full() {
            material.mark_used();
            self.metrics.hits.inc();
            return Ok(material);
        }
        self.metrics.misses.inc();
        if let Some(der) = certificate.at_rest.der_in_memory() {
            let material = Material::parse(der, certificate.chain.clone())?;
            return Ok(self.insert(certificate, material));
        }
        // Never closed.
        let _turn = self.fetching.acquire().await;
        if let Some(material) = certificate.parsed.load_full() {
            return Ok(material);
        }
        let away = Arc::clone(certificate);
        let material = tokio::task::spawn_blocking(move || away.parse_material())
            .await
            .map_err(|_| MaterialError::Broken)??;
        Ok(self.insert(certificate, material))
    }

    fn insert(&self, certificate: &Arc<TlsCertificate>, material: Material) -> Arc<Material> {
        let weight = material.weight;
        let material = Arc::new(material);
        let none = None::<Arc<Material>>;
        let before = certificate
            .parsed
            .compare_and_swap(&none, Some(Arc::clone(&material)));
        if let Some(before) = before.as_ref() {
            // Another handshake was faster.
            return Arc::clone(before);
        }
        let mut ring = self.lock();
        ring.bytes += weight;
        ring.parsed.push_back(Parsed {
            certificate: Arc::downgrade(certificate),
            weight,
        });
        self.evict_unused(&mut ring);
        material
    }

    /// Drops what was not used since the hand last passed, until everything fits.
    fn evict_unused(&self, ring: &mut Ring) {
        let capacity = self.capacity.load(Ordering::Relaxed);
        // Each is passed twice at most: the first time it may turn out to be used.
        let mut turns = 2 * ring.parsed.len();
        while ring.bytes > capacity && turns > 0 {
            turns -= 1;
            let Some(first) = ring.parsed.pop_front() else {
                break;
            };
            let Some(certificate) = first.certificate.upgrade() else {
                ring.bytes -= first.weight;
                continue;
            };
            let is_used = certificate
                .parsed
                .load()
                .as_ref()
                .is_some_and(|material| material.take_used());
            if is_used || ring.parsed.is_empty() {
                ring.parsed.push_back(first);
            } else {
                certificate.parsed.store(None);
                ring.bytes -= first.weight;
                self.metrics.evictions.inc();
            }
        }
        self.metrics
            .bytes
            .set(i64::try_from(ring.bytes).unwrap_or(i64::MAX));
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Ring> {
        // Nothing in there panics midway.
        self.ring.lock_unpoisoned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::certificate::Loader;
    use crate::certificate::der::Der;
    use crate::certificate::material::{CertSource, Fetched};
    use crate::certificate::testing::{DAY, NOW, TestCa};
    use crate::metrics::Metrics;

    struct Fixture {
        ca: TestCa,
        loader: Loader,
        metrics: ParsedCacheMetrics,
    }

    impl Fixture {
        fn new() -> Self {
            Self {
                ca: TestCa::new("hot"),
                loader: Loader::new().expect("a loader"),
                metrics: Metrics::new().expect("metrics").parsed_cache,
            }
        }

        fn certificate(&self, name: &str) -> Arc<TlsCertificate> {
            self.ca
                .certificate(&self.loader, &[name], NOW - DAY, NOW + DAY)
        }

        fn cache(&self, capacity: usize) -> ParsedCache {
            ParsedCache::new(capacity, self.metrics.clone())
        }
    }

    fn der(certificate: &TlsCertificate) -> Der {
        certificate
            .at_rest
            .der_in_memory()
            .expect("in memory")
            .clone()
    }

    /// Returns what it was given.
    struct Keep {
        kept: Mutex<Option<Fetched>>,
        asked: AtomicUsize,
        is_held: bool,
    }

    impl Keep {
        fn of(kept: Option<Fetched>) -> Arc<Self> {
            Arc::new(Self {
                kept: Mutex::new(kept),
                asked: AtomicUsize::new(0),
                is_held: false,
            })
        }
    }

    impl CertSource for Keep {
        fn fetch(&self, _: &TlsCertificate) -> Result<Fetched, String> {
            self.asked.fetch_add(1, Ordering::Relaxed);
            let kept = self.kept.lock().expect("whole").take();
            kept.ok_or_else(|| "the disk is gone".to_owned())
        }

        fn stays_in_memory(&self) -> bool {
            self.is_held
        }
    }

    #[tokio::test]
    async fn what_is_used_stays_and_the_rest_makes_room() {
        let fixture = Fixture::new();
        let certificates: Vec<_> = (0..8)
            .map(|number| fixture.certificate(&format!("{number}.example")))
            .collect();
        let probe = fixture.cache(usize::MAX);
        let weight = probe
            .get_or_parse(&certificates[0])
            .await
            .expect("ready")
            .weight;
        certificates[0].parsed.store(None);
        let cache = fixture.cache(4 * weight + weight / 2);
        for round in 0..3 {
            for certificate in &certificates {
                // Used all the time.
                cache.get_or_parse(&certificates[0]).await.expect("ready");
                cache.get_or_parse(certificate).await.expect("ready");
            }
            let parsed = certificates
                .iter()
                .filter(|one| one.parsed.load().is_some());
            assert_eq!(parsed.count(), 4, "round {round}");
            assert!(certificates[0].parsed.load().is_some());
        }
        assert!(fixture.metrics.evictions.get() >= 4);
        assert!(fixture.metrics.hits.get() >= 20);
        let bytes = usize::try_from(fixture.metrics.bytes.get()).expect("no less than none");
        assert!(bytes > 3 * weight && bytes < 5 * weight, "{bytes}");

        // Replaced certificates make room too.
        drop(certificates);
        cache.set_capacity(0);
        assert_eq!(cache.lock().bytes, 0);
        let only = fixture.certificate("only.example");
        cache.get_or_parse(&only).await.expect("ready");
        assert!(only.parsed.load().is_some(), "one is kept in any case");
    }

    #[tokio::test]
    async fn handshakes_of_all_threads_share_what_was_parsed() {
        let fixture = Fixture::new();
        let cache = Arc::new(fixture.cache(CAPACITY));
        let certificate = fixture.certificate("a.example");
        let tasks: Vec<_> = (0..16)
            .map(|_| {
                let (cache, certificate) = (Arc::clone(&cache), Arc::clone(&certificate));
                tokio::spawn(async move { cache.get_or_parse(&certificate).await })
            })
            .collect();
        let mut all = Vec::new();
        for task in tasks {
            all.push(task.await.expect("whole").expect("ready"));
        }
        assert!(all.iter().all(|one| Arc::ptr_eq(one, &all[0])));
        assert_eq!(cache.lock().parsed.len(), 1);
        assert!(openssl::error::ErrorStack::get().errors().is_empty());
    }

    #[tokio::test]
    async fn what_is_kept_elsewhere_is_fetched_once_and_checked() {
        let fixture = Fixture::new();
        let cache = fixture.cache(CAPACITY);
        let certificate = fixture.certificate("a.example");
        let cert_source = Keep::of(Some(Fetched::Same(der(&certificate))));
        let kept = Arc::new(certificate.with_source(Arc::clone(&cert_source) as _));
        for _ in 0..3 {
            cache.get_or_parse(&kept).await.expect("ready");
        }
        assert_eq!(cert_source.asked.load(Ordering::Relaxed), 1);
        assert_eq!(kept.describe(), certificate.describe());

        // A renewal by another instance is as good; another certificate is not.
        let newer = fixture.certificate("a.example");
        let fingerprint = newer.fingerprint();
        let newer = Arc::into_inner(newer).expect("the only one");
        let cert_source = Keep::of(Some(Fetched::Newer(Box::new(newer))));
        let kept = Arc::new(certificate.with_source(cert_source));
        let material = cache.get_or_parse(&kept).await.expect("ready");
        let leaf = material.leaf().to_der().expect("DER");
        assert_eq!(openssl::sha::sha256(&leaf), fingerprint.0);

        let other = fixture.certificate("b.example");
        let wrong = Keep::of(Some(Fetched::Same(der(&other))));
        let wrong = cache
            .get_or_parse(&Arc::new(certificate.with_source(wrong)))
            .await;
        assert!(matches!(wrong, Err(MaterialError::Other)));
        let other = Arc::into_inner(other).expect("the only one");
        let wrong = Keep::of(Some(Fetched::Newer(Box::new(other))));
        let wrong = cache
            .get_or_parse(&Arc::new(certificate.with_source(wrong)))
            .await;
        assert!(matches!(wrong, Err(MaterialError::Other)));

        let gone = Arc::new(certificate.with_source(Keep::of(None)));
        let error = cache.get_or_parse(&gone).await.err().expect("none");
        assert_eq!(error.to_string(), "cannot be fetched: the disk is gone");
        assert!(gone.parsed.load().is_none());
    }

    #[tokio::test]
    async fn what_is_to_be_held_is_fetched_once_though_its_parsed_form_goes() {
        let fixture = Fixture::new();
        let cache = fixture.cache(CAPACITY);
        let certificate = fixture.certificate("a.example");
        let cert_source = Arc::new(Keep {
            kept: Mutex::new(Some(Fetched::Same(der(&certificate)))),
            asked: AtomicUsize::new(0),
            is_held: true,
        });
        let kept = Arc::new(certificate.with_source(Arc::clone(&cert_source) as _));
        for _ in 0..3 {
            cache.get_or_parse(&kept).await.expect("ready");
            kept.parsed.store(None);
        }
        assert_eq!(cert_source.asked.load(Ordering::Relaxed), 1);
        assert_eq!(kept.describe(), certificate.describe());
    }

    #[tokio::test]
    async fn one_that_cannot_be_had_is_left_out_where_there_is_another() {
        use crate::certificate::sni::CertificateSet;
        use openssl::ssl::{Ssl, SslContext, SslMethod};

        let fixture = Fixture::new();
        let cache = fixture.cache(CAPACITY);
        let good = fixture.certificate("a.example");
        let gone = Arc::new(good.with_source(Keep::of(None)));
        let context = SslContext::builder(SslMethod::tls_server()).expect("a context");
        let mut ssl = Ssl::new(&context.build()).expect("SSL");
        let alone = CertificateSet::single(Arc::clone(&gone));
        assert!(alone.present(&mut ssl, &cache).await.is_err());
        let both = CertificateSet::of(vec![gone, good]);
        both.present(&mut ssl, &cache).await.expect("the other");
        assert!(ssl.certificate().is_some());
    }
}
