//! Why TLS handshakes fail, in words for the metrics.
//!
//! All that is left of a failed handshake is OpenSSL's text, which Pingora's error carries, and the
//! record that the callbacks have written.

use pingora_core::Error;
use prometheus::IntCounter;

use super::stream::Peer;
use crate::metrics::Metrics;
use crate::tls::Handshake;

/// How a handshake failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HandshakeFailure {
    Failed,
    /// It was closed to make room for another connection.
    LetGo,
    /// The gateway was stopped.
    Stopped,
    TimedOut,
}

impl HandshakeFailure {
    pub(super) const ALL: [Self; 4] = [Self::Failed, Self::LetGo, Self::Stopped, Self::TimedOut];

    /// The value of the metrics' `result` label.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Failed => "failed",
            Self::LetGo => "let_go",
            Self::Stopped => "stopped",
            Self::TimedOut => "timeout",
        }
    }
}

/// A handshake that has failed.
pub(super) struct FailedHandshake<'a> {
    pub(super) how: HandshakeFailure,
    pub(super) peer: Peer,
    /// What the callbacks have written.
    pub(super) handshake: &'a Handshake,
    pub(super) error: Option<&'a Error>,
    /// Whether the client has sent anything. Whoever checks whether a port accepts connections has
    /// not.
    pub(super) has_begun: bool,
}

/// The reasons, in the order of [`WORDS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reason {
    /// The client went away, perhaps before it had sent anything.
    ClientGone,
    Timeout,
    LetGo,
    Stopped,
    /// There is no certificate for the name, and none is presented instead.
    UnknownName,
    Version,
    Cipher,
    Group,
    Signature,
    ApplicationProtocol,
    /// The client's certificate was refused, or is missing.
    ClientCertificate,
    /// The client has sent an alert, most likely because it does not trust the certificate.
    RefusedByClient,
    NotTls,
    Malformed,
    Other,
}

const WORDS: [&str; 15] = [
    "client_gone",
    "timeout",
    "let_go",
    "stopped",
    "unknown_name",
    "no_shared_version",
    "no_shared_cipher",
    "no_shared_group",
    "no_shared_signature",
    "no_application_protocol",
    "client_certificate",
    "refused_by_client",
    "not_tls",
    "malformed",
    "other",
];

/// What OpenSSL says, and what that means. The first that is found counts: OpenSSL may say several
/// things, of which those of a layer below the handshake come first here.
const TEXTS: [(&str, Reason); 47] = [
    ("unknown alert type", Reason::Malformed),
    (" alert ", Reason::RefusedByClient),
    // Alerts for which OpenSSL has words without that one.
    ("tlsv1 ", Reason::RefusedByClient),
    ("http request", Reason::NotTls),
    ("https proxy request", Reason::NotTls),
    ("wrong version number", Reason::NotTls),
    ("unsupported protocol", Reason::Version),
    ("version too low", Reason::Version),
    ("unknown protocol", Reason::Version),
    ("no protocols available", Reason::Version),
    ("inappropriate fallback", Reason::Version),
    ("no shared cipher", Reason::Cipher),
    ("no ciphers", Reason::Cipher),
    ("no suitable key share", Reason::Group),
    ("no suitable groups", Reason::Group),
    ("no shared group", Reason::Group),
    ("unsupported elliptic curve", Reason::Group),
    ("signature algorithm", Reason::Signature),
    ("legacy sigalg", Reason::Signature),
    ("digest algorithm", Reason::Signature),
    ("no application protocol", Reason::ApplicationProtocol),
    ("eof", Reason::ClientGone),
    ("EOF", Reason::ClientGone),
    ("end of file", Reason::ClientGone),
    ("onnection reset", Reason::ClientGone),
    ("roken pipe", Reason::ClientGone),
    ("timed out", Reason::Timeout),
    ("length", Reason::Malformed),
    ("bad ", Reason::Malformed),
    ("invalid", Reason::Malformed),
    ("decode error", Reason::Malformed),
    ("unexpected", Reason::Malformed),
    ("decryption failed", Reason::Malformed),
    ("record layer failure", Reason::Malformed),
    ("missing ", Reason::Malformed),
    ("unsolicited extension", Reason::Malformed),
    ("duplicate", Reason::Malformed),
    ("inconsistent", Reason::Malformed),
    ("illegal", Reason::Malformed),
    ("too many", Reason::Malformed),
    ("too much", Reason::Malformed),
    ("excessive message size", Reason::Malformed),
    ("digest check failed", Reason::Malformed),
    ("data in", Reason::Malformed),
    ("handshake data", Reason::Malformed),
    ("ccs", Reason::Malformed),
    ("compression", Reason::Malformed),
];

/// What Pingora puts before OpenSSL's errors.
const ACCEPT: &str = "TLS accept() failed: ";

/// Counts failed handshakes by reason.
pub(super) struct ReasonCounters([IntCounter; WORDS.len()]);

impl ReasonCounters {
    pub(super) fn new(metrics: &Metrics) -> Self {
        let counter = |word| metrics.handshake_failures.with_label_values(&[word]);
        Self(WORDS.map(counter))
    }

    /// Counts a handshake that failed, with the text of its error, and returns the word for the
    /// reason. `is_client_refused` says whether the client's certificate was.
    pub(super) fn count(
        &self,
        how: HandshakeFailure,
        handshake: &Handshake,
        error: Option<&str>,
        is_client_refused: bool,
    ) -> &'static str {
        let reason = match how {
            HandshakeFailure::TimedOut => Reason::Timeout,
            HandshakeFailure::LetGo => Reason::LetGo,
            HandshakeFailure::Stopped => Reason::Stopped,
            HandshakeFailure::Failed if is_client_refused => Reason::ClientCertificate,
            HandshakeFailure::Failed if handshake.is_refused() => {
                match handshake.is_unknown_name() {
                    true => Reason::UnknownName,
                    // A validation that nobody awaits.
                    false => Reason::ApplicationProtocol,
                }
            }
            HandshakeFailure::Failed => reason(error.unwrap_or_default()),
        };
        if let Some(counter) = self.0.get(reason as usize) {
            counter.inc();
        }
        WORDS.get(reason as usize).copied().unwrap_or_default()
    }
}

fn reason(error: &str) -> Reason {
    let found = TEXTS.iter().find(|(text, _)| error.contains(text));
    found.map_or(Reason::Other, |(_, reason)| *reason)
}

/// What an error says, in words for people: without the codes, functions and files of OpenSSL, of
/// whose errors each is `error:CODE:LIBRARY:FUNCTION:REASON:FILE:LINE:DATA`.
pub(super) fn detail(error: &Error) -> String {
    let context = error
        .context
        .as_ref()
        .map_or("", |context| context.as_str());
    let said = context.strip_prefix(ACCEPT).unwrap_or(context);
    let each = said.split(", error:").map(|one| {
        let one = one.strip_prefix("error:").unwrap_or(one);
        let mut parts = one.split(':');
        let is_code = |part: &str| part.len() == 8 && u32::from_str_radix(part, 16).is_ok();
        match parts.next() {
            Some(code) if is_code(code) => parts.nth(2).unwrap_or(one),
            _ => one,
        }
    });
    let mut detail = each.collect::<Vec<_>>().join(", ");
    if let Some(cause) = &error.cause {
        detail.push_str(": ");
        detail.push_str(&cause.to_string());
    }
    detail
}

#[cfg(test)]
mod tests {
    use std::io;

    use pingora_core::ErrorType;

    use super::*;

    #[test]
    fn details_are_words_alone() {
        let start = "TLS accept() failed: ";
        for (context, expected) in [
            (
                "error:0A000102:SSL routines:tls_early_post_process_client_hello:\
                 unsupported protocol:ssl/statem/statem_srvr.c:1913:",
                "unsupported protocol",
            ),
            (
                "error:0A00010B:SSL routines:f:wrong version number:x.c:1:, \
                 error:0A000139:SSL routines::record layer failure:x.c:2:SSL alert number 70",
                "wrong version number, record layer failure",
            ),
            ("unexpected EOF", "unexpected EOF"),
            ("error:00000001", "00000001"),
            ("", ""),
        ] {
            let context = format!("{start}{context}");
            let error = Error::explain(ErrorType::TLSHandshakeFailure, context);
            assert!(detail(&error).ends_with(expected), "{}", detail(&error));
            assert!(!detail(&error).contains("routines"), "{}", detail(&error));
        }
        let cause = io::Error::from_raw_os_error(104);
        let error = Error::because(ErrorType::TLSHandshakeFailure, "receiving it", cause);
        assert_eq!(
            detail(&error),
            "receiving it: Connection reset by peer (os error 104)"
        );
    }

    #[test]
    fn texts_of_openssl_are_understood() {
        for (text, expected) in [
            (
                "TLS accept() failed: tlsv1 alert unknown ca",
                "refused_by_client",
            ),
            ("ssl/tls alert certificate unknown", "refused_by_client"),
            ("TLS accept() failed: http request", "not_tls"),
            ("unsupported protocol", "no_shared_version"),
            ("no shared cipher", "no_shared_cipher"),
            ("no suitable key share", "no_shared_group"),
            ("bad key share", "malformed"),
            ("no shared signature algorithms", "no_shared_signature"),
            ("missing sigalgs extension", "malformed"),
            ("tlsv1 unrecognized name", "refused_by_client"),
            ("unknown alert type", "malformed"),
            (
                "wrong version number:x.c:1:, record layer failure",
                "not_tls",
            ),
            (
                "decryption failed or bad record mac:x.c:1:, record layer failure",
                "malformed",
            ),
            ("mixed handshake and non handshake data", "malformed"),
            ("unexpected eof while reading", "client_gone"),
            (
                "reading cause: Connection reset by peer (os error 104)",
                "client_gone",
            ),
            ("bad extension", "malformed"),
            ("something else", "other"),
        ] {
            assert_eq!(WORDS[reason(text) as usize], expected, "{text}");
        }
        assert_eq!(Reason::Other as usize + 1, WORDS.len());
    }
}
