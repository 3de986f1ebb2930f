//! Whatever happens in whatever order: bounds hold, the clock does not spin, and it all comes to rest.

use crate::config::reload::MaxSurge;
use crate::config::scaling::Algorithm;
use crate::control::Command;

use super::super::sample::{QueueSample, Sample, WorkerSample};
use super::*;

/// A machine whose children do what chance wants.
struct Storm {
    bench: Bench,
    seed: u64,
    /// Zygotes that are loading.
    loading: Vec<Generation>,
    /// Workers asked for and not forked.
    unforked: Vec<WorkerId>,
    /// The worker that was told to become the zygote.
    heir: Option<WorkerId>,
    /// Processes that were killed and are not reaped yet.
    killed: Vec<Pid>,
    /// There are no requests any more, and none takes too long.
    calm: bool,
    requests: u64,
    story: Vec<String>,
}

impl Storm {
    fn new(seed: u64) -> Self {
        let mut storm = Storm {
            bench: Bench::new(1),
            seed: seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1,
            loading: vec![],
            unforked: vec![],
            heir: None,
            killed: vec![],
            calm: true,
            requests: 0,
            story: vec![],
        };
        let (processes, surge) = (1 + storm.chance(4) as u32, storm.chance(4) as u32);
        let snapshots = storm.chance(3) as usize;
        let mode = if storm.chance(3) == 0 { ReloadMode::Drain } else { ReloadMode::Surge };
        let algorithm = storm.pick(&Algorithm::ALL).expect("there are some");
        let (cheaper, idle) = (storm.chance(3) as u32, storm.chance(4) == 0);
        storm.bench = Bench::with(processes, |policy| {
            policy.reload_mode = mode;
            policy.scaling.algorithm = algorithm;
            policy.scaling.fewest = if cheaper < processes { cheaper } else { 0 };
            policy.scaling.busyness.multiplier = 2;
            policy.scaling.idle = if idle { Duration::from_secs(20) } else { Duration::ZERO };
            policy.snapshots = snapshots;
            policy.max_surge = (surge > 0).then_some(MaxSurge::Workers(surge));
        });
        storm.step(Event::Start);
        storm.settle();
        storm
    }

    /// Below `n`; xorshift64.
    fn chance(&mut self, n: u64) -> u64 {
        self.seed ^= self.seed << 13;
        self.seed ^= self.seed >> 7;
        self.seed ^= self.seed << 17;
        (self.seed >> 11) % n
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> Option<T> {
        let count = from.len() as u64;
        (count > 0).then(|| from[self.chance(count) as usize])
    }

    fn step(&mut self, event: Event) {
        self.story.push(format!("{event:?}"));
        let actions = self.bench.step(event);
        self.obey(actions);
        self.check();
    }

    fn obey(&mut self, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::SpawnZygote { generation } => {
                    let pid = self.bench.pid();
                    self.loading.push(generation);
                    self.step(Event::ZygoteSpawned { generation, pid });
                }
                Action::SpawnWorker { worker, .. } => self.unforked.push(worker),
                Action::TakeEvidence { .. } if self.chance(2) == 0 => {}
                Action::TakeEvidence { subject, .. } | Action::EndEvidence { subject } => {
                    let overdue = self.chance(3) > 0;
                    self.step(Event::EvidenceTaken { subject, overdue });
                }
                Action::LookAtRequests => self.look_at_requests(),
                Action::Promote { worker, .. } => self.heir = Some(worker),
                Action::CallOffPromotion | Action::Enthrone { .. } => self.heir = None,
                Action::Kill { pid, .. } if self.bench.master.former_zygotes.contains(&pid) => {
                    self.killed.push(pid);
                }
                Action::Kill { pid, signal: Signal::SIGKILL } => {
                    let mut workers = self.bench.master.workers();
                    if workers.any(|(_, it)| it.pid == Some(pid) && it.is_ready()) {
                        self.killed.push(pid);
                    }
                }
                Action::ReExec if self.chance(3) == 0 => {
                    self.step(Event::ReExecFailed { reason: "no".into() });
                }
                Action::ReExec => {
                    self.story.push("re-exec".into());
                    let actions = self.bench.re_executes();
                    self.obey(actions);
                }
                _ => {}
            }
        }
    }

    /// Workers have requests in flight, some for too long.
    fn look_at_requests(&mut self) {
        let workers: Vec<_> = self.bench.master.workers().map(|(id, _)| id).collect();
        let now = self.bench.now;
        let seen = workers.into_iter().map(|worker| {
            let due = match self.chance(3) {
                _ if self.calm => vec![],
                0 => vec![Due { core: 0, at: now }],
                _ => vec![Due { core: 0, at: now + Duration::from_secs(1) }],
            };
            Seen { worker, limit: None, due }
        });
        let seen = seen.collect();
        self.step(Event::RequestsSeen { seen, waiting: None });
    }

    /// What the workers do, by chance.
    fn look(&mut self) -> Sample {
        let ready = self.bench.master.workers().filter(|(_, it)| it.is_ready()).map(|(id, _)| id);
        let mut workers: Vec<_> =
            ready.map(|worker| WorkerSample { worker, in_flight: 0, busy_micros: 0 }).collect();
        if self.calm {
            return Sample { workers, requests: self.requests, ..Sample::default() };
        }
        for worker in &mut workers {
            worker.in_flight = self.chance(2);
            worker.busy_micros = self.chance(1 << 30);
        }
        self.requests += self.chance(2);
        let (waiting, limit) = (self.chance(9) as u32, 8);
        let queues = vec![QueueSample { address: "a".into(), fd: 3, waiting, limit }];
        let in_flight = workers.iter().map(|it| it.in_flight).sum();
        Sample { workers, queues, requests: self.requests, in_flight, rss: 0 }
    }

    fn check(&self) {
        let master = &self.bench.master;
        let fail = |what: &str| -> ! { panic!("{what}\n{}\n{master:#?}", self.story.join("\n")) };
        // Those that were told to leave before they served have a second to live.
        let doomed = |stage| matches!(stage, Stage::Leaving { since, kill_at, .. } if kill_at <= since + Duration::from_secs(1));
        // Those that go cheap leave as one, whoever comes after them.
        let cheap = |stage| matches!(stage, Stage::Leaving { mode: DrainMode::Stop, .. });
        let staying =
            master.workers().filter(|(_, it)| !it.quiet && !doomed(it.stage) && !cheap(it.stage)).count();
        if let Some(extra) = master.policy.max_surge
            && master.policy.reload_mode == ReloadMode::Surge
            && staying > master.policy.processes as usize + extra.of(1)
        {
            fail("more live than may");
        }
        let of = |new: bool| {
            master
                .workers()
                .filter(|(_, it)| !it.quiet && (it.generation == master.generation()) == new)
                .count()
        };
        if master.policy.reload_mode == ReloadMode::Drain && of(true) > 0 && of(false) > 0 {
            fail("two releases at once");
        }
    }

    /// Time passes up to the next deadline, once.
    fn wait(&mut self) {
        let Some(at) = self.due() else { return };
        self.bench.now = self.bench.now.max(at);
        if self.bench.master.look_deadline().is_some_and(|at| at <= self.bench.now) {
            let sample = self.look();
            self.step(Event::Sampled(sample));
        }
        self.step(Event::Tick);
        let next = self.due();
        assert!(next.is_none_or(|next| next > self.bench.now), "the clock spins\n{}", self.story.join("\n"));
    }

    /// When there is something to do.
    fn due(&self) -> Option<Instant> {
        let master = &self.bench.master;
        master.deadline().into_iter().chain(master.look_deadline()).min()
    }

    /// One more thing happens, good or bad.
    fn happen(&mut self) {
        let workers: Vec<_> = self
            .bench
            .master
            .workers()
            .filter_map(|(id, it)| it.pid.map(|pid| (id, pid, it.stage)))
            .collect();
        match self.chance(20) {
            0 => self.step(Event::Command(Command::Reload)),
            1 if self.chance(4) == 0 => self.step(Event::Command(Command::ReloadWorkers)),
            2 if self.chance(4) == 0 => self.step(Event::Command(Command::ChainReload)),
            3 => self.wait(),
            4 => {
                if let Some((worker, ..)) = self.pick(&workers) {
                    self.step(Event::WorkerLeaves {
                        worker,
                        cause: Cause::Asked,
                        reason: "it is tired".into(),
                    });
                }
            }
            5 if self.chance(3) == 0 => {
                if let Some((_, pid, _)) = self.pick(&workers) {
                    self.step(Event::ChildExited { pid, exit: KILLED });
                }
            }
            6 if self.chance(6) == 0 => {
                let zygotes: Vec<_> = self.bench.master.zygotes().filter_map(|(_, it)| it.pid).collect();
                if let Some(pid) = self.pick(&zygotes) {
                    self.step(Event::ChildExited { pid, exit: KILLED });
                }
            }
            8 => self.step(Event::RequestBegun),
            9 if self.chance(3) == 0 => {
                let command = self.pick(&[Command::MoreWorkers, Command::FewerWorkers, Command::TogglePause]);
                self.step(Event::Command(command.expect("there are some")));
            }
            10 if self.chance(8) == 0 => self.step(Event::Command(Command::GoCheap)),
            11 if self.bench.master.is_watching() => self.step(Event::ConnectionWaiting),
            7 if self.chance(3) == 0 => self.step(Event::Command(Command::Rollback)),
            12 if self.chance(3) == 0 => self.look_at_requests(),
            13 if self.chance(2) == 0 => {
                if let Some((worker, ..)) = self.pick(&workers) {
                    let obstacle = (self.chance(4) == 0).then(|| "it has threads".to_owned());
                    self.step(Event::WorkerWarm { worker, obstacle });
                }
            }
            _ => {
                self.progress();
            }
        }
    }

    /// What is under way goes on well. False when nothing is.
    fn progress(&mut self) -> bool {
        // Those that were dismissed are reaped, as the kernel sees to it.
        let dismissed =
            self.bench.master.zygotes().find(|(_, it)| matches!(it.stage, ZygoteStage::Failed { .. }));
        if let Some(pid) = dismissed.and_then(|(_, it)| it.pid) {
            self.step(Event::ChildExited { pid, exit: KILLED });
            return true;
        }
        if let Some(pid) = self.killed.pop() {
            let master = &self.bench.master;
            if master.workers().any(|(_, it)| it.pid == Some(pid)) || master.former_zygotes.contains(&pid) {
                self.step(Event::ChildExited { pid, exit: KILLED });
            }
            return true;
        }
        if let Some(worker) = self.heir.take() {
            match self.chance(4) {
                0 => self.step(Event::HeirUnfit { worker, reason: "it has threads".into() }),
                _ => self.step(Event::HeirReady { worker }),
            }
            return true;
        }
        if !self.loading.is_empty() {
            let at = self.chance(self.loading.len() as u64) as usize;
            let generation = self.loading.swap_remove(at);
            let policy = self.bench.master.policy.clone();
            self.step(Event::ZygoteLoaded { generation, policy });
            return true;
        }
        if !self.unforked.is_empty() {
            let worker = self.unforked.remove(0);
            let zygote_lives =
                self.bench.master.workers().find(|(id, _)| *id == worker).is_some_and(|(_, it)| {
                    self.bench.master.zygotes().any(|(generation, _)| generation == it.generation)
                });
            let event = if zygote_lives {
                Event::WorkerForked { worker, pid: self.bench.pid() }
            } else {
                Event::WorkerForkFailed { worker, reason: "its zygote is gone".into() }
            };
            self.step(event);
            return true;
        }
        let moving: Vec<_> = self
            .bench
            .master
            .workers()
            .filter(|(_, it)| !it.is_ready())
            .filter_map(|(id, it)| it.pid.map(|pid| (id, pid, it.is_leaving())))
            .collect();
        let Some((worker, pid, leaving)) = self.pick(&moving) else { return false };
        match leaving {
            true => self.step(Event::ChildExited { pid, exit: LEFT }),
            false => self.step(Event::WorkerReady { worker }),
        }
        true
    }

    /// Nothing goes wrong any more.
    fn settle(&mut self) {
        self.calm = true;
        for _ in 0..500 {
            if !self.progress() {
                if self.due().is_none() {
                    return;
                }
                self.wait();
            }
        }
        panic!("it does not come to rest\n{}\n{:#?}", self.story.join("\n"), self.bench.master);
    }
}

#[test]
fn storms_end_with_every_slot_served_by_one_generation() {
    let mut promoted = 0;
    for seed in 1..=400 {
        let mut storm = Storm::new(seed);
        storm.calm = false;
        for _ in 0..150 {
            storm.happen();
        }
        storm.settle();
        let master = &storm.bench.master;
        let rest: Vec<_> = master.workers().map(|(_, it)| (it.slot, it.generation, it.is_ready())).collect();
        let mut slots: Vec<_> = rest.iter().map(|(slot, ..)| *slot).collect();
        slots.sort_unstable();
        let story = || storm.story.join("\n");
        if master.outlives_zygote() {
            // Nobody can be started from what is not there any more; who serves, serves on.
            continue;
        }
        assert_eq!(slots, master.wanted_slots().collect::<Vec<_>>(), "seed {seed}\n{}", story());
        assert!(rest.iter().all(|(_, generation, ready)| *ready && *generation == master.generation()));
        assert!(master.former_zygotes.is_empty());
        assert_eq!(
            (master.phase(), &master.reload, &master.arrival, &master.promotion),
            (Phase::Running, &None, &None, &None),
            "{}",
            story()
        );
        let waiting =
            master.answer().reloads.into_iter().filter(|it| {
                matches!(it.outcome, Outcome::Underway | Outcome::Serves | Outcome::Failing { .. })
            });
        assert_eq!(waiting.count(), 0, "seed {seed}\n{}", story());
        promoted += master.causes().of(Cause::Promoted);
    }
    assert!(promoted > 100, "{promoted} promotions are no storm");
}
