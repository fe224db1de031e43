//! Direct responses, which take nothing but a request's head: configured ones and redirects.
//!
//! They are prepared once a head has been read, before Pingora's proxy sees it: the way through
//! that is made for upstreams and several times as long.

use std::net::IpAddr;

use bytes::Bytes;
use http::header::{ACCEPT, EXPECT, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use pingora_core::apps::HttpServerApp;
use pingora_core::protocols::Digest;
use pingora_core::protocols::tls::SslDigest;
use pingora_http::RequestHeader;

use super::authority::{self, Authority, Channel};
use super::header;
use super::request_ctx::RequestCtx;
use super::response::LocalResponse;
use super::route::{Action, Admission};
use super::{Gateway, challenge, path};
use crate::clock::{Clock, SystemClock};
use crate::host::NameBuffer;
use crate::tls::TlsInfo;

/// A request by its head, which has been checked.
pub struct Request<'a> {
    pub method: &'a str,
    /// As it came.
    pub target: &'a [u8],
    /// `Host` or `:authority`, as it came.
    pub authority: &'a [u8],
    /// `HTTP/1.1` or the like.
    pub version: &'static str,
    pub fields: Fields<'a>,
    pub client: Option<IpAddr>,
    /// Of the connection; `None` where it is not TLS.
    pub tls: Option<&'a SslDigest>,
}

/// The fields of a request.
#[derive(Clone, Copy)]
pub enum Fields<'a> {
    Map(&'a HeaderMap),
    /// Lines of HTTP/1 that end in CRLF.
    Lines(&'a [u8]),
}

impl<'a> Fields<'a> {
    /// The first value of a field, empty where there is none.
    pub(crate) fn get(self, name: &HeaderName) -> &'a [u8] {
        match self {
            Self::Map(map) => map.get(name).map_or(b"", HeaderValue::as_bytes),
            Self::Lines(lines) => lines
                .split(|&octet| octet == b'\n')
                .find_map(|line| {
                    let (found, value) = line.split_at_checked(name.as_str().len())?;
                    let value = value.strip_prefix(b":")?;
                    let is = found.eq_ignore_ascii_case(name.as_str().as_bytes());
                    is.then(|| value.trim_ascii())
                })
                .unwrap_or_default(),
        }
    }
}

impl<'a> Request<'a> {
    /// A request that Pingora has read.
    pub(crate) fn of(head: &'a RequestHeader, digest: Option<&'a Digest>) -> Self {
        let client = digest
            .and_then(|digest| digest.socket_digest.as_ref()?.peer_addr()?.as_inet())
            .map(|address| address.ip().to_canonical());
        Self {
            method: head.method.as_str(),
            target: head.raw_path(),
            authority: authority::of(head),
            version: match head.version {
                http::Version::HTTP_10 => "HTTP/1.0",
                http::Version::HTTP_2 => "HTTP/2.0",
                _ => "HTTP/1.1",
            },
            fields: Fields::Map(&head.headers),
            client,
            tls: digest.and_then(|digest| digest.ssl_digest.as_deref()),
        }
    }

    /// A request of HTTP/2 that is nothing but its head; `None` where something in it is to be
    /// looked at closer.
    pub fn http2(head: &'a RequestHeader, digest: Option<&'a Digest>) -> Option<Self> {
        let closer = [&EXPECT, &TRANSFER_ENCODING];
        let is_plain = closer.iter().all(|name| !head.headers.contains_key(*name));
        is_plain.then(|| Self::of(head, digest))
    }

    fn info(&self) -> Option<&'a TlsInfo> {
        self.tls?.extension.get::<TlsInfo>()
    }
}

/// A response that is ready to be sent, and the context of its request.
pub struct Prepared {
    ctx: RequestCtx,
    /// Its own; `None` where it is that of the request's route.
    page: Option<LocalResponse>,
    /// Whether the client asks for the head alone.
    head_alone: bool,
}

impl Prepared {
    fn response(&self) -> Option<&LocalResponse> {
        self.page.as_ref().or_else(|| self.ctx.response())
    }

    pub fn status(&self) -> StatusCode {
        self.response()
            .map_or(StatusCode::INTERNAL_SERVER_ERROR, LocalResponse::code)
    }

    /// The fields of its head, without those of the connection and the time.
    pub fn fields(&self) -> impl Iterator<Item = (HeaderName, HeaderValue)> {
        let own = self.response().into_iter().flat_map(LocalResponse::fields);
        let id = self.ctx.request_id_value().clone();
        own.chain([(header::REQUEST_ID, id)])
    }

    /// What follows the head, `None` where nothing does.
    pub fn body(&self) -> Option<&Bytes> {
        let answer = self.response().filter(|_| !self.head_alone)?;
        answer.body()
    }
}

/// An application that can respond by itself.
pub trait DirectResponder: HttpServerApp {
    /// The answer to a request that has no body and asks for nothing special, where there is one.
    /// It is given back to [`Self::record_sent`] once it is sent.
    ///
    /// `None` where the request has to go through [`HttpServerApp::process_new_http`].
    fn prepare_response(&self, request: &Request<'_>) -> Option<Prepared>;

    /// The answer to a request that is refused before it is one: `why` is a clause that says what
    /// is wrong with it. It is given back to [`Self::record_sent`] too.
    fn prepare_refusal(&self, status: StatusCode, why: &str, request: &Request<'_>) -> Prepared;

    /// An answer has been sent, with so many octets after its head.
    fn record_sent(&self, answer: Prepared, request: &Request<'_>, octets: usize);
}

impl Gateway {
    /// The answer of the route that a request leads to. Whatever is doubtful, refused or told to
    /// go elsewhere is left to [`Gateway::decide`].
    pub(super) fn prepare_response(&self, request: &Request<'_>) -> Option<Prepared> {
        let head_alone = match request.method {
            "GET" => false,
            "HEAD" => true,
            _ => return None,
        };
        let path = path::without_query(request.target);
        if !path.starts_with(b"/") || challenge::is_under(path) {
            return None;
        }
        let mut buffer = NameBuffer::new();
        let authority = Authority::parse(request.authority, &mut buffer)?;
        let info = request.info();
        let channel = match request.tls {
            Some(_) => Channel::Tls(info),
            None => Channel::Plain,
        };
        let first = info.and_then(TlsInfo::attachment);
        let is_first = first.is_some();
        let first = first.and_then(|first| first.downcast().ok());
        let sites = first.unwrap_or_else(|| self.sites.load_full());
        let Admission::Serve(site) = sites.admit_host(authority.host, channel) else {
            return None;
        };
        let index = site.find_route(path).ok()??;
        let Action::Respond(answer) = &site.route(index)?.action else {
            return None;
        };
        if answer.code() == StatusCode::BAD_REQUEST {
            // It ends the connection.
            return None;
        }
        if is_first {
            info.and_then(TlsInfo::take_attachment);
        }
        let mut ctx = RequestCtx::new();
        ctx.client = request.client;
        ctx.site = Some(site.clone());
        ctx.route = Some(index);
        Some(Prepared {
            ctx,
            page: None,
            head_alone,
        })
    }

    /// The page for a request that is refused before it is one.
    pub(super) fn prepare_refusal(
        &self,
        status: StatusCode,
        why: &str,
        request: &Request<'_>,
    ) -> Prepared {
        let mut ctx = RequestCtx::new();
        ctx.client = request.client;
        let mut sentence = why.to_owned();
        if let Some(first) = sentence.get_mut(..1) {
            first.make_ascii_uppercase();
        }
        sentence.push('.');
        let accept = request.fields.get(&ACCEPT);
        let page = LocalResponse::error(status, &sentence, accept, ctx.request_id());
        Prepared {
            ctx,
            page: Some(page),
            head_alone: request.method == "HEAD",
        }
    }

    /// Counts and logs an answer of a route.
    pub(super) fn record_sent(&self, answer: &Prepared, request: &Request<'_>, octets: usize) {
        let status = answer.status().as_u16();
        let ctx = &answer.ctx;
        ctx.count_status(status);
        let access = self.access.load();
        if access.is_on() {
            ctx.log_request(status, octets, request, &access, SystemClock.now());
        }
    }
}

#[cfg(test)]
mod tests {
    use http::header::{REFERER, USER_AGENT};

    use super::*;

    #[test]
    fn fields_are_found_in_lines_as_in_a_map() {
        let lines =
            b"GET /referer: HTTP/1.1\r\nHost: a\r\nUSER-agent:  me \r\nX-Referer: no\r\n\r\n";
        let lines = Fields::Lines(lines);
        assert_eq!(lines.get(&USER_AGENT), b"me");
        assert_eq!(lines.get(&REFERER), b"");
        let map: HeaderMap = [(USER_AGENT, HeaderValue::from_static("me"))]
            .into_iter()
            .collect();
        let map = Fields::Map(&map);
        assert_eq!(map.get(&USER_AGENT), b"me");
        assert_eq!(map.get(&REFERER), b"");
    }
}
