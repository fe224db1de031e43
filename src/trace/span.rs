//! What is recorded of a request and of each attempt at a server.

use std::borrow::Cow;
use std::time::SystemTime;

/// Something that began and ended.
#[derive(Clone, Debug)]
pub struct Span {
    /// The id of the trace.
    pub trace_id: u128,
    pub id: u64,
    /// The span that caused it, if there is one.
    pub parent: Option<u64>,
    pub kind: SpanKind,
    pub name: String,
    pub begin: SystemTime,
    pub end: SystemTime,
    pub attributes: Vec<(&'static str, Value)>,
    /// Whether it failed. Why, its attributes say.
    pub is_error: bool,
}

/// Who a span belongs to: the side that got the request, or the side that sent it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpanKind {
    Server,
    Client,
}

/// The value of an attribute.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    Text(Cow<'static, str>),
    Integer(i64),
    Number(f64),
}

impl From<&'static str> for Value {
    fn from(text: &'static str) -> Self {
        Self::Text(text.into())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(text.into())
    }
}

impl From<i64> for Value {
    fn from(number: i64) -> Self {
        Self::Integer(number)
    }
}

impl From<f64> for Value {
    fn from(number: f64) -> Self {
        Self::Number(number)
    }
}
