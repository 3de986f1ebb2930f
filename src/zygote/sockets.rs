//! The sockets of a generation that is about to prove itself: those of the master, then those that it serves on.

use std::io;

use super::proof::Unfit;
use crate::config::Config;
use crate::net::set::{ListenerSet, SetState};
use crate::net::{Listener, ListenerState};
use crate::sys::fd;

/// Listeners on their way from the master to the workers.
pub(super) struct Sockets {
    /// Those of the master that are not matched with the configuration yet.
    pub(super) inherited: Vec<Listener>,
    /// All, once they are.
    pub(super) bound: Option<ListenerSet>,
}

impl Sockets {
    /// Takes over those of the master, and those that the image before this one has bound.
    pub(super) fn adopt(inherited: Vec<ListenerState>, bound: Option<SetState>) -> Result<Self, Unfit> {
        let inherited = inherited.into_iter().map(|state| Listener::adopt(state).map(sheltered));
        let inherited = inherited.collect::<io::Result<_>>().map_err(Unfit::new)?;
        let bound = bound.map(ListenerSet::adopt).transpose().map_err(Unfit::new)?;
        Ok(Sockets { inherited, bound })
    }

    /// Binds what the configuration names.
    pub(super) fn bind(&mut self, config: &Config) -> Result<(), Unfit> {
        let inherited = std::mem::take(&mut self.inherited);
        self.bound = Some(ListenerSet::bind(config, inherited).map_err(Unfit::new)?);
        Ok(())
    }

    /// Those to serve on, bound now unless they were before.
    pub(super) fn into_bound(self, config: &Config) -> Result<ListenerSet, Unfit> {
        match self.bound {
            Some(bound) => Ok(bound),
            None => ListenerSet::bind(config, self.inherited).map_err(Unfit::new),
        }
    }

    /// Takes back what was made for a generation that cannot serve.
    pub(super) fn undo(&self) {
        self.bound.iter().for_each(ListenerSet::undo);
    }

    /// Every one of them.
    pub(super) fn all(&self) -> impl Iterator<Item = &Listener> {
        self.inherited.iter().chain(self.bound.iter().flat_map(ListenerSet::iter))
    }
}

/// The same listener out of the application's way.
pub(super) fn sheltered(listener: Listener) -> Listener {
    Listener { fd: fd::shelter(listener.fd), ..listener }
}
