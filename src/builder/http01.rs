//! Answers to validations over HTTP, for anybody's HTTP server.

use std::net::IpAddr;

use http::uri::Authority;

use crate::challenge::Challenges;
use crate::host::{Host, HostName};

/// Where CAs look (RFC 8555, section 8.3).
const PREFIX: &str = "/.well-known/acme-challenge/";

/// Answers CAs that validate names over HTTP, see [`EngineHandle::http01`]. A handle; clones share
/// the answers.
///
/// [`EngineHandle::http01`]: super::EngineHandle::http01
#[derive(Clone)]
pub struct Http01Responder(Challenges);

impl Http01Responder {
    pub(super) fn new(challenges: Challenges) -> Self {
        Self(challenges)
    }

    /// The body of the response, of status 200, to a `GET` request for `path` whose `Host` field is
    /// `host`: `None` if that is no validation that is pending, so that the request is the program's
    /// own. `path` may be the token alone. Takes no time while no validation is pending.
    pub fn answer(&self, host: &str, path: &str) -> Option<String> {
        if self.0.is_empty() {
            return None;
        }
        let authority: Authority = host.parse().ok()?;
        let host = authority.host().trim_matches(['[', ']']);
        let token = token(path);
        let answer = match host.parse::<IpAddr>() {
            Ok(address) => self.0.http01(Host::Ip(address), token),
            Err(_) => {
                let name: HostName = host.parse().ok()?;
                self.0.http01(Host::Name(name.as_str()), token)
            }
        };
        answer.map(|answer| answer.to_string())
    }

    /// As [`Self::answer`], but asks the storage first if the path is one of a validation that is not
    /// known: another instance that shares the storage may have requested it a moment ago.
    pub async fn find(&self, host: &str, path: &str) -> Option<String> {
        if !path.starts_with('/') || path.starts_with(PREFIX) {
            self.0.look_up_token(token(path)).await;
        }
        self.answer(host, path)
    }
}

/// The token in a path.
fn token(path: &str) -> &str {
    let path = path.split_once('?').map_or(path, |(path, _)| path);
    path.strip_prefix(PREFIX).unwrap_or(path)
}
