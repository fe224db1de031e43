//! `snigate upstreams`: the upstreams of the running gateway, for people and for programs.

mod table;

use std::time::Duration;

use anyhow::{Context as _, anyhow};
use clap::{Args, Subcommand};
use http::Method;
use serde::Serialize;
use tokio::time::{Instant, sleep};

use super::Remote;
use super::certs::Within;
use super::client::{self, Client};
use super::failure::Failure;
use super::output::Output;
use crate::admin::{DrainView, UpstreamView};

/// The path of all upstreams.
const PATH: &str = "/api/v1/upstreams";

/// How often to ask how many requests are left.
const LOOK: Duration = Duration::from_millis(250);

pub(super) const HELP: &str = "\
States: up; avoided (a connection failed a moment ago); ejected (its requests fail); down (its
health checks fail); drained (with `snigate upstreams drain`).

Examples:
  snigate upstreams
  snigate upstreams --json | jq -r '.[].servers[] | select(.state != \"up\") | .address'
  snigate upstreams drain app 10.0.0.1:8080 --wait 30s
  snigate upstreams resume app 10.0.0.1:8080";

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(super) struct UpstreamsArgs {
    #[command(subcommand)]
    verb: Option<UpstreamsVerb>,
    #[command(flatten)]
    list: ListArgs,
}

#[derive(Debug, Subcommand)]
enum UpstreamsVerb {
    /// List the servers of every upstream
    #[command(after_long_help = "\
Example:
  snigate upstreams list --json")]
    List(ListArgs),
    /// Send no new requests to a server; those in flight are not interrupted
    #[command(after_long_help = "\
SERVER is one as the configuration has it, with all its addresses, or one address. It stays drained
until it is resumed or the gateway restarts. With --wait, the command exits with 0 once no request
is in flight, WebSockets included, and with 1 if some still are after that time.

Examples:
  snigate upstreams drain app 10.0.0.1:8080 --wait 30s && systemctl stop app
  snigate upstreams drain app app.internal:8080")]
    Drain(DrainArgs),
    /// Send requests to a drained server again
    #[command(after_long_help = "\
Example:
  snigate upstreams resume app 10.0.0.1:8080")]
    Resume(ServerArgs),
}

#[derive(Debug, Args)]
struct ListArgs {
    /// List as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    remote: Remote,
}

#[derive(Debug, Args)]
struct ServerArgs {
    /// The name of the upstream
    upstream: String,
    /// The server as it is configured, or one of its addresses
    server: String,
    #[command(flatten)]
    remote: Remote,
}

#[derive(Debug, Args)]
struct DrainArgs {
    #[command(flatten)]
    server: ServerArgs,
    /// Wait until no request is in flight, for no longer than this time, such as 30s
    #[arg(long, value_name = "TIME")]
    wait: Option<Within>,
}

/// Carries out the command.
pub(super) fn upstreams(output: &Output, arguments: UpstreamsArgs) -> Result<(), Failure> {
    match arguments.verb {
        None => list(output, arguments.list),
        Some(UpstreamsVerb::List(arguments)) => list(output, arguments),
        Some(UpstreamsVerb::Drain(arguments)) => drain(output, arguments),
        Some(UpstreamsVerb::Resume(arguments)) => resume(output, arguments),
    }
}

fn list(output: &Output, arguments: ListArgs) -> Result<(), Failure> {
    let client = super::connect(output, arguments.remote)?;
    let views: Vec<UpstreamView> = client.get(PATH)?.decode()?;
    if arguments.json {
        output.data(json(&views)?)
    } else if views.is_empty() {
        output.note("the configuration has no upstreams");
        Ok(())
    } else {
        output.data(table::table(&views, output.style()))
    }
}

fn drain(output: &Output, arguments: DrainArgs) -> Result<(), Failure> {
    let DrainArgs {
        server: ServerArgs {
            upstream,
            server,
            remote,
        },
        wait,
    } = arguments;
    let client = super::connect(output, remote)?;
    let drained = post(&client, &upstream, &server, "drain")?;
    if let Some(warning) = &drained.warning {
        output.warning(warning);
    }
    let requests = drained.servers.iter().map(|server| server.requests).sum();
    output.note(format!(
        "{server} of {upstream} is drained: it gets no new requests, and {}",
        in_flight(requests)
    ));
    match wait {
        Some(within) => wait_until_idle(output, &client, &upstream, &server, within),
        None => Ok(()),
    }
}

fn resume(output: &Output, arguments: ServerArgs) -> Result<(), Failure> {
    let ServerArgs {
        upstream,
        server,
        remote,
    } = arguments;
    let client = super::connect(output, remote)?;
    post(&client, &upstream, &server, "resume")?;
    output.note(format!("{server} of {upstream} gets requests again"));
    Ok(())
}

fn post(client: &Client, upstream: &str, server: &str, verb: &str) -> Result<DrainView, Failure> {
    let (upstream, server) = (escape(upstream), escape(server));
    let path = format!("{PATH}/{upstream}/servers/{server}/{verb}");
    client.post(&path)?.decode()
}

/// Waits until a server has no requests.
fn wait_until_idle(
    output: &Output,
    client: &Client,
    upstream: &str,
    server: &str,
    within: Within,
) -> Result<(), Failure> {
    client::runtime()?.block_on(async {
        let start = Instant::now();
        let mut progress = output.progress();
        progress.step("waiting until none is in flight");
        loop {
            let answer = client.send_request(Method::GET, PATH, None).await?;
            let views: Vec<UpstreamView> = answer.decode()?;
            let requests = requests_at(&views, upstream, server);
            if requests == 0 {
                progress.update("none is in flight");
                return Ok(());
            }
            progress.update(in_flight(requests));
            if start.elapsed() >= within.duration() {
                drop(progress);
                return Err(Failure::hinted(
                    anyhow!("{} at {server} after {within}", in_flight(requests)),
                    "the server stays drained: run the command again to wait longer",
                ));
            }
            sleep(LOOK).await;
        }
    })
}

/// How many requests are in flight at a server. One that is no longer configured has none that is
/// known.
fn requests_at(views: &[UpstreamView], upstream: &str, server: &str) -> usize {
    let views = views.iter().filter(|view| view.name == upstream);
    views
        .flat_map(|view| &view.servers)
        .filter(|view| view.is_named(server))
        .map(|view| view.requests)
        .sum()
}

fn in_flight(requests: usize) -> String {
    match requests {
        0 => "none is in flight".to_owned(),
        1 => "1 request is in flight".to_owned(),
        many => format!("{many} requests are in flight"),
    }
}

/// A text as a segment of a path.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for octet in text.bytes() {
        match octet {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b':' => {
                escaped.push(char::from(octet));
            }
            octet => escaped.push_str(&format!("%{octet:02X}")),
        }
    }
    escaped
}

fn json(value: &impl Serialize) -> Result<String, Failure> {
    let mut text = serde_json::to_string_pretty(value).context("cannot encode the response")?;
    text.push('\n');
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_one_segment_of_a_path() {
        for (text, escaped) in [
            ("10.0.0.1:80", "10.0.0.1:80"),
            ("[::1]:80", "%5B::1%5D:80"),
            ("unix:/run/app.sock", "unix:%2Frun%2Fapp.sock"),
            ("a?b#c%d e\u{e9}", "a%3Fb%23c%25d%20e%C3%A9"),
        ] {
            assert_eq!(escape(text), escaped);
        }
    }
}
