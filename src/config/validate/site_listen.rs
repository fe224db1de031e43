//! The addresses that sites name as theirs.

use super::context::Context;
use super::listen::parse;
use crate::config::model::{Admin, ListenAddress, Server, SiteTls};
use crate::config::problem::At;

/// The addresses that sites have named so far, besides those of the server.
pub(super) struct SiteListeners<'s> {
    server: &'s Server,
    named: Vec<Named>,
}

/// An address that only sites name.
struct Named {
    address: ListenAddress,
    is_tls: bool,
    /// Where it is named first.
    place: String,
}

/// Where a site is served.
pub(super) struct SiteAddresses {
    /// Empty if it does not say.
    pub(super) listen: Vec<ListenAddress>,
    /// The port of these that it is served at by TLS.
    pub(super) https_port: Option<u16>,
}

impl<'s> SiteListeners<'s> {
    pub(super) fn of(server: &'s Server) -> Self {
        Self {
            server,
            named: Vec::new(),
        }
    }

    /// The addresses of a site with this certificate.
    pub(super) fn addresses(
        &mut self,
        ctx: &mut Context<'_>,
        raw: &[String],
        tls: &SiteTls,
        at: &At<'_>,
    ) -> SiteAddresses {
        let is_tls = *tls != SiteTls::Off;
        let errors = ctx.problems.errors();
        let mut listen = Vec::with_capacity(raw.len());
        for (index, text) in raw.iter().enumerate() {
            let at = at.index(index);
            for address in parse(ctx, &at, text) {
                if let Err((message, hint)) = self.claim(ctx, &address, is_tls, &at) {
                    ctx.problems
                        .error(&at, format!("{} {message}", at.quoted()), hint);
                    break;
                }
                listen.push(address);
            }
        }
        let is_https =
            |address: &&ListenAddress| !self.server.http.iter().any(|at| at.is_same_place(address));
        let mut https = listen.iter().filter(|address| is_tls && is_https(address));
        let https_port = ListenAddress::https_port(https.clone());
        let has_https = https.next().is_some();
        if is_tls && !listen.is_empty() && !has_https && ctx.problems.errors() == errors {
            let message = "the site is served over TLS, but all its addresses are for HTTP";
            let hint = "add an address for HTTPS, or 'tls: off' for plain HTTP";
            ctx.problems.error(at, message, hint);
        }
        SiteAddresses {
            https_port: has_https.then_some(https_port),
            listen,
        }
    }

    /// Claims an address for a site, or says why it cannot have it, and what to do.
    fn claim(
        &mut self,
        ctx: &Context<'_>,
        address: &ListenAddress,
        is_tls: bool,
        at: &At<'_>,
    ) -> Result<(), (String, &'static str)> {
        let server = self.server;
        let mut https = server.https.iter();
        if https.any(|other| other.is_same_place(address)) {
            let why = "is for HTTPS, since 'server.https' has it, and the site has 'tls: off'";
            let hint = "name an address for HTTP, or remove 'tls: off'";
            return if is_tls {
                Ok(())
            } else {
                Err((why.to_owned(), hint))
            };
        }
        // A site with TLS is redirected to from there.
        if server.http.iter().any(|other| other.is_same_place(address)) {
            return Ok(());
        }
        let same = |named: &&Named| named.address.is_same_place(address);
        if let Some(named) = self.named.iter().find(same) {
            if named.is_tls == is_tls {
                return Ok(());
            }
            let (this, other) = match is_tls {
                true => ("HTTPS", "HTTP"),
                false => ("HTTP", "HTTPS"),
            };
            let why = format!(
                "cannot be for {this}: {} makes it one for {other}",
                named.place
            );
            return Err((why, "choose another port"));
        }
        let admin = match &server.admin {
            Admin::Off => None,
            Admin::Tcp(address) => Some(ListenAddress::Ip(*address)),
            Admin::Unix(path) => Some(ListenAddress::Unix {
                path: path.as_path().into(),
                mode: 0,
            }),
        };
        let of_server = |addresses: &[ListenAddress], key| {
            let mut addresses = addresses.iter();
            let overlaps = addresses.any(|other| other.collides_with(address));
            overlaps.then(|| format!("overlaps an address of '{key}'"))
        };
        let of_sites = || {
            let mut named = self.named.iter();
            let other = named.find(|named| named.address.collides_with(address))?;
            Some(format!("overlaps {}", other.place))
        };
        let overlap = of_server(&server.https, "server.https")
            .or_else(|| of_server(&server.http, "server.http"))
            .or_else(|| of_server(admin.as_slice(), "server.admin"))
            .or_else(of_sites);
        if let Some(overlap) = overlap {
            return Err((overlap, "choose another port, or write the same address"));
        }
        let place = format!("{}, at {}", at.path(), ctx.sources.describe(at.place()));
        self.named.push(Named {
            address: address.clone(),
            is_tls,
            place,
        });
        Ok(())
    }

    /// Whether two sites with these addresses are served at the same one.
    pub(super) fn meet(&self, one: &[ListenAddress], other: &[ListenAddress]) -> bool {
        let is_in = |address: &ListenAddress, list: &[ListenAddress]| {
            list.iter().any(|other| other.is_same_place(address))
        };
        let is_general = |address: &ListenAddress| {
            is_in(address, &self.server.https) || is_in(address, &self.server.http)
        };
        match (one, other) {
            ([], []) => true,
            ([], named) | (named, []) => named.iter().any(is_general),
            _ => one.iter().any(|address| is_in(address, other)),
        }
    }
}
