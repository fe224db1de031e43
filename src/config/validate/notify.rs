//! `events`: who is notified of what. Nobody is contacted.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, HeaderValue};
use indexmap::IndexMap;
use openssl::sha::sha256;

use super::client::{roots_for, secret_url};
use super::context::Context;
use super::program::{check_command, check_env};
use super::recipient::{mails, services};
use crate::config::model::{Hook, NotifyExec, Recipient, Webhook};
use crate::config::problem::{At, quote, suggest};
use crate::config::schema;
use crate::event::{EventKind, KindSet, Severity};

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);

/// How long a request of a webhook may take at most.
const LONGEST_REQUEST: Duration = Duration::from_secs(300);

/// How long events are collected where nothing is said.
const DIGEST: Duration = Duration::from_secs(10);

/// The keys of an entry that are a recipient.
const RECIPIENTS: &str =
    "webhook, exec, mail, slack, discord, teams, telegram, ntfy, pagerduty, alertmanager";

/// The same for mail: people read few.
const MAIL_DIGEST: Duration = MINUTE;

/// The event before which an entry may object.
const ASKED: &str = "certificate_obtaining";

/// Fields that requests have anyway, or that belong to the connection.
const OWN_FIELDS: [&str; 7] = [
    "connection",
    "content-length",
    "content-type",
    "host",
    "snigate-notification-id",
    "snigate-signature",
    "transfer-encoding",
];

/// Who is notified of what, and who is asked and may object.
pub(super) fn hooks(ctx: &mut Context<'_>, root: &At<'_>) -> (Vec<Arc<Hook>>, Vec<Arc<Hook>>) {
    let raw = ctx.raw;
    let section = root.key("events");
    let mut names = Names::given(&raw.events);
    let mut ids = HashSet::new();
    let (mut hooks, mut vetoes) = (Vec::with_capacity(raw.events.len()), Vec::new());
    for (index, raw) in raw.events.iter().enumerate() {
        let at = section.index(index);
        let (on, named) = kinds(ctx, &raw.on, &at.key("on"));
        let recipients = recipients(ctx, raw, &at);
        if let Some(name) = &raw.name {
            let at = at.key("name");
            ctx.check_name(&at, name);
            if !names.take(name) {
                let message = format!("two entries are named {}", quote(name));
                ctx.problems
                    .error(&at, message, "give each a name of its own");
            }
        }
        let sites_at = at.key("sites");
        let sites = raw.sites.iter().enumerate();
        let sites = sites
            .filter_map(|(index, site)| ctx.pattern(&sites_at.index(index), site))
            .collect();
        let repeat = repeat(ctx, &raw.repeat, &at.key("repeat"));
        let digest = raw.digest.as_ref();
        let digest =
            digest.map(|digest| ctx.duration(&at.key("digest"), digest, Duration::ZERO, HOUR));
        let Some(first) = recipients.first() else {
            continue;
        };
        let name = match &raw.name {
            Some(name) => name.clone(),
            None => names.invent(first.kind()),
        };
        let usual = match first {
            Recipient::Mail(_) => MAIL_DIGEST,
            _ => DIGEST,
        };
        if raw.veto {
            check_veto(ctx, raw, first, &at);
        }
        let name: Arc<str> = name.into();
        let of_entry = recipients.into_iter().map(|recipient| {
            Arc::new(Hook {
                id: id(raw.name.as_deref(), &recipient, &mut ids),
                name: Arc::clone(&name),
                on,
                named,
                severity: severity(raw.severity),
                sites: Box::clone(&sites),
                repeat,
                digest: digest.unwrap_or(usual),
                recipient,
            })
        });
        match raw.veto {
            true => vetoes.extend(of_entry),
            false => hooks.extend(of_entry),
        }
    }
    (hooks, vetoes)
}

/// Reports what an entry that is asked cannot have.
fn check_veto(ctx: &mut Context<'_>, raw: &schema::Hook, recipient: &Recipient, at: &At<'_>) {
    let at = at.key("veto");
    if !matches!(recipient, Recipient::Webhook(_) | Recipient::Exec(_)) {
        let message = format!("{} cannot object to anything", quote(recipient.kind()));
        let hint = "write a 'webhook' or an 'exec'";
        ctx.problems.error(&at, message, hint);
    }
    if raw.on.iter().any(|name| name != ASKED) || raw.on.is_empty() {
        let message = "it is asked before certificates are ordered, and nothing else";
        let hint = "write 'on: [certificate_obtaining]'; make another entry for other events";
        ctx.problems.error(&at, message, hint);
    }
    let timeout = match recipient {
        Recipient::Webhook(webhook) => webhook.timeout,
        Recipient::Exec(exec) => exec.timeout,
        Recipient::Service(_) | Recipient::Mail(_) => Duration::ZERO,
    };
    if timeout > MINUTE {
        let message = "the order waits for it: its 'timeout' is too long";
        ctx.problems.error(&at, message, "give at most 1m");
    }
    if raw.digest.is_some() {
        let message = "it is asked at once: 'digest' has no meaning";
        ctx.problems.error(&at, message, "leave 'digest' out");
    }
}

/// The names of hooks.
struct Names<'r> {
    given: HashSet<&'r str>,
    taken: HashSet<String>,
}

impl<'r> Names<'r> {
    fn given(hooks: &'r [schema::Hook]) -> Self {
        Self {
            given: hooks
                .iter()
                .filter_map(|hook| hook.name.as_deref())
                .collect(),
            taken: HashSet::new(),
        }
    }

    /// Returns false if another hook has this name.
    fn take(&mut self, name: &str) -> bool {
        self.taken.insert(name.to_owned())
    }

    /// `webhook`, or `webhook-2` if there is one.
    fn invent(&mut self, kind: &str) -> String {
        let mut name = kind.to_owned();
        let mut number = 1;
        while self.given.contains(&*name) || !self.taken.insert(name.clone()) {
            number += 1;
            name = format!("{kind}-{number}");
        }
        name
    }
}

/// What a hook's queue is found by again: its name, else its recipient. The addresses of one entry for
/// mail have a queue each.
fn id(name: Option<&str>, recipient: &Recipient, taken: &mut HashSet<String>) -> Arc<str> {
    let text = match (name, recipient) {
        (Some(name), Recipient::Mail(mail)) => format!("name {name} {}", mail.to.address),
        (Some(name), _) => format!("name {name}"),
        (None, _) => format!("{} {}", recipient.kind(), recipient.address().expose()),
    };
    let mut number = 1;
    loop {
        let digest = sha256(format!("{number} {text}").as_bytes());
        let (first, _) = digest.split_at(8);
        let id: String = first.iter().map(|octet| format!("{octet:02x}")).collect();
        if taken.insert(id.clone()) {
            return id.into();
        }
        number += 1;
    }
}

fn severity(raw: schema::EventSeverity) -> Severity {
    match raw {
        schema::EventSeverity::Info => Severity::Info,
        schema::EventSeverity::Warning => Severity::Warning,
        schema::EventSeverity::Error => Severity::Error,
        schema::EventSeverity::Critical => Severity::Critical,
    }
}

/// The kinds of events that names and patterns stand for, and those that are named in full.
fn kinds(ctx: &mut Context<'_>, names: &[String], at: &At<'_>) -> (KindSet, KindSet) {
    let (mut all, mut named) = (KindSet::default(), KindSet::default());
    for (index, name) in names.iter().enumerate() {
        let kinds = EventKind::ALL.iter().copied();
        let found: Vec<EventKind> = match name.strip_suffix('*') {
            Some(prefix) => kinds
                .filter(|kind| kind.as_str().starts_with(prefix))
                .collect(),
            None => kinds.filter(|kind| kind.as_str() == name).collect(),
        };
        if found.is_empty() {
            let at = at.index(index);
            let message = format!("there is no event {}", at.quoted());
            let hint = suggest(name, EventKind::ALL.iter().map(|kind| kind.as_str()));
            ctx.problems.error(&at, message, hint);
        }
        for kind in found {
            all.insert(kind);
            if !name.ends_with('*') {
                named.insert(kind);
            }
        }
    }
    (all, named)
}

fn repeat(ctx: &mut Context<'_>, raw: &schema::Repeat, at: &At<'_>) -> Option<Duration> {
    let text = schema::Duration::new(&raw.0);
    (raw.0 != "off").then(|| ctx.duration(at, &text, MINUTE, DAY))
}

/// The recipient of an entry, which for mail has several addresses; nothing if it cannot be used.
fn recipients(ctx: &mut Context<'_>, raw: &schema::Hook, at: &At<'_>) -> Vec<Recipient> {
    let webhook = raw.webhook.as_ref().map(|raw| {
        let webhook = webhook(ctx, raw, &at.key("webhook"));
        webhook.map(Recipient::Webhook).into_iter().collect()
    });
    let exec = raw.exec.as_ref().map(|raw| {
        let exec = exec(ctx, raw, &at.key("exec"));
        exec.map(Recipient::Exec).into_iter().collect()
    });
    let mails = raw.mail.as_ref().map(|raw| {
        let mails = mails(ctx, raw, &at.key("mail")).into_iter();
        mails.map(Recipient::Mail).collect()
    });
    let services = services(ctx, raw, at).into_iter();
    let services = services.map(|service| service.map(Recipient::Service).into_iter().collect());
    let recipients = [webhook, exec, mails].into_iter().flatten();
    let mut recipients = recipients.chain(services);
    let first = recipients.next();
    if first.is_none() {
        let hint = format!("give exactly one of {RECIPIENTS}");
        ctx.problems.error(at, "the entry has no recipient", hint);
    } else if recipients.next().is_some() {
        let message = "the entry has several recipients, which exclude each other";
        ctx.problems
            .error(at, message, "make a separate entry for each");
    }
    first.unwrap_or_default()
}

fn webhook(ctx: &mut Context<'_>, raw: &schema::Webhook, at: &At<'_>) -> Option<Webhook> {
    let headers = headers(ctx, &raw.headers, &at.key("headers"));
    let timeout = ctx.duration(&at.key("timeout"), &raw.timeout, SECOND, LONGEST_REQUEST);
    let secret_at = at.key("secret");
    if raw
        .secret
        .as_ref()
        .is_some_and(|secret| secret.0.expose().is_empty())
    {
        let hint = "give a long random text, or leave 'secret' out";
        ctx.problems.error(&secret_at, "the secret is empty", hint);
    }
    let url = secret_url(ctx, raw.url.as_ref()?, &at.key("url"))?;
    let ca_at = at.key("ca_file");
    let (ca_file, _) = roots_for(ctx, url.expose_uri(), &ca_at, raw.ca_file.as_deref());
    Some(Webhook {
        url,
        secret: raw.secret.as_ref().map(|secret| secret.0.clone()),
        headers,
        ca_file,
        timeout,
    })
}

/// More fields for requests to a server of the operator's.
pub(super) fn headers(
    ctx: &mut Context<'_>,
    raw: &IndexMap<String, schema::SecretText>,
    at: &At<'_>,
) -> Vec<(HeaderName, crate::secret::Secret)> {
    let mut headers = Vec::with_capacity(raw.len());
    for (name, value) in raw {
        let at = at.key(name);
        let is_value = HeaderValue::from_str(value.0.expose()).is_ok();
        match HeaderName::from_bytes(name.as_bytes()) {
            Ok(name) if OWN_FIELDS.contains(&name.as_str()) => {
                let message = format!("the field {} cannot be set", quote(name.as_str()));
                let hint = "leave it out: each request has the right one";
                ctx.problems.error(&at.at_key(), message, hint);
            }
            Ok(name) if is_value => headers.push((name, value.0.clone())),
            Ok(_) => {
                let message = "the value of the field has a control character in it";
                ctx.problems.error(&at, message, "write it on one line");
            }
            Err(_) => {
                let message = format!("{} is not the name of a header field", quote(name));
                let hint = "write a name such as Authorization";
                ctx.problems.error(&at.at_key(), message, hint);
            }
        }
    }
    headers
}

fn exec(ctx: &mut Context<'_>, raw: &schema::Exec, at: &At<'_>) -> Option<NotifyExec> {
    check_command(
        ctx,
        &raw.command,
        &at.key("command"),
        "/usr/local/bin/notify",
    );
    check_env(ctx, &raw.env, &at.key("env"));
    let env = raw.env.iter();
    let env = env.map(|(name, value)| (name.clone(), value.0.clone()));
    Some(NotifyExec {
        program: PathBuf::from(raw.command.first()?),
        arguments: raw.command.iter().skip(1).cloned().collect(),
        env: env.collect(),
        timeout: ctx.duration(&at.key("timeout"), &raw.timeout, SECOND, HOUR),
    })
}
