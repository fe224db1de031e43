//! Makes the sender of each kind of recipient.

use std::sync::Arc;

use super::Sender;
use super::exec::ExecSender;
use super::mail::MailSender;
use super::service::ServiceSender;
use super::webhook::WebhookSender;
use crate::clock::Clock;
use crate::config::model::{Hook, Recipient};

/// The sender for a hook's recipient. May read files, and contacts nobody.
///
/// # Errors
/// What is missing, without secrets.
pub(super) fn open_sender(hook: &Hook, clock: Arc<dyn Clock>) -> Result<Arc<dyn Sender>, String> {
    Ok(match &hook.recipient {
        Recipient::Webhook(webhook) => Arc::new(WebhookSender::open(webhook, clock)?),
        Recipient::Exec(exec) => Arc::new(ExecSender::new(&hook.name, exec)),
        Recipient::Service(service) => {
            let sender = ServiceSender::new(service, clock);
            Arc::new(sender.map_err(|error| format!("{} cannot be reached: {error}", hook.name))?)
        }
        Recipient::Mail(mail) => {
            let sender = MailSender::new(mail);
            Arc::new(sender.map_err(|error| format!("{} cannot be reached: {error}", hook.name))?)
        }
    })
}
