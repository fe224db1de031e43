//! The certificate that a client has presented, and why one was refused.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::sync::{Arc, OnceLock};

use openssl::error::ErrorStack;
use openssl::hash::MessageDigest;
use openssl::ssl::SslRef;
use openssl::stack::Stack;
use openssl::x509::{X509, X509NameRef, X509Ref, X509StoreContext, X509VerifyResult};

use crate::config::model::ClientAuth;
use crate::printable::is_control;

/// A certificate that a client has presented and that has been verified. Its texts are made once, for
/// all requests of the connection.
#[derive(Debug)]
pub struct ClientCertificate {
    /// The distinguished name as a text, last part first (RFC 4514): `CN=client,O=Example`.
    pub subject: String,
    /// The subject alternative names with their kinds: `DNS:a.example,email:a@example`.
    pub names: String,
    /// SHA-256 of the whole certificate in hexadecimal.
    pub fingerprint: String,
    /// The serial number in hexadecimal.
    pub serial: String,
    certificate: X509,
    /// What the client has sent with it.
    chain: Vec<X509>,
}

impl ClientCertificate {
    /// The certificate of a finished handshake, if the client has presented one.
    ///
    /// # Errors
    /// If it cannot be read, which one that has been verified can.
    pub(super) fn of(ssl: &SslRef) -> Result<Option<Self>, ErrorStack> {
        let Some(certificate) = ssl.peer_certificate() else {
            return Ok(None);
        };
        let chain = ssl.peer_cert_chain().into_iter().flatten();
        let serial = certificate.serial_number().to_bn()?.to_hex_str()?;
        Ok(Some(Self {
            subject: show_name(certificate.subject_name()),
            names: show_names(&certificate),
            fingerprint: hex(&certificate.digest(MessageDigest::sha256())?),
            serial: serial.to_lowercase(),
            chain: chain.map(ToOwned::to_owned).collect(),
            certificate,
        }))
    }

    /// Verifies it anew, against other roots or revocation lists.
    pub(super) fn is_accepted_by(&self, client_auth: &ClientAuth) -> bool {
        let verify = || -> Result<bool, ErrorStack> {
            let mut chain = Stack::new()?;
            for one in &self.chain {
                chain.push(one.clone())?;
            }
            let mut context = X509StoreContext::new()?;
            let verify = |context: &mut openssl::x509::X509StoreContextRef| context.verify_cert();
            context.init(&client_auth.store, &self.certificate, &chain, verify)
        };
        verify().unwrap_or(false)
    }
}

/// The first fault that a verification has found.
#[derive(Clone, Debug, Default)]
pub(super) struct Fault(Arc<OnceLock<X509VerifyResult>>);

impl Fault {
    /// Records one of OpenSSL's errors of verification.
    pub(super) fn record(&self, error: X509VerifyResult) {
        // The first is the cause of the others.
        _ = self.0.set(error);
    }

    /// Why a handshake that asked for a certificate was refused, if that was the reason: `error` is
    /// what OpenSSL says of the handshake.
    pub(super) fn to_refusal(&self, error: &str) -> Option<ClientRefusal> {
        let Some(fault) = self.0.get() else {
            let is_missing = error.contains("peer did not return a certificate");
            return is_missing.then_some(ClientRefusal {
                reason: "missing",
                detail: "the client presented no certificate",
            });
        };
        Some(ClientRefusal {
            reason: reason(fault.as_raw()),
            detail: fault.error_string(),
        })
    }
}

/// Why a client was refused because of its certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientRefusal {
    /// One word for metrics.
    pub reason: &'static str,
    /// More for people.
    pub detail: &'static str,
}

impl ClientRefusal {
    /// Whether the client is not to blame: the revocation lists are missing or too old.
    pub fn is_own_fault(&self) -> bool {
        self.reason == "crl"
    }
}

/// The word for an error of verification.
fn reason(code: i32) -> &'static str {
    use openssl_sys as sys;

    match code {
        sys::X509_V_ERR_CERT_HAS_EXPIRED => "expired",
        sys::X509_V_ERR_CERT_NOT_YET_VALID => "not_yet_valid",
        sys::X509_V_ERR_CERT_REVOKED => "revoked",
        sys::X509_V_ERR_UNABLE_TO_GET_CRL
        | sys::X509_V_ERR_CRL_HAS_EXPIRED
        | sys::X509_V_ERR_CRL_NOT_YET_VALID
        | sys::X509_V_ERR_CRL_SIGNATURE_FAILURE
        | sys::X509_V_ERR_UNABLE_TO_GET_CRL_ISSUER => "crl",
        sys::X509_V_ERR_CERT_CHAIN_TOO_LONG => "depth",
        sys::X509_V_ERR_INVALID_PURPOSE => "purpose",
        sys::X509_V_ERR_DEPTH_ZERO_SELF_SIGNED_CERT
        | sys::X509_V_ERR_SELF_SIGNED_CERT_IN_CHAIN
        | sys::X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT
        | sys::X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY
        | sys::X509_V_ERR_UNABLE_TO_VERIFY_LEAF_SIGNATURE => "unknown_ca",
        _ => "invalid",
    }
}

/// A distinguished name as a text (RFC 4514).
fn show_name(name: &X509NameRef) -> String {
    let mut entries: Vec<_> = name.entries().collect();
    entries.reverse();
    let mut text = String::new();
    for entry in entries {
        if !text.is_empty() {
            text.push(',');
        }
        match entry.object().nid().short_name() {
            Ok(kind) if kind != "UNDEF" => text.push_str(kind),
            _ => _ = write!(text, "{}", entry.object()),
        }
        text.push('=');
        let value = entry.data().to_string();
        escape(&mut text, value.as_deref().unwrap_or_default());
    }
    text
}

/// The subject alternative names as a text; those of other kinds are left out.
fn show_names(certificate: &X509Ref) -> String {
    let mut text = String::new();
    for name in certificate.subject_alt_names().into_iter().flatten() {
        let address = name.ipaddress().and_then(|octets| match octets.len() {
            4 => <[u8; 4]>::try_from(octets).ok().map(IpAddr::from),
            _ => <[u8; 16]>::try_from(octets).ok().map(IpAddr::from),
        });
        let address = address.map(|address| address.to_string());
        let known = [
            ("DNS", name.dnsname()),
            ("email", name.email()),
            ("URI", name.uri()),
            ("IP", address.as_deref()),
        ];
        let known = known
            .into_iter()
            .find_map(|(kind, value)| Some((kind, value?)));
        if let Some((kind, value)) = known {
            if !text.is_empty() {
                text.push(',');
            }
            text.push_str(kind);
            text.push(':');
            escape(&mut text, value);
        }
    }
    text
}

/// Appends a value so that it can neither end nor look like another.
fn escape(text: &mut String, value: &str) {
    for (at, char) in value.char_indices() {
        let is_edge = at == 0 || at + char.len_utf8() == value.len();
        match char {
            ',' | '+' | '"' | '\\' | '<' | '>' | ';' => {
                text.push('\\');
                text.push(char);
            }
            '#' if at == 0 => text.push_str("\\#"),
            ' ' if is_edge => text.push_str("\\ "),
            _ if is_control(char) => {
                for octet in char.encode_utf8(&mut [0; 4]).bytes() {
                    _ = write!(text, "\\{octet:02X}");
                }
            }
            _ => text.push(char),
        }
    }
}

fn hex(octets: &[u8]) -> String {
    octets.iter().fold(String::new(), |mut text, octet| {
        _ = write!(text, "{octet:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use openssl::nid::Nid;
    use openssl::x509::X509NameBuilder;

    use super::*;

    #[test]
    fn a_name_cannot_pretend_to_be_another() {
        let name = |entries: &[(Nid, &str)]| {
            let mut builder = X509NameBuilder::new().expect("OpenSSL");
            for (kind, value) in entries {
                let added = builder.append_entry_by_nid(*kind, value);
                added.expect("a value");
            }
            show_name(&builder.build())
        };
        let (organization, common) = (Nid::ORGANIZATIONNAME, Nid::COMMONNAME);
        assert_eq!(
            name(&[(organization, "Example"), (common, "client")]),
            "CN=client,O=Example"
        );
        assert_eq!(name(&[(common, "a,O=Root")]), "CN=a\\,O=Root");
        assert_eq!(name(&[(common, " #a\\b\" ")]), "CN=\\ #a\\\\b\\\"\\ ");
        assert_eq!(name(&[(common, "#a")]), "CN=\\#a");
        assert_eq!(name(&[(common, "a\r\nb\u{7f}")]), "CN=a\\0D\\0Ab\\7F");
        assert_eq!(name(&[(common, "Zoë")]), "CN=Zoë");
        assert_eq!(name(&[]), "");
    }

    #[test]
    fn refusals_have_words_for_their_reasons() {
        let missing = "peer did not return a certificate";
        let refusal = |error| Fault::default().to_refusal(error);
        assert_eq!(refusal("protocol version"), None);
        assert_eq!(
            refusal(missing).map(|refusal| refusal.reason),
            Some("missing")
        );
        for (code, expected) in [
            (10, "expired"),
            (23, "revoked"),
            (12, "crl"),
            (3, "crl"),
            (19, "unknown_ca"),
            (9999, "invalid"),
        ] {
            assert_eq!(reason(code), expected);
        }
    }
}
