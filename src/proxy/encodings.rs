//! The configured body of a route's response in several content codings, which are made once, when
//! the configuration is loaded.

use bytes::Bytes;
use http::StatusCode;

use super::accept_encoding::{choose_coding, forbids_changes};
use super::encoder::encode_whole;
use super::request::Request;
use crate::config::model::{Action, Coding, Part, Route, Template};

/// A body in content codings. Never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Encodings {
    /// The preferred one first.
    codings: Vec<Coding>,
    /// In the order of `codings`.
    bodies: Vec<Bytes>,
}

impl Encodings {
    /// Those of the configured body of a route; `None` if it is sent as it is.
    pub(crate) fn of(route: &Route) -> Option<Self> {
        let compression = route.compression.as_deref()?;
        let Action::Respond {
            status,
            body,
            content_type,
        } = &route.action
        else {
            return None;
        };
        let is_small = body.is_empty() || (body.len() as u64) < compression.min_size;
        if is_small
            || *status == StatusCode::PARTIAL_CONTENT
            || !compression.covers(content_type.as_bytes())
            || is_final(route)
        {
            return None;
        }
        let encode = |&coding: &Coding| {
            let encoded = encode_whole(coding, compression.level, body).ok()?;
            (encoded.len() < body.len()).then_some((coding, encoded))
        };
        let (codings, bodies): (Vec<_>, Vec<_>) =
            compression.codings.iter().filter_map(encode).unzip();
        (!codings.is_empty()).then_some(Self { codings, bodies })
    }

    /// The one that the client of a request gets; `None` if it gets the body as it is.
    pub(crate) fn choose(&self, request: &Request<'_>) -> Option<(Coding, &Bytes)> {
        if request.version == "HTTP/1.0" || forbids_changes(request.fields) {
            return None;
        }
        let chosen = choose_coding(request.fields, &self.codings).coding?;
        let mut all = self.codings.iter().copied().zip(&self.bodies);
        all.find(|(coding, _)| *coding == chosen)
    }
}

/// Whether the fields that a route adds say that its body is encoded already, or not to be changed.
fn is_final(route: &Route) -> bool {
    let says_no_transform = |value: &Template| {
        let mut parts = value.parts().iter();
        parts.any(|part| match part {
            Part::Text(text) => text.to_ascii_lowercase().contains("no-transform"),
            Part::Placeholder(_) | Part::Claim(_) | Part::Group { .. } => false,
        })
    };
    let rewriting = route.rewriting.as_deref();
    let edits = rewriting.map(|rewriting| &rewriting.response_headers);
    edits.is_some_and(|edits| {
        let mut written = edits.set.iter().chain(&edits.add);
        written.any(|(name, value)| {
            let is = |other: &str| name.eq_ignore_ascii_case(other);
            is("content-encoding")
                || is("content-range")
                || (is("cache-control") && says_no_transform(value))
        })
    })
}
