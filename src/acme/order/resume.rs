//! The pending order that the storage has of a job: stored before it matters, resumed by the next
//! attempt of any instance, and deleted when it is over.
//!
//! An order that is over and still stored, since the process ended in between, does no harm: its
//! certificate is the one that is stored, or old. How old is told by when the order was made, by
//! our own clock: the CA may have another.

use std::sync::Arc;

use instant_acme::{Order, OrderStatus};
use openssl::pkey::{PKey, Private};
use openssl::x509::{X509, X509Ref};

use crate::acme::error::class::is_missing;
use crate::acme::order::new_order::CreatedOrder;
use crate::acme::order::record::OrderRecord;
use crate::acme::order::{OrderError, OrderJob, can_resume, internal_error};
use crate::certificate::parse::unix_time;
use crate::clock::UnixTime;
use crate::event::{EventKind, Severity};
use crate::schedule::{Failure, FailureClass};
use crate::storage::{StorageError, blocking, damaged, keys};

/// See [`OrderJob::resume`].
pub(in crate::acme) type Resumed = (Order, PKey<Private>, UnixTime);

impl OrderJob<'_> {
    /// The order that an earlier attempt left, where it can be resumed, its key, and when it
    /// was made. `spent` counts one that failed meanwhile.
    pub(in crate::acme) async fn resume_order(
        &self,
        spent: &mut u32,
    ) -> Result<Option<Resumed>, OrderError> {
        let (names, terms) = (&self.request.names, &self.issuer.config.order);
        let place = self.order_key.clone();
        let load = blocking(&self.issuer.shared.storage, move |storage| {
            damaged::read_or_set_aside(storage, &place, OrderRecord::read)
        });
        let record = match load.await {
            Ok(Some(record)) => record,
            Ok(None) => return Ok(None),
            // No other order is made for what may be under way. A job without a storage, since
            // the certificate soon ends does.
            Err(error) if self.request.lease.is_stored() => {
                let message = format!("cannot tell whether an order is pending: {error}");
                return Err(OrderError::Failed(Failure::new(
                    FailureClass::Storage,
                    message,
                )));
            }
            Err(_) => return Ok(None),
        };
        if record.account != self.account.id() {
            self.delete_order().await;
            return Ok(None);
        }
        let shown = self.show_order(CreatedOrder::At(record.url.clone())).await;
        let mut order = match shown {
            Ok(order) => order,
            Err(stop) => {
                let refusal = self.client.refusal();
                let is_gone = refusal.is_some_and(|refusal| is_missing(refusal.status));
                let is_wanted = record.check_resumable(names, terms, self.now()).is_ok();
                if is_wanted && !is_gone && can_resume(&stop) {
                    return Err(stop);
                }
                self.delete_order().await;
                return Ok(None);
            }
        };
        let resumed = match order.state().status {
            OrderStatus::Invalid => {
                // Nobody was there when it failed.
                *spent += 1;
                Err("it is invalid")
            }
            _ => record.check_resumable(names, terms, self.now()),
        };
        match resumed {
            Ok(key) => {
                self.emit_progress(format!("resuming an order at {}", self.ca.host));
                Ok(Some((order, key, record.created)))
            }
            Err(why) => {
                self.emit_progress(format!("abandoned an order at {}: {why}", self.ca.host));
                self.abandon_order(&mut order).await;
                Ok(None)
            }
        }
    }

    /// Stores an order that was made, so that it is not lost with the process, and shows it.
    pub(in crate::acme) async fn store_order(
        &self,
        made: CreatedOrder,
        key: &PKey<Private>,
    ) -> Result<Order, OrderError> {
        let (names, terms) = (&self.request.names, &self.issuer.config.order);
        let account = self.account.id();
        let record = OrderRecord::new(made.url(), account, names, terms, key, self.now());
        let value = record.map_err(|error| internal_error(&error))?.write();
        let (place, lease) = (self.order_key.clone(), Arc::clone(&self.request.lease));
        let stored = blocking(&self.issuer.shared.storage, move |storage| {
            storage.store_under(&lease, &place, &value)
        });
        match stored.await {
            Ok(()) => {}
            Err(error @ StorageError::Lost { .. }) => {
                // Whoever took over makes an order of their own.
                if let Ok(mut order) = self.show_order(made).await {
                    self.abandon_order(&mut order).await;
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
                    self.ca.host
                );
                self.emit_event(EventKind::StorageFailed, Severity::Error, message);
            }
        }
        self.show_order(made).await
    }

    /// Whether the certificate of an order that was made at `created` is not the one that has been
    /// stored already, and is young.
    pub(in crate::acme) async fn is_new_certificate(&self, chain: &str, created: UnixTime) -> bool {
        let Ok(leaf) = X509::from_pem(chain.as_bytes()) else {
            return true;
        };
        if is_old(&leaf, self.now().saturating_sub(created)) {
            return false;
        }
        let Ok(place) = keys::certificate(&self.ca.key, &self.request.subject) else {
            return true;
        };
        let load = blocking(&self.issuer.shared.storage, move |storage| {
            storage.load(&place)
        });
        let stored = load.await.ok().flatten();
        let stored = stored.and_then(|pem| X509::stack_from_pem(&pem).ok()?.into_iter().next());
        stored.is_none_or(|stored| stored != leaf)
    }

    /// Deletes the stored order.
    pub(in crate::acme) async fn delete_order(&self) {
        self.issuer.delete_order(self.order_key.clone()).await;
    }
}

/// Whether a certificate whose order was made `age` seconds ago has lived a third of its life.
fn is_old(leaf: &X509Ref, age: i64) -> bool {
    let (Ok(from), Ok(until)) = (unix_time(leaf.not_before()), unix_time(leaf.not_after())) else {
        return false;
    };
    age > until.saturating_sub(from) / 3
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
        // By the CA's clock, of which nothing is known.
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
