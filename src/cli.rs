//! The command line: what can be typed, and which part does it.
//!
//! Data goes to stdout, everything else to stderr. Exit codes: 0 success, 1 failure, 2 wrong usage,
//! 3 invalid configuration, 4 certificates that need attention.

mod acme;
mod ca;
mod certs;
mod check;
mod client;
mod demo;
mod events;
mod explain;
mod failure;
mod gateway;
mod generate;
mod log;
mod output;
mod remote;
mod trust;
mod upstreams;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;

use acme::AcmeVerb;
use certs::CertsVerb;
use client::Address;
use events::EventsVerb;
use explain::{Field, RequestLine};
use failure::Failure;
use log::LogArgs;
use output::Output;
use upstreams::UpstreamsArgs;

use crate::proxy;
use crate::service::signals::Blocked;

/// The default path of the configuration.
const CONFIG: &str = "/etc/snigate/snigate.yaml";

const EXAMPLES: &str = "\
Examples:
  snigate demo                        Try a gateway without root or a configuration
  snigate check --config my.yaml      Show every mistake, its place and how to fix it
  snigate run --config my.yaml        Run the gateway in the foreground
  snigate reload                      Apply the changed configuration, or say why not
  snigate certs list                  Show the state of every certificate, the most urgent first
  snigate completions bash > /etc/bash_completion.d/snigate

Exit codes: 0 success, 1 failure, 2 wrong usage, 3 invalid configuration,
4 `certs list --fail-within` found some";

/// An edge gateway that hosts many TLS sites on one address
#[derive(Debug, Parser)]
#[command(name = "snigate", version, after_long_help = EXAMPLES, max_term_width = 100, disable_help_subcommand = true)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Run the gateway in the foreground
    #[command(after_long_help = "\
Ready when /readyz on the admin address answers 200 and, under systemd, once it has notified.
SIGTERM stops it gracefully, SIGHUP makes it reload its configuration.

Example:
  snigate run --config /etc/snigate/snigate.yaml")]
    Run(RunArgs),
    /// Try it: a local CA, three sites on 127.0.0.1, a built-in upstream
    #[command(after_long_help = "\
Needs neither root nor a configuration. It writes only to one directory, which can be deleted.

Example:
  snigate demo --data /tmp/snigate-demo")]
    Demo(DemoArgs),
    /// Validate a configuration and everything it names
    #[command(after_long_help = "\
Checks everything that `run` would load and reports every mistake at once as FILE:LINE:COLUMN.
With --explain it says instead where a request would lead.

Examples:
  snigate check --config my.yaml
  snigate check --config my.yaml --json | jq .errors
  snigate check --config my.yaml --explain \"GET https://a.example/x?y=1\" -H \"X-Beta: 1\"")]
    Check(CheckArgs),
    /// Make the running gateway reload its configuration; waits and reports
    Reload(Remote),
    /// Stop the running gateway: requests in flight finish first
    Stop(Remote),
    /// Show the status of the running gateway
    Status(StatusArgs),
    /// The certificates of the running gateway: list, show, check, obtain, renew, revoke
    #[command(subcommand)]
    Certs(CertsVerb),
    /// The upstreams of the running gateway: list, drain, resume
    #[command(after_long_help = upstreams::HELP)]
    Upstreams(UpstreamsArgs),
    /// The recipients of events of the running gateway: test
    #[command(subcommand)]
    Events(EventsVerb),
    /// Show or change the level of the running gateway's log
    #[command(after_long_help = log::HELP)]
    Log(LogArgs),
    /// The accounts at CAs of the running gateway
    #[command(subcommand)]
    Acme(AcmeVerb),
    /// The local CA's root certificate
    #[command(subcommand)]
    Ca(CaVerb),
    /// Print the JSON schema of the configuration
    #[command(after_long_help = "\
Editors complete and check a configuration whose first line is
  # yaml-language-server: $schema=./snigate.schema.json

Example:
  snigate schema > snigate.schema.json")]
    Schema,
    /// Print a completion script for a shell
    Completions {
        /// The shell to print it for
        shell: Shell,
    },
    /// Print the manual page, or that of one command
    #[command(after_long_help = "\
Examples:
  snigate man | man -l -
  snigate man ca trust > snigate-ca-trust.1")]
    Man {
        /// The command, such as `check` or `ca trust`
        verb: Vec<String>,
    },
}

#[derive(Debug, Subcommand)]
enum CaVerb {
    /// Print the root certificate as PEM, or those of all local CAs if there are several
    #[command(after_long_help = "\
Example:
  snigate ca root > root.pem && curl --cacert root.pem https://my.site/")]
    Root(RootArgs),
    /// Put the root certificate into the trust stores of this machine
    #[command(after_long_help = "\
Supports the system's store of Debian, Fedora and their derivatives, and the NSS databases of
browsers if certutil is installed. Uses sudo for the system's store when it is not run by root.

Examples:
  snigate ca trust --dry-run
  snigate ca trust --uninstall")]
    Trust(TrustArgs),
}

#[derive(Debug, Args)]
struct Configuration {
    /// The configuration file
    #[arg(long, short, value_name = "FILE", default_value = CONFIG)]
    config: PathBuf,
}

#[derive(Debug, Args)]
struct RunArgs {
    #[command(flatten)]
    configuration: Configuration,
    /// How requests reach their servers; for tests.
    #[arg(long, hide = true, value_enum, default_value_t)]
    lane: Lane,
}

/// How requests reach their servers.
#[derive(Clone, Copy, Debug, Default, ValueEnum)]
enum Lane {
    /// On the gateway's own streams.
    #[default]
    Own,
    /// Through Pingora's proxy.
    Pingora,
}

impl From<Lane> for proxy::Lane {
    fn from(lane: Lane) -> Self {
        match lane {
            Lane::Own => Self::Own,
            Lane::Pingora => Self::Pingora,
        }
    }
}

#[derive(Debug, Args)]
struct RootArgs {
    #[command(flatten)]
    configuration: Configuration,
    /// The local CA by its name under `issuers` [default: all]
    #[arg(long, value_name = "NAME")]
    issuer: Option<String>,
}

#[derive(Debug, Args)]
struct DemoArgs {
    /// Where the demo keeps its files [default: $XDG_DATA_HOME/snigate-demo]
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct CheckArgs {
    #[command(flatten)]
    configuration: Configuration,
    /// Report as JSON, on stdout
    #[arg(long)]
    json: bool,
    /// Treat warnings as errors
    #[arg(long)]
    strict: bool,
    /// Say which site and route this request leads to, and why no other
    #[arg(long, value_name = "METHOD URL", conflicts_with = "strict")]
    explain: Option<RequestLine>,
    /// A header field of the request to explain; may be repeated
    #[arg(long, short = 'H', value_name = "NAME: VALUE", requires = "explain")]
    header: Vec<Field>,
    /// The listener at which the request to explain arrives, if sites have their own
    #[arg(long, value_name = "ADDRESS", requires = "explain")]
    at: Option<String>,
}

#[derive(Debug, Args)]
struct Remote {
    /// The admin address: HOST:PORT or unix:PATH [default: as configured, else 127.0.0.1:9180]
    #[arg(long, value_name = "ADDRESS", env = "SNIGATE_ADMIN")]
    admin: Option<Address>,
    /// The admin token [default: as configured]
    #[arg(long, env = "SNIGATE_TOKEN", hide_env_values = true)]
    token: Option<String>,
    /// The configuration to read both from if they are not given
    #[arg(long, short, value_name = "FILE")]
    config: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct StatusArgs {
    #[command(flatten)]
    remote: Remote,
    /// Report as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct TrustArgs {
    #[command(flatten)]
    root: RootArgs,
    /// Only print the commands it would run
    #[arg(long)]
    dry_run: bool,
    /// Remove the root certificate from the trust stores
    #[arg(long)]
    uninstall: bool,
}

/// Runs the command in the arguments.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    // First of all: a signal that comes before we know what to do waits.
    let blocked = Blocked::block();
    let output = Output::from_environment();
    let outcome = match Cli::try_parse_from(arguments) {
        Ok(cli) => perform(&output, cli.verb, blocked),
        Err(answer) => output.clap(&answer),
    };
    let code = match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            output.failure(&failure);
            ExitCode::from(failure.code())
        }
    };
    output.finish();
    code
}

fn perform(output: &Output, verb: Verb, blocked: Blocked) -> Result<(), Failure> {
    // The other commands end with a signal like any program.
    let blocked = matches!(verb, Verb::Run(_) | Verb::Demo(_)).then_some(blocked);
    match verb {
        Verb::Run(RunArgs {
            configuration: Configuration { config },
            lane,
        }) => gateway::run(output, &config, lane.into(), gateway::listen(blocked)?),
        Verb::Demo(DemoArgs { data }) => demo::demo(output, data, gateway::listen(blocked)?),
        Verb::Check(CheckArgs {
            configuration: Configuration { config },
            json,
            strict,
            explain,
            header,
            at,
        }) => match explain {
            Some(request) => check::explain(output, &config, json, &request, header, at.as_deref()),
            None => check::check(output, &config, json, strict),
        },
        Verb::Reload(remote) => remote::reload(output, &connect(output, remote)?),
        Verb::Stop(remote) => remote::stop(output, &connect(output, remote)?),
        Verb::Status(arguments) => {
            remote::status(output, &connect(output, arguments.remote)?, arguments.json)
        }
        Verb::Certs(verb) => certs::certs(output, verb),
        Verb::Upstreams(arguments) => upstreams::upstreams(output, arguments),
        Verb::Events(verb) => events::events(output, verb),
        Verb::Log(arguments) => log::log(output, arguments),
        Verb::Acme(verb) => acme::acme(output, verb),
        Verb::Ca(CaVerb::Root(arguments)) => ca::root(
            output,
            &arguments.configuration.config,
            arguments.issuer.as_deref(),
        ),
        Verb::Ca(CaVerb::Trust(arguments)) => ca::trust(
            output,
            &arguments.root.configuration.config,
            arguments.root.issuer.as_deref(),
            arguments.dry_run,
            arguments.uninstall,
        ),
        Verb::Schema => generate::schema(output),
        Verb::Completions { shell } => generate::completions(output, shell),
        Verb::Man { verb } => generate::man(output, &verb),
    }
}

fn connect(output: &Output, remote: Remote) -> Result<client::Client, Failure> {
    remote::connect(output, remote.admin, remote.token, remote.config.as_deref())
}

fn default_config() -> &'static Path {
    Path::new(CONFIG)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_tree_is_sound() {
        Cli::command().debug_assert();
    }

    /// The commands in a page: those in code within a line, and the lines of code that begin with one.
    fn commands(page: &str) -> Vec<String> {
        let (mut found, mut is_code) = (Vec::new(), false);
        for line in page.lines() {
            if line.trim_start().starts_with("```") {
                is_code = !is_code;
            } else if is_code {
                let line = line.trim_start().trim_start_matches("$ ");
                found.push(line.split(" #").next().unwrap_or_default().to_owned());
            } else {
                found.extend(line.split('`').skip(1).step_by(2).map(str::to_owned));
            }
        }
        found.retain(|text| text.starts_with("snigate ") && !text.starts_with("snigate ="));
        found
    }

    /// The words of a command, up to what only a shell understands.
    fn words(command: &str) -> Vec<String> {
        let mut words = Vec::new();
        for (number, part) in command.split('"').enumerate() {
            if number % 2 == 1 {
                words.push(part.to_owned());
                continue;
            }
            for word in part.split_whitespace() {
                match word {
                    "&&" | "|" | ">" | "…" => return words,
                    "SHELL" => words.push("bash".to_owned()),
                    _ => words.push(word.to_owned()),
                }
            }
        }
        words
    }

    #[test]
    fn commands_in_the_documentation_are_understood() {
        use clap::error::ErrorKind as E;

        let package = Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut pages = vec![package.join("README.md"), package.join("SECURITY.md")];
        let docs = std::fs::read_dir(package.join("docs")).expect("a directory");
        pages.extend(docs.map(|entry| entry.expect("an entry").path()));
        let (mut count, mut wrong) = (0, Vec::new());
        for path in pages {
            let page = std::fs::read_to_string(&path).expect("a page");
            for command in commands(&page) {
                count += 1;
                let Err(error) = Cli::command().try_get_matches_from(words(&command)) else {
                    continue;
                };
                let is_partial = matches!(
                    error.kind(),
                    E::DisplayHelp
                        | E::DisplayVersion
                        | E::DisplayHelpOnMissingArgumentOrSubcommand
                        | E::MissingSubcommand
                        // What is named without its arguments.
                        | E::MissingRequiredArgument
                );
                if !is_partial {
                    wrong.push(format!("{}: {command}: {error}", path.display()));
                }
            }
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
        assert!(count > 80, "{count}");
    }

    #[test]
    fn short_help_fits_a_screen() {
        let help = Cli::command().render_help().to_string();
        assert!(help.lines().count() <= 24, "{help}");
        assert!(
            help.lines().all(|line| line.chars().count() <= 100),
            "{help}"
        );
    }
}
