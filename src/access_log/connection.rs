//! Connections that ended before there was a request.

use std::net::IpAddr;
use std::time::Duration;

use super::record::{Record, Value};
use crate::clock::UnixTime;
use crate::config::model::LogField;

/// A connection that was refused, or whose handshake failed.
#[derive(Clone, Copy, Debug)]
pub struct RefusedConnection<'a> {
    pub time: UnixTime,
    /// `None` for one that has no address: it is on a Unix socket.
    pub client: Option<IpAddr>,
    /// `TLS` or `TCP`.
    pub version: &'a str,
    pub duration: Option<Duration>,
    /// The name that the client requests, as it was sent.
    pub server_name: Option<&'a str>,
    /// Why its handshake failed, in the word of the metrics.
    pub failed: Option<&'a str>,
    /// Why it was refused, as a word.
    pub refused: &'a str,
    /// The same in other words, where they say more.
    pub reason: Option<&'a str>,
    /// How many lines of this kind were left out before this one.
    pub held_back: u64,
}

impl Record for RefusedConnection<'_> {
    fn value(&self, field: LogField) -> Value<'_> {
        match field {
            LogField::Time | LogField::TimeCombined => Value::Moment(self.time),
            LogField::Client => client(self.client),
            LogField::Version => Value::Word(self.version),
            LogField::Status | LogField::Bytes => Value::Number(0),
            LogField::Duration => self.duration.into(),
            LogField::Sni => text(self.server_name),
            LogField::Failed => self.failed.into(),
            LogField::Refused => Value::Word(self.refused),
            LogField::Reason => text(self.reason),
            LogField::HeldBack if self.held_back > 0 => Value::Number(self.held_back),
            _ => Value::None,
        }
    }
}

/// A client's address.
pub fn client(address: Option<IpAddr>) -> Value<'static> {
    address.map_or(Value::Word("unix"), Value::Address)
}

fn text(text: Option<&str>) -> Value<'_> {
    text.map_or(Value::None, |text| Value::Text(text.as_bytes()))
}
