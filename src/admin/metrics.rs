//! `GET /metrics`: in the format that the client prefers, compressed if it likes.

use std::io::{self, Write as _};
use std::sync::Arc;

use axum::Extension;
use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use http::{HeaderMap, HeaderName, StatusCode, header};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{AdminState, Problem};
use crate::metrics::Format;

/// How many responses may be in memory at a time. Each has some megabytes, for as long as its client
/// takes to read it, or until that has read nothing for too long.
const MAX_RESPONSES: usize = 8;

/// The room for responses.
#[derive(Clone)]
pub(super) struct Room(Arc<Semaphore>);

impl Default for Room {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(MAX_RESPONSES)))
    }
}

/// A response, and its place.
struct Held {
    octets: Vec<u8>,
    _place: OwnedSemaphorePermit,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.octets
    }
}

pub(super) async fn metrics(
    State(state): State<AdminState>,
    Extension(Room(room)): Extension<Room>,
    fields: HeaderMap,
) -> Result<Response, Problem> {
    let Ok(place) = room.try_acquire_owned() else {
        let why = "as many clients as may are reading metrics: try again later";
        return Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, why));
    };
    let format = choose_format(&fields);
    let is_compressed = accepts_gzip(&fields);
    let metrics = state.metrics;
    let written = tokio::task::spawn_blocking(move || {
        let text = metrics.render(format);
        match is_compressed {
            true => compress(&text),
            false => Ok(text),
        }
    });
    // An error of the first kind is a panic, which is logged.
    let written = written.await.map_err(io::Error::other).flatten();
    let octets = written.map_err(|error| {
        let why = format!("the metrics cannot be written: {error}");
        Problem::new(StatusCode::INTERNAL_SERVER_ERROR, why)
    })?;
    let held = Held {
        octets,
        _place: place,
    };
    let kind = (header::CONTENT_TYPE, format.content_type());
    let vary = (header::VARY, "Accept, Accept-Encoding");
    let body = Body::from(Bytes::from_owner(held));
    let coding = (header::CONTENT_ENCODING, "gzip");
    Ok(match is_compressed {
        true => ([kind, vary, coding], body).into_response(),
        false => ([kind, vary], body).into_response(),
    })
}

fn compress(text: &[u8]) -> io::Result<Vec<u8>> {
    let room = Vec::with_capacity(text.len() / 8);
    let mut encoder = GzEncoder::new(room, Compression::fast());
    encoder.write_all(text)?;
    encoder.finish()
}

/// OpenMetrics for a client that accepts version 1.0.0 of it at least as readily as plain text.
fn choose_format(fields: &HeaderMap) -> Format {
    let (mut open, mut text) = (0.0_f32, 0.0_f32);
    for member in members(fields, &header::ACCEPT) {
        let (name, parameters) = split(member);
        let version = parameters.clone().find_map(|(name, value)| {
            let is_version = name.eq_ignore_ascii_case("version");
            is_version.then_some(value)
        });
        let weight = weight(parameters);
        let is = |other: &str| name.eq_ignore_ascii_case(other);
        if is("application/openmetrics-text") && version.is_none_or(|one| one == "1.0.0") {
            open = open.max(weight);
        } else if is("text/plain") {
            text = text.max(weight);
        }
    }
    match open > 0.0 && open >= text {
        true => Format::OpenMetrics,
        false => Format::Text,
    }
}

fn accepts_gzip(fields: &HeaderMap) -> bool {
    members(fields, &header::ACCEPT_ENCODING).any(|member| {
        let (name, parameters) = split(member);
        name.eq_ignore_ascii_case("gzip") && weight(parameters) > 0.0
    })
}

/// The members of a list; nothing of a value that is no text.
fn members<'a>(fields: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    let values = fields.get_all(name).into_iter();
    let texts = values.filter_map(|value| value.to_str().ok());
    texts.flat_map(|text| text.split(','))
}

/// A member's name and parameters.
fn split(member: &str) -> (&str, impl Iterator<Item = (&str, &str)> + Clone) {
    let mut parts = member.split(';').map(str::trim);
    let name = parts.next().unwrap_or_default();
    let parameters = parts.filter_map(|part| part.split_once('='));
    (
        name,
        parameters.map(|(name, value)| (name.trim(), value.trim().trim_matches('"'))),
    )
}

/// The weight among parameters (RFC 9110, section 12.4.2); none for one that is not valid.
fn weight<'a>(mut parameters: impl Iterator<Item = (&'a str, &'a str)>) -> f32 {
    let weight = parameters.find(|(name, _)| name.eq_ignore_ascii_case("q"));
    weight.map_or(1.0, |(_, value)| value.parse().unwrap_or(0.0))
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use flate2::read::GzDecoder;
    use http::HeaderValue;

    use super::*;

    #[test]
    fn a_client_gets_the_format_that_it_prefers() {
        for (accept, expected) in [
            ("", Format::Text),
            ("*/*", Format::Text),
            ("text/plain", Format::Text),
            ("application/openmetrics-text", Format::OpenMetrics),
            (
                "application/openmetrics-text;version=1.0.0,application/openmetrics-text;\
                 version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
                Format::OpenMetrics,
            ),
            (
                "application/openmetrics-text; version=\"1.0.0\"; q=0.6, text/plain;q=0.4",
                Format::OpenMetrics,
            ),
            (
                "application/openmetrics-text;version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5",
                Format::Text,
            ),
            (
                "application/openmetrics-text;q=0.1,text/plain",
                Format::Text,
            ),
            ("application/openmetrics-text;q=0", Format::Text),
            ("application/openmetrics-text;q=x", Format::Text),
        ] {
            let mut fields = HeaderMap::new();
            fields.insert(header::ACCEPT, HeaderValue::from_static(accept));
            assert_eq!(choose_format(&fields), expected, "{accept}");
        }
        assert_eq!(choose_format(&HeaderMap::new()), Format::Text);
    }

    #[test]
    fn a_response_has_its_place_until_it_is_sent() {
        let Room(room) = Room::default();
        let mut bodies: Vec<_> = (0..MAX_RESPONSES)
            .map(|_| {
                Bytes::from_owner(Held {
                    octets: b"text".to_vec(),
                    _place: Arc::clone(&room).try_acquire_owned().expect("room"),
                })
            })
            .collect();
        let rest = bodies[0].split_off(2);
        assert!(Arc::clone(&room).try_acquire_owned().is_err());
        bodies.remove(0);
        assert!(Arc::clone(&room).try_acquire_owned().is_err());
        drop(rest);
        assert!(room.try_acquire_owned().is_ok());
    }

    #[test]
    fn a_client_that_likes_it_gets_gzip() {
        for (accept, expected) in [
            ("gzip", true),
            ("br, GZIP;q=0.5", true),
            ("gzip;q=0", false),
            ("identity", false),
            ("", false),
        ] {
            let mut fields = HeaderMap::new();
            fields.insert(header::ACCEPT_ENCODING, HeaderValue::from_static(accept));
            assert_eq!(accepts_gzip(&fields), expected, "{accept}");
        }
        let text = "snigate_connections 1\n".repeat(100);
        let compressed = compress(text.as_bytes()).expect("compressed");
        let mut read = String::new();
        let mut decoder = GzDecoder::new(&compressed[..]);
        decoder.read_to_string(&mut read).expect("gzip");
        assert_eq!(read, text);
    }
}
