//! Attacks that are known from other servers, as they were published. docs/security.md lists them,
//! with those that other parts of these tests send.

mod bombs;
mod early_octets;
mod frames;
mod half_open;
mod handshakes;
mod headers;
mod resets;
mod servers;
mod spellings;

use crate::support::{Builder, Gateway, H2, Origin, serving_app};

/// A gateway in front of `origin`, see [`in_front_of`].
#[track_caller]
fn before(origin: &Origin) -> Gateway {
    in_front_of(origin).start()
}

/// Begins a gateway in front of `origin`: `a.test` over TLS, `plain.test` without.
fn in_front_of(origin: &Origin) -> Builder {
    serving_app(origin.address())
}

/// Another client is served, as if nothing had happened.
#[track_caller]
fn others_are_served(gateway: &Gateway, case: &str) {
    let reply = H2::connect(gateway.https, "a.test").get("/other");
    assert_eq!(reply.status, 200, "{case}");
}
