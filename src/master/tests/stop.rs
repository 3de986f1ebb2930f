//! The end.

use super::*;

#[test]
fn a_stop_waits_for_requests_and_asked_again_waits_for_less() {
    let mut bench = Bench::running(2);
    let (first, second, zygote) = (bench.pid_of(1), bench.pid_of(2), bench.zygote_pid(1));
    assert!(bench.command(Command::Stop).contains(&Action::ReleaseListeners));
    let actions = bench.dies(zygote, KILLED);
    assert_eq!(drained(&actions), [(1, DrainMode::Stop), (2, DrainMode::Stop)]);
    let actions = bench.command(Command::Stop);
    assert_eq!(drained(&actions), [(1, DrainMode::Now), (2, DrainMode::Now)]);
    assert!(kills(&bench.command(Command::StopNow), first));
    assert_eq!(spawned(&bench.dies(first, KILLED)), NOBODY);
    assert!(bench.dies(second, KILLED).contains(&Action::Exit(0)));
}

#[test]
fn a_stop_during_a_reload_ends_both_generations() {
    let mut bench = Bench::surging();
    bench.worker_serves(3);
    let starting = bench.worker_forks(4);
    let (old, new) = (bench.zygote_pid(1), bench.zygote_pid(2));
    assert_eq!(drained(&bench.command(Command::Stop)), []);
    assert_eq!(drained(&bench.dies(old, KILLED)), [], "the listeners are open in the other one");
    let actions = bench.dies(new, KILLED);
    let everybody = [1, 2, 3, 4].map(|worker| (worker, DrainMode::Stop));
    assert_eq!(drained(&actions), everybody);
    assert!(!kills(&actions, starting), "its word that it serves may be on the way");
    assert!(kills(&bench.later_told(Duration::from_secs(1)), starting), "but it has nothing to finish");
    for pid in [bench.pid_of(1), bench.pid_of(2), bench.pid_of(3)] {
        bench.dies(pid, LEFT);
    }
    assert!(bench.dies(starting, KILLED).contains(&Action::Exit(0)));
}

#[test]
fn with_a_drain_delay_workers_are_told_to_serve_on_and_have_their_mercy_after_it() {
    let mut bench = Bench::running(2);
    let delay = Duration::from_secs(5);
    bench.master.policy.drain_delay = delay;
    let zygote = bench.zygote_pid(1);
    assert!(bench.command(Command::Stop).contains(&Action::ReleaseListeners));
    let actions = bench.dies(zygote, KILLED);
    let farewell = |worker| Action::Farewell { worker, delay, patience: Duration::from_secs(60) };
    assert!(actions.contains(&farewell(1)) && actions.contains(&farewell(2)), "{actions:?}");
    assert_eq!(drained(&actions), []);
    assert_eq!(bench.master.deadline(), Some(bench.now + Duration::from_secs(65)));
    let again = bench.command(Command::Stop);
    assert_eq!(drained(&again), [(1, DrainMode::Now), (2, DrainMode::Now)]);
    assert!(!again.contains(&Action::ReleaseListeners));
}

#[test]
fn a_server_that_stops_is_not_copied() {
    let mut bench = Bench::running(1);
    bench.command(Command::Stop);
    assert!(!bench.command(Command::Refork).contains(&Action::Refork));
}
