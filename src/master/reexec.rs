//! Replacing the master's image in the same pid: what is packed, what is kept, what is left behind.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::path::PathBuf;
use std::time::Instant;

use serde::{Deserialize, Serialize};

use crate::boot::{BootRole, Envelope, c_string};
use crate::channel::{WorkerChannel, ZygoteChannel};
use crate::config::Entry;
use crate::config::source::KEPT_TEXT;
use crate::control::{Command, changes::Looks, fifo::FifoState, pidfile::PidfileState, touch::Baseline};
use crate::net::ListenerState;
use crate::privileges::limits::Started;
use crate::scoreboard::sheet::SheetFile;
use crate::signals::table::Waiting;
use crate::sys::{fd, process};

use super::accepting::Accepting;
use super::generations::Known;
use super::holdings::Holdings;
use super::killing::Subject;
use super::lenders::SavedLender;
use super::saved::SavedMaster;
use super::state::Master;
use super::workers::{Generation, WorkerId};

/// What the old image leaves to the new one.
#[derive(Debug, Serialize, Deserialize)]
pub struct Legacy {
    /// The state machine.
    pub machine: SavedMaster,
    /// The configuration that the zygote of the serving generation has proven.
    pub entries: Vec<Entry>,
    /// Re-execs so far, this one included.
    pub reloads: u64,
    /// CLOCK_REALTIME seconds of the first start.
    pub started_at: u64,
    /// Real user and group that started the service; absent in older releases.
    #[serde(default)]
    pub started_by: Option<(u32, u32)>,
    /// Limits that the service was started with; absent in older releases.
    #[serde(default)]
    pub limits: Option<Started>,
    /// Descriptor of the scoreboard.
    pub scoreboard: i32,
    /// Descriptors of the hand-over queue: to take from, to give to.
    #[serde(default)]
    pub handover: Option<(i32, i32)>,
    /// Descriptor of the answers.
    #[serde(default)]
    pub answers: Option<i32>,
    /// Descriptor of the application's locks.
    #[serde(default)]
    pub locks: Option<i32>,
    /// What the generation to come has asked for about signals.
    #[serde(default)]
    pub signals: BTreeMap<Generation, Waiting>,
    /// What the zygotes have told of their generations.
    #[serde(default)]
    pub known: BTreeMap<Generation, Known>,
    /// Control channels of the zygotes.
    pub zygotes: BTreeMap<Generation, i32>,
    /// Control channels of the workers.
    pub workers: BTreeMap<WorkerId, i32>,
    /// Sheets of the zygotes; absent in older releases, as those of the workers.
    #[serde(default)]
    pub zygote_sheets: BTreeMap<Generation, i32>,
    /// Sheets of the workers.
    #[serde(default)]
    pub worker_sheets: BTreeMap<WorkerId, i32>,
    /// Pidfiles with the option that named them.
    #[serde(default)]
    pub pidfiles: Vec<(String, PidfileState)>,
    /// The open FIFO and its slot.
    #[serde(default)]
    pub fifo: Option<(usize, FifoState)>,
    /// The FIFOs of all slots, so that those which are configured no more can be removed; absent in older
    /// releases.
    #[serde(default)]
    pub fifo_paths: Vec<PathBuf>,
    /// Touch files as last seen, so that a touch during the exec is not missed.
    #[serde(default)]
    pub touch: Option<Baseline>,
    /// What `fs-reload` names as last seen; absent in older releases, as all below.
    #[serde(default)]
    pub changes: Option<Looks>,
    /// Sockets that are lent.
    #[serde(default)]
    pub lenders: Vec<SavedLender>,
    /// Descriptors of `reload-on-fd`.
    #[serde(default)]
    pub armed_fds: Vec<i32>,
    /// Who has run the hooks of the generation that served.
    #[serde(default)]
    pub accepting: Accepting,
    /// Commands of the shell that run, by pid.
    #[serde(default)]
    pub commands: BTreeMap<i32, String>,
    /// The log file; descriptors 1 and 2 are it.
    #[serde(default)]
    pub log: Option<PathBuf>,
}

/// The children's channels, by what the state machine calls them, and what came through them.
pub struct Channels<'a> {
    /// Of the zygotes.
    pub zygotes: &'a BTreeMap<Generation, ZygoteChannel>,
    /// Of the workers.
    pub workers: &'a BTreeMap<WorkerId, WorkerChannel>,
    /// The sheets of both.
    pub sheets: &'a BTreeMap<Subject, SheetFile>,
    /// What the zygotes have told of their generations.
    pub known: &'a BTreeMap<Generation, Known>,
    /// What they have asked for about signals.
    pub signals: BTreeMap<Generation, Waiting>,
    /// Who has run the hooks of the generation that served.
    pub accepting: &'a Accepting,
    /// Commands of the shell that run.
    pub commands: &'a BTreeMap<i32, String>,
}

/// Replaces the image. Returns only when that failed; then nothing has been lost.
///
/// The caller has blocked the master's signals: they stay pending across `execve(2)`, while a
/// handler would have nowhere to put them.
pub fn reexec(
    holdings: &Holdings,
    machine: &Master,
    channels: &Channels<'_>,
    pending: &[Command],
) -> io::Error {
    match try_reexec(holdings, machine, channels, pending) {
        Ok(never) => match never {},
        Err(error) => error,
    }
}

/// The numbers of some sheets.
fn sheets_of<K: Ord>(channels: &Channels<'_>, pick: impl Fn(Subject) -> Option<K>) -> BTreeMap<K, i32> {
    channels.sheets.iter().filter_map(|(of, sheet)| Some((pick(*of)?, sheet.as_raw_fd()))).collect()
}

fn try_reexec(
    holdings: &Holdings,
    machine: &Master,
    channels: &Channels<'_>,
    pending: &[Command],
) -> io::Result<std::convert::Infallible> {
    let legacy = Legacy {
        machine: machine.save(Instant::now(), pending),
        entries: holdings.config.entries.clone(),
        reloads: holdings.reloads + 1,
        started_at: holdings.started_at,
        started_by: Some(holdings.started_by),
        limits: Some(holdings.limits),
        scoreboard: holdings.scoreboard.fd().as_raw_fd(),
        handover: Some((holdings.handover.0.as_raw_fd(), holdings.handover.1.as_raw_fd())),
        answers: Some(holdings.answers.fd().as_raw_fd()),
        locks: Some(holdings.locks.fd().as_raw_fd()),
        signals: channels.signals.clone(),
        known: channels.known.clone(),
        zygotes: channels.zygotes.iter().map(|(generation, it)| (*generation, it.as_raw_fd())).collect(),
        workers: channels.workers.iter().map(|(worker, it)| (*worker, it.as_raw_fd())).collect(),
        zygote_sheets: sheets_of(channels, |it| match it {
            Subject::Zygote(generation) => Some(generation),
            Subject::Worker(_) => None,
        }),
        worker_sheets: sheets_of(channels, |it| match it {
            Subject::Worker(worker) => Some(worker),
            Subject::Zygote(_) => None,
        }),
        pidfiles: holdings.pidfiles.iter().map(|it| (it.option.to_owned(), it.file.state())).collect(),
        fifo: holdings.fifos.active.as_ref().map(|it| (holdings.fifos.slot, it.state())),
        fifo_paths: holdings.fifos.paths.clone(),
        touch: Some(holdings.touch.baseline().clone()),
        changes: Some(holdings.changes.looks()),
        lenders: holdings.lenders.iter().map(SavedLender::of).collect(),
        armed_fds: holdings.armed_fds.iter().map(AsRawFd::as_raw_fd).collect(),
        accepting: channels.accepting.clone(),
        commands: channels.commands.clone(),
        log: holdings.log.as_ref().map(|log| log.path().to_owned()),
    };
    let spares = holdings.spares.iter().map(|listener| ListenerState { spare: true, ..listener.state() });
    let listeners = holdings.listeners.iter().map(|listener| listener.state()).chain(spares).collect();
    let envelope = Envelope::write(BootRole::Master, listeners, &legacy)?;

    let mut keep: Vec<BorrowedFd<'_>> = vec![envelope.as_fd(), holdings.scoreboard.fd()];
    keep.extend([holdings.handover.0.as_fd(), holdings.handover.1.as_fd(), holdings.locks.fd()]);
    keep.push(holdings.answers.fd());
    keep.extend(holdings.listeners.iter().chain(&holdings.spares).map(|listener| listener.fd.as_fd()));
    keep.extend(channels.zygotes.values().map(AsFd::as_fd));
    keep.extend(channels.workers.values().map(AsFd::as_fd));
    keep.extend(channels.sheets.values().map(AsFd::as_fd));
    let lent = holdings.lenders.iter().flat_map(|it| it.pool.iter().flatten().chain([&it.door]));
    keep.extend(lent.map(|listener| listener.fd.as_fd()));
    keep.extend(holdings.armed_fds.iter().map(|it| it.fd()));
    keep.extend(holdings.pidfiles.iter().map(|it| it.file.fd()));
    keep.extend(holdings.fifos.active.iter().map(|it| it.fd()));

    let program = c_string(holdings.binary().as_os_str());
    let (argv, env) = (holdings.start.argv_c(), holdings.start.env_c());
    // Marking instead of closing: a failing execve has lost nothing.
    fd::mark_all_cloexec()?;
    fd::keep_memfds(KEPT_TEXT)?;
    let error = exec_keeping(&keep, holdings, || process::exec(&program, &argv, &env));
    for descriptor in &keep {
        fd::set_cloexec(*descriptor, true)?;
    }
    Err(error)
}

fn exec_keeping(keep: &[BorrowedFd<'_>], holdings: &Holdings, exec: impl FnOnce() -> io::Error) -> io::Error {
    for descriptor in keep {
        if let Err(error) = fd::set_cloexec(*descriptor, false) {
            return error;
        }
    }
    if let Err(error) = std::env::set_current_dir(&holdings.start.cwd) {
        return error;
    }
    let error = exec();
    // Best effort: the directory was entered from there a moment ago.
    let _ = std::env::set_current_dir(holdings.config.base_directory(&holdings.start.cwd));
    error
}
