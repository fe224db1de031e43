//! The fields that the gateway writes into every final response, whoever responds.

use std::sync::Arc;

use http::header::{HeaderName, STRICT_TRANSPORT_SECURITY};
use http::{HeaderValue, StatusCode};
use pingora_core::Result;
use pingora_http::ResponseHeader;

use super::granted::Granted;
use super::header::REQUEST_ID;
use super::rewriting::{FieldChanges, KeptFieldChanges};

/// What the gateway changes in the fields of a response.
#[derive(Clone, Copy)]
pub(crate) struct ResponseFields<'a> {
    /// The id of the request.
    pub(crate) request_id: &'a HeaderValue,
    /// What the route changes.
    pub(crate) changes: FieldChanges<'a>,
    /// `Strict-Transport-Security`, if the site has it and the client speaks TLS.
    pub(crate) hsts: Option<&'a HeaderValue>,
    /// The cookie that keeps the client at its server, if it needs one.
    pub(crate) cookie: Option<&'a HeaderValue>,
    /// What an authentication service says of the request, with cookies for the client.
    pub(crate) granted: Option<&'a Arc<Granted>>,
    /// `RateLimit-Policy` and `RateLimit`, if the response is to have them.
    pub(crate) rate: Option<&'a [HeaderValue; 2]>,
}

/// The same, for as long as it is of use.
pub(crate) struct KeptResponseFields {
    request_id: HeaderValue,
    changes: KeptFieldChanges,
    hsts: Option<HeaderValue>,
    cookie: Option<HeaderValue>,
    granted: Option<Arc<Granted>>,
    rate: Option<[HeaderValue; 2]>,
}

impl KeptResponseFields {
    pub(crate) fn as_fields(&self) -> ResponseFields<'_> {
        ResponseFields {
            request_id: &self.request_id,
            changes: self.changes.as_changes(),
            hsts: self.hsts.as_ref(),
            cookie: self.cookie.as_ref(),
            granted: self.granted.as_ref(),
            rate: self.rate.as_ref(),
        }
    }
}

impl<'a> ResponseFields<'a> {
    /// The request's id alone.
    pub(crate) fn of_request(request_id: &'a HeaderValue) -> Self {
        Self {
            request_id,
            changes: FieldChanges::default(),
            hsts: None,
            cookie: None,
            granted: None,
            rate: None,
        }
    }

    /// These fields, whatever becomes of the request's context.
    pub(crate) fn keep(self) -> KeptResponseFields {
        KeptResponseFields {
            request_id: self.request_id.clone(),
            changes: self.changes.keep(),
            hsts: self.hsts.cloned(),
            cookie: self.cookie.cloned(),
            granted: self.granted.cloned(),
            rate: self.rate.cloned(),
        }
    }

    /// Whether a field of the response is dropped.
    pub(crate) fn drops(self, name: &[u8]) -> bool {
        let is = |other: &HeaderName| name.eq_ignore_ascii_case(other.as_str().as_bytes());
        self.hsts.is_some() && is(&STRICT_TRANSPORT_SECURITY)
            || is(&REQUEST_ID)
            || self.changes.drops(name)
    }

    /// The fields that are written, apart from the id of the request.
    pub(crate) fn written(self) -> impl Iterator<Item = (&'a str, &'a HeaderValue)> {
        let hsts = self.hsts.map(|value| ("Strict-Transport-Security", value));
        let cookie = self.cookie.map(|value| ("Set-Cookie", value));
        let granted = self.granted.into_iter();
        let granted = granted.flat_map(|granted| &granted.cookies);
        let granted = granted.map(|value| ("Set-Cookie", value));
        let names = ["RateLimit-Policy", "RateLimit"];
        let rate = self
            .rate
            .into_iter()
            .flat_map(move |rate| names.into_iter().zip(rate));
        self.changes
            .written()
            .chain(hsts)
            .chain(cookie)
            .chain(granted)
            .chain(rate)
    }

    /// Changes the fields of a server's response, unless it is an interim one.
    pub(crate) fn edit_response(self, response: &mut ResponseHeader) -> Result<()> {
        let status = response.status;
        if status.is_informational() && status != StatusCode::SWITCHING_PROTOCOLS {
            return Ok(());
        }
        if self.hsts.is_some() {
            response.remove_header(&STRICT_TRANSPORT_SECURITY);
        }
        for name in self.changes.dropped() {
            response.remove_header(name);
        }
        for (name, value) in self.written() {
            response.append_header(name.to_owned(), value)?;
        }
        response.insert_header(REQUEST_ID, self.request_id)
    }
}
