//! The proof that a generation can serve: its configuration, its rights, its application and its sockets, each by
//! having it.

use std::fmt::Display;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use log::{error, warn};

use super::FAMILY_SIGNALS;
use super::belongings::Belongings;
use super::lodging::{self, Lodging};
use super::sockets::Sockets;
use crate::app::plugin::Shared;
use crate::app::stray::turn_away;
use crate::app::{self, App, AppFactory};
use crate::boot::StartContext;
use crate::cache::Caches;
use crate::cli;
use crate::config::Config;
use crate::config::context::Reading;
use crate::error::{EXIT_ERROR, EXIT_NO_APP};
use crate::hooks::{self, Point};
use crate::logging::{self, spare};
use crate::master::spawn::ZygoteBoot;
use crate::net::ListenerState;
use crate::net::set::ListenerSet;
use crate::privileges::limits::{self, Started};
use crate::privileges::{Plan, Refusal};
use crate::scoreboard::Scoreboard;
use crate::signals;
use crate::sys::title::Title;
use crate::sys::{self, cred, fd, process, signal, stacks, stray};

/// A generation that cannot serve: the reason and the exit code of a first start.
pub(super) struct Unfit {
    pub(super) reason: String,
    pub(super) code: u8,
}

impl Unfit {
    pub(super) fn new(reason: impl ToString) -> Self {
        Unfit { reason: reason.to_string(), code: EXIT_ERROR }
    }
}

/// What a generation that can serve has.
pub(super) struct Proven {
    pub(super) config: Arc<Config>,
    pub(super) app: Option<Box<dyn App>>,
    pub(super) listeners: ListenerSet,
    pub(super) scoreboard: Arc<Scoreboard>,
    pub(super) handover: (OwnedFd, OwnedFd),
    pub(super) sheet: OwnedFd,
}

/// A zygote as it was executed.
pub(super) struct Arrival<'a> {
    pub(super) start: &'a StartContext,
    pub(super) boot: ZygoteBoot,
    /// What the image before this one has done, when that was a zygote too.
    pub(super) lodging: Option<Lodging>,
    /// Those that the master has.
    pub(super) listeners: Vec<ListenerState>,
}

impl Arrival<'_> {
    pub(super) fn prove(
        self,
        control: BorrowedFd<'_>,
        factory: AppFactory,
        title: &mut Title,
    ) -> Result<Proven, Unfit> {
        signal::shrug_off(FAMILY_SIGNALS).map_err(Unfit::new)?;
        let is_first_image = self.lodging.is_none();
        let (config, kept) = match self.lodging {
            Some(lodging) => lodging.settle().map_err(Unfit::new)?,
            None => (configuration(self.start, &self.boot)?, None),
        };
        title.set(&logging::title::zygote(&config, self.boot.generation));
        if is_first_image {
            let base = config.base_directory(&self.start.cwd);
            std::env::set_current_dir(&base)
                .map_err(|error| Unfit::new(format!("chdir: cannot enter {}: {error}", base.display())))?;
        }
        let sockets = Sockets::adopt(self.listeners, kept)?;
        let boot = &self.boot;
        let mut has = Belongings::claim(control, boot, sockets)?;
        stacks::prepare(has.sheet.as_fd()).map_err(Unfit::new)?;
        stacks::answer_on(control);
        // From here on there is a handler for each that may come; the image before this one has blocked them.
        signal::unblock_all().map_err(Unfit::new)?;
        let refused = |refusal: Refusal| Unfit::new(refusal.told(&config));
        if is_first_image {
            let started = boot.limits.map_or_else(Started::now, Ok).map_err(Unfit::new)?;
            limits::apply(&config, started, is_reload(boot)).map_err(refused)?;
        }
        let plan = Plan::of(&config).map_err(refused)?;
        let late = config.credentials.drop_after_apps;
        // Sockets while it may bind anything. A socket file of a generation that cannot serve is taken back if the
        // new user may do so; otherwise nobody listens on it, and the next one replaces it.
        if is_first_image && cred::is_root() && plan.gives_root_up() && !late {
            has.sockets.bind(&config)?;
        }
        let prepared = || {
            if is_first_image {
                if !late {
                    plan.follow_in_zygote().map_err(refused)?;
                }
                // A server that only lends sockets has nobody to serve it.
                if config.processes > 0 {
                    lodging::move_in(self.start, boot, &config, factory, &has)?;
                }
            }
            Caches::create(&config.caches).map_err(Unfit::new)
        };
        let caches = prepared().inspect_err(|_| has.sockets.undo())?;
        let locks = has.locks.take();
        app::plugin::share(boot.generation, Shared { locks, highest_lock: config.locks, caches });
        let app = match config.lazy_apps || config.processes == 0 {
            true => None,
            false => {
                let held = has.kept_from_the_application();
                Some(load(&config, factory, &held).inspect_err(|_| has.sockets.undo())?)
            }
        };
        // Last of all: sockets of a generation that cannot serve need not be taken back.
        let listeners = has.sockets.into_bound(&config)?;
        if late {
            plan.follow_in_zygote().map_err(refused).inspect_err(|_| listeners.undo())?;
        }
        let Belongings { scoreboard, handover, sheet, .. } = has;
        let scoreboard = Arc::new(scoreboard);
        Ok(Proven { config: Arc::new(config), app, listeners, scoreboard, handover, sheet })
    }
}

/// Whether a generation has served before.
fn is_reload(boot: &ZygoteBoot) -> bool {
    boot.generation > 1
}

/// Reads the configuration, and does what it wants done before anything else.
fn configuration(start: &StartContext, boot: &ZygoteBoot) -> Result<Config, Unfit> {
    let first = Reading::first();
    let reading = Reading {
        started: if boot.started > 0 { boot.started } else { first.started },
        started_by: boot.started_by.unwrap_or(first.started_by),
        is_reload: is_reload(boot),
    };
    let config = cli::configuration(reading, start.argv.iter().cloned()).map_err(Unfit::new)?;
    if reading.is_reload {
        // The first time it was the master who printed.
        let lines: String = config.prints.iter().map(|line| format!("{line}\n")).collect();
        // A log that nobody reads any more is no reason to refuse a reload.
        let _ = io::stdout().write_all(lines.as_bytes());
        for warning in &config.warnings {
            warn!("{warning}");
        }
        // The first time it was the master, before it did anything else.
        hooks::run_all(&config.hooks, Point::Asap).map_err(Unfit::new)?;
    }
    // Here and not by the master: a reload takes them from the configuration as it is now.
    sys::env::change(&config.unenv, &config.env);
    Ok(config)
}

/// What the master is asked for about signals: by the application while it was loaded, and by the
/// configuration.
pub(super) fn requests(config: &Config, app: Option<&dyn App>) -> Vec<signals::Request> {
    let mut requests = app.map(App::requests_to_master).unwrap_or_default();
    requests.extend(config.signals.iter().cloned());
    for request in &mut requests {
        if let signals::Request::Watch { path, .. } = request
            && let Ok(absolute) = std::path::absolute(&*path)
        {
            *path = absolute;
        }
    }
    requests
}

/// Nothing to serve with, and why.
pub(super) fn no_application(config: &Config, reason: impl Display) -> Unfit {
    let code = if config.need_app { EXIT_NO_APP } else { EXIT_ERROR };
    Unfit { reason: format!("no application: {reason}"), code }
}

/// Loads the application, and puts right what it did to this process.
fn load(config: &Config, factory: AppFactory, held: &[BorrowedFd<'_>]) -> Result<Box<dyn App>, Unfit> {
    let identities: Vec<_> = held.iter().map(|fd| fd::identity(*fd).ok()).collect();
    spare::keep();
    stray::watch();
    let app = app::load(config, factory);
    turn_away("while it was loaded");
    spare::mend();
    if held.iter().map(|fd| fd::identity(*fd).ok()).ne(identities) {
        error!(
            "the application has closed descriptors of the server while it was loaded: it must close only \
             those that it has opened"
        );
        // The channel to the master may be one of them, and none of them may be closed again.
        process::exit_now(i32::from(no_application(config, "").code));
    }
    let app = app.map_err(|error| no_application(config, error))?;
    // Code that gives signals their default actions means its own process, not the zygote's part.
    signal::shrug_off(&signal::defaulted(FAMILY_SIGNALS)).map_err(Unfit::new)?;
    Ok(app)
}
