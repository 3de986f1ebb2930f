//! Where in its worker a request is: the row of the sheet that this thread works for.

use std::cell::Cell;

use super::ask;
use crate::scoreboard::sheet::Sheet;

thread_local! {
    static ROW: Cell<Option<u32>> = const { Cell::new(None) };
}

/// The row of the request that this thread works on, if it does.
pub(super) fn row() -> Option<u32> {
    ROW.get()
}

/// Works on the request of this row.
pub(super) fn at<T>(row: u32, work: impl FnOnce() -> T) -> T {
    ROW.set(Some(row));
    let result = work();
    ROW.set(None);
    result
}

/// Waits for the client of the request that this thread works on: its time stands still.
pub(super) fn wait_for_client(wait: impl FnOnce()) {
    let place = row().zip(sheet());
    let suspended = place.and_then(|(row, sheet)| sheet.suspend(row));
    wait();
    if let (Some((row, sheet)), Some(suspended)) = (place, suspended) {
        sheet.resume(row, &suspended);
    }
}

/// The sheet of this worker, once it is one.
pub(super) fn sheet() -> Option<&'static Sheet> {
    ask::worker().ok().map(|worker| &*worker.sheet)
}
