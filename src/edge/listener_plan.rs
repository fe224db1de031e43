//! What a configuration wants to listen on, bound before anything changes.

use std::io;
use std::sync::Arc;

use super::listener::{BindError, Bound, Listener, ListenerKind};
use crate::config::model::{Config, ListenAddress, SiteTls};

/// An address that a configuration asks for.
pub(super) type Wanted = (ListenAddress, ListenerKind);

/// The addresses of the server, and those that only sites name.
pub(super) fn wanted(config: &Config) -> Vec<Wanted> {
    let of_kind = |addresses: &[ListenAddress], kind| {
        let addresses = addresses.iter().cloned();
        addresses.map(|at| (at, kind)).collect::<Vec<_>>()
    };
    let server = &config.server;
    let https = of_kind(&server.https, ListenerKind::Https);
    let mut wanted = [https, of_kind(&server.http, ListenerKind::Http)].concat();
    for site in &config.sites {
        let kind = match site.tls {
            SiteTls::Off => ListenerKind::Http,
            SiteTls::Auto(_) | SiteTls::Issuer(_) | SiteTls::PassThrough => ListenerKind::Https,
        };
        for address in &site.listen {
            if !wanted.iter().any(|(other, _)| other.is_same_place(address)) {
                wanted.push((address.clone(), kind));
            }
        }
    }
    wanted
}

/// The addresses of a configuration, all of them bound. If it is dropped, those that are not in use
/// are closed.
pub struct ListenerPlan {
    pub(super) addresses: Vec<Planned>,
    /// What those that are bound already have to become.
    pub(super) adapted: Vec<(Arc<Bound>, ListenAddress)>,
    /// Addresses that this machine does not have.
    pub(super) without: Vec<ListenAddress>,
}

pub(super) enum Planned {
    /// In use already.
    Open(Arc<Bound>, ListenerKind),
    New(Listener),
}

impl Planned {
    pub(super) fn bound(&self) -> &Arc<Bound> {
        match self {
            Self::Open(bound, _) => bound,
            Self::New(listener) => listener.bound(),
        }
    }

    pub(super) fn kind(&self) -> ListenerKind {
        match self {
            Self::Open(_, kind) => *kind,
            Self::New(listener) => listener.kind(),
        }
    }
}

impl ListenerPlan {
    /// Binds the addresses of a configuration. If this machine has no IPv6 and the same port is
    /// served over IPv4, `[::]` is left out.
    ///
    /// # Errors
    /// If another address cannot be bound.
    pub fn bind(config: &Config) -> Result<Self, BindError> {
        Self::bind_beside(&wanted(config), &[], &[])
    }

    /// Gives the files of Unix sockets to a user and its group.
    ///
    /// # Errors
    /// If the system refuses.
    pub fn set_owner(&self, user: u32, group: u32) -> io::Result<()> {
        let mut bound = self.addresses.iter().map(Planned::bound);
        bound.try_for_each(|bound| bound.set_owner(user, group))
    }

    /// The same for addresses of which some are in use, or bound for another plan.
    pub(super) fn bind_beside(
        wanted: &[Wanted],
        open: &[(Arc<Bound>, ListenerKind)],
        spare: &[Arc<Bound>],
    ) -> Result<Self, BindError> {
        let known = open.iter().map(|(bound, _)| bound).chain(spare);
        let mut known: Vec<_> = known.filter(|bound| bound.is_in_place()).collect();
        let is_wanted = |bound: &Bound| {
            let mut wanted = wanted.iter();
            wanted.any(|(address, _)| address.is_same_place(bound.wanted()))
        };
        // Those that stay are nobody's rivals.
        let rivals = known.iter().filter(|bound| !is_wanted(bound));
        let rivals: Vec<_> = rivals.map(|bound| Arc::clone(bound)).collect();
        let mut plan = Self {
            addresses: Vec::with_capacity(wanted.len()),
            adapted: Vec::new(),
            without: Vec::new(),
        };
        for (address, kind) in wanted {
            let found = take_known(&mut known, address);
            for bound in &found {
                bound.check_adaptable(address)?;
                plan.adapted.push((Arc::clone(bound), address.clone()));
            }
            let bound = match found.is_empty() {
                true => Bound::bind(address, &rivals),
                false => Ok(found),
            };
            let bound = match bound {
                Ok(bound) => bound,
                Err(error) if error.lacks_ipv6() && is_over_ipv4(wanted, address, *kind) => {
                    plan.without.push(address.clone());
                    continue;
                }
                Err(error) => return Err(error),
            };
            for bound in bound {
                let is_it = |(other, spoken): &(Arc<Bound>, ListenerKind)| {
                    Arc::ptr_eq(other, &bound) && spoken == kind
                };
                plan.addresses.push(match open.iter().any(is_it) {
                    true => Planned::Open(bound, *kind),
                    false => Planned::New(Listener::of(bound, *kind)?),
                });
            }
        }
        Ok(plan)
    }
}

/// Takes out of `known` what is bound for an address: one socket, since several may ask for a port of
/// the kernel's choice, or all of systemd's.
fn take_known(known: &mut Vec<&Arc<Bound>>, address: &ListenAddress) -> Vec<Arc<Bound>> {
    let mut found = Vec::new();
    while let Some(index) = known
        .iter()
        .position(|bound| bound.wanted().is_same_place(address))
    {
        found.push(Arc::clone(known.remove(index)));
        if !matches!(address, ListenAddress::Systemd(_)) {
            break;
        }
    }
    found
}

/// Whether the same port is listened on over IPv4, with the same protocol and interface.
fn is_over_ipv4(wanted: &[Wanted], address: &ListenAddress, kind: ListenerKind) -> bool {
    let port = |address: &ListenAddress| Some(address.ip()?.port());
    wanted.iter().any(|(other, spoken)| {
        other.ip().is_some_and(|other| other.is_ipv4())
            && port(other) == port(address)
            && (other.interface() == address.interface() || other.interface().is_none())
            && *spoken == kind
    })
}
