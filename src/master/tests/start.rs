//! The first start.

use super::*;

#[test]
fn a_start_loads_first_and_forks_then() {
    let mut bench = Bench::new(2);
    assert_eq!(bench.step(Event::Start), [Action::SpawnZygote { generation: 1 }]);
    assert_eq!(spawned(&bench.zygote_loads(1)), [1, 2]);
    assert_eq!(bench.worker_serves(1), []);
    assert_eq!(bench.worker_serves(2), [Action::FirstGenerationServes]);
    assert_eq!(bench.master.phase(), Phase::Running);
}

#[test]
fn an_application_that_does_not_load_ends_a_first_start_with_its_code() {
    let mut bench = Bench::new(2);
    bench.step(Event::Start);
    let pid = bench.pid();
    bench.step(Event::ZygoteSpawned { generation: 1, pid });
    let actions = bench.step(Event::ZygoteLoadFailed { generation: 1, reason: "no module".into(), code: 22 });
    assert!(kills(&actions, pid));
    assert!(bench.dies(pid, KILLED).contains(&Action::Exit(22)));
    assert!(bench.logged("cannot start: no module"));
}

#[test]
fn workers_that_never_become_ready_end_a_first_start_after_three_tries() {
    let mut bench = Bench::new(1);
    bench.step(Event::Start);
    let mut actions = bench.zygote_loads(1);
    for worker in 1..=3 {
        assert_eq!(spawned(&actions), [worker]);
        let pid = bench.worker_forks(worker);
        actions = bench.dies(pid, Exit::Code(1));
        if worker < 3 && spawned(&actions).is_empty() {
            actions = bench.later(Duration::from_secs(1));
        }
    }
    let zygote = bench.zygote_pid(1);
    assert!(bench.dies(zygote, KILLED).contains(&Action::Exit(1)));
}

#[test]
fn commands_during_the_start_wait_for_its_end() {
    let mut bench = Bench::new(1);
    bench.step(Event::Start);
    assert_eq!(bench.command(Command::Reload), []);
    bench.zygote_loads(1);
    assert_eq!(
        bench.worker_serves(1),
        [Action::FirstGenerationServes, Action::SpawnZygote { generation: 2 }]
    );
}

#[test]
fn an_idle_master_has_no_deadline() {
    assert_eq!(Bench::running(4).master.deadline(), None);
}
