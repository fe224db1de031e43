//! `log`.

use std::path::Path;

use http::HeaderName;
use http::header::{AUTHORIZATION, COOKIE, PROXY_AUTHORIZATION};

use super::client::roots;
use super::context::Context;
use crate::config::model::{
    AccessFormat, Column, Log, LogField, LogFormat, LogTarget, Rotate, Syslog, SyslogReceiver,
    TemplateError,
};
use crate::config::problem::{At, nearest, quote, suggest};
use crate::config::schema;

/// Where a syslog daemon on this machine listens.
const SYSLOG_SOCKET: &str = "/dev/log";

/// Where systemd's journal listens.
const JOURNAL_SOCKET: &str = "/run/systemd/journal/socket";

/// The least size of a file, in octets: a few of the longest lines.
const LEAST_FILE: usize = 64 << 10;

/// The most files that are kept: each rotation renames them all.
const MOST_FILES: u32 = 1000;

/// The most header fields in a line.
const MOST_HEADERS: usize = 32;

/// The facilities by their codes (RFC 5424, section 6.2.1).
const FACILITIES: [&str; 24] = [
    "kern", "user", "mail", "daemon", "auth", "syslog", "lpr", "news", "uucp", "cron", "authpriv",
    "ftp", "ntp", "audit", "alert", "clock", "local0", "local1", "local2", "local3", "local4",
    "local5", "local6", "local7",
];

/// What is sent to prove who one is.
const SECRET_HEADERS: [HeaderName; 3] = [AUTHORIZATION, COOKIE, PROXY_AUTHORIZATION];

pub(super) fn log(ctx: &mut Context<'_>, raw: &schema::Log, at: &At<'_>) -> Log {
    ctx.level(&at.key("level"), &raw.level);
    let syslog = syslog(ctx, &raw.syslog, &at.key("syslog"));
    let access = target(ctx, &raw.access, &syslog, &at.key("access"), true);
    let own_at = at.key("target");
    let own = target(ctx, &raw.target, &syslog, &own_at, false);
    if let (LogTarget::File(one), LogTarget::File(other)) = (&access, &own)
        && one == other
    {
        let message = format!("{} is the file of 'log.access' too", own_at.quoted());
        ctx.problems
            .error(&own_at, message, "give each log a file of its own");
    }
    let format = match raw.format {
        schema::LogFormat::Json => LogFormat::Json,
        schema::LogFormat::Text => LogFormat::Text,
    };
    let access_format = access_format(ctx, raw, format, at);
    Log {
        level: raw.level.clone(),
        format,
        target: own,
        access,
        access_format,
        rotate: raw
            .rotate
            .as_ref()
            .map(|raw| rotate(ctx, raw, &at.key("rotate"))),
    }
}

fn rotate(ctx: &mut Context<'_>, raw: &schema::Rotate, at: &At<'_>) -> Rotate {
    let size = ctx.size(&at.key("size"), &raw.size, LEAST_FILE, usize::MAX);
    if !(1..=MOST_FILES).contains(&raw.keep) {
        let at = at.key("keep");
        let message = format!("{} is out of range", at.quoted());
        let hint = format!("give from 1 to {MOST_FILES} files");
        ctx.problems.error(&at, message, hint);
    }
    Rotate {
        size: u64::try_from(size).unwrap_or(u64::MAX),
        keep: raw.keep,
    }
}

/// The settings of any receiver; their receiver is the one on this machine.
fn syslog(ctx: &mut Context<'_>, raw: &schema::Syslog, at: &At<'_>) -> Syslog {
    let code = FACILITIES.iter().position(|name| *name == raw.facility);
    if code.is_none() {
        let at = at.key("facility");
        let message = format!("{} is not a facility of syslog", at.quoted());
        let hint = suggest(&raw.facility, FACILITIES.into_iter());
        ctx.problems.error(&at, message, hint);
    }
    let ca_file = raw.ca_file.as_ref();
    Syslog {
        receiver: SyslogReceiver::Unix(SYSLOG_SOCKET.into()),
        facility: code.and_then(|code| u8::try_from(code).ok()).unwrap_or(3),
        ca_file: ca_file.map(|path| roots(ctx, &at.key("ca_file"), path)),
    }
}

fn target(
    ctx: &mut Context<'_>,
    raw: &str,
    syslog: &Syslog,
    at: &At<'_>,
    may_be_off: bool,
) -> LogTarget {
    let to = |receiver| {
        LogTarget::Syslog(Syslog {
            receiver,
            ..syslog.clone()
        })
    };
    match raw {
        "off" if may_be_off => return LogTarget::Off,
        "stdout" => return LogTarget::Stdout,
        "stderr" => return LogTarget::Stderr,
        "journald" => return LogTarget::Journald(JOURNAL_SOCKET.into()),
        "syslog" => return LogTarget::Syslog(syslog.clone()),
        _ => {}
    }
    if let Some(path) = raw.strip_prefix("journald:") {
        return LogTarget::Journald(ctx.socket_path(at, path));
    }
    if let Some(path) = raw.strip_prefix("unix:") {
        return to(SyslogReceiver::Unix(ctx.socket_path(at, path)));
    }
    if let Some((scheme, rest)) = raw.split_once("://") {
        let place = host_and_port(rest);
        return match (scheme, place) {
            ("udp", Some((host, port))) => to(SyslogReceiver::Udp(host, port)),
            ("tcp", Some((host, port))) => to(SyslogReceiver::Tcp(host, port)),
            ("tls", Some((host, port))) => to(SyslogReceiver::Tls(host, port)),
            _ => {
                let message = format!("{} is not the address of a syslog receiver", at.quoted());
                let hint = "write udp://HOST:PORT, tcp://HOST:PORT or tls://HOST:PORT";
                ctx.problems.error(at, message, hint);
                LogTarget::Stderr
            }
        };
    }
    if Path::new(raw).components().count() == 1 && !raw.contains('.') {
        // A single word is more likely a mistake than the name of a file.
        let (also, words) = match may_be_off {
            true => (
                "'off' nor ",
                &["off", "stdout", "stderr", "syslog", "journald"][..],
            ),
            false => ("", &["stdout", "stderr", "syslog", "journald"][..]),
        };
        let message = format!(
            "{} is neither {also}'stdout', 'stderr', 'syslog', 'journald' nor a path",
            at.quoted()
        );
        let hint = match nearest(raw, words.iter().copied()) {
            Some(near) => format!("did you mean '{near}'? For a file, begin it with './'"),
            None => "for a file of this name, begin it with './'".to_owned(),
        };
        ctx.problems.error(at, message, hint);
    }
    LogTarget::File(ctx.path(at, raw))
}

fn host_and_port(text: &str) -> Option<(String, u16)> {
    let (host, port) = text.rsplit_once(':')?;
    let bare = match host.strip_prefix('[') {
        Some(address) => address.strip_suffix(']')?,
        None if host.contains(':') => return None,
        None => host,
    };
    let is_plain = !bare.is_empty() && !bare.contains(['/', '@', '?', '#', ' ', '[', ']']);
    let port = port.parse().ok().filter(|port| *port != 0)?;
    is_plain.then(|| (bare.to_owned(), port))
}

fn access_format(
    ctx: &mut Context<'_>,
    raw: &schema::Log,
    format: LogFormat,
    at: &At<'_>,
) -> AccessFormat {
    let (own_at, fields_at) = (at.key("access_format"), at.key("access_fields"));
    let fields = &raw.access_fields;
    let format = match raw.access_format.as_deref() {
        None => format,
        Some("text") => LogFormat::Text,
        Some("json") => LogFormat::Json,
        Some(text) => {
            if !(fields.add.is_empty() && fields.request_headers.is_empty()) {
                let message = "a format of one's own names all that its lines have";
                let hint = "write these into 'log.access_format' as {NAME}, or remove it";
                ctx.problems.error(&fields_at, message, hint);
            }
            let format = own_format(ctx, text, &own_at);
            let remove_at = fields_at.key("remove");
            let hides_query = removed(ctx, &fields.remove, &remove_at);
            if hides_query.iter().any(|field| *field != LogField::Query) {
                let message = "a format of one's own names all that its lines have";
                let hint =
                    "remove these from 'log.access_format' instead; only 'query' may be here";
                ctx.problems.error(&remove_at, message, hint);
            }
            return AccessFormat {
                hides_query: hides_query.contains(&LogField::Query),
                ..format
            };
        }
    };
    let (add_at, headers_at) = (fields_at.key("add"), fields_at.key("request_headers"));
    let mut added = Vec::new();
    for (index, name) in fields.add.iter().enumerate() {
        added.extend(field(ctx, name, &add_at.index(index)).map(Column::Field));
    }
    if fields.request_headers.len() > MOST_HEADERS {
        let message = format!("these are {} fields", fields.request_headers.len());
        let hint = format!("give at most {MOST_HEADERS}");
        ctx.problems.error(&headers_at, message, hint);
    }
    for (index, name) in fields.request_headers.iter().enumerate() {
        let at = headers_at.index(index);
        match name.parse::<HeaderName>() {
            Ok(name) => {
                refuse_secret(ctx, &name, &at);
                added.push(Column::header(name));
            }
            Err(_) => {
                let message = format!("{} is not the name of a field", at.quoted());
                ctx.problems
                    .error(&at, message, "write it as in X-Request-Source");
            }
        }
    }
    let removed = removed(ctx, &fields.remove, &fields_at.key("remove"));
    AccessFormat::usual(format, &added, &removed)
}

fn removed(ctx: &mut Context<'_>, names: &[String], at: &At<'_>) -> Vec<LogField> {
    let names = names.iter().enumerate();
    names
        .filter_map(|(index, name)| field(ctx, name, &at.index(index)))
        .collect()
}

fn field(ctx: &mut Context<'_>, name: &str, at: &At<'_>) -> Option<LogField> {
    let field = LogField::of(name);
    if field.is_none() {
        let message = format!("there is no field {}", at.quoted());
        let hint = suggest(name, LogField::ALL.map(LogField::name).into_iter());
        ctx.problems.error(at, message, hint);
    }
    field
}

/// A format of one's own.
fn own_format(ctx: &mut Context<'_>, text: &str, at: &At<'_>) -> AccessFormat {
    let format = match AccessFormat::parse(text) {
        Ok(format) => format,
        Err(error) => {
            let (message, hint) = match error {
                TemplateError::Unknown(name) => {
                    let hint = match nearest(&name, LogField::ALL.map(LogField::name)) {
                        Some(known) => format!("did you mean '{{{known}}}'?"),
                        None => "docs/logging.md lists all; {header:NAME} is a field of the \
                                 request; write '{{' and '}}' for braces"
                            .to_owned(),
                    };
                    let name = quote(&format!("{{{name}}}"));
                    (format!("there is no placeholder {name}"), hint)
                }
                error => (
                    error.to_string(),
                    "write a placeholder such as {path}, or '{{' and '}}' for braces".to_owned(),
                ),
            };
            ctx.problems.error(at, message, hint);
            return AccessFormat::usual(LogFormat::Text, &[], &[]);
        }
    };
    if format.parts.is_empty() || text.chars().any(char::is_control) {
        let message = "the format is empty or has a control character";
        let hint = "write one line, such as \"{client} {status}\"";
        ctx.problems.error(at, message, hint);
    } else if text == "off" || !text.contains('{') {
        let message = format!("{} has no placeholder", at.quoted());
        let hint = "give 'text', 'json', or a format such as \"{client} {status}\"";
        ctx.problems.error(at, message, hint);
    }
    let headers: Vec<HeaderName> = format.headers().cloned().collect();
    for name in headers {
        refuse_secret(ctx, &name, at);
    }
    format
}

/// Refuses to log what would let readers of the log be somebody else.
fn refuse_secret(ctx: &mut Context<'_>, name: &HeaderName, at: &At<'_>) {
    if SECRET_HEADERS.contains(name) {
        let message = format!(
            "{} holds secrets, which are not logged",
            quote(name.as_str())
        );
        let hint = "remove it; {user} is who the client has authenticated itself as";
        ctx.problems.error(at, message, hint);
    }
}
