//! `reload-mode = drain`: the old workers leave before the new ones start.

use crate::channel::DrainMode;
use crate::control::Command;

use super::*;

/// The old workers, 1 and 2, have been told to leave; the image is about to be replaced.
fn draining() -> Bench {
    let mut bench = Bench::running_with(2, |policy| policy.reload_mode = ReloadMode::Drain);
    assert_eq!(bench.command(Command::Reload), [Action::SpawnZygote { generation: 2 }]);
    let actions = bench.zygote_loads(2);
    assert_eq!(drained(&actions), [(1, DrainMode::Handover), (2, DrainMode::Handover)]);
    assert_eq!(spawned(&actions), NOBODY);
    assert_eq!(actions.last(), Some(&Action::ReExec));
    bench
}

/// Nobody of the old generation is left; the new workers, 3 and 4, have been asked for.
fn arriving() -> Bench {
    let mut bench = draining();
    assert_eq!(spawned(&bench.re_executes()), NOBODY);
    assert_eq!(spawned(&bench.leaves(1)), NOBODY, "one old worker is enough to wait for");
    assert_eq!(spawned(&bench.leaves(2)), [3, 4]);
    bench
}

fn outcome(bench: &Bench) -> Outcome {
    bench.master.answer().reloads[0].outcome.clone()
}

#[test]
fn code_that_does_not_load_is_refused_before_anybody_is_told_to_leave() {
    let mut bench = Bench::running_with(2, |policy| policy.reload_mode = ReloadMode::Drain);
    bench.command(Command::Reload);
    let pid = bench.pid();
    bench.step(Event::ZygoteSpawned { generation: 2, pid });
    bench.step(Event::ZygoteLoadFailed { generation: 2, reason: "SyntaxError".into(), code: 1 });
    assert_eq!(drained(&bench.dies(pid, KILLED)), []);
    assert!(bench.logged("reload 1 refused: SyntaxError; generation 1 serves on"));
}

#[test]
fn the_new_workers_start_when_the_last_old_one_has_left() {
    let mut bench = draining();
    assert!(bench.logged("its workers start when the old ones have left"));
    bench.re_executes();
    let waits_for =
        |bench: &Bench| bench.master.answer().progress.map(|it| (it.waits_for, it.ready, it.wanted));
    assert_eq!(waits_for(&bench), Some((2, 0, 2)));
    bench.leaves(2);
    assert_eq!(waits_for(&bench), Some((1, 0, 2)));
    bench.leaves(1);
    bench.worker_serves(3);
    assert_eq!((waits_for(&bench), outcome(&bench)), (Some((0, 1, 2)), Outcome::Underway));
    bench.worker_serves(4);
    assert_eq!(outcome(&bench), Outcome::Complete { remark: None });
    assert!(bench.logged("reload 1 complete: generation 2 serves with 2 workers, 0 old ones"));
    assert_eq!(bench.master.answer().progress, None);
}

#[test]
fn either_of_the_two_configurations_may_ask_for_it() {
    let mut bench = Bench::running(1);
    bench.next_policy.reload_mode = ReloadMode::Drain;
    bench.command(Command::Reload);
    assert_eq!(drained(&bench.zygote_loads(2)), [(1, DrainMode::Handover)]);
    bench.re_executes();
    bench.next_policy.reload_mode = ReloadMode::Surge;
    bench.leaves(1);
    bench.worker_serves(2);
    bench.command(Command::Reload);
    assert_eq!(drained(&bench.zygote_loads(3)), [(2, DrainMode::Handover)]);
}

#[test]
fn a_worker_that_only_has_connections_to_pass_on_is_not_waited_for() {
    let mut bench = draining();
    bench.re_executes();
    bench.leaves(1);
    assert_eq!(spawned(&bench.step(Event::WorkerQuiet { worker: 2 })), [3, 4]);
    assert_eq!(spawned(&bench.leaves(2)), NOBODY);
}

#[test]
fn the_word_of_a_worker_travels_with_the_re_exec() {
    let mut bench = draining();
    for worker in [1, 2] {
        bench.step(Event::WorkerQuiet { worker });
    }
    assert_eq!(spawned(&bench.re_executes()), [3, 4]);
}

#[test]
fn an_old_worker_may_take_its_whole_mercy_but_no_more() {
    let mut bench = draining();
    bench.re_executes();
    bench.leaves(1);
    assert_eq!(spawned(&bench.later(Duration::from_secs(59))), NOBODY);
    let stuck = bench.pid_of(2);
    let actions = bench.later_told(Duration::from_secs(1));
    assert!(kills(&actions, stuck));
    assert_eq!(
        spawned(&actions),
        [3, 4],
        "what is killed runs no code any more, though it may be long in dying"
    );
}

#[test]
fn a_failing_exec_loses_nothing() {
    let mut bench = draining();
    bench.step(Event::ReExecFailed { reason: "No such file".into() });
    bench.leaves(1);
    assert_eq!(spawned(&bench.leaves(2)), [3, 4]);
    bench.worker_serves(3);
    bench.worker_serves(4);
    assert!(matches!(outcome(&bench), Outcome::Complete { remark: Some(it) } if it.contains("No such file")));
}

#[test]
fn new_workers_that_do_not_start_are_tried_again_and_who_asked_is_told() {
    let mut bench = arriving();
    bench.worker_serves(4);
    let mut worker = 3;
    for attempt in 1..=4 {
        assert_eq!(outcome(&bench) == Outcome::Underway, attempt <= 3, "attempt {attempt}");
        let pid = bench.worker_forks(worker);
        let mut actions = bench.dies(pid, Exit::Code(1));
        if spawned(&actions).is_empty() {
            actions = bench.later(Duration::from_secs(1));
        }
        worker = spawned(&actions)[0];
    }
    assert!(matches!(outcome(&bench), Outcome::Failing { reason } if reason.contains("exit code 1")));
    assert!(bench.logged("reload 1: the old workers have left and the new ones do not start"));
    bench.worker_serves(worker);
    assert_eq!(outcome(&bench), Outcome::Complete { remark: None }, "it does not give up");
}

#[test]
fn the_next_reload_need_not_wait_for_one_that_does_not_arrive() {
    let mut bench = arriving();
    let pid = bench.worker_forks(3);
    bench.dies(pid, KILLED);
    assert!(bench.command(Command::Reload).contains(&Action::SpawnZygote { generation: 3 }));
    let actions = bench.zygote_loads(3);
    assert_eq!(actions.last(), Some(&Action::ReExec));
    assert_eq!(outcome(&bench), Outcome::GaveWay);
    let leaving = drained(&actions);
    assert!(leaving.iter().any(|(worker, _)| *worker == 4), "{leaving:?}");
}

#[test]
fn a_zygote_lost_while_the_old_workers_leave_is_replaced() {
    let mut bench = draining();
    bench.re_executes();
    let zygote = bench.zygote_pid(2);
    assert!(bench.dies(zygote, KILLED).contains(&Action::SpawnZygote { generation: 2 }));
    bench.leaves(1);
    assert_eq!(spawned(&bench.leaves(2)), NOBODY);
    assert_eq!(spawned(&bench.zygote_loads(2)), [3, 4]);
}

#[test]
fn a_stop_while_the_old_workers_leave_starts_no_new_ones() {
    let mut bench = draining();
    bench.re_executes();
    bench.command(Command::Stop);
    assert_eq!(outcome(&bench), Outcome::Stopped);
    bench.leaves(1);
    assert_eq!(spawned(&bench.leaves(2)), NOBODY);
    let zygotes = [bench.zygote_pid(1), bench.zygote_pid(2)];
    bench.dies(zygotes[0], KILLED);
    assert!(bench.dies(zygotes[1], KILLED).contains(&Action::Exit(0)));
}

#[test]
fn a_brutal_one_cuts_and_then_starts() {
    let mut bench = Bench::running_with(1, |policy| policy.reload_mode = ReloadMode::Drain);
    bench.command(Command::BrutalReload);
    assert_eq!(drained(&bench.zygote_loads(2)), [(1, DrainMode::Now)]);
    bench.re_executes();
    assert_eq!(spawned(&bench.leaves(1)), [2]);
}

#[test]
fn waiting_needs_no_clock_but_the_patience_of_those_who_leave() {
    let mut bench = draining();
    bench.re_executes();
    assert_eq!(bench.master.deadline(), Some(bench.now + Duration::from_secs(60)));
}

#[test]
fn a_rollback_keeps_the_order_too() {
    let mut bench = Bench::running_with(1, |policy| {
        policy.reload_mode = ReloadMode::Drain;
        policy.snapshots = 1;
    });
    bench.command(Command::Reload);
    bench.zygote_loads(2);
    bench.re_executes();
    assert_eq!(spawned(&bench.leaves(1)), [2]);
    bench.worker_serves(2);
    let actions = bench.command(Command::Rollback);
    assert_eq!((spawned(&actions), drained(&actions)), (vec![], vec![(2, DrainMode::Handover)]));
    assert_eq!(spawned(&bench.leaves(2)), [3]);
    bench.worker_serves(3);
    assert!(bench.logged("rollback 2 complete: generation 1 serves with 1 workers"));
}
