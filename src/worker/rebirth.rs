//! From worker to zygote: a worker that has served for a while becomes what its successors are forked from
//! (`refork-after`).
//!
//! By then it has passed on its connections and finished its requests, and its runtime is gone. What a
//! worker has set up for itself is undone here, in the order in which it depends on each other; what is
//! left is a process as the zygote was when it forked this one, but for what the application remembers.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};

use log::{debug, warn};

use crate::app::{App, AppFactory};
use crate::channel::{Channel, FromWorker, FromZygote, ToZygote, bounded_reason};
use crate::config::Config;
use crate::error::EXIT_ERROR;
use crate::net::{Listener, ListenerState};
use crate::protocol::accounting::Accounting;
use crate::scoreboard::Scoreboard;
use crate::scoreboard::sheet::Sheet;
use crate::sys::process::{self, Pid, Signal};
use crate::sys::signal::{self, KillTimer};
use crate::sys::title::Title;
use crate::sys::{fd, stray};

use super::relief::Relief;
use super::{Birth, MasterChannel, request_log};

/// Tells the master when the worker has served so many requests.
pub(super) async fn tell_warm(
    accounting: Rc<Accounting>,
    requests: u64,
    app: Rc<dyn App>,
    relief: Option<Arc<Relief>>,
    channel: Arc<MasterChannel>,
) {
    accounting.served(requests).await;
    let obstacle = app.fork_obstacle(relief.map_or(0, |relief| relief.threads())).map(bounded_reason);
    if let Err(error) = channel.send(&FromWorker::Warm { obstacle }, &[]) {
        warn!("the master does not hear that this worker could be the zygote: {error}");
    }
}

/// The master's end as a zygote sees it.
type MasterOfZygote = Channel<FromZygote, ToZygote>;

/// What a worker that has become a zygote has in its hands.
pub struct Reborn {
    /// Its control channel.
    pub control: Channel<FromZygote, ToZygote>,
    /// Its generation.
    pub generation: u64,
    /// The shared listeners.
    pub listeners: Vec<Listener>,
    /// The scoreboard.
    pub scoreboard: Arc<Scoreboard>,
    /// The hand-over queue: the end to take from and the end to give to.
    pub handover: (OwnedFd, OwnedFd),
    /// The configuration of its generation.
    pub config: Arc<Config>,
    /// The application.
    pub app: Rc<dyn App>,
    /// How it was loaded.
    pub factory: AppFactory,
    /// What it has written down its requests on; its successors find theirs under the same number.
    pub sheet: Arc<Sheet>,
    /// Its line in `ps`.
    pub title: Option<Title>,
    /// The master, its parent.
    pub master: Pid,
}

/// What the server has given to the runtime of a worker, and gets back when it is promoted.
pub(super) struct Returned {
    /// The control channel of the zygote.
    pub(super) control: MasterOfZygote,
    pub(super) listeners: Vec<OwnedFd>,
    pub(super) handover: (OwnedFd, OwnedFd),
}

/// What a worker keeps from its birth, should it become a zygote.
pub(super) struct Keepsake {
    generation: u64,
    listeners: Vec<ListenerState>,
    scoreboard: Arc<Scoreboard>,
    config: Arc<Config>,
    factory: AppFactory,
    master: Pid,
    sheet: Arc<Sheet>,
    title: Arc<Mutex<Option<Title>>>,
}

impl Keepsake {
    pub(super) fn of(birth: &Birth, title: &Arc<Mutex<Option<Title>>>) -> Self {
        Keepsake {
            generation: birth.generation,
            listeners: birth.listeners.iter().map(Listener::state).collect(),
            scoreboard: Arc::clone(&birth.scoreboard),
            config: Arc::clone(&birth.config),
            factory: birth.factory,
            master: birth.master,
            sheet: Arc::clone(&birth.sheet),
            title: Arc::clone(title),
        }
    }

    pub(super) fn reborn(self, returned: Returned, app: Rc<dyn App>) -> Reborn {
        let received = self.listeners.into_iter().zip(returned.listeners);
        Reborn {
            control: returned.control,
            generation: self.generation,
            listeners: received.map(|(state, fd)| Listener::receive(state, fd)).collect(),
            scoreboard: self.scoreboard,
            handover: returned.handover,
            config: self.config,
            app,
            factory: self.factory,
            sheet: self.sheet,
            title: self.title.lock().unwrap_or_else(PoisonError::into_inner).take(),
            master: self.master,
        }
    }

    /// Undoes what the worker has set up for itself; `hup` is what catches its SIGHUP.
    ///
    /// # Errors
    /// What keeps it from being forked, as an operator reads it. It is to leave then.
    pub(super) fn shed(
        &self,
        app: &mut Rc<dyn App>,
        relief: Option<&Relief>,
        hup: signal::Writing,
    ) -> Result<(), String> {
        request_log::close();
        if let Some(relief) = relief {
            relief.end();
        }
        let app = Rc::get_mut(app).ok_or("the application is still in use")?;
        app.become_zygote()?;
        let threads = process::threads().map_err(|error| error.to_string())?;
        if threads > 1 {
            return Err(format!(
                "the application has {} threads of its own, which a fork would lose",
                threads - 1
            ));
        }
        self.change_ties(hup).map_err(|error| error.to_string())
    }

    /// From the ties of a worker to those of a zygote: it hears of the master by its channel alone, and
    /// has nothing to finish when that is gone.
    fn change_ties(&self, hup: signal::Writing) -> io::Result<()> {
        process::set_parent_death_signal(Some(Signal::SIGKILL))?;
        if process::parent() != self.master {
            return Err(io::Error::other("the master is gone"));
        }
        // Whatever was told to leave by signal until now is what serves no more.
        KillTimer::remove(Signal::SIGTERM)?;
        hup.end();
        stray::start_over();
        Ok(())
    }
}

/// A zygote's end of its control channel. It waits for nothing else.
pub(super) fn zygote_channel(control: OwnedFd) -> io::Result<MasterOfZygote> {
    let control = fd::shelter(control);
    fd::set_nonblocking(control.as_fd(), false)?;
    Ok(Channel::new(control))
}

/// Tells the master why this worker leaves in place of becoming the zygote.
pub(super) fn refuse(control: &MasterOfZygote, obstacle: String) {
    let failed = FromZygote::LoadFailed { reason: bounded_reason(obstacle), code: EXIT_ERROR };
    if let Err(error) = control.send(&failed, &[]) {
        debug!("the master has called the promotion off before: {error}");
    }
}
