//! Looking at all certificates: which there are, and what was found of them before.

use std::sync::Arc;

use tokio::time::Instant;

use super::super::{Engine, blocking};
use super::revoked::replace;
use super::{LONGEST_PAUSE, SURVEY_PAUSE, SURVEY_SHARE, StatusWatch, stored};
use crate::cert_status::{Changes, FoundRevoked, Lists, Revocations, Staples, StatusTerms};
use crate::certificate::Fingerprint;
use crate::manager::status_watched;

/// What a survey changes. It takes its time with very many certificates, so it runs off the runtime's
/// threads.
struct Survey {
    terms: Arc<StatusTerms>,
    staples: Staples,
    lists: Lists,
    revocations: Revocations,
    changes: Changes,
    /// Certificates that are no longer there.
    gone: Vec<Fingerprint>,
    /// Certificates that were found to be revoked before a restart.
    found: Vec<FoundRevoked>,
}

impl Survey {
    fn run(&mut self, engine: &Engine) {
        let manager = engine.lock();
        let (watched, is_loading) = (status_watched(&manager), manager.cert_files().is_loading());
        drop(manager);
        let now = engine.clock.now();
        let asked = &self.terms.revocation;
        // Before all else: what is revoked gets no response.
        self.found = self.revocations.apply(&watched, asked);
        match asked.ocsp {
            true => self.gone = self.staples.survey(&watched, now, &mut self.changes),
            false => self.staples.clear(&watched, &mut self.changes),
        }
        for one in &self.found {
            let fingerprint = one.certificate.fingerprint();
            self.staples
                .note_change(fingerprint, now, &mut self.changes);
        }
        match asked.crl {
            // Which certificates name a list is known once all are loaded.
            true if is_loading => {}
            true => self.lists.survey(&watched, now),
            false => self.lists.clear(),
        }
    }
}

impl StatusWatch {
    pub(super) fn plan_survey(&mut self) {
        let soon = Instant::now() + SURVEY_PAUSE;
        self.survey_at = Some(self.survey_at.unwrap_or(soon));
    }

    /// Looks at all certificates.
    pub(super) async fn survey(&mut self, changes: &mut Changes) {
        let started = Instant::now();
        if !self.revocations.is_loaded() {
            match stored::read_revocations(&self.engine).await {
                Some(loaded) => self.revocations.merge(loaded),
                None => self.survey_at = Some(started + LONGEST_PAUSE),
            }
        }
        self.terms = self.engine.publication.status_terms();
        let mut survey = Survey {
            terms: Arc::clone(&self.terms),
            staples: std::mem::take(&mut self.staples),
            lists: std::mem::take(&mut self.lists),
            revocations: std::mem::take(&mut self.revocations),
            changes: std::mem::take(changes),
            gone: Vec::new(),
            found: Vec::new(),
        };
        let engine = Arc::clone(&self.engine);
        let done = blocking(move || {
            survey.run(&engine);
            survey
        });
        let Some(done) = done.await else {
            // It was interrupted by a bug: all is looked at again.
            self.survey_at = Some(started + LONGEST_PAUSE);
            return;
        };
        (self.staples, self.lists) = (done.staples, done.lists);
        (self.revocations, *changes) = (done.revocations, done.changes);
        stored::forget(&self.engine, done.gone).await;
        replace(&self.engine, done.found).await;
        let took = started.elapsed();
        if took > SURVEY_PAUSE {
            // With very many certificates, changes are taken up later.
            self.survey_at = Some(Instant::now() + took * SURVEY_SHARE);
        }
    }
}
