//! A program of the user's, called like lego's `exec`: `PROGRAM present NAME. VALUE`, and with
//! `cleanup` to remove. Its exit status says whether that worked.

use std::ffi::OsString;

use async_trait::async_trait;

use super::api::one_line;
use super::{DnsError, DnsProvider, TxtRecord};
use crate::config::model::DnsExec;
use crate::host::HostName;
use crate::printable::Printable as _;
use crate::program::{Ended, ProgramError, run_program, without_secrets};

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
        let own = [
            verb.to_owned(),
            format!("{}.", record.name),
            record.value.clone(),
        ];
        let arguments: Vec<OsString> = arguments.iter().chain(&own).map(OsString::from).collect();
        let variables = env
            .iter()
            .map(|(name, value)| (name.clone(), value.expose().to_owned()));
        let ended = run_program((program, &arguments), variables, None, *timeout).await;
        let Ended { status, output } = match ended {
            Ok(ended) => ended,
            Err(ProgramError::NotRun(error)) => {
                return Err(DnsError::Refused(format!(
                    "dns.{}: {doing} cannot be run: {error}; check 'command', and that the user \
                     Snigate runs as may execute it",
                    self.name
                )));
            }
            Err(ProgramError::TimedOut(timeout)) => {
                return Err(DnsError::Unreachable(format!(
                    "dns.{}: {doing} did not finish within {timeout:?} and was killed",
                    self.name
                )));
            }
        };
        if status.success() {
            return Ok(());
        }
        let secrets = env.iter().map(|(_, value)| value);
        let said = without_secrets(String::from_utf8_lossy(&output).trim(), secrets);
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
