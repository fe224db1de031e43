//! What can be wrong with a certificate or its key, in words for the person who has to fix it.

use thiserror::Error;

/// Why a certificate with its key cannot be served.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
pub enum CertificateError {
    /// The file is DER.
    #[error(
        "is a {what} in DER (binary) form, not PEM; convert it with 'openssl {} -inform DER'",
        if *.what == "certificate" { "x509" } else { "pkey" }
    )]
    Der { what: &'static str },
    /// The file is empty.
    #[error("is empty; was it only half written?")]
    Empty,
    /// The key is protected by a pass phrase.
    #[error(
        "contains a private key that is encrypted with a pass phrase, which cannot be entered at \
         startup; decrypt the key with 'openssl pkey' and protect the file by its mode instead"
    )]
    EncryptedKey,
    /// The key belongs to another certificate.
    #[error(
        "the private key does not belong to the certificate ({certificate}); use the key that it \
         was requested with"
    )]
    KeyMismatch { certificate: String },
    /// The file has no certificate, but something else.
    #[error("holds no certificate{}", only_a(.found))]
    NoCertificate { found: Option<String> },
    /// The file has no key, but something else.
    #[error("holds no private key{}", only_a(.found))]
    NoKey { found: Option<String> },
    /// The certificate has no subject alternative name that a TLS server can use.
    #[error(
        "the certificate has no DNS name and no IP address as subject alternative name{}; clients \
         have ignored the common name since 2017: have it issued with subject alternative names",
        only_common_name(.common_name)
    )]
    NoNames { common_name: Option<String> },
    /// The file is not PEM.
    #[error("is not PEM: no '-----BEGIN ...-----' line was found")]
    NotPem,
    /// OpenSSL does not accept the certificate or key.
    #[error("OpenSSL refuses to serve it: {0}")]
    Refused(String),
    /// The file is PKCS #12.
    #[error("is PKCS #12 (.pfx, .p12), not PEM; convert it with 'openssl pkcs12 -in FILE -nodes'")]
    Pkcs12,
    /// There is more than one key.
    #[error("holds {0} different private keys; leave only the one of the certificate")]
    SeveralKeys(usize),
    /// A block has no end.
    #[error("ends in the middle of a PEM block; was it only half written?")]
    Torn,
    /// The file is text in UTF-16.
    #[error(
        "is text in UTF-16, as '>' of Windows PowerShell writes it, not PEM; convert it with \
         'iconv -f UTF-16 -t UTF-8', or write it with 'Out-File -Encoding ascii'"
    )]
    Utf16,
    /// A block is well-formed, but its content is not.
    #[error("holds a {what} that cannot be read; the PEM block is damaged")]
    Unreadable { what: &'static str },
    /// TLS cannot use keys of this kind.
    #[error(
        "the key is {found}; use RSA of at least 2048 bits, ECDSA on P-256, P-384 or P-521, or \
         Ed25519"
    )]
    UnsupportedKey { found: String },
}

fn only_a(found: &Option<String>) -> String {
    found
        .as_ref()
        .map(|found| format!(", only a {found}"))
        .unwrap_or_default()
}

fn only_common_name(name: &Option<String>) -> String {
    name.as_ref()
        .map(|name| format!(", only the common name {name:?}"))
        .unwrap_or_default()
}

/// What is unusual about a certificate that is served all the same.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
pub enum CertificateWarning {
    /// A certificate above it in the chain has expired.
    #[error(
        "the intermediate certificate in its chain ({subject}) expired on {end}, so clients refuse \
         it; put the issuer's current one after the certificate"
    )]
    ChainExpired { subject: String, end: String },
    /// The certificate has expired.
    #[error("the certificate expired on {0}; renew it")]
    Expired(String),
    /// The issuer's certificate is unknown.
    #[error(
        "the chain is incomplete: the certificate of the issuer ({issuer}) is neither in the file \
         nor known; add it after the certificate, unless the issuer is a root that clients trust"
    )]
    Incomplete { issuer: String },
    /// A subject alternative name is not a host name.
    #[error("the subject alternative name {name:?} {why}; it is ignored")]
    Name { name: String, why: String },
    /// The certificate requires an OCSP response, and names nobody to ask for one.
    #[error(
        "the certificate requires an OCSP response (Must-Staple) but names no responder that is \
         asked over plain HTTP, so it is not served: have it issued without Must-Staple"
    )]
    NoResponder,
    /// The certificate is not valid yet.
    #[error("the certificate is not valid before {0}; is the clock right?")]
    NotYetValid(String),
    /// The chain, as a CA has provided it, is not in the order in which each certificate certifies
    /// the one before.
    #[error(
        "the chain is not in order: clients of TLS 1.2 may refuse it; have the CA mend it, or \
         choose another"
    )]
    Order,
    /// A certificate of the file has expired, and another takes its place in the chain.
    #[error(
        "a certificate in the file ({subject}) expired on {end}; another with its name and key is \
         sent instead"
    )]
    Superseded { subject: String, end: String },
    /// The issuer's certificate is missing, and nothing suggests that one should be sent: the
    /// issuer may be a private root. This is not reported.
    #[error("the issuer ({issuer}) is unknown")]
    UnknownIssuer { issuer: String },
    /// A key or a signature does not meet the rules that clients hold public CAs to.
    #[error(
        "{what} {why}, which is weak: have it issued again {}",
        if *is_key { "with another key" } else { "over SHA-256 or better" }
    )]
    Weak {
        what: String,
        why: String,
        /// Whether it is a key, not a signature.
        is_key: bool,
    },
    /// A certificate of the file is not part of the chain.
    #[error("a certificate in the file is not part of the chain ({subject}); it is not sent")]
    Unrelated { subject: String },
}

impl CertificateWarning {
    /// The issuer whose certificate is missing, if that is the warning.
    pub fn missing_issuer(&self) -> Option<&str> {
        match self {
            Self::Incomplete { issuer } | Self::UnknownIssuer { issuer } => Some(issuer),
            _ => None,
        }
    }

    /// Returns true if people should know.
    pub fn is_told(&self) -> bool {
        !matches!(self, Self::UnknownIssuer { .. })
    }
}
