//! Signals of the application: called between requests, each with a slot of its own.

use std::rc::Rc;
use std::sync::Arc;

use crate::app::App;
use crate::app::slots::Slots;
use crate::scoreboard::Scoreboard;

/// The signals of one worker.
pub(super) struct Signals {
    app: Rc<dyn App>,
    slots: Rc<Slots>,
    scoreboard: Arc<Scoreboard>,
    cell: usize,
}

impl Signals {
    pub(super) fn new(app: Rc<dyn App>, slots: Rc<Slots>, scoreboard: Arc<Scoreboard>, cell: usize) -> Self {
        Signals { app, slots, scoreboard, cell }
    }

    /// Has the application called as soon as a slot is free. Requests that wait already come first.
    pub(super) fn handle(&self, number: u8) {
        let (app, scoreboard, cell) = (Rc::clone(&self.app), Arc::clone(&self.scoreboard), self.cell);
        // Now, not when the task runs: a worker leaves when all slots are free.
        let slot = self.slots.acquire();
        tokio::task::spawn_local(async move {
            let permit = slot.await;
            app.signal(number).await;
            drop(permit);
            let board = scoreboard.cell(cell);
            board.set_signals(board.signals() + 1);
        });
    }
}
