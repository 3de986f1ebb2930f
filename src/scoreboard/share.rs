//! How a worker's connections compare with those of the other workers of its generation.

use super::{Scoreboard, WorkerState};

/// Connections of one worker and of all that serve beside it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    own: u64,
    total: u64,
    workers: u64,
}

impl Share {
    /// Reads the figures of the scoreboard. They are a moment old, which is good enough for balance.
    pub fn of(scoreboard: &Scoreboard, cell: usize) -> Self {
        let own = scoreboard.cell(cell);
        let mut share = Share { own: own.connections(), total: own.connections(), workers: 1 };
        for other in scoreboard.used_cells().filter(|other| *other != cell) {
            let other = scoreboard.cell(other);
            // Those that are too busy to accept, too: they have their share.
            let serves = matches!(other.state(), WorkerState::Idle | WorkerState::Busy);
            if serves && other.generation() == own.generation() {
                share.total += other.connections();
                share.workers += 1;
            }
        }
        share
    }

    /// True when a worker holds so many that it should leave new clients to the others for a moment.
    ///
    /// Far above the mean only: with short connections the counts swing, and a worker that waits
    /// while the others are busy is a processor that idles.
    pub fn far_above_mean(self) -> bool {
        self.own * self.workers > 2 * self.total + self.workers
    }

    /// How many connections are too many here, when the difference is worth moving any.
    pub fn surplus(self) -> u64 {
        if self.own * self.workers <= self.total + self.workers {
            return 0;
        }
        self.own - self.total.div_ceil(self.workers)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn share(own: u64, total: u64, workers: u64) -> Share {
        Share { own, total, workers }
    }

    #[test]
    fn a_difference_of_one_is_not_worth_moving() {
        assert_eq!(share(2, 4, 4).surplus(), 0);
        assert_eq!(share(9, 33, 4).surplus(), 0);
        assert_eq!(share(10, 32, 4).surplus(), 2);
        assert_eq!(share(32, 32, 4).surplus(), 24);
    }

    #[test]
    fn a_lone_worker_has_no_surplus_and_waits_for_nobody() {
        for own in [0, 1, 100] {
            let alone = share(own, own, 1);
            assert_eq!((alone.surplus(), alone.far_above_mean()), (0, false));
        }
    }

    #[test]
    fn of_two_workers_neither_is_ever_far_above() {
        assert!((0..=64).all(|own| !share(own, 64, 2).far_above_mean()));
        assert!(share(30, 40, 4).far_above_mean());
    }

    #[test]
    fn who_is_too_busy_to_accept_has_its_share() {
        let scoreboard = Scoreboard::create().expect("memory files exist");
        for (cell, state, connections) in
            [(0, WorkerState::Busy, 60), (1, WorkerState::Idle, 4), (2, WorkerState::Draining, 9)]
        {
            scoreboard.note_use(cell);
            scoreboard.cell(cell).set_state(state);
            scoreboard.cell(cell).set_connections(connections);
            scoreboard.cell(cell).set_accepting(u64::from(state == WorkerState::Idle));
        }
        assert_eq!(Share::of(&scoreboard, 0), share(60, 64, 2));
        assert_eq!(Share::of(&scoreboard, 1), share(4, 64, 2));
    }
}
