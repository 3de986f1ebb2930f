//! ● `spare2`: as many workers with nothing to do as `cheaper` says, in reserve for a burst.

use crate::config::scaling::Scaling;

use super::{Advice, Change, Turn};

/// Turns with more in reserve than wanted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in crate::master) struct Spare2 {
    idle: u32,
}

impl Spare2 {
    /// At once as many as are missing, up to `cheaper-step`; one less at each `cheaper-idle` turns in a row with
    /// more than enough.
    pub(super) fn advise(&mut self, scaling: &Scaling, turn: &Turn<'_>) -> Advice {
        let spare = turn.active.saturating_sub(turn.full);
        if spare < scaling.fewest {
            self.idle = 0;
            let missing = scaling.fewest - spare;
            let reason = format!("{spare} of {} workers could take a request", turn.active);
            return Advice::new(Change::More(missing.min(scaling.step)), reason);
        }
        if turn.idle <= scaling.fewest {
            self.idle = 0;
            return Advice::stay();
        }
        self.idle += 1;
        if self.idle < scaling.idle_turns {
            return Advice::stay();
        }
        self.idle = 0;
        Advice::new(Change::Fewer, format!("{} workers have nothing to do", turn.idle))
    }
}
