//! ● The numbers that the state machine works with, as a configuration asks for them.

use std::sync::Arc;
use std::time::Duration;

use crate::config::Config;
use crate::config::recycling::Recycling;
use crate::config::reload::{MaxSurge, ReloadMode};
use crate::config::scaling::Scaling;
use crate::error::{EXIT_ERROR, EXIT_NO_APP};
use crate::sys::process::Signal;

/// The numbers the policy works with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// Workers wanted.
    pub processes: u32,
    /// Requests a worker runs at a time, for the log line that operators know.
    pub threads: u32,
    /// How long a leaving worker may take.
    pub mercy: Duration,
    /// How long workers serve on after a stop was asked for.
    pub drain_delay: Duration,
    /// How many workers there are, and when.
    pub scaling: Scaling,
    /// How long a zygote or worker may take to become ready.
    pub boot_timeout: Duration,
    /// `harakiri-graceful-timeout` and the signal that asks; `None` kills without asking.
    pub harakiri_graceful: Option<(Duration, Signal)>,
    /// Clients that have to wait for a worker to be killed whose request takes too long; `None` is nobody.
    pub harakiri_threshold: Option<u32>,
    /// Longest pause before a worker is replaced that keeps dying; zero for none.
    pub respawn_pause: Duration,
    /// Without a worker, and without hope for one, the server is of no use (`die-on-no-workers`).
    pub die_on_no_workers: bool,
    /// Whether a reload starts the new workers before the old ones leave.
    pub reload_mode: ReloadMode,
    /// Workers that may live beyond those wanted while some are replaced; `None` is as many as it takes.
    pub max_surge: Option<MaxSurge>,
    /// Older generations that may drain at a time; 0 is any number.
    pub max_draining_generations: u32,
    /// A server without its application is of no use (`need-app`): says so by its exit code.
    pub need_app: bool,
    /// Generations that stay asleep after a reload.
    pub snapshots: usize,
    /// Bytes that these may have of their own, together.
    pub snapshot_memory: Option<u64>,
    /// The zygote has the application in its memory, so that there is something to keep (no `lazy-apps`).
    pub preloaded: bool,
    /// When workers are replaced by fresh ones.
    pub recycling: Arc<Recycling>,
}

impl Policy {
    /// The policy that a configuration asks for.
    pub fn of(config: &Config) -> Self {
        Policy {
            processes: config.processes,
            threads: config.threads,
            mercy: config.worker_reload_mercy,
            drain_delay: config.drain_delay,
            scaling: config.scaling.clone(),
            boot_timeout: config.boot_timeout,
            harakiri_threshold: config.harakiri.queue_threshold,
            harakiri_graceful: config.harakiri.graceful.map(|timeout| (timeout, config.harakiri.signal)),
            respawn_pause: config.respawn_pause,
            die_on_no_workers: config.die_on_no_workers,
            reload_mode: config.reload_mode,
            max_surge: config.max_surge,
            max_draining_generations: config.max_draining_generations,
            need_app: config.need_app,
            snapshots: config.snapshots as usize,
            snapshot_memory: config.snapshot_memory,
            preloaded: !config.lazy_apps,
            recycling: Arc::new(config.recycling.clone()),
        }
    }

    /// Exit code of a first start whose application did not load, whatever kept it from that.
    pub(super) fn no_app_code(&self) -> u8 {
        if self.need_app { EXIT_NO_APP } else { EXIT_ERROR }
    }
}
