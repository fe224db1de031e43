//! The certificates of local CAs, kept for as long as a specification asks for them.

use std::collections::HashMap;
use std::sync::Arc;

use indexmap::IndexMap;

use super::desired::ConfiguredSpec;
use crate::certificate::Change;
use crate::certificate::{Fingerprint, Loader, TlsCertificate};
use crate::clock::{Clock, UnixTime};
use crate::config::model::{Issuer, Origin};
use crate::issuer::spec::{CertSpec, SpecChange};
use crate::local_ca::{LocalCa, LocalCaError};
use crate::parallel;
use crate::problem::Problem;
use crate::storage::{Storage, StorageError};

/// What local CAs are opened with.
pub(super) struct LocalCaDeps {
    pub(super) storage: Arc<dyn Storage>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) loader: Arc<Loader>,
    /// Whether nothing may be issued or stored, only read.
    pub(super) dry: bool,
}

/// Every certificate that was issued, and the local CAs that are open.
pub(super) struct LocalCerts {
    deps: LocalCaDeps,
    /// The issuers of the configuration.
    configured: IndexMap<Arc<str>, Issuer>,
    open: HashMap<Arc<str>, Arc<LocalCa>>,
    /// The issuers that this pass has tried and not opened, with the reason if they cannot be
    /// opened: some wait long for the storage, and many specifications may ask for them.
    tried: HashMap<Arc<str>, Option<String>>,
    /// Whether one of them could not be opened and is to be tried again soon.
    is_unopened: bool,
    certificates: HashMap<CertSpec, Arc<TlsCertificate>>,
}

impl LocalCerts {
    pub(super) fn new(deps: LocalCaDeps) -> Self {
        Self {
            deps,
            configured: IndexMap::new(),
            open: HashMap::new(),
            tried: HashMap::new(),
            is_unopened: false,
            certificates: HashMap::new(),
        }
    }

    /// The local CA that the configuration calls `name`; opened where it has not been.
    ///
    /// `None` in a dry run, which opens none: then the issuer is in order.
    pub(super) fn local_ca(&mut self, name: &Arc<str>) -> Result<Option<Arc<LocalCa>>, String> {
        let issuers = &self.configured;
        // Only the issuer could say more, and a dry run asks none.
        if self.deps.dry && matches!(issuers.get(name), Some(Issuer::Acme(_) | Issuer::Own)) {
            return Ok(None);
        }
        let Some(Issuer::LocalCa { name: common_name }) = issuers.get(name) else {
            return Err(format!("there is no issuer {name:?}"));
        };
        if let Some(ca) = self.open.get(name) {
            return Ok(Some(Arc::clone(ca)));
        }
        if let Some(tried) = self.tried.get(name) {
            return tried.clone().map_or(Ok(None), Err);
        }
        let locals = issuers.iter().filter_map(|(name, issuer)| match issuer {
            Issuer::LocalCa { .. } => Some(&**name),
            Issuer::Acme(_) | Issuer::Own => None,
        });
        let locals: Vec<&str> = locals.collect();
        match self.open_local_ca(name, &locals, common_name) {
            Ok(Some(ca)) => {
                self.open.insert(Arc::clone(name), Arc::clone(&ca));
                Ok(Some(ca))
            }
            Ok(None) => {
                self.tried.insert(Arc::clone(name), None);
                Ok(None)
            }
            Err(error) => {
                let reason = error.to_string();
                // Waiting for another process has taken long already.
                self.is_unopened |=
                    !matches!(error, LocalCaError::Storage(StorageError::Busy { .. }));
                self.tried.insert(Arc::clone(name), Some(reason.clone()));
                Err(reason)
            }
        }
    }

    fn open_local_ca(
        &self,
        name: &Arc<str>,
        locals: &[&str],
        common_name: &str,
    ) -> Result<Option<Arc<LocalCa>>, LocalCaError> {
        let LocalCaDeps {
            storage,
            clock,
            loader,
            dry,
        } = &self.deps;
        if *dry {
            LocalCa::stored_root_pem(storage.as_ref(), name, locals)?;
            return Ok(None);
        }
        let (storage, clock) = (Arc::clone(storage), Arc::clone(clock));
        let ca = LocalCa::open(
            Arc::clone(name),
            locals,
            common_name,
            storage,
            clock,
            Arc::clone(loader),
        )?;
        Ok(Some(Arc::new(ca)))
    }

    /// Takes the issuers of another configuration. Closes the CAs that it no longer has as they
    /// were.
    pub(super) fn configure(&mut self, issuers: &IndexMap<Arc<str>, Issuer>) {
        let before = std::mem::replace(&mut self.configured, issuers.clone());
        self.open
            .retain(|name, _| before.get(name) == issuers.get(name));
    }

    /// Begins a pass: lets every open issuer do what is due.
    pub(super) fn maintain_cas(&mut self, problems: &mut Vec<Problem>) {
        self.tried.clear();
        self.is_unopened = false;
        for (name, ca) in &self.open {
            if let Err(error) = ca.maintain_keys() {
                let message = format!("issuer {name}: {error}");
                problems.push(Problem::new(&Origin::default(), None, message));
            }
        }
    }

    /// Why clients refuse what is issued by the local CA of this name, see
    /// [`LocalCa::not_yet_valid`].
    pub(super) fn not_yet_valid(&self, issuer: &str) -> Option<String> {
        self.open.get(issuer)?.not_yet_valid()
    }

    /// Reports the local CAs whose certificates clients refuse.
    pub(super) fn report_not_yet_valid(&self, problems: &mut Vec<Problem>) {
        for (name, ca) in &self.open {
            if let Some(why) = ca.not_yet_valid() {
                let message = format!("issuer {name}: {why}");
                problems.push(Problem::new(&Origin::default(), None, message));
            }
        }
    }

    /// Whether a local CA could not be opened. That may be fixed any moment.
    pub(super) fn is_unopened(&self) -> bool {
        self.is_unopened
    }

    /// Issues what is missing or ends soon.
    pub(super) fn issue_certificates(
        &mut self,
        asked: &[ConfiguredSpec<'_>],
        window: f64,
        now: UnixTime,
        problems: &mut Vec<Problem>,
    ) -> Vec<SpecChange> {
        let mut jobs = Vec::new();
        for (spec, origin) in asked {
            let present = self.certificates.get(spec);
            if present.is_some_and(|certificate| !certificate.is_due(window, now)) {
                continue;
            }
            match self.first_available(spec) {
                Ok(Some(ca)) => jobs.push((spec, *origin, ca)),
                // In order, as far as a dry run can know.
                Ok(None) => {}
                Err(message) => problems.push(Problem::new(origin, None, message)),
            }
        }
        let made = parallel::map(&jobs, |(spec, _, ca)| ca.issue(&spec.names));
        let mut served = Vec::new();
        for ((spec, origin, ca), made) in jobs.into_iter().zip(made) {
            match made {
                Ok(new) => {
                    let new = Arc::new(new);
                    let old = self.certificates.insert(spec.clone(), Arc::clone(&new));
                    served.push((
                        spec.clone(),
                        Change {
                            old,
                            new: Some(new),
                        },
                    ));
                }
                Err(error) => {
                    problems.push(Problem::new(
                        origin,
                        None,
                        open_failure(ca.issuer(), &error),
                    ));
                }
            }
        }
        served
    }

    /// Removes the certificates that are no longer needed.
    pub(super) fn retain(&mut self, is_needed: impl Fn(&CertSpec) -> bool) -> Vec<Change> {
        let mut changes = Vec::new();
        self.certificates.retain(|spec, certificate| {
            let keep = is_needed(spec);
            if !keep {
                changes.push(Change {
                    old: Some(Arc::clone(certificate)),
                    new: None,
                });
            }
            keep
        });
        changes
    }

    /// Issues another certificate in place of the one with this fingerprint, which stays if that
    /// fails; `None` if there is none such.
    pub(super) fn replace(
        &mut self,
        fingerprint: Fingerprint,
    ) -> Option<Result<SpecChange, String>> {
        let mut certificates = self.certificates.iter();
        let (spec, _) = certificates.find(|(_, one)| one.fingerprint() == fingerprint)?;
        let spec = spec.clone();
        // What kept an issuer from being opened may be fixed.
        self.tried.clear();
        let ca = match self.first_available(&spec).transpose()? {
            Ok(ca) => ca,
            Err(reason) => return Some(Err(reason)),
        };
        let made = ca.issue(&spec.names);
        Some(match made {
            Ok(new) => {
                let new = Arc::new(new);
                let old = self.certificates.insert(spec.clone(), Arc::clone(&new));
                let new = Some(new);
                Ok((spec, Change { old, new }))
            }
            Err(error) => Err(open_failure(ca.issuer(), &error)),
        })
    }

    /// Whether there is a certificate for this very specification.
    pub(super) fn has(&self, spec: &CertSpec) -> bool {
        self.certificates.contains_key(spec)
    }

    /// How many certificates there are.
    pub(super) fn len(&self) -> usize {
        self.certificates.len()
    }

    pub(super) fn certificates(&self) -> impl Iterator<Item = &Arc<TlsCertificate>> {
        self.certificates.values()
    }

    fn first_available(&mut self, spec: &CertSpec) -> Result<Option<Arc<LocalCa>>, String> {
        let mut reasons = Vec::new();
        for name in &spec.issuers {
            match self.local_ca(name) {
                Ok(ca) => return Ok(ca),
                Err(reason) => reasons.push(format!("issuer {name}: {reason}")),
            }
        }
        Err(reasons.join("; "))
    }
}

fn open_failure(issuer: &str, error: &LocalCaError) -> String {
    format!("issuer {issuer}: {error}")
}
