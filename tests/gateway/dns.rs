//! Look-ups and records in the DNS, at real name servers.

mod faulty_servers;
mod lookup;
mod rfc2136;

use std::net::SocketAddr;
use std::time::Duration;

use snigate::dns::lookup::{LookupOptions, Lookups};
use snigate::host::HostName;

fn name(text: &str) -> HostName {
    text.parse().expect("a name")
}

/// Look-ups by these resolvers, which are soon out of patience.
fn lookups(resolvers: &[SocketAddr]) -> Lookups {
    Lookups::new(LookupOptions {
        resolvers: resolvers.to_vec(),
        patience: Duration::from_millis(300),
        ..LookupOptions::default()
    })
}
