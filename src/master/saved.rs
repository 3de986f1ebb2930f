//! The state machine across a re-exec: what the old image tells the new one.
//!
//! Both may be of different releases, so every field that came later has a default, and instants
//! travel as milliseconds from now.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::cause::{Cause, Causes, Setbacks};
use crate::channel::DrainMode;
use crate::control::Command;
use crate::sys::process::Pid;

use super::answer::{Journal, Kind};
use super::arrival::Arrival;
use super::cheaper::carried_over;
use super::policy::Policy;
use super::promotion::Warmth;
use super::reload::Completed;
use super::slots::SavedEnd;
use super::state::{Master, Phase};
use super::wishes::Wish;
use super::workers::{Generation, SlotId, Stage, Worker, WorkerId, Zygote, ZygoteStage};

/// A worker as it travels.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SavedWorker {
    /// Identity.
    pub id: WorkerId,
    slot: SlotId,
    /// Scoreboard cell.
    pub cell: usize,
    generation: Generation,
    pid: Option<i32>,
    stage: SavedStage,
    #[serde(default)]
    replaces: Option<WorkerId>,
    #[serde(default)]
    cause: Option<Cause>,
    #[serde(default)]
    wish: Option<Cause>,
    #[serde(default)]
    quiet: bool,
    #[serde(default)]
    warm: bool,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
enum SavedStage {
    Starting { left_ms: u64 },
    Ready { for_ms: u64 },
    Leaving { for_ms: u64, left_ms: u64, mode: DrainMode },
}

/// A zygote as it travels.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SavedZygote {
    /// Its generation.
    pub generation: Generation,
    pid: i32,
    ready: bool,
    /// It is ready, and a snapshot. A release without snapshots takes it for one to be dismissed at the
    /// next reload.
    #[serde(default)]
    asleep: bool,
    /// It was a worker.
    #[serde(default)]
    warm: bool,
}

/// The state machine as it travels.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SavedMaster {
    generation: Generation,
    newest: Generation,
    /// Zygotes alive, the dismissed ones too: they still have to be reaped.
    pub zygotes: Vec<SavedZygote>,
    /// Those that a warmer one has replaced and that still have to be reaped.
    #[serde(default)]
    former_zygotes: Vec<i32>,
    /// Workers alive, the draining ones too.
    pub workers: Vec<SavedWorker>,
    next_worker: WorkerId,
    next_reload: u64,
    desired: u32,
    processes: u32,
    #[serde(default)]
    paused: bool,
    #[serde(default)]
    deferred: Vec<Command>,
    /// The reload that this re-exec belongs to.
    #[serde(default)]
    pub completed: Option<Completed>,
    /// The reload whose workers start once the old ones have left.
    #[serde(default)]
    arrival: Option<u64>,
    #[serde(default)]
    journal: Journal,
    #[serde(default)]
    causes: Causes,
    #[serde(default)]
    wishes: Vec<Wish>,
    #[serde(default)]
    setbacks: Setbacks,
    #[serde(default)]
    ends: Vec<SavedEnd>,
}

fn left(now: Instant, instant: Instant) -> u64 {
    instant.saturating_duration_since(now).as_millis() as u64
}

fn ago(now: Instant, milliseconds: u64) -> Instant {
    now.checked_sub(Duration::from_millis(milliseconds)).unwrap_or(now)
}

impl Master {
    /// Packs the state for the next image; `pending` are commands that arrived too late for this one.
    pub fn save(&self, now: Instant, pending: &[Command]) -> SavedMaster {
        let workers = self.workers.iter().map(|(id, worker)| SavedWorker {
            id: *id,
            slot: worker.slot,
            cell: worker.cell,
            generation: worker.generation,
            pid: worker.pid.map(Pid::as_raw),
            stage: match worker.stage {
                Stage::Starting { deadline } => SavedStage::Starting { left_ms: left(now, deadline) },
                Stage::Ready { since } => SavedStage::Ready { for_ms: left(since, now) },
                Stage::Leaving { since, kill_at, mode } => {
                    SavedStage::Leaving { for_ms: left(since, now), left_ms: left(now, kill_at), mode }
                }
            },
            replaces: worker.replaces,
            cause: worker.cause,
            wish: worker.wish,
            quiet: worker.quiet,
            warm: worker.warm,
        });
        let zygotes = self.zygotes.iter().filter_map(|(generation, zygote)| {
            let asleep = zygote.is_asleep();
            let ready = asleep || zygote.stage == ZygoteStage::Ready;
            let warm = zygote.warmth == Warmth::Warm;
            let pid = zygote.pid?.as_raw();
            Some(SavedZygote { generation: *generation, pid, ready, asleep, warm })
        });
        let completed = self.reload.as_ref().filter(|it| !it.drains);
        SavedMaster {
            generation: self.generation,
            newest: self.newest,
            zygotes: zygotes.collect(),
            former_zygotes: self.former_zygotes.iter().map(|pid| pid.as_raw()).collect(),
            workers: workers.collect(),
            next_worker: self.next_worker,
            next_reload: self.next_reload,
            desired: self.desired,
            processes: self.policy.processes,
            paused: self.paused,
            deferred: self.deferred.iter().copied().chain(pending.iter().copied()).collect(),
            journal: self.journal.clone(),
            causes: self.causes.clone(),
            wishes: self.wishes.iter().copied().collect(),
            setbacks: self.setbacks,
            ends: self.save_ends(now),
            arrival: self.arrival.as_ref().map(|it| it.id),
            completed: completed.map(|it| Completed { id: it.id, generation: it.generation }),
        }
    }

    /// Takes over what the previous image left; the policy is that of the new configuration, and that of
    /// snapshots that are not among `policies`.
    pub fn restore(
        saved: SavedMaster,
        policy: Policy,
        mut policies: BTreeMap<Generation, Policy>,
        now: Instant,
    ) -> Self {
        let mut master = Master::new(policy);
        master.phase = Phase::Running;
        master.generation = saved.generation;
        master.newest = saved.newest;
        master.next_worker = saved.next_worker;
        master.next_reload = saved.next_reload;
        // They fill the lowest slots: a re-exec comes after a reload has started them anew.
        let all = saved.desired == saved.processes;
        master.desired = carried_over(saved.desired, all, &master.policy);
        master.paused = saved.paused;
        master.arrival = saved.arrival.map(|id| Arrival { kind: Kind::Reload, id, remark: None });
        master.journal = saved.journal;
        master.causes = saved.causes;
        master.wishes = saved.wishes.into();
        master.setbacks = saved.setbacks;
        master.restore_ends(now, saved.ends);
        // This is the image that the last of them has been waiting for.
        master.journal.complete();
        master.deferred = saved.deferred.into();
        let dismissed = || ZygoteStage::Failed { reason: "dismissed".to_owned(), code: 1 };
        master.former_zygotes = saved.former_zygotes.into_iter().map(Pid::from_raw).collect();
        for zygote in saved.zygotes {
            let warmth = if zygote.warm { Warmth::Warm } else { Warmth::Cold(0) };
            let stage = match zygote {
                SavedZygote { asleep: true, generation, .. } => {
                    let policy = policies.remove(&generation).unwrap_or_else(|| master.policy.clone());
                    ZygoteStage::Asleep { policy }
                }
                SavedZygote { ready: true, .. } => ZygoteStage::Ready,
                _ => dismissed(),
            };
            let pid = Some(Pid::from_raw(zygote.pid));
            master.zygotes.insert(zygote.generation, Zygote { pid, stage, warmth });
        }
        master.workers = saved.workers.into_iter().map(|worker| (worker.id, worker.restore(now))).collect();
        let slots = master.workers.values().map(|worker| ((worker.generation, worker.slot), 1));
        master.forks = slots.collect();
        master
    }
}

impl SavedWorker {
    fn restore(self, now: Instant) -> Worker {
        let later = |milliseconds| now + Duration::from_millis(milliseconds);
        Worker {
            slot: self.slot,
            cell: self.cell,
            generation: self.generation,
            pid: self.pid.map(Pid::from_raw),
            stage: match self.stage {
                SavedStage::Starting { left_ms } => Stage::Starting { deadline: later(left_ms) },
                SavedStage::Ready { for_ms } => Stage::Ready { since: ago(now, for_ms) },
                SavedStage::Leaving { for_ms, left_ms, mode } => {
                    Stage::Leaving { since: ago(now, for_ms), kill_at: later(left_ms), mode }
                }
            },
            replaces: self.replaces,
            doomed: None,
            cause: self.cause,
            wish: self.wish,
            quiet: self.quiet,
            warm: self.warm,
        }
    }
}
