//! The loop that learns whether served certificates are revoked, and keeps their OCSP responses current.
//!
//! It runs what `cert_status` says is due, a few things at a time, and hands the manager what changes:
//! certificates that may now be served or no longer, and revoked ones.

mod revoked;
mod stored;
mod survey;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::Instant;

use self::revoked::replace;
use super::{Engine, blocking};
use crate::cert_status::{
    self, Applied, Changes, Clients, FoundRevoked, ListAnswer, Lists, Outcome, Revocations,
    Searched, Staples, StatusTerms,
};
use crate::certificate::TlsCertificate;
use crate::clock::UnixTime;
use crate::manager::{note_staples, status_watched};
use crate::metrics::StatusMetrics;
use crate::shutdown::requested;

/// How many responders and servers of lists are asked at a time.
const RESPONDERS: usize = 16;
const LIST_SERVERS: usize = 2;

/// The shortest pause between two rounds, and the longest: the clock may be set.
const PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// The shortest pause between two looks at all certificates, and the pause as a multiple of what one
/// takes.
const SURVEY_PAUSE: Duration = Duration::from_millis(250);
const SURVEY_SHARE: u32 = 50;

/// How long after certificates have got or lost the responses that they require it is looked which hosts
/// are without a certificate.
const PASS_PAUSE: Duration = Duration::from_millis(250);

/// How many requests are begun in a round.
const MOST_BEGUN: usize = 8;

/// How many stored responses are read in a round.
const MOST_READ: usize = 64;

/// How often responses of certificates that are gone are looked for in the storage.
const SWEEP_EVERY: Duration = Duration::from_secs(24 * 3600);

/// What has ended.
enum Done {
    Staple(Arc<TlsCertificate>, Outcome),
    List(Box<Searched>),
    /// The list at this URL was not searched, because of a bug.
    Interrupted(Box<str>),
}

struct StatusWatch {
    engine: Arc<Engine>,
    metrics: StatusMetrics,
    terms: Arc<StatusTerms>,
    clients: Arc<Clients>,
    staples: Staples,
    lists: Lists,
    revocations: Revocations,
    tasks: JoinSet<Done>,
    asking: usize,
    fetching: usize,
    survey_at: Option<Instant>,
    /// When it is next looked which hosts are without a certificate, and how long that took.
    pass_at: Option<Instant>,
    pass_took: Duration,
    sweep_at: Instant,
}

/// Runs until the engine stops.
pub(super) async fn run(engine: Arc<Engine>) {
    let mut stopping = engine.stopping();
    let now = Instant::now();
    let mut watch = StatusWatch {
        metrics: engine.status_metrics.clone(),
        engine,
        terms: Arc::default(),
        clients: Arc::default(),
        staples: Staples::default(),
        lists: Lists::default(),
        revocations: Revocations::default(),
        tasks: JoinSet::new(),
        asking: 0,
        fetching: 0,
        survey_at: Some(now),
        pass_at: None,
        pass_took: Duration::ZERO,
        sweep_at: now + SURVEY_PAUSE,
    };
    loop {
        let pause = tokio::select! {
            pause = watch.run_round() => pause,
            () = requested(&mut stopping) => return,
        };
        // No more than a round in this time, however much ends.
        let rest = tokio::time::sleep(PAUSE);
        let engine = Arc::clone(&watch.engine);
        tokio::select! {
            Some(done) = watch.tasks.join_next() => watch.finish(done).await,
            () = engine.publication.wait_until_certificates_change() => watch.plan_survey(),
            () = tokio::time::sleep(pause) => {}
            () = requested(&mut stopping) => return,
        }
        tokio::select! {
            () = rest => {}
            () = requested(&mut stopping) => return,
        }
    }
}

impl StatusWatch {
    /// Does what is due. Returns how long nothing else is.
    async fn run_round(&mut self) -> Duration {
        while let Some(done) = self.tasks.try_join_next() {
            self.finish(done).await;
        }
        let started = Instant::now();
        let mut changes = Changes::default();
        if self.survey_at.is_some_and(|at| at <= started) {
            self.survey_at = None;
            self.survey(&mut changes).await;
        }
        let is_unread = self.read_stored(&mut changes).await;
        let now = self.engine.clock.now();
        self.staples.pass_time(now, &mut changes);
        self.begin_due(now);
        self.count();
        self.tell(changes, now).await;
        if self.pass_at.is_some_and(|at| at <= started) {
            self.run_pass().await;
        }
        if self.sweep_at <= started {
            self.sweep().await;
        }
        let room = self.asking < RESPONDERS;
        let next = self.staples.next(now).filter(|_| room);
        let next_list = self.lists.next().filter(|_| self.fetching < LIST_SERVERS);
        let next = next.into_iter().chain(next_list).min();
        let until = next.map_or(LONGEST_PAUSE, |next| next.since(now));
        let planned = [self.survey_at, self.pass_at].into_iter().flatten();
        let planned = planned.map(|at| at.saturating_duration_since(started));
        let until = planned.fold(until, Duration::min);
        match is_unread {
            true => PAUSE,
            false => until.clamp(PAUSE, LONGEST_PAUSE),
        }
    }

    /// Reads some stored responses. Whether there are more.
    async fn read_stored(&mut self, changes: &mut Changes) -> bool {
        let unread = self.staples.take_unread(MOST_READ);
        if unread.is_empty() {
            return false;
        }
        let now = self.engine.clock.now();
        stored::read(&self.engine, unread.clone(), now).await;
        self.staples.note_read(&unread, now, changes);
        true
    }

    /// Begins what is due.
    fn begin_due(&mut self, now: UnixTime) {
        let room = RESPONDERS.saturating_sub(self.asking).min(MOST_BEGUN);
        for certificate in self.staples.take_due(room, now) {
            self.asking += 1;
            let client = self.clients.for_staple(&self.terms, &certificate);
            let clock = Arc::clone(&self.engine.clock);
            self.tasks.spawn(async move {
                let asked = Arc::clone(&certificate);
                let outcome = match client {
                    Ok(client) => cert_status::ask_responder(asked, client, clock).await,
                    Err(error) => Outcome::Failed(error.to_string()),
                };
                Done::Staple(certificate, outcome)
            });
        }
        while self.fetching < LIST_SERVERS {
            let Some(query) = self.lists.take_due(now) else {
                return;
            };
            self.fetching += 1;
            let client = self.clients.for_list(&self.terms, &query.certificate);
            let engine = Arc::clone(&self.engine);
            let url = query.url.clone();
            self.tasks.spawn(async move {
                let answer = match client {
                    Ok(client) => cert_status::fetch_list(&query, &client).await,
                    Err(error) => ListAnswer::Failed(error.to_string()),
                };
                let searched = tokio::task::spawn_blocking(move || {
                    let watched = status_watched(&engine.lock());
                    let now = engine.clock.now();
                    query.search(answer, &watched, now)
                });
                match searched.await {
                    Ok(searched) => Done::List(Box::new(searched)),
                    Err(_) => Done::Interrupted(url),
                }
            });
        }
    }

    /// Takes up what has ended.
    async fn finish(&mut self, done: Result<Done, tokio::task::JoinError>) {
        let now = self.engine.clock.now();
        match done {
            Ok(Done::Staple(certificate, outcome)) => {
                self.asking = self.asking.saturating_sub(1);
                self.finish_staple(certificate, outcome, now).await;
            }
            Ok(Done::List(searched)) => {
                self.fetching = self.fetching.saturating_sub(1);
                let applied = self.lists.apply(*searched, now);
                let result = applied.result;
                self.metrics.list_fetches.with_label_values(&[result]).inc();
                self.apply_list(applied, now).await;
            }
            Ok(Done::Interrupted(url)) => {
                self.fetching = self.fetching.saturating_sub(1);
                self.lists.note_interrupted(&url, now);
                tracing::error!("searching a revocation list was interrupted by a bug");
            }
            Err(error) => {
                self.asking = self.asking.saturating_sub(1);
                tracing::error!(%error, "asking an OCSP responder was interrupted by a bug");
            }
        }
    }

    /// Takes up which certificates a list calls revoked, and which no longer.
    async fn apply_list(&mut self, applied: Applied, now: UnixTime) {
        let mut changes = Changes::default();
        let (mut news, mut writes) = (Vec::new(), Vec::new());
        let mut seen = HashSet::new();
        let called = |certificate: &TlsCertificate, by: Option<&Arc<str>>| {
            let status = certificate.status();
            let was_revoked = status.is_some_and(|status| status.known().is_revoked());
            if let Some(status) = status {
                status.update(|known| known.revoked.by_list = by.cloned());
            }
            let known = status.map(|status| status.known().revoked);
            (was_revoked, known.unwrap_or_default())
        };
        for one in applied.revoked {
            let (was_revoked, known) = called(&one.certificate, Some(&applied.url));
            let (certificate, reason) = (&one.certificate, Some(one.reason));
            writes.extend(self.revocations.update(certificate, &known, reason, now));
            // The same certificate may be in several files.
            if seen.insert(one.certificate.fingerprint()) && !was_revoked {
                news.push(one);
            }
        }
        for one in applied.restored {
            let (_, known) = called(&one, None);
            writes.extend(self.revocations.update(&one, &known, None, now));
            seen.insert(one.fingerprint());
        }
        for fingerprint in seen {
            self.staples.note_change(fingerprint, now, &mut changes);
        }
        self.tell(changes, now).await;
        stored::write_revocations(&self.engine, writes).await;
        let revoked = news.iter().map(|one| one.certificate.fingerprint());
        stored::forget(&self.engine, revoked.collect()).await;
        replace(&self.engine, news).await;
    }

    async fn finish_staple(
        &mut self,
        certificate: Arc<TlsCertificate>,
        outcome: Outcome,
        now: UnixTime,
    ) {
        let result = match &outcome {
            Outcome::Good(_) => "good",
            Outcome::Revoked { .. } => "revoked",
            Outcome::Unknown(_) => "unknown",
            Outcome::Failed(_) => "failed",
            Outcome::Unreachable(_) => "unreachable",
        };
        self.metrics
            .ocsp_requests
            .with_label_values(&[result])
            .inc();
        let (staple, reason) = match &outcome {
            Outcome::Good(staple) => (Some(Arc::clone(staple)), None),
            Outcome::Revoked { reason, .. } => (None, Some(*reason)),
            _ => (None, None),
        };
        let mut changes = Changes::default();
        let is_news = self.staples.apply(&certificate, outcome, now, &mut changes);
        let known = self.staples.known(&certificate);
        let fingerprint = certificate.fingerprint();
        let is_good = staple.as_ref().is_some_and(|staple| known.has(staple));
        if known.is_revoked() || is_good {
            let revocations = &mut self.revocations;
            let write = revocations.update(&certificate, &known.revoked, reason, now);
            stored::write_revocations(&self.engine, write.into_iter().collect()).await;
        }
        match staple {
            _ if known.is_revoked() => stored::forget(&self.engine, vec![fingerprint]).await,
            Some(staple) if is_good => {
                stored::store(&self.engine, fingerprint, staple).await;
            }
            _ => {}
        }
        self.tell(changes, now).await;
        if let (Some(reason), true) = (reason, is_news) {
            let found = FoundRevoked {
                certificate,
                reason,
                said_by: cert_status::SAID_BY_RESPONDER.to_owned(),
                is_restored: false,
            };
            replace(&self.engine, vec![found]).await;
        }
    }

    /// Reports what has changed, and has it served.
    async fn tell(&mut self, changes: Changes, now: UnixTime) {
        let Changes { notices, served } = changes;
        if !served.is_empty() {
            let engine = Arc::clone(&self.engine);
            blocking(move || {
                let mut manager = engine.lock();
                note_staples(&mut manager, &served);
                manager.publish_map();
            })
            .await;
            let pause = PASS_PAUSE.max(self.pass_took * SURVEY_SHARE);
            self.pass_at.get_or_insert_with(|| Instant::now() + pause);
        }
        let map = self.engine.map.load();
        for notice in &notices {
            let event = notice.event(|name| map.covers(name), now);
            self.engine.events().emit(event);
        }
    }

    /// Has it reported which hosts are without a certificate.
    async fn run_pass(&mut self) {
        self.pass_at = None;
        let started = Instant::now();
        let engine = Arc::clone(&self.engine);
        blocking(move || engine.lock().run_pass()).await;
        self.pass_took = started.elapsed();
    }

    fn count(&self) {
        let count = self.staples.count();
        let end = count.first_end.map_or(0, UnixTime::as_secs);
        let metrics = &self.metrics;
        metrics.show_staples(count.good, count.missing, count.revoked, end);
    }

    /// Removes what nobody needs any more from the storage.
    async fn sweep(&mut self) {
        self.sweep_at = Instant::now() + SWEEP_EVERY;
        let known = self.staples.fingerprints();
        stored::sweep(&self.engine, known.collect()).await;
    }
}
