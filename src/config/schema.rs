//! The configuration as it is written: serde types that are the YAML, key by key.
//!
//! The comments of the keys become the descriptions of the JSON schema, and the values of
//! `Default` its defaults. The types hold what the file says, not whether it makes sense: each
//! missing or odd value is found by `check` (from the schema) or by `build` (from the meaning).

mod access;
mod client_auth;
mod compress;
mod dns;
mod error_page;
mod files;
mod issuer;
mod jwt;
mod log;
mod notify;
mod on_demand;
mod rate_limit;
mod recipient;
mod retries;
mod revocation;
mod rewrite;
mod route;
mod route_path;
mod server;
mod site_tls;
mod sticky;
mod text;
mod tls;
mod tracing;
mod tunnel;
mod upstream;
mod validity;

use std::collections::BTreeMap;

use indexmap::IndexMap;
use schemars::generate::SchemaSettings;
use schemars::transform::{Transform, transform_subschemas};
use schemars::{JsonSchema, Schema};
use serde::{Deserialize, Serialize};
use serde_json::Value;

pub(crate) use access::*;
pub(crate) use client_auth::*;
pub(crate) use compress::*;
pub(crate) use dns::*;
pub(crate) use error_page::*;
pub(crate) use files::*;
pub(crate) use issuer::*;
pub(crate) use jwt::*;
pub(crate) use log::*;
pub(crate) use notify::*;
pub(crate) use on_demand::*;
pub(crate) use rate_limit::*;
pub(crate) use recipient::*;
pub(crate) use retries::*;
pub(crate) use revocation::*;
pub(crate) use rewrite::*;
pub(crate) use route::*;
pub(crate) use route_path::*;
pub(crate) use server::*;
pub(crate) use site_tls::*;
pub(crate) use sticky::*;
pub(crate) use text::*;
pub(crate) use tls::*;
pub(crate) use tracing::*;
pub(crate) use tunnel::*;
pub(crate) use upstream::*;
pub(crate) use validity::*;

/// The configuration of Snigate.
///
/// Everything has a default but `sites` and `certificates`, of which at least one is needed.
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(title = "Snigate configuration")]
pub(crate) struct Root {
    /// More files to read, by path or pattern (`sites.d/*.yaml`). A pattern that matches nothing
    /// is fine, a missing file is not. Lists are concatenated; a key or name that is defined twice
    /// is an error.
    pub(crate) include: Vec<String>,
    /// Where Snigate listens, and what one client may take.
    pub(crate) server: Server,
    /// TLS settings of the HTTPS listeners.
    pub(crate) tls: Tls,
    /// Where issued certificates, their keys and accounts are stored.
    pub(crate) storage: Storage,
    /// Who issues certificates, by a name of your choice. The first one is the default.
    #[schemars(with = "BTreeMap<String, Issuer>")]
    pub(crate) issuers: IndexMap<String, Issuer>,
    /// Where DNS records that prove control of names are set, by a name of your choice.
    #[schemars(with = "BTreeMap<String, Dns>")]
    pub(crate) dns: IndexMap<String, Dns>,
    /// Certificates to serve in addition to those that sites need.
    pub(crate) certificates: Vec<Certificate>,
    /// Whether all certificates and keys are held in memory, or read from where they are stored
    /// when a client asks for them.
    pub(crate) certificates_in_memory: InMemory,
    /// How much memory the certificates that are kept ready for handshakes may take.
    pub(crate) certificate_cache: CacheSize,
    /// When issued certificates are renewed.
    pub(crate) renewal: Renewal,
    /// How it is learned whether served certificates are revoked.
    pub(crate) revocation: Revocation,
    /// When it is reported that a certificate expires.
    pub(crate) validity: Validity,
    /// Certificates issued when a client first asks for a name.
    pub(crate) on_demand: Option<OnDemand>,
    /// Pools of servers that requests are passed to, by a name of your choice.
    #[schemars(with = "BTreeMap<String, Upstream>")]
    pub(crate) upstreams: IndexMap<String, Upstream>,
    /// What is served: hosts and what to do with their requests.
    pub(crate) sites: Vec<Site>,
    /// Who is notified when something happens.
    pub(crate) events: Vec<Hook>,
    /// What is logged, and where.
    pub(crate) log: Log,
    /// Where spans of requests go. Without it there are none.
    pub(crate) tracing: Option<Tracing>,
    /// Whether a program embeds the engine and serves requests itself: no file can say so.
    #[serde(skip)]
    pub(crate) is_embedded: bool,
}

/// The JSON schema of [`Root`].
pub(super) fn schema() -> Value {
    // Draft 7 is what editors understand best.
    let settings = SchemaSettings::draft07().with_transform(Tidy);
    settings
        .into_generator()
        .into_root_schema_for::<Root>()
        .into()
}

/// Takes out of the schema what says nothing to people: a key may be left out, but not be null,
/// and a default that is empty or spelled out elsewhere is none.
#[derive(Clone, Copy)]
struct Tidy;

impl Transform for Tidy {
    fn transform(&mut self, schema: &mut Schema) {
        transform_subschemas(self, schema);
        let Some(map) = schema.as_object_mut() else {
            return;
        };
        let empty = match map.get("default") {
            Some(Value::Null | Value::Object(_)) => true,
            Some(Value::Array(list)) => list.is_empty(),
            Some(Value::String(text)) => text.is_empty(),
            Some(Value::Bool(_) | Value::Number(_)) | None => false,
        };
        if empty {
            map.remove("default");
        }
        if let Some(Value::Array(types)) = map.get_mut("type") {
            types.retain(|kind| kind != "null");
            if let [one] = types.as_slice() {
                let one = one.clone();
                map.insert("type".to_owned(), one);
            }
        }
        if let Some(Value::Array(words)) = map.get_mut("enum") {
            words.retain(|word| !word.is_null());
        }
        let null = serde_json::json!({ "type": "null" });
        if let Some(Value::Array(forms)) = map.get_mut("anyOf") {
            forms.retain(|form| *form != null);
            if let [one] = forms.as_slice() {
                let one = one.clone();
                map.remove("anyOf");
                map.insert("allOf".to_owned(), Value::Array(vec![one]));
            }
        }
        // The formats of Rust's integers mean nothing to others.
        if map
            .get("type")
            .is_some_and(|kind| kind == "integer" || kind == "number")
        {
            map.remove("format");
        }
    }
}
