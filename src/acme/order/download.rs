//! Downloads the certificate of a valid order (RFC 8555, section 7.4.2): retries until it is there,
//! and extracts it from whatever surrounds it.

use std::time::Instant;

use http::StatusCode;
use instant_acme::Order;
use openssl::x509::X509;

use crate::acme::authorization::{FAULTS, PATIENCE};
use crate::acme::error::Step;
use crate::acme::jws;
use crate::acme::order_ctx::{OrderCtx, OrderError};
use crate::acme::problem::words;
use crate::acme::retry::{RetryPauses, pause_before_retry, retry_transient};
use crate::schedule::{Failure, FailureClass};

const BEGIN: &[u8] = b"-----BEGIN ";
const END: &[u8] = b"-----END ";
const DASHES: &[u8] = b"-----";

/// The result of one attempt to download the certificate.
enum DownloadAttempt {
    Found(String),
    /// It is not there yet.
    NotYet(Failure),
    /// The CA did not respond properly.
    Fault(Failure),
}

/// Downloads the certificate of a valid order. If that fails, the next attempt requests it again.
///
/// # Errors
/// If the CA does not return it in time, or limits us.
pub(super) async fn download_chain(
    ctx: &OrderCtx<'_>,
    order: &mut Order,
) -> Result<String, OrderError> {
    let url = order.state().certificate.clone().unwrap_or_default();
    let (start, mut pauses, mut faults) = (Instant::now(), RetryPauses::default(), 0);
    loop {
        let failure = match try_download(ctx, &url).await? {
            DownloadAttempt::Found(chain) => return Ok(chain),
            DownloadAttempt::NotYet(failure) => {
                faults = 0;
                failure
            }
            DownloadAttempt::Fault(failure) => {
                faults += 1;
                failure
            }
        };
        if faults > FAULTS || start.elapsed() > PATIENCE {
            let message = format!(
                "{}; the next attempt will request it again",
                failure.message
            );
            return Err(OrderError::Failed(Failure { message, ..failure }));
        }
        pause_before_retry(ctx, &mut pauses).await;
    }
}

async fn try_download(ctx: &OrderCtx<'_>, url: &str) -> Result<DownloadAttempt, OrderError> {
    let host = &ctx.ca.host;
    let signer = ctx.stored_account.signer();
    let signer = signer.map_err(|error| ctx.to_error(Step::Download, &error))?;
    let reply = retry_transient!(
        ctx,
        Step::Download,
        jws::post_jws(ctx.client, &signer, url, None).await
    );
    let reply = match reply {
        Ok(reply) => reply,
        Err(error) => return classify_failure(ctx, ctx.to_error(Step::Download, &error)),
    };
    let (status, body) = (reply.status(), reply.body());
    if let Some(chain) = certificates(body) {
        return Ok(DownloadAttempt::Found(chain));
    }
    let failed = |what: &str| {
        let message = format!("{host} {}: {what}", Step::Download);
        Failure::new(FailureClass::Network, message)
    };
    Ok(match words(body) {
        Some(words) if status != StatusCode::ACCEPTED => DownloadAttempt::Fault(failed(&format!(
            "its response does not contain one ({words})"
        ))),
        _ => DownloadAttempt::NotYet(failed(&format!(
            "its response is {status} with an empty body"
        ))),
    })
}

/// What a refused download means: because the order is valid, that the certificate is not there
/// yet.
fn classify_failure(ctx: &OrderCtx<'_>, stop: OrderError) -> Result<DownloadAttempt, OrderError> {
    let OrderError::Failed(failure) = stop else {
        return Err(stop);
    };
    match failure.class {
        FailureClass::RateLimited | FailureClass::Paused => {
            return Err(OrderError::Failed(failure));
        }
        _ => {}
    }
    let failure = Failure {
        class: FailureClass::Network,
        ..failure
    };
    let refusal = ctx.client.refusal();
    Ok(
        match refusal.filter(|refusal| refusal.status.is_client_error()) {
            Some(_) => DownloadAttempt::NotYet(failure),
            None => DownloadAttempt::Fault(failure),
        },
    )
}

/// The certificates in a reply as PEM, in whatever encoding and whatever surrounds them. `None` if
/// there are none.
pub(super) fn certificates(body: &[u8]) -> Option<String> {
    // PEM has no zero octet; UTF-16 puts one beside each character.
    let octets: Vec<u8> = body.iter().copied().filter(|octet| *octet != 0).collect();
    let mut chain = String::new();
    let mut rest = octets.as_slice();
    while let Some((_, begun)) = split(rest, BEGIN) {
        rest = begun;
        let Some((label, body)) = split(begun, DASHES) else {
            break;
        };
        let Some((base64, after)) = split(body, END) else {
            break;
        };
        // A truncated block ends where the next begins.
        if split(base64, BEGIN).is_some() || !matches!(label, b"CERTIFICATE" | b"X509 CERTIFICATE")
        {
            continue;
        }
        push(&mut chain, base64);
        rest = after;
    }
    if chain.is_empty() {
        let leaf = X509::from_der(body).and_then(|leaf| leaf.to_pem()).ok()?;
        return String::from_utf8(leaf).ok();
    }
    Some(chain)
}

fn push(chain: &mut String, base64: &[u8]) {
    let is_of_it =
        |octet: &u8| octet.is_ascii_alphanumeric() || matches!(octet, b'+' | b'/' | b'=');
    let base64: Vec<u8> = base64.iter().copied().filter(is_of_it).collect();
    chain.push_str("-----BEGIN CERTIFICATE-----\n");
    for line in base64.chunks(64) {
        chain.extend(line.iter().map(|octet| char::from(*octet)));
        chain.push('\n');
    }
    chain.push_str("-----END CERTIFICATE-----\n");
}

fn split<'t>(text: &'t [u8], at: &[u8]) -> Option<(&'t [u8], &'t [u8])> {
    let place = memchr::memmem::find(text, at)?;
    Some((text.get(..place)?, text.get(place + at.len()..)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &str = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    const TWO: &str = "-----BEGIN CERTIFICATE-----\nBBBB\n-----END CERTIFICATE-----\n";

    #[test]
    fn certificates_are_taken_out_of_whatever_they_come_in() {
        let both = format!("{ONE}{TWO}");
        let crlf = both.replace('\n', "\r\n");
        let utf16: Vec<u8> = both.encode_utf16().flat_map(u16::to_le_bytes).collect();
        for body in [
            both.as_bytes().to_vec(),
            crlf.trim_end().as_bytes().to_vec(),
            both.replace("\n", "").into_bytes(),
            both.replace("CERTIFICATE", "X509 CERTIFICATE").into_bytes(),
            both.replace("AAAA", " AA\tAA ").into_bytes(),
            format!("\u{feff}subject=CN=a\n{ONE}\nissuer: x\n{TWO}the end").into_bytes(),
            [
                b"Sujet: d\xe9sol\xe9\n",
                ONE.as_bytes(),
                b"\xff\xfe",
                TWO.as_bytes(),
                b"\xe9",
            ]
            .concat(),
            [b"\xff\xfe".as_slice(), &utf16].concat(),
            format!("-----BEGIN CERTIFICATE-----\nCUT\n{both}").into_bytes(),
            format!("-----BEGIN PRIVATE KEY-----\nCC\n-----END PRIVATE KEY-----\n{both}")
                .into_bytes(),
            format!("{both}-----BEGIN CERTIFICATE-----\nCUT").into_bytes(),
        ] {
            let taken = certificates(&body).expect("certificates");
            assert_eq!(taken, both, "{}", String::from_utf8_lossy(&body));
        }
        let long = "A".repeat(100);
        let wrapped = certificates(ONE.replace("AAAA", &long).as_bytes()).expect("one");
        assert!(wrapped.lines().all(|line| line.len() <= 64), "{wrapped}");
    }

    #[test]
    fn where_there_are_none_none_are_taken() {
        for body in [
            "",
            "nonsense",
            "{}",
            "-----BEGIN CERTIFICATE-----",
            "-----BEGIN ",
        ] {
            assert_eq!(certificates(body.as_bytes()), None, "{body}");
        }
    }
}
