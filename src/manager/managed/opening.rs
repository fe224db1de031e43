//! What is taken up when a certificate is first needed: its place in the plan, and what the
//! storage has of it.

use std::sync::Arc;

use indexmap::IndexMap;

use super::super::health::Use;
use super::super::issued::Served;
use super::super::job::Tools;
use super::super::needs::{Asked, Need};
use super::super::parallel;
use super::super::report::Change;
use super::super::stored::{self, StoredError};
use super::super::told::Teller;
use super::super::work;
use super::{Entry, Managed};
use crate::certificate::{TlsCertificate, Validity};
use crate::clock::UnixTime;
use crate::config::model::Issuer as Configured;
use crate::issuer::Issuer;
use crate::schedule::{Facts, Retry};
use crate::storage::{StorageError, keys};

/// What the storage holds of a certificate.
#[derive(Default)]
struct Read {
    certificate: Option<TlsCertificate>,
    retry: Option<Retry>,
    damaged: Option<StoredError>,
}

impl Managed {
    /// Sees that all of `asked` is planned, and returns what the storage has of it.
    pub(in crate::manager) fn ensure(
        &mut self,
        asked: &[Asked<'_>],
        issuers: &IndexMap<Arc<str>, Configured>,
        window: f64,
        now: UnixTime,
    ) -> Vec<Served> {
        self.plans.set_window(window);
        let mut unread = Vec::new();
        for (need, _) in asked {
            if self.entries.get(need).is_some_and(|entry| entry.is_read) {
                continue;
            }
            let remote = self.remote(need, issuers);
            unread.push((Arc::new(need.clone()), keys::subject(&need.names), remote));
        }
        let tools = &self.tools;
        let read = parallel::map(&unread, |(need, subject, remote)| {
            read(tools, need, subject, remote)
        });
        let mut served = Vec::new();
        let mut loaded = 0_usize;
        for ((need, subject, _), read) in unread.into_iter().zip(read) {
            if let Some(change) = self.take_read(&need, subject, read, now) {
                loaded += usize::from(change.new.is_some());
                served.push(((*need).clone(), change));
            }
        }
        if loaded > 0 {
            tracing::info!(certificates = loaded, "loaded from the storage");
        }
        served
    }

    fn take_read(
        &mut self,
        need: &Arc<Need>,
        subject: String,
        read: Result<Read, StorageError>,
        now: UnixTime,
    ) -> Option<Change> {
        let (read, is_read) = match read {
            Ok(read) => {
                self.tools.health.works(Use::Reading);
                (read, true)
            }
            Err(error) => {
                self.tools.health.failed(Use::Reading, &error);
                (Read::default(), false)
            }
        };
        if let Some(error) = read.damaged {
            tracing::error!(domain = %need.domain(), "{error}");
        }
        let is_known = self.entries.contains_key(need);
        let entry = self
            .entries
            .entry(Arc::clone(need))
            .or_insert_with(|| Entry {
                subject,
                certificate: None,
                unsaved: None,
                is_read,
                is_stale: false,
                is_foreign: false,
            });
        entry.is_read = is_read;
        let better = read.certificate.filter(|stored| {
            let present = entry.certificate.as_ref();
            let is_later = |present: &Arc<TlsCertificate>| stored.not_after() > present.not_after();
            entry.is_foreign || present.is_none_or(is_later)
        });
        let new = better.map(Arc::new);
        let change = new.map(|new| {
            entry.is_stale = new.validity(now) == Validity::Expired;
            entry.is_foreign = false;
            Teller {
                tools: &self.tools,
                need,
                now,
            }
            .loaded(&new);
            let old = entry.certificate.replace(Arc::clone(&new));
            Change {
                old,
                new: Some(new),
            }
        });
        if is_known && !is_read {
            // What is planned stays as it is.
            return None;
        }
        let is_foreign = entry.is_foreign;
        let facts = Facts {
            life: entry.certificate.as_deref().map(TlsCertificate::lifetime),
            retry: read.retry,
        };
        self.plans.set(need, facts, now);
        if is_foreign {
            self.plans.request(need, now);
        }
        change
    }
}

fn read(
    tools: &Tools,
    need: &Need,
    subject: &str,
    remote: &[Arc<dyn Issuer>],
) -> Result<Read, StorageError> {
    let now = tools.clock.now();
    let mut read = Read {
        retry: stored::load_retry(&*tools.storage, subject)?,
        ..Read::default()
    };
    for issuer in remote {
        let stored = stored::load(
            &*tools.storage,
            &tools.loader,
            issuer.ca(),
            subject,
            issuer.name(),
        );
        match stored {
            Ok(Some(certificate)) if work::covers(&certificate, &need.names) => {
                let is_valid = certificate.validity(now) == Validity::Valid;
                let is_longer = read
                    .certificate
                    .as_ref()
                    .is_none_or(|other| other.not_after() < certificate.not_after());
                if is_valid || is_longer {
                    read.certificate = Some(certificate);
                }
                if is_valid {
                    break;
                }
            }
            Ok(_) => {}
            Err(StoredError::Storage(error)) => return Err(error),
            Err(damaged) => read.damaged = Some(damaged),
        }
    }
    Ok(read)
}
