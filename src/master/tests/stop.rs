//! The end.

use super::*;

#[test]
fn a_stop_waits_for_requests_and_asked_again_waits_for_less() {
    let mut bench = Bench::running(2);
    let actions = bench.command(Command::Stop);
    assert_eq!(drained(&actions), [(1, DrainMode::Stop), (2, DrainMode::Stop)]);
    let actions = bench.command(Command::Stop);
    assert_eq!(drained(&actions), [(1, DrainMode::Now), (2, DrainMode::Now)]);
    let (first, second, zygote) = (bench.pid_of(1), bench.pid_of(2), bench.zygote_pid(1));
    assert!(kills(&bench.command(Command::StopNow), first));
    assert_eq!(spawned(&bench.dies(first, KILLED)), NOBODY);
    bench.dies(zygote, KILLED);
    assert!(bench.dies(second, KILLED).contains(&Action::Exit(0)));
}

#[test]
fn a_stop_during_a_reload_ends_both_generations() {
    let mut bench = Bench::surging();
    bench.worker_serves(3);
    let starting = bench.worker_forks(4);
    let actions = bench.command(Command::Stop);
    let everybody = [1, 2, 3, 4].map(|worker| (worker, DrainMode::Stop));
    assert_eq!(drained(&actions), everybody);
    assert!(!kills(&actions, starting), "its word that it serves may be on the way");
    assert!(kills(&bench.later(Duration::from_secs(1)), starting), "but it has nothing to finish");
    for pid in [bench.zygote_pid(1), bench.zygote_pid(2), bench.pid_of(1), bench.pid_of(2), bench.pid_of(3)] {
        bench.dies(pid, LEFT);
    }
    assert!(bench.dies(starting, KILLED).contains(&Action::Exit(0)));
}
