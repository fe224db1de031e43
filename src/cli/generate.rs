//! Generated output: the schema, completions and manual pages.

use anyhow::Context;
use clap::CommandFactory;
use clap_complete::Shell;

use super::failure::Failure;
use super::output::Output;
use super::{Cli, gateway};

/// Prints the JSON schema of the configuration.
pub(super) fn schema(output: &Output) -> Result<(), Failure> {
    let mut schema =
        serde_json::to_string_pretty(&gateway::schema()).context("cannot encode the schema")?;
    schema.push('\n');
    output.data(schema)
}

/// Prints the completion script for a shell.
pub(super) fn completions(output: &Output, shell: Shell) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "snigate", &mut script);
    output.data(script)
}

/// Prints the manual page of the program, or of one of its commands.
pub(super) fn man(output: &Output, verb: &[String]) -> Result<(), Failure> {
    let mut command = Cli::command();
    command.build();
    let mut page = &command;
    for word in verb {
        page = page
            .find_subcommand(word)
            .ok_or_else(|| Failure::Usage(format!("there is no command {}", verb.join(" "))))?;
    }
    let name = page
        .get_display_name()
        .unwrap_or_else(|| page.get_name())
        .to_owned();
    let mut text = Vec::new();
    clap_mangen::Man::new(page.clone())
        .title(name)
        .render(&mut text)
        .context("cannot create the manual page")?;
    output.data(text)
}
