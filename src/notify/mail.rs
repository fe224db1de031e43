//! Mail: one for each notification, by an SMTP server that accepts it for its recipient.
//!
//! A connection serves one mail. Credentials and mails are sent over TLS alone, unless TLS is switched
//! off for a server on this machine.

mod connection;
mod letter;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use lettre::Address;
use lettre::transport::smtp::Error;
use lettre::transport::smtp::authentication::{Credentials, Mechanism};
use lettre::transport::smtp::client::AsyncSmtpConnection;
use lettre::transport::smtp::commands::{Data, Mail as MailFrom, Rcpt};
use openssl::base64::encode_block;
use openssl::ssl::SslConnector;

use super::notification::Notification;
use super::sender::{DeliveryError, Retry, Sender};
use crate::config::model::{Mail, MailTls};
use crate::http_client::{self, HttpError};
use crate::printable::one_line;
use crate::program::without_secrets;
use crate::secret::Secret;

/// How much of what a server says is shown, in characters.
const MAX_SAID: usize = 300;

/// How many entries a mail may have: the text names a part of them, and counts all.
const MAX_ENTRIES: usize = 1000;

/// How long the end of a connection may take: the mail is delivered by then.
const FAREWELL: Duration = Duration::from_secs(5);

/// How long to wait with a mail that the server has got and not confirmed: each attempt may be a copy.
const UNCONFIRMED: Duration = Duration::from_secs(30 * 60);

/// The mechanisms of authentication, the preferred first.
const MECHANISMS: [Mechanism; 2] = [Mechanism::Plain, Mechanism::Login];

/// Delivers notifications as mail.
pub(super) struct MailSender {
    config: Mail,
    from: Address,
    to: Address,
    /// `None` without TLS.
    tls: Option<SslConnector>,
    /// The server, for messages.
    place: String,
    /// What is not to be shown if the server sends it back.
    secrets: Vec<Secret>,
    /// Whether the server may have the mail whose delivery is under way.
    is_handed_over: AtomicBool,
}

impl MailSender {
    /// A sender of mail as `config` describes it.
    ///
    /// # Errors
    /// If the roots to trust cannot be read.
    pub(super) fn new(config: &Mail) -> Result<Self, HttpError> {
        let tls = match config.tls {
            MailTls::Off => None,
            MailTls::StartTls | MailTls::Implicit => {
                Some(http_client::tls_connector(config.ca_file.as_deref())?)
            }
        };
        let parse = |address: &str| {
            let parsed = address.parse::<Address>();
            // The configuration has been checked.
            parsed.map_err(|error| HttpError::Broken(format!("{address}: {error}")))
        };
        Ok(Self {
            from: parse(&config.from.address)?,
            to: parse(&config.to.address)?,
            secrets: secrets(config),
            tls,
            place: format!("mail server {}:{}", config.host, config.port),
            config: config.clone(),
            is_handed_over: AtomicBool::new(false),
        })
    }

    async fn send(&self, notification: &Notification, mail: &[u8]) -> Result<(), DeliveryError> {
        let mut connection = self.connect(&notification.gateway).await?;
        let sent = self.transmit(&mut connection, mail).await;
        let _ = tokio::time::timeout(FAREWELL, connection.abort()).await;
        sent
    }

    /// A connection over which mail may be sent.
    async fn connect(&self, gateway: &str) -> Result<AsyncSmtpConnection, DeliveryError> {
        let hello = connection::hello(gateway);
        let stream = connection::open(&self.config, self.tls.as_ref(), &hello)
            .await
            .map_err(|error| self.located(error))?;
        let mut connection = AsyncSmtpConnection::connect_with_transport(Box::new(stream), &hello)
            .await
            .map_err(|error| self.obstacle("greet it", &error))?;
        if let Some((user, password)) = &self.config.credentials {
            if self.tls.is_none() {
                let why = "credentials are not sent without TLS";
                return Err(self.located(DeliveryError::never(why)));
            }
            let credentials = Credentials::new(user.clone(), password.expose().to_owned());
            let logged_in = connection.auth(&MECHANISMS, &credentials).await;
            logged_in
                .map_err(|error| self.obstacle("log in, check 'user' and 'password'", &error))?;
        }
        Ok(connection)
    }

    /// Sends the mail.
    async fn transmit(
        &self,
        connection: &mut AsyncSmtpConnection,
        mail: &[u8],
    ) -> Result<(), DeliveryError> {
        let from = MailFrom::new(Some(self.from.clone()), Vec::new());
        let answer = connection.command(from).await;
        answer.map_err(|error| self.obstacle("send from this address", &error))?;
        let answer = connection.command(Rcpt::new(self.to.clone(), Vec::new()));
        answer
            .await
            .map_err(|error| self.failure(&format!("send to {}", self.to), &error))?;
        let answer = connection.command(Data).await;
        answer.map_err(|error| self.failure("send a mail", &error))?;
        self.is_handed_over.store(true, Ordering::Relaxed);
        let answer = connection.message(mail).await;
        if let Err(error) = answer {
            let is_answer = error.is_transient() || error.is_permanent();
            self.is_handed_over.store(!is_answer, Ordering::Relaxed);
            return Err(self.failure("send a mail", &error));
        }
        self.is_handed_over.store(false, Ordering::Relaxed);
        Ok(())
    }

    /// The error for an answer that comes before the mail is named: it is about the gateway, whose
    /// credentials or address may be put right meanwhile, and so the mail waits.
    fn obstacle(&self, doing: &str, error: &Error) -> DeliveryError {
        DeliveryError {
            retry: Retry::Later,
            ..self.failure(doing, error)
        }
    }

    /// The error for an answer of the server, or for its absence.
    fn failure(&self, doing: &str, error: &Error) -> DeliveryError {
        let said = without_secrets(&error.to_string(), &self.secrets);
        let message = format!("cannot {doing}: {}", one_line(&said, MAX_SAID));
        self.located(match error.is_permanent() || error.is_client() {
            true => DeliveryError::never(message),
            false => DeliveryError::later(message),
        })
    }

    fn located(&self, error: DeliveryError) -> DeliveryError {
        DeliveryError {
            message: format!("{}: {}", self.place, error.message),
            ..error
        }
    }
}

#[async_trait]
impl Sender for MailSender {
    async fn deliver(&self, notification: &Notification) -> Result<(), DeliveryError> {
        let mail = letter::compose(notification, &self.config).map_err(|why| {
            self.located(DeliveryError::never(format!("cannot write a mail: {why}")))
        })?;
        let patience = self.config.timeout;
        self.is_handed_over.store(false, Ordering::Relaxed);
        let sent = tokio::time::timeout(patience, self.send(notification, &mail)).await;
        let sent = sent.unwrap_or_else(|_| {
            let why = format!("the mail was not taken within {patience:?}");
            Err(self.located(DeliveryError::later(why)))
        });
        sent.map_err(|error| match self.is_handed_over.load(Ordering::Relaxed) {
            true => DeliveryError {
                message: format!("{}, but may arrive: it was sent whole", error.message),
                retry: Retry::After(UNCONFIRMED),
            },
            false => error,
        })
    }

    fn max_entries(&self) -> usize {
        MAX_ENTRIES
    }
}

/// The password, also as it is sent (RFC 4616, section 2, and `AUTH LOGIN`).
fn secrets(config: &Mail) -> Vec<Secret> {
    let Some((user, password)) = &config.credentials else {
        return Vec::new();
    };
    let password = password.expose();
    let plain = format!("\0{user}\0{password}");
    // The longest first: a part of it may be another one.
    vec![
        Secret::new(encode_block(plain.as_bytes())),
        Secret::new(encode_block(password.as_bytes())),
        Secret::new(password.to_owned()),
    ]
}

#[cfg(test)]
mod tests;
