//! One line of the access log, as text or JSON.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::time::Duration;

use crate::clock::UnixTime;
use crate::printable::is_control;

/// How many octets of what a client sent are logged in one field. The rest is replaced by `…`.
const LONGEST: usize = 2048;

/// What is logged about one request.
#[derive(Clone, Copy, Debug)]
pub struct Entry<'a> {
    /// When the request ended.
    pub time: UnixTime,
    /// `None` for one that has no address: it is on a Unix socket.
    pub client: Option<IpAddr>,
    /// The requested host, as it was sent.
    pub host: &'a [u8],
    pub method: &'a str,
    /// The request's target, as it was sent.
    pub target: &'a [u8],
    /// `HTTP/1.1` or the like.
    pub version: &'a str,
    /// 499 if the client went away before the response.
    pub status: u16,
    /// Of the response's body.
    pub bytes: usize,
    pub duration: Duration,
    pub request_id: &'a str,
    pub referer: &'a [u8],
    pub user_agent: &'a [u8],
    /// The server that responded or was tried last.
    pub upstream: Option<&'a str>,
    /// The user that the client has authenticated itself as.
    pub user: Option<&'a str>,
    /// Why the request was refused, as a word.
    pub refused: Option<&'a str>,
    /// Subject and fingerprint of the certificate that the client presented.
    pub client_certificate: Option<(&'a str, &'a str)>,
    /// Of a connection that is passed on octet by octet: octets from the client, and how it ended.
    pub tunnel: Option<(u64, &'a str)>,
}

impl Entry<'_> {
    /// The combined format that many tools read, followed by named fields.
    pub(crate) fn to_text(self) -> String {
        let mut line = String::with_capacity(256);
        match self.client {
            Some(client) => _ = write!(line, "{client}"),
            None => line.push_str("unix"),
        }
        let time = jiff::Timestamp::from_second(self.time.as_secs()).unwrap_or_default();
        line.push_str(" - ");
        match self.user {
            Some(user) if !user.is_empty() => escape_word(&mut line, user),
            Some(_) | None => line.push('-'),
        }
        _ = write!(line, " [{}] \"", time.strftime("%d/%b/%Y:%H:%M:%S +0000"),);
        escape(&mut line, self.method.as_bytes(), Style::Quoted);
        line.push(' ');
        escape(&mut line, self.target, Style::Quoted);
        _ = write!(
            line,
            " {}\" {} {} \"",
            self.version, self.status, self.bytes
        );
        escape(&mut line, or_dash(self.referer), Style::Quoted);
        line.push_str("\" \"");
        escape(&mut line, or_dash(self.user_agent), Style::Quoted);
        line.push_str("\" host=\"");
        escape(&mut line, self.host, Style::Quoted);
        _ = write!(
            line,
            "\" id={} duration={:.6} upstream={}",
            self.request_id,
            self.duration.as_secs_f64(),
            self.upstream.unwrap_or("-"),
        );
        if let Some(refused) = self.refused {
            _ = write!(line, " refused={refused}");
        }
        if let Some((subject, fingerprint)) = self.client_certificate {
            line.push_str(" client_cert_subject=\"");
            escape(&mut line, subject.as_bytes(), Style::Quoted);
            _ = write!(line, "\" client_cert_fingerprint={fingerprint}");
        }
        if let Some((received, ended)) = self.tunnel {
            _ = write!(line, " received={received} ended={ended}");
        }
        line.push('\n');
        line
    }

    /// One JSON object.
    pub(crate) fn to_json(self) -> String {
        let mut line = String::with_capacity(384);
        let time = jiff::Timestamp::from_second(self.time.as_secs()).unwrap_or_default();
        _ = write!(line, "{{\"time\":\"{time}\",\"client\":");
        match self.client {
            Some(client) => _ = write!(line, "\"{client}\""),
            None => line.push_str("\"unix\""),
        }
        for (name, value) in [
            ("host", self.host),
            ("method", self.method.as_bytes()),
            ("target", self.target),
            ("referer", self.referer),
            ("user_agent", self.user_agent),
        ] {
            _ = write!(line, ",\"{name}\":\"");
            escape(&mut line, value, Style::Json);
            line.push('"');
        }
        _ = write!(
            line,
            ",\"version\":\"{}\",\"status\":{},\"bytes\":{},\"duration\":{:.6},\"request_id\":\"{}\"",
            self.version,
            self.status,
            self.bytes,
            self.duration.as_secs_f64(),
            self.request_id,
        );
        for (name, value) in [
            ("upstream", self.upstream),
            ("user", self.user),
            ("refused", self.refused),
        ] {
            if let Some(value) = value {
                _ = write!(line, ",\"{name}\":\"");
                escape(&mut line, value.as_bytes(), Style::Json);
                line.push('"');
            }
        }
        if let Some((subject, fingerprint)) = self.client_certificate {
            line.push_str(",\"client_cert_subject\":\"");
            escape(&mut line, subject.as_bytes(), Style::Json);
            _ = write!(line, "\",\"client_cert_fingerprint\":\"{fingerprint}\"");
        }
        if let Some((received, ended)) = self.tunnel {
            _ = write!(line, ",\"received\":{received},\"ended\":\"{ended}\"");
        }
        line.push_str("}\n");
        line
    }
}

fn or_dash(value: &[u8]) -> &[u8] {
    if value.is_empty() { b"-" } else { value }
}

/// How text from a client is escaped.
#[derive(Clone, Copy)]
enum Style {
    /// `\xHH`, as nginx and Apache write it.
    Quoted,
    /// `\u00HH`; invalid UTF-8 becomes U+FFFD.
    Json,
}

/// Writes the beginning of `value` so that it can neither end its field nor its line.
fn escape(line: &mut String, value: &[u8], style: Style) {
    let kept = beginning(value);
    escape_all(line, kept, style);
    if kept.len() < value.len() {
        line.push('…');
    }
}

/// Writes a text that is not in quotes, so that it cannot be taken for more than one field.
fn escape_word(line: &mut String, value: &str) {
    for (number, part) in value.split([' ', '[', ']']).enumerate() {
        if number > 0 {
            line.push('_');
        }
        escape(line, part.as_bytes(), Style::Quoted);
    }
}

/// At most [`LONGEST`] octets, without an incomplete character at the end.
fn beginning(value: &[u8]) -> &[u8] {
    let is_inside = |at: usize| value.get(at).is_some_and(|octet| octet & 0xc0 == 0x80);
    // A character has at most four octets.
    let end = (LONGEST.saturating_sub(3)..=LONGEST)
        .rev()
        .find(|at| !is_inside(*at));
    value.get(..end.unwrap_or(LONGEST)).unwrap_or(value)
}

fn escape_all(line: &mut String, value: &[u8], style: Style) {
    for chunk in value.utf8_chunks() {
        for character in chunk.valid().chars() {
            match (character, style) {
                ('"' | '\\', Style::Json) => {
                    line.push('\\');
                    line.push(character);
                }
                ('"' | '\\', Style::Quoted) => _ = write!(line, "\\x{:02X}", u32::from(character)),
                (control, Style::Json) if is_control(control) => {
                    for unit in control.encode_utf16(&mut [0; 2]) {
                        _ = write!(line, "\\u{unit:04x}");
                    }
                }
                (control, Style::Quoted) if is_control(control) => {
                    let mut octets = [0; 4];
                    for octet in control.encode_utf8(&mut octets).bytes() {
                        _ = write!(line, "\\x{octet:02X}");
                    }
                }
                (plain, _) => line.push(plain),
            }
        }
        for octet in chunk.invalid() {
            match style {
                Style::Json => line.push('\u{fffd}'),
                Style::Quoted => _ = write!(line, "\\x{octet:02X}"),
            }
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::clock::unix;

    pub(crate) fn entry() -> Entry<'static> {
        Entry {
            time: unix(1_763_938_800),
            client: Some(IpAddr::from([192, 0, 2, 7])),
            host: b"a.example",
            method: "GET",
            target: b"/x?y=1",
            version: "HTTP/1.1",
            status: 200,
            bytes: 5,
            duration: Duration::from_micros(12_345),
            request_id: "00ff",
            referer: b"",
            user_agent: b"curl/8",
            upstream: Some("10.0.0.1:8080"),
            user: None,
            refused: None,
            client_certificate: None,
            tunnel: None,
        }
    }

    #[test]
    fn a_text_line_begins_as_the_combined_format() {
        assert_eq!(
            entry().to_text(),
            "192.0.2.7 - - [23/Nov/2025:23:00:00 +0000] \"GET /x?y=1 HTTP/1.1\" 200 5 \"-\" \
             \"curl/8\" host=\"a.example\" id=00ff duration=0.012345 upstream=10.0.0.1:8080\n",
        );
    }

    #[test]
    fn a_json_line_is_json() {
        let line = entry().to_json();
        let value: serde_json::Value = serde_json::from_str(&line).expect("valid JSON");
        assert_eq!(value["host"], "a.example");
        assert_eq!(value["status"], 200);
        assert_eq!(value["duration"], 0.012_345);
        assert_eq!(value["time"], "2025-11-23T23:00:00Z");
    }

    #[test]
    fn a_certificate_is_logged_if_there_is_one() {
        let entry = Entry {
            client_certificate: Some(("CN=\"a\"\n", "00ff")),
            ..entry()
        };
        let text = entry.to_text();
        let end = " client_cert_subject=\"CN=\\x22a\\x22\\x0A\" client_cert_fingerprint=00ff\n";
        assert!(text.ends_with(end), "{text}");
        let value: serde_json::Value = serde_json::from_str(&entry.to_json()).expect("valid JSON");
        assert_eq!(value["client_cert_subject"], "CN=\"a\"\n");
        assert_eq!(value["client_cert_fingerprint"], "00ff");
    }

    #[test]
    fn what_became_of_a_tunnel_is_logged() {
        let entry = Entry {
            tunnel: Some((512, "idle")),
            ..entry()
        };
        let text = entry.to_text();
        assert!(text.ends_with(" received=512 ended=idle\n"), "{text}");
        let value: serde_json::Value = serde_json::from_str(&entry.to_json()).expect("valid JSON");
        assert_eq!(value["received"], 512);
        assert_eq!(value["ended"], "idle");
    }

    #[test]
    fn a_long_field_is_cut_at_a_character() {
        assert_eq!(beginning(&[b'a'; LONGEST]).len(), LONGEST);
        assert_eq!(beginning(&[b'a'; LONGEST + 1]).len(), LONGEST);
        let euros = "€".repeat(LONGEST);
        assert_eq!(beginning(euros.as_bytes()).len(), LONGEST / 3 * 3);
        assert_eq!(beginning(&[0x80; 2 * LONGEST]).len(), LONGEST);
        let long = Entry {
            user_agent: &[0xff; 60_000],
            target: &[b'a'; 60_000],
            referer: euros.as_bytes(),
            host: &[b'\n'; 60_000],
            ..entry()
        };
        for line in [long.to_text(), long.to_json()] {
            assert!(line.len() < 32 * 1024, "{}", line.len());
            assert_eq!(line.matches('…').count(), 4);
        }
        assert!(long.to_text().contains("aaa… HTTP/1.1\""));
    }

    #[test]
    fn nothing_a_client_sends_ends_a_line_or_a_field() {
        let evil = b"a\"\\\r\n\x1b[31m\x00\x85\xff\xc2\x85\xe2\x80\xa8z";
        let forged = Entry {
            host: evil,
            target: evil,
            user_agent: evil,
            referer: evil,
            ..entry()
        };
        let text = forged.to_text();
        assert_eq!(text.matches('\n').count(), 1);
        assert_eq!(text.matches('"').count(), 8);
        assert!(!text.trim_end().chars().any(is_control), "{text:?}");
        let json = forged.to_json();
        assert_eq!(json.matches('\n').count(), 1);
        assert!(!json.trim_end().chars().any(is_control), "{json:?}");
        let value: serde_json::Value = serde_json::from_str(&json).expect("valid JSON");
        assert!(
            value["host"]
                .as_str()
                .expect("text")
                .starts_with("a\"\\\r\n\u{1b}[31m\0")
        );
    }
}
