//! Workers replaced for a limit: in turns, at their time, and never before their successor serves.

use super::super::budget::Measured;
use super::*;
use crate::config::recycling::Recycling;
use crate::config::reload::MaxSurge;
use crate::sys::memory::Memory;

const MINUTE: Duration = Duration::from_secs(60);
const MEGABYTE: u64 = 1 << 20;

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// So many workers that have just begun to serve.
fn fresh(processes: u32, change: impl Fn(&mut Recycling)) -> Bench {
    Bench::running_with(processes, |policy| change(Arc::make_mut(&mut policy.recycling)))
}

/// So many workers that have served for a minute.
fn running(processes: u32, change: impl Fn(&mut Recycling)) -> Bench {
    let mut bench = fresh(processes, change);
    bench.later(MINUTE);
    bench
}

fn asks(bench: &mut Bench, worker: WorkerId, cause: Cause) -> Vec<WorkerId> {
    spawned(&bench.step(Event::WorkerLeaves { worker, cause, reason: "enough".into() }))
}

/// The new code of a reload does not load.
fn refused(bench: &mut Bench) -> Vec<Action> {
    let pid = bench.pid();
    bench.step(Event::ZygoteSpawned { generation: 2, pid });
    bench.step(Event::ZygoteLoadFailed { generation: 2, reason: "broken".into(), code: 1 });
    bench.dies(pid, KILLED)
}

fn due_in(bench: &Bench) -> Option<Duration> {
    bench.master.deadline().map(|at| at.saturating_duration_since(bench.now))
}

/// Nothing is done for so many milliseconds, or up to a quarter less.
fn waits(bench: &mut Bench, longest: u64) -> Vec<WorkerId> {
    let pause = due_in(bench).expect("something is due");
    let milliseconds = pause.as_millis() as u64;
    assert!((longest * 3 / 4..=longest).contains(&milliseconds), "{pause:?} for {longest}");
    spawned(&bench.later(pause))
}

fn ends(bench: &Bench, cause: Cause) -> u64 {
    bench.master.causes().of(cause)
}

#[test]
fn workers_that_have_reached_a_limit_take_turns_until_the_old_one_is_gone() {
    let mut bench = running(3, |_| {});
    assert_eq!(asks(&mut bench, 2, Cause::MaxRequests), [4]);
    for worker in [1, 3, 1, 2] {
        assert_eq!(asks(&mut bench, worker, Cause::Memory), NOBODY);
    }
    let actions = bench.worker_serves(4);
    assert_eq!((drained(&actions), spawned(&actions)), (vec![(2, DrainMode::Handover)], vec![]));
    assert_eq!(spawned(&bench.leaves(2)), [5]);
    assert_eq!(drained(&bench.worker_serves(5)), [(1, DrainMode::Handover)]);
    assert_eq!(spawned(&bench.leaves(1)), [6]);
    bench.worker_serves(6);
    assert_eq!(spawned(&bench.leaves(3)), NOBODY);
    assert_eq!((ends(&bench, Cause::MaxRequests), ends(&bench, Cause::Memory)), (1, 2));
    assert_eq!(due_in(&bench), None, "an idle master sleeps");
}

#[test]
fn more_may_be_replaced_at_a_time_if_that_is_wanted() {
    for (most, expected) in
        [(MaxSurge::Workers(2), 2), (MaxSurge::Percent(10), 2), (MaxSurge::Percent(26), 6)]
    {
        let mut bench = running(20, |it| it.at_a_time = most);
        let granted = (1..=20).filter(|worker| !asks(&mut bench, *worker, Cause::MaxRequests).is_empty());
        assert_eq!(granted.count(), expected, "{most:?}");
    }
}

#[test]
fn an_operator_does_not_wait_for_turns() {
    let mut bench = running(3, |_| {});
    assert_eq!(asks(&mut bench, 1, Cause::MaxRequests), [4]);
    assert_eq!(asks(&mut bench, 2, Cause::Asked), [5]);
    assert_eq!(asks(&mut bench, 3, Cause::MaxRequests), NOBODY);
    assert_eq!(asks(&mut bench, 3, Cause::Asked), [6], "and not for the turn it had to wait for");
    let mut bench = running(3, |_| {});
    assert_eq!(asks(&mut bench, 1, Cause::MaxRequests), [4]);
    assert_eq!(spawned(&bench.command(Command::ReloadWorkers)), [5, 6], "the first is on its way");
}

#[test]
fn limits_wait_for_a_roll_that_may_make_them_void() {
    let mut bench = running(2, |_| {});
    assert_eq!(spawned(&bench.command(Command::ChainReload)), [3]);
    assert_eq!(asks(&mut bench, 2, Cause::MaxRequests), NOBODY);
    assert_eq!(spawned(&bench.worker_serves(3)), [4]);
    assert_eq!(drained(&bench.worker_serves(4)), [(2, DrainMode::Handover)]);
    bench.leaves(1);
    assert_eq!(spawned(&bench.leaves(2)), NOBODY);
    assert_eq!((ends(&bench, Cause::WorkersReload), ends(&bench, Cause::MaxRequests)), (2, 0));
}

#[test]
fn no_worker_is_replaced_before_its_time() {
    let mut bench = fresh(2, |it| it.min_lifetime = seconds(10));
    bench.later(seconds(4));
    assert_eq!(asks(&mut bench, 1, Cause::Exception), NOBODY);
    assert_eq!(due_in(&bench), Some(seconds(6)));
    assert_eq!(spawned(&bench.later(seconds(5))), NOBODY);
    assert_eq!(spawned(&bench.later(seconds(1))), [3]);
    // An operator who asks does not have to wait.
    let mut bench = fresh(2, |it| it.min_lifetime = seconds(10));
    assert_eq!(asks(&mut bench, 1, Cause::Asked), [3]);
}

#[test]
fn a_successor_that_does_not_start_is_tried_again_ever_later_and_the_old_one_serves() {
    let mut bench = running(2, |_| {});
    let mut successor = asks(&mut bench, 1, Cause::MaxRequests);
    for pause in [0, 100, 200, 400] {
        let pid = bench.worker_forks(successor[0]);
        let actions = bench.dies(pid, Exit::Code(1));
        assert_eq!(drained(&actions), []);
        assert!(bench.master.workers().any(|(id, it)| id == 1 && it.is_ready()));
        successor = spawned(&actions);
        if pause > 0 {
            assert_eq!(successor, NOBODY);
            successor = waits(&mut bench, pause);
        }
    }
    assert!(bench.logged("replacement failed: worker 1 ended with exit code 1 before it was ready"));
    assert_eq!(drained(&bench.worker_serves(successor[0])), [(1, DrainMode::Handover)]);
    bench.leaves(1);
    bench.later(MINUTE);
    assert_eq!(asks(&mut bench, 2, Cause::MaxRequests).len(), 1, "all is forgiven");
}

#[test]
fn an_operator_has_to_ask_again_when_the_successor_does_not_start() {
    let mut bench = running(2, |_| {});
    assert_eq!(asks(&mut bench, 1, Cause::Asked), [3]);
    let pid = bench.worker_forks(3);
    assert_eq!(spawned(&bench.dies(pid, Exit::Code(1))), NOBODY);
    assert_eq!(due_in(&bench), None);
    assert_eq!(asks(&mut bench, 1, Cause::Asked), [4]);
}

#[test]
fn a_limit_reached_during_a_reload_counts_only_if_that_is_refused() {
    let mut bench = running(2, |_| {});
    bench.command(Command::Reload);
    assert_eq!(asks(&mut bench, 2, Cause::Memory), NOBODY);
    assert_eq!(spawned(&refused(&mut bench)), [3]);

    let mut bench = Bench::surging();
    assert_eq!(asks(&mut bench, 2, Cause::Memory), NOBODY);
    bench.worker_serves(3);
    bench.worker_serves(4);
    assert_eq!(spawned(&bench.re_executes()), NOBODY);
    bench.leaves(1);
    bench.leaves(2);
    bench.later(MINUTE);
    assert_eq!((bench.living(), ends(&bench, Cause::Reload)), (2, 2));
}

#[test]
fn a_new_worker_that_asks_before_its_reload_is_complete_is_replaced_afterwards() {
    let mut bench = Bench::surging();
    bench.worker_serves(3);
    assert_eq!(asks(&mut bench, 3, Cause::Exception), NOBODY);
    bench.worker_serves(4);
    bench.re_executes();
    assert_eq!(spawned(&bench.later(MINUTE)), [5]);
    assert_eq!(drained(&bench.worker_serves(5)), [(3, DrainMode::Handover)]);
}

#[test]
fn a_stop_makes_all_wishes_void() {
    let mut bench = running(2, |it| it.max_lifetime = Some(seconds(3600)));
    asks(&mut bench, 1, Cause::MaxRequests);
    asks(&mut bench, 2, Cause::MaxRequests);
    bench.command(Command::Stop);
    assert_eq!(asks(&mut bench, 2, Cause::Memory), NOBODY);
    assert_eq!(spawned(&bench.later(seconds(5))), NOBODY);
    assert!(due_in(&bench) < Some(MINUTE), "nobody waits for a lifetime to end");
}

#[test]
fn a_worker_that_has_served_long_enough_is_replaced_without_asking() {
    let mut bench = fresh(2, |it| {
        it.max_lifetime = Some(seconds(100));
        it.max_lifetime_delta = Some(seconds(20));
    });
    assert_eq!(due_in(&bench), Some(seconds(100)));
    assert_eq!(spawned(&bench.later(seconds(99))), NOBODY);
    assert_eq!(spawned(&bench.later(seconds(1))), [3]);
    assert!(bench.logged("worker 1 lifetime reached, it was running for 100 second(s)"));
    assert_eq!(drained(&bench.worker_serves(3)), [(1, DrainMode::Handover)]);
    bench.leaves(1);
    assert_eq!(due_in(&bench), Some(seconds(20)), "that of worker 2 is later by the delta");
    assert_eq!(spawned(&bench.later(seconds(20))), [4]);
    bench.worker_serves(4);
    bench.leaves(2);
    assert_eq!(ends(&bench, Cause::Lifetime), 2);
}

#[test]
fn a_lifetime_that_ends_during_a_reload_waits_for_its_end() {
    let mut bench = fresh(2, |it| {
        it.max_lifetime = Some(seconds(100));
        it.max_lifetime_delta = Some(Duration::ZERO);
    });
    bench.later(seconds(95));
    bench.command(Command::Reload);
    bench.now += seconds(10);
    assert_eq!(bench.master.deadline(), Some(bench.now), "the boot deadline");
    assert_eq!(spawned(&refused(&mut bench)), [3]);
}

#[test]
fn a_lifetime_goes_on_over_a_re_exec() {
    let mut bench = fresh(1, |it| {
        it.max_lifetime = Some(seconds(100));
        it.max_lifetime_delta = Some(Duration::ZERO);
    });
    bench.later(seconds(70));
    bench.re_executes();
    assert_eq!(due_in(&bench), Some(seconds(30)));
}

fn measured(bench: &mut Bench, worker: WorkerId, resident: u64, address_space: u64) -> Vec<Action> {
    let memory = Memory { resident: resident * MEGABYTE, address_space: address_space * MEGABYTE };
    bench.step(Event::WorkersMeasured { memory: BTreeMap::from([(worker, memory)]) })
}

#[test]
fn a_worker_with_too_much_memory_is_killed_once_and_replaced() {
    let mut bench = running(2, |it| it.evil_resident = Some(100 * MEGABYTE));
    let pid = bench.pid_of(2);
    assert_eq!(measured(&mut bench, 2, 99, 9999), []);
    let actions = measured(&mut bench, 2, 100, 9999);
    assert!(!kills(&actions, pid), "the log has to know why");
    let why = Why::Excess { what: "RSS", bytes: 100 * MEGABYTE };
    let evidence = Action::TakeEvidence { subject: Subject::Worker(2), pid, worker: Some((2, 1)), why };
    assert!(actions.contains(&evidence), "{actions:?}");
    assert!(kills(&bench.tells(2), pid));
    assert_eq!(measured(&mut bench, 2, 100, 9999), [], "dying takes a while");
    assert_eq!(spawned(&bench.dies(pid, KILLED)), [3]);
    assert_eq!(ends(&bench, Cause::EvilMemory), 1);

    let mut bench = running(1, |it| it.evil_address_space = Some(100 * MEGABYTE));
    let actions = measured(&mut bench, 1, 1, 100);
    let why = Why::Excess { what: "ADDRESS SPACE", bytes: 100 * MEGABYTE };
    assert_eq!(asked(&actions), [(Subject::Worker(1), why)]);
}

#[test]
fn workers_that_are_too_large_from_the_start_are_killed_ever_more_slowly() {
    let mut bench = running(1, |it| it.evil_resident = Some(100 * MEGABYTE));
    let mut worker = 1;
    for pause in [0, 0, 100, 200] {
        measured(&mut bench, worker, 200, 0);
        bench.tells(worker);
        let pid = bench.pid_of(worker);
        let mut successors = spawned(&bench.dies(pid, KILLED));
        if pause > 0 {
            successors = waits(&mut bench, pause);
        }
        worker = successors[0];
        bench.worker_serves(worker);
        bench.later(seconds(3));
    }
}

fn uses(bench: &mut Bench, megabytes: &[(WorkerId, u64)]) -> Vec<WorkerId> {
    let workers: BTreeMap<_, _> = megabytes.iter().map(|(id, it)| (*id, it * MEGABYTE)).collect();
    let (used, limit) = (workers.values().sum(), 300 * MEGABYTE);
    spawned(&bench.step(Event::InstanceMeasured(Measured { used, limit, workers })))
}

fn replaced(bench: &mut Bench, old: WorkerId, successor: WorkerId) {
    bench.worker_serves(successor);
    bench.leaves(old);
    bench.later(MINUTE);
}

#[test]
fn over_the_budget_the_largest_worker_is_replaced_and_then_the_next() {
    let mut bench = running(3, |_| {});
    assert_eq!(uses(&mut bench, &[(1, 90), (2, 120), (3, 80)]), NOBODY);
    assert_eq!(uses(&mut bench, &[(1, 90), (2, 160), (3, 80)]), [4]);
    assert_eq!(uses(&mut bench, &[(1, 90), (2, 160), (3, 80)]), NOBODY, "it is on its way");
    assert!(bench.logged("worker 2 asks to be replaced: 160.0 MiB of its own, the most of all"));
    bench.worker_serves(4);
    assert_eq!(uses(&mut bench, &[(1, 120), (2, 160), (3, 80)]), NOBODY, "it leaves");
    bench.leaves(2);
    assert_eq!(uses(&mut bench, &[(1, 180), (3, 80), (4, 60)]), [5]);
    assert_eq!(ends(&bench, Cause::MemoryBudget), 1);
}

#[test]
fn a_budget_that_is_too_small_is_told_once_and_ends_in_no_loop() {
    let mut bench = running(2, |_| {});
    assert_eq!(uses(&mut bench, &[(1, 160), (2, 150)]), [3]);
    replaced(&mut bench, 1, 3);
    assert_eq!(uses(&mut bench, &[(2, 155), (3, 150)]), [4]);
    replaced(&mut bench, 2, 4);
    // The first is as large again.
    for _ in 0..100 {
        assert_eq!(uses(&mut bench, &[(3, 158), (4, 150)]), NOBODY);
        bench.now += seconds(3);
    }
    let told = |bench: &Bench| bench.lines.iter().filter(|line| line.contains("does not help")).count();
    assert_eq!(told(&bench), 1);
    assert!(
        bench
            .logged("worker 1 has 158.0 MiB again, its predecessor had 160.0 MiB; the next attempt is in 10")
    );
    // What grows slowly is a leak, and worth another attempt.
    bench.now += seconds(600);
    assert_eq!(uses(&mut bench, &[(3, 158), (4, 150)]), [5]);
    replaced(&mut bench, 3, 5);
    assert_eq!(uses(&mut bench, &[(5, 158), (4, 150)]), NOBODY);
    assert!(bench.logged("the next attempt is in 20 minutes"));
}

#[test]
fn a_worker_that_leaks_again_is_replaced_again() {
    let mut bench = running(2, |_| {});
    let mut old = 1;
    for successor in 3..8 {
        assert_eq!(uses(&mut bench, &[(old, 200), (2, 120)]), [successor]);
        replaced(&mut bench, old, successor);
        bench.now += seconds(3600);
        old = successor;
    }
    assert!(!bench.logged("does not help"));
}

#[test]
fn nobody_is_replaced_for_the_budget_during_a_reload() {
    let mut bench = running(2, |_| {});
    bench.command(Command::Reload);
    assert_eq!(uses(&mut bench, &[(1, 200), (2, 120)]), NOBODY);
}
