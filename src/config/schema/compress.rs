//! `compress`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::text::{Size, Switch};

/// Whether responses are compressed: `off`, `on`, or how.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
#[schemars(inline)]
pub(crate) enum Compress {
    Switch(Switch),
    On(CompressOptions),
}

/// How responses are compressed.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct CompressOptions {
    /// The codings to use. Of those that a client prefers equally, the first is used.
    #[schemars(length(min = 1))]
    pub(crate) algorithms: Vec<Coding>,
    /// The media types to compress: `TYPE/SUBTYPE`, `TYPE/*` or `*+SUFFIX`. `text/event-stream` has
    /// to be named itself.
    #[schemars(length(min = 1))]
    pub(crate) types: Vec<String>,
    /// The size from which a body is compressed, if its length is known beforehand.
    pub(crate) min_size: Size,
    /// How much work is spent: `fast`, `default` or `best`.
    pub(crate) level: CompressLevel,
}

impl Default for CompressOptions {
    fn default() -> Self {
        let types = [
            "text/*",
            "*+json",
            "*+xml",
            "application/javascript",
            "application/json",
            "application/wasm",
            "application/x-javascript",
            "application/x-ndjson",
            "application/xml",
            "application/vnd.ms-fontobject",
            "font/otf",
            "font/ttf",
            "image/bmp",
            "image/x-icon",
        ];
        Self {
            algorithms: vec![Coding::Zstd, Coding::Br, Coding::Gzip],
            types: types.map(str::to_owned).into(),
            min_size: Size::Text("1KiB".to_owned()),
            level: CompressLevel::Default,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub(crate) enum Coding {
    Zstd,
    Br,
    Gzip,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub(crate) enum CompressLevel {
    Fast,
    Default,
    Best,
}
