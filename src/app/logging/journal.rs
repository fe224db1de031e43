//! Events as fields of systemd's journal.

use std::fmt::{self, Write as _};

use tracing::Event;
use tracing::field::{Field, Visit};

use crate::printable;

/// What an event begins with.
pub(super) const MESSAGE: &str = "MESSAGE=";

/// The message of an event, and its fields.
#[derive(Default)]
struct Fields {
    message: String,
    others: String,
    /// Each on a line of its own.
    named: String,
}

impl Visit for Fields {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.take(field, value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.take(field, &format!("{value:?}"));
    }
}

impl Fields {
    fn take(&mut self, field: &Field, value: &str) {
        let value = printable::line(value);
        if field.name() == "message" {
            self.message = value.into_owned();
            return;
        }
        let name = field.name().replace('.', "_");
        // Writing to a text does not fail.
        _ = write!(self.others, " {name}={value}");
        _ = writeln!(self.named, "SNIGATE_{}={value}", name.to_ascii_uppercase());
    }
}

/// Writes the fields of an event: its message, and each of its fields in one of its own.
pub(super) fn write_event(event: &Event<'_>, out: &mut dyn fmt::Write) -> fmt::Result {
    let mut fields = Fields::default();
    event.record(&mut fields);
    writeln!(out, "{MESSAGE}{}{}", fields.message, fields.others)?;
    writeln!(out, "SNIGATE_MODULE={}", event.metadata().target())?;
    out.write_str(&fields.named)
}
