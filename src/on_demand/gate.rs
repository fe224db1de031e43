//! What stands before a maker of certificates.

use std::net::IpAddr;
use std::sync::Arc;

use async_trait::async_trait;
use tracing::warn;

use super::{Maker, Wanted, allows};
use crate::certificate::sni::{CertificateSet, OnDemand};
use crate::host::{HostName, Pattern};

/// Gets certificates for the names that a policy allows.
pub struct Gate {
    maker: Arc<dyn Maker>,
    allow: Vec<Pattern>,
}

impl Gate {
    /// Lets `maker` make certificates for the names that `allow` covers.
    pub fn new(maker: Arc<dyn Maker>, allow: Vec<Pattern>) -> Self {
        Self { maker, allow }
    }
}

#[async_trait]
impl OnDemand for Gate {
    fn allows(&self, host: &str) -> bool {
        allows(&self.allow, host)
    }

    async fn certificate(
        &self,
        host: &str,
        _client: Option<IpAddr>,
    ) -> Option<Arc<CertificateSet>> {
        if !allows(&self.allow, host) {
            return None;
        }
        let name: HostName = host.parse().ok()?;
        if let Some(set) = self.maker.at_hand(&name) {
            return Some(set);
        }
        match self.maker.obtain(&name).await {
            Ok(set) => Some(set),
            Err(error) => {
                warn!(host, error = error.why, "no certificate on demand");
                None
            }
        }
    }
}

#[async_trait]
impl Wanted for Gate {
    async fn is_wanted(&self, name: &HostName) -> Option<bool> {
        Some(allows(&self.allow, name.as_str()))
    }
}
