//! The policy, read like a log: events on the left, what the master asks for on the right.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use log::Level;

use crate::cause::Cause;
use crate::channel::DrainMode;
use crate::config::reload::ReloadMode;
use crate::config::scaling::Scaling;
use crate::control::Command;
use crate::sys::process::{Exit, Pid, Signal};

use super::answer::{Answer, Doing, Outcome, Progress};
use super::event::{Action, Event};
use super::harakiri::{Due, Seen};
use super::killing::{Subject, Why};
use super::policy::Policy;
use super::state::{Master, Phase};
use super::workers::{Generation, SlotId, Stage, WorkerId, ZygoteStage};

mod answers;
mod arrival;
mod causes;
mod crash_loops;
mod draining;
mod harakiri;
mod promotion;
mod recycling;
mod reload;
mod roll;
mod rollback;
mod scaling;
mod start;
mod stop;
mod storm;
mod supervision;
mod surge;

const KILLED: Exit = Exit::Signal { number: 9, core: false };
const LEFT: Exit = Exit::Code(0);
const NOBODY: [WorkerId; 0] = [];

/// A master with a clock of its own; log lines are kept apart from the other actions.
struct Bench {
    master: Master,
    now: Instant,
    lines: Vec<String>,
    next_pid: i32,
    /// What the configuration asks for when it is read next.
    next_policy: Policy,
}

impl Bench {
    fn new(processes: u32) -> Self {
        Bench::with(processes, |_| {})
    }

    fn with(processes: u32, change: impl Fn(&mut Policy)) -> Self {
        let mut policy = Policy {
            processes,
            threads: 1,
            mercy: Duration::from_secs(60),
            drain_delay: Duration::ZERO,
            scaling: Scaling::default(),
            boot_timeout: Duration::from_secs(10),
            harakiri_graceful: None,
            harakiri_threshold: None,
            respawn_pause: Duration::from_secs(30),
            die_on_no_workers: false,
            reload_mode: ReloadMode::Surge,
            max_surge: None,
            max_draining_generations: 0,
            need_app: false,
            snapshots: 0,
            snapshot_memory: None,
            preloaded: true,
            recycling: Arc::default(),
        };
        change(&mut policy);
        Bench {
            next_policy: policy.clone(),
            master: Master::new(policy),
            now: Instant::now(),
            lines: Vec::new(),
            next_pid: 100,
        }
    }

    /// A master whose first generation serves.
    fn running(processes: u32) -> Self {
        Bench::running_with(processes, |_| {})
    }

    fn running_with(processes: u32, change: impl Fn(&mut Policy)) -> Self {
        let mut bench = Bench::with(processes, change);
        bench.step(Event::Start);
        bench.zygote_loads(1);
        for worker in 1..=u64::from(processes) {
            bench.worker_serves(worker);
        }
        assert_eq!(bench.master.phase(), Phase::Running);
        bench
    }

    fn step(&mut self, event: Event) -> Vec<Action> {
        let mut rest = Vec::new();
        for action in self.master.step(self.now, event) {
            match action {
                Action::Log(_, line) => self.lines.push(line),
                other => rest.push(other),
            }
        }
        rest
    }

    fn command(&mut self, command: Command) -> Vec<Action> {
        self.step(Event::Command(command))
    }

    fn pid(&mut self) -> Pid {
        self.next_pid += 1;
        Pid::from_raw(self.next_pid)
    }

    /// The zygote starts and loads; what the master then asks for.
    fn zygote_loads(&mut self, generation: Generation) -> Vec<Action> {
        let pid = self.pid();
        self.step(Event::ZygoteSpawned { generation, pid });
        let policy = self.next_policy.clone();
        self.step(Event::ZygoteLoaded { generation, policy })
    }

    fn worker_forks(&mut self, worker: WorkerId) -> Pid {
        let pid = self.pid();
        self.step(Event::WorkerForked { worker, pid });
        pid
    }

    fn worker_serves(&mut self, worker: WorkerId) -> Vec<Action> {
        self.worker_forks(worker);
        self.step(Event::WorkerReady { worker })
    }

    fn pid_of(&self, worker: WorkerId) -> Pid {
        self.master.workers().find(|(id, _)| *id == worker).and_then(|(_, it)| it.pid).expect("it was forked")
    }

    fn zygote_pid(&self, generation: Generation) -> Pid {
        self.master
            .zygotes()
            .find(|(it, _)| *it == generation)
            .and_then(|(_, it)| it.pid)
            .expect("it was spawned")
    }

    fn dies(&mut self, pid: Pid, exit: Exit) -> Vec<Action> {
        self.step(Event::ChildExited { pid, exit })
    }

    /// Time passes, and the log gets what can be known of those who are killed then.
    fn later_told(&mut self, duration: Duration) -> Vec<Action> {
        let mut actions = self.later(duration);
        for (subject, _) in asked(&actions) {
            actions.extend(self.step(Event::EvidenceTaken { subject, overdue: true }));
        }
        actions
    }

    /// The log has what can be known of a worker.
    fn tells(&mut self, worker: WorkerId) -> Vec<Action> {
        self.step(Event::EvidenceTaken { subject: Subject::Worker(worker), overdue: true })
    }

    fn later(&mut self, duration: Duration) -> Vec<Action> {
        self.now += duration;
        self.step(Event::Tick)
    }

    /// The image is replaced; what the new one begins with.
    fn re_executes(&mut self) -> Vec<Action> {
        let saved = serde_json::to_string(&self.master.save(self.now, &[])).expect("it is plain data");
        let policy = self.master.policy.clone();
        let saved = serde_json::from_str(&saved).expect("it was just written");
        self.master = Master::restore(saved, policy, BTreeMap::new(), self.now);
        self.step(Event::Start)
    }

    /// Workers that live, the leaving ones too.
    fn living(&self) -> usize {
        self.master.workers().count()
    }

    fn leaves(&mut self, worker: WorkerId) -> Vec<Action> {
        let pid = self.pid_of(worker);
        self.dies(pid, LEFT)
    }

    fn logged(&self, words: &str) -> bool {
        self.lines.iter().any(|line| line.contains(words))
    }

    /// A reload up to the point where both new workers (3 and 4) have been asked for.
    fn surging() -> Self {
        let mut bench = Bench::running(2);
        assert_eq!(bench.command(Command::Reload), [Action::SpawnZygote { generation: 2 }]);
        assert_eq!(spawned(&bench.zygote_loads(2)), [3, 4]);
        bench
    }
}

/// A master of four workers, started.
pub(super) fn four_workers() -> Master {
    Bench::running(4).master
}

/// The workers that these actions spawn.
fn spawned(actions: &[Action]) -> Vec<WorkerId> {
    let worker = |action: &Action| match action {
        Action::SpawnWorker { worker, .. } => Some(*worker),
        _ => None,
    };
    actions.iter().filter_map(worker).collect()
}

/// The workers that these actions drain, and how.
fn drained(actions: &[Action]) -> Vec<(WorkerId, DrainMode)> {
    let worker = |action: &Action| match action {
        Action::Drain { worker, mode, .. } => Some((*worker, *mode)),
        _ => None,
    };
    actions.iter().filter_map(worker).collect()
}

/// Those of whom these actions want to know what they are doing, and why.
fn asked(actions: &[Action]) -> Vec<(Subject, Why)> {
    let asked = |action: &Action| match action {
        Action::TakeEvidence { subject, why, .. } => Some((*subject, *why)),
        _ => None,
    };
    actions.iter().filter_map(asked).collect()
}

fn kills(actions: &[Action], pid: Pid) -> bool {
    actions.contains(&Action::Kill { pid, signal: Signal::SIGKILL })
}
