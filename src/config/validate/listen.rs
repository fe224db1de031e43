//! Addresses to listen on.

use std::net::{Ipv6Addr, SocketAddrV6};
use std::sync::Arc;

use super::context::Context;
use crate::config::model::{Admin, ListenAddress};
use crate::config::problem::At;

/// The permissions of a Unix socket whose configuration says nothing about them.
const MODE: u32 = 0o660;

/// How to write an address, if nothing better is known.
const OTHER: &str = "write ADDRESS:PORT, such as 0.0.0.0:443, or :443 for all addresses";

/// The longest name of an interface.
const LONGEST_INTERFACE: usize = 15;

/// Listeners' addresses so far, with the places where they are configured.
#[derive(Default)]
pub(super) struct Taken<'a>(Vec<(ListenAddress, At<'a>)>);

impl<'a> Taken<'a> {
    /// The addresses of a list, which must be free.
    pub(super) fn claim_list(
        &mut self,
        ctx: &mut Context<'_>,
        raw: &[String],
        at: &'a At<'a>,
    ) -> Vec<ListenAddress> {
        let mut addresses = Vec::with_capacity(raw.len());
        for (index, text) in raw.iter().enumerate() {
            let at = at.index(index);
            let parsed = parse(ctx, &at, text);
            self.claim(ctx, &parsed, at);
            addresses.extend(parsed);
        }
        addresses
    }

    /// The address of the admin API, which must be free.
    pub(super) fn claim_admin(&mut self, ctx: &mut Context<'_>, admin: &Admin, at: At<'a>) {
        let address = match admin {
            Admin::Off => return,
            Admin::Tcp(address) => ListenAddress::Ip(*address),
            Admin::Unix(path) => ListenAddress::Unix {
                path: path.as_path().into(),
                mode: MODE,
            },
        };
        self.claim(ctx, &[address], at);
    }

    /// Claims the addresses that one entry stands for, or reports that one is already taken.
    fn claim(&mut self, ctx: &mut Context<'_>, addresses: &[ListenAddress], at: At<'a>) {
        let is_taken = |(other, _): &&(ListenAddress, At<'_>)| {
            let mut addresses = addresses.iter();
            addresses.any(|address| address.collides_with(other))
        };
        if let Some((_, first)) = self.0.iter().find(is_taken) {
            let message = format!(
                "{} is already used by {}, at {}",
                at.quoted(),
                first.path(),
                ctx.sources.describe(first.place()),
            );
            let hint = match addresses.iter().any(|address| address.ip().is_some()) {
                true => "choose another port",
                false => "name each socket once",
            };
            ctx.problems.error(&at, message, hint);
            return;
        }
        for address in addresses {
            self.0.push((address.clone(), at));
        }
    }
}

/// The addresses that one entry stands for; none if it is wrong, which is reported.
pub(super) fn parse(ctx: &mut Context<'_>, at: &At<'_>, raw: &str) -> Vec<ListenAddress> {
    if let Some(rest) = raw.strip_prefix("unix:") {
        return unix(ctx, at, rest).into_iter().collect();
    }
    if let Some(name) = raw.strip_prefix("systemd:") {
        if name.is_empty() || !name.bytes().all(|octet| octet.is_ascii_graphic()) {
            let message = format!("{} names no socket", at.quoted());
            let hint = "give the FileDescriptorName of a socket unit, such as systemd:https";
            ctx.problems.error(at, message, hint);
            return Vec::new();
        }
        return vec![ListenAddress::Systemd(name.into())];
    }
    if let Ok(address) = raw.parse() {
        return vec![ListenAddress::Ip(address)];
    }
    let parts = raw.rsplit_once(':');
    let is_number = |text: &str| text.bytes().all(|octet| octet.is_ascii_digit());
    let parts = parts.filter(|(_, port)| is_number(port));
    if let Some((host, port)) = parts
        && let Ok(port) = port.parse()
    {
        if host.is_empty() {
            return ListenAddress::all(port).into();
        }
        if let Some((address, interface)) = link_local(host) {
            let address = SocketAddrV6::new(address, port, 0, 0);
            return vec![ListenAddress::LinkLocal { interface, address }];
        }
        if is_interface(host) && host != "localhost" {
            return ListenAddress::all_of(&host.into(), port).into();
        }
    }
    let message = format!("{} is not an address to listen on", at.quoted());
    let hint = match parts {
        _ if at.is_reference() => OTHER.to_owned(),
        Some(("*", port)) => format!("write :{port} for all addresses"),
        Some(("localhost", port)) => format!("write 127.0.0.1:{port} or [::1]:{port}"),
        None if !raw.is_empty() && is_number(raw) => {
            format!("write :{raw} for all addresses, or ADDRESS:{raw}")
        }
        _ if raw.starts_with('/') => format!("write unix:{raw}"),
        _ if raw.starts_with("fd:") => "write systemd:NAME for a socket of systemd".to_owned(),
        _ => OTHER.to_owned(),
    };
    ctx.problems.error(at, message, hint);
    Vec::new()
}

/// The address and the interface of `[fe80::1%eth0]`.
fn link_local(host: &str) -> Option<(Ipv6Addr, Arc<str>)> {
    let inner = host.strip_prefix('[')?.strip_suffix(']')?;
    let (address, interface) = inner.split_once('%')?;
    let address: Ipv6Addr = address.parse().ok()?;
    (address.is_unicast_link_local() && is_interface(interface))
        .then(|| (address, interface.into()))
}

/// Whether this can be the name of an interface, and is no address.
fn is_interface(name: &str) -> bool {
    let is_fit = |octet: u8| octet.is_ascii_alphanumeric() || b".-_@".contains(&octet);
    (1..=LONGEST_INTERFACE).contains(&name.len())
        && name.bytes().all(is_fit)
        && name.bytes().any(|octet| octet.is_ascii_alphabetic())
}

/// A socket in the file system: `PATH`, or `PATH|MODE`.
fn unix(ctx: &mut Context<'_>, at: &At<'_>, raw: &str) -> Option<ListenAddress> {
    let (path, mode) = match raw.rsplit_once('|') {
        Some((path, mode)) => (path, u32::from_str_radix(mode, 8).ok()),
        None => (raw, Some(MODE)),
    };
    let Some(mode) = mode.filter(|mode| *mode <= 0o777) else {
        let message = format!("{} does not end with permissions", at.quoted());
        let hint = "write them in octal after the path, such as unix:/run/snigate/web.sock|0666";
        ctx.problems.error(at, message, hint);
        return None;
    };
    let path = ctx.socket_path(at, path).into();
    Some(ListenAddress::Unix { path, mode })
}
