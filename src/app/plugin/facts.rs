//! What a plugin can know about the workers.

use serde_json::{Value, json};

use crate::app::WorkerInfo;
use crate::scoreboard::{Cell, Scoreboard, WorkerState};
use crate::sys::process;

/// `uwsgi.workers()`: one entry for each worker number, in uWSGI's shape.
///
/// During a reload or a rollback two generations are there; of two workers with a number the one is shown
/// that does not drain, of those the newer one.
pub(super) fn workers(scoreboard: &Scoreboard) -> Value {
    let mut cells: Vec<Cell<'_>> = scoreboard
        .used_cells()
        .map(|index| scoreboard.cell(index))
        .filter(|cell| cell.state() != WorkerState::Free)
        .collect();
    let stays = |cell: &Cell<'_>| cell.state() != WorkerState::Draining;
    cells.sort_by_key(|cell| (cell.slot(), stays(cell), cell.generation(), cell.started_at()));
    cells.reverse();
    cells.dedup_by_key(|cell| cell.slot());
    cells.reverse();
    cells.iter().map(worker).collect()
}

fn worker(cell: &Cell<'_>) -> Value {
    let (rss, vsz) = process::memory(cell.pid()).unwrap_or_default();
    json!({
        "id": cell.slot(),
        "pid": cell.pid(),
        "requests": cell.requests(),
        "delta_requests": cell.requests(),
        "signals": cell.signals(),
        "exceptions": cell.exceptions(),
        "status": status(cell),
        "rss": rss,
        "vsz": vsz,
        "running_time": cell.running_micros(),
        "last_spawn": cell.started_at(),
        // Counted from the first one on, as in uWSGI.
        "respawn_count": cell.respawns() + 1,
        "tx": cell.tx_bytes(),
        "avg_rt": cell.average_micros(),
    })
}

fn status(cell: &Cell<'_>) -> &'static str {
    match cell.state() {
        WorkerState::Paused if cell.in_flight() == 0 => "pause",
        _ if cell.in_flight() > 0 => "busy",
        _ => "idle",
    }
}

/// Whether this worker serves requests.
pub(super) fn is_ready(worker: &WorkerInfo) -> bool {
    !matches!(worker.scoreboard.cell(worker.cell).state(), WorkerState::Free | WorkerState::Starting)
}
