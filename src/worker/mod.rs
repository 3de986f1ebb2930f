//! A worker: from the fork to serving, and out again.
//!
//! One thread, one tokio runtime, no locks. [`accept`] takes connections, [`lookout`] hears of them, [`connection`] is one of
//! them, [`connections`] all of them with their time limits, [`handover`] how they go to another
//! worker, `control` what the master says and hears, [`rebirth`] how it becomes a zygote.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Waker};
use std::time::Duration;

use bytes::Bytes;
use log::{debug, error, warn};
use tokio::task::LocalSet;

use crate::app::slots::Slots;
use crate::app::stray::turn_away;
use crate::app::{self, App, AppCommand, AppFactory, ConnectionInfo, Peer, WorkerInfo};
use crate::cause::Cause;
use crate::channel::{Channel, FromWorker, ToWorker, bounded_reason, headline};
use crate::config::Config;
use crate::error::{EXIT_ERROR, EXIT_NO_APP, EXIT_OK};
use crate::hooks::{self, Point};
use crate::logging::{self, Role, spare};
use crate::net::Listener;
use crate::protocol::accounting::Accounting;
use crate::protocol::http::{Front, HttpLimits};
use crate::protocol::stream::Stream;
use crate::scoreboard::sheet::Sheet;
use crate::scoreboard::{Scoreboard, WorkerState};
use crate::sys::accept::Client;
use crate::sys::process::{self, Pid, Signal};
use crate::sys::signal::{self, KillTimer};
use crate::sys::title::Title;
use crate::sys::{fd, stacks, stray, watch};

pub mod accept;
mod accepting_hooks;
pub mod connection;
pub mod connections;
mod control;
pub mod handover;
pub mod lookout;
mod placement;
pub mod rebirth;
pub mod relief;
mod request_log;
mod signals;
mod stragglers;
mod wear;

use accepting_hooks::AcceptingHooks;

use accept::{Accepted, Acceptor, Door, Mode};
use connection::Connection;
use connections::ConnectionSet;
use handover::{Giver, Parcel};
use lookout::{Lookout, Parking};
use rebirth::{Keepsake, Reborn, Returned};
use relief::Relief;
use signals::Signals;

/// Everything a fresh worker has in its hands.
pub struct Birth {
    /// Identity for the life of the instance.
    pub worker: u64,
    /// Worker number.
    pub slot: u32,
    /// Its scoreboard cell.
    pub cell: usize,
    /// Its generation.
    pub generation: u64,
    /// Re-execs of the master so far.
    pub reloads: u64,
    /// The hand-over queue: the end to take from and the end to give to.
    pub handover: (OwnedFd, OwnedFd),
    /// Where its requests are written down.
    pub sheet: Arc<Sheet>,
    /// True when it shall not accept before it is told to.
    pub paused: bool,
    /// Its end of the control channel.
    pub control: OwnedFd,
    /// The shared listeners.
    pub listeners: Vec<Listener>,
    /// The scoreboard.
    pub scoreboard: Arc<Scoreboard>,
    /// The configuration of its generation.
    pub config: Arc<Config>,
    /// The application, unless each worker loads its own.
    pub app: Option<Rc<dyn App>>,
    /// How to load it.
    pub factory: AppFactory,
    /// Its line in `ps`.
    pub title: Option<Title>,
    /// The master, its parent.
    pub master: Pid,
}

/// The master's end as the worker sees it.
type MasterChannel = Channel<FromWorker, ToWorker>;

/// Serves until told to leave, and ends the process: what is on the stack below belongs to the zygote. Returns
/// only when this is one by now.
pub fn run(birth: Birth) -> Reborn {
    logging::set_role(Role::Worker { slot: birth.slot });
    let code = match live(birth) {
        Ok(End::Zygote(reborn)) => return *reborn,
        Ok(End::Exit(code)) => code,
        Err(error) => {
            error!("worker cannot start: {error}");
            EXIT_ERROR
        }
    };
    request_log::flush();
    std::process::exit(i32::from(code))
}

/// How a worker ends.
enum End {
    /// The process ends with this code.
    Exit(u8),
    /// It goes on as a zygote.
    Zygote(Box<Reborn>),
}

fn live(mut birth: Birth) -> io::Result<End> {
    let cell = birth.scoreboard.cell(birth.cell);
    cell.set_pid(process::this().as_raw() as u64);
    let title = Arc::new(Mutex::new(birth.title.take()));
    show_title(&title, &logging::title::worker(&birth.config, birth.slot, birth.generation));
    placement::settle(birth.slot, birth.config.limits.cpus);
    keep_strays_out(&birth);
    let wake = stay_mortal(&birth)?;
    let channel: Arc<MasterChannel> = Arc::new(Channel::new(fd::shelter(birth.control.try_clone()?)));
    stray::withhold(channel.as_fd());
    stacks::answer_on(channel.as_fd());
    if let Some(directory) = &birth.config.chdir2 {
        std::env::set_current_dir(directory).map_err(|error| {
            io::Error::new(error.kind(), format!("chdir2: {}: {error}", directory.display()))
        })?;
    }
    if let Err(reason) = hooks::run_all(&birth.config.hooks, Point::PostFork) {
        error!("{reason}");
        channel.send(&FromWorker::LoadFailed { reason: bounded_reason(reason) }, &[])?;
        return Ok(End::Exit(EXIT_ERROR));
    }
    let mut app = match birth.app.take() {
        Some(app) => app,
        None => match app::load(&birth.config, birth.factory) {
            Ok(app) => Rc::from(app),
            Err(error) => {
                error!("no application: {}", headline(&error.to_string()));
                channel.send(
                    &FromWorker::LoadFailed { reason: bounded_reason(format!("no application: {error}")) },
                    &[],
                )?;
                return Ok(End::Exit(EXIT_NO_APP));
            }
        },
    };
    Rc::get_mut(&mut app)
        .expect("invariant: nobody else has it before there are requests")
        .worker_started(&worker_info(&birth, &channel, Arc::clone(&title)));
    turn_away("at the start of a worker");
    take_back()?;
    // What the reactor opens stays out of the application's way, too.
    let low = fd::occupy_low();
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    // Request lines are written when there is nothing better to do.
    runtime.enable_io().enable_time();
    let parking = Parking::new(Arc::clone(&birth.scoreboard), birth.cell);
    let (to_bed, out_of_bed) = (Arc::clone(&parking), Arc::clone(&parking));
    let hooks = app.wait_hooks();
    // Requests run on this thread.
    let inline = hooks.is_some();
    let relief = match hooks {
        Some(hooks) => {
            // The application runs on this thread, and nothing else does meanwhile.
            let relief = birth.config.relief.then(|| Relief::new(&birth.handover.1)).transpose()?;
            let (before, after) = (relief.clone(), relief.clone());
            runtime.on_thread_park(move || {
                request_log::flush();
                before.iter().for_each(|relief| relief.before_wait());
                (hooks.before)();
                to_bed.before_wait();
            });
            runtime.on_thread_unpark(move || {
                out_of_bed.after_wait();
                (hooks.after)();
                after.iter().for_each(|relief| relief.after_wait());
            });
            relief
        }
        None => {
            runtime.on_thread_park(move || {
                request_log::flush();
                to_bed.before_wait();
            });
            runtime.on_thread_unpark(move || out_of_bed.after_wait());
            None
        }
    };
    let keepsake = Keepsake::of(&birth, &title);
    let (hup, sighup) = catch_hup()?;
    let engine = Engine { parking, relief: relief.clone(), inline, wake, hup };
    let runtime = runtime.build()?;
    let local = LocalSet::new();
    let returned = local.block_on(&runtime, serve(birth, Rc::clone(&app), engine, channel, low))?;
    // Tasks that are left have connections, the application, descriptors.
    drop(local);
    drop(runtime);
    if let Some(returned) = returned {
        match keepsake.shed(&mut app, relief.as_deref(), sighup) {
            Ok(()) => return Ok(End::Zygote(Box::new(keepsake.reborn(returned, app)))),
            Err(obstacle) => rebirth::refuse(&returned.control, obstacle),
        }
    }
    app.worker_stops();
    turn_away("at the exit of a worker");
    Ok(End::Exit(EXIT_OK))
}

/// Keeps from processes that the application forks what would let them meddle.
fn keep_strays_out(birth: &Birth) {
    spare::keep();
    stray::watch();
    birth.listeners.iter().for_each(|listener| stray::withhold(listener.fd.as_fd()));
    let own = [&birth.control, &birth.handover.0, &birth.handover.1];
    own.iter().for_each(|fd| stray::withhold(fd.as_fd()));
    stray::withhold(birth.sheet.fd());
}

/// Takes back what the application may have changed while it was loaded, here or in the zygote.
fn take_back() -> io::Result<()> {
    KillTimer::retake(Signal::SIGTERM)?;
    signal::unblock(&[Signal::SIGTERM, Signal::SIGHUP])?;
    if !signal::defaulted(&[Signal::SIGPIPE]).is_empty() {
        // A client that goes away must not end the worker.
        signal::ignore(Signal::SIGPIPE)?;
    }
    spare::mend();
    Ok(())
}

/// Ties the worker's life to the master's, whatever the application does.
///
/// The master's death (and `SIGTERM`) starts a timer that kills the worker after the mercy time even
/// if it is stuck in application code; a worker that is not stuck hears of it by the returned pipe
/// and leaves in good order before.
fn stay_mortal(birth: &Birth) -> io::Result<OwnedFd> {
    let (out, into) = wake_pipe()?;
    KillTimer::install(
        Signal::SIGTERM,
        birth.config.worker_reload_mercy + Duration::from_secs(1),
        into.as_fd(),
    )?;
    signal::remember_own_handler(Signal::SIGTERM);
    let death_signal = if birth.config.no_orphans { Signal::SIGKILL } else { Signal::SIGTERM };
    process::set_parent_death_signal(Some(death_signal))?;
    // It may have died before that; the setting tells of later deaths only (prctl(2)).
    if process::parent() != birth.master {
        return Err(io::Error::other("the master is gone"));
    }
    Ok(out)
}

fn show_title(title: &Mutex<Option<Title>>, text: &str) {
    if let Some(title) = &mut *title.lock().unwrap_or_else(PoisonError::into_inner) {
        title.set(text);
    }
}

fn worker_info(birth: &Birth, channel: &Arc<MasterChannel>, title: Arc<Mutex<Option<Title>>>) -> WorkerInfo {
    // Applications keep this for as long as the process lives, which may outlive the worker.
    let channel = Arc::downgrade(channel);
    let ask = move |command| {
        let Some(channel) = channel.upgrade() else { return };
        let message = match command {
            AppCommand::Reload => FromWorker::Reload,
            AppCommand::Stop => FromWorker::Stop,
            AppCommand::Replace { reason } => FromWorker::Leave { cause: Cause::Exception, reason },
            AppCommand::Signals(request) => FromWorker::Signals(request),
            AppCommand::LookSooner => FromWorker::LookSooner,
        };
        if let Err(error) = channel.send(&message, &[]) {
            warn!("the master cannot be asked for {message:?}: {error}");
        }
    };
    WorkerInfo {
        slot: birth.slot,
        scoreboard: Arc::clone(&birth.scoreboard),
        cell: birth.cell,
        generation: birth.generation,
        reloads: birth.reloads,
        sheet: Arc::clone(&birth.sheet),
        master: Arc::new(ask),
        set_title: Arc::new(move |text| show_title(&title, text)),
        requests_logged: request_log::is_on(&birth.config.request_log),
        replaced_after: Arc::new(birth.config.recycling.exceptions.clone()),
    }
}

/// What the runtime of a worker tells of its thread.
struct Engine {
    parking: Arc<Parking>,
    relief: Option<Arc<Relief>>,
    /// Requests run on this thread, and nothing else does meanwhile.
    inline: bool,
    /// Readable when the worker is told to leave by signal.
    wake: OwnedFd,
    /// Readable when it is asked for a successor by signal.
    hup: OwnedFd,
}

/// Serves until told to leave, and leaves; what it had in its hands, if it is to become a zygote.
async fn serve(
    birth: Birth,
    app: Rc<dyn App>,
    engine: Engine,
    channel: Arc<MasterChannel>,
    low: Vec<OwnedFd>,
) -> io::Result<Option<Returned>> {
    let slots = Slots::new(birth.config.threads);
    slots.write_down(Arc::clone(&birth.sheet));
    if let Some(more) = app.takes_more() {
        slots.let_more_in(more);
    }
    let bounded = app.occupies_slot();
    let log = request_log::install(&birth);
    let accounting = Accounting::new(Arc::clone(&birth.scoreboard), birth.cell, log);
    wear::watch(&birth, &channel, &accounting);
    let (herald, board) = (Arc::clone(&channel), Arc::clone(&birth.scoreboard));
    accounting.set_herald(move || {
        if let Err(error) = herald.send(&FromWorker::Busy, &[]) {
            debug!("the master is not told of a request: {error}");
            board.set_awaited(true);
        }
    });
    let signals = Signals::new(Rc::clone(&app), Rc::clone(&slots), Arc::clone(&birth.scoreboard), birth.cell);
    if let Some(requests) = birth.config.refork_after {
        let (app, relief) = (Rc::clone(&app), engine.relief.clone());
        let tell = rebirth::tell_warm(Rc::clone(&accounting), requests, app, relief, Arc::clone(&channel));
        tokio::task::spawn_local(tell);
    }
    let front = Front::new(HttpLimits::from(&*birth.config), app, Rc::clone(&slots), Rc::clone(&accounting));
    if let Some(path) = &birth.config.ready_path {
        front.tell_readiness_at(path);
    }
    let names: Vec<Arc<str>> =
        birth.listeners.iter().map(|listener| Arc::from(listener.local.as_str())).collect();
    let outlives = birth.listeners.iter().map(|it| it.given.is_some() || it.stored).collect();
    let fds: Vec<OwnedFd> = birth.listeners.into_iter().map(|listener| listener.fd).collect();
    let (take_from, give_to) = birth.handover;
    let lookout = Rc::new(Lookout::new(fds, (take_from.as_fd(), give_to.as_fd()), engine.parking)?);
    if engine.inline {
        // The acceptor is the one to close the listeners.
        let lookout = Rc::downgrade(&lookout);
        slots.when_filled(move || {
            if let Some(lookout) = lookout.upgrade() {
                lookout.pass_on();
            }
        });
    }
    let defers = engine.relief.is_none();
    let connections = ConnectionSet::new(front, Giver::new(give_to), engine.relief);
    tokio::task::spawn_local(Rc::clone(&connections).run_sweeper());

    let door = Door::new(if birth.paused { Mode::Paused } else { Mode::Open });
    let acceptor = Acceptor::new(
        lookout,
        Rc::clone(&slots),
        bounded,
        Rc::clone(&door),
        outlives,
        Arc::clone(&birth.scoreboard),
        birth.cell,
    );
    let take = {
        let connections = Rc::clone(&connections);
        move |accepted| admit(&connections, &names, accepted)
    };
    let accepting = tokio::task::spawn_local(acceptor.run(take));

    let receive = {
        let connections = Rc::clone(&connections);
        move |parcel: Parcel| {
            let mut connection = Connection::new(&connections, parcel);
            // Before those that were here first: it has waited in the queue. The task polls again, and
            // then it is heard when something arrives.
            let mut cx = Context::from_waker(Waker::noop());
            if Pin::new(&mut connection).poll(&mut cx).is_pending() {
                tokio::task::spawn_local(connection);
            }
        }
    };
    let taking = accept::take_handed_over(
        watch::readable(take_from)?,
        birth.scoreboard,
        birth.cell,
        Rc::clone(&slots),
        defers,
        receive,
    );
    let taking = tokio::task::spawn_local(taking).abort_handle();
    accounting.set_resting_state(if birth.paused { WorkerState::Paused } else { WorkerState::Idle });
    drop(low);
    channel.send(&FromWorker::Ready, &[])?;
    let control = control::Control {
        orders: watch::readable(birth.control)?,
        channel,
        door,
        connections: Rc::clone(&connections),
        slots,
        accounting,
        signals,
        birth_mercy: birth.config.worker_reload_mercy,
        sheet: birth.sheet,
        hooks: AcceptingHooks { slot: birth.slot, config: birth.config },
        taking,
    };
    let (how, throne) = control.until_told_to_leave(engine.wake, engine.hup).await?;
    // The accept loop ends with the door closed or, for good, once the queues are empty.
    let lookout = accepting.await.map_err(io::Error::other)?;
    let lookout = if throne.is_some() { lookout } else { None };
    let in_peace = control.leave(how).await;
    let (Some(throne), Some(lookout), true) = (throne, lookout.and_then(Rc::into_inner), in_peace) else {
        return Ok(None);
    };
    let (listeners, handover) = lookout.into_parts();
    let control = rebirth::zygote_channel(throne)?;
    Ok(Some(Returned { control, listeners: listeners.collect(), handover }))
}

/// Starts serving a connection that was just taken.
fn admit(connections: &Rc<ConnectionSet>, names: &[Arc<str>], accepted: Accepted) {
    let peer = match accepted.client {
        Client::Tcp(address) => Peer::Tcp(address),
        Client::Unix => Peer::Unix,
    };
    let info = ConnectionInfo::new(peer, Arc::clone(&names[accepted.listener]));
    let stream = Stream::new(accepted.socket);
    let parcel = Parcel { stream, unread: Bytes::new(), known: false, info };
    tokio::task::spawn_local(Connection::new(connections, parcel));
}

/// Catches the signal that asks one worker to be replaced; the descriptor becomes readable then.
fn catch_hup() -> io::Result<(OwnedFd, signal::Writing)> {
    let (out, into) = wake_pipe()?;
    let writing = signal::write_on(Signal::SIGHUP, into)?;
    signal::remember_own_handler(Signal::SIGHUP);
    Ok((out, writing))
}

/// A pipe for signal handlers to write to: neither side ever waits.
fn wake_pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    let (out, into) = fd::pipe()?;
    fd::set_nonblocking(out.as_fd(), true)?;
    fd::set_nonblocking(into.as_fd(), true)?;
    Ok((fd::shelter(out), fd::shelter(into)))
}
