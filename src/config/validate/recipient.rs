//! Recipients of `events` that are read by people: services, and mail. Nobody is contacted.

use std::collections::HashSet;
use std::path::PathBuf;
use std::time::Duration;

use http::HeaderValue;
use lettre::message::Mailbox;

use super::client::{report_user, roots, roots_for, secret_url};
use super::context::Context;
use super::value::url;
use crate::config::model::{
    Alertmanager, Mail, MailAddress, MailTls, Ntfy, PagerDuty, Service, ServiceWebhook, Telegram,
};
use crate::config::problem::At;
use crate::config::schema;
use crate::host::{HostName, Identifier};
use crate::secret::Secret;

const SECOND: Duration = Duration::from_secs(1);

/// How long the delivery of a mail may take at most.
const LONGEST_DELIVERY: Duration = Duration::from_secs(300);

/// The longest name of a topic.
const LONGEST_TOPIC: usize = 64;

/// The services among the recipients of an entry; `None` within where one is wrong.
pub(super) fn services(
    ctx: &mut Context<'_>,
    raw: &schema::Hook,
    at: &At<'_>,
) -> Vec<Option<Service>> {
    let mut services = Vec::new();
    if let Some(raw) = &raw.slack {
        let at = at.key("slack");
        let webhook = webhook(ctx, raw.url.as_ref(), raw.ca_file.as_deref(), &at);
        services.push(webhook.map(Service::Slack));
    }
    if let Some(raw) = &raw.discord {
        let webhook = webhook(ctx, raw.url.as_ref(), None, &at.key("discord"));
        services.push(webhook.map(Service::Discord));
    }
    if let Some(raw) = &raw.teams {
        let webhook = webhook(ctx, raw.url.as_ref(), None, &at.key("teams"));
        services.push(webhook.map(Service::Teams));
    }
    if let Some(raw) = &raw.telegram {
        services.push(telegram(ctx, raw, &at.key("telegram")).map(Service::Telegram));
    }
    if let Some(raw) = &raw.ntfy {
        services.push(ntfy(ctx, raw, &at.key("ntfy")).map(Service::Ntfy));
    }
    if let Some(raw) = &raw.pagerduty {
        services.push(pagerduty(ctx, raw, &at.key("pagerduty")).map(Service::PagerDuty));
    }
    if let Some(raw) = &raw.alertmanager {
        let alertmanager = alertmanager(ctx, raw, &at.key("alertmanager"));
        services.push(alertmanager.map(Service::Alertmanager));
    }
    services
}

fn webhook(
    ctx: &mut Context<'_>,
    url: Option<&schema::SecretText>,
    ca_file: Option<&str>,
    at: &At<'_>,
) -> Option<ServiceWebhook> {
    let url = secret_url(ctx, url?, &at.key("url"))?;
    let (ca_file, _) = roots_for(ctx, url.expose_uri(), &at.key("ca_file"), ca_file);
    Some(ServiceWebhook { url, ca_file })
}

fn telegram(ctx: &mut Context<'_>, raw: &schema::Telegram, at: &At<'_>) -> Option<Telegram> {
    let token = raw.token.as_ref()?;
    let good = |octet: u8| octet.is_ascii_alphanumeric() || b"-_".contains(&octet);
    let parts = token.0.expose().split_once(':');
    let is_token = parts.is_some_and(|(bot, key)| {
        !bot.is_empty()
            && bot.bytes().all(|octet| octet.is_ascii_digit())
            && !key.is_empty()
            && key.bytes().all(good)
    });
    if !is_token {
        let message = "this is not the token of a bot";
        let hint = "write it as BotFather gives it, such as 123456:ABC-DEF";
        ctx.problems.error(&at.key("token"), message, hint);
    }
    let is_channel = raw.chat.len() > 1 && raw.chat.starts_with('@');
    if !is_channel && raw.chat.parse::<i64>().is_err() {
        let at = at.key("chat");
        let message = format!("{} is not a chat", at.quoted());
        let hint = "write its number in quotes, such as '-1001234567890', or '@CHANNEL'";
        ctx.problems.error(&at, message, hint);
    }
    let (url, ca_file) = server(ctx, raw.url.as_deref(), raw.ca_file.as_deref(), at);
    Some(Telegram {
        token: token.0.clone(),
        chat: raw.chat.clone(),
        url,
        ca_file,
    })
}

fn ntfy(ctx: &mut Context<'_>, raw: &schema::Ntfy, at: &At<'_>) -> Option<Ntfy> {
    let good = |char: char| char.is_ascii_alphanumeric() || matches!(char, '-' | '_');
    let length = raw.topic.len();
    if length == 0 || length > LONGEST_TOPIC || !raw.topic.chars().all(good) {
        let at = at.key("topic");
        let message = format!("{} is not the name of a topic", at.quoted());
        let hint = "use 1 to 64 letters, digits, '-' and '_'; a server goes into 'url'";
        ctx.problems.error(&at, message, hint);
    }
    let token = token(ctx, raw.token.as_ref(), &at.key("token"));
    let (url, ca_file) = server(ctx, raw.url.as_deref(), raw.ca_file.as_deref(), at);
    Some(Ntfy {
        topic: raw.topic.clone(),
        token,
        url,
        ca_file,
    })
}

fn pagerduty(ctx: &mut Context<'_>, raw: &schema::PagerDuty, at: &At<'_>) -> Option<PagerDuty> {
    let key = &raw.routing_key.as_ref()?.0;
    let is_key =
        |text: &str| !text.is_empty() && text.bytes().all(|octet| octet.is_ascii_alphanumeric());
    if !is_key(key.expose()) {
        let message = "this is not the key of an integration";
        let hint = "write the key of an integration of the Events API v2: letters and digits";
        ctx.problems.error(&at.key("routing_key"), message, hint);
    }
    let (url, _) = server(ctx, raw.url.as_deref(), None, at);
    Some(PagerDuty {
        routing_key: key.clone(),
        url,
    })
}

fn alertmanager(
    ctx: &mut Context<'_>,
    raw: &schema::Alertmanager,
    at: &At<'_>,
) -> Option<Alertmanager> {
    let token = token(ctx, raw.token.as_ref(), &at.key("token"));
    let (url, ca_file) = server(ctx, Some(&raw.url), raw.ca_file.as_deref(), at);
    if url
        .as_ref()
        .is_some_and(|url| url.trim_end_matches('/').ends_with("/api/v2/alerts"))
    {
        let hint = "leave '/api/v2/alerts' out";
        ctx.problems
            .error(&at.key("url"), "the path is added to the URL", hint);
    }
    Some(Alertmanager {
        url: url?,
        token,
        ca_file,
    })
}

/// The base URL of a server, which is no secret, and the roots to trust.
fn server(
    ctx: &mut Context<'_>,
    raw: Option<&str>,
    ca_file: Option<&str>,
    at: &At<'_>,
) -> (Option<String>, Option<PathBuf>) {
    let ca_at = at.key("ca_file");
    let Some(raw) = raw else {
        return (None, ca_file.map(|file| roots(ctx, &ca_at, file)));
    };
    let at = at.key("url");
    let Some(url) = url(raw).filter(|url| url.query().is_none()) else {
        let message = format!("{} is not the URL of a server", at.quoted());
        let hint = "write it in full, such as https://host.example";
        ctx.problems.error(&at, message, hint);
        return (None, None);
    };
    if url
        .authority()
        .is_some_and(|authority| authority.as_str().contains('@'))
    {
        report_user(ctx, &at);
    }
    let (ca_file, _) = roots_for(ctx, &url, &ca_at, ca_file);
    (Some(raw.to_owned()), ca_file)
}

fn token(ctx: &mut Context<'_>, raw: Option<&schema::SecretText>, at: &At<'_>) -> Option<Secret> {
    let token = &raw?.0;
    if token.expose().is_empty() || HeaderValue::from_str(token.expose()).is_err() {
        let hint = "write it on one line, or leave 'token' out";
        ctx.problems.error(at, "this is not a token", hint);
    }
    Some(token.clone())
}

/// Mail over an SMTP server: one for each address, so that one that is put off keeps no other from its
/// mail. Nothing if the server or the sender cannot be used.
pub(super) fn mails(ctx: &mut Context<'_>, raw: &schema::Mail, at: &At<'_>) -> Vec<Mail> {
    let tls = match raw.tls {
        schema::MailTls::Starttls => MailTls::StartTls,
        schema::MailTls::Implicit => MailTls::Implicit,
        schema::MailTls::Off => MailTls::Off,
    };
    let server = mail_server(ctx, &raw.server, &at.key("server"));
    let from = mail_address(ctx, &raw.from, &at.key("from"));
    let to_at = at.key("to");
    if raw.to.is_empty() {
        let hint = "give at least one address";
        ctx.problems.error(&to_at, "there are no recipients", hint);
    }
    let to = raw.to.iter().enumerate();
    let mut to: Vec<_> = to
        .filter_map(|(index, to)| mail_address(ctx, to, &to_at.index(index)))
        .collect();
    let mut addresses = HashSet::new();
    to.retain(|to| addresses.insert(to.address.clone()));
    ctx.both(
        at,
        ["user", "password"],
        [raw.user.is_some(), raw.password.is_some()],
    );
    let credentials = raw.user.clone().zip(raw.password.as_ref());
    let credentials = credentials.map(|(user, password)| (user, password.0.clone()));
    let ca_at = at.key("ca_file");
    let ca_file = raw.ca_file.as_deref();
    let ca_file = match tls {
        MailTls::Off if ca_file.is_some() => {
            let message = "'ca_file' has no meaning without TLS";
            ctx.problems.error(&ca_at.at_key(), message, "remove it");
            None
        }
        _ => ca_file.map(|file| roots(ctx, &ca_at, file)),
    };
    let Some(((host, port), from)) = server.zip(from) else {
        return Vec::new();
    };
    if tls == MailTls::Off {
        check_plain(ctx, &host, credentials.is_some(), at);
    }
    let timeout = ctx.duration(&at.key("timeout"), &raw.timeout, SECOND, LONGEST_DELIVERY);
    let mails = to.into_iter().map(|to| Mail {
        host: host.clone(),
        port,
        tls,
        from: from.clone(),
        to,
        credentials: credentials.clone(),
        ca_file: ca_file.clone(),
        timeout,
    });
    mails.collect()
}

/// Reports what must not be sent in clear.
fn check_plain(ctx: &mut Context<'_>, host: &str, has_credentials: bool, at: &At<'_>) {
    let is_local = match host.parse::<std::net::IpAddr>() {
        Ok(address) => address.is_loopback(),
        Err(_) => host == "localhost",
    };
    let at = at.key("tls");
    let hint = "write 'starttls', or 'implicit' for TLS from the start";
    if has_credentials {
        let message = "without TLS, the password would be sent in clear";
        ctx.problems.error(&at, message, hint);
    } else if !is_local {
        let message = "without TLS, mail is sent only to a server on this machine";
        ctx.problems.error(&at, message, hint);
    }
}

/// The host and the port of a mail server.
fn mail_server(ctx: &mut Context<'_>, raw: &str, at: &At<'_>) -> Option<(String, u16)> {
    let parsed = raw.rsplit_once(':').and_then(|(host, port)| {
        let port = port.parse().ok().filter(|port| *port != 0)?;
        let bare = host
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'));
        let host = match host.parse::<Identifier>() {
            Ok(Identifier::Dns(name)) => name.to_string(),
            Ok(Identifier::Ip(address)) if address.is_ipv4() => address.to_string(),
            _ => bare?.parse::<std::net::Ipv6Addr>().ok()?.to_string(),
        };
        Some((host, port))
    });
    if parsed.is_none() {
        let message = format!("{} is not a server with its port", at.quoted());
        let hint = "write HOST:PORT, such as smtp.example.com:587";
        ctx.problems.error(at, message, hint);
    }
    parsed
}

/// An address such as `Snigate <snigate@example.com>`.
fn mail_address(ctx: &mut Context<'_>, raw: &str, at: &At<'_>) -> Option<MailAddress> {
    let parsed = raw.parse::<Mailbox>().ok().and_then(|mailbox| {
        // Not every server takes other characters than those of ASCII.
        let local = Some(mailbox.email.user()).filter(|user| user.is_ascii())?;
        let domain = match mailbox.email.domain().parse::<HostName>() {
            Ok(name) => name.to_string(),
            Err(_) => return None,
        };
        Some(MailAddress {
            name: mailbox.name,
            address: format!("{local}@{domain}"),
        })
    });
    if parsed.is_none() {
        let message = format!("{} is not a mail address", at.quoted());
        let hint =
            "write name@example.com or 'Name <name@example.com>', in front of the @ in ASCII";
        ctx.problems.error(at, message, hint);
    }
    parsed
}
