//! What can be logged of a request or a connection.

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use http::HeaderName;

use crate::clock::UnixTime;
use crate::config::model::LogField;

/// What can be logged of a request or a connection. It is asked only for what the format has.
pub trait Record {
    /// The value of a field.
    fn value(&self, field: LogField) -> Value<'_>;

    /// The first value of a field of the request; empty if there is none.
    fn header(&self, _name: &HeaderName) -> &[u8] {
        b""
    }
}

/// The value of a field.
#[derive(Clone, Copy)]
pub enum Value<'a> {
    /// There is none.
    None,
    /// Anything that others have sent.
    Text(&'a [u8]),
    /// A text without spaces.
    Word(&'a str),
    /// The same, made when it is written.
    Shown(&'a dyn fmt::Display),
    Number(u64),
    Flag(bool),
    /// Shown as seconds.
    Time(Duration),
    Moment(UnixTime),
    Address(IpAddr),
}

impl<'a> From<Option<&'a str>> for Value<'a> {
    fn from(word: Option<&'a str>) -> Self {
        word.map_or(Self::None, Self::Word)
    }
}

impl From<Option<u64>> for Value<'_> {
    fn from(number: Option<u64>) -> Self {
        number.map_or(Self::None, Self::Number)
    }
}

impl From<Option<Duration>> for Value<'_> {
    fn from(time: Option<Duration>) -> Self {
        time.map_or(Self::None, Self::Time)
    }
}
