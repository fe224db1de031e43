//! What an order asks for (RFC 8555, section 7.4): identifiers, and what the terms add to them.

use std::sync::atomic::Ordering;
use std::time::Duration;

use http::StatusCode;
use instant_acme::{CertificateIdentifier, Error, Identifier, NewOrder, Order};
use openssl::x509::X509;
use serde_json::{Value, json};

use crate::acme::error::Step;
use crate::acme::error::class::is_unexplained;
use crate::acme::jws;
use crate::acme::order_ctx::{OrderCtx, OrderError};
use crate::acme::rate_limit::limited_failure;
use crate::acme::retry::retry_transient;
use crate::certificate::parse::unix_time;
use crate::clock::UnixTime;
use crate::host::Pattern;
use crate::schedule::{Failure, FailureClass, Intent};

/// An order that a CA has created.
pub(super) enum CreatedOrder {
    Order(Box<Order>),
    /// The order is at this URL. The reply itself could not be read as an order.
    At(String),
}

impl CreatedOrder {
    pub(super) fn url(&self) -> &str {
        match self {
            Self::Order(order) => order.url(),
            Self::At(url) => url,
        }
    }
}

/// Creates an order at the CA, naming the certificate that it replaces if the CA wants to know (RFC
/// 9773, section 5). If the CA refuses, for whatever reason, it is asked once more without that.
pub(super) async fn place_order(
    ctx: &OrderCtx<'_>,
    profile: Option<&str>,
) -> Result<CreatedOrder, OrderError> {
    let replaced = replaced(ctx);
    let is_replacing = replaced.is_some();
    ctx.replaces.store(is_replacing, Ordering::Relaxed);
    let mut made = request_order(ctx, profile, replaced).await;
    if let Err(error) = &made
        && is_replacing
        && may_be_for_replacing(ctx)
    {
        let host = &ctx.ca.host;
        ctx.replaces.store(false, Ordering::Relaxed);
        // What passed the limits as a renewal may be held as a new order.
        let (limits, config) = (&ctx.issuer.shared.limits, &ctx.issuer.config);
        if let Some(wait) = limits.current_wait(ctx.ca, config, &Intent::new(&ctx.request.names)) {
            return Err(OrderError::Held(limited_failure(host, wait)));
        }
        let why = ctx.client.refusal().and_then(|refusal| refusal.problem);
        let why = why.map_or_else(|| error.to_string(), |problem| problem.to_string());
        ctx.emit_progress(format!(
            "{host} refuses an order that replaces the current certificate ({why}): ordering \
             without 'replaces'"
        ));
        made = request_order(ctx, profile, None).await;
    }
    made.map_err(|error| {
        if let Some(answer) = ctx.client.accepted_order() {
            return OrderError::Failed(lost_order_failure(&ctx.ca.host, &answer));
        }
        let refusal = ctx.client.refusal();
        let is_unexplained = refusal.is_some_and(|one| is_unexplained(&one));
        let has_lifetime = ctx.issuer.config.order.lifetime.is_some();
        match ctx.to_error(Step::Order, &error) {
            OrderError::Failed(failure) if has_lifetime && is_unexplained => {
                OrderError::Failed(with_lifetime(failure))
            }
            stop => stop,
        }
    })
}

/// Fetches the order that was created.
///
/// # Errors
/// If the CA does not return it.
pub(super) async fn fetch_created(
    ctx: &OrderCtx<'_>,
    made: CreatedOrder,
) -> Result<Order, OrderError> {
    match made {
        CreatedOrder::Order(order) => Ok(*order),
        CreatedOrder::At(url) => {
            let order = retry_transient!(ctx, Step::Poll, ctx.account.order(url.clone()).await);
            order.map_err(|error| ctx.to_error(Step::Poll, &error))
        }
    }
}

async fn request_order(
    ctx: &OrderCtx<'_>,
    profile: Option<&str>,
    replaced: Option<CertificateIdentifier<'_>>,
) -> Result<CreatedOrder, Error> {
    if let Some(lifetime) = ctx.issuer.config.order.lifetime {
        let end = end_after(ctx, lifetime);
        return request_order_until(ctx, end, profile, replaced).await;
    }
    let names = ctx.request.names.iter();
    let identifiers: Vec<Identifier> = names.map(identifier).collect();
    let made = retry_transient!(ctx, Step::Order, {
        let mut new = NewOrder::new(&identifiers);
        if let Some(profile) = profile {
            new = new.profile(profile);
        }
        if let Some(replaced) = &replaced {
            new = new.replaces(replaced.clone());
        }
        ctx.account.new_order(&new).await
    });
    match made {
        Ok(order) => Ok(CreatedOrder::Order(Box::new(order))),
        // The CA created the order: an unreadable reply, or one without `replaces`, is no reason to
        // create another.
        Err(error) => ctx.client.location().map(CreatedOrder::At).ok_or(error),
    }
}

/// Creates an order with a `notAfter`, which instant-acme does not support. It has no `notBefore`:
/// our clock may be ahead of the CA's, which would refuse it.
async fn request_order_until(
    ctx: &OrderCtx<'_>,
    end: UnixTime,
    profile: Option<&str>,
    replaced: Option<CertificateIdentifier<'_>>,
) -> Result<CreatedOrder, Error> {
    let identifiers: Vec<Value> = ctx.request.names.iter().map(identifier_json).collect();
    let mut new = json!({ "identifiers": identifiers, "notAfter": end.to_string() });
    if let Some(members) = new.as_object_mut() {
        if let Some(profile) = profile {
            members.insert("profile".to_owned(), json!(profile));
        }
        if let Some(replaced) = replaced {
            members.insert("replaces".to_owned(), json!(replaced));
        }
    }
    let signer = ctx.stored_account.signer()?;
    let url = &ctx.client.directory().new_order;
    retry_transient!(
        ctx,
        Step::Order,
        jws::post_jws(ctx.client, &signer, url, Some(&new)).await
    )?;
    let place = ctx.client.location();
    place
        .map(CreatedOrder::At)
        .ok_or(Error::Str("the URL of the order"))
}

fn end_after(ctx: &OrderCtx<'_>, lifetime: Duration) -> UnixTime {
    ctx.now() + lifetime
}

/// Warns if a CA has ignored the requested lifetime.
pub(super) fn warn_lifetime(ctx: &OrderCtx<'_>, chain: &str) {
    let Some(lifetime) = ctx.issuer.config.order.lifetime else {
        return;
    };
    let given = X509::from_pem(chain.as_bytes()).ok().and_then(|leaf| {
        let (from, until) = (unix_time(leaf.not_before()), unix_time(leaf.not_after()));
        Some(until.ok()?.since(from.ok()?).as_secs())
    });
    let asked = lifetime.as_secs();
    // CAs backdate certificates by an hour or so.
    let most = asked.saturating_add(asked / 10).saturating_add(2 * 3600);
    if let Some(given) = given.filter(|given| *given > most) {
        ctx.emit_caution(format!(
            "{} issued a certificate for {}, although the issuer's 'lifetime' asks for {}",
            ctx.ca.host,
            duration_text(given),
            duration_text(asked),
        ));
    }
}

/// The current certificate, as the CA identifies it. A staging environment does not know it.
pub(super) fn replaced<'o>(ctx: &'o OrderCtx<'_>) -> Option<CertificateIdentifier<'o>> {
    let directory = ctx.client.directory();
    if ctx.is_rehearsal() || directory.renewal_info.is_none() {
        return None;
    }
    let (authority, serial) = ctx.request.replaces.as_deref()?.split_once('.')?;
    Some(CertificateIdentifier {
        authority_key_identifier: authority.into(),
        serial: serial.into(),
    })
}

/// Returns true if `replaces` may be the reason for a refusal: not if a limit or an unknown account
/// is.
pub(super) fn may_be_for_replacing(ctx: &OrderCtx<'_>) -> bool {
    let Some(refusal) = ctx.client.refusal() else {
        return false;
    };
    let other = ["rateLimited", "accountDoesNotExist"];
    refusal.status != StatusCode::TOO_MANY_REQUESTS && !other.contains(&refusal.kind())
}

/// The configured profile, if the CA has it (draft-ietf-acme-profiles, section 3).
///
/// # Errors
/// If it is required and the CA does not have it.
pub(super) fn select_profile<'o>(ctx: &'o OrderCtx<'_>) -> Result<Option<&'o str>, OrderError> {
    let Some(profile) = &ctx.issuer.config.order.profile else {
        return Ok(None);
    };
    let profiles = &ctx.client.directory().meta.profiles;
    let (host, name) = (&ctx.ca.host, profile.name.as_str());
    if profiles.iter().any(|known| known == name) {
        return Ok(Some(name));
    }
    if profile.required {
        let known = match profiles.is_empty() {
            true => "it has none".to_owned(),
            false => format!("it has {}", profiles.join(", ")),
        };
        let message = format!(
            "{host} has no profile {name:?}, which the issuer's 'profile' requires: {known}; \
             choose another, or remove 'required'"
        );
        let failure = Failure::new(FailureClass::Configuration, message);
        return Err(OrderError::Failed(failure));
    }
    ctx.emit_caution(format!("{host} has no profile {name:?}: using its default"));
    Ok(None)
}

/// A name as ACME writes it (RFC 8555, section 9.7.7; RFC 8738, section 3).
fn identifier(name: &Pattern) -> Identifier {
    match name {
        Pattern::Ip(address) => Identifier::Ip(*address),
        name => Identifier::Dns(name.to_string()),
    }
}

fn identifier_json(name: &Pattern) -> Value {
    let kind = match name {
        Pattern::Ip(_) => "ip",
        Pattern::Any | Pattern::Exact(_) | Pattern::Wildcard(_) => "dns",
    };
    json!({ "type": kind, "value": name.to_string() })
}

/// The failure if a CA has created an order without saying where it is. Nothing finds it again:
/// public CAs do not list an account's orders (RFC 8555, section 7.1.2.1), and another order would
/// be a second one. So it is not retried soon.
fn lost_order_failure(host: &str, answer: &str) -> Failure {
    let message = format!(
        "{host} created an order but did not say where: its response has no Location header with a \
         URL (RFC 8555, section 7.4), so the order is lost; the fault is the CA's, or that of a \
         proxy in between: report it there, or choose another CA (the response is {answer})"
    );
    Failure::new(FailureClass::Internal, message)
}

/// The failure of an order with a lifetime that the CA did not explain. ACME has no type for a CA
/// that does not allow a choice (RFC 8555, section 7.4), so most call the order malformed.
fn with_lifetime(failure: Failure) -> Failure {
    let said = failure.message.rsplit_once("; ");
    let said = said.map_or(&*failure.message, |(said, _)| said);
    let message = format!(
        "{said}; the order uses the issuer's 'lifetime': remove it if the CA does not allow a \
         choice"
    );
    Failure { message, ..failure }
}

/// Seconds for people.
fn duration_text(seconds: u64) -> String {
    match (seconds + 1) / 86_400 {
        0 => format!("{} hours", (seconds + 1) / 3600),
        days => format!("{days} days"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_that_may_be_refused_for_its_lifetime_says_so() {
        let message = "ca.test refused the order: malformed: no; choose another CA";
        let failure = with_lifetime(Failure::new(FailureClass::Configuration, message));
        assert_eq!(failure.class, FailureClass::Configuration);
        assert!(failure.message.contains("malformed: no; the order uses"));
        assert!(!failure.message.contains("another CA"), "{failure}");
    }

    #[test]
    fn identifiers_have_their_type() {
        for (name, kind) in [
            ("a.example", "dns"),
            ("*.a.example", "dns"),
            ("192.0.2.7", "ip"),
            ("2001:db8::1", "ip"),
        ] {
            let name: Pattern = name.parse().expect("a name");
            let ours = identifier_json(&name);
            assert_eq!(ours["type"], kind);
            let theirs = serde_json::to_value(identifier(&name)).expect("JSON");
            assert_eq!(ours, theirs);
        }
    }

    #[test]
    fn times_are_told_in_days() {
        assert_eq!(duration_text(7 * 86_400 - 1), "7 days");
        assert_eq!(duration_text(6 * 3600), "6 hours");
    }
}
