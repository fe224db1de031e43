//! `snigate log`: the level of the running gateway's own log.

use anyhow::Context as _;
use clap::Args;
use http::Method;
use serde_json::json;

use super::Remote;
use super::client;
use super::failure::Failure;
use super::output::{self, Output};
use crate::admin::LogView;

const PATH: &str = "/api/v1/log";

pub(super) const HELP: &str = "\
The level stays until the gateway restarts, or reloads a configuration with another `log.level`.

Examples:
  snigate log
  snigate log debug
  snigate log info,snigate::acme=debug";

#[derive(Debug, Args)]
pub(super) struct LogArgs {
    /// The level to set, as under `log.level` of the configuration
    level: Option<String>,
    /// Show it as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    remote: Remote,
}

/// Shows the level, or changes it.
pub(super) fn log(output: &Output, arguments: LogArgs) -> Result<(), Failure> {
    let client = super::connect(output, arguments.remote)?;
    let view: LogView = match &arguments.level {
        None => client.get(PATH)?.decode()?,
        Some(level) => {
            let body = json!({ "level": level });
            let asking = client.send_request(Method::PUT, PATH, Some(&body));
            client::runtime()?.block_on(asking)?.decode()?
        }
    };
    if arguments.json {
        let text = serde_json::to_string_pretty(&view).context("cannot encode the response")?;
        output.data(text + "\n")?;
    } else {
        output.data(format!("{}\n", output::clean(&view.level)))?;
        if view.level != view.configured {
            let configured = output::clean(&view.configured);
            output.note(format!("the configuration has {configured}"));
        }
    }
    Ok(())
}
