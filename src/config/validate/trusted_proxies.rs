//! `server.trusted_proxies`. The lists that it names are read here.

use std::fmt;
use std::fs::{self, File};
use std::io::Read as _;
use std::path::Path;

use serde::Deserialize;

use super::context::Context;
use super::network::network;
use crate::config::model::{Network, NetworkSet};
use crate::config::problem::{At, quote, suggest};
use crate::config::schema::TrustedProxy;

/// The maximum size of a list, in octets. That of AWS has some millions, for all its services.
const MAX_LIST: u64 = 32 << 20;

/// A provider that publishes the networks of its proxies.
struct Provider {
    name: &'static str,
    /// Where it publishes them.
    url: &'static str,
}

const PROVIDERS: [Provider; 3] = [
    Provider {
        name: "cloudflare",
        url: "https://api.cloudflare.com/client/v4/ips",
    },
    Provider {
        name: "fastly",
        url: "https://api.fastly.com/public-ip-list",
    },
    Provider {
        name: "aws-cloudfront",
        url: "https://ip-ranges.amazonaws.com/ip-ranges.json",
    },
];

/// The networks whose proxies are believed.
pub(super) fn trusted_proxies(
    ctx: &mut Context<'_>,
    raw: &[TrustedProxy],
    at: &At<'_>,
) -> NetworkSet {
    let mut networks = Vec::new();
    for (index, entry) in raw.iter().enumerate() {
        let at = at.index(index);
        match entry {
            TrustedProxy::Network(text) => {
                let provider = PROVIDERS.iter().find(|provider| provider.name == text);
                if let Some(provider) = provider {
                    let path = format!("networks/{}", provider.name);
                    networks.extend(list(ctx, &at, &path, Some(provider)));
                } else if is_name(text) {
                    let message = format!("there is no list {}", at.quoted());
                    let hint = suggest(text, PROVIDERS.iter().map(|provider| provider.name));
                    ctx.problems.error(&at, message, hint);
                } else if let Some(network) = network(ctx, &at, text) {
                    warn_of_everybody(ctx, &at, network);
                    networks.push(network);
                }
            }
            TrustedProxy::List(list_of) => {
                networks.extend(list(ctx, &at.key("file"), &list_of.file, None));
            }
        }
    }
    networks.into_iter().collect()
}

/// Whether a text is the name of a list rather than a network.
fn is_name(text: &str) -> bool {
    text.starts_with(|first: char| first.is_ascii_alphabetic()) && !text.contains([':', '/'])
}

fn warn_of_everybody(ctx: &mut Context<'_>, at: &At<'_>, network: Network) {
    if network.is_everything() {
        let message = format!(
            "{} trusts everybody: any client can claim any address",
            at.quoted()
        );
        let hint = "name the networks of the proxies alone";
        ctx.problems.warn(at, message, hint);
    }
}

/// The networks of a list, which is a file.
fn list(
    ctx: &mut Context<'_>,
    at: &At<'_>,
    raw: &str,
    provider: Option<&Provider>,
) -> Vec<Network> {
    let path = ctx.path(at, raw);
    if raw.is_empty() || raw.contains('\0') {
        return Vec::new();
    }
    ctx.sources.watch(&path);
    let fault = match read_list(&path) {
        Ok(text) => match parse_list(&text) {
            Ok(networks) if !networks.is_empty() => return networks,
            Ok(_) => Fault::Empty,
            Err(fault) => fault,
        },
        Err(fault) => fault,
    };
    let shown = quote(&path.display().to_string());
    let message = match provider {
        Some(provider) => format!("the list of {} at {shown} {fault}", quote(provider.name)),
        None => format!("the list {shown} {fault}"),
    };
    let hint = match provider {
        Some(provider) => format!(
            "fetch it: curl -fsS --create-dirs -o {} {}",
            path.display(),
            provider.url
        ),
        None => "write one network a line, such as 10.0.0.0/8, or a list that Cloudflare, Fastly \
                 or AWS publishes"
            .to_owned(),
    };
    ctx.problems.error(at, message, hint);
    Vec::new()
}

/// What is wrong with a list, as the end of a sentence.
enum Fault {
    Unreadable(std::io::Error),
    NoFile,
    TooLarge,
    Empty,
    Json(serde_json::Error),
    /// An entry that is no network, with its line where it has one.
    Entry(String, Option<usize>),
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable(error) => write!(f, "cannot be read: {error}"),
            Self::NoFile => f.write_str("is not a regular file"),
            Self::TooLarge => write!(f, "is larger than {MAX_LIST} bytes"),
            Self::Empty => f.write_str("has no network in it"),
            Self::Json(error) => write!(f, "is not a list that is known: {error}"),
            Self::Entry(entry, None) => write!(f, "has {}, which is not a network", quote(entry)),
            Self::Entry(entry, Some(line)) => {
                let entry = quote(entry);
                write!(f, "has {entry} in line {line}, which is not a network")
            }
        }
    }
}

fn read_list(path: &Path) -> Result<Vec<u8>, Fault> {
    // Others, such as pipes, could keep a reader waiting.
    if !fs::metadata(path).map_err(Fault::Unreadable)?.is_file() {
        return Err(Fault::NoFile);
    }
    let mut octets = Vec::new();
    let file = File::open(path).map_err(Fault::Unreadable)?;
    let read = file.take(MAX_LIST + 1).read_to_end(&mut octets);
    read.map_err(Fault::Unreadable)?;
    if u64::try_from(octets.len()).is_ok_and(|length| length > MAX_LIST) {
        return Err(Fault::TooLarge);
    }
    Ok(octets)
}

/// Reads a list: one network a line, with `#` before comments, or JSON as a provider publishes it.
fn parse_list(octets: &[u8]) -> Result<Vec<Network>, Fault> {
    if octets.trim_ascii_start().starts_with(b"{") {
        let published: Published = serde_json::from_slice(octets).map_err(Fault::Json)?;
        let networks = published.networks();
        return networks.map(|text| to_network(text, None)).collect();
    }
    let text = String::from_utf8_lossy(octets);
    let lines = text.lines().zip(1..).filter_map(|(line, number)| {
        let entry = line.split('#').next().unwrap_or_default().trim();
        (!entry.is_empty()).then(|| to_network(entry, Some(number)))
    });
    lines.collect()
}

fn to_network(text: &str, line: Option<usize>) -> Result<Network, Fault> {
    let network = text.parse();
    network.map_err(|_| Fault::Entry(text.chars().take(64).collect(), line))
}

/// The lists of Cloudflare, Fastly and AWS. Each has some of these keys.
#[derive(Deserialize)]
#[serde(default)]
#[derive(Default)]
struct Published {
    /// Of Cloudflare.
    result: Cloudflare,
    /// Of Fastly.
    addresses: Vec<String>,
    ipv6_addresses: Vec<String>,
    /// Of AWS.
    prefixes: Vec<Prefix>,
    ipv6_prefixes: Vec<Prefix>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Cloudflare {
    ipv4_cidrs: Vec<String>,
    ipv6_cidrs: Vec<String>,
}

/// A network of AWS, and the service that it belongs to.
#[derive(Deserialize)]
struct Prefix {
    #[serde(alias = "ipv6_prefix")]
    ip_prefix: String,
    service: String,
}

impl Published {
    fn networks(&self) -> impl Iterator<Item = &str> {
        let Cloudflare {
            ipv4_cidrs,
            ipv6_cidrs,
        } = &self.result;
        let lists = [
            ipv4_cidrs,
            ipv6_cidrs,
            &self.addresses,
            &self.ipv6_addresses,
        ];
        let prefixes = self.prefixes.iter().chain(&self.ipv6_prefixes);
        let of_cloudfront = prefixes
            .filter(|prefix| matches!(&*prefix.service, "CLOUDFRONT" | "CLOUDFRONT_ORIGIN_FACING"));
        let of_cloudfront = of_cloudfront.map(|prefix| &*prefix.ip_prefix);
        let listed = lists.into_iter().flatten().map(String::as_str);
        listed.chain(of_cloudfront)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Vec<String>, String> {
        let networks = parse_list(text.as_bytes()).map_err(|fault| fault.to_string())?;
        Ok(networks.iter().map(Network::to_string).collect())
    }

    #[test]
    fn lists_are_read_in_the_forms_that_they_are_published_in() {
        for text in [
            "198.51.100.0/24\n2001:db8::/32\n",
            "# of 2026\r\n198.51.100.0/24 # first\r\n\r\n  2001:db8::/32",
            r#"{"result":{"ipv4_cidrs":["198.51.100.0/24"],"ipv6_cidrs":["2001:db8::/32"],
               "etag":"x"},"success":true,"errors":[],"messages":[]}"#,
            r#"{"addresses":["198.51.100.0/24"],"ipv6_addresses":["2001:db8::/32"]}"#,
            r#"{"syncToken":"1","createDate":"2026-01-01-00-00-00","prefixes":[
               {"ip_prefix":"203.0.113.0/24","region":"eu-west-1","service":"EC2"},
               {"ip_prefix":"198.51.100.0/24","region":"GLOBAL","service":"CLOUDFRONT"}],
               "ipv6_prefixes":[{"ipv6_prefix":"2001:db8::/32","region":"GLOBAL",
               "service":"CLOUDFRONT_ORIGIN_FACING","network_border_group":"GLOBAL"}]}"#,
        ] {
            let networks = read(text).expect("a list");
            assert_eq!(networks, ["198.51.100.0/24", "2001:db8::/32"], "{text}");
        }
        assert_eq!(read("\n# nothing\n"), Ok(Vec::new()));
        assert_eq!(read("{}"), Ok(Vec::new()));
    }

    #[test]
    fn whatever_else_is_in_a_list_is_reported() {
        for (text, words) in [
            ("198.51.100.0/24\n<html>\n", "'<html>' in line 2"),
            ("198.51.100.1/24", "'198.51.100.1/24' in line 1"),
            ("198.51.100.0/24, 203.0.113.0/24", "in line 1"),
            (r#"{"addresses":["x"]}"#, "'x', which is not a network"),
            (r#"{"addresses":"x"}"#, "is not a list that is known"),
            (r#"{"addresses":["#, "is not a list that is known"),
        ] {
            let error = read(text).expect_err("a fault");
            assert!(error.contains(words), "{error}");
        }
    }
}
