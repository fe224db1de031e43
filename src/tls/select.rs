//! Which certificate a handshake presents, selected from one state of the configuration.

use std::any::Any;
use std::net::IpAddr;
use std::sync::Arc;

use super::policies::Policies;
use crate::certificate::sni::{CertificateSet, SniMap};
use crate::challenge::Challenges;
use crate::config::model::{ListenAddress, TlsPolicy, UnknownSni};
use crate::host::{Host, HostName, Identifier, MAX_HOST_NAME, NameBuffer};

/// The state of the configuration that a handshake works from.
pub struct Snapshot {
    /// The certificates by name.
    pub certificates: Arc<SniMap>,
    /// What a name without a certificate gets.
    pub unknown_sni: UnknownSni,
    /// Anything else that belongs to the same state of the configuration. The first request of the
    /// connection gets it ([`TlsInfo::take_attachment`](super::TlsInfo::take_attachment)). So a
    /// client that connects while the configuration changes sees the certificate and the response
    /// of one state, not of two.
    pub attachment: Option<Arc<dyn Any + Send + Sync>>,
    /// What sites demand of connections, by the name that a client requests.
    pub policies: Arc<Policies>,
}

impl Snapshot {
    /// Whether a client that requests `host`, a name in normal form, is presented a certificate
    /// for that name.
    pub fn covers(&self, host: &str) -> bool {
        let on_demand = || self.certificates.on_demand();
        self.certificates.lookup(host).is_some() || on_demand().is_some_and(|by| by.allows(host))
    }

    /// Whether a client that connects to the address `host` is presented a certificate for it.
    pub fn covers_ip(&self, host: IpAddr) -> bool {
        let default = self.certificates.default_set();
        self.certificates.lookup_ip(host).is_some()
            || default.is_some_and(|set| set.covers_ip(host))
    }

    /// Whether both consist of the same parts.
    pub fn is_same_as(&self, other: &Self) -> bool {
        let attachments = match (&self.attachment, &other.attachment) {
            (Some(one), Some(other)) => Arc::ptr_eq(one, other),
            (None, None) => true,
            _ => false,
        };
        attachments
            && Arc::ptr_eq(&self.certificates, &other.certificates)
            && self.unknown_sni == other.unknown_sni
            && Arc::ptr_eq(&self.policies, &other.policies)
    }

    /// Selects what to present to a client that requests `requested` and has connected to `local`,
    /// if that address is known, by the listener at `place`. A name that is served elsewhere only is
    /// unknown there.
    pub(super) fn select(
        &self,
        requested: &RequestedName,
        local: Option<IpAddr>,
        place: Option<&ListenAddress>,
    ) -> Selection {
        let host = requested.host(local);
        let is_elsewhere = match requested {
            RequestedName::Name(name) => self.policies.is_elsewhere(name, place),
            _ => false,
        };
        let own = match host {
            _ if is_elsewhere => None,
            Some(Host::Name(name)) => self.certificates.lookup(name),
            Some(Host::Ip(address)) => self.certificates.lookup_ip(address),
            None => None,
        };
        let found = match requested {
            RequestedName::Name(_) => own,
            _ => own.or_else(|| self.certificates.default_set()),
        };
        if let Some(loading) = self.certificates.loading()
            && !loading.is_settled(host, found.map(|set| &**set))
        {
            return Selection::Later;
        }
        match (requested, found) {
            (RequestedName::Invalid(_), _) => self.select_fallback(),
            (_, Some(set)) => Selection::Present(Arc::clone(set), Purpose::Serve),
            (RequestedName::Name(name), None) if !is_elsewhere && self.is_on_demand(name) => {
                Selection::OnDemand
            }
            (RequestedName::Name(_), None) => self.select_fallback(),
            (RequestedName::Nothing | RequestedName::Address(_), None) => {
                Selection::Refuse(Purpose::FallBack)
            }
        }
    }

    fn is_on_demand(&self, name: &HostName) -> bool {
        let on_demand = self.certificates.on_demand();
        on_demand.is_some_and(|by| by.allows(name.as_str()))
    }

    /// Selects what to present to a client whose name has no certificate.
    pub(super) fn select_fallback(&self) -> Selection {
        let default = match self.unknown_sni {
            UnknownSni::Default => self.certificates.default_set(),
            UnknownSni::Reject => None,
        };
        match default {
            Some(set) => Selection::Present(Arc::clone(set), Purpose::FallBack),
            None => Selection::Refuse(Purpose::FallBack),
        }
    }

    /// What the handshake of such a client has to meet, if anything beyond the general. A CA that
    /// validates a name is no client of it.
    pub(super) fn policy(
        &self,
        requested: &RequestedName,
        local: Option<IpAddr>,
        place: Option<&ListenAddress>,
        purpose: Purpose,
    ) -> Option<&Arc<TlsPolicy>> {
        match (purpose, requested) {
            (Purpose::Validate, _) => None,
            (_, RequestedName::Name(name)) => self.policies.of_name(name.as_str(), place),
            _ => self.policies.of_nameless(local, place),
        }
    }

    /// The name that a session belongs to: the requested one, or that of an address that has a
    /// certificate of its own.
    pub(super) fn session_name(
        &self,
        requested: &RequestedName,
        local: Option<IpAddr>,
    ) -> Option<HostName> {
        match requested {
            RequestedName::Name(name) => Some(name.clone()),
            RequestedName::Nothing | RequestedName::Address(_) => {
                let address =
                    local.filter(|local| self.certificates.lookup_ip(*local).is_some())?;
                Some(Identifier::Ip(address).dns_name())
            }
            RequestedName::Invalid(_) => None,
        }
    }
}

/// What a handshake is for. Sessions of different purposes are never mixed up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// The requested name is served.
    Serve = 0,
    /// The requested name is unknown. It gets the default certificate, if any.
    FallBack = 1,
    /// A CA validates the name (RFC 8737).
    Validate = 2,
}

/// What a client is presented.
#[derive(Clone)]
pub(super) enum Selection {
    /// Unknown until more certificates are loaded.
    Later,
    /// A certificate that is obtained when it is requested.
    OnDemand,
    Present(Arc<CertificateSet>, Purpose),
    /// An alert.
    Refuse(Purpose),
}

impl Selection {
    /// Selects what to present to a CA that validates the requested name.
    pub(super) fn for_validation(challenges: &Challenges, requested: &RequestedName) -> Self {
        let set = match requested {
            RequestedName::Name(name) => challenges.tls_alpn01(name.as_str()),
            _ => None,
        };
        set.map_or(Self::Refuse(Purpose::Validate), |set| {
            Self::Present(set, Purpose::Validate)
        })
    }

    pub(super) fn purpose(&self) -> Purpose {
        match self {
            Self::Later | Self::OnDemand => Purpose::Serve,
            Self::Present(_, purpose) | Self::Refuse(purpose) => *purpose,
        }
    }

    /// The certificates to present, if they are known.
    pub(super) fn set(&self) -> Option<&Arc<CertificateSet>> {
        match self {
            Self::Present(set, _) => Some(set),
            Self::Later | Self::OnDemand | Self::Refuse(_) => None,
        }
    }
}

/// What a ClientHello requests. Texts other than host names are as the client sent them, for logs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum RequestedName {
    #[default]
    Nothing,
    Name(HostName),
    /// An IP address, which is not a server name (RFC 6066, section 3): treated as no name.
    Address(String),
    /// Something that is no host name.
    Invalid(String),
}

impl RequestedName {
    /// Reads the name of a `server_name` extension.
    pub(super) fn parse(raw: Option<&[u8]>) -> Self {
        let Some(raw) = raw else {
            return Self::Nothing;
        };
        let mut buffer = NameBuffer::new();
        if let Some(name) = buffer.normalize(raw).and_then(|name| name.parse().ok()) {
            return Self::Name(name);
        }
        let text = String::from_utf8_lossy(raw.get(..MAX_HOST_NAME).unwrap_or(raw)).into_owned();
        let in_brackets = text
            .strip_prefix('[')
            .and_then(|text| text.strip_suffix(']'));
        match in_brackets.unwrap_or(&text).parse::<IpAddr>() {
            Ok(_) => Self::Address(text),
            Err(_) => Self::Invalid(text),
        }
    }

    /// Whether the client names no host, so that the address that it has connected to decides.
    pub(super) fn is_nothing(&self) -> bool {
        matches!(self, Self::Nothing | Self::Address(_))
    }

    /// What certificates are looked up by, for a client that has connected to `local`.
    pub(super) fn host(&self, local: Option<IpAddr>) -> Option<Host<'_>> {
        match self {
            Self::Name(name) => Some(Host::Name(name.as_str())),
            Self::Nothing | Self::Address(_) => local.map(Host::Ip),
            Self::Invalid(_) => None,
        }
    }

    /// The name as text. A caller that prints it must escape it.
    pub(super) fn as_str(&self) -> Option<&str> {
        match self {
            Self::Nothing => None,
            Self::Name(name) => Some(name.as_str()),
            Self::Address(text) | Self::Invalid(text) => Some(text),
        }
    }
}
