//! What routes and sites change in messages.

use std::collections::BTreeMap;

use indexmap::IndexMap;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::text::{Duration, Names};

/// Changes to the fields of messages. Values may have placeholders.
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct HeaderEdits {
    /// Fields that replace those of the same name. One whose value is empty is only removed.
    #[schemars(with = "BTreeMap<String, String>")]
    pub(crate) set: IndexMap<String, String>,
    /// Fields that are added to those of the same name: one value, or a list of them.
    #[schemars(with = "BTreeMap<String, Names>")]
    pub(crate) add: IndexMap<String, Names>,
    /// Names of fields to remove.
    pub(crate) remove: Vec<String>,
}

/// `Strict-Transport-Security`: browsers that have seen it use HTTPS only.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Hsts {
    /// How long browsers remember it. `0s` makes them forget it.
    pub(crate) max_age: Duration,
    /// Whether it is valid for all hosts below those of the site as well.
    pub(crate) subdomains: bool,
    /// Whether browsers may have it built in; needs `subdomains` and a `max_age` of 365d.
    pub(crate) preload: bool,
}

impl Default for Hsts {
    fn default() -> Self {
        Self {
            max_age: Duration::new("365d"),
            subdomains: false,
            preload: false,
        }
    }
}
