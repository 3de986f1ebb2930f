//! ● `busyness`: by the share of time that workers spend in requests, over spans of `cheaper-overload` seconds.
//!
//! What is too much is answered after one span; a worker is sent home only after many spans of too little, and
//! after more of them each time that this turns out to have been too early. Clients that wait are answered
//! between the spans.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::config::scaling::Scaling;
use crate::master::workers::WorkerId;

use super::{Advice, Change, Turn};

/// Spans in a row between the limits after which too little has to last anew.
const CALM_SPANS: u32 = 3;

/// What was measured so far.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in crate::master) struct Busyness {
    /// When the span began, and each worker's time in requests then.
    span: Option<(Instant, BTreeMap<WorkerId, u64>)>,
    /// Spans with too little to do.
    low: u32,
    /// Spans in a row that were neither.
    calm: u32,
    /// Spans that `low` has to reach beyond those configured.
    penalty: u32,
    /// Spans since one was sent home; `None` when there was no need since, or none was.
    since_fewer: Option<u32>,
    /// Workers that were added because clients waited.
    emergency: u32,
    /// Since when clients wait.
    waiting_since: Option<Instant>,
}

impl Busyness {
    pub(super) fn advise(&mut self, scaling: &Scaling, turn: &Turn<'_>) -> Advice {
        let advice = self.look_at_queue(scaling, turn);
        if advice.change != Change::Stay {
            return advice;
        }
        let Some((begin, before)) = &self.span else {
            self.begin_span(turn);
            return advice;
        };
        let seconds = u64::from(scaling.overload);
        let length = turn.now.saturating_duration_since(*begin);
        if length < Duration::from_secs(seconds) {
            return advice;
        }
        let percent = average(turn, before, length);
        self.begin_span(turn);
        let (change, what) = self.judge(scaling, turn, percent);
        let reason = format!("{seconds}s average busyness is at {percent}%");
        let remark = scaling.busyness.verbose.then(|| format!("[busyness] {reason}, {what}"));
        Advice { change, reason, remark }
    }

    fn begin_span(&mut self, turn: &Turn<'_>) {
        let times = turn.workers.iter().map(|it| (it.worker, it.busy_micros)).collect();
        self.span = Some((turn.now, times));
    }

    fn look_at_queue(&mut self, scaling: &Scaling, turn: &Turn<'_>) -> Advice {
        let limits = &scaling.busyness;
        let waiting = turn.waiting;
        if waiting == 0 {
            self.waiting_since = None;
        }
        if waiting == 0 || turn.room == 0 {
            return Advice::stay();
        }
        let since = *self.waiting_since.get_or_insert(turn.now);
        let seconds = turn.now.saturating_duration_since(since).as_secs();
        let (count, reason) = if waiting > limits.backlog_alert {
            (limits.backlog_step.min(turn.room), format!("{waiting} requests in listen queue"))
        } else if seconds >= u64::from(limits.backlog_nonzero) {
            // For the next one they have to wait as long again.
            self.waiting_since = Some(turn.now);
            (1, format!("backlog was non-zero for {seconds} second(s)"))
        } else {
            return Advice::stay();
        };
        self.emergency += count;
        let remark = limits.verbose.then(|| {
            format!("[busyness] {reason}, spawning {count} emergency worker(s) ({})", self.emergency)
        });
        Advice { change: Change::More(count), reason, remark }
    }

    fn judge(&mut self, scaling: &Scaling, turn: &Turn<'_>, percent: u64) -> (Change, String) {
        let (limits, active) = (&scaling.busyness, turn.active);
        self.since_fewer = self.since_fewer.map(|spans| spans + 1);
        if percent > u64::from(limits.max) {
            if self.since_fewer.take().is_some_and(|spans| spans <= limits.multiplier) {
                self.penalty += limits.penalty;
            }
            (self.low, self.calm) = (0, 0);
            let count = scaling.step.min(turn.room);
            return (Change::More(count), format!("will spawn {count} new worker(s)"));
        }
        if percent >= u64::from(limits.min) {
            self.calm += 1;
            if self.calm >= CALM_SPANS {
                (self.low, self.calm) = (0, 0);
            }
            return (Change::Stay, format!("{active} running workers are enough"));
        }
        self.calm = 0;
        if active <= scaling.fewest {
            (self.low, self.emergency) = (0, 0);
            return (Change::Stay, format!("{active} running workers are the fewest"));
        }
        self.low += 1;
        let multiplier = if self.emergency > 0 { limits.backlog_multiplier } else { limits.multiplier };
        let wanted = multiplier + self.penalty;
        if self.low < wanted {
            return (Change::Stay, format!("need {} more cycles to cheap a worker", wanted - self.low));
        }
        if self.since_fewer.is_some_and(|spans| spans > limits.multiplier) {
            // The last one was not missed.
            self.penalty = 0;
        }
        self.low = 0;
        self.emergency = self.emergency.saturating_sub(1);
        self.since_fewer = Some(0);
        (Change::Fewer, format!("cheap one of {active} running workers"))
    }
}

/// Percent of the time that the workers have spent in requests; those that start have spent none.
fn average(turn: &Turn<'_>, before: &BTreeMap<WorkerId, u64>, length: Duration) -> u64 {
    let whole = (length.as_micros() as u64).max(1) * u64::from(turn.slots.max(1));
    let share = |worker: WorkerId, micros: u64| {
        let spent = micros.saturating_sub(before.get(&worker).copied().unwrap_or_default());
        (spent.saturating_mul(100) / whole).min(100)
    };
    let sum: u64 = turn.workers.iter().map(|it| share(it.worker, it.busy_micros)).sum();
    sum / u64::from(turn.active.max(1))
}
