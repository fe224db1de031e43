//! `upstreams`.

use std::net::SocketAddr;
use std::sync::Arc;

use indexmap::IndexMap;

use super::Validator;
use crate::config::model::{Balance, Upstream, UpstreamAddress, UpstreamServer, UpstreamTls};
use crate::config::problem::At;
use crate::config::schema;
use crate::host::HostName;

impl Validator<'_> {
    pub(super) fn upstreams(
        &mut self,
        raw: &IndexMap<String, schema::Upstream>,
        at: &At<'_>,
    ) -> IndexMap<Arc<str>, Arc<Upstream>> {
        let mut upstreams = IndexMap::with_capacity(raw.len());
        for (name, upstream) in raw {
            let at = at.key(name);
            self.name(&at, name);
            let name: Arc<str> = Arc::from(name.as_str());
            let upstream = self.upstream(Arc::clone(&name), upstream, &at);
            upstreams.insert(name, Arc::new(upstream));
        }
        upstreams
    }

    fn upstream(&mut self, name: Arc<str>, raw: &schema::Upstream, at: &At<'_>) -> Upstream {
        if let Some(health) = &raw.health {
            self.health(health, &at.key("health"));
        }
        let tls = self.upstream_tls(&raw.tls, &at.key("tls"));
        let named = !matches!(
            tls,
            UpstreamTls::On {
                server_name: None,
                ..
            }
        );
        let servers_at = at.key("servers");
        let mut servers: Vec<UpstreamServer> = Vec::with_capacity(raw.servers.len());
        for (index, server) in raw.servers.iter().enumerate() {
            let at = servers_at.index(index);
            let address_at = at.key("address");
            let (at, address, weight) = match server {
                schema::UpstreamServer::Address(address) => (at, address, 1),
                schema::UpstreamServer::Weighted(server) => {
                    (address_at, &server.address, server.weight)
                }
            };
            let Some(address) = self.server_address(&at, address) else {
                continue;
            };
            if !named && matches!(address, UpstreamAddress::Unix(_)) {
                let message = "TLS to a socket needs a name to verify";
                self.problems
                    .error(&at, message, "give 'server_name' in the upstream's 'tls'");
            }
            if servers.iter().any(|before| before.address == address) {
                let message = format!("the server {} is listed twice", at.quoted());
                self.problems
                    .warn(&at, message, "give it a 'weight' for a larger share");
            }
            servers.push(UpstreamServer {
                address,
                weight: u32::try_from(weight).unwrap_or(1),
            });
        }
        Upstream {
            name,
            servers,
            balance: match raw.balance {
                schema::Balance::RoundRobin => Balance::RoundRobin,
            },
            tls,
        }
    }

    fn upstream_tls(&mut self, raw: &schema::UpstreamTls, at: &At<'_>) -> UpstreamTls {
        match raw {
            schema::UpstreamTls::Switch(schema::Switch::Off) => UpstreamTls::Off,
            schema::UpstreamTls::Switch(schema::Switch::On) => UpstreamTls::On {
                server_name: None,
                verify: true,
                ca_file: None,
            },
            schema::UpstreamTls::On(options) => {
                let verify_at = at.key("verify");
                if !options.verify {
                    let message = "the servers' certificates are not verified: anyone in between \
                                   can read and change the traffic";
                    let hint = "give 'ca_file' for servers with a private CA";
                    self.problems.warn(&verify_at, message, hint);
                }
                UpstreamTls::On {
                    server_name: options
                        .server_name
                        .as_ref()
                        .and_then(|name| self.host(&at.key("server_name"), name)),
                    verify: options.verify,
                    ca_file: options
                        .ca_file
                        .as_ref()
                        .map(|path| self.path(&at.key("ca_file"), path)),
                }
            }
        }
    }

    /// `ADDRESS:PORT`, `NAME:PORT` or `unix:PATH`.
    fn server_address(&mut self, at: &At<'_>, raw: &str) -> Option<UpstreamAddress> {
        if let Some(path) = raw.strip_prefix("unix:") {
            return Some(UpstreamAddress::Unix(self.socket_path(at, path)));
        }
        let hint = if raw.contains("://") {
            "leave out the scheme and the path; for https add 'tls: on' to the upstream"
        } else {
            "write ADDRESS:PORT, NAME:PORT or unix:PATH, such as 127.0.0.1:3000"
        };
        let address = match raw.parse::<SocketAddr>() {
            Ok(address) if address.port() != 0 => Some(UpstreamAddress::Ip(address)),
            Ok(_) => None,
            Err(_) => named_address(raw),
        };
        if address.is_none() {
            let message = format!("{} is not a server's address with a port", at.quoted());
            self.problems.error(at, message, hint);
        }
        address
    }
}

pub(super) fn named_address(raw: &str) -> Option<UpstreamAddress> {
    let (host, port) = raw.rsplit_once(':')?;
    let host = host.parse::<HostName>().ok()?;
    let port = port.parse::<u16>().ok().filter(|port| *port != 0)?;
    Some(UpstreamAddress::Name { host, port })
}
