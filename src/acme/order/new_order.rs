//! What an order asks for (RFC 8555, section 7.4): identifiers, and what the terms add to them.

use std::sync::atomic::Ordering;
use std::time::Duration;

use instant_acme::{CertificateIdentifier, Error, Identifier, NewOrder, Order};
use openssl::x509::X509;
use serde_json::{Value, json};

use crate::acme::error::Step;
use crate::acme::error::class::is_unexplained;
use crate::acme::jws;
use crate::acme::order::retry::retry_transient;
use crate::acme::order::{OrderError, OrderJob};
use crate::acme::rate_limit::limited_failure;
use crate::certificate::parse::unix_time;
use crate::clock::{UnixTime, rfc3339};
use crate::host::Pattern;
use crate::schedule::{Failure, FailureClass, Intent};

/// An order that a CA has made.
pub(in crate::acme) enum CreatedOrder {
    Order(Box<Order>),
    /// It is at this URL. What came with it is no order that can be read.
    At(String),
}

impl CreatedOrder {
    pub(in crate::acme) fn url(&self) -> &str {
        match self {
            Self::Order(order) => order.url(),
            Self::At(url) => url,
        }
    }
}

impl OrderJob<'_> {
    /// Makes an order at the CA, and says which certificate it takes the place of where the CA
    /// wants to know (RFC 9773, section 5). Where it refuses that, for whatever reason, it is asked
    /// once more without.
    pub(in crate::acme) async fn place_order(
        &self,
        profile: Option<&str>,
    ) -> Result<CreatedOrder, OrderError> {
        let replaced = self.replaced();
        self.replaces.store(replaced.is_some(), Ordering::Relaxed);
        let mut made = self.ask_for_order(profile, replaced).await;
        if let Err(error) = &made
            && self.replaced().is_some()
            && self.may_be_for_replacing()
        {
            let host = &self.ca.host;
            self.replaces.store(false, Ordering::Relaxed);
            // What was let through as the renewal that it was may be held as a new order.
            let (limits, config) = (&self.issuer.shared.limits, &self.issuer.config);
            if let Some(wait) =
                limits.current_wait(self.ca, config, &Intent::new(&self.request.names))
            {
                return Err(OrderError::Held(limited_failure(host, wait)));
            }
            let why = self.client.refusal().and_then(|refusal| refusal.problem);
            let why = why.map_or_else(|| error.to_string(), |problem| problem.to_string());
            self.emit_progress(format!(
                "{host} refuses an order that replaces the current certificate ({why}): ordering \
                 without 'replaces'"
            ));
            made = self.ask_for_order(profile, None).await;
        }
        made.map_err(|error| {
            if let Some(answer) = self.client.accepted_order() {
                return OrderError::Failed(lost_order_failure(&self.ca.host, &answer));
            }
            let refusal = self.client.refusal();
            let is_unexplained = refusal.is_some_and(|one| is_unexplained(&one));
            let has_lifetime = self.issuer.config.order.lifetime.is_some();
            match self.to_error(Step::Order, &error) {
                OrderError::Failed(failure) if has_lifetime && is_unexplained => {
                    OrderError::Failed(with_lifetime(failure))
                }
                stop => stop,
            }
        })
    }

    /// The order that has been made, as the CA shows it.
    ///
    /// # Errors
    /// Where it does not.
    pub(in crate::acme) async fn show_order(
        &self,
        made: CreatedOrder,
    ) -> Result<Order, OrderError> {
        match made {
            CreatedOrder::Order(order) => Ok(*order),
            CreatedOrder::At(url) => {
                let order =
                    retry_transient!(self, Step::Poll, self.account.order(url.clone()).await);
                order.map_err(|error| self.to_error(Step::Poll, &error))
            }
        }
    }

    async fn ask_for_order(
        &self,
        profile: Option<&str>,
        replaced: Option<CertificateIdentifier<'_>>,
    ) -> Result<CreatedOrder, Error> {
        if let Some(lifetime) = self.issuer.config.order.lifetime {
            let end = self.end(lifetime);
            return self.ask_for_order_until(end, profile, replaced).await;
        }
        let names = self.request.names.iter();
        let identifiers: Vec<Identifier> = names.map(identifier).collect();
        let made = retry_transient!(self, Step::Order, {
            let mut new = NewOrder::new(&identifiers);
            if let Some(profile) = profile {
                new = new.profile(profile);
            }
            if let Some(replaced) = &replaced {
                new = new.replaces(replaced.clone());
            }
            self.account.new_order(&new).await
        });
        match made {
            Ok(order) => Ok(CreatedOrder::Order(Box::new(order))),
            // It took the order: what cannot be read of it, or that it does not say what it
            // replaces, is no reason for another.
            Err(error) => self.client.location().map(CreatedOrder::At).ok_or(error),
        }
    }

    /// Makes an order of a certificate that is valid until then, of which instant-acme knows
    /// nothing. It is valid from when the CA likes: our clock may be ahead of the CA's, which then
    /// refuses a beginning.
    async fn ask_for_order_until(
        &self,
        end: UnixTime,
        profile: Option<&str>,
        replaced: Option<CertificateIdentifier<'_>>,
    ) -> Result<CreatedOrder, Error> {
        let identifiers: Vec<Value> = self.request.names.iter().map(identifier_json).collect();
        let mut new = json!({ "identifiers": identifiers, "notAfter": rfc3339(end) });
        if let Some(members) = new.as_object_mut() {
            if let Some(profile) = profile {
                members.insert("profile".to_owned(), json!(profile));
            }
            if let Some(replaced) = replaced {
                members.insert("replaces".to_owned(), json!(replaced));
            }
        }
        let signer = self.stored_account.signer()?;
        let url = &self.client.directory().new_order;
        retry_transient!(
            self,
            Step::Order,
            jws::post_jws(self.client, &signer, url, Some(&new)).await
        )?;
        let place = self.client.location();
        place
            .map(CreatedOrder::At)
            .ok_or(Error::Str("the URL of the order"))
    }

    fn end(&self, lifetime: Duration) -> UnixTime {
        let seconds = i64::try_from(lifetime.as_secs()).unwrap_or(i64::MAX);
        self.now().saturating_add(seconds)
    }

    /// Tells where a CA took no notice of the lifetime that it was asked for.
    pub(in crate::acme) fn note_lifetime(&self, chain: &str) {
        let Some(lifetime) = self.issuer.config.order.lifetime else {
            return;
        };
        let given = X509::from_pem(chain.as_bytes()).ok().and_then(|leaf| {
            let (from, until) = (unix_time(leaf.not_before()), unix_time(leaf.not_after()));
            u64::try_from(until.ok()?.saturating_sub(from.ok()?)).ok()
        });
        let asked = lifetime.as_secs();
        // CAs let certificates begin an hour or so before they are made.
        let most = asked.saturating_add(asked / 10).saturating_add(2 * 3600);
        if let Some(given) = given.filter(|given| *given > most) {
            self.emit_caution(format!(
                "{} issued a certificate for {}, although the issuer's 'lifetime' asks for {}",
                self.ca.host,
                duration_text(given),
                duration_text(asked),
            ));
        }
    }

    /// The configured profile, where the CA has it (draft-ietf-acme-profiles, section 3).
    ///
    /// # Errors
    /// Where it is required and the CA does not have it.
    pub(in crate::acme) fn profile(&self) -> Result<Option<&str>, OrderError> {
        let Some(profile) = &self.issuer.config.order.profile else {
            return Ok(None);
        };
        let profiles = &self.client.directory().meta.profiles;
        let (host, name) = (&self.ca.host, profile.name.as_str());
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
        self.emit_caution(format!("{host} has no profile {name:?}: using its default"));
        Ok(None)
    }

    /// Tells that a certificate will be other than the terms say, and good all the same.
    pub(in crate::acme) fn emit_caution(&self, message: String) {
        tracing::warn!(domain = %self.request.domain(), "{message}");
        self.emit_progress(message);
    }
}

/// A name as a CA knows it (RFC 8555, section 9.7.7; RFC 8738, section 3).
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

/// The failure where a CA has made an order and does not say where it is. Nothing finds it again:
/// neither the list of an account's orders (RFC 8555, section 7.1.2.1), which public CAs do not
/// have, nor another order, which would be a second one. So it is not tried again soon.
fn lost_order_failure(host: &str, answer: &str) -> Failure {
    let message = format!(
        "{host} created an order but did not say where: its response has no Location header with a \
         URL (RFC 8555, section 7.4), so the order is lost; the fault is the CA's, or that of a \
         proxy in between: report it there, or choose another CA (the response is {answer})"
    );
    Failure::new(FailureClass::Internal, message)
}

/// A failure of an order with a lifetime, which the CA does not explain. ACME has no type for a CA
/// that does not let it be chosen (RFC 8555, section 7.4), so that most call the order malformed.
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
