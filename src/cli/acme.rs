//! `snigate acme`: the running gateway's accounts at CAs.

use anyhow::{Context, anyhow};
use clap::{Args, Subcommand};
use http::Method;
use serde_json::{Value, json};

use super::Remote;
use super::client::{self, Client};
use super::failure::Failure;
use super::output::{Output, clean};
use crate::admin::{AccountView, IssuerView};

/// The path of all issuers.
const PATH: &str = "/api/v1/issuers";

#[derive(Debug, Subcommand)]
pub(super) enum AcmeVerb {
    /// The account at a CA: show, create, rollover, contact, deactivate
    #[command(subcommand)]
    Account(AccountVerb),
}

#[derive(Debug, Subcommand)]
pub(super) enum AccountVerb {
    /// Show the account: its URL, its status at the CA, its contacts
    #[command(after_long_help = "\
The URL is what CAA records name in `accounturi` (RFC 8657).

Examples:
  snigate acme account show
  snigate acme account show --issuer letsencrypt --json | jq -r .url")]
    Show(ShowArgs),
    /// Create an account if there is none, or if it was deactivated
    #[command(after_long_help = "\
The first order creates the account automatically. Use this after a deactivation, when the gateway
does not create one.

Example:
  snigate acme account create --issuer letsencrypt")]
    Create(TaskArgs),
    /// Change the account's key
    #[command(after_long_help = "\
Waits up to a minute for pending orders, because they need the current key, and fails if they take
longer. The new key is stored before it is sent to the CA: after a crash in between, the key that
the CA knows stays in use.

Example:
  snigate acme account rollover --issuer letsencrypt")]
    Rollover(TaskArgs),
    /// Set the e-mail addresses that the CA may write to
    #[command(after_long_help = "\
They replace the previous ones. The issuer's `email` in the configuration does not change: the
account is stored under it.

Example:
  snigate acme account contact ops@example.com security@example.com")]
    Contact(ContactArgs),
    /// Deactivate the account permanently
    #[command(after_long_help = "\
This cannot be undone. Certificates stay valid. No more orders are placed at this CA until `snigate
acme account create` has created a new account.

Example:
  snigate acme account deactivate --issuer letsencrypt")]
    Deactivate(TaskArgs),
}

#[derive(Debug, Args)]
pub(super) struct ShowArgs {
    /// Show as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    whose: Whose,
}

#[derive(Debug, Args)]
pub(super) struct TaskArgs {
    #[command(flatten)]
    whose: Whose,
}

#[derive(Debug, Args)]
pub(super) struct ContactArgs {
    /// Addresses such as ops@example.com
    #[arg(required = true, value_name = "EMAIL")]
    emails: Vec<String>,
    #[command(flatten)]
    whose: Whose,
}

#[derive(Debug, Args)]
struct Whose {
    /// The issuer by its name in the configuration [default: the only one with ACME]
    #[arg(long, value_name = "NAME")]
    issuer: Option<String>,
    #[command(flatten)]
    remote: Remote,
}

/// Carries out the command.
pub(super) fn acme(output: &Output, verb: AcmeVerb) -> Result<(), Failure> {
    let AcmeVerb::Account(verb) = verb;
    match verb {
        AccountVerb::Show(ShowArgs { json, whose }) => show(output, whose, json),
        AccountVerb::Create(TaskArgs { whose }) => {
            let view = perform(output, whose, "create", None)?;
            output.note(format!(
                "{}: created the account {}",
                view.issuer,
                shown(&view)
            ));
            Ok(())
        }
        AccountVerb::Rollover(TaskArgs { whose }) => {
            let view = perform(output, whose, "rollover", None)?;
            let (issuer, print) = (&view.issuer, &view.facts.thumbprint);
            output.note(format!(
                "{issuer}: the account has a new key, with the thumbprint {}",
                clean(print)
            ));
            Ok(())
        }
        AccountVerb::Contact(ContactArgs { emails, whose }) => {
            let body = json!({ "email": emails });
            let view = perform(output, whose, "contact", Some(&body))?;
            output.note(format!(
                "{}: the CA may write to {}",
                view.issuer,
                clean(&view.facts.contacts.join(", "))
            ));
            Ok(())
        }
        AccountVerb::Deactivate(TaskArgs { whose }) => {
            let view = perform(output, whose, "deactivate", None)?;
            output.note(format!(
                "{issuer}: deactivated the account {}; run `snigate acme account create --issuer \
                 {issuer}` to create a new one",
                shown(&view),
                issuer = view.issuer,
            ));
            Ok(())
        }
    }
}

fn shown(view: &AccountView) -> String {
    clean(&view.facts.url)
}

fn show(output: &Output, whose: Whose, as_json: bool) -> Result<(), Failure> {
    let (client, issuer) = whose.resolve(output)?;
    let view: AccountView = client.get(&account(&issuer))?.decode()?;
    if as_json {
        let mut text = serde_json::to_string_pretty(&view).context("cannot encode the response")?;
        text.push('\n');
        return output.data(text);
    }
    let facts = &view.facts;
    let none = |text: String| {
        if text.is_empty() {
            "none".to_owned()
        } else {
            text
        }
    };
    let mut lines = vec![
        (
            "status",
            facts
                .status
                .clone()
                .unwrap_or_else(|| "not known".to_owned()),
        ),
        ("directory", facts.directory.clone()),
        ("account", facts.url.clone()),
        ("contacts", none(facts.contacts.join(", "))),
        ("thumbprint", facts.thumbprint.clone()),
    ];
    lines.extend(facts.bound_to.clone().map(|key| ("bound to", key)));
    lines.extend(facts.note.clone().map(|note| ("note", note)));
    let mut text = format!("{}\n", output.style().bold(&view.issuer));
    for (name, value) in lines {
        text.push_str(&format!("  {name:<13} {}\n", clean(&value)));
    }
    output.data(text)
}

fn perform(
    output: &Output,
    whose: Whose,
    task: &str,
    body: Option<&Value>,
) -> Result<AccountView, Failure> {
    let (client, issuer) = whose.resolve(output)?;
    let path = format!("{}/{task}", account(&issuer));
    client::runtime()?
        .block_on(client.send_request(Method::POST, &path, body))?
        .decode()
}

fn account(issuer: &str) -> String {
    format!("{PATH}/{issuer}/account")
}

impl Whose {
    /// The gateway, and the issuer: the named one, or the only one.
    fn resolve(self, output: &Output) -> Result<(Client, String), Failure> {
        let client = super::connect(output, self.remote)?;
        let views: Vec<IssuerView> = client.get(PATH)?.decode()?;
        let acme = views.iter().filter(|view| view.kind == "acme");
        let names: Vec<&str> = acme.map(|view| view.name.as_str()).collect();
        let all = names.join(", ");
        let found = match (self.issuer, names.as_slice()) {
            (Some(name), _) => {
                if !names.contains(&name.as_str()) {
                    let why = anyhow!("there is no ACME issuer named {name:?}");
                    return Err(if all.is_empty() {
                        why.into()
                    } else {
                        Failure::hinted(why, format!("there is: {all}"))
                    });
                }
                name
            }
            (None, [only]) => (*only).to_owned(),
            (None, []) => return Err(anyhow!("no ACME issuer is configured").into()),
            (None, _) => {
                return Err(Failure::hinted(
                    anyhow!("there are several ACME issuers: {all}"),
                    "choose one with --issuer",
                ));
            }
        };
        Ok((client, found))
    }
}
