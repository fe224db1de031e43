//! `snigate events`: the recipients of events of the running gateway.

use anyhow::anyhow;
use clap::{Args, Subcommand};
use http::Method;
use serde_json::json;

use super::Remote;
use super::client;
use super::failure::Failure;
use super::output::{Output, clean};
use crate::notify::TestOutcome;

/// The path of a test.
const TEST: &str = "/api/v1/events/test";

#[derive(Debug, Subcommand)]
pub(super) enum EventsVerb {
    /// Send a test notification to every recipient, and show what became of it
    #[command(after_long_help = "\
The event is a notification_test, whatever the entries of `events` ask for, and is sent at once, past
what waits to be delivered. It is not repeated if it fails. Exits with 1 if a recipient did not get
it.

Examples:
  snigate events test
  snigate events test --name ops")]
    Test(TestArgs),
}

#[derive(Debug, Args)]
pub(super) struct TestArgs {
    /// The recipient by its name [default: all]
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Show as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    remote: Remote,
}

/// Carries out the command.
pub(super) fn events(output: &Output, verb: EventsVerb) -> Result<(), Failure> {
    match verb {
        EventsVerb::Test(arguments) => test(output, arguments),
    }
}

fn test(output: &Output, arguments: TestArgs) -> Result<(), Failure> {
    let TestArgs { name, json, remote } = arguments;
    let client = super::connect(output, remote)?;
    let body = name.map(|name| json!({ "name": name }));
    let answer = client::runtime()?.block_on(async {
        let mut progress = output.progress();
        progress.step("waiting for the recipients");
        client.send_request(Method::POST, TEST, body.as_ref()).await
    })?;
    let outcomes: Vec<TestOutcome> = answer.decode()?;
    if json {
        let mut text = serde_json::to_string_pretty(&outcomes).map_err(anyhow::Error::from)?;
        text.push('\n');
        output.data(text)?;
    } else if outcomes.is_empty() {
        output.note("the configuration has no recipients: add them below 'events'");
    } else {
        output.data(table(&outcomes, output))?;
    }
    let failed = outcomes.iter().filter(|one| one.error.is_some()).count();
    match failed {
        0 => Ok(()),
        _ => Err(anyhow!(
            "{failed} of {} did not get the notification",
            outcomes.len()
        )
        .into()),
    }
}

fn table(outcomes: &[TestOutcome], output: &Output) -> String {
    let style = output.style();
    let width = outcomes.iter().map(|one| one.name.chars().count()).max();
    let width = width.unwrap_or_default();
    let lines = outcomes.iter().map(|one| {
        let name = format!("{:width$}", one.name);
        match &one.error {
            None => format!("{name}  {}\n", style.green("delivered")),
            Some(error) => format!("{name}  {}  {}\n", style.red("failed"), clean(error)),
        }
    });
    lines.collect()
}
