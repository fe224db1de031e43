//! Sets records by dynamic update (RFC 2136) at a zone's primary server, signed with a shared key
//! (TSIG, RFC 8945).

use std::net::SocketAddr;
use std::time::Duration;

use async_trait::async_trait;
use hickory_proto::op::{Message, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::TXT;
use hickory_proto::rr::rdata::tsig::{TsigAlgorithm, TsigError};
use hickory_proto::rr::{DNSClass, RData, Record, RecordType, TSigVerifier, TSigner};

use super::exchange::{self, Answer, code_name, text};
use super::{DnsError, DnsProvider, TxtRecord};
use crate::clock::{Clock, SystemClock};
use crate::config::model::{self, NameServer};
use crate::host::HostName;

/// How far the clocks may differ, as recommended by RFC 8945, section 10.
const FUDGE: u16 = 300;

/// How long a response may take. The server may write to its disk first.
const PATIENCE: Duration = Duration::from_secs(5);

/// The maximum length of one string of a TXT record (RFC 1035, section 3.3).
const LONGEST_TEXT: usize = 255;

/// Sets records at a name server.
pub struct Rfc2136Provider {
    name: String,
    server: NameServer,
    key: Option<TSigner>,
    ttl: u32,
}

impl Rfc2136Provider {
    /// The provider of the entry `name`, whose records have a TTL of `ttl` seconds.
    ///
    /// # Errors
    /// If the key cannot be used.
    pub fn new(name: &str, config: &model::Rfc2136, ttl: u32) -> Result<Self, DnsError> {
        let key = config.tsig.as_ref().map(|tsig| signer(name, tsig));
        Ok(Self {
            name: name.to_owned(),
            server: config.server.clone(),
            key: key.transpose()?,
            ttl,
        })
    }

    /// The message that adds or removes a record.
    fn update_message(
        &self,
        zone: &HostName,
        record: &TxtRecord,
        class: DNSClass,
    ) -> Result<Message, DnsError> {
        let TxtRecord { name, value } = record;
        let (zone_wire, wire) = (exchange::wire(zone)?, exchange::wire(name)?);
        if !zone_wire.zone_of(&wire) {
            return Err(DnsError::Refused(format!(
                "{name} is not in the zone {zone}"
            )));
        }
        if value.len() > LONGEST_TEXT {
            return Err(DnsError::Refused(format!(
                "the value for {name} is {} octets long, and {LONGEST_TEXT} is the maximum",
                value.len()
            )));
        }
        let mut message = Message::query();
        message.metadata.op_code = OpCode::Update;
        message.metadata.recursion_desired = false;
        message.add_query(Query::query(zone_wire, RecordType::SOA));
        // A record to remove has the class NONE and a TTL of zero (RFC 2136, section 2.5.4).
        let ttl = if class == DNSClass::IN { self.ttl } else { 0 };
        let data = RData::TXT(TXT::new(vec![value.clone()]));
        let mut record = Record::from_rdata(wire, ttl, data);
        record.dns_class = class;
        message.add_authority(record);
        Ok(message)
    }

    /// Sends a signed message, and returns the response if it is a success.
    async fn send_update(
        &self,
        zone: &HostName,
        mut message: Message,
    ) -> Result<Message, DnsError> {
        let mut verifier = None;
        if let Some(key) = &self.key {
            let now = u64::try_from(SystemClock.now().as_secs()).unwrap_or_default();
            verifier = message
                .finalize(key, now)
                .map_err(|error| DnsError::Refused(format!("cannot sign with the key: {error}")))?;
        }
        let mut troubles = Vec::new();
        for server in self.addresses().await? {
            match exchange::query_server(server, &message, PATIENCE).await {
                Ok(answer) => return self.check_response(server, zone, answer, verifier),
                Err(trouble) => troubles.push(format!("the name server {server} {trouble}")),
            }
        }
        Err(DnsError::Unreachable(troubles.join("; ")))
    }

    async fn addresses(&self) -> Result<Vec<SocketAddr>, DnsError> {
        let (host, port) = match &self.server {
            NameServer::Ip(address) => return Ok(vec![*address]),
            NameServer::Name { host, port } => (host, *port),
        };
        let found = tokio::net::lookup_host((host.as_str(), port)).await;
        let addresses: Vec<_> = found
            .map_err(|error| {
                DnsError::Unreachable(format!("cannot find the name server {host}: {error}"))
            })?
            .collect();
        if addresses.is_empty() {
            return Err(DnsError::Unreachable(format!(
                "the name server {host} has no address"
            )));
        }
        Ok(addresses)
    }

    /// Checks a response.
    fn check_response(
        &self,
        server: SocketAddr,
        zone: &HostName,
        answer: Answer,
        verifier: Option<TSigVerifier>,
    ) -> Result<Message, DnsError> {
        let Answer { message, bytes } = answer;
        let key = self.key.as_ref().map(|key| {
            let name = key.signer_name().to_ascii();
            name.trim_end_matches('.').to_owned()
        });
        if let (Some(key), Some(error)) =
            (&key, message.signature().and_then(|tsig| tsig.data.error))
        {
            return Err(key_trouble(server, zone, key, error));
        }
        let code = message.response_code;
        // A server that does not know the key says so unsigned; a success must be signed.
        if let Some(mut verifier) = verifier
            && is_good(code)
            && let Err(error) = verifier.verify(&bytes)
        {
            return Err(DnsError::Unreachable(format!(
                "the response of the name server {server} is not signed with our key: {error}"
            )));
        }
        let who = format!("the name server {server}");
        Err(match code {
            _ if is_good(code) => return Ok(message),
            ResponseCode::ServFail => DnsError::Unreachable(format!("{who} answers SERVFAIL")),
            ResponseCode::Refused => DnsError::Refused(match key {
                Some(key) => format!(
                    "{who} does not let the key '{key}' change the zone {zone} (REFUSED): allow it \
                     there"
                ),
                None => format!(
                    "{who} does not let us change the zone {zone} (REFUSED): give 'tsig_name' and \
                     'tsig_secret' of a key that may"
                ),
            }),
            // Some servers, such as knot, respond with this to a client that may not change the
            // zone.
            ResponseCode::NotAuth => DnsError::Refused(match key {
                Some(key) => format!(
                    "{who} is not the primary server of the zone {zone}, or does not let the key \
                     '{key}' change it (NOTAUTH): let 'server' be the primary, and allow the key \
                     there"
                ),
                None => format!(
                    "{who} is not the primary server of the zone {zone}, or does not let us change \
                     it without a key (NOTAUTH): let 'server' be the primary, and give 'tsig_name' \
                     and 'tsig_secret'"
                ),
            }),
            ResponseCode::NotImp => DnsError::Refused(format!(
                "{who} does not accept dynamic updates (NOTIMP): allow them there"
            )),
            code => DnsError::Refused(format!(
                "{who} refuses to change the zone {zone}: it answers {}",
                code_name(code)
            )),
        })
    }
}

/// The key, as hickory signs with it.
fn signer(name: &str, tsig: &model::Tsig) -> Result<TSigner, DnsError> {
    let wrong =
        |what: String| DnsError::Refused(format!("the key of the DNS provider '{name}' {what}"));
    let secret = openssl::base64::decode_block(tsig.secret.expose())
        .map_err(|_| wrong("is not base64".to_owned()))?;
    let algorithm = match tsig.algorithm {
        model::TsigAlgorithm::HmacSha256 => TsigAlgorithm::HmacSha256,
        model::TsigAlgorithm::HmacSha384 => TsigAlgorithm::HmacSha384,
        model::TsigAlgorithm::HmacSha512 => TsigAlgorithm::HmacSha512,
    };
    TSigner::new(secret, algorithm, exchange::wire(&tsig.name)?, FUDGE)
        .map_err(|error| wrong(format!("cannot be used: {error}")))
}

fn is_good(code: ResponseCode) -> bool {
    matches!(code, ResponseCode::NoError | ResponseCode::NXDomain)
}

/// A server's objection to the key or its use (RFC 8945, section 5.2).
fn key_trouble(server: SocketAddr, zone: &HostName, key: &str, error: TsigError) -> DnsError {
    let who = format!("the name server {server}");
    DnsError::Refused(match error {
        // Some servers, such as knot, respond with this if they know the key but do not let it
        // change anything.
        TsigError::BadKey => format!(
            "{who} knows no key '{key}' of this algorithm for the zone {zone} (BADKEY): correct \
             'tsig_name' or 'tsig_algorithm', or let the key change the zone there"
        ),
        TsigError::BadSig => {
            format!("{who} has another secret for the key '{key}' (BADSIG): correct 'tsig_secret'")
        }
        TsigError::BadTime => {
            return DnsError::Unreachable(format!(
                "the clock of {who} and ours are more than {FUDGE} s apart (BADTIME): set them right"
            ));
        }
        other => format!(
            "{who} does not accept what is signed with the key '{key}': error {}",
            u16::from(other)
        ),
    })
}

#[async_trait]
impl DnsProvider for Rfc2136Provider {
    fn name(&self) -> &str {
        &self.name
    }

    async fn add(&self, zone: &HostName, record: &TxtRecord) -> Result<(), DnsError> {
        // A server ignores a record that it already has (RFC 2136, section 3.4.2.2).
        let message = self.update_message(zone, record, DNSClass::IN)?;
        self.send_update(zone, message).await.map(drop)
    }

    async fn remove(&self, zone: &HostName, record: &TxtRecord) -> Result<(), DnsError> {
        let message = self.update_message(zone, record, DNSClass::NONE)?;
        self.send_update(zone, message).await.map(drop)
    }

    async fn list(
        &self,
        zone: &HostName,
        name: &HostName,
    ) -> Result<Option<Vec<String>>, DnsError> {
        let wire = exchange::wire(name)?;
        let question = exchange::question(wire.clone(), RecordType::TXT, false);
        let answer = self.send_update(zone, question).await?;
        let own = answer.answers.iter().filter(|record| record.name == wire);
        Ok(Some(own.filter_map(|record| text(&record.data)).collect()))
    }
}
