//! The request that exports spans: `ExportTraceServiceRequest` of OTLP in protobuf.
//!
//! It is one message of five levels, which never changes once released. The crates that have it
//! change with each release and bring a client for HTTP and threads of their own.

use std::time::{SystemTime, UNIX_EPOCH};

use super::span::{Span, SpanKind, Value};

/// The type of the value of a field.
const VARINT: u64 = 0;
const FIXED64: u64 = 1;
const LENGTH_DELIMITED: u64 = 2;
const FIXED32: u64 = 5;

/// Set if the parent of a span is known to be on another machine or not to be.
const HAS_IS_REMOTE: u32 = 0x100;
const IS_REMOTE: u32 = 0x200;
const IS_SAMPLED: u32 = 1;

/// The request that exports `spans` of the service that `resource` describes.
pub(super) fn export_request(resource: &[(&'static str, Value)], spans: &[Span]) -> Vec<u8> {
    let mut request = Message::default();
    request.nested(1, |resource_spans| {
        resource_spans.nested(1, |message| {
            for (key, value) in resource {
                message.nested(1, |attribute| write_attribute(attribute, key, value));
            }
        });
        resource_spans.nested(2, |scope_spans| {
            scope_spans.nested(1, |scope| {
                scope.octets(1, env!("CARGO_PKG_NAME").as_bytes());
                scope.octets(2, env!("CARGO_PKG_VERSION").as_bytes());
            });
            for span in spans {
                scope_spans.nested(2, |message| write_span(message, span));
            }
        });
    });
    request.0
}

/// How many spans a collector has rejected, and why, by its `ExportTraceServiceResponse`.
pub(super) fn rejected_spans(response: &[u8]) -> (u64, String) {
    let mut rejected = (0, String::new());
    for (field, content) in fields(response) {
        if let (1, Content::Octets(partial)) = (field, content) {
            for (field, content) in fields(partial) {
                match (field, content) {
                    (1, Content::Number(count)) => rejected.0 = count,
                    (2, Content::Octets(why)) => {
                        rejected.1 = String::from_utf8_lossy(why).chars().take(200).collect();
                    }
                    _ => {}
                }
            }
        }
    }
    rejected
}

/// What a field has.
enum Content<'a> {
    Number(u64),
    Octets(&'a [u8]),
}

/// The fields of a message, as far as it can be read.
fn fields(mut message: &[u8]) -> impl Iterator<Item = (u64, Content<'_>)> {
    std::iter::from_fn(move || {
        let key = read_varint(&mut message)?;
        let content = match key & 7 {
            VARINT => Content::Number(read_varint(&mut message)?),
            LENGTH_DELIMITED => {
                let length = usize::try_from(read_varint(&mut message)?).ok()?;
                Content::Octets(message.split_off(..length)?)
            }
            FIXED64 => Content::Octets(message.split_off(..8)?),
            FIXED32 => Content::Octets(message.split_off(..4)?),
            _ => return None,
        };
        Some((key >> 3, content))
    })
}

fn read_varint(message: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let octet = *message.split_off_first()?;
        number |= u64::from(octet & 0x7f) << shift;
        if octet < 0x80 {
            return Some(number);
        }
    }
    None
}

fn write_span(message: &mut Message, span: &Span) {
    message.octets(1, &span.trace_id.to_be_bytes());
    message.octets(2, &span.id.to_be_bytes());
    if let Some(parent) = span.parent {
        message.octets(4, &parent.to_be_bytes());
    }
    message.octets(5, span.name.as_bytes());
    message.integer(
        6,
        match span.kind {
            SpanKind::Server => 2,
            SpanKind::Client => 3,
        },
    );
    message.fixed64(7, nanoseconds(span.begin));
    message.fixed64(8, nanoseconds(span.end));
    for (key, value) in &span.attributes {
        message.nested(9, |attribute| write_attribute(attribute, key, value));
    }
    if span.is_error {
        message.nested(15, |status| status.integer(3, 2));
    }
    let is_remote = match span.kind {
        SpanKind::Server => IS_REMOTE,
        SpanKind::Client => 0,
    };
    message.fixed32(16, HAS_IS_REMOTE | is_remote | IS_SAMPLED);
}

fn write_attribute(message: &mut Message, key: &str, value: &Value) {
    message.octets(1, key.as_bytes());
    message.nested(2, |any| match value {
        Value::Text(text) => any.octets(1, text.as_bytes()),
        Value::Integer(number) => any.integer(3, *number),
        Value::Number(number) => any.fixed64(4, number.to_bits()),
    });
}

/// Since the Unix epoch; zero for times before.
fn nanoseconds(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

/// A message of protobuf that is being written.
#[derive(Default)]
struct Message(Vec<u8>);

impl Message {
    fn key(&mut self, field: u64, kind: u64) {
        self.varint(field << 3 | kind);
    }

    fn varint(&mut self, mut number: u64) {
        while number >= 0x80 {
            // The lowest seven bits, and that there are more.
            self.0.push((number & 0x7f) as u8 | 0x80);
            number >>= 7;
        }
        self.0.push(number as u8);
    }

    fn integer(&mut self, field: u64, number: i64) {
        self.key(field, VARINT);
        self.varint(number.cast_unsigned());
    }

    fn fixed64(&mut self, field: u64, number: u64) {
        self.key(field, FIXED64);
        self.0.extend_from_slice(&number.to_le_bytes());
    }

    fn fixed32(&mut self, field: u64, number: u32) {
        self.key(field, FIXED32);
        self.0.extend_from_slice(&number.to_le_bytes());
    }

    fn octets(&mut self, field: u64, octets: &[u8]) {
        self.key(field, LENGTH_DELIMITED);
        self.varint(octets.len() as u64);
        self.0.extend_from_slice(octets);
    }

    fn nested(&mut self, field: u64, write: impl FnOnce(&mut Self)) {
        let mut inner = Self::default();
        write(&mut inner);
        self.octets(field, &inner.0);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
    use opentelemetry_proto::tonic::common::v1::any_value::Value as AnyValue;
    use opentelemetry_proto::tonic::common::v1::{AnyValue as Any, KeyValue};
    use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
    use prost::Message as _;

    use super::*;

    #[test]
    fn what_a_collector_rejects_is_read() {
        use opentelemetry_proto::tonic::collector::trace::v1::{
            ExportTracePartialSuccess, ExportTraceServiceResponse,
        };
        let response = ExportTraceServiceResponse {
            partial_success: Some(ExportTracePartialSuccess {
                rejected_spans: 300,
                error_message: "too many".to_owned(),
            }),
        };
        let read = rejected_spans(&response.encode_to_vec());
        assert_eq!(read, (300, "too many".to_owned()));
        assert_eq!(rejected_spans(b""), (0, String::new()));
        for broken in [
            &b"\x0a\xff"[..],
            b"\x0a",
            b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff",
            b"{}",
        ] {
            assert_eq!(rejected_spans(broken).0, 0);
        }
    }

    fn attribute(key: &str, value: AnyValue) -> KeyValue {
        KeyValue {
            key: key.to_owned(),
            value: Some(Any { value: Some(value) }),
            ..KeyValue::default()
        }
    }

    #[test]
    fn the_official_schema_reads_what_is_written() {
        let begin = UNIX_EPOCH + Duration::new(1_700_000_000, 5);
        let server = Span {
            trace_id: 0x0102_0304_0506_0708_090a_0b0c_0d0e_0f10,
            id: 7,
            parent: Some(9),
            kind: SpanKind::Server,
            name: "GET /".to_owned(),
            begin,
            end: begin + Duration::from_millis(3),
            attributes: vec![
                ("url.path", "/a".into()),
                ("http.response.status_code", 502.into()),
                ("negative", (-1).into()),
                ("share", 0.25.into()),
                ("long", "x".repeat(300).into()),
            ],
            is_error: true,
        };
        let client = Span {
            id: 8,
            parent: Some(7),
            kind: SpanKind::Client,
            attributes: Vec::new(),
            is_error: false,
            ..server.clone()
        };
        let resource = [("service.name", Value::from("edge"))];
        let written = export_request(&resource, &[server, client]);

        let read = ExportTraceServiceRequest::decode(&*written).expect("a message");
        // A field that the schema does not know, or one out of order, would be lost or moved.
        assert_eq!(read.encode_to_vec(), written);
        let [of_resource] = read.resource_spans.as_slice() else {
            panic!("{read:?}")
        };
        let attributes = &of_resource
            .resource
            .as_ref()
            .expect("a resource")
            .attributes;
        let text = |text: &str| AnyValue::StringValue(text.to_owned());
        assert_eq!(*attributes, [attribute("service.name", text("edge"))]);
        let [of_scope] = of_resource.scope_spans.as_slice() else {
            panic!("{read:?}")
        };
        let scope = of_scope.scope.as_ref().expect("a scope");
        assert_eq!(scope.name, "snigate");
        let [server, client] = of_scope.spans.as_slice() else {
            panic!("{read:?}")
        };
        let trace_id: Vec<u8> = (1..=16).collect();
        assert_eq!(server.trace_id, trace_id);
        assert_eq!(server.span_id, [0, 0, 0, 0, 0, 0, 0, 7]);
        assert_eq!(server.parent_span_id, [0, 0, 0, 0, 0, 0, 0, 9]);
        assert_eq!((server.kind, client.kind), (2, 3));
        assert_eq!(server.start_time_unix_nano, 1_700_000_000_000_000_005);
        assert_eq!(
            server.end_time_unix_nano - server.start_time_unix_nano,
            3_000_000
        );
        let long = "x".repeat(300);
        assert_eq!(
            server.attributes,
            [
                attribute("url.path", text("/a")),
                attribute("http.response.status_code", AnyValue::IntValue(502)),
                attribute("negative", AnyValue::IntValue(-1)),
                attribute("share", AnyValue::DoubleValue(0.25)),
                attribute("long", text(&long)),
            ]
        );
        let status = server.status.as_ref().expect("a status");
        assert_eq!(status.code(), StatusCode::Error);
        assert!(client.status.is_none());
        assert_eq!((server.flags, client.flags), (0x301, 0x101));
    }
}
