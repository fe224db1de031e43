//! The certificates that handshakes ask for, parsed and kept within a bound of memory.
//!
//! Each certificate holds its own parsed form, so that a handshake finds it by one load. This
//! bounds how many do: the second-chance algorithm ("clock") lets go of those that nobody has used
//! since it last came by.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::sync::Semaphore;

use super::TlsCertificate;
use super::material::{Material, MaterialError};
use crate::metrics::HotCertificates;

/// What is kept where nobody says otherwise.
pub const CAPACITY: usize = 64 << 20;

/// How many certificates are fetched at a time from where they are kept.
const FETCHED_AT_ONCE: usize = 32;

/// Bounds the memory of parsed certificates.
pub struct Hot {
    capacity: AtomicUsize,
    ring: Mutex<Ring>,
    fetching: Semaphore,
    metrics: HotCertificates,
}

#[derive(Default)]
struct Ring {
    /// Which certificates are parsed, in the order of the clock's hand.
    parsed: VecDeque<Parsed>,
    bytes: usize,
}

struct Parsed {
    /// Gone where the certificate was replaced.
    certificate: Weak<TlsCertificate>,
    weight: usize,
}

impl Hot {
    /// Keeps at most `capacity` octets of parsed certificates, and one certificate in any case.
    pub fn new(capacity: usize, metrics: HotCertificates) -> Self {
        Self {
            capacity: AtomicUsize::new(capacity),
            ring: Mutex::default(),
            fetching: Semaphore::new(FETCHED_AT_ONCE),
            metrics,
        }
    }

    /// Keeps at most so much from now on.
    pub fn set_capacity(&self, capacity: usize) {
        if self.capacity.swap(capacity, Ordering::Relaxed) > capacity {
            self.make_room(&mut self.lock());
        }
    }

    /// `certificate`, ready for a handshake: at once where it was used of late, after parsing it
    /// where it is in memory, after reading it elsewhere otherwise. Does not block the thread.
    ///
    /// # Errors
    /// Where it cannot be fetched.
    pub async fn ready(
        &self,
        certificate: &Arc<TlsCertificate>,
    ) -> Result<Arc<Material>, MaterialError> {
        if let Some(material) = certificate.hot.load_full() {
            material.touch();
            self.metrics.hits.inc();
            return Ok(material);
        }
        self.metrics.misses.inc();
        if let Some(der) = certificate.rest.at_hand() {
            let material = Material::parse(der, certificate.chain.clone())?;
            return Ok(self.keep(certificate, material));
        }
        // Never closed.
        let _turn = self.fetching.acquire().await;
        if let Some(material) = certificate.hot.load_full() {
            return Ok(material);
        }
        let away = Arc::clone(certificate);
        let material = tokio::task::spawn_blocking(move || away.parsed())
            .await
            .map_err(|_| MaterialError::Broken)??;
        Ok(self.keep(certificate, material))
    }

    fn keep(&self, certificate: &Arc<TlsCertificate>, material: Material) -> Arc<Material> {
        let weight = material.weight;
        let material = Arc::new(material);
        let none = None::<Arc<Material>>;
        let before = certificate
            .hot
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
        self.make_room(&mut ring);
        material
    }

    /// Lets go of what was not used since the hand last came by, until all fits.
    fn make_room(&self, ring: &mut Ring) {
        let capacity = self.capacity.load(Ordering::Relaxed);
        // Each is passed by twice at most: the first time may find it used.
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
                .hot
                .load()
                .as_ref()
                .is_some_and(|material| material.take_used());
            if is_used || ring.parsed.is_empty() {
                ring.parsed.push_back(first);
            } else {
                certificate.hot.store(None);
                ring.bytes -= first.weight;
                self.metrics.evictions.inc();
            }
        }
        self.metrics
            .bytes
            .set(i64::try_from(ring.bytes).unwrap_or(i64::MAX));
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Ring> {
        // Nothing in there panics half way.
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::certificate::Loader;
    use crate::certificate::material::{Der, Keeper, Kept};
    use crate::certificate::testing::{DAY, NOW, TestCa};
    use crate::metrics::Metrics;

    struct Fixture {
        ca: TestCa,
        loader: Loader,
        metrics: HotCertificates,
    }

    impl Fixture {
        fn new() -> Self {
            Self {
                ca: TestCa::new("hot"),
                loader: Loader::new().expect("a loader"),
                metrics: Metrics::new().expect("metrics").hot_certificates,
            }
        }

        fn certificate(&self, name: &str) -> Arc<TlsCertificate> {
            self.ca
                .certificate(&self.loader, &[name], NOW - DAY, NOW + DAY)
        }

        fn hot(&self, capacity: usize) -> Hot {
            Hot::new(capacity, self.metrics.clone())
        }
    }

    fn der(certificate: &TlsCertificate) -> Der {
        certificate.rest.at_hand().expect("in memory").clone()
    }

    /// Gives what it was told to.
    struct Keep {
        kept: Mutex<Option<Kept>>,
        asked: AtomicUsize,
        is_held: bool,
    }

    impl Keep {
        fn of(kept: Option<Kept>) -> Arc<Self> {
            Arc::new(Self {
                kept: Mutex::new(kept),
                asked: AtomicUsize::new(0),
                is_held: false,
            })
        }
    }

    impl Keeper for Keep {
        fn fetch(&self, _: &TlsCertificate) -> Result<Kept, String> {
            self.asked.fetch_add(1, Ordering::Relaxed);
            let kept = self.kept.lock().expect("whole").take();
            kept.ok_or_else(|| "the disk is gone".to_owned())
        }

        fn is_held(&self) -> bool {
            self.is_held
        }
    }

    #[tokio::test]
    async fn what_is_used_stays_and_the_rest_makes_room() {
        let fixture = Fixture::new();
        let certificates: Vec<_> = (0..8)
            .map(|number| fixture.certificate(&format!("{number}.example")))
            .collect();
        let probe = fixture.hot(usize::MAX);
        let weight = probe.ready(&certificates[0]).await.expect("ready").weight;
        certificates[0].hot.store(None);
        let hot = fixture.hot(4 * weight + weight / 2);
        for round in 0..3 {
            for certificate in &certificates {
                // Asked for all the time.
                hot.ready(&certificates[0]).await.expect("ready");
                hot.ready(certificate).await.expect("ready");
            }
            let parsed = certificates.iter().filter(|one| one.hot.load().is_some());
            assert_eq!(parsed.count(), 4, "round {round}");
            assert!(certificates[0].hot.load().is_some());
        }
        assert!(fixture.metrics.evictions.get() >= 4);
        assert!(fixture.metrics.hits.get() >= 20);
        let bytes = usize::try_from(fixture.metrics.bytes.get()).expect("no less than none");
        assert!(bytes > 3 * weight && bytes < 5 * weight, "{bytes}");

        // Those that are replaced make room too.
        drop(certificates);
        hot.set_capacity(0);
        assert_eq!(hot.lock().bytes, 0);
        let only = fixture.certificate("only.example");
        hot.ready(&only).await.expect("ready");
        assert!(only.hot.load().is_some(), "one is kept in any case");
    }

    #[tokio::test]
    async fn handshakes_of_all_threads_share_what_was_parsed() {
        let fixture = Fixture::new();
        let hot = Arc::new(fixture.hot(CAPACITY));
        let certificate = fixture.certificate("a.example");
        let tasks: Vec<_> = (0..16)
            .map(|_| {
                let (hot, certificate) = (Arc::clone(&hot), Arc::clone(&certificate));
                tokio::spawn(async move { hot.ready(&certificate).await })
            })
            .collect();
        let mut all = Vec::new();
        for task in tasks {
            all.push(task.await.expect("whole").expect("ready"));
        }
        assert!(all.iter().all(|one| Arc::ptr_eq(one, &all[0])));
        assert_eq!(hot.lock().parsed.len(), 1);
        assert!(openssl::error::ErrorStack::get().errors().is_empty());
    }

    #[tokio::test]
    async fn what_is_kept_elsewhere_is_fetched_once_and_checked() {
        let fixture = Fixture::new();
        let hot = fixture.hot(CAPACITY);
        let certificate = fixture.certificate("a.example");
        let keeper = Keep::of(Some(Kept::Same(der(&certificate))));
        let kept = Arc::new(certificate.kept_by(Arc::clone(&keeper) as _));
        for _ in 0..3 {
            hot.ready(&kept).await.expect("ready");
        }
        assert_eq!(keeper.asked.load(Ordering::Relaxed), 1);
        assert_eq!(kept.describe(), certificate.describe());

        // A renewal by another instance is as good, another certificate is not.
        let newer = fixture.certificate("a.example");
        let fingerprint = newer.fingerprint();
        let newer = Arc::into_inner(newer).expect("the only one");
        let keeper = Keep::of(Some(Kept::Newer(Box::new(newer))));
        let kept = Arc::new(certificate.kept_by(keeper));
        let material = hot.ready(&kept).await.expect("ready");
        let leaf = material.leaf().to_der().expect("DER");
        assert_eq!(openssl::sha::sha256(&leaf), fingerprint.0);

        let other = fixture.certificate("b.example");
        let wrong = Keep::of(Some(Kept::Same(der(&other))));
        let wrong = hot.ready(&Arc::new(certificate.kept_by(wrong))).await;
        assert!(matches!(wrong, Err(MaterialError::Other)));
        let other = Arc::into_inner(other).expect("the only one");
        let wrong = Keep::of(Some(Kept::Newer(Box::new(other))));
        let wrong = hot.ready(&Arc::new(certificate.kept_by(wrong))).await;
        assert!(matches!(wrong, Err(MaterialError::Other)));

        let gone = Arc::new(certificate.kept_by(Keep::of(None)));
        let error = hot.ready(&gone).await.err().expect("none");
        assert_eq!(error.to_string(), "cannot be fetched: the disk is gone");
        assert!(gone.hot.load().is_none());
    }

    #[tokio::test]
    async fn what_is_to_be_held_is_fetched_once_though_its_parsed_form_goes() {
        let fixture = Fixture::new();
        let hot = fixture.hot(CAPACITY);
        let certificate = fixture.certificate("a.example");
        let keeper = Arc::new(Keep {
            kept: Mutex::new(Some(Kept::Same(der(&certificate)))),
            asked: AtomicUsize::new(0),
            is_held: true,
        });
        let kept = Arc::new(certificate.kept_by(Arc::clone(&keeper) as _));
        for _ in 0..3 {
            hot.ready(&kept).await.expect("ready");
            kept.hot.store(None);
        }
        assert_eq!(keeper.asked.load(Ordering::Relaxed), 1);
        assert_eq!(kept.describe(), certificate.describe());
    }

    #[tokio::test]
    async fn one_that_cannot_be_had_is_left_out_where_there_is_another() {
        use crate::certificate::sni::CertificateSet;
        use openssl::ssl::{Ssl, SslContext, SslMethod};

        let fixture = Fixture::new();
        let hot = fixture.hot(CAPACITY);
        let good = fixture.certificate("a.example");
        let gone = Arc::new(good.kept_by(Keep::of(None)));
        let context = SslContext::builder(SslMethod::tls_server()).expect("a context");
        let mut ssl = Ssl::new(&context.build()).expect("SSL");
        let alone = CertificateSet::single(Arc::clone(&gone));
        assert!(alone.present(&mut ssl, &hot).await.is_err());
        let both = CertificateSet::of(vec![gone, good]);
        both.present(&mut ssl, &hot).await.expect("the other");
        assert!(ssl.certificate().is_some());
    }
}
