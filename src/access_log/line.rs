//! One line, as text, as JSON, or as fields of systemd's journal.

use std::io::Write as _;
use std::time::Duration;

use http::header::REFERER;

use super::escape::{Style, escape, escape_word, show};
use super::number::{put_digits, put_number};
use super::record::{Record, Value};
use super::time;
use crate::config::model::{AccessFormat, Column, LinePart, LogField, LogFormat};

/// Appends the line of a record, without its end.
pub(super) fn write_line(format: &AccessFormat, record: &dyn Record, line: &mut Vec<u8>) {
    match format.format {
        LogFormat::Json => write_json(format, record, line),
        LogFormat::Text => write_text(format, record, line),
    }
}

/// Appends what systemd's journal gets of a record: the line, and each value in a field of its own.
pub(super) fn write_journal(format: &AccessFormat, record: &dyn Record, fields: &mut Vec<u8>) {
    fields.extend_from_slice(b"MESSAGE=");
    write_line(format, record, fields);
    fields.push(b'\n');
    let parts = format.parts.iter().filter_map(|part| match part {
        LinePart::Value { column, .. } => Some(column),
        LinePart::Text(_) => None,
    });
    for column in parts.chain(&format.columns) {
        let value = value(format, record, column);
        if is_empty(&value) {
            continue;
        }
        fields.extend_from_slice(b"SNIGATE_");
        let name = column.name().bytes().map(|octet| match octet {
            _ if octet.is_ascii_alphanumeric() => octet.to_ascii_uppercase(),
            _ => b'_',
        });
        fields.extend(name);
        fields.push(b'=');
        put(fields, column, value, Style::Line);
        fields.push(b'\n');
    }
}

fn write_text(format: &AccessFormat, record: &dyn Record, line: &mut Vec<u8>) {
    for part in &format.parts {
        let (column, is_quoted) = match part {
            LinePart::Text(text) => {
                line.extend_from_slice(text.as_bytes());
                continue;
            }
            LinePart::Value { column, is_quoted } => (column, *is_quoted),
        };
        let style = match is_quoted {
            true => Style::Quoted,
            false => Style::Bare,
        };
        match value(format, record, column) {
            value if is_empty(&value) => line.push(b'-'),
            value => put(line, column, value, style),
        }
    }
    for column in &format.columns {
        let value = value(format, record, column);
        if is_empty(&value) {
            continue;
        }
        line.push(b' ');
        line.extend_from_slice(column.name().as_bytes());
        line.push(b'=');
        if let Value::Text(_) = value {
            line.push(b'"');
            put(line, column, value, Style::Quoted);
            line.push(b'"');
        } else {
            put(line, column, value, Style::Bare);
        }
    }
}

fn write_json(format: &AccessFormat, record: &dyn Record, line: &mut Vec<u8>) {
    line.push(b'{');
    let mut is_first = true;
    for column in &format.columns {
        let value = value(format, record, column);
        if matches!(value, Value::None) {
            continue;
        }
        // Names have no character that is to be escaped.
        line.extend_from_slice(if is_first { b"\"" } else { b",\"" });
        is_first = false;
        line.extend_from_slice(column.name().as_bytes());
        line.extend_from_slice(b"\":");
        match value {
            Value::Number(_) | Value::Flag(_) | Value::Time(_) => {
                put(line, column, value, Style::Json);
            }
            _ => {
                line.push(b'"');
                put(line, column, value, Style::Json);
                line.push(b'"');
            }
        }
    }
    line.push(b'}');
}

fn value<'r>(format: &AccessFormat, record: &'r dyn Record, column: &Column) -> Value<'r> {
    let field = match column {
        Column::Field(field) => *field,
        Column::Header(name, _) => {
            return match record.header(name) {
                b"" => Value::None,
                value if format.hides_query && *name == REFERER => {
                    Value::Text(without_query(value))
                }
                value => Value::Text(value),
            };
        }
    };
    let value = record.value(field);
    match (field, value) {
        (LogField::Target | LogField::Referer, Value::Text(text)) if format.hides_query => {
            Value::Text(without_query(text))
        }
        (LogField::Query, _) if format.hides_query => Value::None,
        _ => value,
    }
}

/// What precedes the query and the fragment.
fn without_query(url: &[u8]) -> &[u8] {
    let end = memchr::memchr2(b'?', b'#', url);
    end.and_then(|end| url.get(..end)).unwrap_or(url)
}

fn is_empty(value: &Value<'_>) -> bool {
    matches!(value, Value::None | Value::Text(b"") | Value::Word(""))
}

fn put(line: &mut Vec<u8>, column: &Column, value: Value<'_>, style: Style) {
    match value {
        Value::None => {}
        Value::Text(text) => escape(line, text, style),
        Value::Word(word) => escape_word(line, word, style),
        Value::Shown(shown) => show(line, shown, style),
        Value::Number(number) => put_number(line, number),
        Value::Flag(flag) => line.extend_from_slice(if flag { b"true" } else { b"false" }),
        Value::Time(time) => put_seconds(line, time),
        Value::Moment(moment) if *column == Column::Field(LogField::TimeCombined) => {
            time::write_combined(line, moment);
        }
        Value::Moment(moment) => time::write_iso(line, moment),
        // Writing to a vector does not fail.
        Value::Address(address) => _ = write!(line, "{address}"),
    }
}

fn put_seconds(line: &mut Vec<u8>, time: Duration) {
    put_number(line, time.as_secs());
    line.push(b'.');
    put_digits(line, u64::from(time.subsec_micros()), 6);
}
