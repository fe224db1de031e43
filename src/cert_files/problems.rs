//! The problems of files and their certificates, found without going through all of them.

use std::path::Path;

use super::entry_table::EntryTable;
use super::naming;
use super::sources::Sources;
use crate::certificate::finding::{describe, findings};
use crate::certificate::{Finding, RenewalFacts};
use crate::clock::UnixTime;
use crate::event::EventKind;
use crate::printable::Printable as _;
use crate::problem::Problem;
use crate::schedule::WarnFrom;

/// How many problems, and how many warnings, are listed one by one.
const LISTED: usize = 1_000;

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
    add_rest(&mut wrong, more_wrong);
    add_rest(&mut odd, more_odd);
    problems.append(&mut wrong);
    warnings.append(&mut odd);
}

/// Of which certificates the end is near at `now`, or that of their chain.
pub(super) fn near_ends(table: &EntryTable, warn: WarnFrom, now: UnixTime) -> Vec<Problem> {
    let mut listed = Vec::new();
    let mut more = 0_usize;
    for entry in table.entries().iter() {
        let Some(certificate) = entry.certificate.as_deref() else {
            continue;
        };
        let facts = RenewalFacts::BY_HAND;
        let found = findings(certificate, &facts, warn, now);
        let is_near = |one: &&Finding| one.kind == EventKind::CertificateExpiring;
        let Some(near) = found.iter().find(is_near) else {
            continue;
        };
        if listed.len() >= LISTED {
            more += 1;
            continue;
        }
        let message = format!("the certificate {}", describe(near, certificate, &facts));
        let file = Some(entry.id.chain());
        listed.push(Problem::new(&entry.origin, file, message));
    }
    add_rest(&mut listed, more);
    listed
}

/// Says how many more there are than are listed.
fn add_rest(listed: &mut Vec<Problem>, more: usize) {
    if let (Some(last), 1..) = (listed.last(), more) {
        let message = format!("and {more} more files, not listed here");
        let origin = last.origin.clone();
        listed.push(Problem::new(&origin, None, message));
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
