//! Sockets that are lent to other instances: `zerg-server` and `zerg-pool`.

use std::os::fd::AsRawFd;

use log::{error, info, warn};
use serde::{Deserialize, Serialize};

use crate::config::Config;
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

/// What a configuration lends, and every address that could not be had, with the option that names it.
/// What is held already is kept.
pub fn open(config: &Config, mut held: Vec<Lender>) -> (Vec<Lender>, Vec<String>) {
    let options =
        BindOptions { backlog: config.backlog, reuse_port: config.reuse_port, ..BindOptions::default() };
    let mut errors = Vec::new();
    let mut find = |option: &str, address: &str, at_hand: &mut Vec<Listener>| {
        if let Some(position) = at_hand.iter().position(|it| it.name == address) {
            return Some(at_hand.swap_remove(position));
        }
        let bound = Listener::bind(address, &options);
        bound.map_err(|error| errors.push(format!("{option}: {error}{}", config.place(option)))).ok()
    };
    let server = config.zerg_server.iter().map(|spec| ("zerg-server", &spec.address, None));
    let pools = config.zerg_pools.iter().map(|spec| ("zerg-pool", &spec.door, Some(&spec.addresses)));
    let mut lenders = Vec::new();
    for (option, door, addresses) in server.chain(pools) {
        let position = held.iter().position(|it| it.door.name == *door);
        let (mut doors, mut sockets) = match position.map(|position| held.swap_remove(position)) {
            Some(Lender { door, pool }) => (vec![door], pool.unwrap_or_default()),
            None => (Vec::new(), Vec::new()),
        };
        let pool = addresses.map(|all| all.iter().filter_map(|it| find(option, it, &mut sockets)).collect());
        sockets.iter().for_each(remove_file);
        lenders.extend(find(option, door, &mut doors).map(|door| Lender { door, pool }));
    }
    held.iter().for_each(remove_files);
    (lenders, errors)
}

/// Removes the socket files of a lender that is not wanted any more.
pub fn remove_files(lender: &Lender) {
    std::iter::once(&lender.door).chain(lender.pool.iter().flatten()).for_each(remove_file);
}

fn remove_file(listener: &Listener) {
    if let VacuumOutcome::Failed(reason) = listener.remove_if_ours() {
        warn!("unix socket {} stays behind: {reason}", listener.name);
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
