//! Workers replaced within a generation.

use super::*;

#[test]
fn a_chain_replaces_one_worker_after_the_other_and_stops_when_one_fails() {
    let mut bench = Bench::running(3);
    bench.now += Duration::from_secs(5);
    assert_eq!(spawned(&bench.command(Command::ChainReload)), [4]);
    let actions = bench.worker_serves(4);
    assert_eq!((drained(&actions), spawned(&actions)), (vec![(1, DrainMode::Handover)], vec![5]));
    let pid = bench.worker_forks(5);
    let actions = bench.dies(pid, Exit::Code(1));
    assert_eq!((drained(&actions), spawned(&actions)), (vec![], vec![]));
    assert!(bench.logged("chain reload aborted"));
}

#[test]
fn a_workers_reload_starts_all_successors_before_anybody_leaves() {
    let mut bench = Bench::running(2);
    let actions = bench.command(Command::ReloadWorkers);
    assert_eq!((spawned(&actions), drained(&actions)), (vec![3, 4], vec![]));
    assert_eq!(drained(&bench.worker_serves(4)), [(2, DrainMode::Handover)]);
    assert_eq!(drained(&bench.worker_serves(3)), [(1, DrainMode::Handover)]);
    assert!(bench.logged("workers reload complete"));
}

#[test]
fn a_worker_that_asks_to_go_gets_its_successor_first() {
    let mut bench = Bench::running(2);
    let actions = bench.step(Event::WorkerLeaves { worker: 2, cause: Cause::Asked, reason: "SIGHUP".into() });
    assert_eq!((spawned(&actions), drained(&actions)), (vec![3], vec![]));
    assert_eq!(drained(&bench.worker_serves(3)), [(2, DrainMode::Handover)]);
}

#[test]
fn a_chain_says_what_it_does_as_operators_know_it() {
    let mut bench = Bench::running(2);
    bench.command(Command::ChainReload);
    bench.command(Command::ChainReload);
    bench.worker_serves(3);
    bench.worker_serves(4);
    let expected = [
        "chain reload starting...",
        "chain next victim is worker 1",
        "chain reload already running...",
        "chain next victim is worker 2",
        "chain reloading complete",
    ];
    let said: Vec<&String> = bench.lines.iter().filter(|line| line.starts_with("chain")).collect();
    assert_eq!(said, expected);
}

#[test]
fn a_chain_whose_next_worker_hangs_is_aborted_and_the_victim_stays() {
    let mut bench = Bench::running(2);
    bench.now += Duration::from_secs(5);
    bench.command(Command::ChainReload);
    let pid = bench.worker_forks(3);
    assert!(kills(&bench.later_told(Duration::from_secs(10)), pid));
    let actions = bench.dies(pid, KILLED);
    assert_eq!((drained(&actions), spawned(&actions)), (vec![], vec![]));
    assert!(bench.logged("chain reload aborted: worker 1 was not ready within 10 s (boot-timeout)"));
    let serving: Vec<WorkerId> = bench.master.workers().map(|(id, _)| id).collect();
    assert_eq!(serving, [1, 2]);
    assert_eq!(spawned(&bench.command(Command::ChainReload)), [4], "the next one may work");
}

#[test]
fn a_victim_that_dies_while_its_successor_fails_is_replaced_ever_more_slowly() {
    let mut bench = Bench::running(1);
    bench.now += Duration::from_secs(5);
    bench.command(Command::ReloadWorkers);
    let (victim, successor) = (bench.pid_of(1), bench.worker_forks(2));
    assert_eq!(spawned(&bench.dies(victim, KILLED)), NOBODY, "its successor is on the way");
    let mut spawns = spawned(&bench.dies(successor, KILLED));
    assert_eq!(spawns, [3]);
    let pid = bench.worker_forks(3);
    spawns = spawned(&bench.dies(pid, KILLED));
    assert_eq!(spawns, NOBODY, "two in a row are no accident");
}
