//! The reload in the usual order: the new workers beside the old ones.

use super::*;

#[test]
fn a_reload_prepares_surges_drains_and_replaces_the_image_in_that_order() {
    let mut bench = Bench::surging();
    assert_eq!(bench.worker_serves(3), [], "one new worker is not enough");
    let actions = bench.worker_serves(4);
    assert_eq!(drained(&actions), [(1, DrainMode::Handover), (2, DrainMode::Handover)]);
    let old = bench.zygote_pid(1);
    assert!(actions.contains(&Action::DismissZygote { generation: 1, pid: Some(old) }));
    assert_eq!(actions.last(), Some(&Action::ReExec));
    assert_eq!((bench.master.phase(), bench.master.generation()), (Phase::ReExecuting, 2));
    assert!(bench.logged("...gracefully killing workers..."));
}

#[test]
fn a_reload_to_more_workers_waits_for_all_of_them() {
    let mut bench = Bench::running(1);
    bench.next_policy.processes = 3;
    bench.command(Command::Reload);
    assert_eq!(spawned(&bench.zygote_loads(2)), [2, 3, 4]);
    bench.worker_serves(2);
    bench.worker_serves(3);
    assert!(bench.worker_serves(4).contains(&Action::ReExec));
}

#[test]
fn a_reload_to_fewer_workers_starts_only_those() {
    let mut bench = Bench::running(3);
    bench.next_policy.processes = 1;
    bench.command(Command::Reload);
    assert_eq!(spawned(&bench.zygote_loads(2)), [4]);
    assert_eq!(drained(&bench.worker_serves(4)).len(), 3);
}

#[test]
fn a_brutal_reload_cuts_the_old_workers_only_when_the_new_ones_serve() {
    let mut bench = Bench::running(1);
    bench.command(Command::BrutalReload);
    assert_eq!(spawned(&bench.zygote_loads(2)), [2]);
    assert_eq!(drained(&bench.worker_serves(2)), [(1, DrainMode::Now)]);
}

#[test]
fn code_that_does_not_load_leaves_everything_as_it_was() {
    let mut bench = Bench::running(2);
    bench.command(Command::Reload);
    let pid = bench.pid();
    bench.step(Event::ZygoteSpawned { generation: 2, pid });
    bench.step(Event::ZygoteLoadFailed { generation: 2, reason: "SyntaxError".into(), code: 1 });
    let actions = bench.dies(pid, KILLED);
    assert_eq!((drained(&actions), spawned(&actions)), (vec![], vec![]));
    assert!(bench.logged("reload 1 refused: SyntaxError; generation 1 serves on"));
    assert_eq!((bench.master.phase(), bench.master.generation()), (Phase::Running, 1));
    assert_eq!(bench.command(Command::Reload), [Action::SpawnZygote { generation: 3 }], "the next one works");
}

#[test]
fn a_zygote_that_hangs_is_killed_and_the_reload_refused() {
    let mut bench = Bench::running(1);
    bench.command(Command::Reload);
    let pid = bench.pid();
    bench.step(Event::ZygoteSpawned { generation: 2, pid });
    assert_eq!(bench.master.deadline(), Some(bench.now + Duration::from_secs(10)));
    assert!(kills(&bench.later_told(Duration::from_secs(10)), pid));
    bench.dies(pid, KILLED);
    assert!(bench.logged("refused: the application was not loaded within 10 s (boot-timeout)"));
}

#[test]
fn a_new_worker_that_dies_before_it_serves_takes_the_reload_back() {
    let mut bench = Bench::surging();
    bench.worker_serves(3);
    let pid = bench.worker_forks(4);
    let actions = bench.dies(pid, Exit::Signal { number: 11, core: true });
    assert_eq!(
        drained(&actions),
        [(3, DrainMode::Handover)],
        "the new one that serves leaves, the old ones stay"
    );
    assert!(bench.logged(
        "reload 1 refused: worker 2 ended with signal 11 (SIGSEGV), core dumped before it was ready"
    ));
    assert_eq!(bench.master.generation(), 1);
}

#[test]
fn a_new_worker_that_dies_after_it_served_is_replaced_within_the_surge() {
    let mut bench = Bench::surging();
    bench.worker_serves(3);
    let pid = bench.pid_of(3);
    assert_eq!(spawned(&bench.dies(pid, KILLED)), [5]);
    bench.worker_serves(4);
    assert!(bench.worker_serves(5).contains(&Action::ReExec));
}

#[test]
fn an_old_worker_that_dies_during_a_reload_is_replaced_from_the_old_code() {
    let mut bench = Bench::surging();
    let pid = bench.pid_of(1);
    let actions = bench.dies(pid, KILLED);
    assert!(
        actions.iter().any(|it| matches!(it, Action::SpawnWorker { slot: 1, generation: 1, .. })),
        "{actions:?}"
    );
}

#[test]
fn a_second_reload_replaces_one_that_still_prepares() {
    let mut bench = Bench::running(1);
    bench.command(Command::Reload);
    let pid = bench.pid();
    bench.step(Event::ZygoteSpawned { generation: 2, pid });
    let actions = bench.command(Command::Reload);
    assert_eq!(
        actions,
        [Action::DismissZygote { generation: 2, pid: Some(pid) }, Action::SpawnZygote { generation: 3 }]
    );
    assert_eq!(bench.dies(pid, KILLED)[1..], [], "its end refuses nothing");
    bench.zygote_loads(3);
    assert!(bench.worker_serves(2).contains(&Action::ReExec));
}

#[test]
fn a_reload_asked_for_during_the_surge_comes_afterwards() {
    let mut bench = Bench::surging();
    assert_eq!(bench.command(Command::Reload), []);
    bench.worker_serves(3);
    bench.worker_serves(4);
    let saved = bench.master.save(bench.now, &[]);
    let policy = bench.master.policy.clone();
    bench.master = Master::restore(saved, policy, BTreeMap::new(), bench.now);
    assert_eq!(bench.step(Event::Start), [Action::SpawnZygote { generation: 3 }]);
}

#[test]
fn the_next_image_knows_all_children_and_misses_no_death() {
    let mut bench = Bench::surging();
    bench.worker_serves(3);
    bench.worker_serves(4);
    let old = bench.pid_of(1);
    let new = bench.pid_of(3);
    let saved = serde_json::to_string(&bench.master.save(bench.now, &[Command::TogglePause]))
        .expect("it is plain data");
    let policy = bench.master.policy.clone();
    let saved = serde_json::from_str(&saved).expect("it was just written");
    bench.master = Master::restore(saved, policy, BTreeMap::new(), bench.now);
    let actions = bench.step(Event::Start);
    assert!(actions.contains(&Action::Pause { worker: 3 }), "a command that came late: {actions:?}");
    assert_eq!(spawned(&bench.dies(old, LEFT)), NOBODY, "an old worker that leaves is not replaced");
    assert_eq!(spawned(&bench.dies(new, KILLED)), [5], "a new one is");
}

#[test]
fn a_failing_exec_leaves_the_old_image_in_charge_of_the_new_workers() {
    let mut bench = Bench::surging();
    bench.worker_serves(3);
    bench.worker_serves(4);
    bench.command(Command::Reload);
    let actions = bench.step(Event::ReExecFailed { reason: "No such file".into() });
    assert!(bench.logged("the old master supervises generation 2"));
    assert_eq!(actions, [Action::SpawnZygote { generation: 3 }], "and what had to wait goes on");
}

#[test]
fn errors_are_logged_as_errors() {
    let mut bench = Bench::running(1);
    bench.command(Command::Reload);
    let actions =
        bench.master.step(bench.now, Event::ZygoteSpawnFailed { generation: 2, reason: "EAGAIN".into() });
    assert!(
        actions.iter().any(|it| matches!(it, Action::Log(Level::Error, line) if line.contains("EAGAIN")))
    );
}
