//! `max-surge`: a reload and a roll in steps, and the way back.

use std::time::Duration;

use crate::channel::DrainMode;
use crate::config::reload::MaxSurge;
use crate::control::Command;

use super::*;

fn at_most(extra: u32) -> impl Fn(&mut Policy) {
    move |policy| policy.max_surge = Some(MaxSurge::Workers(extra))
}

/// A reload of `processes` workers in steps of one, whose first new worker has been asked for.
fn stepping(processes: u32) -> Bench {
    let mut bench = Bench::running_with(processes, at_most(1));
    bench.now += Duration::from_secs(5);
    bench.command(Command::Reload);
    assert_eq!(spawned(&bench.zygote_loads(2)), [u64::from(processes) + 1]);
    bench
}

#[test]
fn each_new_worker_lets_an_old_one_go_and_the_gone_make_room() {
    let mut bench = stepping(3);
    for (old, new) in (1..=3).zip(4..=6) {
        assert_eq!(bench.living(), 4);
        let actions = bench.worker_serves(new);
        assert_eq!(drained(&actions), [(old, DrainMode::Handover)]);
        assert_eq!(actions.contains(&Action::ReExec), new == 6);
        assert_eq!(spawned(&actions), NOBODY, "the leaving one lives still");
        if new < 6 {
            assert_eq!(spawned(&bench.leaves(old)), [new + 1]);
        }
    }
    assert_eq!(bench.master.generation(), 2);
}

#[test]
fn a_share_of_the_workers_is_rounded_up() {
    let mut bench = Bench::running_with(5, |policy| policy.max_surge = Some(MaxSurge::Percent(25)));
    bench.command(Command::Reload);
    assert_eq!(spawned(&bench.zygote_loads(2)), [6, 7]);
}

#[test]
fn the_stricter_of_the_two_configurations_counts() {
    let mut bench = Bench::running_with(4, at_most(3));
    bench.next_policy.max_surge = Some(MaxSurge::Workers(2));
    bench.command(Command::Reload);
    assert_eq!(spawned(&bench.zygote_loads(2)), [5, 6]);
}

#[test]
fn more_and_fewer_processes_keep_to_the_larger_number() {
    let mut bench = Bench::running_with(1, at_most(1));
    bench.next_policy.processes = 3;
    bench.command(Command::Reload);
    assert_eq!(spawned(&bench.zygote_loads(2)), [2, 3, 4]);

    let mut bench = Bench::running_with(3, at_most(1));
    bench.next_policy.processes = 1;
    bench.command(Command::Reload);
    assert_eq!(spawned(&bench.zygote_loads(2)), [4]);
    assert_eq!(drained(&bench.worker_serves(4)).len(), 3);
}

#[test]
fn a_first_new_worker_that_fails_refuses_the_reload_and_nobody_has_left() {
    let mut bench = stepping(2);
    let pid = bench.worker_forks(3);
    let actions = bench.dies(pid, KILLED);
    assert_eq!((drained(&actions), spawned(&actions)), (vec![], vec![]));
    assert!(bench.logged("reload 1 refused: ") && bench.logged("generation 1 serves on"));
}

/// The second of three new workers has failed: the first serves, the old one of its slot has left.
fn failing() -> (Bench, Vec<Action>) {
    let mut bench = stepping(3);
    bench.worker_serves(4);
    bench.leaves(1);
    let pid = bench.worker_forks(5);
    let actions = bench.dies(pid, Exit::Code(1));
    (bench, actions)
}

#[test]
fn a_later_one_that_fails_brings_the_old_workers_back() {
    let (mut bench, actions) = failing();
    assert!(bench.logged("reload 1 fails: worker 2 ended with exit code 1"));
    assert!(
        actions.iter().any(|it| matches!(it, Action::SpawnWorker { worker: 6, slot: 1, generation: 1, .. }))
    );
    assert_eq!(drained(&actions), [], "the new one stands in until the old one is back");
    assert!(bench.master.answer().progress.is_some_and(|it| it.restoring));
    assert_eq!(bench.command(Command::Reload), [], "the next reload waits");
    let zygote = bench.zygote_pid(2);
    bench.dies(zygote, KILLED);
    let actions = bench.worker_serves(6);
    assert_eq!(drained(&actions), [(4, DrainMode::Handover)]);
    assert!(
        bench.logged("reload 1 refused: worker 2 ended with exit code 1")
            && bench.logged("generation 1 serves on")
    );
    assert!(matches!(bench.master.answer().reloads[0].outcome, Outcome::Refused { .. }));
    assert!(actions.contains(&Action::SpawnZygote { generation: 3 }), "{actions:?}");
    let serving: Vec<_> = bench
        .master
        .workers()
        .filter(|(_, it)| it.is_ready())
        .map(|(_, it)| (it.slot, it.generation))
        .collect();
    assert_eq!(serving, [(2, 1), (3, 1), (1, 1)]);
}

#[test]
fn bringing_back_keeps_to_the_bound_and_needs_no_clock() {
    let mut bench = stepping(2);
    bench.worker_serves(3);
    // The old one of slot 1 is slow to leave, and so are the rest.
    bench.step(Event::WorkerReady { worker: 3 });
    let zygote = bench.zygote_pid(2);
    let actions = bench.dies(zygote, KILLED);
    assert_eq!(spawned(&actions), NOBODY, "three live");
    assert_eq!(bench.master.deadline(), Some(bench.now + Duration::from_secs(60)), "that of the leaving one");
    assert_eq!(bench.living(), 3, "the new one, the leaving one, the one that was never touched");
    assert_eq!(spawned(&bench.leaves(1)), [4]);
    assert_eq!(drained(&bench.worker_serves(4)), [(3, DrainMode::Handover)]);
    assert!(bench.logged("reload 1 refused: the zygote ended with signal 9"));
}

#[test]
fn the_slot_of_a_new_worker_that_dies_in_the_middle_goes_back_to_the_old_code_until_there_is_room() {
    let mut bench = stepping(2);
    bench.worker_serves(3);
    bench.leaves(1);
    bench.worker_forks(4);
    let pid = bench.pid_of(3);
    let actions = bench.dies(pid, KILLED);
    let old = |it: &Action| matches!(it, Action::SpawnWorker { worker: 5, slot: 1, generation: 1, .. });
    assert!(actions.iter().any(old), "{actions:?}");
    assert_eq!(bench.living(), 3);
    bench.worker_serves(5);
    assert_eq!(drained(&bench.worker_serves(4)), [(2, DrainMode::Handover)]);
    assert_eq!(spawned(&bench.leaves(2)), [6]);
    let actions = bench.worker_serves(6);
    assert_eq!((drained(&actions), actions.last()), (vec![(5, DrainMode::Handover)], Some(&Action::ReExec)));
}

#[test]
fn an_old_worker_that_dies_in_the_middle_is_replaced_from_the_old_code() {
    let mut bench = stepping(2);
    let pid = bench.pid_of(1);
    let actions = bench.dies(pid, KILLED);
    let old = |it: &Action| matches!(it, Action::SpawnWorker { worker: 4, slot: 1, generation: 1, .. });
    assert!(actions.iter().any(old), "{actions:?}");
    assert_eq!(bench.living(), 3);
}

#[test]
fn old_workers_that_do_not_come_back_do_not_hold_up_the_next_reload() {
    let (mut bench, _) = failing();
    bench.command(Command::Reload);
    let mut worker = 6;
    for _ in 0..2 {
        let pid = bench.worker_forks(worker);
        let mut actions = bench.dies(pid, Exit::Code(1));
        if spawned(&actions).is_empty() {
            actions = bench.later(Duration::from_secs(1));
        }
        worker = spawned(&actions)[0];
    }
    let pid = bench.worker_forks(worker);
    let actions = bench.dies(pid, Exit::Code(1));
    assert!(bench.logged("generation 1 serves on beside workers of generation 2"));
    assert!(actions.contains(&Action::SpawnZygote { generation: 3 }), "{actions:?}");
    assert_eq!(drained(&actions), [], "the new one that serves is all there is in its slot");
}

#[test]
fn a_stop_in_the_middle_ends_everybody() {
    let mut bench = stepping(2);
    bench.worker_serves(3);
    let zygotes = [bench.zygote_pid(1), bench.zygote_pid(2)];
    bench.command(Command::Stop);
    bench.dies(zygotes[0], KILLED);
    assert_eq!(drained(&bench.dies(zygotes[1], KILLED)).len(), 3);
}

#[test]
fn a_change_of_the_number_waits_for_the_end_of_the_replacement() {
    let mut bench = stepping(2);
    assert_eq!(bench.command(Command::FewerWorkers), []);
    let pid = bench.worker_forks(3);
    let actions = bench.dies(pid, KILLED);
    assert_eq!(drained(&actions), [(2, DrainMode::Handover)]);
}

#[test]
fn a_workers_reload_keeps_to_the_bound_too() {
    let mut bench = Bench::running_with(3, at_most(2));
    assert_eq!(spawned(&bench.command(Command::ReloadWorkers)), [4, 5]);
    let actions = bench.worker_serves(4);
    assert_eq!((drained(&actions), spawned(&actions)), (vec![(1, DrainMode::Handover)], vec![]));
    assert_eq!(spawned(&bench.leaves(1)), [6]);
    bench.worker_serves(5);
    bench.worker_serves(6);
    assert!(bench.logged("workers reload complete"));
}

#[test]
fn workers_that_ask_to_go_take_turns() {
    let mut bench = Bench::running_with(3, at_most(1));
    let ask = |bench: &mut Bench, worker| {
        spawned(&bench.step(Event::WorkerLeaves {
            worker,
            cause: Cause::Asked,
            reason: "max-requests".into(),
        }))
    };
    assert_eq!(ask(&mut bench, 1), [4]);
    assert_eq!(ask(&mut bench, 2), NOBODY);
    assert_eq!(ask(&mut bench, 2), NOBODY);
    bench.worker_serves(4);
    assert_eq!(spawned(&bench.leaves(1)), [5]);
    assert_eq!(drained(&bench.worker_serves(5)), [(2, DrainMode::Handover)]);
    assert_eq!(spawned(&bench.leaves(2)), NOBODY, "asked twice, done once");
}
