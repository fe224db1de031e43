//! The map that is served, made of all certificates there are to choose from.

use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;

use crate::certificate::sni::{Candidates, Loading, OnDemand, Precedence, SniMap};
use crate::certificate::{Change, TlsCertificate, Validity};
use crate::clock::UnixTime;
use crate::config::model::Config;
use crate::on_demand::OnDemandIssuance;

/// How often a map is published at most while files are scanned. A map of a million names takes
/// some milliseconds.
const PUBLISH_EVERY: Duration = Duration::from_millis(100);

/// The map, and the candidates for each name in it.
pub(super) struct Served {
    published: Arc<ArcSwap<SniMap>>,
    /// What is published, or in a dry run would be.
    map: SniMap,
    candidates: Candidates,
    /// Certificates that are served until the ones in their place have the OCSP responses that clients
    /// require.
    predecessors: Vec<(Arc<TlsCertificate>, Arc<TlsCertificate>)>,
    is_dry: bool,
    last_pass: UnixTime,
    /// When a scan last had a map published.
    last_slice: Instant,
}

impl Served {
    /// Serves nothing yet. A dry run publishes nothing.
    pub(super) fn new(published: Arc<ArcSwap<SniMap>>, is_dry: bool, now: UnixTime) -> Self {
        Self {
            published,
            map: SniMap::default(),
            candidates: Candidates::default(),
            predecessors: Vec::new(),
            is_dry,
            last_pass: now,
            last_slice: Instant::now(),
        }
    }

    pub(super) fn published(&self) -> &Arc<ArcSwap<SniMap>> {
        &self.published
    }

    pub(super) fn map(&self) -> &SniMap {
        &self.map
    }

    pub(super) fn candidates(&self) -> &Candidates {
        &self.candidates
    }

    pub(super) fn candidates_mut(&mut self) -> &mut Candidates {
        &mut self.candidates
    }

    /// Certificates that are served until others, in whose place they are, have OCSP responses.
    pub(super) fn predecessors(&self) -> impl Iterator<Item = &Arc<TlsCertificate>> {
        self.predecessors.iter().map(|(old, _)| old)
    }

    /// The certificate that is served until this one has an OCSP response.
    pub(super) fn predecessor(&self, certificate: &TlsCertificate) -> Option<&Arc<TlsCertificate>> {
        let fingerprint = certificate.fingerprint();
        let mut pairs = self.predecessors.iter();
        let (old, _) = pairs.find(|(_, new)| new.fingerprint() == fingerprint)?;
        Some(old)
    }

    pub(super) fn is_dry(&self) -> bool {
        self.is_dry
    }

    /// When the last pass was.
    pub(super) fn last_pass(&self) -> UnixTime {
        self.last_pass
    }

    /// Begins a pass at `now`.
    pub(super) fn pass_time(&mut self, now: UnixTime) {
        self.candidates.pass_time(self.last_pass, now);
        self.last_pass = now;
    }

    /// Serves what took the place of another, and no longer what was removed.
    pub(super) fn apply(&mut self, change: &Change, precedence: Precedence, now: UnixTime) {
        if let Some(old) = &change.old {
            self.candidates.remove(old);
            self.follow(old, change.new.as_ref(), now);
        }
        if let Some(new) = &change.new {
            self.candidates.add(new, precedence);
        }
    }

    /// Has a certificate served with another precedence.
    pub(super) fn set_precedence(
        &mut self,
        certificate: &Arc<TlsCertificate>,
        precedence: Precedence,
    ) {
        self.candidates.remove(certificate);
        self.candidates.add(certificate, precedence);
    }

    /// Serves `old`, and what it follows itself, until `new` may take its place.
    fn follow(
        &mut self,
        old: &Arc<TlsCertificate>,
        new: Option<&Arc<TlsCertificate>>,
        now: UnixTime,
    ) {
        let of_old = |(_, successor): &mut (_, Arc<_>)| Arc::ptr_eq(successor, old);
        let before: Vec<_> = self.predecessors.extract_if(.., of_old).collect();
        let Some(new) = new.filter(|new| self.candidates.holds_back(new, now)) else {
            for (one, _) in &before {
                self.candidates.remove(one);
            }
            return;
        };
        for (one, _) in before {
            self.predecessors.push((one, Arc::clone(new)));
        }
        if !self.candidates.holds_back(old, now) {
            self.candidates.add(old, Precedence::Superseded);
            self.predecessors.push((Arc::clone(old), Arc::clone(new)));
        }
    }

    /// Serves no longer what waited for a successor that may be served now, or is of no use itself.
    fn release_predecessors(&mut self, now: UnixTime) {
        let candidates = &mut self.candidates;
        self.predecessors.retain(|(old, new)| {
            let is_useful = old.validity(now) == Validity::Valid && !old.lacks_staple(now);
            let is_kept = is_useful && candidates.holds_back(new, now);
            if !is_kept {
                candidates.remove(old);
            }
            is_kept
        });
    }

    /// Publishes what has changed.
    pub(super) fn publish(
        &mut self,
        config: &Config,
        on_demand: &OnDemandIssuance,
        loading: Option<Arc<dyn Loading>>,
        now: UnixTime,
    ) {
        self.release_predecessors(now);
        let mut map = self.map.clone();
        if !self.candidates.is_settled() {
            map = self.candidates.update(&map, now);
        }
        let default = config.tls.default_certificate.as_ref().and_then(|name| {
            let present = map.find(name).cloned();
            present.or_else(|| on_demand.issue_now(name.name()?))
        });
        let gate = on_demand.gate();
        map = map
            .with_default(default)
            .with_on_demand(gate.map(|gate| Arc::clone(gate) as Arc<dyn OnDemand>));
        if loading.is_some() != map.loading().is_some() {
            map = map.with_loading(loading);
        }
        if !map.is_same_as(&self.map) {
            self.map = map;
            if !self.is_dry {
                self.published.store(Arc::new(self.map.clone()));
            }
        }
    }

    /// Whether a slice of a scan may wait with its changes for the next slice. During the first
    /// scan every map shows progress.
    pub(super) fn may_wait(&self, is_loading: bool) -> bool {
        self.last_slice.elapsed() < PUBLISH_EVERY || self.candidates.is_settled() && !is_loading
    }

    /// Notes that a scan has a map published.
    pub(super) fn note_slice(&mut self) {
        self.last_slice = Instant::now();
    }
}
