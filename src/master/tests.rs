//! The policy, read like a log: events on the left, what the master asks for on the right.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use log::Level;

use crate::channel::DrainMode;
use crate::control::Command;
use crate::sys::process::{Exit, Pid, Signal};

use super::answer::{Answer, Doing, Outcome, Progress};
use super::event::{Action, Event};
use super::state::{Master, Phase, Policy};
use super::workers::{Generation, WorkerId};

mod rollback;

const KILLED: Exit = Exit::Signal { number: 9, core: false };
const LEFT: Exit = Exit::Code(0);
const NOBODY: [WorkerId; 0] = [];

/// A master with a clock of its own; log lines are kept apart from the other actions.
struct Bench {
    master: Master,
    now: Instant,
    lines: Vec<String>,
    next_pid: i32,
    /// What the configuration asks for when it is read next.
    next_policy: Policy,
}

impl Bench {
    fn new(processes: u32) -> Self {
        let policy = Policy {
            processes,
            threads: 1,
            mercy: Duration::from_secs(60),
            drain_delay: Duration::ZERO,
            boot_timeout: Duration::from_secs(10),
            need_app: false,
            snapshots: 0,
            snapshot_memory: None,
            preloaded: true,
        };
        Bench {
            next_policy: policy.clone(),
            master: Master::new(policy),
            now: Instant::now(),
            lines: Vec::new(),
            next_pid: 100,
        }
    }

    /// A master whose first generation serves.
    fn running(processes: u32) -> Self {
        let mut bench = Bench::new(processes);
        bench.step(Event::Start);
        bench.zygote_loads(1);
        for worker in 1..=u64::from(processes) {
            bench.worker_serves(worker);
        }
        assert_eq!(bench.master.phase(), Phase::Running);
        bench
    }

    fn step(&mut self, event: Event) -> Vec<Action> {
        let mut rest = Vec::new();
        for action in self.master.step(self.now, event) {
            match action {
                Action::Log(_, line) => self.lines.push(line),
                other => rest.push(other),
            }
        }
        rest
    }

    fn command(&mut self, command: Command) -> Vec<Action> {
        self.step(Event::Command(command))
    }

    fn pid(&mut self) -> Pid {
        self.next_pid += 1;
        Pid::from_raw(self.next_pid)
    }

    /// The zygote starts and loads; what the master then asks for.
    fn zygote_loads(&mut self, generation: Generation) -> Vec<Action> {
        let pid = self.pid();
        self.step(Event::ZygoteSpawned { generation, pid });
        let policy = self.next_policy.clone();
        self.step(Event::ZygoteLoaded { generation, policy })
    }

    fn worker_forks(&mut self, worker: WorkerId) -> Pid {
        let pid = self.pid();
        self.step(Event::WorkerForked { worker, pid });
        pid
    }

    fn worker_serves(&mut self, worker: WorkerId) -> Vec<Action> {
        self.worker_forks(worker);
        self.step(Event::WorkerReady { worker })
    }

    fn pid_of(&self, worker: WorkerId) -> Pid {
        self.master.workers().find(|(id, _)| *id == worker).and_then(|(_, it)| it.pid).expect("it was forked")
    }

    fn zygote_pid(&self, generation: Generation) -> Pid {
        self.master
            .zygotes()
            .find(|(it, _)| *it == generation)
            .and_then(|(_, it)| it.pid)
            .expect("it was spawned")
    }

    fn dies(&mut self, pid: Pid, exit: Exit) -> Vec<Action> {
        self.step(Event::ChildExited { pid, exit })
    }

    fn later(&mut self, duration: Duration) -> Vec<Action> {
        self.now += duration;
        self.step(Event::Tick)
    }

    fn logged(&self, words: &str) -> bool {
        self.lines.iter().any(|line| line.contains(words))
    }

    /// A reload up to the point where both new workers (3 and 4) have been asked for.
    fn surging() -> Self {
        let mut bench = Bench::running(2);
        assert_eq!(bench.command(Command::Reload), [Action::SpawnZygote { generation: 2 }]);
        assert_eq!(spawned(&bench.zygote_loads(2)), [3, 4]);
        bench
    }
}

/// The workers that these actions spawn.
fn spawned(actions: &[Action]) -> Vec<WorkerId> {
    let worker = |action: &Action| match action {
        Action::SpawnWorker { worker, .. } => Some(*worker),
        _ => None,
    };
    actions.iter().filter_map(worker).collect()
}

/// The workers that these actions drain, and how.
fn drained(actions: &[Action]) -> Vec<(WorkerId, DrainMode)> {
    let worker = |action: &Action| match action {
        Action::Drain { worker, mode, .. } => Some((*worker, *mode)),
        _ => None,
    };
    actions.iter().filter_map(worker).collect()
}

fn kills(actions: &[Action], pid: Pid) -> bool {
    actions.contains(&Action::Kill { pid, signal: Signal::SIGKILL })
}

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
    assert!(kills(&bench.later(Duration::from_secs(10)), pid));
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
    assert_eq!(bench.master.deadline(), Some(bench.now + Duration::from_millis(100)));
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
    assert!(kills(&actions, pid));
    assert!(actions.iter().any(|action| matches!(action, Action::ReportImpatience { slot: 1, .. })));
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
    assert!(kills(&bench.later(Duration::from_secs(1)), starting), "but it has nothing to finish");
    for pid in [bench.pid_of(1), bench.pid_of(2), bench.pid_of(3)] {
        bench.dies(pid, LEFT);
    }
    assert!(bench.dies(starting, KILLED).contains(&Action::Exit(0)));
}

#[test]
fn a_worker_that_begins_to_serve_as_it_is_told_to_leave_finishes_its_requests() {
    let mut bench = Bench::surging();
    let (fails, serves) = (bench.worker_forks(3), bench.worker_forks(4));
    assert_eq!(drained(&bench.dies(fails, KILLED)), [(4, DrainMode::Handover)]);
    bench.step(Event::WorkerReady { worker: 4 });
    assert!(!kills(&bench.later(Duration::from_secs(59)), serves));
    assert!(kills(&bench.later(Duration::from_secs(1)), serves), "mercy has an end");
}

#[test]
fn a_worker_told_to_leave_before_it_was_forked_leaves_when_it_is() {
    let mut bench = Bench::surging();
    let fails = bench.worker_forks(3);
    bench.dies(fails, KILLED);
    assert!(bench.later(Duration::from_secs(5)).is_empty(), "nothing to be done about it yet");
    let late = bench.worker_forks(4);
    assert!(kills(&bench.later(Duration::from_secs(1)), late));
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

#[test]
fn an_idle_master_has_no_deadline() {
    assert_eq!(Bench::running(4).master.deadline(), None);
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

/// Outcomes of the reloads so far, with the tickets they answer.
fn outcomes(answer: &Answer) -> Vec<(u64, u64, Outcome)> {
    answer.reloads.iter().map(|it| (it.id, it.ticket, it.outcome.clone())).collect()
}

#[test]
fn who_asked_hears_how_far_a_reload_is() {
    let mut bench = Bench::running(2);
    assert_eq!(bench.master.answer().reloads, []);
    bench.master.note_ticket(1);
    bench.command(Command::Reload);
    let progress = |prepared, ready| Some(Progress { prepared, ready, wanted: 2 });
    assert_eq!(bench.master.answer().progress, progress(false, 0));
    bench.zygote_loads(2);
    assert_eq!(bench.master.answer().progress, progress(true, 0));
    bench.worker_serves(3);
    assert_eq!(bench.master.answer().progress, progress(true, 1));
    bench.worker_serves(4);
    let answer = bench.master.answer();
    assert_eq!((answer.generation, answer.leaving), (2, 2));
    assert_eq!(outcomes(&answer), [(1, 1, Outcome::Serves)]);

    let saved = bench.master.save(bench.now, &[]);
    let text = serde_json::to_string(&saved).expect("it can be written");
    let saved = serde_json::from_str(&text).expect("it can be read");
    let next = Master::restore(saved, bench.next_policy.clone(), BTreeMap::new(), bench.now);
    assert_eq!(outcomes(&next.answer()), [(1, 1, Outcome::Complete { remark: None })]);
}

#[test]
fn who_asked_hears_why_the_old_generation_was_kept() {
    let mut bench = Bench::running(1);
    bench.command(Command::Reload);
    let pid = bench.pid();
    bench.step(Event::ZygoteSpawned { generation: 2, pid });
    bench.step(Event::ZygoteLoadFailed { generation: 2, reason: "SyntaxError".into(), code: 1 });
    bench.dies(pid, LEFT);
    let refused = Outcome::Refused { reason: "SyntaxError".into() };
    assert_eq!(outcomes(&bench.master.answer()), [(1, 0, refused)]);
    assert_eq!(bench.master.answer().generation, 1);
}

#[test]
fn a_newer_request_has_an_answer_of_its_own() {
    let mut bench = Bench::running(1);
    for ticket in 1..=2 {
        bench.master.note_ticket(ticket);
        bench.command(Command::Reload);
    }
    let expected = [(1, 1, Outcome::GaveWay), (2, 2, Outcome::Underway)];
    assert_eq!(outcomes(&bench.master.answer()), expected);
    // From now on the next one has to wait, and does not answer those who come meanwhile.
    bench.zygote_loads(3);
    bench.master.note_ticket(3);
    bench.command(Command::Reload);
    assert_eq!(outcomes(&bench.master.answer()), expected);
    bench.command(Command::Stop);
    let answer = bench.master.answer();
    assert_eq!(answer.doing, Doing::Stopping);
    assert_eq!(outcomes(&answer)[1], (2, 2, Outcome::Stopped));
}

#[test]
fn a_master_that_cannot_be_replaced_says_so_and_serves() {
    let mut bench = Bench::running(1);
    bench.command(Command::Reload);
    bench.zygote_loads(2);
    bench.worker_serves(2);
    bench.step(Event::ReExecFailed { reason: "no such file".into() });
    let outcome = &outcomes(&bench.master.answer())[0].2;
    assert!(matches!(outcome, Outcome::Complete { remark: Some(it) } if it.contains("no such file")));
}

#[test]
fn before_the_first_generation_serves_a_reload_has_not_begun() {
    let mut bench = Bench::new(1);
    bench.step(Event::Start);
    bench.command(Command::Reload);
    let answer = bench.master.answer();
    assert_eq!((answer.doing, answer.reloads), (Doing::Starting, vec![]));
}

#[test]
fn the_state_of_a_release_without_answers_is_taken_over() {
    let mut bench = Bench::running(1);
    bench.command(Command::Reload);
    bench.zygote_loads(2);
    bench.worker_serves(2);
    let mut saved = serde_json::to_value(bench.master.save(bench.now, &[])).expect("it can be written");
    saved.as_object_mut().and_then(|it| it.remove("journal")).expect("there is one");
    let saved = serde_json::from_value(saved).expect("it can be read");
    let next = Master::restore(saved, bench.next_policy.clone(), BTreeMap::new(), bench.now);
    assert_eq!((next.generation(), next.answer().reloads), (2, vec![]));
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
