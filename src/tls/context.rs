//! The TLS context: versions, ciphers, groups and sessions.

use openssl::error::ErrorStack;
use openssl::ssl::{
    SslAcceptor, SslAcceptorBuilder, SslMethod, SslMode, SslOptions, SslSessionCacheMode,
};

use super::ffi;
use super::key_log::KeyLog;
use super::policy::to_openssl;
use super::ticket::Tickets;
use crate::config::model::{SessionTickets, Tls};

/// TLS 1.2 ciphers: only ECDHE and AEAD. Mozilla's intermediate list without finite-field DHE.
const CIPHERS: &str = "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256:\
    ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-RSA-AES256-GCM-SHA384:\
    ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-RSA-CHACHA20-POLY1305";

/// TLS 1.3 ciphers, the three of Mozilla's profiles, in order of preference.
const CIPHER_SUITES: &str =
    "TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256";

/// The longest lifetime of a session in seconds: a day. TLS 1.3 allows a week.
const MAX_SESSION: u64 = 24 * 60 * 60;

/// A builder for [`configure`]. The secrets of its connections are written to `key_log`.
pub(super) fn builder(key_log: Option<KeyLog>) -> Result<SslAcceptorBuilder, ErrorStack> {
    let mut builder = SslAcceptor::mozilla_intermediate_v5(SslMethod::tls())?;
    if let Some(key_log) = key_log {
        key_log.follow(&mut builder);
    }
    Ok(builder)
}

/// Sets everything that the configuration says about TLS. `tickets` holds the keys of session
/// tickets.
pub(super) fn configure(
    builder: &mut SslAcceptorBuilder,
    tls: &Tls,
    tickets: &Tickets,
) -> Result<(), ErrorStack> {
    builder.set_min_proto_version(Some(to_openssl(*tls.versions.start())))?;
    builder.set_max_proto_version(Some(to_openssl(*tls.versions.end())))?;
    builder.set_cipher_list(CIPHERS)?;
    builder.set_ciphersuites(CIPHER_SUITES)?;
    if let Some(ciphers) = &tls.ciphers {
        // Only what is spoken has some. A site that speaks more has its own.
        if !ciphers.tls12.is_empty() {
            builder.set_cipher_list(&ciphers.tls12.join(":"))?;
        }
        if !ciphers.tls13.is_empty() {
            builder.set_ciphersuites(&ciphers.tls13.join(":"))?;
        }
    }
    builder.set_groups_list(&group_list(&tls.groups))?;
    builder.set_options(SslOptions::NO_RENEGOTIATION | SslOptions::NO_COMPRESSION);
    // AES-128 before AES-256: then the handshake is hashed with SHA-256, for which processors have
    // instructions, instead of SHA-384. A client without AES instructions prefers ChaCha20 and
    // gets it.
    builder.set_options(SslOptions::CIPHER_SERVER_PREFERENCE | SslOptions::PRIORITIZE_CHACHA);
    // An idle connection has no record buffers; a busy one reads whole records in one call.
    builder.set_mode(SslMode::RELEASE_BUFFERS);
    builder.set_read_ahead(true);

    configure_sessions(builder, tls.session_tickets, tickets)
}

fn configure_sessions(
    builder: &mut SslAcceptorBuilder,
    policy: SessionTickets,
    tickets: &Tickets,
) -> Result<(), ErrorStack> {
    // Sessions are resumed by ticket or not at all: a cache would cost memory per client.
    builder.set_session_cache_mode(SslSessionCacheMode::OFF);
    // No connection uses it, since each gets a context by name. Without it, OpenSSL refuses
    // resumption with client certificates.
    builder.set_session_id_context(b"snigate")?;
    match policy {
        SessionTickets::Off => {
            builder.set_options(SslOptions::NO_TICKET);
            builder.set_num_tickets(0)?;
        }
        SessionTickets::Rotate(interval) => {
            // Every handshake issues one, even a resumed one, so a client has one per connection.
            // Each costs a record, a packet and the encoding of a session.
            builder.set_num_tickets(1)?;
            let life = interval.as_secs().saturating_mul(2).clamp(1, MAX_SESSION);
            ffi::set_session_timeout(builder, life);
            ffi::use_ticket_keys(builder, tickets.keys(interval))?;
        }
    }
    Ok(())
}

/// The groups in OpenSSL's syntax. Each hybrid group is a tuple of its own. So OpenSSL selects it
/// whenever the client supports it, by a HelloRetryRequest if necessary.
fn group_list(groups: &[String]) -> String {
    let mut list = String::new();
    let mut after_hybrid = false;
    for group in groups {
        let hybrid = group.contains("MLKEM");
        if !list.is_empty() {
            list.push_str(if hybrid || after_hybrid { " / " } else { ":" });
        }
        list.push_str(group);
        after_hybrid = hybrid;
    }
    list
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hybrid_groups_are_tuples_of_their_own() {
        let groups = |names: &[&str]| {
            group_list(
                &names
                    .iter()
                    .map(|&name| name.to_owned())
                    .collect::<Vec<_>>(),
            )
        };
        assert_eq!(
            groups(&["X25519MLKEM768", "X25519", "P-256"]),
            "X25519MLKEM768 / X25519:P-256"
        );
        assert_eq!(groups(&["X25519", "P-256"]), "X25519:P-256");
        assert_eq!(
            groups(&["X25519", "X25519MLKEM768"]),
            "X25519 / X25519MLKEM768"
        );
    }
}
