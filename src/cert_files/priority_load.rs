//! The first scan of all files: what they are named after, and which are loaded before the rest
//! because a client asks for them.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::path::Path;

use super::entry::Found;
use super::files::EntryId;
use super::load_priority::LoadPriority;
use super::naming;
use super::sources::Sources;
use crate::certificate::sni::Loading as _;
use crate::host::{Host, Identifier, Pattern};

/// What is known of files before they are read.
pub(super) struct PriorityLoad {
    load_priority: LoadPriority,
    /// What files of directories are named after, as far as they are listed.
    marks: Vec<u64>,
    /// Configured files, by what they are named after.
    files: HashMap<u64, Vec<EntryId>>,
    /// The default certificate's name, for clients that name none.
    default: Option<Identifier>,
}

impl PriorityLoad {
    /// Nothing is known but what the files of `sources` are named after. The one for `default` is
    /// loaded first.
    pub(super) fn new(
        load_priority: LoadPriority,
        sources: &Sources,
        default: Option<Identifier>,
    ) -> Self {
        let mut files: HashMap<u64, Vec<EntryId>> = HashMap::new();
        for id in sources.file_ids() {
            for pattern in named_after(id).into_iter().flatten() {
                if let Some(mark) = load_priority.hash_pattern(&pattern) {
                    files.entry(mark).or_default().push(id.clone());
                }
            }
        }
        Self {
            load_priority,
            marks: Vec::new(),
            files,
            default,
        }
    }

    /// Notes that a directory holds the chain `name`.
    pub(super) fn note_listed(&mut self, name: &OsStr) {
        // Files are looked for by names in small letters.
        let is_small = !name.as_encoded_bytes().iter().any(u8::is_ascii_uppercase);
        if is_small
            && !self.load_priority.is_listed()
            && let Some(pattern) = naming::named_after(name)
        {
            self.marks.extend(self.load_priority.hash_pattern(&pattern));
        }
    }

    /// Notes that all directories are listed.
    pub(super) fn note_all_listed(&mut self) {
        let mut marks = std::mem::take(&mut self.marks);
        marks.extend(self.files.keys());
        self.load_priority.set_listed(marks);
        match &self.default {
            Some(Identifier::Dns(name)) => self.load_priority.prioritize(Host::Name(name.as_str())),
            Some(Identifier::Ip(address)) => self.load_priority.prioritize(Host::Ip(*address)),
            None => {}
        }
    }

    /// Whether a client waits for files to be loaded before the rest.
    pub(super) fn is_hurried(&self) -> bool {
        self.load_priority.is_wanted()
    }

    /// Takes the files that clients wait for.
    pub(super) fn take_requested(&self, sources: &Sources) -> Vec<Found> {
        let mut found = Vec::new();
        for pattern in self.load_priority.take_requested() {
            let mark = self.load_priority.hash_pattern(&pattern);
            let ids = mark.and_then(|mark| self.files.get(&mark));
            let ids = ids.into_iter().flatten();
            found.extend(ids.filter_map(|id| sources.find_file(id)));
            sources.find_named(&pattern, &mut found);
        }
        found
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
