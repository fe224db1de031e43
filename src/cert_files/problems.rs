//! The problems of files and their certificates, found without going through all of them.

use std::collections::BTreeSet;
use std::path::Path;

use super::entry::{self, Entries, Entry};
use super::entry_table::EntryTable;
use super::files::EntryId;
use super::naming;
use super::sources::Sources;
use crate::clock::UnixTime;
use crate::printable::Printable as _;
use crate::problem::Problem;
use crate::schedule::{Alert, Deadlines, Passed, RenewedBy};

/// How many problems, and how many warnings, are listed one by one.
const LISTED: usize = 1_000;

/// The entries that there is something to say about.
#[derive(Default)]
pub(super) struct Noted {
    ids: BTreeSet<EntryId>,
    /// When there will be something to say about which.
    deadlines: Deadlines<EntryId>,
}

impl Noted {
    pub(super) fn ids(&self) -> impl Iterator<Item = &EntryId> {
        self.ids.iter()
    }

    /// Notes whether there is something to say about an entry, and when there will be.
    pub(super) fn note(&mut self, entry: &Entry, now: UnixTime) {
        if is_odd(entry, now) {
            self.ids.insert(entry.id.clone());
        } else if !self.ids.is_empty() {
            self.ids.remove(&entry.id);
        }
        if let Some(at) = next_change(entry, now)
            && self.deadlines.is_near(at)
        {
            self.deadlines.add(at, entry.id.clone());
        }
    }

    pub(super) fn forget(&mut self, id: &EntryId) {
        self.ids.remove(id);
    }

    /// Certificates begin and end.
    pub(super) fn pass_time(&mut self, entries: &Entries, now: UnixTime) {
        match self.deadlines.pass_time(now) {
            Passed::These(ids) => {
                for entry in ids.iter().filter_map(|id| entries.get(id)) {
                    self.note(entry, now);
                }
            }
            Passed::Unknown => {
                self.ids.clear();
                for entry in entries.iter() {
                    let is_near = |at| self.deadlines.is_near(at);
                    if is_odd(entry, now) || next_change(entry, now).is_some_and(is_near) {
                        self.note(entry, now);
                    }
                }
            }
        }
    }
}

/// Reports what is wrong with files, and what is odd about what is served at `now`.
pub(super) fn report(
    sources: &Sources,
    table: &EntryTable,
    now: UnixTime,
    problems: &mut Vec<Problem>,
    warnings: &mut Vec<Problem>,
) {
    let (mut wrong, mut odd) = (Vec::new(), Vec::new());
    for directory in sources.directories() {
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
    for entry in table.noted() {
        let problem = entry.odd.as_ref().and_then(|odd| odd.problem.as_ref());
        if let Some((path, problem)) = problem {
            if wrong.len() >= LISTED {
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
        if odd.len() >= LISTED {
            more_odd += usize::from(problem.is_none());
            continue;
        }
        for warning in entry.warnings(now) {
            odd.push(Problem::new(&entry.origin, Some(entry.id.chain()), warning));
        }
    }
    for (listed, more) in [(&mut wrong, more_wrong), (&mut odd, more_odd)] {
        if let (Some(last), 1..) = (listed.last(), more) {
            let message = format!("and {more} more files, not listed here");
            let origin = last.origin.clone();
            listed.push(Problem::new(&origin, None, message));
        }
    }
    problems.append(&mut wrong);
    warnings.append(&mut odd);
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
