//! Waits until all servers of a zone have a record.

use std::time::Duration;

use futures::future::join_all;
use hickory_proto::rr::RecordType;
use tokio::time::{Instant, sleep};

use super::{Lookups, Server, is};
use crate::dns::exchange::{self, text};
use crate::dns::{DnsError, TxtRecord};
use crate::host::HostName;

/// How to wait for a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Propagation {
    /// The maximum wait.
    pub timeout: Duration,
    /// The time between two checks.
    pub interval: Duration,
    /// How long to wait after all servers have it: one address may be many machines.
    pub wait: Duration,
}

impl Default for Propagation {
    fn default() -> Self {
        Self {
            timeout: Duration::from_secs(120),
            interval: Duration::from_secs(2),
            wait: Duration::ZERO,
        }
    }
}

/// What a server has.
enum ServerAnswer {
    /// The record.
    Record,
    /// This many other TXT records of the name.
    Others(usize),
    /// No usable response, for this reason.
    Nothing(String),
}

impl Lookups {
    /// Waits until all servers of `zone` have exactly this record. A server that is unreachable or
    /// does not serve the zone is ignored if another one responds: a CA asks that one too.
    ///
    /// # Errors
    /// If the time is up, with the servers that lack the record.
    pub async fn wait_for(
        &self,
        zone: &HostName,
        record: &TxtRecord,
        propagation: &Propagation,
    ) -> Result<(), DnsError> {
        let deadline = Instant::now() + propagation.timeout;
        let mut servers = Vec::new();
        loop {
            let Err(trouble) = self.query_all(&mut servers, zone, record).await else {
                sleep(propagation.wait).await;
                return Ok(());
            };
            if Instant::now() + propagation.interval >= deadline {
                return Err(DnsError::Unreachable(format!(
                    "the TXT record of {} was not seen within {} s: {trouble}",
                    record.name,
                    propagation.timeout.as_secs_f64()
                )));
            }
            sleep(propagation.interval).await;
        }
    }

    /// Checks that all servers have the record; the first call finds the servers.
    async fn query_all(
        &self,
        servers: &mut Vec<Server>,
        zone: &HostName,
        record: &TxtRecord,
    ) -> Result<(), DnsError> {
        if servers.is_empty() {
            *servers = self.servers(zone).await?;
        }
        match self.missing(zone, record, servers).await {
            None => Ok(()),
            Some(trouble) => Err(DnsError::Unreachable(trouble)),
        }
    }

    /// The servers that lack the record, for people; `None` if all have it.
    async fn missing(
        &self,
        zone: &HostName,
        record: &TxtRecord,
        servers: &[Server],
    ) -> Option<String> {
        let seen = join_all(
            servers
                .iter()
                .map(|server| self.query_server(server, record)),
        )
        .await;
        let mut lacking = Vec::new();
        let mut silent = Vec::new();
        for (server, seen) in servers.iter().zip(&seen) {
            match seen {
                ServerAnswer::Record => {}
                ServerAnswer::Others(0) => lacking.push(format!("{server} has none there")),
                ServerAnswer::Others(1) => {
                    lacking.push(format!("{server} has another value there"))
                }
                ServerAnswer::Others(count) => {
                    lacking.push(format!("{server} has {count} other values there"));
                }
                ServerAnswer::Nothing(why) => silent.push(format!("{server} {why}")),
            }
        }
        if !lacking.is_empty() {
            return Some(lacking.join("; "));
        }
        if silent.len() < servers.len() {
            return None;
        }
        Some(format!(
            "no name server of the zone {zone} can be reached: {}. Let this machine reach them at \
             port 53, or set other `servers` in `propagation`, or `propagation: off`",
            silent.join("; ")
        ))
    }

    async fn query_server(&self, server: &Server, record: &TxtRecord) -> ServerAnswer {
        let message = match self.at_server(server, &record.name, RecordType::TXT).await {
            Ok(message) => message,
            Err(why) => return ServerAnswer::Nothing(why),
        };
        let name = match exchange::wire(&record.name) {
            Ok(name) => name,
            Err(error) => return ServerAnswer::Nothing(error.to_string()),
        };
        let of_name = message.answers.iter();
        let values: Vec<_> = of_name
            .filter(|answer| is(answer, &name, RecordType::TXT))
            .filter_map(|answer| text(&answer.data))
            .collect();
        if values.contains(&record.value) {
            ServerAnswer::Record
        } else {
            ServerAnswer::Others(values.len())
        }
    }
}
