//! Looks up the addresses of servers at resolvers, with the time for which an answer holds.
//!
//! It does as the system does: `/etc/hosts` comes first, and the search list and `ndots` of
//! `/etc/resolv.conf` apply. What the system alone can resolve, it resolves. With configured
//! resolvers only these are asked, and `/etc/hosts` still comes first.

mod hosts;
mod search;
#[cfg(test)]
mod tests;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::{RData, RecordType};
use tokio::net::lookup_host;
use tokio::time::timeout;

use self::search::SearchList;
use super::DnsError;
use super::exchange;
use super::lookup::aliases::follow_cnames;
use super::lookup::resolver_race::longest_question;
use super::lookup::{LookupOptions, Lookups};
use crate::host::HostName;

/// How long a response of a resolver may take. A question is sent three times, and after half of
/// that time to the next resolver as well.
const PATIENCE: Duration = Duration::from_secs(1);

/// How long one question takes at most, if all resolvers are silent: 4 s.
const QUESTION: Duration = longest_question(PATIENCE);

/// How long all questions for one type of records may take: 5 s. One may find silent resolvers. The
/// others, for aliases, go to the resolver that has answered.
const TYPE_PATIENCE: Duration = QUESTION.saturating_add(PATIENCE);

/// How long a name may take: 8 s. One name of the search list may take the whole time of its types,
/// which are asked for at once, and the look-up ends if that fails. The others are answered by the
/// resolver that has answered before. What the DNS does not know, the system has to say in the rest.
pub(crate) const NAME_PATIENCE: Duration = TYPE_PATIENCE.saturating_add(Duration::from_secs(3));

/// How long an answer of the system holds, which does not say.
const SYSTEM_TTL: Duration = Duration::from_secs(10);

/// How long an answer holds of which a part is missing.
const PARTIAL_TTL: Duration = Duration::from_secs(5);

/// What a look-up has found, and for how long that holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Found<T> {
    pub(crate) values: Vec<T>,
    pub(crate) ttl: Duration,
    /// Whether nothing is missing because a resolver has failed.
    pub(crate) is_complete: bool,
}

/// An SRV record (RFC 2782).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Service {
    pub(crate) priority: u16,
    pub(crate) weight: u16,
    pub(crate) port: u16,
    pub(crate) target: HostName,
}

/// Looks names up. Caches nothing.
#[derive(Clone, Debug)]
pub(crate) struct StubResolver {
    lookups: Lookups,
    /// Whether the system's resolvers are asked.
    is_system: bool,
}

impl Default for StubResolver {
    fn default() -> Self {
        Self::new(&[])
    }
}

impl StubResolver {
    /// One that asks these resolvers, or the system's if there are none.
    pub(crate) fn new(resolvers: &[SocketAddr]) -> Self {
        Self {
            lookups: Lookups::new(LookupOptions {
                resolvers: resolvers.to_vec(),
                patience: PATIENCE,
                ..LookupOptions::default()
            }),
            is_system: resolvers.is_empty(),
        }
    }

    /// All addresses of a name: none if it has none or does not exist.
    ///
    /// # Errors
    /// If no resolver can tell.
    pub(crate) async fn addresses(&self, name: &HostName) -> Result<Found<IpAddr>, DnsError> {
        in_time(name, self.find_addresses(name, true)).await
    }

    /// The same of a name that is complete, as all names in records are: the search list does not
    /// apply.
    ///
    /// # Errors
    /// If no resolver can tell.
    pub(crate) async fn absolute_addresses(
        &self,
        name: &HostName,
    ) -> Result<Found<IpAddr>, DnsError> {
        in_time(name, self.find_addresses(name, false)).await
    }

    /// The SRV records of a name: none if it has none or does not exist.
    ///
    /// # Errors
    /// If no resolver can tell.
    pub(crate) async fn services(&self, name: &HostName) -> Result<Found<Service>, DnsError> {
        in_time(name, self.find_services(name)).await
    }

    async fn find_addresses(
        &self,
        name: &HostName,
        is_searched: bool,
    ) -> Result<Found<IpAddr>, DnsError> {
        let is_single = is_searched && !name.as_str().contains('.');
        if (self.is_system && is_single) || hosts::is_listed(name).await {
            return ask_system(name.as_str()).await;
        }
        let candidates = match is_searched {
            true => self.candidates(name).await,
            false => vec![name.clone()],
        };
        let mut trouble = None;
        for candidate in candidates {
            match self.addresses_of(&candidate).await {
                Ok(found) if !found.values.is_empty() => return Ok(found),
                Ok(_) => {}
                Err(error) => {
                    // What another candidate has may be of somebody else.
                    trouble = Some(error);
                    break;
                }
            }
        }
        if self.is_system {
            // It may know names by other means than the DNS.
            let found = match is_searched {
                true => ask_system(name.as_str()).await,
                // The dot keeps it from its search list.
                false => ask_system(&format!("{name}.")).await,
            };
            return found.or_else(|_| trouble.map_or_else(|| Ok(nothing()), Err));
        }
        trouble.map_or_else(|| Ok(nothing()), Err)
    }

    async fn find_services(&self, name: &HostName) -> Result<Found<Service>, DnsError> {
        let mut trouble = None;
        for candidate in self.candidates(name).await {
            match self.records(&candidate, RecordType::SRV).await {
                Ok(found) if !found.values.is_empty() => {
                    let services = found.values.iter().filter_map(service);
                    return Ok(Found {
                        values: services.collect(),
                        ttl: found.ttl,
                        is_complete: found.is_complete,
                    });
                }
                Ok(_) => {}
                Err(error) => {
                    trouble = Some(error);
                    break;
                }
            }
        }
        trouble.map_or_else(|| Ok(nothing()), Err)
    }

    /// The names to ask for in turn.
    async fn candidates(&self, name: &HostName) -> Vec<HostName> {
        match self.is_system {
            true => SearchList::of_the_system().await.candidates(name),
            false => vec![name.clone()],
        }
    }

    /// The addresses of both families. It is enough if one of them can be looked up.
    async fn addresses_of(&self, name: &HostName) -> Result<Found<IpAddr>, DnsError> {
        let (four, six) = futures::join!(
            self.records(name, RecordType::A),
            self.records(name, RecordType::AAAA)
        );
        let (found, is_complete) = match (four, six) {
            (Ok(four), Ok(six)) => (vec![four, six], true),
            (Ok(found), Err(error)) | (Err(error), Ok(found)) => {
                if found.values.is_empty() {
                    return Err(error);
                }
                (vec![found], false)
            }
            (Err(error), Err(_)) => return Err(error),
        };
        let with_some = found.iter().filter(|found| !found.values.is_empty());
        let ttl = with_some.map(|found| found.ttl).min();
        let ttl = ttl.unwrap_or(PARTIAL_TTL);
        let data = found.iter().flat_map(|found| &found.values);
        Ok(Found {
            values: data.filter_map(RData::ip_addr).collect(),
            ttl: match is_complete {
                true => ttl,
                false => ttl.min(PARTIAL_TTL),
            },
            is_complete,
        })
    }

    /// The records of a type, behind all aliases.
    async fn records(&self, name: &HostName, kind: RecordType) -> Result<Found<RData>, DnsError> {
        let asking = timeout(TYPE_PATIENCE, self.follow(name, kind));
        asking.await.unwrap_or_else(|_| {
            let why = format!("no resolver returned the {kind} records of {name} in time");
            Err(DnsError::Unreachable(why))
        })
    }

    async fn follow(&self, name: &HostName, kind: RecordType) -> Result<Found<RData>, DnsError> {
        let mut aliases = vec![name.clone()];
        let (mut at, mut ttl) = (name.clone(), u32::MAX);
        loop {
            let message = self.lookups.resolve(&at, kind).await?;
            let end = follow_cnames(&message, &at, &mut aliases)?;
            let wire = exchange::wire(&end)?;
            let is_missing = message.response_code == ResponseCode::NXDomain;
            let mut values = Vec::new();
            for record in message.answers {
                let is_own = record.record_type() == kind && record.name == wire;
                if is_own || record.record_type() == RecordType::CNAME {
                    ttl = ttl.min(record.ttl);
                }
                if is_own {
                    values.push(record.data);
                }
            }
            if !values.is_empty() || end == at || is_missing {
                return Ok(Found {
                    values,
                    ttl: Duration::from_secs(ttl.into()),
                    is_complete: true,
                });
            }
            // The resolver has not followed the aliases to their end.
            at = end;
        }
    }
}

/// What a look-up finds within its time.
async fn in_time<T>(
    name: &HostName,
    looking: impl Future<Output = Result<T, DnsError>>,
) -> Result<T, DnsError> {
    let found = timeout(NAME_PATIENCE, looking).await;
    found.unwrap_or_else(|_| {
        let why = format!("the look-up of {name} took too long");
        Err(DnsError::Unreachable(why))
    })
}

fn nothing<T>() -> Found<T> {
    Found {
        values: Vec::new(),
        ttl: PARTIAL_TTL,
        is_complete: true,
    }
}

/// What a record says; `None` if it says that there is no such service, or is malformed.
fn service(data: &RData) -> Option<Service> {
    let RData::SRV(srv) = data else {
        return None;
    };
    Some(Service {
        priority: srv.priority,
        weight: srv.weight,
        port: srv.port,
        target: srv.target.to_ascii().parse().ok()?,
    })
}

/// What the system says, as other programs of the machine have it.
async fn ask_system(name: &str) -> Result<Found<IpAddr>, DnsError> {
    let unknown = |error: io::Error| DnsError::Unreachable(format!("{name}: {error}"));
    let found = lookup_host((name, 0)).await.map_err(unknown)?;
    let mut values: Vec<IpAddr> = found.map(|address| address.ip()).collect();
    // Each comes once for each type of socket.
    values.dedup();
    Ok(Found {
        values,
        ttl: SYSTEM_TTL,
        is_complete: true,
    })
}
