//! A scripted CA, however wrong its script, which remembers what it was asked.
//!
//! It speaks ACME (RFC 8555) over HTTPS and validates nothing: a challenge that is offered is taken
//! for solved. What real CAs do only to real sinners, a script does here.

mod server;

use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Instant;

use openssl::pkey::{PKey, Public};
use openssl::ssl::{SslAcceptor, SslMethod};
use openssl::x509::X509Req;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::Ca;
use server::{Shared, unbase64};

/// A request as it came, with what it was asked for.
#[derive(Clone, Debug)]
pub struct Ask {
    /// The first segment of its path: `dir`, `nonce`, `account`, `order`, `orders` (looking at one),
    /// `authz`, `challenge`, `finalize` or `cert`.
    pub kind: String,
    pub method: String,
    /// Its whole path.
    pub path: String,
    /// How many of this kind there were before.
    pub number: usize,
    /// The number of the order, where it is about one.
    pub order: usize,
    /// The names of the order, where it is about one.
    pub names: Vec<String>,
    /// The protected header of the JWS, null where there is none.
    pub protected: Value,
    /// The payload of the JWS, null where it was empty.
    pub payload: Value,
    pub at: Instant,
}

/// An answer.
#[derive(Clone, Debug)]
pub struct Reply {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Reply {
    /// A problem document (RFC 7807) with an ACME type, as `rateLimited`.
    pub fn problem(status: u16, kind: &str, detail: &str) -> Self {
        let kind = format!("urn:ietf:params:acme:error:{kind}");
        Self {
            status,
            headers: vec![("Content-Type".into(), "application/problem+json".into())],
            body: json!({ "type": kind, "detail": detail, "status": status })
                .to_string()
                .into(),
        }
    }

    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    pub fn json(status: u16, body: &Value) -> Self {
        Self {
            status,
            headers: vec![("Content-Type".into(), "application/json".into())],
            body: body.to_string().into(),
        }
    }

    /// Any answer with this body.
    pub fn plain(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Self {
            status,
            headers: vec![("Content-Type".into(), "text/plain".into())],
            body: body.into(),
        }
    }

    /// A chain (PEM) in the place of the certificate.
    pub fn chain(pem: String) -> Self {
        Self {
            status: 200,
            headers: vec![(
                "Content-Type".into(),
                "application/pem-certificate-chain".into(),
            )],
            body: pem.into(),
        }
    }
}

type Script = dyn Fn(&Ask) -> Option<Reply> + Send + Sync;

/// What becomes of the answer that a CA in order would give.
type Mangle = dyn Fn(&Ask, Reply) -> Reply + Send + Sync;

/// What a CA has beyond the least of them.
#[derive(Clone)]
pub struct Features {
    /// Members of the directory; a value that begins with `/` is made a URL.
    pub directory: Value,
    /// Its `meta`.
    pub meta: Value,
    /// The challenges that it offers, as types with further members.
    pub challenges: Vec<(&'static str, Value)>,
}

impl Default for Features {
    fn default() -> Self {
        Self {
            directory: json!({}),
            meta: json!({}),
            challenges: vec![("http-01", json!({})), ("tls-alpn-01", json!({}))],
        }
    }
}

/// Runs until dropped.
pub struct FakeCa {
    _dir: TempDir,
    ca_file: PathBuf,
    shared: Arc<Shared>,
}

impl FakeCa {
    /// Answers as a CA in order would where `script` has no answer of its own.
    pub fn start(script: impl Fn(&Ask) -> Option<Reply> + Send + Sync + 'static) -> Self {
        Self::start_with(Features::default(), script)
    }

    /// A CA that has more than others.
    pub fn start_with(
        features: Features,
        script: impl Fn(&Ask) -> Option<Reply> + Send + Sync + 'static,
    ) -> Self {
        Self::start_as(features, script, |_, reply| reply)
    }

    /// A CA that does what one in order would do, and says it in its own way.
    pub fn start_mangled(
        features: Features,
        mangle: impl Fn(&Ask, Reply) -> Reply + Send + Sync + 'static,
    ) -> Self {
        Self::start_as(features, |_| None, mangle)
    }

    fn start_as(
        features: Features,
        script: impl Fn(&Ask) -> Option<Reply> + Send + Sync + 'static,
        mangle: impl Fn(&Ask, Reply) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let api = Ca::new("Root of the API");
        let ca_file = api.write(dir.path());
        let (chain, key) = api.leaf(&["127.0.0.1"]).make().write(dir.path(), "api");
        let mut acceptor = SslAcceptor::mozilla_intermediate_v5(SslMethod::tls_server()).unwrap();
        acceptor.set_certificate_chain_file(chain).unwrap();
        acceptor
            .set_private_key_file(key, openssl::ssl::SslFiletype::PEM)
            .unwrap();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let shared = Arc::new(Shared {
            address: listener.local_addr().expect("an address"),
            acceptor: acceptor.build(),
            root: Ca::new("Issuing Root"),
            features,
            script: Box::new(script),
            mangle: Box::new(mangle),
            state: Mutex::default(),
            stop: AtomicBool::new(false),
        });
        let accepting = Arc::clone(&shared);
        thread::spawn(move || {
            for stream in listener.incoming() {
                if accepting.stop.load(Ordering::SeqCst) {
                    return;
                }
                let Ok(stream) = stream else { continue };
                let shared = Arc::clone(&accepting);
                thread::spawn(move || shared.serve(stream));
            }
        });
        Self {
            _dir: dir,
            ca_file,
            shared,
        }
    }

    /// The URL of its directory.
    pub fn directory(&self) -> String {
        self.url("/dir")
    }

    /// The URL of a path at it.
    pub fn url(&self, path: &str) -> String {
        self.shared.url(path)
    }

    /// What to trust for its directory.
    pub fn ca_file(&self) -> &Path {
        &self.ca_file
    }

    /// What signs its certificates.
    pub fn root(&self) -> &Ca {
        &self.shared.root
    }

    /// Every request of this kind so far.
    pub fn asked(&self, kind: &str) -> Vec<Ask> {
        let state = self.shared.state();
        let asked = state.asked.iter();
        asked.filter(|ask| ask.kind == kind).cloned().collect()
    }

    /// The states of all authorizations of all orders, with their names.
    pub fn authorizations(&self) -> Vec<(String, String)> {
        let state = self.shared.state();
        let orders = state.orders.iter();
        orders
            .flat_map(|order| order.names.iter().zip(&order.authorizations))
            .map(|(name, state)| (name.clone(), state.clone()))
            .collect()
    }
}

impl Drop for FakeCa {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        // Wakes the accept loop.
        let _ = TcpStream::connect(self.shared.address);
        for stream in self.shared.state().connections.values() {
            let _ = stream.shutdown(std::net::Shutdown::Both);
        }
    }
}

/// The request (PKCS #10) that finalizes an order.
pub fn csr(ask: &Ask) -> Option<X509Req> {
    X509Req::from_der(&unbase64(ask.payload["csr"].as_str()?)).ok()
}

/// Its public key.
pub fn csr_key(ask: &Ask) -> Option<PKey<Public>> {
    csr(ask)?.public_key().ok()
}
