//! Everything that listens, bound before anything else is done.

use std::io;

use nix::unistd::{Gid, Uid};

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

    /// Gives the files of Unix sockets to a user and its group.
    ///
    /// # Errors
    /// If the system refuses.
    pub(super) fn set_owner(&self, user: Uid, group: Gid) -> io::Result<()> {
        let (user, group) = (user.as_raw(), group.as_raw());
        self.listeners.set_owner(user, group)?;
        match &self.admin {
            Some(admin) => admin.set_owner(user, group),
            None => Ok(()),
        }
    }
}
