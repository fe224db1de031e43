//! A program of the user's, called like lego's `exec`: `PROGRAM present NAME. VALUE`, and with
//! `cleanup` to remove. Its exit status says whether that worked.

use std::io;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use async_trait::async_trait;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::Command;

use super::api::one_line;
use super::{DnsError, DnsProvider, TxtRecord};
use crate::config::model::DnsExec;
use crate::host::HostName;
use crate::printable::Printable as _;

/// How much of its output is kept, in octets. The rest is read and dropped.
const MAX_OUTPUT: usize = 4 << 10;

/// How long to wait for output after it has ended: processes it left behind may hold it open.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// The search path for programs if we have no `PATH` ourselves.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Has records set by a program.
pub struct ExecProvider {
    name: String,
    config: DnsExec,
}

impl ExecProvider {
    /// The provider of the entry `name`.
    pub fn new(name: &str, config: &DnsExec) -> Self {
        Self {
            name: name.to_owned(),
            config: config.clone(),
        }
    }

    async fn call_program(&self, verb: &str, record: &TxtRecord) -> Result<(), DnsError> {
        let DnsExec {
            program,
            arguments,
            timeout,
            env,
        } = &self.config;
        let doing = format!("{} {verb} {}.", program.printable(), record.name);
        let path = std::env::var_os("PATH").unwrap_or_else(|| PATH.into());
        let mut command = Command::new(program);
        command
            .args(arguments)
            .arg(verb)
            .arg(format!("{}.", record.name))
            .arg(&record.value)
            .env_clear()
            .env("PATH", path)
            .envs(env.iter().map(|(name, value)| (name, value.expose())))
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true);
        let (status, output) = match tokio::time::timeout(*timeout, run_program(command)).await {
            Ok(Ok(ended)) => ended,
            Ok(Err(error)) => {
                return Err(DnsError::Refused(format!(
                    "dns.{}: {doing} cannot be run: {error}; check 'command', and that the user \
                     Snigate runs as may execute it",
                    self.name
                )));
            }
            Err(_) => {
                return Err(DnsError::Unreachable(format!(
                    "dns.{}: {doing} did not finish within {timeout:?} and was killed",
                    self.name
                )));
            }
        };
        if status.success() {
            return Ok(());
        }
        let said = self.without_secrets(String::from_utf8_lossy(&output).trim());
        let said = if said.is_empty() {
            "without output".to_owned()
        } else {
            format!("and said: {}", one_line(&said))
        };
        // Why it failed is unknown: a retry may succeed.
        Err(DnsError::Unreachable(format!(
            "dns.{}: {doing} failed ({status}) {said}",
            self.name
        )))
    }

    fn without_secrets(&self, text: &str) -> String {
        let secrets = self.config.env.iter().map(|(_, value)| value.expose());
        secrets
            .filter(|secret| !secret.is_empty())
            .fold(text.to_owned(), |text, secret| {
                text.replace(secret, "[redacted]")
            })
    }
}

#[async_trait]
impl DnsProvider for ExecProvider {
    fn name(&self) -> &str {
        &self.name
    }

    fn needs_zone(&self) -> bool {
        false
    }

    async fn add(&self, _: &HostName, record: &TxtRecord) -> Result<(), DnsError> {
        self.call_program("present", record).await
    }

    async fn remove(&self, _: &HostName, record: &TxtRecord) -> Result<(), DnsError> {
        self.call_program("cleanup", record).await
    }

    /// These programs have no such verb.
    async fn list(&self, _: &HostName, _: &HostName) -> Result<Option<Vec<String>>, DnsError> {
        Ok(None)
    }
}

/// Runs a program to its end: its status, and the beginning of its output, errors first.
async fn run_program(mut command: Command) -> io::Result<(ExitStatus, Vec<u8>)> {
    let mut child = command.spawn()?;
    // After its end too: processes it left behind belong to nobody.
    let _group = Group::of(child.id());
    let (mut errors, mut words) = (Vec::new(), Vec::new());
    let status = {
        let (stderr, stdout) = (child.stderr.take(), child.stdout.take());
        let reading = async {
            tokio::join!(
                read_limited(stderr, &mut errors),
                read_limited(stdout, &mut words)
            );
        };
        tokio::pin!(reading);
        tokio::select! {
            status = child.wait() => {
                // What is cut off here is only missing from a message.
                let _ = tokio::time::timeout(LAST_WORDS, reading).await;
                status?
            }
            () = &mut reading => child.wait().await?,
        }
    };
    errors.append(&mut words);
    Ok((status, errors))
}

/// Reads to the end, and keeps the beginning.
async fn read_limited(from: Option<impl AsyncRead + Unpin>, kept: &mut Vec<u8>) {
    let Some(mut from) = from else { return };
    let mut buffer = [0; 4096];
    while let Ok(read @ 1..) = from.read(&mut buffer).await {
        let room = MAX_OUTPUT.saturating_sub(kept.len());
        kept.extend(buffer.iter().take(read.min(room)));
    }
}

/// The processes of a call, which are killed when it is over.
struct Group(Option<Pid>);

impl Group {
    fn of(leader: Option<u32>) -> Self {
        let id = leader.and_then(|id| i32::try_from(id).ok());
        Self(id.map(Pid::from_raw))
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(group) = self.0 {
            // If this fails, there is nothing left to kill.
            let _ = killpg(group, Signal::SIGKILL);
        }
    }
}
