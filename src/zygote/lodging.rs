//! The zygote as a guest in the executable of an interpreter ([`guest`]).
//!
//! It is nobody yet, so it can become that executable: its pid, descriptors, user, limits and environment stay as they
//! are; what has been done for its generation is not done again.
//!
//! That happens with the rights that applications are loaded with, so that nothing is executed with more.

use std::error::Error;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use serde::{Deserialize, Serialize};

use super::proof::{Unfit, no_application};
use crate::app::AppFactory;
use crate::app::python::{self, Found};
use crate::boot::{BootRole, Envelope, StartContext};
use crate::config::{Config, ConfigErrors, Entry};
use crate::guest;
use crate::master::spawn::ZygoteBoot;
use crate::net::Listener;
use crate::net::set::{ListenerSet, SetState};

/// What a zygote tells the image that takes its place.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Lodging {
    /// The configuration. Its files may be out of reach by now.
    entries: Vec<Entry>,
    /// The listeners, when they are bound before the application is loaded.
    bound: Option<SetState>,
    /// The interpreter whose executable it is.
    found: Found,
}

impl Lodging {
    /// The configuration that the image before this one has read, and the listeners that it has bound. Makes the
    /// interpreter known to whoever loads applications here.
    pub(super) fn settle(self) -> Result<(Config, Option<SetState>), ConfigErrors> {
        python::use_found(self.found);
        Ok((Config::build(self.entries)?, self.bound))
    }
}

/// What a zygote holds that is not its own.
pub(super) struct Belongings<'a> {
    pub(super) control: BorrowedFd<'a>,
    pub(super) scoreboard: BorrowedFd<'a>,
    pub(super) handover: (BorrowedFd<'a>, BorrowedFd<'a>),
    pub(super) sheet: BorrowedFd<'a>,
    pub(super) locks: Option<BorrowedFd<'a>>,
    /// Listeners of the master that are not matched with the configuration yet.
    pub(super) inherited: &'a [Listener],
    /// All listeners, when they are bound before the application is loaded.
    pub(super) bound: Option<&'a ListenerSet>,
}

impl<'a> Belongings<'a> {
    /// Every descriptor.
    fn all(&self) -> Vec<BorrowedFd<'a>> {
        let mut all = vec![self.control, self.scoreboard, self.handover.0, self.handover.1, self.sheet];
        all.extend(self.locks);
        all.extend(self.inherited.iter().map(|listener| listener.fd.as_fd()));
        all.extend(self.bound.iter().flat_map(|bound| bound.iter()).map(|listener| listener.fd.as_fd()));
        all
    }

    /// What the master has told, with the numbers that descriptors have now.
    fn boot(&self, boot: &ZygoteBoot) -> ZygoteBoot {
        ZygoteBoot {
            control: self.control.as_raw_fd(),
            scoreboard: self.scoreboard.as_raw_fd(),
            handover: (self.handover.0.as_raw_fd(), self.handover.1.as_raw_fd()),
            sheet: Some(self.sheet.as_raw_fd()),
            locks: self.locks.map(|locks| locks.as_raw_fd()),
            ..boot.clone()
        }
    }
}

/// Becomes the executable of the interpreter that the configuration names, where that is the place to load
/// applications; returns when this process is to load them as it is.
pub(super) fn move_in(
    start: &StartContext,
    boot: &ZygoteBoot,
    config: &Config,
    factory: AppFactory,
    belongings: &Belongings<'_>,
) -> Result<(), Unfit> {
    let unfit = |error: Box<dyn Error>| no_application(config, error);
    let Some(found) = guest::invitation(config, factory).map_err(unfit)? else { return Ok(()) };
    let bound = belongings.bound.map(ListenerSet::state);
    let lodging = Lodging { entries: config.entries.clone(), bound, found: found.clone() };
    let inherited = belongings.inherited.iter().map(Listener::state).collect();
    let body = (belongings.boot(boot), lodging);
    let envelope = Envelope::write(BootRole::Guest, inherited, &body).map_err(Unfit::new)?;
    guest::execute(found, start, &envelope, &belongings.all()).map_err(unfit)
}
