//! Requests that take longer than they may.

use super::*;

const LIMIT: Duration = Duration::from_secs(5);
const GRACE: Duration = Duration::from_secs(3);
const FIRST: Subject = Subject::Worker(1);

/// What a worker has written down; times are from now.
fn seen(bench: &Bench, worker: WorkerId, limit: Option<Duration>, due: &[(u32, i64)]) -> Seen {
    let at = |milliseconds: i64| match u64::try_from(milliseconds) {
        Ok(later) => bench.now + Duration::from_millis(later),
        Err(_) => bench.now - Duration::from_millis(milliseconds.unsigned_abs()),
    };
    Seen { worker, limit, due: due.iter().map(|(core, it)| Due { core: *core, at: at(*it) }).collect() }
}

fn sees(bench: &mut Bench, worker: WorkerId, due: &[(u32, i64)]) -> Vec<Action> {
    let seen = vec![seen(bench, worker, Some(LIMIT), due)];
    bench.step(Event::RequestsSeen { seen, waiting: None })
}

fn harakiri(core: u32, attempt: u32, graceful: bool) -> Why {
    Why::Harakiri { core, attempt, graceful }
}

#[test]
fn without_limits_the_clock_of_the_master_stands_still() {
    let mut bench = Bench::running(2);
    let nothing = vec![seen(&bench, 1, None, &[]), seen(&bench, 2, None, &[])];
    assert_eq!(bench.step(Event::RequestsSeen { seen: nothing, waiting: None }), []);
    assert_eq!(bench.master.deadline(), None);
}

#[test]
fn the_next_look_is_when_the_first_deadline_that_can_exist_is_due() {
    let mut bench = Bench::running(1);
    sees(&mut bench, 1, &[]);
    assert_eq!(bench.master.deadline(), Some(bench.now + LIMIT), "a request may have begun just now");
    assert_eq!(bench.later(LIMIT / 2), []);
    assert_eq!(bench.later(LIMIT / 2), [Action::LookAtRequests]);
    assert_eq!(bench.master.deadline(), None, "what is seen decides");
    sees(&mut bench, 1, &[(0, 700), (1, 1900)]);
    assert_eq!(bench.master.deadline(), Some(bench.now + Duration::from_millis(700)));
}

#[test]
fn a_worker_that_serves_without_a_limit_is_watched_once_the_application_sets_one() {
    let mut bench = Bench::running(1);
    let own = vec![seen(&bench, 1, None, &[(0, 2000)])];
    bench.step(Event::RequestsSeen { seen: own, waiting: None });
    assert_eq!(bench.later(Duration::from_secs(2)), [Action::LookAtRequests]);
    let ended = vec![seen(&bench, 1, None, &[])];
    bench.step(Event::RequestsSeen { seen: ended, waiting: None });
    assert_eq!(bench.master.deadline(), None);
}

#[test]
fn a_worker_is_killed_when_the_log_knows_why_and_replaced_at_once() {
    let mut bench = Bench::running(2);
    bench.now += Duration::from_secs(10);
    let pid = bench.pid_of(1);
    let actions = sees(&mut bench, 1, &[(0, 4000), (3, 0)]);
    assert_eq!(asked(&actions), [(FIRST, harakiri(3, 1, false))], "the request that is overdue is named");
    assert!(!kills(&actions, pid));
    assert_eq!(asked(&sees(&mut bench, 1, &[(3, -10)])), [], "it is asked once");
    assert!(kills(&bench.tells(1), pid));
    assert!(bench.logged("HARAKIRI triggered by worker 1 core 3 !!!"));
    let actions = bench.dies(pid, KILLED);
    assert_eq!(spawned(&actions), [3]);
    assert!(actions.iter().any(|it| matches!(it, Action::ReportDeath { slot: 1, reason: Some(_), .. })));
    assert_eq!(bench.master.causes().of(Cause::Harakiri), 1);
}

#[test]
fn who_does_not_answer_is_killed_all_the_same() {
    let mut bench = Bench::running(1);
    let pid = bench.pid_of(1);
    sees(&mut bench, 1, &[(0, -1)]);
    let until = bench.master.deadline().expect("patience has an end");
    assert!(until <= bench.now + Duration::from_secs(1));
    bench.now = until;
    assert!(bench.step(Event::Tick).contains(&Action::EndEvidence { subject: FIRST }));
    assert!(kills(&bench.tells(1), pid));
    // It hangs in the kernel: the signal is sent again, the log is not told again.
    let actions = bench.later(Duration::from_secs(1));
    assert!(kills(&actions, pid) && asked(&actions).is_empty(), "{actions:?}");
    bench.dies(pid, KILLED);
}

#[test]
fn a_request_that_ends_while_its_worker_is_asked_costs_nobody_anything() {
    let mut bench = Bench::running(1);
    let pid = bench.pid_of(1);
    sees(&mut bench, 1, &[(0, 0)]);
    let actions = bench.step(Event::EvidenceTaken { subject: FIRST, overdue: false });
    assert!(!kills(&actions, pid) && bench.logged("lives on"));
    assert_eq!(
        asked(&sees(&mut bench, 1, &[(0, 0)])),
        [(FIRST, harakiri(0, 1, false))],
        "the next is judged anew"
    );
}

#[test]
fn a_worker_that_dies_while_it_is_asked_is_replaced_like_any_other() {
    let mut bench = Bench::running(1);
    bench.now += Duration::from_secs(10);
    let pid = bench.pid_of(1);
    sees(&mut bench, 1, &[(0, 0)]);
    let actions = bench.dies(pid, KILLED);
    assert!(actions.contains(&Action::EndEvidence { subject: FIRST }));
    assert_eq!(spawned(&actions), [2]);
    assert_eq!(bench.tells(1), []);
    assert_eq!(bench.master.deadline().filter(|at| *at < bench.now + Duration::from_secs(2)), None);
}

#[test]
fn a_worker_that_drains_has_no_more_time_for_a_request_than_others() {
    let mut bench = Bench::surging();
    bench.worker_serves(3);
    bench.worker_serves(4);
    bench.step(Event::ReExecFailed { reason: String::new() });
    let pid = bench.pid_of(1);
    assert_eq!(asked(&sees(&mut bench, 1, &[(0, 0)])), [(FIRST, harakiri(0, 1, false))]);
    assert!(kills(&bench.tells(1), pid));
    assert_eq!(spawned(&bench.dies(pid, KILLED)), NOBODY);
    assert_eq!(bench.master.causes().of(Cause::Harakiri), 1);
}

#[test]
fn a_worker_that_is_asked_first_leaves_with_its_other_requests_while_its_successor_starts() {
    let mut bench =
        Bench::running_with(1, |policy| policy.harakiri_graceful = Some((GRACE, Signal::SIGTERM)));
    let pid = bench.pid_of(1);
    assert_eq!(asked(&sees(&mut bench, 1, &[(0, 0)])), [(FIRST, harakiri(0, 1, true))]);
    let actions = bench.tells(1);
    assert_eq!(drained(&actions), [(1, DrainMode::Handover)]);
    assert_eq!(spawned(&actions), [2]);
    assert!(!kills(&actions, pid));
    assert_eq!(asked(&sees(&mut bench, 1, &[(0, -100)])), [], "it has time");
    assert_eq!(bench.later(GRACE), [Action::LookAtRequests]);
    assert_eq!(asked(&sees(&mut bench, 1, &[(0, -3000)])), [(FIRST, harakiri(0, 2, false))]);
    assert!(kills(&bench.tells(1), pid));
    bench.dies(pid, KILLED);
    assert_eq!(bench.master.causes().of(Cause::Harakiri), 1);
}

#[test]
fn a_worker_that_was_asked_and_is_left_with_quick_requests_has_mercy() {
    let mut bench =
        Bench::running_with(1, |policy| policy.harakiri_graceful = Some((GRACE, Signal::SIGTERM)));
    sees(&mut bench, 1, &[(0, 0)]);
    bench.tells(1);
    bench.worker_serves(2);
    bench.later(GRACE);
    sees(&mut bench, 1, &[(1, 2000)]);
    assert_eq!(asked(&bench.later(Duration::from_secs(50))), []);
    assert_eq!(asked(&bench.later(Duration::from_secs(10))), [(FIRST, Why::Mercy)]);
}

#[test]
fn a_signal_for_the_application_keeps_the_worker_if_it_helps() {
    let signal = Signal::SIGUSR1;
    let mut bench = Bench::running_with(1, |policy| policy.harakiri_graceful = Some((GRACE, signal)));
    let pid = bench.pid_of(1);
    sees(&mut bench, 1, &[(0, 0)]);
    let actions = bench.tells(1);
    assert!(actions.contains(&Action::Kill { pid, signal }) && spawned(&actions).is_empty(), "{actions:?}");
    bench.later(GRACE);
    sees(&mut bench, 1, &[]);
    assert_eq!(asked(&sees(&mut bench, 1, &[(0, 0)])), [(FIRST, harakiri(0, 1, true))], "it was forgiven");
}

#[test]
fn a_server_whose_every_request_hangs_starts_no_worker_more_often_than_requests_may_last() {
    let mut bench = Bench::running(1);
    for worker in 1..=6 {
        bench.now += LIMIT;
        let pid = bench.pid_of(worker);
        sees(&mut bench, worker, &[(0, 0)]);
        bench.tells(worker);
        assert_eq!(spawned(&bench.dies(pid, KILLED)), [worker + 1], "clients wait for it");
        bench.worker_serves(worker + 1);
    }
    assert!(!bench.logged("too fast"));
}

#[test]
fn what_does_not_start_in_time_is_asked_where_it_is() {
    let mut bench = Bench::new(1);
    bench.step(Event::Start);
    let pid = bench.pid();
    bench.step(Event::ZygoteSpawned { generation: 1, pid });
    let zygote = Subject::Zygote(1);
    assert_eq!(asked(&bench.later(Duration::from_secs(10))), [(zygote, Why::BootTimeout)]);
    assert!(kills(&bench.step(Event::EvidenceTaken { subject: zygote, overdue: false }), pid));
    bench.dies(pid, KILLED);
    assert!(bench.logged("was not loaded within 10 s"));

    let mut bench = Bench::running(1);
    bench.now += Duration::from_secs(10);
    let pid = bench.pid_of(1);
    bench.dies(pid, KILLED);
    let late = bench.worker_forks(2);
    assert_eq!(asked(&bench.later(Duration::from_secs(10))), [(Subject::Worker(2), Why::BootTimeout)]);
    assert!(kills(&bench.tells(2), late));
    bench.dies(late, KILLED);
    assert_eq!(bench.master.causes().of(Cause::BootTimeout), 1);
}

#[test]
fn a_limit_is_kept_over_a_re_execution() {
    let mut bench = Bench::running(1);
    let pid = bench.pid_of(1);
    sees(&mut bench, 1, &[(0, 0)]);
    bench.re_executes();
    // The new image looks first of all.
    assert_eq!(asked(&sees(&mut bench, 1, &[(0, -20)])), [(FIRST, harakiri(0, 1, false))]);
    assert!(kills(&bench.tells(1), pid));
}

#[test]
fn a_request_that_holds_up_nobody_is_left_alone_until_it_does() {
    let mut bench = Bench::running_with(1, |policy| policy.harakiri_threshold = Some(3));
    let look = |bench: &mut Bench, waiting, due: &[(u32, i64)]| {
        let seen = vec![seen(bench, 1, Some(LIMIT), due)];
        bench.step(Event::RequestsSeen { seen, waiting })
    };
    for _ in 0..2 {
        assert_eq!(look(&mut bench, Some(2), &[(0, -1)]), []);
        assert_eq!(bench.later(Duration::from_secs(1)), [Action::LookAtRequests]);
    }
    let told = "Skipping harakiri on worker 1. Listen queue is smaller than the threshold (2 < 3)";
    assert_eq!(bench.lines.iter().filter(|line| line.contains(told)).count(), 1, "told once");
    look(&mut bench, Some(2), &[]);
    look(&mut bench, Some(0), &[(0, -1)]);
    assert!(bench.logged("(0 < 3)"), "another request");
    let evidence = |actions: &[Action]| actions.iter().any(|it| matches!(it, Action::TakeEvidence { .. }));
    assert!(evidence(&look(&mut bench, Some(3), &[(0, -1)])));
    let mut unknown = Bench::running_with(1, |policy| policy.harakiri_threshold = Some(3));
    assert!(evidence(&look(&mut unknown, None, &[(0, -1)])), "the kernel does not tell");
}
