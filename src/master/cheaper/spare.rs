//! ● `spare`: when all are busy, more; when several have nothing to do, fewer.

use crate::config::scaling::Scaling;

use super::{Advice, Change, Turn};

/// Turns of a kind so far.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in crate::master) struct Spare {
    /// Turns with all workers busy, less those without.
    overloaded: u32,
    /// Turns with more idle workers than it needs.
    idle: u32,
}

impl Spare {
    /// More after `cheaper-overload` turns in which all were busy; one less at each that many turns in which
    /// none was missed. Exactly one that is idle is what this algorithm is after.
    pub(super) fn advise(&mut self, scaling: &Scaling, turn: &Turn<'_>) -> Advice {
        if turn.full >= turn.active {
            self.overloaded += 1;
            self.idle = 0;
            if self.overloaded <= scaling.overload {
                return Advice::stay();
            }
            self.overloaded = 0;
            return Advice::new(Change::More(scaling.step), format!("all {} workers are busy", turn.active));
        }
        self.overloaded = self.overloaded.saturating_sub(1);
        if self.overloaded > 0 || turn.idle <= 1 {
            return Advice::stay();
        }
        self.idle += 1;
        if self.idle < scaling.overload {
            return Advice::stay();
        }
        self.idle = 0;
        Advice::new(Change::Fewer, format!("{} workers have nothing to do", turn.idle))
    }
}
