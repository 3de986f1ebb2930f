//! ● What each slot has seen: how its last worker ended, and what keeps it from having one now.

use std::fmt;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::cause::Cause;
use crate::channel::headline;
use crate::sys::process::Exit;

use super::state::Master;
use super::workers::{SlotId, Worker};

/// Slots that are told of; the memory for answers is limited.
const TOLD: usize = 128;
/// Bytes kept of a reason.
const REASON_BYTES: usize = 200;

/// How a worker has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct End {
    cause: Cause,
    /// The cause, and what the end adds to it.
    told: String,
    /// What the master knows beyond that.
    reason: Option<String>,
    at: Instant,
}

/// The end of a worker as it travels.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SavedEnd {
    slot: SlotId,
    cause: Cause,
    told: String,
    #[serde(default)]
    reason: Option<String>,
    ago_ms: u64,
}

/// What those who ask are told of a slot.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SlotStanding {
    /// Which.
    pub slot: SlotId,
    /// Why its last worker ended; empty if none has.
    pub ended: String,
    /// The same in a word.
    pub cause: Cause,
    /// CLOCK_REALTIME milliseconds of that end; 0 if none has.
    pub ended_at: u64,
    /// It has no worker that serves, and why.
    pub degraded: Option<Degraded>,
}

/// Why a slot has no worker that serves.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Degraded {
    /// Tries in a row that have failed.
    pub failures: u32,
    /// What came of the last one.
    pub reason: String,
    /// What comes next.
    pub next: NextTry,
}

/// When a slot that is degraded gets its next worker.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "is")]
pub enum NextTry {
    /// A worker is on its way.
    Underway,
    /// At this time.
    At {
        /// CLOCK_REALTIME milliseconds.
        at: u64,
    },
    /// Others come first: one is tried at a time.
    InTurn,
    /// When there is a zygote to fork it.
    WithZygote,
    /// A word of another release.
    #[default]
    #[serde(other)]
    Unknown,
}

impl Master {
    /// Remembers how the last worker of a slot ended.
    pub(super) fn note_end(
        &mut self,
        now: Instant,
        slot: SlotId,
        cause: Cause,
        exit: Option<Exit>,
        reason: Option<&str>,
    ) {
        // It may be the application's text, and is shown on terminals.
        let bounded = |reason: &str| {
            let line: String =
                headline(reason).chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
            line[..line.floor_char_boundary(REASON_BYTES)].to_owned()
        };
        let end = End { cause, told: cause.told(exit), reason: reason.map(bounded), at: now };
        self.ends.insert(slot, end);
    }

    /// What to tell of the slots: first those that are degraded, then those of which a worker ended last.
    /// `clock` turns an instant into milliseconds of CLOCK_REALTIME.
    pub fn slot_standings(&self, clock: impl Fn(Instant) -> u64) -> Vec<SlotStanding> {
        let degraded = self.wanted_slots().filter(|slot| self.is_degraded(*slot));
        let mut slots: Vec<SlotId> = degraded.take(TOLD).collect();
        let mut ended: Vec<(&SlotId, &End)> =
            self.ends.iter().filter(|(slot, _)| !slots.contains(slot)).collect();
        ended.sort_by_key(|(_, end)| std::cmp::Reverse(end.at));
        slots.extend(ended.into_iter().map(|(slot, _)| *slot));
        slots.truncate(TOLD);
        slots.into_iter().map(|slot| self.slot_standing(slot, &clock)).collect()
    }

    fn slot_standing(&self, slot: SlotId, clock: &impl Fn(Instant) -> u64) -> SlotStanding {
        let degraded = self.is_degraded(slot).then(|| self.degraded(slot, clock));
        match self.ends.get(&slot) {
            Some(end) => SlotStanding {
                slot,
                ended: end.told.clone(),
                cause: end.cause,
                ended_at: clock(end.at),
                degraded,
            },
            None => SlotStanding { slot, degraded, ..SlotStanding::default() },
        }
    }

    /// True for a slot without a worker that serves, which is more than the moment it takes to start one.
    pub(super) fn is_degraded(&self, slot: SlotId) -> bool {
        let serves = |it: &Worker| it.slot == slot && it.is_ready();
        let trouble = self.short_lives(slot) > 1 || self.lacks_zygote();
        trouble && !self.stopping() && !self.waits_for_old_workers() && !self.workers.values().any(serves)
    }

    /// The zygote of the serving generation is lost, and the next one is not there yet.
    fn lacks_zygote(&self) -> bool {
        !self.can_fork() && self.zygote_throttle.short_lives() > 0
    }

    fn degraded(&self, slot: SlotId, clock: &impl Fn(Instant) -> u64) -> Degraded {
        let end = self.ends.get(&slot);
        let reason = end.map_or_else(
            || "its zygote is lost".to_owned(),
            |end| match &end.reason {
                Some(reason) => format!("{}: {reason}", end.told),
                None => end.told.clone(),
            },
        );
        let next = match self.next_start(slot) {
            _ if self.candidate(slot).is_some() => NextTry::Underway,
            _ if !self.can_fork() => NextTry::WithZygote,
            Some(at) => NextTry::At { at: clock(at) },
            None => NextTry::InTurn,
        };
        Degraded { failures: self.short_lives(slot), reason, next }
    }

    pub(super) fn save_ends(&self, now: Instant) -> Vec<SavedEnd> {
        let saved = |(slot, end): (&SlotId, &End)| SavedEnd {
            slot: *slot,
            cause: end.cause,
            told: end.told.clone(),
            reason: end.reason.clone(),
            ago_ms: now.saturating_duration_since(end.at).as_millis() as u64,
        };
        self.ends.iter().map(saved).collect()
    }

    pub(super) fn restore_ends(&mut self, now: Instant, saved: Vec<SavedEnd>) {
        let restored = saved.into_iter().map(|it| {
            let at = now.checked_sub(Duration::from_millis(it.ago_ms)).unwrap_or(now);
            (it.slot, End { cause: it.cause, told: it.told, reason: it.reason, at })
        });
        self.ends = restored.collect();
    }
}

impl SlotStanding {
    /// What a worker's line says of the one before it, if there was one.
    pub fn before(&self, now_ms: u64) -> Option<String> {
        (self.ended_at > 0).then(|| {
            format!("before it: {} {} s ago", self.ended, now_ms.saturating_sub(self.ended_at) / 1000)
        })
    }

    /// The line of a slot that is degraded.
    pub fn trouble(&self, now_ms: u64) -> Option<String> {
        let Degraded { failures, reason, next } = self.degraded.as_ref()?;
        let next = match next {
            NextTry::Underway => "the next one is starting".to_owned(),
            NextTry::At { at } => {
                format!("next try in {:.1} s", at.saturating_sub(now_ms) as f64 / 1000.0)
            }
            NextTry::InTurn => "one is tried at a time, and others come first".to_owned(),
            NextTry::WithZygote => "next try when there is a zygote again".to_owned(),
            NextTry::Unknown => "the log tells what comes next".to_owned(),
        };
        let times = match failures {
            0 | 1 => String::new(),
            times => format!(" {times} times in a row"),
        };
        Some(format!("worker {} is degraded: it failed{times}, last by {reason}; {next}", self.slot))
    }
}

/// What the service manager's status says of degraded slots; nothing if there is none.
pub struct Trouble<'a>(pub &'a [SlotStanding]);

impl fmt::Display for Trouble<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut degraded = self.0.iter().filter_map(|it| Some((it.slot, it.degraded.as_ref()?)));
        let Some((slot, first)) = degraded.next() else { return Ok(()) };
        write!(f, "; degraded: worker {slot}")?;
        match degraded.count() {
            0 => {}
            1 => write!(f, " and another one")?,
            more => write!(f, " and {more} others")?,
        }
        write!(f, " cannot be kept up ({})", first.reason)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn degraded(next: NextTry) -> SlotStanding {
        let degraded = Degraded { failures: 5, reason: "crash (SIGABRT)".into(), next };
        SlotStanding {
            slot: 3,
            ended: "crash (SIGABRT)".into(),
            cause: Cause::Crash,
            ended_at: 10_000,
            degraded: Some(degraded),
        }
    }

    #[test]
    fn a_slot_tells_how_its_last_worker_ended_and_when_the_next_one_comes() {
        let slot = degraded(NextTry::At { at: 14_300 });
        assert_eq!(slot.before(13_500).as_deref(), Some("before it: crash (SIGABRT) 3 s ago"));
        assert_eq!(
            slot.trouble(13_500).as_deref(),
            Some(
                "worker 3 is degraded: it failed 5 times in a row, last by crash (SIGABRT); next try in 0.8 s"
            )
        );
        let fresh = SlotStanding { slot: 1, ..SlotStanding::default() };
        assert_eq!((fresh.before(1), fresh.trouble(1)), (None, None));
    }

    #[test]
    fn the_trouble_of_many_is_told_in_a_few_words() {
        let text = |slots: &[SlotStanding]| Trouble(slots).to_string();
        assert_eq!(text(&[SlotStanding::default()]), "");
        let one = degraded(NextTry::InTurn);
        assert_eq!(
            text(std::slice::from_ref(&one)),
            "; degraded: worker 3 cannot be kept up (crash (SIGABRT))"
        );
        assert!(text(&[one.clone(), one.clone()]).contains("worker 3 and another one cannot"));
        assert!(text(&[one.clone(), one.clone(), one]).contains("worker 3 and 2 others cannot"));
    }

    #[test]
    fn words_of_other_releases_are_no_errors() {
        let text = r#"{"slot":2,"cause":"boredom","degraded":{"next":{"is":"Tomorrow"}}}"#;
        let slot: SlotStanding = serde_json::from_str(text).expect("understood");
        assert_eq!((slot.cause, slot.degraded.map(|it| it.next)), (Cause::Unknown, Some(NextTry::Unknown)));
    }
}
