//! How many workers there are: by the load, by order, and none at all.

use crate::config::scaling::Algorithm;

use super::super::sample::{Sample, WorkerSample};
use super::*;

const TURN: Duration = Duration::from_secs(1);

/// The workers that these actions send home.
fn going(actions: &[Action]) -> Vec<WorkerId> {
    drained(actions).into_iter().map(|(worker, _)| worker).collect()
}

impl Bench {
    /// Four workers at most and one at least, of which one runs.
    fn cheaper(change: impl Fn(&mut Policy)) -> Self {
        let mut bench = Bench::with(4, |policy| {
            policy.scaling.fewest = 1;
            policy.scaling.overload = 1;
            change(policy);
        });
        bench.step(Event::Start);
        for worker in spawned(&bench.zygote_loads(1)) {
            bench.worker_serves(worker);
        }
        assert_eq!(bench.master.phase(), Phase::Running);
        bench
    }

    /// A turn in which the workers named are busy; what the master asks for.
    fn turn(&mut self, busy: &[WorkerId]) -> Vec<Action> {
        self.now += TURN;
        assert!(self.is_due(), "the master sleeps");
        self.look(busy)
    }

    fn is_due(&self) -> bool {
        self.master.look_deadline().is_some_and(|at| at <= self.now)
    }

    fn look(&mut self, busy: &[WorkerId]) -> Vec<Action> {
        let ready = self.master.workers().filter(|(_, it)| it.is_ready());
        let of = |worker| WorkerSample { worker, in_flight: busy.contains(&worker).into(), busy_micros: 0 };
        let workers = ready.map(|(worker, _)| of(worker)).collect();
        let in_flight = busy.len() as u64;
        self.step(Event::Sampled(Sample { workers, in_flight, ..Sample::default() }))
    }

    /// Turns in which the workers named are busy, until something is asked for.
    fn turns(&mut self, busy: &[WorkerId]) -> Vec<Action> {
        for _ in 0..10 {
            self.now += TURN;
            if !self.is_due() {
                break;
            }
            let mut asked = self.look(busy);
            asked.retain(|it| *it != Action::AwaitRequest);
            if !asked.is_empty() {
                return asked;
            }
        }
        Vec::new()
    }

    fn slots(&self) -> Vec<u32> {
        let mut slots: Vec<_> =
            self.master.workers().filter(|(_, it)| !it.is_leaving()).map(|(_, it)| it.slot).collect();
        slots.sort_unstable();
        slots
    }
}

#[test]
fn workers_come_while_all_are_busy_and_the_oldest_idle_one_goes() {
    let mut bench = Bench::cheaper(|_| {});
    assert_eq!(bench.slots(), [1]);
    for expected in [2, 3, 4] {
        let busy: Vec<_> = bench.master.workers().map(|(id, _)| id).collect();
        let fresh = spawned(&bench.turns(&busy));
        assert_eq!(fresh, [expected]);
        bench.now += TURN;
        bench.worker_serves(expected);
    }
    assert!(bench.logged("cheaper (spare): all 3 workers are busy: 4 of 4 workers wanted"));
    // The first one works, the second is the oldest of those that do not.
    assert_eq!(going(&bench.turns(&[1])), [2]);
    assert!(bench.logged("3 workers have nothing to do: 3 of 4 workers wanted, worker 2 cheaped"));
    assert_eq!(bench.slots(), [1, 3, 4]);
    bench.leaves(2);
    assert_eq!(bench.master.causes().of(Cause::Cheaper), 1);
    assert_eq!(going(&bench.turns(&[1])), [3]);
    bench.leaves(3);
    // The lowest slots are filled first.
    assert_eq!(spawned(&bench.turns(&[1, 4])), [5]);
    assert_eq!(bench.slots(), [1, 2, 4]);
}

#[test]
fn a_worker_that_dies_is_replaced_and_one_that_was_sent_home_is_not() {
    let mut bench = Bench::cheaper(|policy| policy.scaling.initial = Some(3));
    assert_eq!(going(&bench.turns(&[2])), [1]);
    assert_eq!(bench.leaves(1), [Action::Retire { worker: 1, cell: 0 }]);
    let pid = bench.pid_of(3);
    assert_eq!(spawned(&bench.dies(pid, KILLED)), [4]);
    assert_eq!(bench.slots(), [2, 3]);
}

#[test]
fn nobody_looks_while_there_is_nothing_to_see() {
    let mut bench = Bench::cheaper(|policy| policy.scaling.initial = Some(3));
    assert_eq!(going(&bench.turns(&[])), [1]);
    assert_eq!(going(&bench.turns(&[])), [2]);
    bench.leaves(1);
    bench.leaves(2);
    assert_eq!(bench.turns(&[]), []);
    assert_eq!(bench.master.look_deadline(), None, "it sleeps at the minimum");
    bench.step(Event::RequestBegun);
    assert_eq!(bench.turn(&[3]), []);
    assert_eq!(bench.turn(&[]), [Action::AwaitRequest], "the first quiet turn");
    assert_eq!(bench.turn(&[]), []);
    assert_eq!(bench.master.look_deadline(), None);
    // More by hand than are needed are looked after.
    bench.command(Command::MoreWorkers);
    assert!(bench.master.look_deadline().is_some());
}

#[test]
fn with_cheaper_off_the_master_looks_once_more_after_the_last_request_and_sleeps() {
    let mut bench = Bench::running(2);
    assert_eq!(bench.turn(&[]), [Action::AwaitRequest]);
    assert_eq!(bench.turn(&[]), []);
    assert_eq!(bench.master.look_deadline(), None);
}

#[test]
fn a_reload_keeps_the_number_and_obeys_new_limits() {
    for (processes, fewest, expected) in [(4, 1, 2), (8, 1, 2), (4, 3, 3), (1, 0, 1), (6, 0, 6)] {
        let mut bench = Bench::cheaper(|policy| policy.scaling.initial = Some(3));
        assert_eq!(going(&bench.turns(&[2])), [1]);
        bench.leaves(1);
        assert_eq!(bench.slots(), [2, 3]);
        bench.next_policy.processes = processes;
        bench.next_policy.scaling.fewest = fewest;
        bench.command(Command::Reload);
        let fresh = spawned(&bench.zygote_loads(2));
        assert_eq!(fresh.len(), expected, "{processes} {fewest}");
        assert_eq!(bench.look(&[2, 3]), [], "nothing is decided meanwhile");
        let mut asked = Vec::new();
        for worker in fresh {
            asked = bench.worker_serves(worker);
        }
        assert_eq!(asked.last(), Some(&Action::ReExec));
        bench.re_executes();
        assert_eq!(bench.slots(), (1..=expected as u32).collect::<Vec<_>>());
        assert!(bench.master.look_deadline().is_some(), "the next image looks, too");
    }
}

#[test]
fn a_refused_reload_leaves_the_slots_as_they_were() {
    let mut bench = Bench::cheaper(|policy| {
        policy.scaling.initial = Some(3);
        policy.max_surge = Some(crate::config::reload::MaxSurge::Workers(1));
    });
    assert_eq!(going(&bench.turns(&[2])), [1]);
    bench.leaves(1);
    bench.command(Command::Reload);
    assert_eq!(spawned(&bench.zygote_loads(2)), [4]);
    bench.worker_forks(4);
    let pid = bench.pid_of(4);
    bench.dies(pid, KILLED);
    assert!(bench.logged("refused"));
    assert_eq!(bench.slots(), [2, 3]);
}

#[test]
fn a_pause_is_no_reason_to_send_anybody_home() {
    let mut bench = Bench::cheaper(|policy| {
        policy.scaling.initial = Some(3);
        policy.scaling.idle = Duration::from_secs(5);
    });
    bench.command(Command::Pause);
    bench.turn(&[]);
    bench.turn(&[]);
    assert_eq!((bench.master.look_deadline(), bench.slots().len()), (None, 3));
    bench.command(Command::Resume);
    assert_eq!(going(&bench.turns(&[])), [1]);
}

#[test]
fn by_hand_the_number_stays_between_cheaper_and_processes() {
    let mut bench = Bench::cheaper(|policy| {
        policy.scaling.fewest = 2;
        policy.scaling.algorithm = Algorithm::Manual;
    });
    assert_eq!(going(&bench.command(Command::FewerWorkers)), NOBODY);
    assert!(bench.logged("2 of 4 workers wanted: cannot change"));
    for expected in [3, 4] {
        assert_eq!(spawned(&bench.command(Command::MoreWorkers)), [expected]);
        bench.worker_serves(expected);
    }
    assert_eq!(spawned(&bench.command(Command::MoreWorkers)), NOBODY);
    assert_eq!(bench.turns(&[]), []);
    assert_eq!(going(&bench.command(Command::FewerWorkers)), [4]);
}

#[test]
fn cheap_begins_without_workers_and_the_first_client_brings_them() {
    let mut bench = Bench::with(4, |policy| policy.scaling.cheap = true);
    bench.step(Event::Start);
    assert_eq!(bench.zygote_loads(1), [Action::FirstGenerationServes, Action::WatchListeners(true)]);
    assert_eq!(bench.master.phase(), Phase::Running);
    // In a pause it waits, as clients of a paused worker do.
    let again = [Action::WatchListeners(false), Action::WatchListeners(true)];
    assert_eq!(bench.command(Command::Pause), again);
    assert_eq!(bench.step(Event::ConnectionWaiting), []);
    assert_eq!(bench.command(Command::Resume), again);
    let asked = bench.step(Event::ConnectionWaiting);
    assert_eq!(asked[0], Action::WatchListeners(false));
    assert_eq!(spawned(&asked), [1, 2, 3, 4]);
}

#[test]
fn to_go_cheap_waits_for_the_end_of_the_start() {
    let mut bench = Bench::with(1, |_| {});
    bench.step(Event::Start);
    bench.zygote_loads(1);
    assert_eq!(bench.command(Command::GoCheap), []);
    assert_eq!(going(&bench.worker_serves(1)), [1]);
    assert!(bench.master.is_watching());
}

#[test]
fn without_requests_all_go_home_after_the_time_and_not_before() {
    let mut bench = Bench::running_with(2, |policy| policy.scaling.idle = Duration::from_secs(10));
    bench.turn(&[]);
    bench.turn(&[]);
    let deadline = bench.master.look_deadline().expect("it has something to wait for");
    assert_eq!(deadline - bench.now, Duration::from_secs(9), "one look at the end");
    bench.now = deadline;
    let asked = bench.look(&[]);
    assert_eq!(going(&asked), [1, 2]);
    assert!(asked.contains(&Action::WatchListeners(true)));
    assert!(bench.logged("workers have been inactive for more than 10 seconds"));
    assert_eq!(bench.leaves(1).len() + bench.leaves(2).len(), 2);
    assert_eq!(bench.master.causes().of(Cause::Idle), 2);
    assert_eq!(bench.master.look_deadline(), None);
    assert_eq!(spawned(&bench.step(Event::ConnectionWaiting)), [3, 4]);
}

#[test]
fn a_request_begins_the_time_anew() {
    let mut bench = Bench::running_with(1, |policy| policy.scaling.idle = Duration::from_secs(10));
    bench.turn(&[]);
    bench.turn(&[]);
    bench.now += Duration::from_secs(8);
    bench.step(Event::RequestBegun);
    for _ in 0..20 {
        assert_eq!(bench.turn(&[1]), [], "a request that takes long is none");
    }
    bench.turn(&[]);
    bench.turn(&[]);
    let left = bench.master.look_deadline().expect("it waits") - bench.now;
    assert_eq!(left, Duration::from_secs(9));
}

#[test]
fn a_server_that_dies_when_idle_stops_in_good_order() {
    for cheap in [false, true] {
        let mut bench = Bench::with(1, |policy| {
            policy.scaling.idle = Duration::from_secs(2);
            policy.scaling.die_on_idle = true;
            policy.scaling.cheap = cheap;
        });
        bench.step(Event::Start);
        for worker in spawned(&bench.zygote_loads(1)) {
            bench.worker_serves(worker);
        }
        bench.turn(&[]);
        bench.turn(&[]);
        bench.turn(&[]);
        assert!(matches!(bench.master.phase(), Phase::Stopping { code: 0, forced: false }), "cheap: {cheap}");
    }
}
