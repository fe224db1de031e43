//! Looks names up in the DNS as a CA does: at the authoritative name servers.
//!
//! The resolvers find the zone of a name and its servers, which are then asked directly: a resolver
//! caches what it was told, including that there is no such record, while the response that counts
//! is the one that a CA gets next.

pub(super) mod aliases;
mod caa;
mod propagation;
pub(super) mod resolver_race;
pub(super) mod resolvers;

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use futures::stream::{FuturesUnordered, StreamExt};
use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::{Name, RData, Record, RecordType};

use crate::dns::DnsError;
use crate::dns::exchange::{self, PORT, code_name, text};
use crate::host::HostName;

use self::aliases::follow_cnames;
use self::resolver_race::ResolverRace;

pub use caa::{Caa, CaaRecord};
pub use propagation::Propagation;

/// How many of a zone's servers are asked at once for the same record.
const ASKED_AT_ONCE: usize = 6;

/// Which servers [`Lookups`] ask.
#[derive(Clone, Debug)]
pub struct LookupOptions {
    /// The resolvers; if empty, the system's (`/etc/resolv.conf`).
    pub resolvers: Vec<SocketAddr>,
    /// Servers to ask instead of a zone's own, if not empty. They may be resolvers.
    pub servers: Vec<SocketAddr>,
    /// How long a response may take; a question is sent three times. After half of that time, the
    /// next resolver is asked as well.
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

/// Looks names up. Caches nothing.
#[derive(Clone, Debug)]
pub struct Lookups {
    options: LookupOptions,
    race: Arc<ResolverRace>,
}

/// A name server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// Its name; `None` for a configured address.
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
    /// The end of the aliases; the name itself if there are none.
    name: HostName,
    records: Vec<RData>,
}

impl Lookups {
    /// Creates lookups with these options.
    pub fn new(options: LookupOptions) -> Self {
        Self {
            options,
            race: Arc::default(),
        }
    }

    /// The name that `name` stands for: the end of its aliases (CNAME, also from a DNAME), or
    /// `name` itself. It need not have any record.
    ///
    /// # Errors
    /// If the lookup fails, or the aliases lead in a circle or are more than 8.
    pub async fn target(&self, name: &HostName) -> Result<HostName, DnsError> {
        Ok(self.look_up(name, RecordType::TXT).await?.name)
    }

    /// The zone of a name: the nearest name at or above it that has an SOA record.
    ///
    /// # Errors
    /// If the lookup fails, or not even the last label exists.
    pub async fn zone(&self, name: &HostName) -> Result<HostName, DnsError> {
        let mut at = name.clone();
        loop {
            let wire = exchange::wire(&at)?;
            let answer = self.resolve(&at, RecordType::SOA).await?;
            // The record of an alias's target says nothing about the alias.
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
    /// If none is found.
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

    /// The values of a name's TXT records, their strings joined.
    ///
    /// # Errors
    /// If the lookup fails.
    pub async fn txt(&self, name: &HostName) -> Result<Vec<String>, DnsError> {
        let found = self.look_up(name, RecordType::TXT).await?;
        Ok(found.records.iter().filter_map(text).collect())
    }

    /// The addresses of a name: none if it has none or does not exist.
    ///
    /// # Errors
    /// If the lookup fails.
    pub async fn addresses(&self, name: &HostName) -> Result<Vec<IpAddr>, DnsError> {
        let (four, six) = futures::join!(
            self.look_up(name, RecordType::A),
            self.look_up(name, RecordType::AAAA)
        );
        let records = four?.records.into_iter().chain(six?.records);
        Ok(records.filter_map(|data| data.ip_addr()).collect())
    }

    /// The CAA records that apply to a name: its own, or those of the nearest parent that has any
    /// (RFC 8659, section 3). For a wildcard, those of the name after `*.`.
    ///
    /// # Errors
    /// If the lookup fails, which forbids a CA to issue.
    pub async fn caa(&self, name: &HostName) -> Result<Caa, DnsError> {
        let mut at = Some(name.clone());
        let mut zone = None;
        while let Some(here) = at {
            let found = self.look_up_in(&mut zone, &here, RecordType::CAA).await?;
            let records: Vec<_> = found.records.iter().filter_map(caa::record).collect();
            if !records.is_empty() {
                return Ok(Caa {
                    at: Some(here),
                    records,
                });
            }
            at = here.parent().and_then(|parent| parent.parse().ok());
            // A parent is in the same zone, up to the zone's own name.
            zone = zone.filter(|zone| zone.name != here);
        }
        Ok(Caa::default())
    }

    /// The records of a type, behind all aliases.
    async fn look_up(&self, name: &HostName, kind: RecordType) -> Result<Found, DnsError> {
        self.look_up_in(&mut None, name, kind).await
    }

    /// [`Self::look_up`] for a name whose zone may be known, and is known afterwards.
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
            // Other servers may be authoritative for the target.
            at = followed;
            answer = self.at_servers(&mut None, &at, kind).await?;
        }
    }

    /// The response of the servers of a name's zone, or of the resolvers if none of those responds.
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
        // Configured servers are asked about all names.
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

    /// A server's response, or why it is of no use, for people.
    async fn at_server(
        &self,
        server: &Server,
        name: &HostName,
        kind: RecordType,
    ) -> Result<Message, String> {
        let name = exchange::wire(name).map_err(|error| error.to_string())?;
        // A configured server may be a resolver.
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

    /// The response of the resolvers.
    ///
    /// # Errors
    /// If none of them can tell.
    pub(super) async fn resolve(
        &self,
        name: &HostName,
        kind: RecordType,
    ) -> Result<Message, DnsError> {
        let resolvers = match &*self.options.resolvers {
            [] => resolvers::of_the_system().await?,
            configured => configured.to_vec(),
        };
        let question = exchange::question(exchange::wire(name)?, kind, true);
        let patience = self.options.patience;
        let answer = self.race.ask(resolvers, &question, patience).await;
        answer.map_err(|troubles| {
            DnsError::Unreachable(format!(
                "no resolver returned the {kind} records of {name}: {troubles}"
            ))
        })
    }

    /// The addresses of a name server, according to the resolvers, whose cache is good enough for
    /// that.
    async fn resolved_addresses(&self, name: &HostName) -> Result<Vec<IpAddr>, DnsError> {
        let (four, six) = futures::join!(
            self.resolve(name, RecordType::A),
            self.resolve(name, RecordType::AAAA)
        );
        let records = four?.answers.into_iter().chain(six?.answers);
        Ok(records.filter_map(|record| record.data.ip_addr()).collect())
    }
}

fn is(record: &Record, name: &Name, kind: RecordType) -> bool {
    record.record_type() == kind && record.name == *name
}

fn host(name: &Name) -> Option<HostName> {
    name.to_ascii().parse().ok()
}
