//! The answers of the CA: those of a correct one where the script has none of its own.

use std::collections::HashMap;
use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::AtomicBool;
use std::sync::{Mutex, MutexGuard};
use std::time::Instant;

use openssl::pkey::{PKey, Public};
use openssl::ssl::SslAcceptor;
use openssl::x509::X509Req;
use serde_json::{Value, json};

use super::{Ask, Features, Mangle, Reply, Script};
use crate::support::Ca;
use crate::support::http1::{read_body, read_head};

pub(super) struct Shared {
    pub(super) address: SocketAddr,
    pub(super) acceptor: SslAcceptor,
    pub(super) root: Ca,
    pub(super) features: Features,
    pub(super) script: Box<Script>,
    pub(super) mangle: Box<Mangle>,
    pub(super) state: Mutex<State>,
    pub(super) stop: AtomicBool,
}

#[derive(Default)]
pub(super) struct State {
    pub(super) asked: Vec<Ask>,
    pub(super) nonce: usize,
    pub(super) orders: Vec<Order>,
    pub(super) connections: HashMap<usize, TcpStream>,
}

pub(super) struct Order {
    pub(super) names: Vec<String>,
    /// Of each name: `pending`, `valid`, `invalid`, `deactivated`.
    pub(super) authorizations: Vec<String>,
    pub(super) key: Option<PKey<Public>>,
    /// What it was said to replace, null where nothing was.
    pub(super) replaces: Value,
}

impl Shared {
    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("not poisoned")
    }

    pub(super) fn url(&self, path: &str) -> String {
        format!("https://{}{path}", self.address)
    }

    pub(super) fn serve(&self, stream: TcpStream) {
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

pub(super) fn unbase64(base64url: &str) -> Vec<u8> {
    let mut text = base64url.replace('-', "+").replace('_', "/");
    while !text.len().is_multiple_of(4) {
        text.push('=');
    }
    openssl::base64::decode_block(&text).unwrap_or_default()
}
