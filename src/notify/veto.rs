//! Entries of the configuration that are asked before a certificate is ordered, and may object.
//!
//! They are asked in the order of the configuration, by the job that would order the certificate. One
//! that cannot be asked has no objection: that is an error in the log, and the order is made.

use std::ffi::OsString;
use std::sync::Arc;

use async_trait::async_trait;
use http::StatusCode;
use serde_json::{Value, json};

use super::exec::facts;
use super::outbox::new_id;
use super::webhook::WebhookSender;
use super::{Entry, EntryState, Notification};
use crate::clock::Clock;
use crate::config::model::{Hook, NotifyExec, Recipient};
use crate::event::Event;
use crate::host::Pattern;
use crate::printable::{Printable as _, one_line};
use crate::program::{Ended, ProgramError, run_program, without_secrets};
use crate::renewal::ObtainingHook;

/// The exit code of a program that objects.
const OBJECTION: i32 = 1;

/// How much of a reason is kept, in characters.
const MAX_REASON: usize = 200;

/// All entries that are asked.
pub(super) struct VetoHooks {
    hooks: Vec<VetoHook>,
    gateway: Arc<str>,
    clock: Arc<dyn Clock>,
}

struct VetoHook {
    hook: Arc<Hook>,
    /// The sender of a webhook, or why there is none.
    webhook: Option<Result<WebhookSender, String>>,
}

/// What one of them says.
enum Answer {
    NoObjection,
    Objection(String),
    /// Nothing that could be understood, and why.
    None(String),
}

impl VetoHooks {
    /// Those of `hooks`; `None` if nobody is asked. Reads the roots that webhooks trust.
    pub(super) fn open(
        hooks: &[Arc<Hook>],
        gateway: Arc<str>,
        clock: &Arc<dyn Clock>,
    ) -> Option<Arc<Self>> {
        let hooks: Vec<_> = hooks
            .iter()
            .map(|hook| VetoHook {
                webhook: match &hook.recipient {
                    Recipient::Webhook(webhook) => {
                        Some(WebhookSender::open(webhook, Arc::clone(clock)))
                    }
                    _ => None,
                },
                hook: Arc::clone(hook),
            })
            .collect();
        (!hooks.is_empty()).then(|| {
            Arc::new(Self {
                hooks,
                gateway,
                clock: Arc::clone(clock),
            })
        })
    }

    /// What is about to be done, as a notification.
    fn question(&self, event: &Event) -> Notification {
        let at = self.clock.now();
        Notification {
            id: new_id(),
            at,
            gateway: self.gateway.to_string(),
            severity: event.severity,
            entries: vec![Entry {
                event: event.clone(),
                state: EntryState::Happened,
                trouble: None,
                since: at,
                repeats: 0,
            }],
            omitted: 0,
        }
    }
}

#[async_trait]
impl ObtainingHook for VetoHooks {
    async fn object(&self, event: &Event, names: &[Pattern]) -> Option<String> {
        let question = self.question(event);
        for one in self.hooks.iter().filter(|one| one.concerns(names)) {
            let name = &one.hook.name;
            match one.ask(&question, names).await {
                Answer::NoObjection => {}
                Answer::Objection(why) if why.is_empty() => {
                    return Some(format!("the hook {name} objects without a reason"));
                }
                Answer::Objection(why) => return Some(format!("the hook {name} objects: {why}")),
                Answer::None(why) => tracing::error!(
                    hook = %name,
                    domain = %event.domain,
                    "a hook that may object cannot be asked, so the certificate is ordered: {why}"
                ),
            }
        }
        None
    }
}

impl VetoHook {
    /// Returns true if it is asked about one of these names.
    fn concerns(&self, names: &[Pattern]) -> bool {
        let sites = &self.hook.sites;
        let is_covered = |name: &Pattern, site: &Pattern| match name {
            Pattern::Exact(host) => site.covers(host.as_str()),
            name => site == name || *site == Pattern::Any,
        };
        let mut names = names.iter();
        sites.is_empty() || names.any(|name| sites.iter().any(|site| is_covered(name, site)))
    }

    async fn ask(&self, question: &Notification, names: &[Pattern]) -> Answer {
        let names: Vec<_> = names.iter().map(ToString::to_string).collect();
        let mut body = match serde_json::to_value(question) {
            Ok(body) => body,
            Err(error) => return Answer::None(error.to_string()),
        };
        if let Value::Object(body) = &mut body {
            body.insert("names".to_owned(), json!(names));
        }
        let body = body.to_string().into_bytes();
        match (&self.hook.recipient, &self.webhook) {
            (_, Some(Ok(webhook))) => ask_server(webhook, &question.id, body).await,
            (_, Some(Err(why))) => Answer::None(why.clone()),
            (Recipient::Exec(exec), None) => {
                let mut env = facts(question);
                env.push(("SNIGATE_EVENT_NAMES".to_owned(), names.join(" ")));
                ask_program(exec, env, &body).await
            }
            // The configuration allows no others.
            (_, None) => Answer::NoObjection,
        }
    }
}

async fn ask_server(webhook: &WebhookSender, id: &str, body: Vec<u8>) -> Answer {
    let response = match webhook.post(id, body).await {
        Ok(response) => response,
        Err(why) => return Answer::None(why),
    };
    let said = webhook.redact(&String::from_utf8_lossy(response.body()));
    let reason = first_line(&said);
    match response.status() {
        status if status.is_success() => Answer::NoObjection,
        StatusCode::FORBIDDEN => Answer::Objection(reason),
        status => Answer::None(format!("it responded with {status}: {reason}")),
    }
}

async fn ask_program(exec: &NotifyExec, env: Vec<(String, String)>, input: &[u8]) -> Answer {
    let arguments: Vec<OsString> = exec.arguments.iter().map(OsString::from).collect();
    let own = exec.env.iter();
    let own = own.map(|(name, value)| (name.clone(), value.expose().to_owned()));
    let env = env.into_iter().chain(own);
    let ended = run_program((&exec.program, &arguments), env, Some(input), exec.timeout).await;
    let program = exec.program.printable();
    let Ended { status, output } = match ended {
        Ok(ended) => ended,
        Err(ProgramError::NotRun(error)) => {
            return Answer::None(format!(
                "{program} cannot be run: {error}; check 'command', and that the user Snigate runs \
                 as may execute it"
            ));
        }
        Err(ProgramError::TimedOut(after)) => {
            return Answer::None(format!(
                "{program} did not finish within {after:?} and was killed"
            ));
        }
    };
    let secrets = exec.env.iter().map(|(_, value)| value);
    let said = without_secrets(&String::from_utf8_lossy(&output), secrets);
    let reason = first_line(&said);
    match status.code() {
        Some(0) => Answer::NoObjection,
        Some(OBJECTION) => Answer::Objection(reason),
        _ => Answer::None(format!("{program} failed ({status}): {reason}")),
    }
}

/// The first line of somebody else's output that says anything. Secrets are removed before it is
/// cut: a part of one is not found.
fn first_line(output: &str) -> String {
    let mut lines = output.lines().map(str::trim);
    let first = lines.find(|line| !line.is_empty());
    one_line(first.unwrap_or_default(), MAX_REASON)
}
