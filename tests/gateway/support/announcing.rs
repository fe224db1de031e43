//! The PROXY protocol before everything that clients send to a gateway, where the environment asks
//! for it: so the same tests run behind a balancer.

use std::io::Write;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::sync::Mutex;

/// Names the version of the header, `v1` or `v2`; there is none where it is not set.
const VERSION: &str = "SNIGATE_TEST_PROXY_PROTOCOL";

/// What gateways are told if clients send a header.
pub const TRUSTED: &str = "proxy_protocol: { trusted: [\"127.0.0.0/8\"] }";

/// Where gateways listen that expect a header.
static LISTENERS: Mutex<Vec<SocketAddr>> = Mutex::new(Vec::new());

/// Whether clients send a header.
pub fn is_asked_for() -> bool {
    std::env::var_os(VERSION).is_some()
}

/// From now on connections to these addresses begin with a header, or no longer.
pub fn expect_headers(addresses: [SocketAddr; 2], are_expected: bool) {
    let mut listeners = LISTENERS.lock().expect("not poisoned");
    listeners.retain(|listener| !addresses.contains(listener));
    if are_expected {
        listeners.extend(addresses);
    }
}

/// What a connection between these addresses begins with; nothing if no header is expected there.
pub fn header(client: SocketAddr, server: SocketAddr) -> Vec<u8> {
    if !LISTENERS.lock().expect("not poisoned").contains(&server) {
        return Vec::new();
    }
    match std::env::var(VERSION).as_deref() {
        Ok("v1") => {
            let (from, to) = (client.ip(), server.ip());
            let (port, to_port) = (client.port(), server.port());
            format!("PROXY TCP4 {from} {to} {port} {to_port}\r\n").into_bytes()
        }
        Ok("v2") => {
            let mut octets = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c".to_vec();
            for address in [client, server] {
                let IpAddr::V4(ip) = address.ip() else {
                    panic!("gateways of tests listen on IPv4")
                };
                octets.extend(ip.octets());
            }
            octets.extend(client.port().to_be_bytes());
            octets.extend(server.port().to_be_bytes());
            octets
        }
        other => panic!("{VERSION} is v1 or v2, not {other:?}"),
    }
}

/// Sends the header that the other side expects, if it does.
pub fn announce(stream: &mut TcpStream) {
    let client = stream.local_addr().expect("an address");
    let server = stream.peer_addr().expect("an address");
    let header = header(client, server);
    if !header.is_empty() {
        stream.write_all(&header).expect("taken");
    }
}
