//! `max-draining-generations`: the oldest is cut when too many drain.

use crate::channel::DrainMode;
use crate::control::Command;

use super::*;

/// Reloads a server of one worker; what it asks for when the new one serves.
fn reload(bench: &mut Bench) -> Vec<Action> {
    bench.command(Command::Reload);
    let generation = bench.master.generation() + 1;
    let worker = spawned(&bench.zygote_loads(generation))[0];
    let actions = bench.worker_serves(worker);
    bench.step(Event::ReExecFailed { reason: String::new() });
    actions
}

#[test]
fn one_generation_more_and_the_oldest_has_to_leave() {
    let mut bench = Bench::running_with(1, |policy| policy.max_draining_generations = 2);
    assert_eq!(drained(&reload(&mut bench)), [(1, DrainMode::Handover)]);
    assert_eq!(drained(&reload(&mut bench)), [(2, DrainMode::Handover)]);
    let actions = reload(&mut bench);
    assert_eq!(drained(&actions), [(3, DrainMode::Handover), (1, DrainMode::Now)]);
    let pid = bench.pid_of(1);
    let report = Action::ReportEviction { slot: 1, cell: 0, pid, generation: 1, most: 2 };
    assert!(actions.contains(&report), "{actions:?}");
    assert!(kills(&bench.later_told(Duration::from_secs(1)), pid));
}

#[test]
fn without_a_bound_all_may_finish() {
    let mut bench = Bench::running(1);
    for old in 1..=6 {
        assert_eq!(drained(&reload(&mut bench)), [(old, DrainMode::Handover)]);
    }
}

#[test]
fn workers_replaced_within_the_serving_generation_do_not_count() {
    let mut bench = Bench::running_with(1, |policy| policy.max_draining_generations = 1);
    for old in 1..=3 {
        bench.command(Command::ReloadWorkers);
        assert_eq!(drained(&bench.worker_serves(old + 1)), [(old, DrainMode::Handover)]);
    }
}
