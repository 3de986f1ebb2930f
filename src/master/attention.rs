//! ● When the master looks at workers and listeners, and when it sleeps.
//!
//! While requests are worked on it looks once a turn (`check-interval`). After a turn without any it asks the
//! workers to tell of the next request, looks once more, for one that began in that moment, and sleeps: until a
//! worker tells, or until the time of `idle` is over. With workers too many it stays awake until they are gone.

use std::time::{Duration, Instant};

use super::event::Action;
use super::sample::Sample;
use super::state::{Master, Phase};

/// Looks without any request after which the master may sleep.
const QUIET_LOOKS: u32 = 2;

/// What the master knows of its last looks.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Attention {
    next: Option<Instant>,
    /// Since when nobody has done anything.
    quiet_since: Option<Instant>,
    /// Looks since then.
    quiet_looks: u32,
    /// Requests finished at the last look.
    requests: u64,
}

impl Master {
    /// When [`super::event::Event::Sampled`] is due; `None` while the master need not look.
    pub fn look_deadline(&self) -> Option<Instant> {
        self.attention.next.filter(|_| self.phase == Phase::Running)
    }

    fn turn(&self) -> Duration {
        self.policy.scaling.check_interval
    }

    /// Something may happen from now on.
    pub(super) fn attend(&mut self, now: Instant) {
        let next = now + self.turn();
        let attention = &mut self.attention;
        attention.quiet_since = None;
        attention.quiet_looks = 0;
        attention.next = Some(attention.next.map_or(next, |known| known.min(next)));
    }

    /// Acts on what was seen, and decides when to look again.
    pub(super) fn sampled(&mut self, now: Instant, sample: &Sample) {
        if self.phase != Phase::Running {
            return;
        }
        for (level, line) in self.queue_watch.look(now, &sample.queues) {
            self.log(level, line);
        }
        self.note_activity(now, sample);
        self.take_turn(now, sample);
        if let Some(since) = self.attention.quiet_since {
            self.rest_when_idle(now, since);
        }
        self.attention.next = self.next_look(now);
    }

    fn note_activity(&mut self, now: Instant, sample: &Sample) {
        let waiting = sample.waiting() > 0 && !self.paused;
        let attention = &mut self.attention;
        let active = sample.in_flight > 0 || sample.requests != attention.requests || waiting;
        attention.requests = sample.requests;
        if active {
            attention.quiet_since = None;
            attention.quiet_looks = 0;
            return;
        }
        attention.quiet_since.get_or_insert(now);
        attention.quiet_looks += 1;
        if attention.quiet_looks == 1 {
            self.push(Action::AwaitRequest);
        }
    }

    fn next_look(&self, now: Instant) -> Option<Instant> {
        let turn = now + self.turn();
        match self.attention.quiet_since {
            Some(since) if self.attention.quiet_looks >= QUIET_LOOKS && !self.may_shrink() => {
                self.idle_deadline(since).map(|at| at.max(turn))
            }
            _ => Some(turn),
        }
    }

    /// Wakes up when something other than a request has given it something to do.
    pub(super) fn stay_awake(&mut self, now: Instant) {
        if self.attention.next.is_none() && self.may_shrink() {
            self.attention.next = Some(now + self.turn());
        }
    }
}
