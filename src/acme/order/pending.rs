//! The pending order in the storage: stored before it matters, resumed by the next attempt of any
//! instance, and deleted when it is over.
//!
//! A finished order that is still stored, because the process ended in between, does no harm: its
//! certificate is either the stored one or old. Its age is measured from when the order was
//! created, by our own clock: the CA's may differ.

use std::sync::Arc;

use instant_acme::{AuthorizationStatus, Order, OrderStatus};
use openssl::pkey::{PKey, Private};
use openssl::x509::{X509, X509Ref};

use super::new_order::{CreatedOrder, fetch_created};
use super::record::OrderRecord;
use crate::acme::authorization::refresh_state;
use crate::acme::error::class::is_missing;
use crate::acme::order_ctx::{OrderCtx, OrderError, can_resume, internal_error};
use crate::certificate::parse::unix_time;
use crate::clock::UnixTime;
use crate::event::{EventKind, Severity};
use crate::schedule::{Failure, FailureClass};
use crate::storage::{StorageError, blocking, damaged, keys};

/// An order, its key, and when it was created.
pub(super) type Resumed = (Order, PKey<Private>, UnixTime);

/// The order that an earlier attempt left, if it can be resumed. `spent` is incremented if it has
/// failed in the meantime.
pub(super) async fn resume_order(
    ctx: &OrderCtx<'_>,
    spent: &mut u32,
) -> Result<Option<Resumed>, OrderError> {
    let (names, terms) = (&ctx.request.names, &ctx.issuer.config.order);
    let place = ctx.order_key.clone();
    let load = blocking(&ctx.issuer.shared.storage, move |storage| {
        damaged::read_or_set_aside(storage, &place, OrderRecord::read)
    });
    let record = match load.await {
        Ok(Some(record)) => record,
        Ok(None) => return Ok(None),
        // No second order is created while one may be pending. A job whose lease is not stored is
        // an exception: its certificate expires soon.
        Err(error) if ctx.request.lease.is_stored() => {
            let message = format!("cannot tell whether an order is pending: {error}");
            return Err(OrderError::Failed(Failure::new(
                FailureClass::Storage,
                message,
            )));
        }
        Err(_) => return Ok(None),
    };
    if record.account != ctx.account.id() {
        delete_order(ctx).await;
        return Ok(None);
    }
    let shown = fetch_created(ctx, CreatedOrder::At(record.url.clone())).await;
    let mut order = match shown {
        Ok(order) => order,
        Err(stop) => {
            let refusal = ctx.client.refusal();
            let is_gone = refusal.is_some_and(|refusal| is_missing(refusal.status));
            let is_wanted = record.check_resumable(names, terms, ctx.now()).is_ok();
            if is_wanted && !is_gone && can_resume(&stop) {
                return Err(stop);
            }
            delete_order(ctx).await;
            return Ok(None);
        }
    };
    let resumed = match order.state().status {
        OrderStatus::Invalid => {
            // Nobody was watching when it failed.
            *spent += 1;
            Err("it is invalid")
        }
        _ => record.check_resumable(names, terms, ctx.now()),
    };
    match resumed {
        Ok(key) => {
            ctx.emit_progress(format!("resuming an order at {}", ctx.ca.host));
            Ok(Some((order, key, record.created)))
        }
        Err(why) => {
            ctx.emit_progress(format!("abandoned an order at {}: {why}", ctx.ca.host));
            abandon_order(ctx, &mut order).await;
            Ok(None)
        }
    }
}

/// Stores a new order, so that it survives the process, and fetches it.
pub(super) async fn store_order(
    ctx: &OrderCtx<'_>,
    made: CreatedOrder,
    key: &PKey<Private>,
) -> Result<Order, OrderError> {
    let (names, terms) = (&ctx.request.names, &ctx.issuer.config.order);
    let account = ctx.account.id();
    let record = OrderRecord::new(made.url(), account, names, terms, key, ctx.now());
    let value = record.map_err(|error| internal_error(&error))?.write();
    let (place, lease) = (ctx.order_key.clone(), Arc::clone(&ctx.request.lease));
    let stored = blocking(&ctx.issuer.shared.storage, move |storage| {
        storage.store_under(&lease, &place, &value)
    });
    match stored.await {
        Ok(()) => {}
        Err(error @ StorageError::Lost { .. }) => {
            // The instance that took over creates its own order.
            if let Ok(mut order) = fetch_created(ctx, made).await {
                abandon_order(ctx, &mut order).await;
            }
            let message = format!("abandoned an order: {error}; nothing to do");
            return Err(OrderError::Failed(Failure::new(
                FailureClass::Storage,
                message,
            )));
        }
        Err(error) => {
            let message = format!(
                "an order at {} cannot be stored and will be lost when this process ends: \
                 {error}",
                ctx.ca.host
            );
            ctx.emit_event(EventKind::StorageFailed, Severity::Error, message);
        }
    }
    fetch_created(ctx, made).await
}

/// Returns true if the certificate of an order created at `created` is recent and is not the stored
/// one.
pub(super) async fn is_new_certificate(ctx: &OrderCtx<'_>, chain: &str, created: UnixTime) -> bool {
    let Ok(leaf) = X509::from_pem(chain.as_bytes()) else {
        return true;
    };
    if is_old(&leaf, ctx.now() - created) {
        return false;
    }
    let Ok(place) = keys::certificate(&ctx.ca.key, &ctx.request.subject) else {
        return true;
    };
    let load = blocking(&ctx.issuer.shared.storage, move |storage| {
        storage.load(&place)
    });
    let stored = load.await.ok().flatten();
    let stored = stored.and_then(|pem| X509::stack_from_pem(&pem).ok()?.into_iter().next());
    stored.is_none_or(|stored| stored != leaf)
}

/// Abandons an order: deactivates its pending authorizations as far as possible, because CAs limit
/// their number, and deletes it from the storage.
pub(super) async fn abandon_order(ctx: &OrderCtx<'_>, order: &mut Order) {
    if retry_bad_nonce!(refresh_state(order).await).is_ok() {
        let mut authorizations = order.authorizations();
        while let Some(Ok(mut authorization)) = authorizations.next().await {
            if authorization.status != AuthorizationStatus::Pending {
                continue;
            }
            if let Err(error) = retry_bad_nonce!(authorization.deactivate().await.map(|_| ())) {
                let ca = &ctx.ca.host;
                tracing::warn!(ca, %error, "an authorization stays pending until it expires");
            }
        }
    }
    delete_order(ctx).await;
}

/// Deletes the stored order.
pub(super) async fn delete_order(ctx: &OrderCtx<'_>) {
    ctx.issuer.delete_order(ctx.order_key.clone()).await;
}

/// Returns true if a certificate whose order was created `age` seconds ago has lived a third of its
/// lifetime.
fn is_old(leaf: &X509Ref, age: i64) -> bool {
    let (Ok(from), Ok(until)) = (unix_time(leaf.not_before()), unix_time(leaf.not_after())) else {
        return false;
    };
    age > (until - from) / 3
}

#[cfg(test)]
mod tests {
    use openssl::asn1::Asn1Time;
    use openssl::hash::MessageDigest;

    use super::*;
    use crate::acme::key::generate;
    use crate::config::model::KeyType;

    #[test]
    fn the_age_of_a_kept_order_is_that_by_our_clock() {
        let key = generate(KeyType::P256).expect("a key");
        // By the CA's clock, which is unknown to us.
        for begin in [1_000_000_000_i64, 2_000_000_000] {
            let mut builder = X509::builder().expect("a builder");
            let time = |at| Asn1Time::from_unix(at).expect("a time");
            builder.set_not_before(&time(begin)).expect("set");
            builder.set_not_after(&time(begin + 900)).expect("set");
            builder.set_pubkey(&key).expect("set");
            builder.sign(&key, MessageDigest::sha256()).expect("signed");
            let leaf = builder.build();
            for (age, old) in [(0, false), (300, false), (301, true), (-5, false)] {
                assert_eq!(is_old(&leaf, age), old, "{age}");
            }
        }
    }
}
