//! Applies another configuration together with its certificates, or refuses it as a whole.

use std::sync::Arc;
use std::time::Duration;

use super::file_versions::FileVersions;
use super::prepare::{LoadOutcome, PreparedConfig};
use super::report::{self, ReloadError, ReloadOutcome, ReloadReport, restart_needed};
use super::state::GatewayState;
use crate::config;
use crate::config::model::Config;
use crate::edge::ListenerPlan;
use crate::engine::{ConfigFiles, ManagerGuard, log_problems};
use crate::proxy::{self, SiteTable, StickyKey};

/// How often a reload begins anew if files change while they are read.
const MAX_RESTARTS: usize = 3;

/// How long a new table of sites waits for the addresses of its upstreams. Those that take longer are
/// resolved while it is served.
const RESOLVE_PATIENCE: Duration = Duration::from_secs(2);

impl ConfigFiles for GatewayState {
    fn reload_changed(&self, manager: &mut ManagerGuard<'_>) -> bool {
        let mut versions = self.versions();
        let changed = versions.have_changed();
        if !changed && versions.are_sure() {
            return false;
        }
        let read = self.load_config(manager, &mut versions);
        // If the stamps are too fresh to reveal a change, the content does.
        (changed || !self.is_unchanged(&read))
            && self.apply_config(manager, &mut versions, read).is_ok()
    }
}

impl GatewayState {
    /// Reads everything again and applies it, or keeps what there is. Blocks on files.
    ///
    /// # Errors
    /// Where the new configuration is invalid or cannot be carried out; nothing has changed then.
    pub fn reload(&self) -> Result<ReloadReport, ReloadError> {
        // The log may have been rotated: whoever rotates it asks for a reload.
        self.reopen_logs();
        let mut manager = self.engine.lock();
        let mut versions = self.versions();
        let read = self.load_config(&mut manager, &mut versions);
        self.apply_config(&mut manager, &mut versions, read)
    }

    /// Loads the configuration. Its files are stamped as they were before they were read, so that
    /// the next check notices what changes meanwhile.
    fn load_config(
        &self,
        manager: &mut ManagerGuard<'_>,
        versions: &mut FileVersions,
    ) -> LoadOutcome {
        let now = self.engine.clock().now();
        let before = versions.read_again(now);
        let read = config::load(&self.file);
        *versions = match &read {
            Ok(loaded) => before.with_paths(&loaded.files, now),
            Err(diagnostics) => {
                // The files of what is served and of what was refused are watched: mending one of
                // the latter is the next change.
                let files = before.paths().chain(&diagnostics.files).cloned();
                before.with_paths(&files.collect::<Vec<_>>(), now)
            }
        };
        manager.watch_files(versions.paths().cloned());
        read
    }

    /// Whether this is what was read, and applied or refused, before.
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

    /// Applies a configuration that was read; reports and remembers how that went.
    fn apply_config(
        &self,
        manager: &mut ManagerGuard<'_>,
        versions: &mut FileVersions,
        read: LoadOutcome,
    ) -> Result<ReloadReport, ReloadError> {
        let outcome = self.try_apply(manager, versions, read);
        let at = self.engine.clock().now();
        let result = match &outcome {
            Ok(_) => {
                self.metrics.last_reload_timestamp.set(at.as_secs());
                "ok"
            }
            Err(_) => "refused",
        };
        self.metrics.reloads.with_label_values(&[result]).inc();
        let successful = i64::from(outcome.is_ok());
        self.metrics.last_reload_successful.set(successful);
        report::log_outcome(&self.file, &outcome);
        self.engine.events().emit(report::event(at, &outcome));
        self.last.store(Arc::new(Some(ReloadOutcome {
            at,
            refused: outcome.as_ref().err().cloned(),
        })));
        outcome
    }

    fn try_apply(
        &self,
        manager: &mut ManagerGuard<'_>,
        versions: &mut FileVersions,
        read: LoadOutcome,
    ) -> Result<ReloadReport, ReloadError> {
        let mut next = self.prepare(read, None)?;
        // From here on nothing fails.
        if !self.current.load().faults.is_empty() {
            // What an issuer lacked at the start is there now.
            manager.renewals_mut().retry_missing();
        }
        let mut report = manager.apply(&next.loaded.config);
        log_problems(&report);
        // Configuration and certificates may lie in one volume that changes as a whole: then these
        // certificates may be those of another configuration. If that one is refused, the check that
        // its change leads to reports it.
        for _ in 0..MAX_RESTARTS {
            if !versions.have_changed() {
                break;
            }
            let before = versions.clone();
            let read = self.load_config(manager, versions);
            let Ok(newer) = self.prepare(read, Some(&next.listeners)) else {
                manager.watch_files(before.paths().cloned());
                *versions = before;
                break;
            };
            next = newer;
            report = manager.apply(&next.loaded.config);
            log_problems(&report);
        }
        let PreparedConfig {
            loaded,
            settings,
            listeners,
            access,
            trace_target,
        } = next;
        let sites = self.replace_sites(&loaded.config);
        manager.publish_config(&loaded.config, Some(sites), &report);
        self.edge.update(settings);
        if let Some(access) = access {
            access.show_depth(&self.metrics.depths);
            self.access.store(Arc::new(access));
        }
        self.tracer.set_target(trace_target);
        self.listeners.commit(listeners);
        self.notifier.apply(&loaded.config);
        let hook = self.notifier.obtaining_hook(&loaded.config);
        self.engine.set_obtaining_hook(hook);
        let reloaded = ReloadReport {
            sites: loaded.config.sites.len(),
            certificates: report.certificates,
            warnings: loaded.warnings.clone(),
            problems: report
                .problems
                .iter()
                .chain(&report.warnings)
                .map(ToString::to_string)
                .collect(),
            restart_needed: restart_needed(&self.at_start, &loaded.config),
        };
        self.current.store(Arc::new(loaded));
        Ok(reloaded)
    }

    /// Prepares what was read, in place of what was prepared with `before`.
    fn prepare(
        &self,
        read: LoadOutcome,
        before: Option<&ListenerPlan>,
    ) -> Result<PreparedConfig, ReloadError> {
        let current = self.current.load();
        PreparedConfig::from_loaded(
            read,
            self.engine.certificates(),
            (&current.config.log, &self.access.load()),
            &self.metrics,
            &*self.log,
            |config| self.listeners.prepare(config, before),
        )
    }

    /// Serves the sites of `config`. Connections get them with the certificates that are published
    /// next.
    pub(super) fn replace_sites(&self, config: &Config) -> Arc<SiteTable> {
        let previous = self.sites.load();
        let key = self.open_sticky_key(config, &previous);
        let sites = SiteTable::build_with_key(config, &self.metrics, Some(&previous), key);
        let sites = Arc::new(sites);
        resolve_upstreams(&sites);
        self.sites.store(Arc::clone(&sites));
        sites.pools().for_each(|pool| pool.mark_drained());
        sites
    }

    /// The key of the cookies that keep clients at their servers, if an upstream needs it for the
    /// first time. Blocks on the storage.
    fn open_sticky_key(&self, config: &Config, previous: &SiteTable) -> Option<StickyKey> {
        let is_needed = config.upstreams.values().any(|one| one.sticky.is_some());
        if !is_needed || previous.has_sticky_key() {
            return None;
        }
        let opened = StickyKey::open(&**self.engine.storage());
        opened
            .inspect_err(|error| {
                tracing::error!(
                    %error,
                    "the key of sticky cookies cannot be read from the storage, or stored there: \
                     until the next start this process has a key of its own, and cookies of others \
                     are replaced",
                );
            })
            .ok()
    }
}

/// Resolves the names of upstreams that are new, so that no request meets a server without an
/// address. At the start there is no runtime yet; the edge waits for the first resolution itself.
fn resolve_upstreams(sites: &SiteTable) {
    if let Ok(runtime) = tokio::runtime::Handle::try_current() {
        let resolved = proxy::resolve_new(sites);
        // What is not found in time is resolved while it is served.
        let _ = runtime.block_on(async { tokio::time::timeout(RESOLVE_PATIENCE, resolved).await });
    }
}
