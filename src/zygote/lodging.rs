//! The zygote as a guest in the executable of an interpreter ([`guest`]).
//!
//! It is nobody yet, so it can become that executable: its pid, descriptors, user, limits and environment stay as they
//! are; what has been done for its generation is not done again.
//!
//! That happens with the rights that applications are loaded with, so that nothing is executed with more.

use std::error::Error;

use serde::{Deserialize, Serialize};

use super::belongings::Belongings;
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
    let bound = belongings.sockets.bound.as_ref().map(ListenerSet::state);
    let lodging = Lodging { entries: config.entries.clone(), bound, found: found.clone() };
    let inherited = belongings.sockets.inherited.iter().map(Listener::state).collect();
    let body = (belongings.boot(boot), lodging);
    let envelope = Envelope::write(BootRole::Guest, inherited, &body).map_err(Unfit::new)?;
    guest::execute(found, start, &envelope, &belongings.all()).map_err(unfit)
}
