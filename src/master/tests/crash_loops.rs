//! Workers that keep dying: pauses, the breaker, and what closes it.

use super::super::slots::NextTry;
use super::*;

/// Longer than the pause after any of the deaths in these tests.
const LONG: Duration = Duration::from_secs(60);

impl Bench {
    /// Time passes until something is due.
    fn until_due(&mut self) -> Vec<Action> {
        let at = self.master.deadline().expect("something is due");
        assert!(at > self.now, "the clock spins");
        self.later(at - self.now)
    }

    /// The last worker that was asked for is forked and crashes before it serves.
    fn crashes(&mut self, worker: WorkerId) -> Vec<Action> {
        let pid = self.worker_forks(worker);
        self.dies(pid, Exit::Signal { number: 6, core: false })
    }

    fn cannot_fork(&mut self, worker: WorkerId) -> Vec<Action> {
        let reason = "Resource temporarily unavailable (os error 11)".to_owned();
        self.step(Event::WorkerForkFailed { worker, reason })
    }

    fn degraded(&self) -> Vec<(SlotId, u32, NextTry)> {
        let epoch = self.now - Duration::from_secs(3600);
        let all = self.master.slot_standings(|at| at.duration_since(epoch).as_millis() as u64);
        let told =
            |it: super::super::slots::SlotStanding| it.degraded.map(|why| (it.slot, why.failures, why.next));
        all.into_iter().filter_map(told).collect()
    }

    /// Of four workers that have served for long two die, and what replaces them crashes, until the breaker opens.
    fn broken() -> Self {
        let mut bench = Bench::running(4);
        bench.now += LONG;
        for worker in [1, 2] {
            let pid = bench.pid_of(worker);
            bench.dies(pid, KILLED);
        }
        let mut waiting = vec![5, 6];
        while !bench.logged("workers keep dying") {
            let next = match waiting.is_empty() {
                true => spawned(&bench.until_due()),
                false => spawned(&bench.crashes(waiting.remove(0))),
            };
            waiting.extend(next);
            assert!(bench.living() <= 4, "{waiting:?}");
        }
        assert!(bench.logged("2 of 4 workers keep dying: ") && bench.logged("; 2 workers serve on"));
        assert_eq!(waiting, NOBODY, "both have died");
        bench
    }
}

#[test]
fn slots_that_keep_dying_are_tried_one_at_a_time_and_in_turn() {
    let mut bench = Bench::broken();
    let mut pauses = Vec::new();
    let mut turns = Vec::new();
    for _ in 0..8 {
        let before = bench.now;
        let actions = bench.until_due();
        pauses.push(bench.now - before);
        let [worker] = spawned(&actions)[..] else { panic!("one at a time: {actions:?}") };
        turns.extend(bench.master.workers().find(|(id, _)| *id == worker).map(|(_, it)| it.slot));
        assert_eq!(spawned(&bench.later(Duration::from_millis(1))), NOBODY, "the other one waits");
        assert_eq!(spawned(&bench.crashes(worker)), NOBODY);
    }
    assert_eq!(turns, [1, 2, 1, 2, 1, 2, 1, 2]);
    assert!(pauses.is_sorted() && pauses[0] <= Duration::from_millis(100), "{pauses:?}");
    assert!(pauses[7] > Duration::from_secs(9) && pauses[7] <= Duration::from_secs(13), "{pauses:?}");
    assert_eq!(bench.living(), 2, "those that live serve on");
    let next: Vec<_> = bench.degraded().into_iter().map(|(slot, _, next)| (slot, next)).collect();
    assert!(matches!(next[..], [(1, NextTry::At { .. }), (2, NextTry::InTurn)]), "{next:?}");
}

#[test]
fn one_that_stays_alive_brings_the_others_back() {
    let mut bench = Bench::broken();
    let [worker] = spawned(&bench.until_due())[..] else { panic!("one is tried") };
    let degraded = bench.degraded();
    assert!(matches!(degraded[..], [(1, 3, NextTry::Underway), (2, 3, NextTry::InTurn)]), "{degraded:?}");
    assert_eq!(spawned(&bench.worker_serves(worker)), NOBODY, "it may still die");
    let [other] = spawned(&bench.until_due())[..] else { panic!("the other one is started") };
    assert!(bench.logged("worker 1 stays alive: the others are started again"));
    bench.worker_serves(other);
    assert_eq!(bench.degraded(), []);
    assert_eq!(bench.master.deadline(), None, "and all is quiet");
    // What was is forgotten.
    bench.now += LONG;
    let pid = bench.pid_of(other);
    assert_eq!(spawned(&bench.dies(pid, KILLED)).len(), 1);
}

#[test]
fn an_accident_of_another_worker_is_answered_at_once() {
    let mut bench = Bench::broken();
    let pid = bench.pid_of(3);
    let [worker] = spawned(&bench.dies(pid, KILLED))[..] else { panic!("it is replaced at once") };
    assert_eq!(spawned(&bench.worker_serves(worker)), NOBODY, "which proves nothing for the others yet");
}

#[test]
fn an_order_to_reload_has_all_of_them_tried_at_once() {
    for command in [Command::Reload, Command::BrutalReload, Command::ReloadWorkers, Command::ChainReload] {
        let mut bench = Bench::broken();
        let actions = bench.command(command);
        assert!(spawned(&actions).len() >= 2, "{command:?}: {actions:?}");
        assert!(bench.logged("are tried again, all at once"));
    }
}

#[test]
fn a_generation_to_come_is_not_held_up_and_begins_without_a_past() {
    let mut bench = Bench::broken();
    for worker in spawned(&bench.command(Command::Reload)) {
        bench.crashes(worker);
    }
    let new = spawned(&bench.zygote_loads(2));
    assert_eq!(new.len(), 4, "all at once");
    for worker in &new {
        bench.worker_serves(*worker);
    }
    assert_eq!(bench.master.generation(), 2);
    assert_eq!(bench.degraded(), []);
    bench.re_executes();
    let pid = bench.pid_of(new[0]);
    assert_eq!(spawned(&bench.dies(pid, KILLED)).len(), 1, "a first accident");
}

#[test]
fn who_wants_no_pauses_has_no_breaker() {
    let mut bench = Bench::running_with(2, |policy| policy.respawn_pause = Duration::ZERO);
    let mut next = vec![1, 2];
    for _ in 0..20 {
        let pids: Vec<Pid> = next.iter().map(|worker| bench.pid_of(*worker)).collect();
        next = pids.into_iter().flat_map(|pid| spawned(&bench.dies(pid, KILLED))).collect();
        assert_eq!(next.len(), 2);
        for worker in &next {
            bench.worker_forks(*worker);
        }
    }
    assert!(!bench.logged("keep dying") && !bench.logged("too fast"));
}

#[test]
fn a_worker_that_cannot_be_forked_is_tried_again_and_shown_as_degraded() {
    let mut bench = Bench::running(2);
    bench.now += LONG;
    let pid = bench.pid_of(1);
    let mut next = spawned(&bench.dies(pid, KILLED));
    for failures in 2..6 {
        assert_eq!(spawned(&bench.cannot_fork(next[0])), NOBODY, "at once would be in vain");
        let degraded = bench.degraded();
        assert!(
            matches!(degraded[..], [(1, times, NextTry::At { .. })] if times == failures),
            "{degraded:?}"
        );
        next = spawned(&bench.until_due());
    }
    assert!(bench.logged("worker 1 could not be forked: Resource temporarily unavailable"));
    assert!(bench.logged("worker 1 failed 5 times in a row, next try in "));
    let told = bench.master.slot_standings(|_| 1)[0].trouble(1).expect("it is degraded");
    assert!(told.contains("fork-failed: it could not be forked: Resource temp"), "{told}");
    assert_eq!(bench.master.causes().of(Cause::ForkFailed), 4);
    bench.worker_serves(next[0]);
    assert_eq!(bench.degraded(), []);
}

#[test]
fn forks_that_fail_at_the_first_start_get_more_time_than_crashes() {
    let mut bench = Bench::new(1);
    bench.step(Event::Start);
    let mut actions = bench.zygote_loads(1);
    let begin = bench.now;
    for _ in 1..8 {
        let [worker] = spawned(&actions)[..] else { panic!("it is tried again: {actions:?}") };
        actions = bench.cannot_fork(worker);
        if !matches!(bench.master.phase(), Phase::Stopping { .. }) {
            actions = bench.until_due();
        }
    }
    assert_eq!(bench.master.phase(), Phase::Stopping { code: 1, forced: true });
    assert!(bench.logged("cannot start: it could not be forked: Resource temporarily unavailable"));
    assert!(bench.now - begin > Duration::from_secs(4), "{:?}", bench.now - begin);
}

#[test]
fn without_a_zygote_the_empty_slots_are_degraded() {
    let mut bench = Bench::running(2);
    bench.now += LONG;
    let zygote = bench.zygote_pid(1);
    bench.dies(zygote, KILLED);
    assert_eq!(bench.degraded(), [], "its workers serve");
    let pid = bench.pid_of(2);
    bench.dies(pid, KILLED);
    assert_eq!(bench.degraded(), [(2, 0, NextTry::WithZygote)]);
    bench.zygote_loads(1);
    assert_eq!(bench.degraded(), []);
}

#[test]
fn a_server_that_is_to_die_without_workers_does() {
    let mut bench = Bench::running_with(1, |policy| policy.die_on_no_workers = true);
    bench.now += LONG;
    let pid = bench.pid_of(1);
    let mut actions = bench.dies(pid, KILLED);
    for tries in 1..=3 {
        assert_eq!(bench.master.phase(), Phase::Running, "after {tries} tries");
        if spawned(&actions).is_empty() {
            actions = bench.until_due();
        }
        let [worker] = spawned(&actions)[..] else { panic!("it is tried again: {actions:?}") };
        actions = bench.crashes(worker);
    }
    assert_eq!(bench.master.phase(), Phase::Stopping { code: 1, forced: true });
    assert!(bench.logged("die-on-no-workers"));

    let mut others_serve = Bench::running_with(2, |policy| policy.die_on_no_workers = true);
    let mut next = vec![1];
    for _ in 0..9 {
        let pid = others_serve.master.workers().find(|(id, _)| *id == next[0]).and_then(|(_, it)| it.pid);
        let pid = pid.unwrap_or_else(|| others_serve.worker_forks(next[0]));
        next = spawned(&others_serve.dies(pid, KILLED));
        if next.is_empty() {
            next = spawned(&others_serve.until_due());
        }
    }
    assert_eq!(others_serve.master.phase(), Phase::Running);
}

#[test]
fn whatever_crashes_the_clock_does_not_spin_and_mended_code_serves_again() {
    for seed in 1..=200_u64 {
        let processes = 1 + seed as u32 % 5;
        let mut bench = Bench::running(processes);
        let mut waiting: Vec<WorkerId> = Vec::new();
        let mut chance = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
        let mut below = |n: u64| {
            chance ^= chance << 13;
            chance ^= chance >> 7;
            chance ^= chance << 17;
            (chance >> 11) % n
        };
        for _ in 0..120 {
            let actions = match below(5) {
                0 if waiting.is_empty() && bench.master.deadline().is_some() => bench.until_due(),
                1 if !waiting.is_empty() => bench.crashes(waiting.remove(0)),
                2 if !waiting.is_empty() => bench.cannot_fork(waiting.remove(0)),
                3 if !waiting.is_empty() => bench.worker_serves(waiting.remove(0)),
                _ => {
                    let living: Vec<Pid> = bench.master.workers().filter_map(|(_, it)| it.pid).collect();
                    match living.is_empty() {
                        true => continue,
                        false => bench.dies(living[below(living.len() as u64) as usize], KILLED),
                    }
                }
            };
            waiting.extend(spawned(&actions));
            let empty = (1..=processes).filter(|slot| bench.master.candidate(*slot).is_none()).count();
            assert!(
                empty == 0 || bench.master.deadline().is_some(),
                "seed {seed}: nobody fills {empty} slots"
            );
        }
        for _ in 0..200 {
            let actions = match waiting.is_empty() {
                true if bench.master.deadline().is_none() => break,
                true => bench.until_due(),
                false => bench.worker_serves(waiting.remove(0)),
            };
            waiting.extend(spawned(&actions));
        }
        assert!(bench.master.all_ready() && bench.master.deadline().is_none(), "seed {seed}");
        assert_eq!(bench.degraded(), [], "seed {seed}");
    }
}
