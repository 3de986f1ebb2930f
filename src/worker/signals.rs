//! Signals of the application: called between requests, each with a slot of its own.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;

use tokio::task::JoinSet;

use crate::app::App;
use crate::app::slots::Slots;
use crate::scoreboard::Scoreboard;

/// The signals of one worker.
pub(super) struct Signals {
    app: Rc<dyn App>,
    slots: Rc<Slots>,
    scoreboard: Arc<Scoreboard>,
    cell: usize,
    running: RefCell<JoinSet<()>>,
    /// Begun and not finished.
    count: Rc<Cell<usize>>,
}

impl Signals {
    pub(super) fn new(app: Rc<dyn App>, slots: Rc<Slots>, scoreboard: Arc<Scoreboard>, cell: usize) -> Self {
        Signals { app, slots, scoreboard, cell, running: RefCell::default(), count: Rc::default() }
    }

    /// Has the application called as soon as a slot is free. Requests that wait already come first.
    pub(super) fn handle(&self, number: u8) {
        let (app, slots, count) = (Rc::clone(&self.app), Rc::clone(&self.slots), Rc::clone(&self.count));
        let (scoreboard, cell) = (Arc::clone(&self.scoreboard), self.cell);
        count.set(count.get() + 1);
        let mut running = self.running.borrow_mut();
        while running.try_join_next().is_some() {}
        running.spawn_local(async move {
            let permit = slots.acquire().await;
            app.signal(number).await;
            drop(permit);
            let board = scoreboard.cell(cell);
            board.set_signals(board.signals() + 1);
            count.set(count.get() - 1);
        });
    }

    /// True when no function of the application runs or waits for a slot.
    pub(super) fn is_empty(&self) -> bool {
        self.count.get() == 0
    }

    /// Waits until [`Signals::is_empty`]; nothing may be handled meanwhile.
    pub(super) async fn finished(&self) {
        let next = || std::future::poll_fn(|cx| self.running.borrow_mut().poll_join_next(cx));
        while !self.is_empty() && next().await.is_some() {}
    }
}
