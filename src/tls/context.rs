//! The TLS context: versions, ciphers, groups, tickets and the callbacks.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use openssl::error::ErrorStack;
use openssl::sha::Sha256;
use openssl::ssl::{
    AlpnError, SslAcceptor, SslAcceptorBuilder, SslMethod, SslMode, SslOptions,
    SslSessionCacheMode, SslVersion, select_next_proto,
};

use crate::config::model::{SessionTickets, Tls, TlsProfile};
use crate::host::HostName;

use super::{GlobalCertificate, TicketKeys, ffi, validation};

/// TLS 1.2 ciphers: ECDHE and AEAD alone. Mozilla's intermediate list less finite-field DHE.
const CIPHERS: &str = "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256:\
    ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-RSA-AES256-GCM-SHA384:\
    ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-RSA-CHACHA20-POLY1305";

/// TLS 1.3 ciphers, the three of Mozilla's profiles, most wanted first.
const CIPHER_SUITES: &str =
    "TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256";

/// The protocols we speak, in ALPN's wire format (RFC 7301, section 3.1), most wanted first.
/// HTTP/1.0 is served as HTTP/1.1 is.
const PROTOCOLS: &[u8] = b"\x02h2\x08http/1.1\x08http/1.0";

/// The longest life of a session in seconds; a day, and a week is the most TLS 1.3 allows.
const MAX_SESSION: u64 = 24 * 60 * 60;

/// A builder to [`configure`].
pub(super) fn builder() -> Result<SslAcceptorBuilder, ErrorStack> {
    SslAcceptor::mozilla_intermediate_v5(SslMethod::tls())
}

/// Sets everything that the configuration says about TLS, and the callbacks that find the
/// certificate.
pub(super) fn configure(
    certificates: &GlobalCertificate,
    builder: &mut SslAcceptorBuilder,
    tls: &Tls,
) -> Result<(), ErrorStack> {
    let oldest = match tls.profile {
        TlsProfile::Intermediate => SslVersion::TLS1_2,
        TlsProfile::Modern => SslVersion::TLS1_3,
    };
    builder.set_min_proto_version(Some(oldest))?;
    builder.set_max_proto_version(Some(SslVersion::TLS1_3))?;
    builder.set_cipher_list(CIPHERS)?;
    builder.set_ciphersuites(CIPHER_SUITES)?;
    builder.set_groups_list(&group_list(&tls.groups))?;
    builder.set_options(SslOptions::NO_RENEGOTIATION | SslOptions::NO_COMPRESSION);
    // AES-128 before AES-256: the handshake is hashed with SHA-256, which processors have
    // instructions for, instead of SHA-384. A client without instructions for AES puts ChaCha20
    // first, and gets it.
    builder.set_options(SslOptions::CIPHER_SERVER_PREFERENCE | SslOptions::PRIORITIZE_CHACHA);
    // An idle connection keeps no record buffers; a busy one reads whole records in one call.
    builder.set_mode(SslMode::RELEASE_BUFFERS);
    builder.set_read_ahead(true);

    configure_sessions(certificates, builder, tls.session_tickets)?;

    builder.set_alpn_select_callback({
        let certificates = certificates.clone();
        move |ssl, offered| {
            if certificates.is_validation(ssl) {
                // It is all that was offered.
                return Ok(validation::PROTOCOL);
            }
            select_next_proto(PROTOCOLS, offered).ok_or(AlpnError::ALERT_FATAL)
        }
    });
    let policy = policy_context(tls);
    let certificates = certificates.clone();
    builder.set_client_hello_callback(move |ssl, alert| {
        certificates.client_hello(&policy, ssl, alert)
    });
    Ok(())
}

fn configure_sessions(
    certificates: &GlobalCertificate,
    builder: &mut SslAcceptorBuilder,
    tickets: SessionTickets,
) -> Result<(), ErrorStack> {
    // Sessions are resumed by ticket or not at all: a cache would cost memory per client.
    builder.set_session_cache_mode(SslSessionCacheMode::OFF);
    // Never used for a connection, each of which gets its own context by name. Set all the same:
    // OpenSSL refuses resumption with client certificates where it is missing.
    builder.set_session_id_context(b"snigate")?;
    match tickets {
        SessionTickets::Off => {
            builder.set_options(SslOptions::NO_TICKET);
            builder.set_num_tickets(0)?;
        }
        SessionTickets::Rotate(interval) => {
            // Each handshake gives one, a resumed one too: a client has as many as connections.
            // Each takes a record, a packet and the encoding of a session.
            builder.set_num_tickets(1)?;
            let life = interval.as_secs().saturating_mul(2).clamp(1, MAX_SESSION);
            ffi::set_session_timeout(builder, life);
            let tickets = certificates.tickets();
            ffi::use_ticket_keys(builder, tickets.keys(interval))?;
        }
    }
    Ok(())
}

/// The groups in OpenSSL's syntax. A hybrid group stands in a tuple of its own, which makes
/// OpenSSL choose it, by a HelloRetryRequest if need be, whenever the client knows it.
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

/// What must be equal for a session to be resumed, beside the name.
fn policy_context(tls: &Tls) -> Vec<u8> {
    format!("snigate 1 {:?}", tls.profile).into_bytes()
}

/// What a handshake has come to, as far as sessions of one name must not be mixed up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// The name is served.
    Serve = 0,
    /// The name is unknown, the default is presented.
    FallBack = 1,
    /// A CA validates the name.
    Validate = 2,
}

/// The context of sessions of one name under one policy; an address has its name in the DNS.
///
/// Without it OpenSSL resumes a session of one site under the name of any other.
pub(super) fn session_context(
    policy: &[u8],
    server_name: Option<&HostName>,
    purpose: Purpose,
) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(policy);
    hash.update(&[purpose as u8]);
    if let Some(name) = server_name {
        hash.update(name.as_str().as_bytes());
    }
    hash.finish()
}

/// The ticket keys in use, with their interval.
#[derive(Default)]
pub(super) struct Tickets {
    in_use: Mutex<Option<(Duration, Arc<TicketKeys>)>>,
}

impl Tickets {
    /// Keys that rotate at `interval`: those in use where the interval is the same, so that a
    /// reload of the configuration costs no session.
    fn keys(&self, interval: Duration) -> Arc<TicketKeys> {
        let mut in_use = self.in_use.lock().unwrap_or_else(PoisonError::into_inner);
        match in_use.as_ref() {
            Some((of, keys)) if *of == interval => Arc::clone(keys),
            _ => {
                let keys = Arc::new(TicketKeys::new(interval));
                *in_use = Some((interval, Arc::clone(&keys)));
                keys
            }
        }
    }
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

    #[test]
    fn sessions_are_bound_to_name_and_policy() {
        let a: HostName = "a.test".parse().expect("valid");
        let b: HostName = "b.test".parse().expect("valid");
        let of = |policy: &[u8], name| session_context(policy, name, Purpose::Serve);
        assert_eq!(of(b"1", Some(&a)), of(b"1", Some(&a)));
        assert_ne!(of(b"1", Some(&a)), of(b"1", Some(&b)));
        assert_ne!(of(b"1", Some(&a)), of(b"1", None));
        assert_ne!(of(b"1", Some(&a)), of(b"2", Some(&a)));
        for other in [Purpose::FallBack, Purpose::Validate] {
            assert_ne!(
                session_context(b"1", Some(&a), other),
                session_context(b"1", Some(&a), Purpose::Serve)
            );
        }
    }
}
