//! `exec`: a program that gets the notification as JSON on its standard input, and what is most
//! important in its environment.

use std::ffi::OsString;

use async_trait::async_trait;

use super::{DeliveryError, Entry, EntryState, Notification, Sender};
use crate::config::model::NotifyExec;
use crate::printable::{Printable as _, one_line};
use crate::program::{Ended, ProgramError, run_program, without_secrets};

/// How many entries it gets at most: a program counts, people read.
const MAX_ENTRIES: usize = 500;

/// How long the value of a variable is at most, in characters.
const MAX_VALUE: usize = 4096;

/// How many lines of its output are logged.
const MAX_LINES: usize = 20;

/// How long each is at most, in characters.
const MAX_LINE: usize = 500;

/// Runs a program for each notification.
pub(super) struct ExecSender {
    name: String,
    exec: NotifyExec,
}

impl ExecSender {
    /// The sender of the hook `name`.
    pub(super) fn new(name: &str, exec: &NotifyExec) -> Self {
        Self {
            name: name.to_owned(),
            exec: exec.clone(),
        }
    }

    fn log_output(&self, output: &[u8]) {
        let secrets = self.exec.env.iter().map(|(_, value)| value);
        let output = without_secrets(&String::from_utf8_lossy(output), secrets);
        let lines = output.lines().filter(|line| !line.trim().is_empty());
        for line in lines.take(MAX_LINES) {
            let line = one_line(line, MAX_LINE);
            tracing::info!(hook = %self.name, "output of the program: {line}");
        }
    }
}

#[async_trait]
impl Sender for ExecSender {
    async fn deliver(&self, notification: &Notification) -> Result<(), DeliveryError> {
        let NotifyExec {
            program,
            arguments,
            env,
            timeout,
        } = &self.exec;
        let input = serde_json::to_vec(notification)
            .map_err(|error| DeliveryError::never(error.to_string()))?;
        let arguments: Vec<OsString> = arguments.iter().map(OsString::from).collect();
        let env = env
            .iter()
            .map(|(name, value)| (name.clone(), value.expose().to_owned()));
        let env = facts(notification).into_iter().chain(env);
        let ended = run_program((program, &arguments), env, Some(&input), *timeout).await;
        let program = program.printable();
        match ended {
            Ok(Ended { status, output }) => {
                self.log_output(&output);
                match status.success() {
                    true => Ok(()),
                    false => Err(DeliveryError::later(format!("{program} failed ({status})"))),
                }
            }
            Err(ProgramError::NotRun(error)) => Err(DeliveryError::later(format!(
                "{program} cannot be run: {error}; check 'command', and that the user Snigate runs \
                 as may execute it"
            ))),
            Err(ProgramError::TimedOut(after)) => Err(DeliveryError::later(format!(
                "{program} did not finish within {after:?} and was killed"
            ))),
        }
    }

    fn max_entries(&self) -> usize {
        MAX_ENTRIES
    }
}

/// The variables that describe a notification and its first entry, which is the gravest. Those that
/// do not apply are not set.
pub(super) fn facts(notification: &Notification) -> Vec<(String, String)> {
    let mut facts = vec![
        ("SNIGATE_GATEWAY", notification.gateway.clone()),
        ("SNIGATE_NOTIFICATION_ID", notification.id.clone()),
        (
            "SNIGATE_EVENT_COUNT",
            (notification.entries.len() + notification.omitted).to_string(),
        ),
    ];
    if let Some(entry) = notification.entries.first() {
        add_facts(&mut facts, entry);
    }
    let facts = facts.into_iter().filter(|(_, value)| !value.is_empty());
    facts
        .map(|(name, value)| (name.to_owned(), one_line(&value, MAX_VALUE)))
        .collect()
}

fn add_facts(facts: &mut Vec<(&str, String)>, entry: &Entry) {
    let event = &entry.event;
    let text = |text: Option<&str>| text.unwrap_or_default().to_owned();
    let time = |at: Option<crate::clock::UnixTime>| at.map(|at| at.to_string()).unwrap_or_default();
    let state = match entry.state {
        EntryState::Happened => "happened",
        EntryState::Ongoing => "ongoing",
        EntryState::Recovered => "recovered",
    };
    facts.extend([
        ("SNIGATE_EVENT", event.kind.as_str().to_owned()),
        ("SNIGATE_EVENT_STATE", state.to_owned()),
        ("SNIGATE_EVENT_SEVERITY", event.severity.to_string()),
        ("SNIGATE_EVENT_AT", event.at.to_string()),
        ("SNIGATE_EVENT_SINCE", entry.since.to_string()),
        ("SNIGATE_EVENT_MESSAGE", event.message.clone()),
        ("SNIGATE_EVENT_DOMAIN", event.domain.clone()),
        ("SNIGATE_EVENT_ISSUER", text(event.issuer.as_deref())),
        ("SNIGATE_EVENT_UPSTREAM", text(event.upstream.as_deref())),
        ("SNIGATE_EVENT_SERVER", text(event.server.as_deref())),
        ("SNIGATE_EVENT_REASON", text(event.reason.as_deref())),
        ("SNIGATE_EVENT_NOT_AFTER", time(event.not_after)),
        ("SNIGATE_EVENT_NEXT", time(event.next)),
        ("SNIGATE_EVENT_URL", text(event.url.as_deref())),
    ]);
}
