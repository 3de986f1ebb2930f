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
    let actions = bench.step(Event::WorkerLeaves { worker: 2, reason: "SIGHUP".into() });
    assert_eq!((spawned(&actions), drained(&actions)), (vec![3], vec![]));
    assert_eq!(drained(&bench.worker_serves(3)), [(2, DrainMode::Handover)]);
}
