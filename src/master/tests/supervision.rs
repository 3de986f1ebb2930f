//! What becomes of workers and zygotes in between.

use super::*;

#[test]
fn a_worker_that_leaves_by_itself_is_no_accident() {
    let mut bench = Bench::running(1);
    for worker in 1..=5 {
        let pid = bench.pid_of(worker);
        assert_eq!(spawned(&bench.dies(pid, LEFT)), [worker + 1]);
        bench.worker_serves(worker + 1);
    }
    assert!(bench.logged("has left in good order") && !bench.logged("too fast"));
}

#[test]
fn a_worker_that_dies_is_replaced_at_once_and_a_loop_is_slowed_down() {
    let mut bench = Bench::running(1);
    bench.now += Duration::from_secs(5);
    let pid = bench.pid_of(1);
    assert_eq!(spawned(&bench.dies(pid, KILLED)), [2]);
    bench.worker_serves(2);
    let pid = bench.pid_of(2);
    assert_eq!(spawned(&bench.dies(pid, KILLED)), [3], "one short life is an accident");
    bench.worker_serves(3);
    let pid = bench.pid_of(3);
    assert_eq!(spawned(&bench.dies(pid, KILLED)), NOBODY, "two in a row are not");
    assert!(bench.logged("respawning too fast"));
    let pause = bench.master.deadline().expect("a next try") - bench.now;
    assert!((75..=100).contains(&pause.as_millis()), "{pause:?}");
    assert_eq!(spawned(&bench.later(Duration::from_millis(100))), [4]);
}

#[test]
fn a_worker_that_does_not_leave_is_killed_when_patience_ends() {
    let mut bench = Bench::surging();
    bench.worker_serves(3);
    bench.worker_serves(4);
    bench.step(Event::ReExecFailed { reason: String::new() });
    let pid = bench.pid_of(1);
    assert!(!kills(&bench.later(Duration::from_secs(59)), pid));
    let actions = bench.later(Duration::from_secs(1));
    assert_eq!(asked(&actions), [(Subject::Worker(1), Why::Mercy), (Subject::Worker(2), Why::Mercy)]);
    assert!(!kills(&actions, pid), "first the log has to know");
    assert!(kills(&bench.tells(1), pid));
}

#[test]
fn a_lost_zygote_is_replaced_while_its_workers_serve_on() {
    let mut bench = Bench::running(1);
    let zygote = bench.zygote_pid(1);
    let actions = bench.dies(zygote, KILLED);
    assert!(actions.contains(&Action::SpawnZygote { generation: 1 }), "{actions:?}");
    let worker = bench.pid_of(1);
    assert_eq!(spawned(&bench.dies(worker, KILLED)), NOBODY, "nobody can fork yet");
    assert_eq!(spawned(&bench.zygote_loads(1)), [2]);
}

#[test]
fn a_fork_reported_after_the_death_is_still_a_death() {
    let mut bench = Bench::running(1);
    bench.now += Duration::from_secs(5);
    let old = bench.pid_of(1);
    bench.dies(old, KILLED);
    let pid = bench.pid();
    assert_eq!(bench.dies(pid, KILLED), [], "a stranger, as far as the master knows");
    let actions = bench.step(Event::WorkerForked { worker: 2, pid });
    assert!(actions.contains(&Action::Retire { worker: 2, cell: 0 }), "{actions:?}");
    assert_eq!(spawned(&actions), [3]);
}

#[test]
fn strangers_are_reaped_and_change_nothing() {
    let mut bench = Bench::running(1);
    for number in 0..200 {
        assert_eq!(bench.dies(Pid::from_raw(9000 + number), Exit::Code(22)), []);
    }
}

#[test]
fn a_worker_that_begins_to_serve_as_it_is_told_to_leave_finishes_its_requests() {
    let mut bench = Bench::surging();
    let (fails, serves) = (bench.worker_forks(3), bench.worker_forks(4));
    assert_eq!(drained(&bench.dies(fails, KILLED)), [(4, DrainMode::Handover)]);
    bench.step(Event::WorkerReady { worker: 4 });
    assert_eq!(asked(&bench.later(Duration::from_secs(59))), []);
    assert_eq!(asked(&bench.later(Duration::from_secs(1))), [(Subject::Worker(4), Why::Mercy)]);
    assert!(kills(&bench.tells(4), serves), "mercy has an end");
}

#[test]
fn a_worker_told_to_leave_before_it_was_forked_leaves_when_it_is() {
    let mut bench = Bench::surging();
    let fails = bench.worker_forks(3);
    bench.dies(fails, KILLED);
    assert!(bench.later(Duration::from_secs(5)).is_empty(), "nothing to be done about it yet");
    let late = bench.worker_forks(4);
    bench.later(Duration::from_secs(1));
    assert!(kills(&bench.tells(4), late));
}

#[test]
fn pause_is_for_all_workers_and_for_those_to_come() {
    let mut bench = Bench::running(1);
    assert_eq!(bench.command(Command::TogglePause), [Action::Pause { worker: 1 }]);
    bench.now += Duration::from_secs(5);
    let pid = bench.pid_of(1);
    let actions = bench.dies(pid, KILLED);
    assert!(actions.iter().any(|it| matches!(it, Action::SpawnWorker { paused: true, .. })), "{actions:?}");
    assert_eq!(bench.command(Command::TogglePause), [Action::Resume { worker: 2 }]);
}

#[test]
fn cheap_mode_sends_all_home_until_somebody_calls() {
    let mut bench = Bench::running(2);
    let actions = bench.command(Command::GoCheap);
    assert_eq!(drained(&actions).len(), 2);
    assert!(actions.contains(&Action::WatchListeners(true)));
    for worker in [1, 2] {
        let pid = bench.pid_of(worker);
        assert_eq!(spawned(&bench.dies(pid, LEFT)), NOBODY);
    }
    let actions = bench.step(Event::ConnectionWaiting);
    assert_eq!(actions[0], Action::WatchListeners(false));
    assert_eq!(spawned(&actions), [3, 4]);
}

#[test]
fn fewer_and_more_workers_stay_between_one_and_processes() {
    let mut bench = Bench::running(2);
    assert_eq!(drained(&bench.command(Command::FewerWorkers)), [(2, DrainMode::Handover)]);
    assert_eq!(bench.command(Command::FewerWorkers), []);
    assert_eq!(spawned(&bench.command(Command::MoreWorkers)), [3]);
    assert_eq!(bench.command(Command::MoreWorkers), []);
}
