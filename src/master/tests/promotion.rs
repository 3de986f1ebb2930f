//! A warmed worker becomes the zygote.

use super::*;
use crate::master::promotion::Warmth;

impl Bench {
    /// Three workers, of which number 2 is told to become the zygote; worker 4 has its slot.
    fn promoting() -> Self {
        let mut bench = Bench::running(3);
        bench.now += Duration::from_secs(5);
        assert_eq!(spawned(&bench.warm(2)), [4]);
        let patience = Duration::from_secs(60);
        assert_eq!(bench.worker_serves(4), [Action::Promote { worker: 2, patience }]);
        bench
    }

    fn warm(&mut self, worker: WorkerId) -> Vec<Action> {
        self.step(Event::WorkerWarm { worker, obstacle: None })
    }

    fn warmth(&self) -> Warmth {
        let generation = self.master.generation();
        self.master.zygotes().find(|(it, _)| *it == generation).expect("there is one").1.warmth
    }
}

#[test]
fn a_warm_worker_is_replaced_promoted_and_followed_by_the_others() {
    let mut bench = Bench::promoting();
    let (old, heir) = (bench.zygote_pid(1), bench.pid_of(2));
    let actions = bench.step(Event::HeirReady { worker: 2 });
    let kill = Action::Kill { pid: old, signal: Signal::SIGKILL };
    assert_eq!(
        actions[..3],
        [Action::Enthrone { generation: 1, worker: 2 }, Action::Retire { worker: 2, cell: 1 }, kill]
    );
    assert_eq!(spawned(&actions), [5]);
    assert_eq!((bench.zygote_pid(1), bench.warmth()), (heir, Warmth::Warm));
    assert_eq!(bench.dies(old, KILLED), []);
    for (old, new, next) in [(1, 5, vec![6]), (3, 6, vec![7]), (4, 7, vec![])] {
        let actions = bench.worker_serves(new);
        assert_eq!((drained(&actions), spawned(&actions)), (vec![(old, DrainMode::Handover)], next));
        bench.leaves(old);
    }
    assert!(bench.logged("warm roll complete"));
    let causes = bench.master.causes();
    assert_eq!((causes.of(Cause::Promoted), causes.of(Cause::Warmed)), (1, 3));
    assert_eq!(spawned(&bench.warm(5)), NOBODY, "once in a generation");
    assert!(bench.master.deadline().is_none());
}

#[test]
fn nothing_is_promoted_while_something_else_is_under_way() {
    let mut bench = Bench::running(2);
    bench.now += Duration::from_secs(5);
    bench.command(Command::ChainReload);
    assert_eq!(spawned(&bench.warm(2)), NOBODY);
    bench.worker_serves(3);
    bench.worker_serves(4);
    assert_eq!(spawned(&bench.warm(4)), [5], "the chain is complete");
    bench.command(Command::Reload);
    assert_eq!(spawned(&bench.worker_serves(5)), NOBODY);
    // The reload is being prepared; the promotion goes on, what follows waits.
    let actions = bench.step(Event::HeirReady { worker: 4 });
    assert!(actions.contains(&Action::Enthrone { generation: 1, worker: 4 }));
    assert_eq!(spawned(&actions), NOBODY);
    let refused = Event::ZygoteLoadFailed { generation: 2, reason: "no".into(), code: 1 };
    let pid = bench.pid();
    bench.step(Event::ZygoteSpawned { generation: 2, pid });
    bench.step(refused);
    assert_eq!(spawned(&bench.dies(pid, KILLED)), [6], "the generation stays: its workers are replaced");
}

#[test]
fn a_reload_that_commits_calls_the_promotion_off() {
    let mut bench = Bench::promoting();
    bench.command(Command::Reload);
    let workers = spawned(&bench.zygote_loads(2));
    let mut last = Vec::new();
    for worker in workers {
        last = bench.worker_serves(worker);
    }
    assert!(last.contains(&Action::CallOffPromotion) && last.contains(&Action::ReExec), "{last:?}");
    assert_eq!(bench.step(Event::HeirReady { worker: 2 }), [], "too late");
    assert_eq!(bench.leaves(2).last(), Some(&Action::Retire { worker: 2, cell: 1 }));
}

#[test]
fn an_heir_that_dies_or_cannot_leaves_everything_as_it_was() {
    let mut bench = Bench::promoting();
    let zygote = bench.zygote_pid(1);
    let pid = bench.pid_of(2);
    let actions = bench.dies(pid, KILLED);
    assert!(actions.contains(&Action::CallOffPromotion) && spawned(&actions).is_empty(), "{actions:?}");
    assert!(bench.logged("worker 2 does not become the zygote of generation 1: it has ended"));
    assert_eq!(spawned(&bench.warm(3)), [5], "another may");
    bench.worker_serves(5);
    let actions = bench.step(Event::HeirUnfit { worker: 3, reason: "it has threads".into() });
    assert_eq!(actions, [Action::CallOffPromotion]);
    bench.leaves(3);
    let obstacle = Some("threads: beat".to_owned());
    assert_eq!(bench.step(Event::WorkerWarm { worker: 1, obstacle }), []);
    assert!(
        bench.logged("worker 1 does not become the zygote of generation 1: threads: beat; the generation")
    );
    assert_eq!(bench.zygote_pid(1), zygote);
    assert_eq!(spawned(&bench.warm(4)), NOBODY, "three attempts are enough");
}

#[test]
fn an_heir_whose_successor_fails_serves_on() {
    let mut bench = Bench::running(2);
    bench.now += Duration::from_secs(5);
    for (successor, next) in [(3, vec![4]), (4, vec![5]), (5, vec![])] {
        if successor == 3 {
            assert_eq!(spawned(&bench.warm(1)), [3]);
        }
        let pid = bench.worker_forks(successor);
        assert_eq!(spawned(&bench.dies(pid, Exit::Code(1))), next);
    }
    let serving: Vec<WorkerId> = bench.master.workers().map(|(id, _)| id).collect();
    assert_eq!(serving, [1, 2]);
}

#[test]
fn an_heir_that_takes_too_long_is_killed() {
    let mut bench = Bench::promoting();
    let pid = bench.pid_of(2);
    assert!(!kills(&bench.later_told(Duration::from_secs(60)), pid));
    assert!(kills(&bench.later_told(Duration::from_secs(10)), pid));
    bench.dies(pid, KILLED);
    assert!(bench.logged("worker 2 does not become the zygote"));
}

#[test]
fn the_zygote_before_stays_until_it_has_forked_what_it_was_asked_for() {
    let mut bench = Bench::promoting();
    let victim = bench.pid_of(3);
    assert_eq!(spawned(&bench.dies(victim, KILLED)), [5]);
    assert_eq!(bench.step(Event::HeirReady { worker: 2 }), []);
    let pid = bench.pid();
    let actions = bench.step(Event::WorkerForked { worker: 5, pid });
    assert!(actions.contains(&Action::Enthrone { generation: 1, worker: 2 }), "{actions:?}");
}

#[test]
fn an_heir_takes_over_from_a_zygote_that_was_lost_meanwhile() {
    let mut bench = Bench::promoting();
    let old = bench.zygote_pid(1);
    assert_eq!(
        bench.dies(old, KILLED).last(),
        Some(&Action::SpawnZygote { generation: 1 }),
        "nobody knows whether the heir makes it"
    );
    assert_eq!(bench.step(Event::HeirReady { worker: 2 }), [], "one that is being started has no pid yet");
    let pid = bench.pid();
    let actions = bench.step(Event::ZygoteSpawned { generation: 1, pid });
    assert!(kills(&actions, pid) && bench.warmth() == Warmth::Warm, "{actions:?}");
    let policy = bench.next_policy.clone();
    bench.step(Event::ZygoteLoaded { generation: 1, policy });
    assert_eq!(bench.warmth(), Warmth::Warm);
}

#[test]
fn a_promoted_zygote_that_is_lost_is_replaced_by_one_from_disk_that_may_be_promoted_from_again() {
    let mut bench = Bench::promoting();
    let old = bench.zygote_pid(1);
    bench.step(Event::HeirReady { worker: 2 });
    bench.dies(old, KILLED);
    let actions = bench.step(Event::WorkerForkFailed { worker: 5, reason: "full".into() });
    assert_eq!(spawned(&actions), NOBODY, "the roll ends, nobody is missing");
    let warm = bench.zygote_pid(1);
    let actions = bench.dies(warm, KILLED);
    assert!(actions.contains(&Action::SpawnZygote { generation: 1 }), "{actions:?}");
    bench.zygote_loads(1);
    assert_eq!(bench.warmth(), Warmth::Cold(0));
    assert_eq!(spawned(&bench.warm(3)).len(), 1);
}

#[test]
fn a_stop_waits_for_the_zygote_before_and_forgets_the_heir() {
    let mut bench = Bench::promoting();
    let old = bench.zygote_pid(1);
    bench.step(Event::HeirReady { worker: 2 });
    bench.command(Command::Stop);
    let warm = bench.zygote_pid(1);
    assert_eq!(drained(&bench.dies(warm, KILLED)), [], "the one before still has the listeners");
    assert_eq!(drained(&bench.dies(old, KILLED)).len(), 3);

    let mut bench = Bench::promoting();
    assert!(bench.command(Command::Stop).contains(&Action::CallOffPromotion));
    let zygote = bench.zygote_pid(1);
    let actions = bench.dies(zygote, KILLED);
    assert!(drained(&actions).contains(&(2, DrainMode::Stop)), "{actions:?}");
}

#[test]
fn what_was_promoted_is_known_to_the_next_image() {
    let mut bench = Bench::promoting();
    let old = bench.zygote_pid(1);
    bench.step(Event::HeirReady { worker: 2 });
    bench.warm(1);
    bench.re_executes();
    assert_eq!(bench.warmth(), Warmth::Warm);
    assert_eq!(bench.dies(old, KILLED), [], "nobody unknown");
    assert!(bench.master.workers().any(|(id, it)| id == 1 && it.warm));
}
