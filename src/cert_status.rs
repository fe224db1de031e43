//! Whether served certificates are revoked, and the OCSP responses that are stapled to them.
//!
//! [`Staples`] says which responder is to be asked when, [`Lists`] the same of revocation lists; both
//! decide and do no I/O. [`ask_responder`] and [`ListQuery`] ask, and believe nothing that is not signed
//! for the issuer of a certificate. Nothing here knows the manager: `engine` runs it all, and has a
//! revoked certificate replaced.

mod alert;
mod crl;
mod ffi;
mod lists;
mod ocsp;
mod query;
mod revocations;
mod staples;
mod store;

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::Uri;

pub(crate) use self::lists::{Applied, ListAnswer, Lists, Searched};
pub(crate) use self::query::{Outcome, ask_responder, fetch_list};
pub(crate) use self::revocations::{RecordWrite, Revocations, SAID_BY_RESPONDER};
pub(crate) use self::staples::{Changes, Staples};
pub(crate) use self::store::{forget_staple, restore_staple, store_staple, sweep};
use crate::certificate::{Source, TlsCertificate};
use crate::config::model::{Config, Issuer, Revocation};
use crate::http_client::{HttpClient, HttpError, Options, Patience};
use crate::issuer::RevocationReason;
use crate::lock::MutexExt as _;

/// A certificate that its CA says is revoked.
pub(crate) struct FoundRevoked {
    pub(crate) certificate: Arc<TlsCertificate>,
    pub(crate) reason: RevocationReason,
    /// Who says so, for people.
    pub(crate) said_by: String,
    /// Whether that was found before a restart.
    pub(crate) is_restored: bool,
}

/// How long a responder or the server of a list may take.
const PATIENCE: Patience = Patience {
    connect: Duration::from_secs(5),
    request: Duration::from_secs(15),
};

/// The same for a whole list, which may be long.
const LIST_PATIENCE: Patience = Patience {
    connect: Duration::from_secs(5),
    request: Duration::from_secs(60),
};

/// The most octets of an OCSP response, and of a list.
const MOST_OF_RESPONSE: usize = 64 * 1024;
const MOST_OF_LIST: usize = 10 * 1024 * 1024;

/// What a configuration says about the status of certificates.
#[derive(Clone, Debug, Default)]
pub(crate) struct StatusTerms {
    pub(crate) revocation: Revocation,
    /// The proxies of issuers.
    proxies: HashMap<Arc<str>, Uri>,
}

impl StatusTerms {
    pub(crate) fn of(config: &Config) -> Self {
        let issuers = config.issuers.iter();
        let proxies = issuers.filter_map(|(name, issuer)| match issuer {
            Issuer::Acme(acme) => Some((Arc::clone(name), acme.proxy.clone()?)),
            Issuer::LocalCa { .. } | Issuer::Own => None,
        });
        Self {
            revocation: config.revocation.clone(),
            proxies: proxies.collect(),
        }
    }

    /// The proxy through which the status of `certificate` is asked for.
    fn proxy(&self, certificate: &TlsCertificate) -> Option<&Uri> {
        let of_issuer = || match certificate.source() {
            Source::Issuer(name) => self.proxies.get(name),
            Source::Directory(_) | Source::File(_) | Source::Program => None,
        };
        self.revocation.proxy.as_ref().or_else(of_issuer)
    }
}

/// The proxy that a client uses, and whether it fetches lists.
type Purpose = (Option<Uri>, bool);

/// The clients of responders and of the servers of lists, one for each proxy.
#[derive(Default)]
pub(crate) struct Clients(Mutex<HashMap<Purpose, Arc<HttpClient>>>);

impl Clients {
    /// The client that asks for the status of `certificate`.
    pub(crate) fn for_staple(
        &self,
        terms: &StatusTerms,
        certificate: &TlsCertificate,
    ) -> Result<Arc<HttpClient>, HttpError> {
        self.get(terms.proxy(certificate).cloned(), false)
    }

    /// The client that fetches the lists of `certificate`.
    pub(crate) fn for_list(
        &self,
        terms: &StatusTerms,
        certificate: &TlsCertificate,
    ) -> Result<Arc<HttpClient>, HttpError> {
        self.get(terms.proxy(certificate).cloned(), true)
    }

    fn get(&self, proxy: Option<Uri>, is_of_lists: bool) -> Result<Arc<HttpClient>, HttpError> {
        let key = (proxy, is_of_lists);
        let mut clients = self.0.lock_unpoisoned();
        if let Some(client) = clients.get(&key) {
            return Ok(Arc::clone(client));
        }
        let (patience, most) = match is_of_lists {
            true => (LIST_PATIENCE, MOST_OF_LIST),
            false => (PATIENCE, MOST_OF_RESPONSE),
        };
        let client = HttpClient::new(Options {
            ca_file: None,
            proxy: key.0.as_ref(),
            allow_plain: true,
            only_plain: true,
            patience,
            max_answer: Some(most),
        });
        let client = Arc::new(client?);
        clients.insert(key, Arc::clone(&client));
        Ok(client)
    }
}

/// The reason of a revocation by its number in RFC 5280, section 5.3.1.
fn reason(code: i64) -> RevocationReason {
    let known = RevocationReason::ALL.into_iter();
    let mut known = known.filter(|one| i64::from(one.code()) == code);
    known.next().unwrap_or_default()
}

/// The first name of a certificate, for messages.
fn domain(certificate: &TlsCertificate) -> String {
    let first = certificate.names().first();
    first.map_or_else(String::new, ToString::to_string)
}

#[cfg(test)]
mod tests;
