//! What is logged, in which form, and where it goes.

use std::path::PathBuf;

use http::HeaderName;

use super::LogField;
use super::pieces::{Piece, Pieces, TemplateError};

/// What the names of placeholders for fields of requests begin with.
const HEADER: &str = "header:";

/// What is logged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log {
    /// In the syntax of tracing's `EnvFilter`.
    pub level: String,
    /// Of the program's own log.
    pub format: LogFormat,
    /// Where the program's own log goes; never [`LogTarget::Off`].
    pub target: LogTarget,
    pub access: LogTarget,
    pub access_format: AccessFormat,
    /// When files are rotated; `None` if others do that.
    pub rotate: Option<Rotate>,
}

impl Default for Log {
    fn default() -> Self {
        Self {
            level: "info".to_owned(),
            format: LogFormat::Text,
            target: LogTarget::Stderr,
            access: LogTarget::Stdout,
            access_format: AccessFormat::usual(LogFormat::Text, &[], &[]),
            rotate: None,
        }
    }
}

/// The format of log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    Json,
    Text,
}

/// Where a log goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogTarget {
    File(PathBuf),
    /// The socket of systemd's journal.
    Journald(PathBuf),
    Off,
    Stderr,
    Stdout,
    Syslog(Syslog),
}

/// A receiver of syslog messages (RFC 5424).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Syslog {
    pub receiver: SyslogReceiver,
    /// The code of the facility, below 24.
    pub facility: u8,
    /// The roots that the receiver's certificate is verified against; `None` for the system's.
    pub ca_file: Option<PathBuf>,
}

/// How a receiver of syslog messages is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SyslogReceiver {
    /// A socket for datagrams.
    Unix(PathBuf),
    Udp(String, u16),
    /// With counted octets (RFC 6587).
    Tcp(String, u16),
    /// The same within TLS (RFC 5425).
    Tls(String, u16),
}

/// When a file is rotated, and how many old ones are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rotate {
    /// In octets.
    pub size: u64,
    pub keep: u32,
}

/// The format of the access log: parts, followed by columns, as text or as an object of JSON.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessFormat {
    pub format: LogFormat,
    /// Of a text; JSON has none.
    pub parts: Box<[LinePart]>,
    /// What is written with its name, if a request has it.
    pub columns: Box<[Column]>,
    /// Whether queries are left out of targets and referers.
    pub hides_query: bool,
}

/// What a line may have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Column {
    Field(LogField),
    /// A field of the request, and its name in the line.
    Header(HeaderName, Box<str>),
}

/// A part of a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinePart {
    Text(Box<str>),
    Value {
        column: Column,
        /// Whether it stands in quotes, where it may have spaces.
        is_quoted: bool,
    },
}

/// The line that most tools read, and what identifies the request.
const COMBINED: &str = "{client} - {user} [{time_combined}] \"{method} {target} {version}\" \
    {status} {bytes} \"{referer}\" \"{user_agent}\" host=\"{host}\" id={request_id} \
    duration={duration} upstream={upstream}";

/// What follows that line.
const COMBINED_COLUMNS: [LogField; 8] = [
    LogField::Failed,
    LogField::Refused,
    LogField::Reason,
    LogField::ClientCertSubject,
    LogField::ClientCertFingerprint,
    LogField::Received,
    LogField::Ended,
    LogField::HeldBack,
];

/// What a line of JSON has.
const JSON_COLUMNS: [LogField; 37] = [
    LogField::Time,
    LogField::Client,
    LogField::Host,
    LogField::Method,
    LogField::Target,
    LogField::Referer,
    LogField::UserAgent,
    LogField::Version,
    LogField::Status,
    LogField::Bytes,
    LogField::Duration,
    LogField::RequestId,
    LogField::Upstream,
    LogField::User,
    LogField::Failed,
    LogField::Refused,
    LogField::Reason,
    LogField::Site,
    LogField::Route,
    LogField::UpstreamName,
    LogField::Attempts,
    LogField::ConnectTime,
    LogField::FirstByteTime,
    LogField::WaitTime,
    LogField::Sni,
    LogField::TlsVersion,
    LogField::TlsGroup,
    LogField::TlsCipher,
    LogField::TlsResumed,
    LogField::Alpn,
    LogField::Certificate,
    LogField::TraceId,
    LogField::ClientCertSubject,
    LogField::ClientCertFingerprint,
    LogField::Received,
    LogField::Ended,
    LogField::HeldBack,
];

impl Column {
    /// A field of requests. Its name in a line is in lower case, with `_` for `-`.
    pub fn header(name: HeaderName) -> Self {
        let shown = format!("header_{}", name.as_str().replace('-', "_"));
        Self::Header(name, shown.into())
    }

    /// Its name in a line.
    pub fn name(&self) -> &str {
        match self {
            Self::Field(field) => field.name(),
            Self::Header(_, name) => name,
        }
    }

    /// What a name in braces stands for.
    fn named(name: &str) -> Option<Self> {
        match name.strip_prefix(HEADER) {
            Some(header) => header.parse().ok().map(Self::header),
            None => LogField::of(name).map(Self::Field),
        }
    }
}

impl AccessFormat {
    /// The usual format without the fields of `remove`, and with `add`.
    pub fn usual(format: LogFormat, add: &[Column], remove: &[LogField]) -> Self {
        let (parts, usual) = match format {
            LogFormat::Json => (Box::default(), &JSON_COLUMNS[..]),
            LogFormat::Text => {
                let parts = Self::parse(COMBINED).map(|format| format.parts);
                (parts.unwrap_or_default(), &COMBINED_COLUMNS[..])
            }
        };
        let without = |part: LinePart| match part {
            LinePart::Value {
                column: Column::Field(field),
                ..
            } if remove.contains(&field) => LinePart::Text("-".into()),
            part => part,
        };
        let usual = usual.iter().filter(|field| !remove.contains(field));
        let mut columns: Vec<Column> = usual.copied().map(Column::Field).collect();
        for one in add {
            if !columns.contains(one) {
                columns.push(one.clone());
            }
        }
        Self {
            format,
            parts: parts.into_iter().map(without).collect(),
            columns: columns.into(),
            hides_query: remove.contains(&LogField::Query),
        }
    }

    /// A text with placeholders: `{client} {status}`, and `{header:NAME}` for a field of the
    /// request. `{{` and `}}` stand for braces.
    ///
    /// # Errors
    /// If the text is no such format.
    pub fn parse(text: &str) -> Result<Self, TemplateError> {
        let mut is_quoted = false;
        let parts = Pieces::of(text).map(|piece| match piece? {
            Piece::Text(text) => {
                is_quoted ^= text.matches('"').count() % 2 == 1;
                Ok(LinePart::Text(text))
            }
            Piece::Name(name) => {
                let column = Column::named(name);
                let column = column.ok_or_else(|| TemplateError::Unknown(name.to_owned()))?;
                Ok(LinePart::Value { column, is_quoted })
            }
        });
        Ok(Self {
            format: LogFormat::Text,
            parts: parts.collect::<Result<_, _>>()?,
            columns: Box::default(),
            hides_query: false,
        })
    }

    /// The fields of requests that it has.
    pub fn headers(&self) -> impl Iterator<Item = &HeaderName> {
        let parts = self.parts.iter().filter_map(|part| match part {
            LinePart::Value { column, .. } => Some(column),
            LinePart::Text(_) => None,
        });
        let columns = parts.chain(&self.columns);
        columns.filter_map(|column| match column {
            Column::Header(name, _) => Some(name),
            Column::Field(_) => None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(field: LogField, is_quoted: bool) -> LinePart {
        LinePart::Value {
            column: Column::Field(field),
            is_quoted,
        }
    }

    #[test]
    fn a_format_is_text_and_placeholders() {
        let format = AccessFormat::parse("{client} \"{method} {path}\" {{x}} {header:X-A}!");
        let text = |text: &str| LinePart::Text(text.into());
        assert_eq!(
            *format.expect("a format").parts,
            [
                value(LogField::Client, false),
                text(" \""),
                value(LogField::Method, true),
                text(" "),
                value(LogField::Path, true),
                text("\" {x} "),
                LinePart::Value {
                    column: Column::Header(HeaderName::from_static("x-a"), "header_x_a".into()),
                    is_quoted: false,
                },
                text("!"),
            ]
        );
        for field in LogField::ALL {
            let format = AccessFormat::parse(&format!("{{{}}}", field.name()));
            assert_eq!(*format.expect("a format").parts, [value(field, false)]);
        }
        for (text, error) in [
            ("{hots}", TemplateError::Unknown("hots".to_owned())),
            (
                "{header:a b}",
                TemplateError::Unknown("header:a b".to_owned()),
            ),
            ("{host", TemplateError::Unclosed),
            ("host}", TemplateError::Unopened),
        ] {
            assert_eq!(AccessFormat::parse(text), Err(error), "{text}");
        }
    }

    #[test]
    fn fields_are_left_out_and_added() {
        let added = [
            Column::Field(LogField::Sni),
            Column::Field(LogField::Refused),
            Column::header(HeaderName::from_static("x-a")),
        ];
        let removed = [LogField::UserAgent, LogField::Reason, LogField::Query];
        let text = AccessFormat::usual(LogFormat::Text, &added, &removed);
        assert!(!text.parts.contains(&value(LogField::UserAgent, true)));
        assert!(text.hides_query);
        let names: Vec<&str> = text.columns.iter().map(Column::name).collect();
        let last = ["ended", "held_back", "sni", "header_x_a"];
        assert!(names.ends_with(&last), "{names:?}");
        assert!(!names.contains(&"reason"));
        let json = AccessFormat::usual(LogFormat::Json, &added, &removed);
        let names: Vec<&str> = json.columns.iter().map(Column::name).collect();
        assert_eq!(names.iter().filter(|name| **name == "sni").count(), 1);
        assert!(!names.contains(&"user_agent"));
        assert_eq!(json.headers().count(), 1);
    }
}
