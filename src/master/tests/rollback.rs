//! Snapshots and rollbacks.

use super::*;
use crate::master::standing::Activity;
use crate::master::workers::ZygoteStage;

impl Bench {
    /// Two workers, and as many snapshots as there can be after `reloads` reloads.
    fn with_snapshots(most: usize, reloads: u64) -> Self {
        let mut bench = Bench::running(2);
        bench.next_policy.snapshots = most;
        for generation in 2..=1 + reloads {
            bench.deploys(generation);
        }
        bench
    }

    /// A reload up to the image that it leads to.
    fn deploys(&mut self, generation: Generation) {
        self.command(Command::Reload);
        let workers = spawned(&self.zygote_loads(generation));
        let mut last = Vec::new();
        for worker in workers {
            last = self.worker_serves(worker);
        }
        assert!(last.contains(&Action::ReExec), "{last:?}");
        self.bury();
        self.next_image();
    }

    /// What has been told to go goes.
    fn bury(&mut self) {
        let zygotes: Vec<Pid> =
            self.master.zygotes().filter(|(_, it)| it.is_dismissed()).filter_map(|(_, it)| it.pid).collect();
        let workers: Vec<Pid> =
            self.master.workers().filter(|(_, it)| it.is_leaving()).filter_map(|(_, it)| it.pid).collect();
        for pid in zygotes.into_iter().chain(workers) {
            self.dies(pid, LEFT);
        }
    }

    fn next_image(&mut self) {
        let text = serde_json::to_string(&self.master.save(self.now, &[])).expect("it can be written");
        let saved = serde_json::from_str(&text).expect("it can be read");
        let policies = (1..=9).map(|generation| (generation, self.next_policy.clone())).collect();
        self.master = Master::restore(saved, self.next_policy.clone(), policies, self.now);
        self.step(Event::Start);
    }

    fn sleeping(&self) -> Vec<Generation> {
        self.master.snapshots().collect()
    }

    /// A rollback to its end; what the last step asked for.
    fn rolls_back(&mut self) -> Vec<Action> {
        let workers = spawned(&self.command(Command::Rollback));
        let mut last = Vec::new();
        for worker in workers {
            last = self.worker_serves(worker);
        }
        last
    }

    fn last_outcome(&self) -> Outcome {
        self.master.answer().reloads.last().expect("there is one").outcome.clone()
    }
}

const COMPLETE: Outcome = Outcome::Complete { remark: None };

fn refusal(outcome: &Outcome) -> &str {
    match outcome {
        Outcome::Refused { reason } => reason,
        other => panic!("{other:?}"),
    }
}

#[test]
fn without_the_option_a_reload_leaves_nothing_behind() {
    let bench = Bench::with_snapshots(0, 2);
    assert_eq!(bench.master.zygotes().count(), 1);
}

#[test]
fn the_last_generations_stay_asleep_and_the_oldest_is_dropped() {
    let mut bench = Bench::with_snapshots(2, 3);
    assert_eq!(bench.sleeping(), [2, 3]);
    assert_eq!(bench.master.deadline(), None, "they are left alone");
    bench.next_policy.snapshots = 1;
    bench.deploys(5);
    assert_eq!(bench.sleeping(), [4], "the new configuration counts");
}

#[test]
fn a_rollback_forks_first_drains_then_and_keeps_the_image() {
    let mut bench = Bench::with_snapshots(2, 2);
    let bad = bench.zygote_pid(3);
    let actions = bench.command(Command::Rollback);
    assert_eq!(actions[0], Action::Awaken { generation: 2 });
    let workers = spawned(&actions);
    assert_eq!((workers.len(), drained(&actions)), (2, vec![]));
    assert_eq!(bench.master.generation(), 3);
    assert_eq!(bench.worker_serves(workers[0]), []);
    let actions = bench.worker_serves(workers[1]);
    assert_eq!(drained(&actions).len(), 2);
    assert!(drained(&actions).iter().all(|(_, mode)| *mode == DrainMode::Handover));
    assert!(actions.contains(&Action::DismissZygote { generation: 3, pid: Some(bad) }), "it is not kept");
    assert!(actions.contains(&Action::TakeUp { generation: 2 }) && !actions.contains(&Action::ReExec));
    assert_eq!((bench.master.generation(), bench.last_outcome()), (2, COMPLETE));
    assert!(bench.logged("rollback 3 complete: generation 2 serves with 2 workers, 2 old ones"));
    assert_eq!(bench.sleeping(), [1]);
}

#[test]
fn each_rollback_goes_further_back_and_the_next_reload_has_a_new_number() {
    let mut bench = Bench::with_snapshots(2, 2);
    bench.rolls_back();
    bench.rolls_back();
    assert_eq!(bench.master.generation(), 1);
    assert_eq!(bench.rolls_back(), []);
    assert_eq!(
        refusal(&bench.last_outcome()),
        "no snapshot is left: none was made yet, or all were used or dropped"
    );
    assert_eq!(bench.master.generation(), 1);
    bench.bury();
    bench.deploys(4);
    assert_eq!((bench.master.generation(), bench.sleeping()), (4, vec![1]));
}

#[test]
fn who_asks_again_during_a_rollback_goes_two_generations_back() {
    let mut bench = Bench::with_snapshots(2, 2);
    let workers = spawned(&bench.command(Command::Rollback));
    assert_eq!(bench.command(Command::Rollback), []);
    bench.worker_serves(workers[0]);
    let actions = bench.worker_serves(workers[1]);
    let wake = |generation| actions.iter().position(|it| *it == Action::Awaken { generation });
    assert!(wake(1).is_some(), "{actions:?}");
    for worker in spawned(&actions) {
        bench.worker_serves(worker);
    }
    assert_eq!(bench.master.generation(), 1);
}

#[test]
fn without_a_snapshot_a_rollback_is_refused_and_disturbs_nobody() {
    let mut bench = Bench::running(1);
    bench.command(Command::Reload);
    assert_eq!(bench.command(Command::Rollback), []);
    let answer = bench.master.answer();
    assert_eq!(answer.reloads[0].outcome, Outcome::Underway, "the reload goes on");
    assert!(refusal(&answer.reloads[1].outcome).contains("set snapshots = 1"));
    assert!(bench.logged("rollback 2 refused: no generation is kept in memory"));
}

#[test]
fn a_reload_gives_way_whether_it_loads_or_starts_workers() {
    for loads in [true, false] {
        let mut bench = Bench::with_snapshots(1, 1);
        bench.command(Command::Reload);
        let started = if loads { Vec::new() } else { spawned(&bench.zygote_loads(3)) };
        for worker in &started {
            bench.worker_forks(*worker);
        }
        let actions = bench.command(Command::Rollback);
        assert!(actions.iter().any(|it| matches!(it, Action::DismissZygote { generation: 3, .. })));
        let leaving: Vec<WorkerId> = drained(&actions).iter().map(|(worker, _)| *worker).collect();
        assert_eq!(leaving, started);
        for worker in spawned(&actions) {
            bench.worker_serves(worker);
        }
        assert_eq!((bench.master.generation(), bench.last_outcome()), (1, COMPLETE));
        let reloads = bench.master.answer().reloads;
        assert_eq!(refusal(&reloads[1].outcome), "it gave way to a rollback");
    }
}

#[test]
fn a_reload_asked_for_during_a_rollback_comes_after_it() {
    let mut bench = Bench::with_snapshots(1, 1);
    let workers = spawned(&bench.command(Command::Rollback));
    assert_eq!(bench.command(Command::Reload), []);
    bench.worker_serves(workers[0]);
    let actions = bench.worker_serves(workers[1]);
    assert!(actions.contains(&Action::SpawnZygote { generation: 3 }), "{actions:?}");
}

#[test]
fn a_rollback_whose_workers_fail_changes_nothing() {
    let mut bench = Bench::with_snapshots(1, 1);
    let workers = spawned(&bench.command(Command::Rollback));
    bench.worker_serves(workers[0]);
    let pid = bench.worker_forks(workers[1]);
    let actions = bench.dies(pid, KILLED);
    assert_eq!(drained(&actions), [(workers[0], DrainMode::Handover)]);
    assert_eq!((bench.master.generation(), bench.sleeping()), (2, vec![1]));
    assert!(bench.logged("rollback 2 refused: worker 2 ended with"));
    bench.rolls_back();
    assert_eq!(bench.master.generation(), 1, "it can be tried again");
}

#[test]
fn a_snapshot_that_dies_is_forgotten() {
    let mut bench = Bench::with_snapshots(2, 2);
    let pid = bench.zygote_pid(2);
    bench.dies(pid, KILLED);
    assert!(bench.logged("snapshot of generation 2 is lost"));
    assert_eq!(bench.sleeping(), [1]);
    assert_eq!(bench.master.deadline(), None);
}

#[test]
fn a_snapshot_that_dies_while_it_is_brought_back_refuses_the_rollback() {
    let mut bench = Bench::with_snapshots(1, 1);
    bench.command(Command::Rollback);
    let pid = bench.zygote_pid(1);
    bench.dies(pid, KILLED);
    assert!(refusal(&bench.last_outcome()).contains("the zygote ended with signal 9"));
    assert_eq!((bench.master.generation(), bench.sleeping()), (2, vec![]));
}

#[test]
fn a_stop_ends_the_snapshots_too() {
    let mut bench = Bench::with_snapshots(2, 2);
    let pids = [1, 2, 3].map(|generation| bench.zygote_pid(generation));
    let actions = bench.command(Command::Stop);
    for (generation, pid) in (1..).zip(pids) {
        assert!(actions.contains(&Action::DismissZygote { generation, pid: Some(pid) }));
    }
}

#[test]
fn nothing_is_kept_of_an_application_that_each_worker_loads() {
    let mut bench = Bench::running(2);
    bench.next_policy.snapshots = 2;
    bench.next_policy.preloaded = false;
    bench.deploys(2);
    assert_eq!(bench.sleeping(), [1], "the first one was loaded by its zygote");
    bench.deploys(3);
    assert_eq!(bench.sleeping(), [1]);
}

#[test]
fn the_oldest_go_until_the_memory_of_the_rest_fits() {
    let mut bench = Bench::with_snapshots(3, 3);
    bench.master.policy.snapshot_memory = Some(25);
    let bytes = BTreeMap::from([(1, 10), (2, 10), (3, 10)]);
    bench.step(Event::SnapshotsMeasured { bytes: bytes.clone() });
    assert_eq!(bench.sleeping(), [2, 3]);
    bench.master.policy.snapshot_memory = None;
    bench.step(Event::SnapshotsMeasured { bytes });
    assert_eq!(bench.sleeping(), [2, 3]);
    bench.step(Event::SnapshotUnfit { generation: 3, reason: "it listens on :80".into() });
    assert_eq!(bench.sleeping(), [2]);
}

#[test]
fn what_serves_after_a_rollback_has_its_own_number_of_workers() {
    let mut bench = Bench::with_snapshots(2, 0);
    bench.next_policy.processes = 3;
    bench.deploys(2);
    // The one before wants two, which it says itself.
    let mut older = bench.next_policy.clone();
    older.processes = 2;
    if let Some(zygote) = bench.master.zygotes.get_mut(&1) {
        zygote.stage = ZygoteStage::Asleep { policy: older };
    }
    assert_eq!(spawned(&bench.command(Command::Rollback)).len(), 2);
}

#[test]
fn a_worker_that_dies_after_a_rollback_comes_from_the_same_zygote() {
    let mut bench = Bench::with_snapshots(1, 1);
    bench.rolls_back();
    bench.now += Duration::from_secs(5);
    let (_, worker) = bench.master.workers().find(|(_, it)| it.is_ready()).expect("one serves");
    let (slot, pid) = (worker.slot, worker.pid.expect("it was forked"));
    let actions = bench.dies(pid, KILLED);
    let of_one =
        |it: &Action| matches!(it, Action::SpawnWorker { generation: 1, slot: at, .. } if *at == slot);
    assert!(actions.iter().any(of_one), "{actions:?}");
}

/// A restored generation of two workers whose zygote is lost; the pids of the workers.
fn orphaned(reloads: u64) -> (Bench, [Pid; 2]) {
    let mut bench = Bench::with_snapshots(2, reloads);
    bench.rolls_back();
    bench.bury();
    bench.now += Duration::from_secs(5);
    let zygote = bench.zygote_pid(bench.master.generation());
    let actions = bench.dies(zygote, KILLED);
    assert!(!actions.iter().any(|it| matches!(it, Action::SpawnZygote { .. })), "not from disk: {actions:?}");
    let pids: Vec<Pid> = bench.master.workers().filter_map(|(_, it)| it.pid).collect();
    (bench, pids.try_into().expect("two workers"))
}

#[test]
fn a_restored_generation_is_never_loaded_from_disk_under_its_number() {
    let (mut bench, [first, second]) = orphaned(1);
    assert!(bench.logged("what is on disk is other code"));
    assert_eq!(bench.dies(first, KILLED).len(), 2, "reported and retired, nothing else");
    assert_eq!(bench.master.deadline(), None, "nothing to be done");
    // Nobody is left to serve: then anything is better than nothing, under a number of its own.
    let mut actions = bench.dies(second, KILLED);
    if !actions.contains(&Action::SpawnZygote { generation: 3 }) {
        actions = bench.later(Duration::from_secs(1));
    }
    assert!(actions.contains(&Action::SpawnZygote { generation: 3 }), "{actions:?}");
    let pid = bench.pid();
    bench.step(Event::ZygoteSpawned { generation: 3, pid });
    bench.step(Event::ZygoteLoadFailed { generation: 3, reason: "bad".into(), code: 1 });
    bench.dies(pid, LEFT);
    let next = bench.master.deadline().expect("it is tried again");
    assert!(next > bench.now, "but not in a tight loop");
    bench.now = next;
    assert!(bench.step(Event::Tick).contains(&Action::SpawnZygote { generation: 4 }));
}

#[test]
fn an_older_snapshot_is_preferred_to_what_is_on_disk() {
    let (mut bench, [first, second]) = orphaned(2);
    bench.dies(first, KILLED);
    let actions = bench.dies(second, KILLED);
    assert!(actions.contains(&Action::Awaken { generation: 1 }), "{actions:?}");
    // It does not work either.
    let zygote = bench.zygote_pid(1);
    bench.dies(zygote, KILLED);
    let actions = bench.later(Duration::from_secs(30));
    assert!(actions.contains(&Action::SpawnZygote { generation: 4 }), "{actions:?}");
}

#[test]
fn a_reload_after_a_rollback_makes_zygotes_replaceable_again() {
    let (mut bench, _) = orphaned(1);
    bench.deploys(3);
    let zygote = bench.zygote_pid(3);
    bench.now += Duration::from_secs(5);
    assert!(bench.dies(zygote, KILLED).contains(&Action::SpawnZygote { generation: 3 }));
}

#[test]
fn who_asks_hears_what_each_generation_does() {
    let mut bench = Bench::with_snapshots(1, 1);
    let standing = |bench: &Bench| -> Vec<(Generation, Activity, u32, u32)> {
        let answer = bench.master.answer();
        answer.generations.iter().map(|it| (it.generation, it.activity, it.workers, it.leaving)).collect()
    };
    assert_eq!(standing(&bench), [(2, Activity::Serves, 2, 0), (1, Activity::Sleeps, 0, 0)]);
    let workers = spawned(&bench.command(Command::Rollback));
    assert_eq!(standing(&bench), [(2, Activity::Serves, 2, 0), (1, Activity::Prepares, 2, 0)]);
    workers.into_iter().for_each(|worker| drop(bench.worker_serves(worker)));
    assert_eq!(standing(&bench), [(2, Activity::Drains, 0, 2), (1, Activity::Serves, 2, 0)]);
}

#[test]
fn a_rollback_is_possible_in_cheap_mode() {
    let mut bench = Bench::with_snapshots(1, 1);
    bench.command(Command::GoCheap);
    bench.bury();
    let actions = bench.command(Command::Rollback);
    assert!(actions.contains(&Action::TakeUp { generation: 1 }), "{actions:?}");
    assert_eq!(spawned(&bench.step(Event::ConnectionWaiting)).len(), 2);
}
