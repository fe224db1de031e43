//! `log`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::text::Size;

/// What is logged, and where.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Log {
    /// `error`, `warn`, `info`, `debug` or `trace`, or one for each part:
    /// `info,snigate::proxy=debug`.
    pub(crate) level: String,
    /// `text` for people, `json` for programs.
    pub(crate) format: LogFormat,
    /// Where the gateway's own log goes: `stderr`, `stdout`, the path of a file, `journald`,
    /// `syslog`, `udp://HOST:PORT`, `tcp://HOST:PORT` or `tls://HOST:PORT`.
    pub(crate) target: String,
    /// Where a line for each request goes: `off`, or as under `target`.
    pub(crate) access: String,
    /// The format of the access log: `text`, `json`, or a text with placeholders such as
    /// `{client} {status} "{target}"`. Default: that of `format`.
    pub(crate) access_format: Option<String>,
    /// What is left out of the lines of the access log, and added to them.
    pub(crate) access_fields: AccessFields,
    /// When log files are rotated. Without it, others rotate them and send SIGUSR1.
    pub(crate) rotate: Option<Rotate>,
    /// What receivers of syslog messages get.
    pub(crate) syslog: Syslog,
}

impl Default for Log {
    fn default() -> Self {
        Self {
            level: "info".to_owned(),
            format: LogFormat::Text,
            target: "stderr".to_owned(),
            access: "stdout".to_owned(),
            access_format: None,
            access_fields: AccessFields::default(),
            rotate: None,
            syslog: Syslog::default(),
        }
    }
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub(crate) enum LogFormat {
    Json,
    Text,
}

/// What is left out of the lines of the access log, and added to them.
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct AccessFields {
    /// Fields by their names, such as `sni` or `path`.
    pub(crate) add: Vec<String>,
    /// Fields by their names. `query` leaves queries out of targets and referers.
    pub(crate) remove: Vec<String>,
    /// Header fields of requests.
    pub(crate) request_headers: Vec<String>,
}

/// When log files are rotated.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Rotate {
    /// The size that no file exceeds.
    pub(crate) size: Size,
    /// How many old files are kept.
    #[serde(default = "five")]
    #[schemars(range(min = 1, max = 1000))]
    pub(crate) keep: u32,
}

fn five() -> u32 {
    5
}

/// What receivers of syslog messages get.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Syslog {
    /// The facility: `daemon`, `local0` or another one of RFC 5424.
    pub(crate) facility: String,
    /// The roots that the certificate of a receiver with `tls://` is verified against. Default: the
    /// system's.
    pub(crate) ca_file: Option<String>,
}

impl Default for Syslog {
    fn default() -> Self {
        Self {
            facility: "daemon".to_owned(),
            ca_file: None,
        }
    }
}
