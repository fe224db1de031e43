//! What the DNS says of a name, asked as a CA asks: at the name servers that have the word.
//!
//! The resolvers find the zone of a name and its servers. These are then asked themselves: a
//! resolver remembers what it was told, also that there is no such record, while the answer that
//! counts is the one that a CA gets next.

mod caa;
mod propagation;
mod resolvers;

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use futures::future::join_all;
use futures::stream::{FuturesUnordered, StreamExt};
use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::{Name, RData, Record, RecordType};

use crate::dns::DnsError;
use crate::dns::exchange::{self, PORT, code_name, text};
use crate::host::HostName;

pub use caa::{Caa, CaaRecord};
pub use propagation::Propagation;

/// How many aliases are followed.
const MOST_ALIASES: usize = 8;

/// How many of a zone's servers are asked for a record of which any of them knows.
const ASKED_AT_ONCE: usize = 6;

/// Whom [`Lookups`] ask.
#[derive(Clone, Debug)]
pub struct LookupOptions {
    /// The resolvers; the system's (`/etc/resolv.conf`) where there are none.
    pub resolvers: Vec<SocketAddr>,
    /// Servers that are asked instead of a zone's own, where there are any. They may be resolvers.
    pub servers: Vec<SocketAddr>,
    /// How long an answer may take; a question is put three times.
    pub patience: Duration,
}

impl Default for LookupOptions {
    fn default() -> Self {
        Self {
            resolvers: Vec::new(),
            servers: Vec::new(),
            patience: Duration::from_secs(2),
        }
    }
}

/// Looks names up. It remembers nothing.
#[derive(Clone, Debug)]
pub struct Lookups {
    options: LookupOptions,
}

/// A name server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// Its name; `None` where an address is configured.
    pub name: Option<HostName>,
    pub address: SocketAddr,
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.name {
            Some(name) => write!(f, "{name} ({})", self.address.ip()),
            None => self.address.fmt(f),
        }
    }
}

/// A zone, and its authoritative servers.
struct Zone {
    name: HostName,
    servers: Vec<Server>,
}

/// What is found behind all aliases of a name.
struct Found {
    /// Where the aliases lead to; the name itself where there are none.
    name: HostName,
    records: Vec<RData>,
}

impl Lookups {
    /// Makes look-ups of these options.
    pub fn new(options: LookupOptions) -> Self {
        Self { options }
    }

    /// The name that `name` stands for: the end of its aliases (CNAME, also those of a DNAME), or
    /// `name` itself. There need be no record there.
    ///
    /// # Errors
    /// Where it cannot be found out, the aliases lead in a circle or there are more than 8.
    pub async fn target(&self, name: &HostName) -> Result<HostName, DnsError> {
        Ok(self.look_up(name, RecordType::TXT).await?.name)
    }

    /// The zone of a name: the nearest name at or above it that has an SOA record.
    ///
    /// # Errors
    /// Where it cannot be found out, or not even the last label exists.
    pub async fn zone(&self, name: &HostName) -> Result<HostName, DnsError> {
        let mut at = name.clone();
        loop {
            let wire = exchange::wire(&at)?;
            let answer = self.resolve(&at, RecordType::SOA).await?;
            // That of the target of an alias says nothing about the alias.
            let is_own = |record: &&_| is(record, &wire, RecordType::SOA);
            if answer.answers.iter().find(is_own).is_some() {
                return Ok(at);
            }
            let parent = at.parent().map(str::parse);
            at = parent.and_then(Result::ok).ok_or_else(|| {
                DnsError::Refused(format!(
                    "{name} is in no zone of the DNS: its last label does not exist there"
                ))
            })?;
        }
    }

    /// The servers to ask about a zone: all addresses of all its name servers, or those that are
    /// configured instead.
    ///
    /// # Errors
    /// Where none is found.
    pub async fn servers(&self, zone: &HostName) -> Result<Vec<Server>, DnsError> {
        if !self.options.servers.is_empty() {
            let configured = self.options.servers.iter();
            return Ok(configured
                .map(|&address| Server {
                    name: None,
                    address,
                })
                .collect());
        }
        let answer = self.resolve(zone, RecordType::NS).await?;
        let names: Vec<HostName> = answer
            .answers
            .iter()
            .filter_map(|record| match &record.data {
                RData::NS(ns) => host(&ns.0),
                _ => None,
            })
            .collect();
        let mut servers = Vec::new();
        let mut trouble = None;
        let found = join_all(names.iter().map(|name| self.resolved_addresses(name))).await;
        for (name, addresses) in names.iter().zip(found) {
            match addresses {
                Ok(addresses) => servers.extend(addresses.into_iter().map(|address| Server {
                    name: Some(name.clone()),
                    address: (address, PORT).into(),
                })),
                Err(error) => trouble = Some(error),
            }
        }
        match trouble {
            _ if !servers.is_empty() => Ok(servers),
            Some(error) => Err(error),
            None => Err(DnsError::Unreachable(format!(
                "the resolvers know no name server with an address for the zone {zone}"
            ))),
        }
    }

    /// The values of the TXT records of a name, their parts joined.
    ///
    /// # Errors
    /// Where they cannot be found out.
    pub async fn txt(&self, name: &HostName) -> Result<Vec<String>, DnsError> {
        let found = self.look_up(name, RecordType::TXT).await?;
        Ok(found.records.iter().filter_map(text).collect())
    }

    /// The addresses of a name: none where it has none or does not exist.
    ///
    /// # Errors
    /// Where they cannot be found out.
    pub async fn addresses(&self, name: &HostName) -> Result<Vec<IpAddr>, DnsError> {
        let (four, six) = futures::join!(
            self.look_up(name, RecordType::A),
            self.look_up(name, RecordType::AAAA)
        );
        let records = four?.records.into_iter().chain(six?.records);
        Ok(records.filter_map(|data| data.ip_addr()).collect())
    }

    /// The records of a type, behind all aliases.
    async fn look_up(&self, name: &HostName, kind: RecordType) -> Result<Found, DnsError> {
        self.look_up_in(&mut None, name, kind).await
    }

    /// [`Self::look_up`] of a name whose zone may be known, and is afterwards.
    async fn look_up_in(
        &self,
        zone: &mut Option<Zone>,
        name: &HostName,
        kind: RecordType,
    ) -> Result<Found, DnsError> {
        let mut aliases = vec![name.clone()];
        let mut at = name.clone();
        let mut answer = self.at_servers(zone, &at, kind).await?;
        loop {
            let followed = follow_cnames(&answer, &at, &mut aliases)?;
            let wire = exchange::wire(&followed)?;
            let own = answer.answers.into_iter();
            let records: Vec<_> = own
                .filter(|record| is(record, &wire, kind))
                .map(|record| record.data)
                .collect();
            if followed == at || !records.is_empty() {
                return Ok(Found {
                    name: followed,
                    records,
                });
            }
            // Other servers may have the word about the target.
            at = followed;
            answer = self.at_servers(&mut None, &at, kind).await?;
        }
    }

    /// What the servers of a name's zone say; the resolvers where none of them can be asked.
    async fn at_servers(
        &self,
        zone: &mut Option<Zone>,
        name: &HostName,
        kind: RecordType,
    ) -> Result<Message, DnsError> {
        if zone.is_none() {
            *zone = self.zone_of(name).await.ok();
        }
        if let Some(zone) = zone {
            let mut answers: FuturesUnordered<_> = zone
                .servers
                .iter()
                .take(ASKED_AT_ONCE)
                .map(|server| self.at_server(server, name, kind))
                .collect();
            while let Some(answer) = answers.next().await {
                if let Ok(message) = answer {
                    return Ok(message);
                }
            }
        }
        self.resolve(name, kind).await
    }

    async fn zone_of(&self, name: &HostName) -> Result<Zone, DnsError> {
        // Configured servers are asked for all names.
        let zone = if self.options.servers.is_empty() {
            self.zone(name).await?
        } else {
            name.clone()
        };
        Ok(Zone {
            servers: self.servers(&zone).await?,
            name: zone,
        })
    }

    /// What a server of a zone says, or, for people, why it says nothing of use.
    async fn at_server(
        &self,
        server: &Server,
        name: &HostName,
        kind: RecordType,
    ) -> Result<Message, String> {
        let name = exchange::wire(name).map_err(|error| error.to_string())?;
        // What is configured may be a resolver.
        let question = exchange::question(name, kind, server.name.is_none());
        let answer = exchange::query_server(server.address, &question, self.options.patience).await;
        let message = answer.map_err(|error| error.to_string())?.message;
        match message.response_code {
            ResponseCode::NoError | ResponseCode::NXDomain
                if message.authoritative || server.name.is_none() =>
            {
                Ok(message)
            }
            ResponseCode::NoError | ResponseCode::NXDomain => {
                Err("does not serve the zone".to_owned())
            }
            code => Err(format!("answers {}", code_name(code))),
        }
    }

    /// What the resolvers say.
    async fn resolve(&self, name: &HostName, kind: RecordType) -> Result<Message, DnsError> {
        let resolvers = match &*self.options.resolvers {
            [] => resolvers::of_the_system().await?,
            configured => configured.to_vec(),
        };
        let question = exchange::question(exchange::wire(name)?, kind, true);
        let mut troubles = Vec::new();
        for resolver in resolvers {
            match exchange::query_server(resolver, &question, self.options.patience).await {
                Ok(answer) => match answer.message.response_code {
                    ResponseCode::NoError | ResponseCode::NXDomain => return Ok(answer.message),
                    code => troubles.push(format!("{resolver} answers {}", code_name(code))),
                },
                Err(trouble) => troubles.push(format!("{resolver} {trouble}")),
            }
        }
        Err(DnsError::Unreachable(format!(
            "no resolver returned the {kind} records of {name}: {}",
            troubles.join("; ")
        )))
    }

    /// The addresses of a name server, for which the resolvers' word will do.
    async fn resolved_addresses(&self, name: &HostName) -> Result<Vec<IpAddr>, DnsError> {
        let (four, six) = futures::join!(
            self.resolve(name, RecordType::A),
            self.resolve(name, RecordType::AAAA)
        );
        let records = four?.answers.into_iter().chain(six?.answers);
        Ok(records.filter_map(|record| record.data.ip_addr()).collect())
    }
}

/// Follows the aliases of one answer from `at` on, and adds each to all that were followed.
fn follow_cnames(
    answer: &Message,
    at: &HostName,
    aliases: &mut Vec<HostName>,
) -> Result<HostName, DnsError> {
    let mut at = at.clone();
    loop {
        let wire = exchange::wire(&at)?;
        let target = answer.answers.iter().find_map(|record| match &record.data {
            RData::CNAME(target) if record.name == wire => Some(&target.0),
            _ => None,
        });
        let Some(target) = target else {
            return Ok(at);
        };
        let Some(next) = host(target) else {
            return Err(DnsError::Refused(format!(
                "{at} is an alias (CNAME) of {target}, which is not a host name"
            )));
        };
        let wrong = if aliases.contains(&next) {
            "leads in a loop"
        } else if aliases.len() > MOST_ALIASES {
            "leads over more than 8 aliases"
        } else {
            aliases.push(next.clone());
            at = next;
            continue;
        };
        let way: Vec<_> = aliases
            .iter()
            .chain([&next])
            .map(HostName::as_str)
            .collect();
        return Err(DnsError::Refused(format!(
            "the alias (CNAME) {wrong}: {}",
            way.join(" → ")
        )));
    }
}

fn is(record: &Record, name: &Name, kind: RecordType) -> bool {
    record.record_type() == kind && record.name == *name
}

fn host(name: &Name) -> Option<HostName> {
    name.to_ascii().parse().ok()
}
