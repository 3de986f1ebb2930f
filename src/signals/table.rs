//! ● Who gets which signal, and when the next one is due.
//!
//! Registrations belong to a generation: those of the one that serves count, those of the next one
//! wait until it serves. Workers that load the application themselves all register the same; what they
//! ask for until they are ready counts once.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use jiff::Zoned;
use serde::{Deserialize, Serialize};

use super::{Request, Schedule, Target, span};

type Generation = u64;
type WorkerId = u64;

/// Timers, schedules and watched files of a generation together.
const SOURCES: usize = 1024;
/// Signals that wait for a worker to be ready.
const PENDING: usize = 64;
/// Minutes that schedules are looked ahead: the clock may be set meanwhile.
const LOOK_AHEAD: i64 = 60;

/// Who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Origin {
    /// The zygote: every worker has inherited the function.
    Zygote,
    /// A worker that is not ready yet: the others ask for the same.
    Starting(WorkerId),
    /// A worker that serves.
    Serving(WorkerId),
}

/// A worker that signals can go to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Candidate {
    /// Its identity.
    pub worker: WorkerId,
    /// Its number.
    pub slot: u32,
    /// It has no request in flight.
    pub idle: bool,
}

/// What the table wants the master to do or say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Tell a worker to call the function of a signal.
    Deliver {
        /// Whom.
        worker: WorkerId,
        /// The signal.
        number: u8,
    },
    /// Watch these paths and no others; each with its signal.
    WatchOnly(Vec<(PathBuf, u8)>),
    /// Something for the log that the operator should see.
    Warn(String),
}

/// Requests of a generation that does not serve yet, as they travel to the next image.
pub type Waiting = Vec<(Origin, Request)>;

/// The table.
#[derive(Debug, Default)]
pub struct Signals {
    /// The generation that serves; 0 before the first.
    serving: Generation,
    waiting: BTreeMap<Generation, Waiting>,
    functions: BTreeMap<u8, Function>,
    timers: Vec<Timer>,
    crons: Vec<Cron>,
    watches: Vec<(PathBuf, u8)>,
    /// What was asked for at the start of the generation, so that it counts once.
    at_start: Vec<Request>,
    pending: VecDeque<u8>,
    /// Signals that the log knows to go nowhere.
    complained: BTreeSet<u8>,
    /// Whose turn it is among equals.
    turn: usize,
}

#[derive(Debug)]
struct Function {
    target: Target,
    /// The workers that have it; `None` is all.
    known_to: Option<BTreeSet<WorkerId>>,
}

#[derive(Debug)]
struct Timer {
    number: u8,
    every: Duration,
    due: Instant,
    /// Times it is still to be raised; `None` is without end.
    left: Option<u32>,
}

#[derive(Debug)]
struct Cron {
    number: u8,
    schedule: Schedule,
    due: Instant,
    /// The minute (since 1970) it was raised in last.
    last: Option<i64>,
}

impl Cron {
    fn arm(&mut self, now: Instant, wall: &Zoned) {
        let seconds = self.schedule.wait(wall, LOOK_AHEAD);
        // From the full second on: a fraction too early would be the minute before.
        self.due = now + Duration::from_secs(seconds.max(1).unsigned_abs());
    }
}

impl Signals {
    /// Takes up what the previous image has left.
    pub fn restore(waiting: BTreeMap<Generation, Waiting>) -> Self {
        Signals { waiting, ..Signals::default() }
    }

    /// What the next image, in which `generation` serves, has to know.
    pub fn save(&self, generation: Generation) -> BTreeMap<Generation, Waiting> {
        self.waiting.range(generation..).map(|(number, waiting)| (*number, waiting.clone())).collect()
    }

    /// The generation that serves; 0 before the first.
    pub fn serving(&self) -> Generation {
        self.serving
    }

    /// A generation older than the one that serves is about to serve again; its zygote has asked for this
    /// long ago.
    pub fn expect(&mut self, generation: Generation, requests: Vec<Request>) {
        let requests = requests.into_iter().map(|request| (Origin::Zygote, request)).collect();
        self.waiting.insert(generation, requests);
    }

    /// From now on `generation` serves: what it has registered takes the place of what was there.
    pub fn serve(&mut self, now: Instant, wall: &Zoned, generation: Generation) -> Vec<Effect> {
        if generation == self.serving {
            return Vec::new();
        }
        let (turn, pending) = (self.turn, std::mem::take(&mut self.pending));
        let had_watches = !self.watches.is_empty();
        let mut waiting = std::mem::take(&mut self.waiting).split_off(&generation);
        let requests = waiting.remove(&generation).unwrap_or_default();
        *self = Signals { serving: generation, waiting, turn, pending, ..Signals::default() };
        let mut effects = Vec::new();
        for (origin, request) in requests {
            effects.extend(self.take(now, wall, origin, request));
        }
        if had_watches && self.watches.is_empty() {
            effects.push(Effect::WatchOnly(Vec::new()));
        }
        effects
    }

    /// A process of `generation` asks for something.
    pub fn ask(
        &mut self,
        now: Instant,
        wall: &Zoned,
        generation: Generation,
        origin: Origin,
        request: Request,
    ) -> Vec<Effect> {
        if let Request::Raise { number } = request {
            // Numbers mean the same in all generations: one that leaves can still raise.
            self.raise(number);
            return Vec::new();
        }
        if generation < self.serving && !self.waiting.contains_key(&generation) {
            // It leaves; what it wants is the business of the new code.
            return Vec::new();
        }
        if generation == self.serving {
            return self.take(now, wall, origin, request);
        }
        let waiting = self.waiting.entry(generation).or_default();
        if waiting.len() < 2 * SOURCES {
            waiting.push((origin, request));
            return Vec::new();
        }
        vec![too_many(&request)]
    }

    fn take(&mut self, now: Instant, wall: &Zoned, origin: Origin, request: Request) -> Vec<Effect> {
        if let Request::Register { number, target } = request {
            self.register(origin, number, target);
            return Vec::new();
        }
        if !matches!(origin, Origin::Serving(_)) {
            if self.at_start.contains(&request) {
                return Vec::new();
            }
            self.at_start.push(request.clone());
        }
        if self.timers.len() + self.crons.len() + self.watches.len() >= SOURCES {
            return vec![too_many(&request)];
        }
        match request {
            Request::Timer { number, every_ms, times } => {
                let every = span(every_ms);
                self.timers.push(Timer {
                    number,
                    every,
                    due: now + every,
                    left: (times > 0).then_some(times),
                });
            }
            Request::Cron { number, schedule } => {
                let mut cron = Cron { number, schedule, due: now, last: None };
                cron.arm(now, wall);
                self.crons.push(cron);
            }
            Request::Watch { number, path } => {
                self.watches.push((path, number));
                return vec![Effect::WatchOnly(self.watches.clone())];
            }
            Request::Register { .. } | Request::Raise { .. } => {}
        }
        Vec::new()
    }

    fn register(&mut self, origin: Origin, number: u8, target: Target) {
        let function = self
            .functions
            .entry(number)
            .or_insert(Function { target: Target::Any, known_to: Some(BTreeSet::new()) });
        function.target = target;
        match (origin, &mut function.known_to) {
            (Origin::Zygote, known_to) => *known_to = None,
            (Origin::Starting(worker) | Origin::Serving(worker), Some(known_to)) => {
                known_to.insert(worker);
            }
            (_, None) => {}
        }
    }

    /// Puts a signal into the queue; [`Signals::deliver`] empties it.
    pub fn raise(&mut self, number: u8) {
        if self.pending.len() == PENDING {
            self.pending.pop_front();
        }
        self.pending.push_back(number);
    }

    /// When [`Signals::tick`] has something to do.
    pub fn deadline(&self) -> Option<Instant> {
        let timers = self.timers.iter().map(|timer| timer.due);
        timers.chain(self.crons.iter().map(|cron| cron.due)).min()
    }

    /// Raises what is due.
    pub fn tick(&mut self, now: Instant, wall: &Zoned) {
        let mut due = Vec::new();
        self.timers.retain_mut(|timer| {
            if timer.due > now {
                return true;
            }
            due.push(timer.number);
            timer.due += timer.every;
            if timer.due <= now {
                // The machine slept, or was too busy: what was missed is not made up for.
                timer.due = now + timer.every;
            }
            timer.left = timer.left.map(|left| left - 1);
            timer.left != Some(0)
        });
        let minute = wall.timestamp().as_second().div_euclid(60);
        for cron in self.crons.iter_mut().filter(|cron| cron.due <= now) {
            if cron.last != Some(minute) && cron.schedule.matches(wall.datetime()) {
                cron.last = Some(minute);
                due.push(cron.number);
            }
            cron.arm(now, wall);
        }
        for number in due {
            self.raise(number);
        }
    }

    /// True when signals wait for [`Signals::deliver`].
    pub fn is_pending(&self) -> bool {
        !self.pending.is_empty()
    }

    /// Hands the queue out to workers of the serving generation that are ready. Without any, it waits.
    pub fn deliver(&mut self, candidates: &[Candidate]) -> Vec<Effect> {
        if candidates.is_empty() {
            return Vec::new();
        }
        let pending = std::mem::take(&mut self.pending);
        pending.into_iter().flat_map(|number| self.route(number, candidates)).collect()
    }

    fn route(&mut self, number: u8, candidates: &[Candidate]) -> Vec<Effect> {
        let Some(function) = self.functions.get(&number) else {
            return self.complain(number, "was raised, and no function is registered for it");
        };
        let knows =
            |it: &&Candidate| function.known_to.as_ref().is_none_or(|known| known.contains(&it.worker));
        let able: Vec<&Candidate> = candidates.iter().filter(knows).collect();
        let deliver = |it: &&Candidate| Effect::Deliver { worker: it.worker, number };
        let effects: Vec<Effect> = match function.target {
            Target::All => able.iter().map(deliver).collect(),
            Target::Worker(slot) => able.iter().filter(|it| it.slot == slot).map(deliver).collect(),
            Target::Any => {
                let idle: Vec<&Candidate> = able.iter().copied().filter(|it| it.idle).collect();
                let choice = if idle.is_empty() { &able } else { &idle };
                self.turn = self.turn.wrapping_add(1);
                choice.get(self.turn % choice.len().max(1)).iter().copied().map(deliver).collect()
            }
            // Said when it was registered.
            Target::Nobody => return Vec::new(),
        };
        if effects.is_empty() {
            let reason = format!("has no worker to go to (target {:?})", function.target);
            return self.complain(number, &reason);
        }
        self.complained.remove(&number);
        effects
    }

    /// Says so once, until the signal finds somebody: a timer would fill the log.
    fn complain(&mut self, number: u8, reason: &str) -> Vec<Effect> {
        if !self.complained.insert(number) {
            return Vec::new();
        }
        vec![Effect::Warn(format!("signal {number} {reason}; it is dropped, and so are those that follow"))]
    }
}

fn too_many(request: &Request) -> Effect {
    Effect::Warn(format!(
        "{request:?} is not kept: the application has {SOURCES} timers and watched files already"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn wall(text: &str) -> Zoned {
        format!("2026-11-21T{text}+00:00[UTC]").parse().expect("a time")
    }

    fn register(number: u8, target: Target) -> Request {
        Request::Register { number, target }
    }

    fn timer(number: u8, times: u32) -> Request {
        Request::Timer { number, every_ms: 1000, times }
    }

    fn idle(worker: WorkerId) -> Candidate {
        Candidate { worker, slot: worker as u32, idle: true }
    }

    struct Bench {
        signals: Signals,
        now: Instant,
    }

    impl Bench {
        fn new() -> Self {
            let mut bench = Bench { signals: Signals::default(), now: Instant::now() };
            bench.serve(1);
            bench
        }

        fn serve(&mut self, generation: Generation) -> Vec<Effect> {
            self.signals.serve(self.now, &wall("06:30:00"), generation)
        }

        fn ask(&mut self, generation: Generation, origin: Origin, request: Request) -> Vec<Effect> {
            self.signals.ask(self.now, &wall("06:30:00"), generation, origin, request)
        }

        fn tick(&mut self, after: Duration) {
            self.now += after;
            self.signals.tick(self.now, &wall("06:30:00"));
        }

        /// (worker, signal) of what is delivered to workers 1 and 2.
        fn deliver(&mut self) -> Vec<(WorkerId, u8)> {
            let effects = self.signals.deliver(&[idle(1), idle(2)]);
            let delivered = effects.into_iter().filter_map(|effect| match effect {
                Effect::Deliver { worker, number } => Some((worker, number)),
                Effect::WatchOnly(_) | Effect::Warn(_) => None,
            });
            delivered.collect()
        }
    }

    #[test]
    fn a_signal_goes_to_whom_it_is_registered_for() {
        let mut bench = Bench::new();
        bench.ask(1, Origin::Zygote, register(1, Target::All));
        bench.ask(1, Origin::Zygote, register(2, Target::Worker(2)));
        bench.ask(1, Origin::Zygote, register(3, Target::Worker(9)));
        for number in [1, 2, 3] {
            bench.signals.raise(number);
        }
        assert_eq!(bench.deliver(), [(1, 1), (2, 1), (2, 2)]);
        bench.signals.raise(4);
        let effects = bench.signals.deliver(&[idle(1)]);
        assert!(matches!(&effects[..], [Effect::Warn(line)] if line.contains("no function is registered")));
    }

    #[test]
    fn a_signal_that_goes_nowhere_is_told_once() {
        let mut bench = Bench::new();
        let raise = |bench: &mut Bench| {
            bench.signals.raise(4);
            bench.signals.deliver(&[idle(1)])
        };
        assert!(matches!(raise(&mut bench)[..], [Effect::Warn(_)]));
        assert_eq!(raise(&mut bench), []);
        bench.ask(1, Origin::Zygote, register(4, Target::All));
        assert_eq!(raise(&mut bench), [Effect::Deliver { worker: 1, number: 4 }]);
        bench.ask(1, Origin::Zygote, register(4, Target::Worker(2)));
        assert!(matches!(raise(&mut bench)[..], [Effect::Warn(_)]));
    }

    #[test]
    fn one_worker_of_several_is_an_idle_one_and_they_take_turns() {
        let mut bench = Bench::new();
        bench.ask(1, Origin::Zygote, register(1, Target::Any));
        bench.signals.raise(1);
        bench.signals.raise(1);
        let mut workers: Vec<_> = bench.deliver().into_iter().map(|(worker, _)| worker).collect();
        workers.sort_unstable();
        assert_eq!(workers, [1, 2]);
        for _ in 0..3 {
            bench.signals.raise(1);
            let busy = Candidate { idle: false, ..idle(1) };
            assert_eq!(bench.signals.deliver(&[busy, idle(2)]), [Effect::Deliver { worker: 2, number: 1 }]);
        }
    }

    #[test]
    fn signals_wait_for_a_worker_and_only_the_newest_are_kept() {
        let mut bench = Bench::new();
        bench.ask(1, Origin::Zygote, register(7, Target::Worker(1)));
        (0..100).for_each(|_| bench.signals.raise(7));
        assert_eq!(bench.signals.deliver(&[]), []);
        assert!(bench.signals.is_pending());
        assert_eq!(bench.deliver().len(), PENDING);
        assert!(!bench.signals.is_pending());
    }

    #[test]
    fn a_function_that_one_worker_registered_is_called_there() {
        let mut bench = Bench::new();
        bench.ask(1, Origin::Serving(2), register(1, Target::All));
        bench.signals.raise(1);
        assert_eq!(bench.deliver(), [(2, 1)]);
        bench.ask(1, Origin::Starting(1), register(1, Target::All));
        bench.signals.raise(1);
        assert_eq!(bench.deliver(), [(1, 1), (2, 1)]);
    }

    #[test]
    fn timers_come_again_and_those_with_a_count_end() {
        let mut bench = Bench::new();
        bench.ask(1, Origin::Zygote, register(1, Target::Worker(1)));
        bench.ask(1, Origin::Zygote, timer(1, 2));
        assert_eq!(bench.signals.deadline(), Some(bench.now + SECOND));
        bench.tick(SECOND / 2);
        assert_eq!(bench.deliver(), []);
        bench.tick(SECOND / 2);
        assert_eq!(bench.deliver(), [(1, 1)]);
        bench.tick(10 * SECOND);
        assert_eq!(bench.deliver(), [(1, 1)], "what was missed is not made up for");
        assert_eq!(bench.signals.deadline(), None);
    }

    #[test]
    fn what_all_workers_ask_for_at_their_start_counts_once() {
        let mut bench = Bench::new();
        for worker in [1, 2, 3] {
            bench.ask(1, Origin::Starting(worker), timer(1, 1));
        }
        assert_eq!(bench.signals.timers.len(), 1);
        bench.tick(SECOND);
        bench.ask(1, Origin::Starting(4), timer(1, 1));
        assert_eq!(bench.signals.timers.len(), 0, "a respawned worker does not begin it again");
        bench.ask(1, Origin::Serving(1), timer(1, 1));
        bench.ask(1, Origin::Serving(2), timer(1, 1));
        assert_eq!(bench.signals.timers.len(), 2, "but those that serve mean it");
    }

    #[test]
    fn registrations_of_the_next_generation_wait_until_it_serves_and_then_are_alone() {
        let mut bench = Bench::new();
        bench.ask(1, Origin::Zygote, timer(1, 0));
        bench.ask(1, Origin::Zygote, Request::Watch { number: 1, path: "/a".into() });
        bench.ask(2, Origin::Zygote, register(2, Target::All));
        bench.ask(2, Origin::Zygote, timer(2, 0));
        let saved = bench.signals.save(2);
        bench.signals = Signals::restore(saved);
        bench.serve(2);
        bench.ask(1, Origin::Serving(1), timer(1, 0));
        bench.tick(SECOND);
        assert_eq!(bench.deliver(), [(1, 2), (2, 2)]);
        assert_eq!(bench.signals.save(2), BTreeMap::new());
    }

    #[test]
    fn a_generation_that_comes_back_has_the_registrations_of_its_zygote_and_of_its_new_workers() {
        let mut bench = Bench::new();
        bench.serve(2);
        bench.ask(2, Origin::Zygote, timer(2, 0));
        bench.ask(1, Origin::Starting(7), timer(3, 0));
        bench.signals.expect(1, vec![register(1, Target::All), timer(1, 0)]);
        bench.ask(1, Origin::Starting(1), register(4, Target::All));
        bench.ask(1, Origin::Starting(1), timer(4, 0));
        bench.serve(1);
        bench.tick(SECOND);
        assert_eq!(bench.deliver(), [(1, 1), (2, 1), (1, 4)]);
    }

    #[test]
    fn without_a_re_exec_the_new_generation_takes_over_as_well() {
        let mut bench = Bench::new();
        let watch = Request::Watch { number: 1, path: "/a".into() };
        assert_eq!(bench.ask(1, Origin::Zygote, watch), [Effect::WatchOnly(vec![("/a".into(), 1)])]);
        assert_eq!(bench.serve(2), [Effect::WatchOnly(Vec::new())]);
        assert_eq!(bench.serve(2), []);
    }

    #[test]
    fn a_schedule_is_raised_once_in_its_minute() {
        let mut bench = Bench::new();
        let schedule = Schedule::new([31, -1, -1, -1, -1]).expect("valid");
        bench.ask(1, Origin::Zygote, register(5, Target::Worker(1)));
        bench.ask(1, Origin::Zygote, Request::Cron { number: 5, schedule });
        assert_eq!(bench.signals.deadline(), Some(bench.now + 60 * SECOND));
        bench.now += 60 * SECOND;
        bench.signals.tick(bench.now, &wall("06:30:59.9"));
        assert_eq!(bench.deliver(), [], "the clock was set back a little");
        bench.now = bench.signals.deadline().expect("armed");
        bench.signals.tick(bench.now, &wall("06:31:00.1"));
        assert_eq!(bench.deliver(), [(1, 5)]);
        assert_eq!(bench.signals.deadline(), Some(bench.now + 3600 * SECOND));
    }

    #[test]
    fn there_is_a_bound_to_what_is_kept() {
        let mut bench = Bench::new();
        for _ in 0..SOURCES {
            assert_eq!(bench.ask(1, Origin::Serving(1), timer(1, 0)), []);
        }
        assert!(matches!(bench.ask(1, Origin::Serving(1), timer(1, 0))[..], [Effect::Warn(_)]));
    }
}
