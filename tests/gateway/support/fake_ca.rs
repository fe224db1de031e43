//! A CA that does as it is told, however wrong, and remembers what it was asked.
//!
//! It speaks ACME (RFC 8555) over HTTPS and validates nothing: a challenge that is offered is taken
//! for solved. What real CAs do only to real sinners, a script does here.

use std::collections::HashMap;
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;
use std::time::Instant;

use openssl::pkey::{PKey, Public};
use openssl::ssl::{SslAcceptor, SslMethod};
use openssl::x509::X509Req;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::Ca;
use super::http1::{read_body, read_head};

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

struct Shared {
    address: SocketAddr,
    acceptor: SslAcceptor,
    root: Ca,
    features: Features,
    script: Box<Script>,
    mangle: Box<Mangle>,
    state: Mutex<State>,
    stop: AtomicBool,
}

#[derive(Default)]
struct State {
    asked: Vec<Ask>,
    nonce: usize,
    orders: Vec<Order>,
    connections: HashMap<usize, TcpStream>,
}

struct Order {
    names: Vec<String>,
    /// Of each name: `pending`, `valid`, `invalid`, `deactivated`.
    authorizations: Vec<String>,
    key: Option<PKey<Public>>,
    /// What it was said to replace, null where nothing was.
    replaces: Value,
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

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("not poisoned")
    }

    fn url(&self, path: &str) -> String {
        format!("https://{}{path}", self.address)
    }

    fn serve(&self, stream: TcpStream) {
        let number = {
            let mut state = self.state();
            state.nonce += 1;
            let number = state.nonce;
            let copy = stream.try_clone().expect("a copy");
            state.connections.insert(number, copy);
            number
        };
        if let Ok(mut stream) = self.acceptor.accept(stream) {
            while let Ok(Some(head)) = read_head(&mut stream) {
                let head = String::from_utf8_lossy(&head).into_owned();
                let Ok((body, _)) = read_body(&mut stream, &head, false) else {
                    break;
                };
                let mut words = head.split(' ');
                let method = words.next().unwrap_or_default().to_owned();
                let path = words.next().unwrap_or_default().to_owned();
                let reply = self.answer(&method, &path, &body);
                if stream.write_all(&self.write(&method, &reply)).is_err() {
                    break;
                }
            }
        }
        self.state().connections.remove(&number);
    }

    fn write(&self, method: &str, reply: &Reply) -> Vec<u8> {
        let nonce = {
            let mut state = self.state();
            state.nonce += 1;
            state.nonce
        };
        let mut head = format!("HTTP/1.1 {} Status\r\n", reply.status);
        for (name, value) in &reply.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head.push_str(&format!(
            "Replay-Nonce: nonce{nonce}\r\nCache-Control: no-store\r\nContent-Length: {}\r\n\r\n",
            reply.body.len()
        ));
        let mut bytes = head.into_bytes();
        if method != "HEAD" {
            bytes.extend_from_slice(&reply.body);
        }
        bytes
    }

    fn answer(&self, method: &str, path: &str, body: &[u8]) -> Reply {
        let mut parts = path.trim_start_matches('/').split('/');
        let kind = parts.next().unwrap_or_default().to_owned();
        let numbers: Vec<usize> = parts.filter_map(|part| part.parse().ok()).collect();
        let jws: Value = serde_json::from_slice(body).unwrap_or_default();
        let part = |name: &str| decode(jws[name].as_str().unwrap_or_default());
        let payload = part("payload");
        let order = numbers.first().copied().unwrap_or_default();
        let ask = {
            let mut state = self.state();
            let number = state.asked.iter().filter(|ask| ask.kind == kind).count();
            let (order, names) = if kind == "order" {
                (state.orders.len(), names(&payload))
            } else {
                let names = state.orders.get(order).map(|order| order.names.clone());
                (order, names.unwrap_or_default())
            };
            let ask = Ask {
                kind,
                method: method.to_owned(),
                path: path.to_owned(),
                number,
                order,
                names,
                protected: part("protected"),
                payload,
                at: Instant::now(),
            };
            state.asked.push(ask.clone());
            ask
        };
        let is_scripted = !matches!(ask.kind.as_str(), "dir" | "nonce");
        let scripted = is_scripted.then(|| (self.script)(&ask)).flatten();
        scripted.unwrap_or_else(|| {
            let part = numbers.get(1).copied().unwrap_or_default();
            (self.mangle)(&ask, self.properly(&ask, part))
        })
    }

    fn directory(&self) -> Value {
        let mut directory = json!({
            "newNonce": self.url("/nonce"),
            "newAccount": self.url("/account"),
            "newOrder": self.url("/order"),
            "revokeCert": self.url("/revoke"),
            "keyChange": self.url("/key"),
            "meta": self.features.meta,
        });
        for (name, value) in self.features.directory.as_object().into_iter().flatten() {
            directory[name] = match value.as_str() {
                Some(path) if path.starts_with('/') => json!(self.url(path)),
                _ => value.clone(),
            };
        }
        directory
    }

    fn properly(&self, ask: &Ask, part: usize) -> Reply {
        let mut state = self.state();
        let mut number = ask.order;
        match ask.kind.as_str() {
            "dir" => return Reply::json(200, &self.directory()),
            "nonce" => return Reply::plain(200, ""),
            "account" => {
                let account =
                    json!({ "status": "valid", "contact": [], "orders": self.url("/none") });
                return Reply::json(201, &account).header("Location", &self.url("/account/0"));
            }
            "order" => {
                // Another may have come since it was asked.
                number = state.orders.len();
                state.orders.push(Order {
                    authorizations: vec!["pending".to_owned(); ask.names.len()],
                    names: ask.names.clone(),
                    key: None,
                    replaces: ask.payload["replaces"].clone(),
                });
            }
            _ => {}
        }
        let Some(order) = state.orders.get_mut(number) else {
            return Reply::problem(404, "malformed", "there is no such thing here");
        };
        match ask.kind.as_str() {
            "order" | "orders" => {
                let status = if ask.kind == "order" { 201 } else { 200 };
                Reply::json(status, &self.order(number, order))
                    .header("Location", &self.url(&format!("/orders/{number}")))
            }
            "authz" | "challenge" => {
                let Some(status) = order.authorizations.get_mut(part) else {
                    return Reply::problem(404, "malformed", "there is no such name");
                };
                if ask.payload["status"] == "deactivated" {
                    *status = "deactivated".to_owned();
                } else if ask.kind == "challenge" && ask.payload.is_object() {
                    *status = "valid".to_owned();
                }
                let state = status.clone();
                let kinds = self.features.challenges.iter().enumerate();
                let challenges: Vec<Value> = kinds
                    .map(|(kind, (name, members))| {
                        let mut challenge = json!({
                            "type": name,
                            "url": self.url(&format!("/challenge/{number}/{part}/{kind}")),
                            "token": format!("token-{number}-{part}-{kind}-aaaaaaaaaaaaaaaa"),
                            "status": if state == "deactivated" { "pending" } else { &state },
                        });
                        for (name, value) in members.as_object().into_iter().flatten() {
                            challenge[name] = value.clone();
                        }
                        challenge
                    })
                    .collect();
                if ask.kind == "challenge" {
                    return Reply::json(200, &challenges[0]);
                }
                let name = &order.names[part];
                let bare = name.strip_prefix("*.");
                let identifier = json!({ "type": "dns", "value": bare.unwrap_or(name) });
                let mut body = json!({
                    "identifier": identifier, "status": state, "challenges": challenges,
                    "expires": "2099-01-01T00:00:00Z",
                });
                if bare.is_some() {
                    body["wildcard"] = json!(true);
                }
                Reply::json(200, &body)
            }
            "finalize" => {
                let csr = unbase64(ask.payload["csr"].as_str().unwrap_or_default());
                let Ok(csr) = X509Req::from_der(&csr) else {
                    return Reply::problem(400, "badCSR", "that is no request");
                };
                order.key = Some(csr.public_key().expect("a key"));
                Reply::json(200, &self.order(number, order))
                    .header("Location", &self.url(&format!("/orders/{number}")))
            }
            "cert" => {
                let names: Vec<&str> = order.names.iter().map(String::as_str).collect();
                let key = order.key.clone().expect("it was finalized");
                Reply::chain(self.root.leaf(&names).sign(&key).0)
            }
            _ => Reply::problem(404, "malformed", "there is nothing here"),
        }
    }

    fn order(&self, number: usize, order: &Order) -> Value {
        let all = |wanted: &str| order.authorizations.iter().all(|state| state == wanted);
        let any = |wanted: &str| order.authorizations.iter().any(|state| state == wanted);
        let status = if order.key.is_some() {
            "valid"
        } else if any("invalid") || any("deactivated") {
            "invalid"
        } else if all("valid") {
            "ready"
        } else {
            "pending"
        };
        let names = order.names.iter();
        let identifiers: Vec<Value> = names
            .map(|name| json!({ "type": "dns", "value": name }))
            .collect();
        let authorizations: Vec<String> = (0..order.names.len())
            .map(|part| self.url(&format!("/authz/{number}/{part}")))
            .collect();
        let mut body = json!({
            "status": status, "identifiers": identifiers, "authorizations": authorizations,
            "finalize": self.url(&format!("/finalize/{number}")),
            "expires": "2099-01-01T00:00:00Z",
        });
        if order.replaces.is_string() {
            body["replaces"] = order.replaces.clone();
        }
        if status == "valid" {
            body["certificate"] = json!(self.url(&format!("/cert/{number}")));
        }
        body
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

fn names(payload: &Value) -> Vec<String> {
    let identifiers = payload["identifiers"].as_array();
    let values = identifiers.into_iter().flatten();
    values
        .filter_map(|identifier| identifier["value"].as_str().map(str::to_owned))
        .collect()
}

fn decode(base64url: &str) -> Value {
    serde_json::from_slice(&unbase64(base64url)).unwrap_or_default()
}

fn unbase64(base64url: &str) -> Vec<u8> {
    let mut text = base64url.replace('-', "+").replace('_', "/");
    while !text.len().is_multiple_of(4) {
        text.push('=');
    }
    openssl::base64::decode_block(&text).unwrap_or_default()
}
