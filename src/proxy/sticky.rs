//! Cookies that keep clients at their servers.
//!
//! The value of a cookie is a code of the upstream's name and the server's address under a key that
//! all gateways of a storage share. So it says nothing of the server, nobody can make one up, and
//! one of another upstream or of a server that is gone counts as none.

mod key;

use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;
use openssl::memcmp;

pub use self::key::StickyKey;

use super::endpoint::Endpoint;
use super::request::Request;
use super::server::Server;
use crate::config::model;

/// How many cookies of its name a request may have that are looked at.
const MOST: usize = 4;

/// How an upstream keeps clients at its servers.
pub(super) struct Sticky {
    cookie: Box<str>,
    max_age: Option<Duration>,
    /// The upstream's name.
    upstream: Arc<str>,
    key: StickyKey,
}

/// What keeps a request at a server, and its client for the next one.
pub(crate) struct Session {
    home: Option<Home>,
    /// The cookie that the response gets.
    cookie: Option<HeaderValue>,
}

/// The address that a client's cookie names.
pub(super) struct Home {
    /// The index of its server.
    pub(super) server: usize,
    pub(super) endpoint: Arc<Endpoint>,
}

impl Sticky {
    pub(super) fn new(sticky: &model::Sticky, upstream: &Arc<str>, key: StickyKey) -> Self {
        Self {
            cookie: sticky.cookie.clone(),
            max_age: sticky.max_age,
            upstream: Arc::clone(upstream),
            key,
        }
    }

    /// The session of a request to one of `servers`.
    pub(super) fn session(&self, request: &Request<'_>, servers: &[Server]) -> Session {
        // Another site of the same domain may have set one for a shorter path.
        let mut values = request.cookies(&self.cookie).take(MOST);
        Session {
            home: values.find_map(|value| self.find_home(value, servers)),
            cookie: None,
        }
    }

    /// Decides whether the response from an address gets a cookie. `keeps_home` says whether the
    /// client is to return to the address that its cookie names, though this one serves it.
    pub(super) fn settle(
        &self,
        session: &mut Session,
        endpoint: &Arc<Endpoint>,
        keeps_home: bool,
        is_tls: bool,
    ) {
        let home = session.home.as_ref();
        let is_home = home.is_some_and(|home| Arc::ptr_eq(&home.endpoint, endpoint));
        session.cookie = match is_home || keeps_home {
            true => None,
            false => self.cookie_of(endpoint, is_tls),
        };
    }

    fn find_home(&self, value: &[u8], servers: &[Server]) -> Option<Home> {
        servers.iter().enumerate().find_map(|(server, known)| {
            let endpoints = known.endpoints();
            let home = endpoints.iter().find(|endpoint| {
                let expected = self.value_of(endpoint).map_or(&[][..], str::as_bytes);
                expected.len() == value.len() && memcmp::eq(expected, value)
            })?;
            let endpoint = Arc::clone(home);
            Some(Home { server, endpoint })
        })
    }

    /// The cookie for an address.
    fn cookie_of(&self, endpoint: &Endpoint, is_tls: bool) -> Option<HeaderValue> {
        let value = self.value_of(endpoint)?;
        let mut text = format!("{}={value}; Path=/", self.cookie);
        if let Some(max_age) = self.max_age {
            text.push_str(&format!("; Max-Age={}", max_age.as_secs()));
        }
        text.push_str("; HttpOnly");
        if is_tls {
            text.push_str("; Secure");
        }
        text.push_str("; SameSite=Lax");
        HeaderValue::try_from(text).ok()
    }

    /// The value of the cookie for an address, which is computed once.
    fn value_of<'e>(&self, endpoint: &'e Endpoint) -> Option<&'e str> {
        let value = endpoint
            .cookie_value
            .get_or_init(|| self.key.sign(&self.upstream, &endpoint.text));
        value.as_deref()
    }
}

impl Session {
    pub(super) fn home(&self) -> Option<&Home> {
        self.home.as_ref()
    }

    /// The cookie that the response gets, if it gets one.
    pub(crate) fn cookie(&self) -> Option<&HeaderValue> {
        self.cookie.as_ref()
    }
}
