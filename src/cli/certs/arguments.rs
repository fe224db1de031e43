//! What can be typed after `snigate certs`.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::time::Duration;

use anyhow::{anyhow, bail};
use clap::{Args, Subcommand, value_parser};

use crate::cli::Remote;
use crate::host::Pattern;
use crate::issuer::RevocationReason;

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum CertsVerb {
    /// List every certificate, the most urgent first
    #[command(after_long_help = "\
States: valid; due (waiting for renewal); obtaining (an order is in progress); failed (retried at
NEXT); paused (the CA requires action: see `snigate certs show`); missing; expired; not yet valid.

Examples:
  snigate certs list
  snigate certs list --fail-within 14d >/dev/null || echo 'look after the certificates'
  snigate certs list --json | jq -r '.[] | select(.state == \"failed\") | .name'")]
    List(ListArgs),
    /// Show everything about one certificate: its state, what went wrong, the next attempt
    #[command(after_long_help = "\
NAME is any name that the certificate is for, or its fingerprint.

Examples:
  snigate certs show www.example.com
  snigate certs show '*.example.com' --json
  snigate certs show www.example.com --pem | openssl x509 -noout -text")]
    Show(ShowArgs),
    /// Obtain a missing certificate, and watch the progress
    #[command(after_long_help = "\
Does nothing if there is a valid one. The gateway continues after the watching ends.

Examples:
  snigate certs obtain www.example.com
  snigate certs obtain www.example.com --no-wait")]
    Obtain(AskArgs),
    /// Renew a certificate now, and watch the progress
    #[command(after_long_help = "\
Orders at once, regardless of the schedule, and counts against the issuers' limits. The gateway
continues after the watching ends.

Examples:
  snigate certs renew www.example.com
  snigate certs renew '*.example.com' --timeout 10m")]
    Renew(AskArgs),
    /// Find out whether a name would get a certificate, without ordering one
    #[command(after_long_help = "\
Checks what could make an order fail: the CA's directory and limits, CAA records, and each type of
challenge, whose response is published briefly and looked up from the gateway's own machine as the
CA would. Exits with 1 if there would be no certificate.

Examples:
  snigate certs check www.example.com
  snigate certs check new.example.com --json")]
    Check(CheckArgs),
    /// Revoke a certificate at its CA, and obtain a replacement
    #[command(after_long_help = "\
A replacement, if one is needed, has a new key, and the revoked one is served until it is there.
With keyCompromise the key is set aside and never used again. This cannot be undone.

Examples:
  snigate certs revoke www.example.com --reason keyCompromise
  snigate certs revoke www.example.com --reason superseded --no-wait")]
    Revoke(RevokeArgs),
}

#[derive(Debug, Args)]
pub(in crate::cli) struct CheckArgs {
    /// The name that a certificate would be for
    pub(super) name: Name,
    /// Show as JSON
    #[arg(long)]
    pub(super) json: bool,
    /// The port that the CA connects to for http-01, if not the usual one
    #[arg(long, value_name = "PORT", default_value_t = 80, value_parser = value_parser!(u16).range(1..))]
    pub(super) http_port: u16,
    /// The port that the CA connects to for tls-alpn-01, if not the usual one
    #[arg(long, value_name = "PORT", default_value_t = 443, value_parser = value_parser!(u16).range(1..))]
    pub(super) https_port: u16,
    /// How long to wait for the result: a DNS record may take minutes to be seen
    #[arg(long, value_name = "TIME", default_value = "10m")]
    pub(super) timeout: Within,
    #[command(flatten)]
    pub(super) remote: Remote,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct RevokeArgs {
    /// Why: unspecified, keyCompromise, affiliationChanged, superseded or cessationOfOperation
    #[arg(long, value_name = "REASON", default_value = "unspecified")]
    pub(super) reason: RevocationReason,
    #[command(flatten)]
    pub(super) ask: AskArgs,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct ListArgs {
    /// List as JSON
    #[arg(long)]
    pub(super) json: bool,
    /// Exit with 4 if one expires within this time, such as 14d, is missing or has failed
    #[arg(long, value_name = "TIME")]
    pub(super) fail_within: Option<Within>,
    #[command(flatten)]
    pub(super) remote: Remote,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct ShowArgs {
    /// A name that the certificate is for
    pub(super) name: Name,
    /// Show as JSON
    #[arg(long, conflicts_with = "pem")]
    pub(super) json: bool,
    /// Print the certificate and its chain, PEM
    #[arg(long)]
    pub(super) pem: bool,
    #[command(flatten)]
    pub(super) remote: Remote,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct AskArgs {
    /// A name that the certificate is for
    pub(super) name: Name,
    /// Do not watch: exit as soon as the gateway has accepted the request
    #[arg(long, conflicts_with = "timeout")]
    pub(super) no_wait: bool,
    /// How long to watch
    #[arg(long, value_name = "TIME", default_value = "5m")]
    pub(super) timeout: Within,
    #[command(flatten)]
    pub(super) remote: Remote,
}

/// The name of a certificate as part of a path: nothing in it needs escaping.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::cli) struct Name(String);

impl FromStr for Name {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let is_fingerprint = text.len() == 64 && text.chars().all(|c| c.is_ascii_hexdigit());
        if is_fingerprint || text.parse::<IpAddr>().is_ok() {
            return Ok(Self(text.to_ascii_lowercase()));
        }
        match text.parse::<Pattern>() {
            Ok(Pattern::Any) => bail!("'*' alone is not the name of a certificate"),
            Ok(name) => Ok(Self(name.to_string())),
            Err(error) => Err(anyhow!("it {error}")),
        }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A time from now, as people and the configuration write it: `90s`, `5m`, `12h`, `14d`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::cli) struct Within(u32, Unit);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unit {
    Seconds,
    Minutes,
    Hours,
    Days,
}

impl Within {
    pub(super) fn seconds(self) -> i64 {
        let length = match self.1 {
            Unit::Seconds => 1,
            Unit::Minutes => 60,
            Unit::Hours => 3_600,
            Unit::Days => 86_400,
        };
        i64::from(self.0) * length
    }

    pub(in crate::cli) fn duration(self) -> Duration {
        Duration::from_secs(self.seconds().unsigned_abs())
    }
}

impl FromStr for Within {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let units = [
            ('s', Unit::Seconds),
            ('m', Unit::Minutes),
            ('h', Unit::Hours),
            ('d', Unit::Days),
        ];
        units
            .into_iter()
            .find_map(|(letter, unit)| Some((text.strip_suffix(letter)?, unit)))
            .filter(|(number, _)| number.bytes().all(|byte| byte.is_ascii_digit()))
            .and_then(|(number, unit)| Some(Self(number.parse().ok()?, unit)))
            .ok_or_else(|| anyhow!("write a whole number with s, m, h or d, such as 14d"))
    }
}

impl fmt::Display for Within {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = match self.1 {
            Unit::Seconds => 's',
            Unit::Minutes => 'm',
            Unit::Hours => 'h',
            Unit::Days => 'd',
        };
        write!(f, "{}{unit}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_brought_into_normal_form() {
        for (text, normal) in [
            ("WWW.Example.COM.", "www.example.com"),
            ("*.example.com", "*.example.com"),
            ("bücher.example", "xn--bcher-kva.example"),
            ("2001:DB8::1", "2001:db8::1"),
            (&"AB".repeat(32), &"ab".repeat(32)),
        ] {
            assert_eq!(text.parse::<Name>().expect(text).to_string(), normal);
        }
        for wrong in ["", "*", "a b", "a/renew", "a?b", "../status", "%2e"] {
            assert!(wrong.parse::<Name>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn times_are_written_as_in_the_configuration() {
        for (text, seconds) in [
            ("90s", 90),
            ("5m", 300),
            ("12h", 43_200),
            ("14d", 1_209_600),
        ] {
            let within: Within = text.parse().expect(text);
            assert_eq!(within.seconds(), seconds);
            assert_eq!(within.to_string(), text);
        }
        for wrong in [
            "",
            "14",
            "d",
            "-1d",
            "+1d",
            "1.5d",
            "14 d",
            "99999999999d",
            "1w",
        ] {
            assert!(wrong.parse::<Within>().is_err(), "{wrong}");
        }
    }
}
