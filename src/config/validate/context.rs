//! What the functions of the validation share: the configuration as written, and what is found.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, Uri};
use indexmap::IndexMap;

use crate::config::model::{ClientAuth, ForwardAuth, Jwt, Origin, Page, PathRegex};
use crate::config::problem::{At, Problems, quote};
use crate::config::route_places::RoutePlaces;
use crate::config::schema;
use crate::config::source::Sources;
use crate::jwt::KeyServer;

pub(super) struct Context<'c> {
    /// The whole configuration, for references from one section to another.
    pub(super) raw: &'c schema::Root,
    pub(super) sources: &'c mut Sources,
    pub(super) problems: &'c mut Problems,
    pub(super) used: Used,
    /// Regular expressions by their text, each compiled once.
    pub(super) expressions: HashMap<String, PathRegex>,
    /// Pages by their files, each read once.
    pub(super) pages: HashMap<PathBuf, Arc<Page>>,
    /// Client certificates by what they are verified with, each read once.
    pub(super) client_auth: HashMap<ClientAuthKey, Option<Arc<ClientAuth>>>,
    /// Services that are asked about requests, each made once.
    pub(super) forward_auths: HashMap<ServiceSettings, Arc<ForwardAuth>>,
    /// Tokens that requests need, each with keys of their own.
    pub(super) jwts: HashMap<TokenSettings, Arc<Jwt>>,
    /// The servers that publish verification keys, each made once.
    pub(super) key_servers: IndexMap<KeyServerSettings, Arc<KeyServer>>,
    /// Where to note the places of routes, if somebody asks.
    pub(super) route_places: Option<&'c mut RoutePlaces>,
}

/// What a `client_auth` is made of.
#[derive(PartialEq, Eq, Hash)]
pub(super) struct ClientAuthKey {
    pub(super) is_required: bool,
    pub(super) depth: u16,
    pub(super) ca: PathBuf,
    pub(super) crl: Option<PathBuf>,
}

/// What tells one service that is asked about requests from another: its URL, the fields that it sets,
/// its time-out, and the file of the roots to trust it by.
pub(super) type ServiceSettings = (Uri, Vec<HeaderName>, Duration, Option<PathBuf>);

/// What tells the tokens that one route needs from those of another: the keys as written, and the files
/// of their keys and of the roots.
pub(super) type TokenSettings = (String, [Option<PathBuf>; 2]);

/// What tells one server that publishes keys from another: its URL, the file of the roots to trust it
/// by, and how often it is asked.
pub(super) type KeyServerSettings = (Uri, Option<PathBuf>, Duration);

/// Names that something refers to, by the section that defines them.
#[derive(Default)]
pub(super) struct Used {
    pub(super) dns: HashSet<Arc<str>>,
    pub(super) issuers: HashSet<Arc<str>>,
    pub(super) upstreams: HashSet<Arc<str>>,
}

impl Context<'_> {
    /// Where a key stands in the files.
    pub(super) fn origin(&self, at: &At<'_>) -> Origin {
        let place = at.place();
        Origin {
            file: self.sources.shown(place.file),
            line: usize::try_from(place.line).unwrap_or(usize::MAX),
            column: usize::try_from(place.column).unwrap_or(usize::MAX),
            path: at.path(),
        }
    }

    /// Reports a name that cannot be referred to everywhere.
    pub(super) fn check_name(&mut self, at: &At<'_>, name: &str) {
        let good = |char: char| char.is_ascii_alphanumeric() || matches!(char, '-' | '_' | '.');
        if name.is_empty() || name.len() > 64 || !name.chars().all(good) {
            self.problems.error(
                &at.at_key(),
                format!("{} is not a valid name", quote(name)),
                "use 1 to 64 letters, digits, '-', '_' and '.'",
            );
        }
    }
}
