//! The problems of files and their certificates, found without going through all of them.

use std::path::Path;
use std::sync::Arc;

use super::CertFiles;
use super::entry::{self, Entry};
use super::files::EntryId;
use super::naming;
use crate::certificate::TlsCertificate;
use crate::clock::UnixTime;
use crate::printable::Printable as _;
use crate::problem::Problem;
use crate::schedule::{Alert, Passed, RenewedBy};

/// How many problems, and how many warnings, are listed one by one.
const TOLD: usize = 1_000;

impl CertFiles {
    /// Lets time pass: certificates begin and end.
    pub(crate) fn pass_time(&mut self, now: UnixTime) {
        match self.deadlines.pass_time(now) {
            Passed::These(ids) => {
                for id in ids {
                    self.note_entry(&id, now);
                }
            }
            Passed::Unknown => {
                let all = self.entries.iter();
                let all: Vec<_> = all
                    .filter(|entry| {
                        is_odd(entry, now)
                            || next_change(entry, now).is_some_and(|at| self.deadlines.is_near(at))
                    })
                    .map(|entry| entry.id.clone())
                    .collect();
                self.noted.clear();
                for id in all {
                    self.note_entry(&id, now);
                }
            }
        }
    }

    /// Notes whether there is something to say of an entry, and when there will be.
    pub(super) fn note_entry(&mut self, id: &EntryId, now: UnixTime) {
        let Some(entry) = self.entries.get(id) else {
            return;
        };
        if is_odd(entry, now) {
            self.noted.insert(id.clone());
        } else if !self.noted.is_empty() {
            self.noted.remove(id);
        }
        if let Some(at) = next_change(entry, now)
            && self.deadlines.is_near(at)
        {
            self.deadlines.add(at, id.clone());
        }
    }

    /// What is wrong with files, and what is odd about what is served at `now`.
    pub(crate) fn report_problems(
        &self,
        now: UnixTime,
        problems: &mut Vec<Problem>,
        warnings: &mut Vec<Problem>,
    ) {
        let (mut wrong, mut odd) = (Vec::new(), Vec::new());
        for directory in &self.directories {
            let path = || Some(directory.path.to_path_buf());
            if let Some(problem) = &directory.problem {
                wrong.push(Problem::new(&directory.origin, path(), problem.clone()));
            }
            if let (None, Some(lack)) = (&directory.problem, &directory.lack) {
                odd.push(Problem::new(&directory.origin, path(), lack.clone()));
            }
            for key in &directory.lone_keys {
                let message = lone(key);
                odd.push(Problem::new(&directory.origin, Some(key.clone()), message));
            }
        }
        let (mut more_wrong, mut more_odd) = (0_usize, 0_usize);
        for id in &self.noted {
            let Some(entry) = self.entries.get(id) else {
                continue;
            };
            let problem = entry.odd.as_ref().and_then(|odd| odd.problem.as_ref());
            if let Some((path, problem)) = problem {
                if wrong.len() >= TOLD {
                    more_wrong += 1;
                } else {
                    let kept = match entry.certificate {
                        Some(_) => "; the certificate loaded before is still served",
                        None => "",
                    };
                    let message = format!("{problem}{kept}");
                    wrong.push(Problem::new(&entry.origin, Some(path.clone()), message));
                }
            }
            if odd.len() >= TOLD {
                more_odd += usize::from(problem.is_none());
                continue;
            }
            for warning in entry.warnings(now) {
                odd.push(Problem::new(&entry.origin, Some(id.chain()), warning));
            }
        }
        for (told, more) in [(&mut wrong, more_wrong), (&mut odd, more_odd)] {
            if let (Some(last), 1..) = (told.last(), more) {
                let message = format!("and {more} more files, not listed here");
                let origin = last.origin.clone();
                told.push(Problem::new(&origin, None, message));
            }
        }
        problems.append(&mut wrong);
        warnings.append(&mut odd);
    }

    /// The certificates that people may have to be told of: what has ended, ends soon, or has not
    /// begun.
    pub(crate) fn alarming(&self) -> impl Iterator<Item = &Arc<TlsCertificate>> {
        let noted = self.noted.iter().filter_map(|id| self.entries.get(id));
        noted.filter_map(|entry| entry.certificate.as_ref())
    }
}

fn lone(key: &Path) -> String {
    let name = key.file_name().unwrap_or_default();
    let chains: Vec<_> = naming::chains_of(name)
        .map(|chain| Path::new(&chain).printable().to_string())
        .collect();
    format!(
        "is a private key without a certificate beside it ({})",
        chains.join(", ")
    )
}

/// Whether there is something to say of an entry.
fn is_odd(entry: &Entry, now: UnixTime) -> bool {
    entry.odd.is_some()
        || entry.certificate.as_ref().is_some_and(|certificate| {
            entry::invalidity(certificate, now).is_some()
                || Alert::for_lifetime(&certificate.served_lifetime(), RenewedBy::ByHand, now)
                    .is_some()
        })
}

/// When there will next be something to say of a certificate, or no longer.
fn next_change(entry: &Entry, now: UnixTime) -> Option<UnixTime> {
    let certificate = entry.certificate.as_ref()?;
    let life = certificate.served_lifetime();
    let times = [
        life.not_before,
        Alert::begins_at(&life, RenewedBy::ByHand),
        life.not_after.saturating_add(1),
        certificate.not_after().saturating_add(1),
    ];
    times.into_iter().filter(|time| *time > now).min()
}
