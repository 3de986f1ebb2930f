//! What the master's state machine is told, and what it asks for in return.

use std::collections::BTreeMap;
use std::time::Duration;

use log::Level;

use crate::cause::Cause;
use crate::channel::DrainMode;
use crate::control::Command;
use crate::sys::memory::Memory;
use crate::sys::process::{Exit, Pid, Signal};

use super::budget::Measured;
use super::harakiri::Seen;
use super::killing::{Subject, Why};
use super::policy::Policy;
use super::sample::Sample;
use super::workers::{Generation, SlotId, WorkerId};

/// Something happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// First event of a fresh master, or of one that took over after a re-exec.
    Start,
    /// An operator or the application asks for something.
    Command(Command),
    /// A zygote was forked.
    ZygoteSpawned {
        /// Its generation.
        generation: Generation,
        /// Its process id.
        pid: Pid,
    },
    /// A zygote could not be forked or executed.
    ZygoteSpawnFailed {
        /// Its generation.
        generation: Generation,
        /// The system's word.
        reason: String,
    },
    /// A zygote has loaded the application.
    ZygoteLoaded {
        /// Its generation.
        generation: Generation,
        /// What the configuration asks for that it was loaded with.
        policy: Policy,
    },
    /// A zygote cannot load the application.
    ZygoteLoadFailed {
        /// Its generation.
        generation: Generation,
        /// What an operator reads.
        reason: String,
        /// Exit code of the server if this was the first start.
        code: u8,
    },
    /// A worker process exists.
    WorkerForked {
        /// Which.
        worker: WorkerId,
        /// Its process id.
        pid: Pid,
    },
    /// A worker could not be forked.
    WorkerForkFailed {
        /// Which.
        worker: WorkerId,
        /// The system's word.
        reason: String,
    },
    /// A worker accepts.
    WorkerReady {
        /// Which.
        worker: WorkerId,
    },
    /// A worker could not load the application (`lazy-apps`).
    WorkerLoadFailed {
        /// Which.
        worker: WorkerId,
        /// What an operator reads.
        reason: String,
    },
    /// A worker asks to be replaced.
    WorkerLeaves {
        /// Which.
        worker: WorkerId,
        /// Why, in a word.
        cause: Cause,
        /// Why, for the log.
        reason: String,
    },
    /// What memory the workers have, while somebody wants to know.
    WorkersMeasured {
        /// Of each; those that could not be measured are missing.
        memory: BTreeMap<WorkerId, Memory>,
    },
    /// What memory the instance has, while there is a budget for it.
    InstanceMeasured(Measured),
    /// A worker that was told to leave runs the application no more: it only waits to pass connections on.
    WorkerQuiet {
        /// Which.
        worker: WorkerId,
    },
    /// A worker has served `refork-after` requests.
    WorkerWarm {
        /// Which.
        worker: WorkerId,
        /// What keeps it from being forked.
        obstacle: Option<String>,
    },
    /// A worker that was told to become the zygote can fork others.
    HeirReady {
        /// Which.
        worker: WorkerId,
    },
    /// A worker that was told to become the zygote cannot.
    HeirUnfit {
        /// Which.
        worker: WorkerId,
        /// Why, for the log.
        reason: String,
    },
    /// The kernel has killed a child for want of memory; that it was reaped follows.
    OutOfMemory {
        /// Whom.
        pid: Pid,
        /// What says so.
        evidence: String,
    },
    /// A child of the master, or a stranger reparented to it, was reaped.
    ChildExited {
        /// Who.
        pid: Pid,
        /// How.
        exit: Exit,
    },
    /// A client waits on a listener that no worker watches.
    ConnectionWaiting,
    /// A snapshot cannot be brought back any more.
    SnapshotUnfit {
        /// Which.
        generation: Generation,
        /// Why.
        reason: String,
    },
    /// How much memory the snapshots have of their own.
    SnapshotsMeasured {
        /// Bytes of each; those that could not be measured are missing.
        bytes: BTreeMap<Generation, u64>,
    },
    /// What workers have written down about their requests in flight.
    RequestsSeen {
        /// Of each that was looked at.
        seen: Vec<Seen>,
        /// Clients in the longest listen queue; `None` if that was not asked for or cannot be known.
        waiting: Option<u32>,
    },
    /// The log has what can be known of somebody who is about to be killed.
    EvidenceTaken {
        /// Who.
        subject: Subject,
        /// A request of it still takes longer than it may.
        overdue: bool,
    },
    /// `execve` came back.
    ReExecFailed {
        /// The system's word.
        reason: String,
    },
    /// A worker has begun a request, as the master wanted to be told ([`Action::AwaitRequest`]).
    RequestBegun,
    /// What was seen of workers and listeners.
    Sampled(Sample),
    /// Time has passed.
    Tick,
}

/// Something to do. What comes of it arrives as an [`Event`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Fork and execute the binary as zygote of this generation.
    SpawnZygote {
        /// Its generation.
        generation: Generation,
    },
    /// Kill a zygote, or close its channel once it is gone; it serves nobody.
    DismissZygote {
        /// Its generation.
        generation: Generation,
        /// Its process id, while it has one.
        pid: Option<Pid>,
    },
    /// A snapshot is about to be brought back: its workers' requests are those of a generation to come.
    Awaken {
        /// Its generation.
        generation: Generation,
    },
    /// A generation that was brought back serves: its configuration is in force from now on.
    TakeUp {
        /// Its generation.
        generation: Generation,
    },
    /// Ask the zygote of this generation for a worker.
    SpawnWorker {
        /// Its identity.
        worker: WorkerId,
        /// Its number.
        slot: SlotId,
        /// Its scoreboard cell.
        cell: usize,
        /// Its generation.
        generation: Generation,
        /// True when it shall not accept yet.
        paused: bool,
    },
    /// Tell a worker to leave.
    Drain {
        /// Which.
        worker: WorkerId,
        /// How.
        mode: DrainMode,
        /// Until it is killed.
        patience: Duration,
    },
    /// Tell a worker to leave and to become the zygote of its generation.
    Promote {
        /// Which.
        worker: WorkerId,
        /// How long its requests may take.
        patience: Duration,
    },
    /// What was this worker is the zygote of this generation from now on.
    Enthrone {
        /// The generation.
        generation: Generation,
        /// Which.
        worker: WorkerId,
    },
    /// The worker that was told to become the zygote just leaves.
    CallOffPromotion,
    /// Tell a worker that the server is about to go away, and to leave after that.
    Farewell {
        /// Which.
        worker: WorkerId,
        /// How long it serves on.
        delay: Duration,
        /// How long it may take to leave then, until it is killed.
        patience: Duration,
    },
    /// Close the master's copies of the listeners: new clients are the workers' business alone, and refused
    /// as soon as no worker listens.
    ReleaseListeners,
    /// Tell a worker to stop accepting.
    Pause {
        /// Which.
        worker: WorkerId,
    },
    /// Tell a worker to accept again.
    Resume {
        /// Which.
        worker: WorkerId,
    },
    /// Send a signal to a child.
    Kill {
        /// Whom.
        pid: Pid,
        /// Which.
        signal: Signal,
    },
    /// Tell the log what somebody is doing who is about to be killed, and why.
    TakeEvidence {
        /// Who.
        subject: Subject,
        /// Its process id.
        pid: Pid,
        /// Number and scoreboard cell of a worker.
        worker: Option<(SlotId, usize)>,
        /// Why.
        why: Why,
    },
    /// Wait no longer for what it may still tell.
    EndEvidence {
        /// Who.
        subject: Subject,
    },
    /// Look at the requests in flight.
    LookAtRequests,
    /// Tell the log that a worker must leave at once because too many generations drain.
    ReportEviction {
        /// Its number.
        slot: SlotId,
        /// Its scoreboard cell.
        cell: usize,
        /// Its process id.
        pid: Pid,
        /// Its generation.
        generation: Generation,
        /// How many may drain.
        most: usize,
    },
    /// Tell the log how a worker died that was not told to, before its cell is cleared.
    ReportDeath {
        /// Which.
        worker: WorkerId,
        /// Its number.
        slot: SlotId,
        /// Its scoreboard cell.
        cell: usize,
        /// Its process id.
        pid: Pid,
        /// How.
        exit: Exit,
        /// Why, in a word.
        cause: Cause,
        /// What the master knows of the reason.
        reason: Option<String>,
    },
    /// A worker is gone: close its channel, clear its cell.
    Retire {
        /// Which.
        worker: WorkerId,
        /// Its scoreboard cell.
        cell: usize,
    },
    /// Watch the listeners for clients, or leave them to the workers.
    WatchListeners(bool),
    /// Let the workers tell when the next request begins: until then nobody looks.
    AwaitRequest,
    /// All workers of the first generation serve.
    FirstGenerationServes,
    /// Write a line to the log.
    Log(Level, String),
    /// Counters to the log.
    LogStatistics,
    /// What each worker is doing, to the log.
    LogWorkers,
    /// Open the log anew.
    ReopenLog,
    /// Rename the log and start a new one.
    RotateLog,
    /// Write the pidfiles again.
    RewritePidfiles,
    /// Start a second master on the same listeners.
    Refork,
    /// Read commands from this FIFO.
    FifoSlot(u8),
    /// Replace the image of the master.
    ReExec,
    /// Leave with this code.
    Exit(u8),
}
