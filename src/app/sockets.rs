//! Everything that listens, bound before anything else is done.

use super::StartError;
use crate::admin;
use crate::config::model::Config;
use crate::edge::ListenerPlan;

pub(super) struct Sockets {
    pub(super) listeners: ListenerPlan,
    pub(super) admin: Option<admin::Listener>,
}

impl Sockets {
    /// Binds every listener.
    ///
    /// # Errors
    /// If an address cannot be bound.
    pub(super) fn bind(config: &Config) -> Result<Self, StartError> {
        Ok(Self {
            listeners: ListenerPlan::bind(config)?,
            admin: admin::Listener::bind(&config.server.admin)?,
        })
    }
}
