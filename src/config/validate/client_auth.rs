//! `client_auth`. Without its files no client could be verified, so they are read at once, and again
//! whenever they change.

use std::path::Path;
use std::sync::Arc;

use openssl::asn1::Asn1Time;
use openssl::error::ErrorStack;
use openssl::sha::Sha256;
use openssl::ssl::SslFiletype;
use openssl::x509::store::{X509Lookup, X509Store, X509StoreBuilder};
use openssl::x509::verify::{X509VerifyFlags, X509VerifyParam};
use openssl::x509::{X509, X509Crl, X509CrlRef, X509NameRef, X509PurposeId, X509Ref};

use super::client::{read_file, read_file_within};
use super::context::{ClientAuthKey, Context};
use crate::config::model::ClientAuth;
use crate::config::problem::{At, quote};
use crate::config::schema;

/// The maximum size of a file of revocation lists, in octets.
const MAX_CRL: u64 = 64 << 20;

/// How a block of a revocation list begins in PEM.
const CRL_BEGINS: &[u8] = b"-----BEGIN X509 CRL-----";

/// What is wrong with a file, and what to do.
type Fault = (String, &'static str);

/// A file of revocation lists that has been read, and its type.
type Crls = (Vec<X509Crl>, SslFiletype);

/// `client_auth`; `None` if it is off.
pub(super) fn client_auth(
    ctx: &mut Context<'_>,
    raw: &schema::ClientAuth,
    at: &At<'_>,
) -> Option<Arc<ClientAuth>> {
    let schema::ClientAuth::On(raw) = raw else {
        return None;
    };
    let is_required = match raw.mode {
        schema::ClientAuthMode::Off => return None,
        schema::ClientAuthMode::Optional => false,
        schema::ClientAuthMode::Required => true,
    };
    let (ca_at, crl_at) = (at.key("ca"), at.key("crl"));
    let Some(ca) = &raw.ca else {
        if !ca_at.is_written() {
            let message = "'ca' is missing: it says whose certificates clients may present";
            let hint = "name a PEM file with the roots, or set 'mode: off'";
            ctx.problems.error(at, message, hint);
        }
        return None;
    };
    let key = ClientAuthKey {
        is_required,
        depth: u16::try_from(raw.depth).unwrap_or_default(),
        ca: ctx.path(&ca_at, ca),
        crl: raw.crl.as_ref().map(|crl| ctx.path(&crl_at, crl)),
    };
    if [Some(ca), raw.crl.as_ref()]
        .into_iter()
        .flatten()
        .any(|path| path.is_empty() || path.contains('\0'))
    {
        return None;
    }
    if let Some(known) = ctx.client_auth.get(&key) {
        return known.clone();
    }
    ctx.sources.watch(&key.ca);
    if let Some(crl) = &key.crl {
        ctx.sources.watch(crl);
    }
    let roots = read_roots(&key.ca);
    if let Err((why, hint)) = &roots {
        let message = format!("the file {} {why}", ca_at.quoted());
        ctx.problems.error(&ca_at, message, *hint);
    }
    let crls = key.crl.as_deref().map(read_crls);
    if let Some(Err((why, hint))) = &crls {
        let message = format!("the file {} {why}", crl_at.quoted());
        ctx.problems.error(&crl_at, message, *hint);
    }
    let made = match (roots, crls.transpose()) {
        (Ok(roots), Ok(crls)) => {
            warn_expired(ctx, &ca_at, &roots);
            if let Some((crls, _)) = &crls {
                warn_useless(ctx, &crl_at, &roots, crls);
            }
            let made = make(&key, roots, crls);
            if let Err(error) = &made {
                let message = format!("OpenSSL cannot use these files: {error}");
                let hint = "check them with 'openssl verify'";
                ctx.problems.error(at, message, hint);
            }
            made.ok().map(Arc::new)
        }
        _ => None,
    };
    ctx.client_auth.insert(key, made.clone());
    made
}

fn read_roots(path: &Path) -> Result<Vec<X509>, Fault> {
    let pem = read_file(path)?;
    let roots = X509::stack_from_pem(&pem).unwrap_or_default();
    if roots.is_empty() {
        let hint = "give the roots of clients' certificates, in PEM";
        return Err(("holds no certificate in PEM".to_owned(), hint));
    }
    if !roots.iter().any(|one| is_self_signed(one)) {
        let hint = "add the root that issued them: only chains that end in a root are accepted";
        return Err(("holds intermediates alone, and no root".to_owned(), hint));
    }
    Ok(roots)
}

/// The revocation lists of a file, and whether it is in PEM.
fn read_crls(path: &Path) -> Result<Crls, Fault> {
    if path.to_str().is_none() {
        let hint = "put it at a path that is UTF-8";
        return Err(("cannot be handed to OpenSSL".to_owned(), hint));
    }
    let octets = read_file_within(path, MAX_CRL)?;
    let fault = || {
        let hint =
            "give revocation lists in PEM, or one in DER, such as 'openssl ca -gencrl' makes";
        ("holds no valid revocation list".to_owned(), hint)
    };
    let mut begins = memchr::memmem::find_iter(&octets, CRL_BEGINS).peekable();
    if begins.peek().is_none() {
        let crl = X509Crl::from_der(&octets).map_err(|_| fault())?;
        return Ok((vec![crl], SslFiletype::ASN1));
    }
    let blocks = begins.map(|at| X509Crl::from_pem(octets.get(at..).unwrap_or_default()));
    let crls: Result<Vec<_>, _> = blocks.collect();
    Ok((crls.map_err(|_| fault())?, SslFiletype::PEM))
}

fn make(
    key: &ClientAuthKey,
    roots: Vec<X509>,
    crls: Option<Crls>,
) -> Result<ClientAuth, ErrorStack> {
    let mut hash = Sha256::new();
    hash.update(&[u8::from(key.is_required)]);
    hash.update(&key.depth.to_be_bytes());
    for root in &roots {
        hash.update(&root.to_der()?);
    }
    for crl in crls.iter().flat_map(|(crls, _)| crls) {
        hash.update(b"crl");
        hash.update(&crl.to_der()?);
    }
    let file = key.crl.as_deref().zip(crls.map(|(_, kind)| kind));
    Ok(ClientAuth {
        is_required: key.is_required,
        depth: key.depth,
        store: store(&roots, key.depth, file)?,
        roots,
        digest: hash.finish(),
    })
}

/// The store that verifications work from.
fn store(
    roots: &[X509],
    depth: u16,
    crls: Option<(&Path, SslFiletype)>,
) -> Result<X509Store, ErrorStack> {
    let mut builder = X509StoreBuilder::new()?;
    for root in roots {
        builder.add_cert(root.clone())?;
    }
    let mut parameters = X509VerifyParam::new()?;
    parameters.set_depth(i32::from(depth));
    parameters.set_purpose(X509PurposeId::SSL_CLIENT)?;
    if let Some((path, kind)) = crls {
        // Of the whole chain: a CA that was revoked is no better than a client that was.
        parameters.set_flags(X509VerifyFlags::CRL_CHECK | X509VerifyFlags::CRL_CHECK_ALL)?;
        // A file that has changed since it was read is read again by the reload that follows.
        builder
            .add_lookup(X509Lookup::file())?
            .load_crl_file(path, kind)?;
    }
    builder.set_param(&parameters)?;
    Ok(builder.build())
}

fn is_self_signed(certificate: &X509Ref) -> bool {
    is_same_name(certificate.subject_name(), certificate.issuer_name())
}

fn is_same_name(one: &X509NameRef, other: &X509NameRef) -> bool {
    one.try_cmp(other).is_ok_and(|order| order.is_eq())
}

/// Warns of roots that no client can be verified by.
fn warn_expired(ctx: &mut Context<'_>, at: &At<'_>, roots: &[X509]) {
    let Ok(now) = Asn1Time::days_from_now(0) else {
        return;
    };
    for root in roots.iter().filter(|root| root.not_after() < &*now) {
        let message = format!("the root {} has expired", show(root.subject_name()));
        let hint = "replace it: its clients are refused";
        ctx.problems.warn(at, message, hint);
    }
}

/// Warns of roots without a revocation list, and of lists that have expired.
fn warn_useless(ctx: &mut Context<'_>, at: &At<'_>, roots: &[X509], crls: &[X509Crl]) {
    let Ok(now) = Asn1Time::days_from_now(0) else {
        return;
    };
    let has_expired = |crl: &X509CrlRef| crl.next_update().is_some_and(|next| next < &*now);
    for crl in crls.iter().filter(|crl| has_expired(crl)) {
        let message = format!(
            "the revocation list of {} has expired",
            show(crl.issuer_name())
        );
        let hint = "replace it: its clients are refused until then";
        ctx.problems.warn(at, message, hint);
    }
    for root in roots {
        let is_its = |crl: &X509Crl| is_same_name(crl.issuer_name(), root.subject_name());
        if !crls.iter().any(is_its) {
            let message = format!(
                "there is no revocation list of {}",
                show(root.subject_name())
            );
            let hint = "add it, which may be empty: its clients are refused without";
            ctx.problems.warn(at, message, hint);
        }
    }
}

/// A name of a CA for people.
fn show(name: &X509NameRef) -> String {
    let entries = name.entries().filter_map(|entry| {
        let value = entry.data().to_string().ok()?;
        Some(format!(
            "{}={}",
            entry.object().nid().short_name().ok()?,
            &*value
        ))
    });
    quote(&entries.collect::<Vec<_>>().join(", "))
}
