//! The certificate that the gateway presents to the servers of an upstream.

use std::path::Path;

use openssl::asn1::Asn1Time;
use openssl::pkey::{PKey, Private};
use openssl::x509::X509;

use super::client::read_file;
use super::context::Context;
use crate::config::model::ClientCertificate;
use crate::config::problem::At;
use crate::config::schema;

/// What is wrong with a file, and what to do.
type Fault = (String, &'static str);

/// `cert` and `key`. No server that asks for them could be reached without, so they are read at
/// once.
pub(super) fn client_certificate(
    ctx: &mut Context<'_>,
    raw: &schema::UpstreamTlsOptions,
    at: &At<'_>,
) -> Option<ClientCertificate> {
    ctx.both(at, ["cert", "key"], [raw.cert.is_some(), raw.key.is_some()]);
    let (cert, key) = (raw.cert.as_deref()?, raw.key.as_deref()?);
    let (cert_at, key_at) = (at.key("cert"), at.key("key"));
    let files = ClientCertificate {
        cert: ctx.path(&cert_at, cert),
        key: ctx.path(&key_at, key),
    };
    if [cert, key]
        .iter()
        .any(|path| path.is_empty() || path.contains('\0'))
    {
        return Some(files);
    }
    for path in [&files.cert, &files.key] {
        ctx.sources.watch(path);
    }
    let leaf = read_leaf(&files.cert);
    let private = read_key(&files.key);
    for (at, fault) in [
        (&cert_at, leaf.as_ref().err()),
        (&key_at, private.as_ref().err()),
    ] {
        if let Some((why, hint)) = fault {
            let message = format!("the file {} {why}", at.quoted());
            ctx.problems.fault(at, message, *hint);
        }
    }
    let (Ok(leaf), Ok(private)) = (leaf, private) else {
        return Some(files);
    };
    if !leaf
        .public_key()
        .is_ok_and(|public| public.public_eq(&private))
    {
        let message = format!(
            "the private key {} does not belong to the certificate {}",
            key_at.quoted(),
            cert_at.quoted(),
        );
        let hint = "give the key that the certificate was requested with; the certificate comes \
                    first in its file, before its intermediates";
        ctx.problems.fault(&key_at, message, hint);
    }
    let has_ended = Asn1Time::days_from_now(0).is_ok_and(|now| leaf.not_after() < now);
    if has_ended {
        let message = format!("the certificate {} has expired", cert_at.quoted());
        let hint = "replace it: servers that ask for it will refuse connections";
        ctx.problems.warn(&cert_at, message, hint);
    }
    Some(files)
}

/// The first certificate of a file.
fn read_leaf(path: &Path) -> Result<X509, Fault> {
    let certificates = X509::stack_from_pem(&read_file(path)?).unwrap_or_default();
    certificates.into_iter().next().ok_or_else(|| {
        let hint = "give the client certificate and its intermediates, in PEM";
        ("holds no certificate in PEM".to_owned(), hint)
    })
}

fn read_key(path: &Path) -> Result<PKey<Private>, Fault> {
    let pem = read_file(path)?;
    let mut is_encrypted = false;
    // Without the callback, OpenSSL might ask on the terminal.
    let key = PKey::private_key_from_pem_callback(&pem, |_| {
        is_encrypted = true;
        Ok(0)
    });
    key.map_err(|_| match is_encrypted {
        true => (
            "holds a private key that is encrypted with a pass phrase".to_owned(),
            "decrypt it with 'openssl pkey', and protect the file by its mode instead",
        ),
        false => (
            "holds no private key in PEM".to_owned(),
            "give the private key of 'cert'",
        ),
    })
}
