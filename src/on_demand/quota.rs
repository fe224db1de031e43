//! How many new names there may be: of one client network, of one registered domain, in all.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use super::bucket::{KeyedBuckets, SharedBucket};
use super::policy::registered;
use crate::clock::UnixTime;
use crate::config::model::{NameQuota, OnDemandLimits};
use crate::host::HostName;

/// How many domains, and how many networks, are kept in mind.
const ROOM: u64 = 20_000;

/// The quotas, with what is left of them.
pub(super) struct Quotas {
    limits: OnDemandLimits,
    all: SharedBucket,
    by_domain: Option<KeyedBuckets<Arc<str>>>,
    by_client: Option<KeyedBuckets<IpAddr>>,
}

/// A quota that is used up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum QuotaExceeded {
    All,
    Client,
    Domain,
}

impl QuotaExceeded {
    /// The key of the limit.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::All => "per_minute",
            Self::Client => "per_client",
            Self::Domain => "per_domain",
        }
    }
}

impl Quotas {
    pub(super) fn new(limits: OnDemandLimits, now: UnixTime) -> Self {
        let minute = NameQuota {
            names: limits.per_minute,
            per: Duration::from_secs(60),
        };
        Self {
            limits,
            all: SharedBucket::new(minute, now),
            by_domain: limits
                .per_domain
                .map(|quota| KeyedBuckets::new(quota, ROOM)),
            by_client: limits
                .per_client
                .map(|quota| KeyedBuckets::new(quota, ROOM)),
        }
    }

    /// Whether these are quotas within these limits.
    pub(super) fn are_of(&self, limits: &OnDemandLimits) -> bool {
        self.limits.per_minute == limits.per_minute
            && self.limits.per_domain == limits.per_domain
            && self.limits.per_client == limits.per_client
    }

    /// Takes a name that a client asks for: before anybody is asked, so that no client can have
    /// that done without end.
    pub(super) fn charge_client(
        &self,
        client: Option<IpAddr>,
        now: UnixTime,
    ) -> Result<(), QuotaExceeded> {
        match (&self.by_client, client) {
            (Some(quotas), Some(client)) if !quotas.try_charge(network(client), now) => {
                Err(QuotaExceeded::Client)
            }
            _ => Ok(()),
        }
    }

    /// Takes a name that may have a certificate. What strangers only ask for is none, so that they
    /// cannot use up what a domain, or all, may have.
    pub(super) fn charge_name(
        &self,
        name: &HostName,
        client: Option<IpAddr>,
        now: UnixTime,
    ) -> Result<(), QuotaExceeded> {
        let domain = || Arc::from(registered(name.as_str()));
        let used_up = match &self.by_domain {
            Some(quotas) if !quotas.try_charge(domain(), now) => QuotaExceeded::Domain,
            quotas => {
                if self.all.try_charge(now) {
                    return Ok(());
                }
                if let Some(quotas) = quotas {
                    quotas.refund(domain());
                }
                QuotaExceeded::All
            }
        };
        // The client is not to blame.
        self.refund_client(client);
        Err(used_up)
    }

    /// Gives back what [`Self::charge_client`] took.
    pub(super) fn refund_client(&self, client: Option<IpAddr>) {
        if let (Some(quotas), Some(client)) = (&self.by_client, client) {
            quotas.refund(network(client));
        }
    }

    /// Gives back all that was taken for a name that nothing was begun for.
    pub(super) fn refund_name(&self, name: &HostName, client: Option<IpAddr>) {
        self.refund_client(client);
        if let Some(quotas) = &self.by_domain {
            quotas.refund(Arc::from(registered(name.as_str())));
        }
        self.all.refund();
    }
}

/// What counts as one client: what is given to one household or server at the least.
pub(super) fn network(client: IpAddr) -> IpAddr {
    match client.to_canonical() {
        IpAddr::V4(v4) => IpAddr::V4(Ipv4Addr::from_bits(v4.to_bits() & (u32::MAX << 8))),
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & (u128::MAX << 72))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::unix;

    fn limits(per_minute: u32, per_domain: u32, per_client: u32) -> OnDemandLimits {
        let quota = |names| NameQuota {
            names,
            per: Duration::from_secs(3600),
        };
        OnDemandLimits {
            max_wait: Duration::from_secs(1),
            max_waiting: 10,
            per_minute,
            per_domain: Some(quota(per_domain)),
            per_client: Some(quota(per_client)),
        }
    }

    fn name(text: &str) -> HostName {
        text.parse().expect("a name")
    }

    fn client(text: &str) -> Option<IpAddr> {
        Some(text.parse().expect("an address"))
    }

    #[test]
    fn a_network_is_one_client() {
        let of = |text: &str| network(text.parse().expect("an address")).to_string();
        assert_eq!(of("192.0.2.77"), "192.0.2.0");
        assert_eq!(of("::ffff:192.0.2.77"), "192.0.2.0");
        assert_eq!(of("2001:db8:1:2ff:3::1"), "2001:db8:1:200::");
        let quotas = Quotas::new(limits(100, 100, 2), unix(0));
        assert!(quotas.charge_client(client("192.0.2.1"), unix(0)).is_ok());
        assert!(quotas.charge_client(client("192.0.2.2"), unix(0)).is_ok());
        let third = quotas.charge_client(client("192.0.2.3"), unix(0));
        assert_eq!(third, Err(QuotaExceeded::Client));
        assert!(quotas.charge_client(client("192.0.3.1"), unix(0)).is_ok());
        assert!(
            quotas
                .charge_client(client("192.0.2.3"), unix(1800))
                .is_ok()
        );
        assert!(quotas.charge_client(None, unix(0)).is_ok());
    }

    #[test]
    fn domains_are_those_that_are_registered() {
        let quotas = Quotas::new(limits(100, 2, 100), unix(0));
        let take = |host: &str| quotas.charge_name(&name(host), None, unix(0));
        assert!(take("a.shop.co.uk").is_ok() && take("b.shop.co.uk").is_ok());
        assert_eq!(take("c.shop.co.uk"), Err(QuotaExceeded::Domain));
        assert!(take("a.other.co.uk").is_ok() && take("a.github.io").is_ok());
        assert!(take("b.github.io").is_ok() && take("c.github.io").is_ok());
    }

    #[test]
    fn what_comes_to_nothing_is_put_back() {
        let quotas = Quotas::new(limits(1, 2, 2), unix(0));
        let (a, here) = (name("a.example"), client("192.0.2.1"));
        let take = |now| {
            quotas.charge_client(here, now)?;
            quotas.charge_name(&a, here, now)
        };
        assert_eq!(take(unix(0)), Ok(()));
        for _ in 0..5 {
            assert_eq!(
                take(unix(0)),
                Err(QuotaExceeded::All),
                "and neither domain nor client"
            );
        }
        assert_eq!(take(unix(60)), Ok(()));
        assert_eq!(
            take(unix(120)),
            Err(QuotaExceeded::Client),
            "by now that is used up"
        );
    }
}
