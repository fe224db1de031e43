//! What the schema has and this build does not do yet: checked all the same, then refused.
//!
//! So a configuration that is written ahead is right when its feature comes, and who tries one
//! learns of all that is wrong at once. Each part moves to where it belongs with its feature.

use std::net::IpAddr;
use std::time::Duration;

use super::Validator;
use super::value::url;
use crate::config::problem::{At, suggest};
use crate::config::schema;
use crate::event::EventKind;

const HOUR: Duration = Duration::from_secs(3600);

/// Events of the configuration itself, beside those of [`EventKind`].
const CONFIG_EVENTS: [&str; 2] = ["config_reloaded", "config_rejected"];

impl Validator<'_> {
    pub(super) fn proxy_protocol(&mut self, raw: &schema::ProxyProtocol, at: &At<'_>) {
        let trusted = at.key("trusted");
        for (index, text) in raw.trusted.iter().enumerate() {
            let at = trusted.index(index);
            match network(text) {
                Network::Good => {}
                Network::HostBits => {
                    let message = format!("{} has bits beyond its length", at.quoted());
                    let hint = "give the first address of the network, such as 10.0.0.0/8";
                    self.problems.error(&at, message, hint);
                }
                Network::Bad => {
                    let message = format!("{} is not a network", at.quoted());
                    let hint = "write ADDRESS/LENGTH, such as 10.0.0.0/8, or one address";
                    self.problems.error(&at, message, hint);
                }
            }
        }
        self.unavailable(at);
    }

    pub(super) fn client_auth(&mut self, raw: &schema::ClientAuthorities, at: &At<'_>) {
        self.path(&at.key("ca"), &raw.ca);
        self.unavailable(at);
    }

    pub(super) fn etcd(&mut self, raw: &schema::Etcd, at: &At<'_>) {
        let endpoints = at.key("endpoints");
        for (index, text) in raw.endpoints.iter().enumerate() {
            let at = endpoints.index(index);
            let good = url(text).is_some_and(|url| matches!(url.path(), "" | "/"));
            if !good {
                let message = format!("{} is not the URL of a member of etcd", at.quoted());
                let hint = "write https://HOST:PORT, such as https://10.0.0.1:2379";
                self.problems.error(&at, message, hint);
            }
        }
        if !raw.prefix.starts_with('/') {
            let at = at.key("prefix");
            let message = format!("the prefix {} does not begin with '/'", at.quoted());
            self.problems.error(&at, message, "write /snigate");
        }
        for (key, path) in [("ca", &raw.ca), ("cert", &raw.cert), ("key", &raw.key)] {
            if let Some(path) = path {
                self.path(&at.key(key), path);
            }
        }
        self.both(
            at,
            ["user", "password"],
            [raw.user.is_some(), raw.password.is_some()],
        );
        self.both(at, ["cert", "key"], [raw.cert.is_some(), raw.key.is_some()]);
        self.unavailable(at);
    }

    pub(super) fn health(&mut self, raw: &schema::Health, at: &At<'_>) {
        let path = at.key("path");
        let good = raw.path.starts_with('/') && raw.path.bytes().all(|one| one.is_ascii_graphic());
        if !good {
            let message = format!("{} is not a path to request", path.quoted());
            let hint = "begin it with '/' and write anything but printable ASCII as %XX";
            self.problems.error(&path, message, hint);
        }
        self.duration(
            &at.key("every"),
            &raw.every,
            Duration::from_millis(100),
            HOUR,
        );
        self.unavailable(at);
    }

    pub(super) fn events(&mut self, raw: &schema::Root, root: &At<'_>) {
        let section = root.key("events");
        for (index, hook) in raw.events.iter().enumerate() {
            let at = section.index(index);
            self.event_names(&hook.on, &at.key("on"));
            match (&hook.webhook, &hook.exec) {
                (Some(webhook), None) => {
                    let at = at.key("webhook");
                    self.url(&at.key("url"), &webhook.url);
                }
                (None, Some(exec)) => {
                    let at = at.key("exec");
                    self.command(&exec.command, &at.key("command"));
                }
                (None, None) => {
                    let hint = "give exactly one of 'webhook' and 'exec'";
                    self.problems.error(&at, "the entry has no recipient", hint);
                }
                (Some(_), Some(_)) => {
                    let message = "'webhook' and 'exec' exclude each other";
                    let hint = "make a separate entry for each";
                    self.problems.error(&at, message, hint);
                }
            }
            let message = "'events' is not available in this build yet";
            self.problems
                .refuse(&at, message, "remove the entry for now");
        }
    }

    fn event_names(&mut self, names: &[String], at: &At<'_>) {
        let known = EventKind::ALL.iter().map(|kind| kind.as_str());
        let known = known.chain(CONFIG_EVENTS);
        for (index, name) in names.iter().enumerate() {
            if name != "*" && !known.clone().any(|known| known == name) {
                let at = at.index(index);
                let message = format!("there is no event {}", at.quoted());
                let hint = suggest(name, known.clone());
                self.problems.error(&at, message, hint);
            }
        }
    }
}

/// What a text is that should be a network.
#[derive(Debug, PartialEq, Eq)]
enum Network {
    Good,
    /// An address with more bits than the network's length.
    HostBits,
    Bad,
}

fn network(text: &str) -> Network {
    let (address, length) = match text.split_once('/') {
        Some((address, length)) => (address, Some(length)),
        None => (text, None),
    };
    let Ok(address) = address.parse::<IpAddr>() else {
        return Network::Bad;
    };
    let (bits, width) = match address {
        IpAddr::V4(v4) => (u128::from(v4.to_bits()) << 96, 32),
        IpAddr::V6(v6) => (v6.to_bits(), 128),
    };
    let Some(length) = length else {
        return Network::Good;
    };
    match length.parse::<u32>() {
        Ok(length) if length <= width => {
            if bits.checked_shl(length).unwrap_or(0) == 0 {
                Network::Good
            } else {
                Network::HostBits
            }
        }
        _ => Network::Bad,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks() {
        for good in [
            "10.0.0.0/8",
            "0.0.0.0/0",
            "192.0.2.1/32",
            "192.0.2.1",
            "2001:db8::/32",
            "::/0",
        ] {
            assert_eq!(network(good), Network::Good, "{good}");
        }
        for odd in ["10.0.0.1/8", "2001:db8::1/32", "192.0.2.1/0"] {
            assert_eq!(network(odd), Network::HostBits, "{odd}");
        }
        for bad in [
            "",
            "/8",
            "10.0.0.0/",
            "10.0.0.0/33",
            "::/129",
            "10.0/8",
            "10.0.0.0/-1",
            "lb.example",
        ] {
            assert_eq!(network(bad), Network::Bad, "{bad}");
        }
    }
}
