//! The algorithms as tables of turns: what is seen on the left, the advice on the right.

use std::time::Duration;

use super::Change::{Fewer, More, Stay};
use super::*;

/// An algorithm and a clock of one turn a second.
struct Table {
    scaling: Scaling,
    memory: Memory,
    now: Instant,
    /// Seconds that each worker has spent in requests so far.
    busy_seconds: f64,
}

impl Table {
    fn new(algorithm: Algorithm, change: impl FnOnce(&mut Scaling)) -> Self {
        let mut scaling = Scaling { fewest: 1, algorithm, ..Scaling::default() };
        change(&mut scaling);
        Table { scaling, memory: Memory::default(), now: Instant::now(), busy_seconds: 0.0 }
    }

    /// One turn with `active` of 8 workers, of which some are full and some idle.
    fn turn(&mut self, active: u32, full: u32, idle: u32, waiting: u32) -> Change {
        self.advice(active, full, idle, waiting).change
    }

    fn advice(&mut self, active: u32, full: u32, idle: u32, waiting: u32) -> Advice {
        self.now += Duration::from_secs(1);
        let busy_micros = (self.busy_seconds * 1e6) as u64;
        let workers: Vec<_> = (1..=u64::from(active))
            .map(|worker| WorkerSample { worker, in_flight: 0, busy_micros })
            .collect();
        let room = 8 - active;
        let turn = Turn { now: self.now, active, room, full, idle, waiting, slots: 1, workers: &workers };
        self.memory.advise(&self.scaling, &turn)
    }

    /// A span of `cheaper-overload` seconds in which each worker is busy for this share of the time.
    fn span(&mut self, active: u32, percent: u32) -> Change {
        let seconds = self.scaling.overload;
        let mut said = Stay;
        for _ in 0..seconds {
            self.busy_seconds += f64::from(percent) / 100.0;
            let change = self.turn(active, 0, 0, 0);
            said = if change == Stay { said } else { change };
        }
        said
    }
}

#[test]
fn spare_adds_after_more_turns_than_overload_with_all_busy() {
    let mut table = Table::new(Algorithm::Spare, |it| it.step = 2);
    let turns: Vec<_> = (0..8).map(|_| table.turn(2, 2, 0, 0)).collect();
    assert_eq!(turns, [Stay, Stay, Stay, More(2), Stay, Stay, Stay, More(2)]);
    // A turn with one that is free takes one back.
    let mut table = Table::new(Algorithm::Spare, |_| {});
    let seen = [2, 2, 1, 2, 2, 2];
    let turns: Vec<_> = seen.into_iter().map(|full| table.turn(2, full, 2 - full, 0)).collect();
    assert_eq!(turns, [Stay, Stay, Stay, Stay, Stay, More(1)]);
}

#[test]
fn spare_sends_one_home_at_each_overload_idle_turns_and_keeps_one_in_reserve() {
    let mut table = Table::new(Algorithm::Spare, |_| {});
    let turns: Vec<_> = (0..6).map(|_| table.turn(4, 1, 3, 0)).collect();
    assert_eq!(turns, [Stay, Stay, Fewer, Stay, Stay, Fewer]);
    assert!((0..20).all(|_| table.turn(4, 3, 1, 0) == Stay), "exactly one idle is stable");
    assert!((0..20).all(|_| table.turn(4, 2, 0, 0) == Stay), "with slots left, but not idle");
    // Workers that start are not busy: what was asked for is on its way.
    assert!((0..20).all(|_| table.turn(4, 3, 0, 0) == Stay));
}

#[test]
fn spare2_keeps_as_many_in_reserve_as_cheaper_says() {
    let mut table = Table::new(Algorithm::Spare2, |it| (it.fewest, it.step, it.idle_turns) = (3, 2, 4));
    assert_eq!(table.turn(3, 1, 2, 0), More(1), "one is missing");
    assert_eq!(table.turn(3, 3, 0, 0), More(2), "three are missing, two are added at a time");
    let turns: Vec<_> = (0..5).map(|_| table.turn(6, 2, 4, 0)).collect();
    assert_eq!(turns, [Stay, Stay, Stay, Fewer, Stay]);
    assert_eq!(table.turn(6, 3, 3, 0), Stay);
    assert_eq!(table.turn(6, 2, 4, 0), Stay, "it begins to count anew");
}

#[test]
fn backlog_follows_the_listen_queue() {
    let mut table = Table::new(Algorithm::Backlog, |it| it.step = 2);
    let turns: Vec<_> = [4, 3, 2, 0, 9].into_iter().map(|waiting| table.turn(4, 4, 0, waiting)).collect();
    assert_eq!(turns, [More(2), Stay, Fewer, Fewer, More(2)]);
}

#[test]
fn manual_never_says_anything() {
    let mut table = Table::new(Algorithm::Manual, |_| {});
    assert!([(0, 4), (4, 0)].into_iter().all(|(full, idle)| table.turn(4, full, idle, 99) == Stay));
}

/// Busyness, measured for the first time.
fn busyness(change: impl FnOnce(&mut Scaling)) -> Table {
    let mut table = Table::new(Algorithm::Busyness, |it| {
        it.busyness.multiplier = 3;
        it.busyness.verbose = true;
        change(it);
    });
    assert_eq!(table.turn(4, 0, 0, 0), Stay);
    table
}

#[test]
fn busyness_adds_after_one_span_above_the_limit() {
    let mut table = busyness(|it| it.step = 2);
    assert_eq!(table.span(4, 51), More(2));
    assert_eq!(table.span(4, 50), Stay, "at the limit is not above it");
    assert_eq!(table.span(7, 90), More(1), "there is room for one");
    assert_eq!(table.span(8, 90), More(0));
}

#[test]
fn busyness_sends_one_home_after_many_spans_below_the_other_limit() {
    let mut table = busyness(|_| {});
    let spans: Vec<_> = [10, 10, 10, 10, 10, 10].into_iter().map(|it| table.span(4, it)).collect();
    assert_eq!(spans, [Stay, Stay, Fewer, Stay, Stay, Fewer]);
    assert!((0..9).all(|_| table.span(1, 10) == Stay), "there are no fewer than cheaper");
}

#[test]
fn three_spans_between_the_limits_begin_the_count_anew() {
    let mut table = busyness(|_| {});
    let spans: Vec<_> = [10, 10, 40, 40, 10].into_iter().map(|it| table.span(4, it)).collect();
    assert_eq!(spans, [Stay, Stay, Stay, Stay, Fewer], "two change nothing");
    let spans: Vec<_> = [10, 10, 40, 40, 40, 10, 10].into_iter().map(|it| table.span(4, it)).collect();
    assert_eq!(spans, [Stay; 7]);
    assert_eq!(table.span(4, 10), Fewer);
}

#[test]
fn who_was_sent_home_too_early_stays_longer_the_next_time() {
    let mut table = busyness(|_| {});
    let spans: Vec<_> = [10, 10, 10, 90].into_iter().map(|it| table.span(4, it)).collect();
    assert_eq!(spans, [Stay, Stay, Fewer, More(1)]);
    let spans: Vec<_> = (0..5).map(|_| table.span(4, 10)).collect();
    assert_eq!(spans, [Stay, Stay, Stay, Stay, Fewer], "two more");
    let spans: Vec<_> = (0..5).map(|_| table.span(4, 10)).collect();
    assert_eq!(spans, [Stay, Stay, Stay, Stay, Fewer], "that one was not missed");
    let spans: Vec<_> = (0..3).map(|_| table.span(4, 10)).collect();
    assert_eq!(spans, [Stay, Stay, Fewer]);
}

#[test]
fn clients_that_wait_are_an_emergency() {
    let mut table = busyness(|it| {
        it.busyness.backlog_step = 2;
        it.busyness.backlog_nonzero = 3;
        it.busyness.multiplier = 9;
        it.busyness.backlog_multiplier = 2;
    });
    let advice = table.advice(4, 4, 0, 34);
    assert_eq!(advice.change, More(2));
    let remark = "[busyness] 34 requests in listen queue, spawning 2 emergency worker(s) (2)";
    assert_eq!(advice.remark.as_deref(), Some(remark));
    assert_eq!(table.turn(4, 4, 0, 0), Stay);
    let turns: Vec<_> = (0..5).map(|_| table.turn(4, 4, 0, 1)).collect();
    let count = |wanted| turns.iter().filter(|it| **it == wanted).count();
    assert_eq!(count(More(1)), 1, "any that wait for three seconds");
    assert_eq!(table.turn(8, 8, 0, 99), Stay, "there are no more to be had");
    // These three leave sooner than others would.
    let fewer = count(Fewer) + (0..9).filter(|_| table.span(4, 0) == Fewer).count();
    assert_eq!(fewer, 3);
}

#[test]
fn the_log_is_told_what_is_measured_if_asked() {
    let mut table = busyness(|_| {});
    table.busy_seconds += 2.4;
    let remarks: Vec<_> = (0..3).filter_map(|_| table.advice(4, 0, 0, 0).remark).collect();
    assert_eq!(remarks, ["[busyness] 3s average busyness is at 80%, will spawn 1 new worker(s)"]);
}

#[test]
fn memory_has_the_last_word() {
    let scaling = Scaling { fewest: 1, rss_soft: 100, rss_hard: 200, ..Scaling::default() };
    let under = |rss, change, told: &mut bool| {
        within_memory(&scaling, rss, Advice::new(change, "because".into()), told)
    };
    let changes = |change| [99, 100, 199, 200].map(|rss| under(rss, change, &mut false).change);
    assert_eq!(changes(More(2)), [More(2), Stay, Stay, Fewer]);
    assert_eq!(changes(Stay), [Stay, Stay, Stay, Fewer]);
    let mut told = false;
    let remark = under(100, More(1), &mut told).remark.expect("it is told");
    assert!(remark.contains("although because") && remark.contains("cheaper-rss-limit-soft"), "{remark}");
    assert_eq!(
        [More(1), Stay, More(1)].map(|it| under(100, it, &mut told).remark),
        [None, None, None],
        "once"
    );
    under(99, Stay, &mut told);
    assert!(under(100, More(1), &mut told).remark.is_some(), "anew");
    let unlimited = Scaling { fewest: 1, ..Scaling::default() };
    let advice = Advice::new(More(2), String::new());
    assert_eq!(within_memory(&unlimited, u64::MAX, advice, &mut told).change, More(2));
}

/// Slots that are wanted after these steps of 4: `-N` gives up slot N, `-0` the highest, `1` adds one.
fn slots_after(steps: &[i32]) -> Vec<SlotId> {
    let mut master = crate::master::tests::four_workers();
    for step in steps {
        match step {
            1 => master.want_one_more(),
            0 => master.want_one_less(None),
            slot => master.want_one_less(Some(slot.unsigned_abs())),
        }
        assert_eq!(master.wanted_slots().count(), master.desired as usize);
        assert!((1..9).all(|slot| master.is_wanted(slot) == master.wanted_slots().any(|it| it == slot)));
    }
    master.wanted_slots().collect()
}

#[test]
fn slots_that_are_given_up_are_the_first_to_be_filled() {
    for (steps, expected) in [
        (&[-2][..], &[1, 3, 4][..]),
        (&[-2, -1], &[3, 4]),
        (&[-2, -1, 1], &[1, 3, 4]),
        (&[-2, -1, 1, 1], &[1, 2, 3, 4]),
        (&[-2, -4], &[1, 3]),
        (&[-2, -4, -3], &[1]),
        (&[-2, -4, -3, 1, 1], &[1, 2, 3]),
        (&[-1, 0], &[2, 3]),
        (&[-1, 0, 0], &[2]),
        (&[-1, 0, 0, 0, 0], &[]),
        (&[-1, 0, 0, 0, 1], &[1]),
        (&[-7], &[1, 2, 3]),
    ] {
        assert_eq!(slots_after(steps), expected, "{steps:?}");
    }
}
