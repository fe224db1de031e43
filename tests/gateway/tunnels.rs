//! Connections that are passed on octet by octet: with their TLS, by the name in their ClientHello, or
//! what is within TLS.

mod cuts;
mod ends;
mod pass_through;
mod room;
mod servers;
mod tcp;

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use openssl::ssl::{HandshakeError, Ssl, SslContext, SslMethod, SslStream};
use serde_json::Value;

use crate::support::{Builder, Gateway, PATIENCE, serving, wait_for};

/// A server of octets; each connection has a thread. It stops when dropped.
struct OctetServer {
    address: SocketAddr,
    accepted: Arc<AtomicUsize>,
    is_stopped: Arc<AtomicBool>,
}

impl OctetServer {
    fn start(serve: impl Fn(TcpStream) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let address = listener.local_addr().expect("an address");
        let (accepted, is_stopped) = (Arc::default(), Arc::new(AtomicBool::new(false)));
        let (count, stopped) = (Arc::clone(&accepted), Arc::clone(&is_stopped));
        let serve = Arc::new(serve);
        thread::spawn(move || {
            for stream in listener.incoming() {
                if stopped.load(Ordering::Relaxed) {
                    return;
                }
                let Ok(stream) = stream else { continue };
                let count: &AtomicUsize = &count;
                count.fetch_add(1, Ordering::Relaxed);
                stream.set_read_timeout(Some(PATIENCE)).expect("set");
                stream.set_write_timeout(Some(PATIENCE)).expect("set");
                let serve = Arc::clone(&serve);
                thread::spawn(move || serve(stream));
            }
        });
        Self {
            address,
            accepted,
            is_stopped,
        }
    }

    /// One that sends back all it gets, and closes once its client has.
    fn echo() -> Self {
        Self::start(|mut stream| {
            let mut buffer = vec![0; 64 * 1024];
            while let Ok(count @ 1..) = stream.read(&mut buffer) {
                if stream.write_all(&buffer[..count]).is_err() {
                    return;
                }
            }
            _ = stream.shutdown(Shutdown::Write);
        })
    }

    /// How many connections it has accepted.
    fn accepted(&self) -> usize {
        self.accepted.load(Ordering::Relaxed)
    }
}

impl Drop for OctetServer {
    fn drop(&mut self) {
        self.is_stopped.store(true, Ordering::Relaxed);
        drop(TcpStream::connect(self.address));
    }
}

/// The ClientHello of a client that requests this name.
fn hello(name: &str) -> Vec<u8> {
    #[derive(Debug, Default)]
    struct Written(Vec<u8>);
    impl Read for Written {
        fn read(&mut self, _: &mut [u8]) -> std::io::Result<usize> {
            Err(std::io::ErrorKind::WouldBlock.into())
        }
    }
    impl Write for Written {
        fn write(&mut self, octets: &[u8]) -> std::io::Result<usize> {
            self.0.extend_from_slice(octets);
            Ok(octets.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let context = SslContext::builder(SslMethod::tls_client()).expect("a client");
    let mut ssl = Ssl::new(&context.build()).expect("a client");
    ssl.set_hostname(name).expect("a name");
    let begun: Result<SslStream<_>, _> = ssl.connect(Written::default());
    let Err(HandshakeError::WouldBlock(begun)) = begun else {
        panic!("there is no server")
    };
    begun.get_ref().0.clone()
}

/// A gateway with a certificate for each of `a.test` and `tcp.test`, a site of its own for `a.test`,
/// and `sites` in front of the upstream `app` at `address`.
fn in_front_of(address: SocketAddr, app: &str, sites: &str) -> Builder {
    serving(
        &[&["a.test", "raw.test", "tcp.test"]],
        format!(
            "upstreams: {{ app: {{ servers: [\"{address}\"]{app} }} }}\n\
             log: {{ access: access.log, format: json, level: debug }}\n\
             sites:\n\
             - {{ hosts: [a.test], routes: [{{ respond: {{ body: own }} }}] }}\n{sites}\n"
        ),
    )
}

/// The lines of the access log about connections that were passed on, once there are so many.
#[track_caller]
fn lines(gateway: &Gateway, count: usize) -> Vec<Value> {
    let path = gateway.dir().join("access.log");
    wait_for("the access log", || {
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        let lines = text
            .lines()
            .map(|line| serde_json::from_str(line).expect("JSON"));
        let is_tunnel = |line: &Value| line["ended"].is_string();
        let lines: Vec<Value> = lines.filter(is_tunnel).collect();
        (lines.len() >= count).then_some(lines)
    })
}

/// Octets in which nothing can be lost or moved unnoticed.
fn noise(length: usize, seed: u32) -> Vec<u8> {
    let mut state = seed;
    let next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    // No power of two, so that no part of a transfer is like another.
    let block: Vec<u8> = std::iter::repeat_with(next).take(65_521).collect();
    let mut octets = block.repeat(length / block.len() + 1);
    octets.truncate(length);
    octets
}
