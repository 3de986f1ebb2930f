//! ● The master's bookkeeping of its children: workers and zygotes.

use std::time::Instant;

use crate::cause::Cause;
use crate::channel::DrainMode;
use crate::sys::process::Pid;

use super::policy::Policy;
use super::promotion::Warmth;

/// Identity of a worker process for the life of the instance; never reused.
pub type WorkerId = u64;
/// Worker number, 1-based, stable across respawns.
pub type SlotId = u32;
/// One release of code and configuration; the first one is 1.
pub type Generation = u64;

/// Where a worker is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Asked of the zygote or forked, not ready by `deadline` means it is killed.
    Starting {
        /// End of the boot time-out.
        deadline: Instant,
    },
    /// Accepting.
    Ready {
        /// Since when.
        since: Instant,
    },
    /// Told to leave.
    Leaving {
        /// When it was told.
        since: Instant,
        /// When patience ends.
        kill_at: Instant,
        /// How it was told.
        mode: DrainMode,
    },
}

/// One worker process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Worker {
    /// Worker number.
    pub slot: SlotId,
    /// Index of its scoreboard cell.
    pub cell: usize,
    /// The generation it was forked from.
    pub generation: Generation,
    /// Unknown until the zygote has reported the fork.
    pub pid: Option<Pid>,
    /// Where it is in its life.
    pub stage: Stage,
    /// The worker that leaves once this one is ready.
    pub replaces: Option<WorkerId>,
    /// Why it is expected to die without having been told to leave.
    pub doomed: Option<String>,
    /// Why it leaves or dies, once that is known.
    pub cause: Option<Cause>,
    /// Why its successor was last asked for.
    pub wish: Option<Cause>,
    /// Told to leave, and runs no code of the application any more: it only waits to pass connections
    /// on, or has been killed.
    pub quiet: bool,
    /// It has served `refork-after` requests, and could be forked.
    pub warm: bool,
}

impl Worker {
    /// True while it accepts.
    pub fn is_ready(&self) -> bool {
        matches!(self.stage, Stage::Ready { .. })
    }

    /// True until it accepts or is told to leave.
    pub fn is_starting(&self) -> bool {
        matches!(self.stage, Stage::Starting { .. })
    }

    /// True once it has been told to leave.
    pub fn is_leaving(&self) -> bool {
        matches!(self.stage, Stage::Leaving { .. })
    }
}

/// Where a zygote is in its life.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::large_enum_variant, reason = "there is a handful of zygotes, each of which exists once")]
pub enum ZygoteStage {
    /// Loading the application.
    Loading {
        /// End of the boot time-out.
        deadline: Instant,
    },
    /// Ready to fork workers.
    Ready,
    /// A snapshot: the generation has served, and can be brought back.
    Asleep {
        /// What its configuration asks for.
        policy: Policy,
    },
    /// Killed or about to exit, for this reason.
    Failed {
        /// What an operator reads.
        reason: String,
        /// Exit code of the server if this was the first start.
        code: u8,
    },
}

/// One zygote process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Zygote {
    /// Unknown until `perform` reports the fork.
    pub pid: Option<Pid>,
    /// Where it is in its life.
    pub stage: ZygoteStage,
    /// Whether it has served as a worker.
    pub warmth: Warmth,
}

impl Zygote {
    /// True once it has been told to go, or has said that it is of no use.
    pub fn is_dismissed(&self) -> bool {
        matches!(self.stage, ZygoteStage::Failed { .. })
    }

    /// True for a snapshot.
    pub fn is_asleep(&self) -> bool {
        matches!(self.stage, ZygoteStage::Asleep { .. })
    }
}
