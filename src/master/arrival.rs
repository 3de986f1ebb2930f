//! ● `reload-mode = drain`: the new workers start when no old one runs the application any more.
//!
//! The reload is decided before: the application is loaded, the old workers have been told to leave.
//! What is left is to wait, to start, and to start again whatever does not succeed.

use log::Level;

use super::answer::{Kind, Outcome};
use super::state::Master;
use super::supervision::HOPELESS;

/// A reload whose new generation is in charge and does not serve yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Arrival {
    /// What it is.
    pub kind: Kind,
    /// Number of the reload.
    pub id: u64,
    /// What an operator should know when it is complete: the image of the master is still the old one.
    pub remark: Option<String>,
}

impl Master {
    /// True while a worker of an older generation runs the application, and newer ones have to wait.
    pub(super) fn waits_for_old_workers(&self) -> bool {
        let old = |it: &super::workers::Worker| it.generation != self.generation && !it.quiet;
        self.arrival.is_some() && self.workers.values().any(old)
    }

    /// The reload is complete once all its workers accept.
    pub(super) fn check_arrival(&mut self) {
        if self.arrival.is_none() || self.waits_for_old_workers() || !self.all_ready() {
            return;
        }
        let Some(Arrival { kind, id, remark }) = self.arrival.take() else { return };
        self.log(Level::Info, self.completion(kind, id));
        self.journal.settle(id, Outcome::Complete { remark });
    }

    /// A new worker or its zygote has died: after a few times in a row those who wait are told.
    pub(super) fn arrival_fails(&mut self, short_lives: u32, reason: &str) {
        if short_lives < HOPELESS {
            return;
        }
        let Some((kind, id)) = self.arrival.as_ref().map(|it| (it.kind, it.id)) else { return };
        let line = format!(
            "{kind} {id}: the old workers have left and the new ones do not start: {}; trying on, until they do or \
             another reload replaces this one",
            crate::channel::headline(reason)
        );
        self.log(Level::Error, line);
        self.journal.fail(id, reason);
    }

    /// The line that says that a reload is complete.
    pub(super) fn completion(&self, kind: Kind, id: u64) -> String {
        let leaving = self.workers.values().filter(|it| it.is_leaving()).count();
        let serving = self.workers.values().filter(|it| it.is_ready()).count();
        let generation = self.generation;
        format!(
            "{kind} {id} complete: generation {generation} serves with {serving} workers, {leaving} old ones finish \
             their requests"
        )
    }
}
