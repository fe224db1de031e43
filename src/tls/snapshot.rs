//! What handshakes work from, and which certificate a name gets.

use std::any::Any;
use std::net::IpAddr;
use std::sync::Arc;

use crate::certificate::sni::{CertificateSet, SniMap};
use crate::config::model::UnknownSni;
use crate::host::{Host, NameBuffer};

/// What a handshake works from.
pub struct Snapshot {
    /// The certificates by name.
    pub certificates: Arc<SniMap>,
    /// What a name without a certificate gets.
    pub unknown_sni: UnknownSni,
    /// Whatever else belongs to the same state of the configuration, handed to the first request
    /// of the connection ([`TlsInfo::take_attachment`]). So a client that connects while the
    /// configuration changes sees the certificate and the answer of one state, not of two.
    pub attachment: Option<Arc<dyn Any + Send + Sync>>,
}

impl Snapshot {
    /// Whether a client that asks for `host`, a name in normal form, is presented a certificate
    /// for that name.
    pub fn covers(&self, host: &str) -> bool {
        let on_demand = || self.certificates.on_demand();
        self.certificates.lookup(host).is_some() || on_demand().is_some_and(|by| by.allows(host))
    }

    /// Whether a client that comes to the address `host` is presented a certificate for it.
    pub fn covers_ip(&self, host: IpAddr) -> bool {
        let default = self.certificates.default_set();
        self.certificates.lookup_ip(host).is_some()
            || default.is_some_and(|set| set.covers_ip(host))
    }

    /// Whether both say the same by being made of the same parts.
    pub fn is_same_as(&self, other: &Self) -> bool {
        let attachments = match (&self.attachment, &other.attachment) {
            (Some(one), Some(other)) => Arc::ptr_eq(one, other),
            (None, None) => true,
            _ => false,
        };
        attachments
            && Arc::ptr_eq(&self.certificates, &other.certificates)
            && self.unknown_sni == other.unknown_sni
    }

    /// What to present to a client that has come to `local`, where that is known, and asks for
    /// `asked`: [`Selection::Later`] where that depends on certificates that are being loaded.
    pub(super) fn select(&self, asked: RequestedName<'_>, local: Option<IpAddr>) -> Selection {
        if let Some(loading) = self.certificates.loading() {
            let host = asked.host(local);
            let found = match host {
                Some(Host::Name(name)) => self.certificates.lookup(name),
                Some(Host::Ip(address)) => self.certificates.lookup_ip(address),
                None => None,
            };
            let default = || self.certificates.default_set();
            let found = match asked {
                RequestedName::Name(_) => found,
                RequestedName::Nothing | RequestedName::Invalid => found.or_else(default),
            };
            if !loading.is_settled(host, found.map(|set| &**set)) {
                return Selection::Later;
            }
        }
        self.select_now(asked, local)
    }

    /// The same from what is loaded.
    fn select_now(&self, asked: RequestedName<'_>, local: Option<IpAddr>) -> Selection {
        let default = || self.certificates.default_set().cloned();
        match asked {
            RequestedName::Nothing => {
                let own = local.and_then(|address| self.certificates.lookup_ip(address));
                let set = own.cloned().or_else(default);
                set.map_or(Selection::Refuse, |set| Selection::Present {
                    set,
                    fell_back: false,
                })
            }
            RequestedName::Name(name) => {
                if let Some(set) = self.certificates.lookup(name) {
                    return Selection::Present {
                        set: Arc::clone(set),
                        fell_back: false,
                    };
                }
                if self
                    .certificates
                    .on_demand()
                    .is_some_and(|by| by.allows(name))
                {
                    return Selection::OnDemand;
                }
                self.select_now(RequestedName::Invalid, local)
            }
            RequestedName::Invalid => {
                self.fallback_set()
                    .map_or(Selection::Refuse, |set| Selection::Present {
                        set,
                        fell_back: true,
                    })
            }
        }
    }

    /// What to present to a client whose name has no certificate.
    pub(super) fn fallback_set(&self) -> Option<Arc<CertificateSet>> {
        match self.unknown_sni {
            UnknownSni::Default => self.certificates.default_set().cloned(),
            UnknownSni::Reject => None,
        }
    }
}

/// What a ClientHello asks for.
#[derive(Clone, Copy)]
pub(super) enum RequestedName<'a> {
    /// No name, or an IP address, which is none (RFC 6066, section 3).
    Nothing,
    /// A host name in normal form.
    Name(&'a str),
    /// Something that is no host name.
    Invalid,
}

impl<'a> RequestedName<'a> {
    /// What certificates can be looked up by, for a client that has come to `local`.
    pub(super) fn host(self, local: Option<IpAddr>) -> Option<Host<'a>> {
        match self {
            Self::Name(name) => Some(Host::Name(name)),
            Self::Nothing => local.map(Host::Ip),
            Self::Invalid => None,
        }
    }

    pub(super) fn parse(raw: Option<&[u8]>, buffer: &'a mut NameBuffer) -> Self {
        let Some(raw) = raw else {
            return Self::Nothing;
        };
        let is_address = || {
            std::str::from_utf8(raw).is_ok_and(|text| {
                let bare = text
                    .strip_prefix('[')
                    .and_then(|text| text.strip_suffix(']'));
                bare.unwrap_or(text).parse::<IpAddr>().is_ok()
            })
        };
        match buffer.normalize(raw) {
            Some(name) => Self::Name(name),
            None if is_address() => Self::Nothing,
            None => Self::Invalid,
        }
    }
}

/// What a client is presented.
pub(super) enum Selection {
    /// What is known once more certificates are loaded.
    Later,
    /// A certificate that is got when it is asked for.
    OnDemand,
    Present {
        set: Arc<CertificateSet>,
        fell_back: bool,
    },
    /// An alert.
    Refuse,
}
