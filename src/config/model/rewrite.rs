//! What routes and sites change in messages.

use std::sync::Arc;
use std::time::Duration;

use super::Template;

/// What a route changes in requests on their way to a server, and in responses to clients.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Rewriting {
    /// The prefix to remove from paths, which every path of the route has.
    pub strip_prefix: Option<Arc<str>>,
    /// The target that the server gets, or its path. Begins with `/` or `{path}`.
    pub target: Option<Template>,
    /// The `Host` that the server gets.
    pub host: Option<Template>,
    pub request_headers: FieldEdits,
    pub response_headers: FieldEdits,
}

/// Changes of the fields of a message. All names are valid; their case is as it was written.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct FieldEdits {
    /// Fields that replace those of the same name.
    pub set: Vec<(Arc<str>, Template)>,
    /// Fields that stand beside those of the same name.
    pub add: Vec<(Arc<str>, Template)>,
    /// Names of fields that are dropped.
    pub remove: Vec<Arc<str>>,
}

impl FieldEdits {
    pub fn is_empty(&self) -> bool {
        self.set.is_empty() && self.add.is_empty() && self.remove.is_empty()
    }
}

/// `Strict-Transport-Security` (RFC 6797).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Hsts {
    pub max_age: Duration,
    pub subdomains: bool,
    pub preload: bool,
}
