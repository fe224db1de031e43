//! A notification as a mail.

use std::time::{Duration, UNIX_EPOCH};

use lettre::Message;
use lettre::message::Mailbox;
use lettre::message::header::{ContentType, HeaderName, HeaderValue};
use openssl::sha::sha256;

use super::super::notification::Notification;
use super::super::text::{self, PLAIN};
use crate::config::model::{Mail, MailAddress};

/// The longest text of a mail, in octets.
const LONGEST: usize = 64 << 10;

/// The domain of message ids if the gateway's own name is none.
const DOMAIN: &str = "snigate.invalid";

/// The mail with all its fields.
///
/// # Errors
/// If an address cannot be written.
pub(super) fn compose(notification: &Notification, config: &Mail) -> Result<Vec<u8>, String> {
    let domain = domain(&notification.gateway);
    let since = u64::try_from(notification.at.as_secs()).unwrap_or_default();
    let mut builder = Message::builder()
        .from(mailbox(&config.from)?)
        .subject(text::subject(notification))
        .date(UNIX_EPOCH + Duration::from_secs(since))
        // The same for every attempt: a server that has it already may drop the second.
        .message_id(Some(format!("<{}@{domain}>", local(&notification.id))))
        // Nobody's absence is reported to it (RFC 3834, section 5).
        .raw_header(HeaderValue::new(
            HeaderName::new_from_ascii_str("Auto-Submitted"),
            "auto-generated".to_owned(),
        ))
        .header(ContentType::TEXT_PLAIN)
        .to(mailbox(&config.to)?);
    if let Some(trouble) = only_trouble(notification) {
        let thread = format!("<trouble.{}@{domain}>", local(trouble));
        builder = builder.in_reply_to(thread.clone()).references(thread);
    }
    let body = text::body(notification, &PLAIN, LONGEST) + "\n";
    let message = builder.body(body).map_err(|error| error.to_string())?;
    Ok(message.formatted())
}

/// The trouble that all entries report, by which programs put mails together.
fn only_trouble(notification: &Notification) -> Option<&str> {
    let mut troubles = notification.entries.iter().map(|entry| &entry.trouble);
    let first = troubles.next()?.as_deref()?;
    let is_same = troubles.all(|trouble| trouble.as_deref() == Some(first));
    (is_same && notification.omitted == 0).then_some(first)
}

fn mailbox(address: &MailAddress) -> Result<Mailbox, String> {
    let parsed = address.address.parse();
    let parsed = parsed.map_err(|error| format!("{}: {error}", address.address))?;
    Ok(Mailbox::new(address.name.clone(), parsed))
}

/// A text as the local part of a message id.
fn local(text: &str) -> String {
    let good = |char: char| char.is_ascii_alphanumeric() || char == '-' || char == '_';
    if !text.is_empty() && text.len() <= 64 && text.chars().all(good) {
        return text.to_owned();
    }
    let digest = sha256(text.as_bytes());
    let octets = digest.iter().take(16);
    octets.map(|octet| format!("{octet:02x}")).collect()
}

fn domain(gateway: &str) -> &str {
    let is_label = |label: &str| {
        !label.is_empty()
            && label
                .chars()
                .all(|char| char.is_ascii_alphanumeric() || char == '-')
    };
    match gateway.len() <= 200 && gateway.split('.').all(is_label) {
        true => gateway,
        false => DOMAIN,
    }
}
