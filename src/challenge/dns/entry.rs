//! An entry of `dns` in the configuration, opened when it is first needed.

use std::sync::Arc;

use tokio::sync::OnceCell;

use crate::config::model;
use crate::dns::lookup::{LookupOptions, Lookups, Propagation};
use crate::dns::{self, DnsError, DnsProvider};
use crate::schedule::{Failure, FailureClass};

/// An entry of the configuration, or one for lookups alone.
pub(super) struct Entry {
    pub(super) name: Arc<str>,
    /// `None` for lookups alone.
    pub(super) config: Option<Arc<model::Dns>>,
    /// The program's own provider for this entry.
    own: Option<Arc<dyn DnsProvider>>,
    opened: OnceCell<Arc<Opened>>,
}

/// What an entry provides.
pub(super) struct Opened {
    /// The provider that sets records.
    pub(super) provider: Option<Arc<dyn DnsProvider>>,
    pub(super) lookups: Lookups,
    /// How to wait until a record is visible; `None` to skip that.
    pub(super) propagation: Option<Propagation>,
}

impl Entry {
    pub(super) fn new(
        name: Arc<str>,
        config: Option<Arc<model::Dns>>,
        own: Option<Arc<dyn DnsProvider>>,
    ) -> Self {
        Self {
            name,
            config,
            own,
            opened: OnceCell::new(),
        }
    }

    /// An entry that is already open.
    #[cfg(test)]
    pub(super) fn of(opened: Opened) -> Self {
        Self {
            name: "main".into(),
            config: None,
            own: None,
            opened: OnceCell::new_with(Some(Arc::new(opened))),
        }
    }

    /// Opens the entry on first use.
    ///
    /// # Errors
    /// If the provider cannot be made; the next call tries again.
    pub(super) async fn get_or_open(&self) -> Result<&Opened, DnsError> {
        let opened = self.opened.get_or_try_init(|| async {
            let (name, config, own) = (
                Arc::clone(&self.name),
                self.config.clone(),
                self.own.clone(),
            );
            // Files are read, such as those of roots.
            let open = move || open_entry(&name, config.as_deref(), own);
            let opened = tokio::task::spawn_blocking(open).await;
            let broken = |error: tokio::task::JoinError| DnsError::Unreachable(error.to_string());
            opened.map_err(broken)?.map(Arc::new)
        });
        opened.await.map(|opened| &**opened)
    }
}

fn open_entry(
    name: &str,
    config: Option<&model::Dns>,
    own: Option<Arc<dyn DnsProvider>>,
) -> Result<Opened, DnsError> {
    let Some(config) = config else {
        return Ok(Opened {
            provider: None,
            lookups: Lookups::new(LookupOptions::default()),
            propagation: None,
        });
    };
    let propagation = config.propagation.as_ref();
    let lookups = Lookups::new(LookupOptions {
        resolvers: config.resolvers.clone(),
        servers: propagation
            .map(|one| one.servers.clone())
            .unwrap_or_default(),
        ..LookupOptions::default()
    });
    Ok(Opened {
        provider: Some(own.map_or_else(|| dns::open_provider(name, config), Ok)?),
        lookups,
        propagation: propagation.map(|one| Propagation {
            timeout: one.timeout,
            interval: one.interval,
            wait: one.wait,
        }),
    })
}

/// What a DNS error means for a validation.
pub(super) fn failure(error: &DnsError, message: String) -> Failure {
    let class = match error {
        DnsError::Unreachable(_) => FailureClass::Network,
        DnsError::Refused(_) => FailureClass::Configuration,
    };
    Failure::new(class, message)
}
