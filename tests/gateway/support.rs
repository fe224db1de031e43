//! What the tests stand on: a real gateway process, real origins, certificates made on the spot,
//! and clients that share no code with it.
//!
//! Nothing here sleeps for a fixed time and hopes: [`wait_for`] waits for a condition.

mod acme2certifier;
mod announcing;
mod balancer;
mod bind;
mod caddy;
mod certs;
mod client;
mod crowded;
mod dns;
mod events;
mod fake_ca;
mod frames;
mod gateway;
mod grpc;
mod http1;
mod http2;
mod http2_server;
mod knot;
mod listen;
mod mail_server;
mod network;
mod nginx;
mod ocsp;
mod origin;
mod pebble;
mod port;
mod program;
mod prometheus;
mod python;
mod recursor;
mod relay;
mod resolver;
mod revocation;
mod site;
mod tests;
mod tls_origin;
mod token_signer;

use std::thread;
use std::time::{Duration, Instant};

pub use acme2certifier::Acme2Certifier;
pub use balancer::{Balancer, Sending};
pub use bind::Bind;
pub use caddy::Caddy;
pub use certs::{Ca, KeyType, Pair};
pub use client::{Curl, Reply as CurlReply, TlsClient, TlsStream, curl, s_client};
pub use crowded::Crowded;
pub use dns::NameServer;
pub use events::Event;
pub use fake_ca::{Ask, FakeCa, Features, Reply as CaReply, csr, csr_key};
pub use frames::{Frame, Frames, is_end};
pub use gateway::{Builder, Gateway, children};
pub use grpc::{GrpcServer, Octets, grpc_channel};
pub use http1::{Response, connect, exchange, read_head, read_response};
pub use http2::{H2, H2Reply, interim, next_interim, read, upload};
pub use http2_server::{Call, H2Server, H2Setup};
pub use knot::{KEY as TSIG_KEY, Knot, READER as TSIG_READER, TsigKey};
pub use listen::{is_closed, listen, relisten};
pub use mail_server::{MailServer, OnMail};
pub use network::{TcpState, connections_to, in_own_network};
pub use nginx::Nginx;
pub use ocsp::{OcspResponder, Says, list_at, must_staple, responder_at};
pub use origin::{Act, Origin, Received};
pub use pebble::{Pebble, PebbleBuilder};
pub use port::Port;
pub use program::{Printed, check, check_json, snigate};
pub use prometheus::{Prometheus, promtool};
pub use python::{PythonServer, python};
pub use recursor::Recursor;
pub use relay::{Relay, Switch};
pub use resolver::{Mood, Resolver};
pub use revocation::{delta_list, revocation_list};
pub use site::{ROOT, logging, serving, serving_app};
pub use tls_origin::TlsOrigin;
pub use token_signer::{TokenSigner, base64url, key_set, unix_time};

/// How long anything may take on a busy machine before a test gives up.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Asks again and again until there is an answer; `what` names it when there is none in time.
#[track_caller]
pub fn wait_for<T>(what: &str, ask: impl FnMut() -> Option<T>) -> T {
    within(PATIENCE, what, ask)
}

/// [`wait_for`] with a deadline that is itself part of what is tested.
#[track_caller]
pub fn within<T>(limit: Duration, what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(start.elapsed() < limit, "waited {limit:?} for {what}");
        thread::sleep(Duration::from_millis(10));
    }
}
