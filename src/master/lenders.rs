//! Sockets that are lent to other instances: `zerg-server` and `zerg-pool`.

use std::os::fd::AsRawFd;

use log::{error, info, warn};
use serde::{Deserialize, Serialize};

use crate::config::{Config, ListenSpec};
use crate::net::zerg::Lender;
use crate::net::{BindOptions, Listener, ListenerState, VacuumOutcome};

use super::{Runner, Source};

/// A lender as it travels to the next image.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SavedLender {
    door: ListenerState,
    pool: Option<Vec<ListenerState>>,
}

impl SavedLender {
    /// What the next image needs.
    pub fn of(lender: &Lender) -> Self {
        let states = |pool: &Vec<Listener>| pool.iter().map(Listener::state).collect();
        SavedLender { door: lender.door.state(), pool: lender.pool.as_ref().map(states) }
    }

    /// Takes it over.
    ///
    /// # Errors
    /// When a descriptor is not there.
    pub fn adopt(self) -> std::io::Result<Lender> {
        let pool = self.pool.map(|pool| pool.into_iter().map(Listener::adopt).collect()).transpose()?;
        Ok(Lender { door: Listener::adopt(self.door)?, pool })
    }
}

/// Opens the doors of a configuration, but for those that are open already.
///
/// # Errors
/// The first address that cannot be had, with the option that names it.
pub fn open(config: &Config, mut held: Vec<Lender>) -> Result<Vec<Lender>, String> {
    let options =
        BindOptions { backlog: config.backlog, reuse_port: config.reuse_port, ..BindOptions::default() };
    let bind = |option: &str, address: &str| {
        Listener::bind(address, &options)
            .map_err(|error| format!("{option}: {error}{}", config.place(option)))
    };
    let mut lenders = Vec::new();
    let mut keep = |door: &str, addresses: Option<&[String]>| {
        let same = |it: &Lender| {
            let pool = it.pool.as_ref().map(|pool| pool.iter().map(|it| it.name.clone()).collect::<Vec<_>>());
            it.door.name == door && pool.as_deref() == addresses
        };
        held.iter().position(same).map(|at| held.swap_remove(at))
    };
    if let Some(ListenSpec { address, .. }) = &config.zerg_server {
        lenders.push(match keep(address, None) {
            Some(lender) => lender,
            None => Lender { door: bind("zerg-server", address)?, pool: None },
        });
    }
    for spec in &config.zerg_pools {
        lenders.push(match keep(&spec.door, Some(&spec.addresses)) {
            Some(lender) => lender,
            None => {
                let pool = spec.addresses.iter().map(|it| bind("zerg-pool", it)).collect::<Result<_, _>>()?;
                Lender { door: bind("zerg-pool", &spec.door)?, pool: Some(pool) }
            }
        });
    }
    held.iter().for_each(remove_files);
    Ok(lenders)
}

/// Removes the socket files of a lender that is not wanted any more.
pub fn remove_files(lender: &Lender) {
    for listener in std::iter::once(&lender.door).chain(lender.pool.iter().flatten()) {
        if let VacuumOutcome::Failed(reason) = listener.remove_if_ours() {
            warn!("unix socket {} stays behind: {reason}", listener.name);
        }
    }
}

impl Runner {
    pub(super) fn watch_lenders(&mut self) {
        for lender in &self.holdings.lenders {
            info!("lending sockets on {}", lender.door.local);
        }
        let doors: Vec<i32> = self.holdings.lenders.iter().map(|it| it.door.fd.as_raw_fd()).collect();
        for door in doors {
            self.watch(door, Source::Lender(door));
        }
    }

    /// Somebody has connected.
    pub(super) fn lend(&mut self, door: i32) {
        let lenders = &self.holdings.lenders;
        let Some(lender) = lenders.iter().find(|it| it.door.fd.as_raw_fd() == door) else { return };
        match lender.lend(&self.holdings.listeners) {
            Ok(0) => {}
            Ok(_) => info!("{}: sockets lent", lender.door.local),
            Err(error) => error!("{}: sockets could not be lent: {error}", lender.door.local),
        }
    }
}
