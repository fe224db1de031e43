//! The first scan of all files: what they are named after, and which are loaded before the rest
//! because a client asks for them.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use super::files::{EntryId, Kind};
use super::load_priority::LoadPriority;
use super::naming;
use super::{CertFiles, Change, Found};
use crate::certificate::Loader;
use crate::certificate::sni::Loading;
use crate::clock::UnixTime;
use crate::host::{Host, Identifier, Pattern};

/// What is known of files before they are read.
pub(super) struct PriorityLoad {
    load_priority: LoadPriority,
    /// What files of directories are named after, as far as they are listed.
    marks: Vec<u64>,
    /// Configured files, by what they are named after.
    files: HashMap<u64, Vec<EntryId>>,
    /// The default certificate's name, which whoever names none asks for.
    default: Option<Identifier>,
}

impl CertFiles {
    /// Begins the first scan. Until it is done, files that clients wait for are loaded before the rest,
    /// and the one for `default` first.
    pub(crate) fn begin_first_scan(&mut self, default: Option<Identifier>) {
        let load_priority = self.load_priority.clone();
        let mut files: HashMap<u64, Vec<EntryId>> = HashMap::new();
        for id in self.files.keys() {
            for pattern in named_after(id).into_iter().flatten() {
                if let Some(mark) = load_priority.hash_pattern(&pattern) {
                    files.entry(mark).or_default().push(id.clone());
                }
            }
        }
        self.priority_load = Some(PriorityLoad {
            load_priority,
            marks: Vec::new(),
            files,
            default,
        });
        self.watch_configured();
        self.begin_scan();
    }

    /// Whether the first scan is under way.
    pub(crate) fn is_loading(&self) -> bool {
        self.priority_load.is_some()
    }

    /// What handshakes ask for certificates that are not loaded yet; `None` once all are.
    pub(crate) fn load_progress(&self) -> Option<Arc<dyn Loading>> {
        self.is_loading()
            .then(|| Arc::new(self.load_priority.clone()) as _)
    }

    /// Whether all files are known, if not what is in them: from then on a client can be told what to
    /// wait for.
    pub(crate) fn is_listed(&self) -> bool {
        !self.is_loading() || self.load_priority.is_listed()
    }

    /// Notes that the certificates loaded so far are served.
    pub(crate) fn mark_served(&self) {
        self.load_priority.mark_served();
    }

    /// Notes that a directory holds the chain `name`.
    pub(super) fn note_listed(&mut self, name: &OsStr) {
        // Files are looked for by names in small letters.
        let is_small = !name.as_encoded_bytes().iter().any(u8::is_ascii_uppercase);
        if let Some(first) = &mut self.priority_load
            && !first.load_priority.is_listed()
            && is_small
            && let Some(pattern) = naming::named_after(name)
        {
            first
                .marks
                .extend(first.load_priority.hash_pattern(&pattern));
        }
    }

    /// Takes note that all directories are listed.
    pub(super) fn note_all_listed(&mut self) {
        if let Some(first) = &mut self.priority_load {
            let mut marks = std::mem::take(&mut first.marks);
            marks.extend(first.files.keys());
            first.load_priority.set_listed(marks);
            match &first.default {
                Some(Identifier::Dns(name)) => {
                    first.load_priority.prioritize(Host::Name(name.as_str()))
                }
                Some(Identifier::Ip(address)) => first.load_priority.prioritize(Host::Ip(*address)),
                None => {}
            }
        }
    }

    /// Whether somebody waits for files to be looked at before the rest.
    pub(crate) fn is_hurried(&self) -> bool {
        self.priority_load
            .as_ref()
            .is_some_and(|first| first.load_priority.is_wanted())
    }

    /// Loads the files that a client waits for.
    pub(super) fn load_requested(&mut self, loader: &Loader, now: UnixTime) -> Vec<Change> {
        let Some(first) = &self.priority_load else {
            return Vec::new();
        };
        let mut found = Vec::new();
        for pattern in first.load_priority.take_requested() {
            let mark = first.load_priority.hash_pattern(&pattern);
            let ids = mark.and_then(|mark| first.files.get(&mark));
            let files = ids.into_iter().flatten().filter_map(|id| {
                Some(Found {
                    id: id.clone(),
                    kind: Kind::Files,
                    origin: Arc::clone(self.files.get(id)?),
                })
            });
            found.extend(files);
            self.find_named(&pattern, &mut found);
        }
        self.reload_found(found, loader, now)
    }

    /// Finds the files of directories that are named after `pattern`.
    fn find_named(&self, pattern: &Pattern, found: &mut Vec<Found>) {
        for name in naming::names_for(pattern) {
            for directory in &self.directories {
                let id = EntryId::beside(&directory.path, OsStr::new(&name));
                if !self.files.contains_key(&id) && fs::symlink_metadata(id.chain()).is_ok() {
                    found.push(Found {
                        id,
                        kind: Kind::Directory,
                        origin: Arc::clone(&directory.origin),
                    });
                }
            }
        }
    }
}

/// What a configured file is named after: it, or its directory as certbot has it,
/// `live/a.example/fullchain.pem`.
fn named_after(id: &EntryId) -> [Option<Pattern>; 2] {
    let directory: &Path = id.file.directory();
    let above = directory.file_name().and_then(OsStr::to_str);
    [
        naming::named_after(id.file.name()),
        above.and_then(naming::named),
    ]
}
