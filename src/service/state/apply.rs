//! Applies another configuration with its certificates, or refuses it as a whole.

use std::sync::Arc;

use super::super::prepare::{LoadOutcome, PreparedConfig};
use super::super::report::{self, ReloadError, ReloadOutcome, ReloadReport, restart_needed};
use super::{GatewayState, Writer};
use crate::config;

/// How often a reload begins anew where the files change while they are read.
const MOVING: usize = 3;

impl GatewayState {
    /// Reloads where a file of the configuration is another. Whether that was taken.
    pub(super) fn reload_changed(&self, writer: &mut Writer) -> bool {
        let changed = writer.versions.have_changed();
        if !changed && writer.versions.are_sure() {
            return false;
        }
        let read = self.load_config(writer);
        // What the stamps are too fresh to tell apart, the content does.
        (changed || !self.is_unchanged(&read)) && self.apply_config(writer, read).is_ok()
    }

    /// Loads the configuration. Its files are stamped as they were before they were read, so that
    /// what changes meanwhile is seen at the next look.
    pub(super) fn load_config(&self, writer: &mut Writer) -> LoadOutcome {
        let now = self.clock.now();
        let before = writer.versions.read_again(now);
        let read = config::load(&self.file);
        writer.versions = match &read {
            Ok(loaded) => before.with_paths(&loaded.files, now),
            Err(diagnostics) => {
                // Watched are the files of what is served and of what was refused: mending one of
                // the latter is the next change.
                let files = before.paths().chain(&diagnostics.files).cloned();
                before.with_paths(&files.collect::<Vec<_>>(), now)
            }
        };
        self.note_watched(writer);
        read
    }

    /// Whether this is what was read, and taken or refused, before.
    fn is_unchanged(&self, read: &LoadOutcome) -> bool {
        let last = self.last.load();
        let refused = last
            .as_ref()
            .as_ref()
            .and_then(|last| last.refused.as_ref());
        match (read, refused) {
            (Ok(loaded), None) => *loaded == **self.current.load(),
            (Err(diagnostics), Some(ReloadError::Invalid(before))) => *diagnostics == **before,
            _ => false,
        }
    }

    /// Takes a configuration that was read, tells and remembers how that went.
    pub(super) fn apply_config(
        &self,
        writer: &mut Writer,
        read: LoadOutcome,
    ) -> Result<ReloadReport, ReloadError> {
        let outcome = self.try_apply(writer, read);
        let at = self.clock.now();
        let result = match &outcome {
            Ok(_) => {
                self.metrics.last_reload_timestamp.set(at);
                "ok"
            }
            Err(_) => "refused",
        };
        self.metrics.reloads.with_label_values(&[result]).inc();
        let successful = i64::from(outcome.is_ok());
        self.metrics.last_reload_successful.set(successful);
        report::log_outcome(&self.file, &outcome);
        self.last.store(Arc::new(Some(ReloadOutcome {
            at,
            refused: outcome.as_ref().err().cloned(),
        })));
        outcome
    }

    fn try_apply(
        &self,
        writer: &mut Writer,
        read: LoadOutcome,
    ) -> Result<ReloadReport, ReloadError> {
        let mut next = self.prepare(read)?;
        // From here on nothing fails.
        if !self.current.load().faults.is_empty() {
            // What an issuer lacked at the start is there now.
            writer.manager.retry_missing();
        }
        let mut report = writer.manager.apply(&next.loaded.config);
        report::log_certificates(&report);
        // Configuration and certificates may lie in one volume that changes as a whole: then these
        // certificates may be those of another configuration. One that is refused is told by the
        // look that its change calls for.
        for _ in 0..MOVING {
            if !writer.versions.have_changed() {
                break;
            }
            let versions = writer.versions.clone();
            let read = self.load_config(writer);
            let Ok(newer) = self.prepare(read) else {
                writer.versions = versions;
                self.note_watched(writer);
                break;
            };
            next = newer;
            report = writer.manager.apply(&next.loaded.config);
            report::log_certificates(&report);
        }
        let PreparedConfig {
            loaded,
            settings,
            access,
        } = next;
        self.publish(&loaded.config, writer, &report);
        self.edge.update(settings);
        if let Some(access) = access {
            self.access.store(Arc::new(access));
        }
        let reloaded = ReloadReport {
            sites: loaded.config.sites.len(),
            certificates: report.certificates,
            warnings: loaded.warnings.clone(),
            problems: report.problems.iter().map(ToString::to_string).collect(),
            restart_needed: restart_needed(&writer.start, &loaded.config),
        };
        self.current.store(Arc::new(loaded));
        Ok(reloaded)
    }

    fn prepare(&self, read: LoadOutcome) -> Result<PreparedConfig, ReloadError> {
        let current = self.current.load();
        PreparedConfig::from_loaded(
            read,
            &self.certificates,
            &current.config.log,
            &self.metrics,
            &self.set_level,
        )
    }
}
