//! Single values: durations, sizes, paths, addresses, host names.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tracing_subscriber::filter::{EnvFilter, LevelFilter};

use super::context::Context;
use crate::config::problem::{At, nearest};
use crate::config::schema;
use crate::host::{HostName, Identifier, Pattern};

/// The longest duration: about ten years.
pub(super) const FOREVER: Duration = Duration::from_secs(3650 * 24 * 3600);

/// The shortest positive duration.
pub(super) const MOMENT: Duration = Duration::from_millis(1);

/// The maximum length of the path of a Unix socket, in octets (`sun_path` without its end).
const MAX_SOCKET_PATH: usize = 107;

impl Context<'_> {
    /// A duration from `least` to `most`.
    pub(super) fn duration(
        &mut self,
        at: &At<'_>,
        raw: &schema::Duration,
        least: Duration,
        most: Duration,
    ) -> Duration {
        let duration = match duration(&raw.0) {
            Ok(duration) => duration,
            Err(why) => {
                let message = format!("{} is not a duration: {why}", at.quoted());
                let hint = "write a whole number with ms, s, m, h or d, such as 30s";
                self.problems.error(at, message, hint);
                return least;
            }
        };
        if duration < least {
            let hint = format!("give at least {}", show(least));
            self.problems
                .error(at, format!("{} is too short", at.quoted()), hint);
        } else if duration > most {
            let hint = format!("give at most {}", show(most));
            self.problems
                .error(at, format!("{} is too long", at.quoted()), hint);
        }
        duration
    }

    /// The size of a body, of which 0 stands for any.
    pub(super) fn body_size(&mut self, at: &At<'_>, raw: &schema::Size) -> u64 {
        let size = self.size(at, raw, 0, usize::MAX);
        u64::try_from(size).unwrap_or(u64::MAX)
    }

    /// A size in octets from `least` to `most`.
    pub(super) fn size(
        &mut self,
        at: &At<'_>,
        raw: &schema::Size,
        least: usize,
        most: usize,
    ) -> usize {
        let parsed = match raw {
            schema::Size::Bytes(bytes) => Some(*bytes),
            schema::Size::Text(text) => size(text),
        };
        let Some(bytes) = parsed.and_then(|bytes| usize::try_from(bytes).ok()) else {
            let message = format!("{} is not a size", at.quoted());
            let hint = "write a whole number with B, KiB, MiB or GiB, such as 64KiB";
            self.problems.error(at, message, hint);
            return least;
        };
        if !(least..=most).contains(&bytes) {
            let hint = match most {
                usize::MAX => format!("give at least {}", show_size(least)),
                _ => format!("give from {} to {}", show_size(least), show_size(most)),
            };
            self.problems
                .error(at, format!("{} is out of range", at.quoted()), hint);
        }
        bytes
    }

    /// An absolute path.
    pub(super) fn path(&mut self, at: &At<'_>, raw: &str) -> PathBuf {
        if raw.is_empty() || raw.contains('\0') {
            let message = "the path is empty or has a zero octet in it";
            self.problems
                .error(at, message, "name a file or a directory");
        }
        self.sources.resolve(at.place().file, Path::new(raw))
    }

    /// The absolute path of a Unix socket.
    pub(super) fn socket_path(&mut self, at: &At<'_>, raw: &str) -> PathBuf {
        let path = self.path(at, raw);
        if path.as_os_str().len() > MAX_SOCKET_PATH {
            let message = format!("the path of a socket has at most {MAX_SOCKET_PATH} octets");
            self.problems.error(at, message, "choose a shorter path");
        }
        path
    }

    /// An address to listen on.
    pub(super) fn listen_address(&mut self, at: &At<'_>, raw: &str) -> Option<SocketAddr> {
        if let Ok(address) = raw.parse() {
            return Some(address);
        }
        let parts = raw.rsplit_once(':').filter(|_| !at.is_reference());
        let hint = match parts {
            Some(("" | "*", port)) if port.parse::<u16>().is_ok() => {
                format!("write 0.0.0.0:{port} for every IPv4 address, [::]:{port} for IPv6")
            }
            Some(("localhost", port)) if port.parse::<u16>().is_ok() => {
                format!("write 127.0.0.1:{port} or [::1]:{port}")
            }
            _ => "write ADDRESS:PORT, such as 0.0.0.0:443 or [::]:443".to_owned(),
        };
        let message = format!("{} is not an address to listen on", at.quoted());
        self.problems.error(at, message, hint);
        None
    }

    /// A host name.
    pub(super) fn host(&mut self, at: &At<'_>, raw: &str) -> Option<HostName> {
        match raw.parse() {
            Ok(host) => Some(host),
            Err(error) => {
                let message = format!("the host name {} {}", at.quoted(), reason(&error));
                self.problems
                    .error(at, message, "write a name such as www.example.com");
                None
            }
        }
    }

    /// A host name or an IP address.
    pub(super) fn identifier(&mut self, at: &At<'_>, raw: &str) -> Option<Identifier> {
        match raw.parse::<IpAddr>() {
            Ok(_) => raw.parse().ok(),
            Err(_) => self.host(at, raw).map(Identifier::Dns),
        }
    }

    /// A host name, an IP address, a wildcard, or the catch-all.
    pub(super) fn pattern(&mut self, at: &At<'_>, raw: &str) -> Option<Pattern> {
        match raw.parse() {
            Ok(pattern) => Some(pattern),
            Err(error) => {
                let message = format!("the host {} {}", at.quoted(), reason(&error));
                let hint = match bare_host(raw) {
                    Some(_) => "leave out the scheme, the port and the path",
                    None if raw.starts_with('[') => {
                        "write an address without brackets and a port, such as 2001:db8::1"
                    }
                    None => "write a name such as www.example.com or *.example.com",
                };
                self.problems.error(at, message, hint);
                None
            }
        }
    }

    /// A name or wildcard for which a certificate can be issued.
    pub(super) fn issuable(&mut self, at: &At<'_>, raw: &str) -> Option<Pattern> {
        match self.pattern(at, raw)? {
            Pattern::Any => {
                let message = "no certificate can be issued for '*'";
                let hint = "name the hosts, or write *.example.com for one label below it";
                self.problems.error(at, message, hint);
                None
            }
            pattern => Some(pattern),
        }
    }

    /// A program and its arguments.
    pub(super) fn command(&mut self, command: &[String], at: &At<'_>) {
        for (index, part) in command.iter().enumerate() {
            if part.contains('\0') || (index == 0 && part.trim().is_empty()) {
                let message = "a command begins with a program and has no zero octet in it";
                let hint = "name the program, then each argument separately";
                self.problems.error(&at.index(index), message, hint);
            }
        }
    }

    /// Reports one of two keys that mean nothing without each other.
    pub(super) fn both(&mut self, at: &At<'_>, keys: [&str; 2], given: [bool; 2]) {
        let (has, lacks) = match (keys, given) {
            ([one, other], [true, false]) => (one, other),
            ([one, other], [false, true]) => (other, one),
            _ => return,
        };
        // A malformed key has been reported.
        if !at.key(lacks).is_written() {
            let message = format!("'{has}' has no meaning without '{lacks}'");
            let hint = format!("add '{lacks}', or remove '{has}'");
            self.problems.error(&at.key(has).at_key(), message, hint);
        }
    }

    /// A level of the log, or one for each part.
    pub(super) fn level(&mut self, at: &At<'_>, raw: &str) {
        if let Some(hint) = level_fault(raw) {
            let message = format!("{} is not a log level", at.quoted());
            self.problems.error(at, message, hint);
        }
    }
}

/// What to do about a text that is no log level; `None` if it is one.
pub(crate) fn level_fault(raw: &str) -> Option<String> {
    const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
    // A bare word that is not a level would be taken for the name of a part.
    let unknown = raw.split(',').map(str::trim).find(|part| {
        // What follows a part's name is its level. An empty text is one for the parser.
        let level = part.rsplit_once('=').map_or(*part, |(_, level)| level);
        let is_named = part.contains(['[', ':']) && !part.contains('=');
        let is_level = !level.is_empty() && level.parse::<LevelFilter>().is_ok();
        !is_named && !is_level
    });
    let good = EnvFilter::builder().parse(raw).is_ok();
    if unknown.is_none() && good {
        return None;
    }
    Some(match unknown.and_then(|word| nearest(word, LEVELS)) {
        Some(level) => format!("did you mean '{level}'?"),
        None => format!("give one of {}", LEVELS.join(", ")),
    })
}

/// An HTTP URL.
pub(super) fn url(text: &str) -> Option<http::Uri> {
    let url: http::Uri = text.parse().ok()?;
    let is_http = matches!(url.scheme_str(), Some("http" | "https"));
    (is_http && url.host().is_some_and(|host| !host.is_empty())).then_some(url)
}

/// The reason without the text itself, which may have come from a reference.
fn reason(error: &crate::host::HostNameError) -> String {
    match error {
        crate::host::HostNameError::LabelTooLong(_) => {
            "has a label of more than 63 characters".to_owned()
        }
        error => error.to_string(),
    }
}

/// The host in what may be a URL or a host with a port.
fn bare_host(text: &str) -> Option<HostName> {
    let rest = text.split_once("://").map_or(text, |(_, rest)| rest);
    let host = rest.split(['/', ':', '?']).next()?;
    (host.len() < text.len()).then(|| host.parse().ok())?
}

/// Parses `500ms 10s 5m 12h 30d`.
fn duration(text: &str) -> Result<Duration, &'static str> {
    let digits = text.len()
        - text
            .trim_start_matches(|char: char| char.is_ascii_digit())
            .len();
    let (number, unit) = text.split_at(digits);
    if number.is_empty() {
        return Err("it does not begin with a digit");
    }
    let number: u64 = number.parse().map_err(|_| "the number is too large")?;
    let milliseconds = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        "" => return Err("it has no unit"),
        _ => return Err("what follows the number is not a unit"),
    };
    number
        .checked_mul(milliseconds)
        .map(Duration::from_millis)
        .ok_or("the number is too large")
}

/// Parses `512B 64KiB 1MiB 1GiB`.
fn size(text: &str) -> Option<u64> {
    let digits = text.len()
        - text
            .trim_start_matches(|char: char| char.is_ascii_digit())
            .len();
    let (number, unit) = text.split_at(digits);
    let factor = match unit {
        "" | "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(factor)
}

/// A size as [`size`] reads it.
fn show_size(octets: usize) -> String {
    for (unit, length) in [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)] {
        if octets >= length && octets.is_multiple_of(length) {
            return format!("{}{unit}", octets / length);
        }
    }
    format!("{octets}B")
}

/// The shortest text for a duration.
fn show(duration: Duration) -> String {
    let milliseconds = duration.as_millis();
    for (unit, length) in [
        ("d", 86_400_000),
        ("h", 3_600_000),
        ("m", 60_000),
        ("s", 1_000),
    ] {
        if milliseconds >= length && milliseconds.is_multiple_of(length) {
            return format!("{}{unit}", milliseconds / length);
        }
    }
    format!("{milliseconds}ms")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        for (text, milliseconds) in [
            ("500ms", 500),
            ("10s", 10_000),
            ("5m", 300_000),
            ("12h", 43_200_000),
            ("30d", 2_592_000_000),
            ("0s", 0),
        ] {
            let expected = Duration::from_millis(milliseconds);
            assert_eq!(duration(text), Ok(expected), "{text}");
            assert_eq!(duration(&show(expected)), Ok(expected), "{text}");
        }
        for text in [
            "",
            "s",
            "10",
            "10 s",
            "-1s",
            "1.5h",
            "10S",
            "1h30m",
            "٣s",
            "1µs",
            "99999999999999999999s",
            "18446744073709551615d",
        ] {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn sizes() {
        for (text, bytes) in [
            ("0", 0),
            ("512B", 512),
            ("64KiB", 65_536),
            ("2MiB", 2_097_152),
        ] {
            assert_eq!(size(text), Some(bytes), "{text}");
        }
        for text in [
            "",
            "KiB",
            "64KB",
            "64k",
            "1.5MiB",
            "-1B",
            "64 KiB",
            "99999999999GiB",
        ] {
            assert_eq!(size(text), None, "{text}");
        }
    }
}
