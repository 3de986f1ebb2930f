//! What the master tells the log about its workers.

use std::time::{SystemTime, UNIX_EPOCH};

use log::{error, info, warn};

use crate::cause::Cause;
use crate::channel::headline;
use crate::net::backlog;
use crate::scoreboard::{Cell, Scoreboard, WorkerState};
use crate::sys::process::{self, Exit, Pid};

use super::answer::Answer;
use super::holdings::Holdings;
use super::slots::SlotStanding;
use super::standing::Standing;
use super::state::Master;

/// A worker died that was not told to: the cause, and what it was doing. The lines begin as uWSGI's do.
pub fn death(cell: &Cell<'_>, slot: u32, pid: Pid, exit: Exit, cause: Cause, reason: Option<&str>) {
    if cause == Cause::LoadFailed {
        let reason = reason.map(headline).unwrap_or_default();
        return error!("OOPS ! failed loading app in worker {slot} (pid: {pid}) :( trying again... {reason}");
    }
    let how = match exit {
        Exit::Signal { number, .. } => format!(", killed by signal {number}"),
        Exit::Code(_) => String::new(),
    };
    let why = cause.told(Some(exit));
    let why = reason.map_or(why.clone(), |reason| format!("{why}: {}", headline(reason)));
    let requests = cell.requests();
    let doing = match (cell.in_flight(), cell.last_request()) {
        (_, last) if last.is_empty() => "it had no request yet".to_owned(),
        (0, last) => format!("idle after {requests} requests, the last one was {last}"),
        (many, last) => format!("with {many} requests in flight, the last one begun is {last}"),
    };
    error!("DAMN ! worker {slot} (pid: {pid}) died{how} :( trying respawn ... ({why}; {doing})");
}

/// A worker has not left in time and is killed: what it was doing.
pub fn impatience(cell: &Cell<'_>, slot: u32, pid: Pid) {
    let doing = still_doing(cell);
    warn!("worker {slot} (pid: {pid}) is taking too much time to die...NO MERCY !!! ({doing})");
}

/// A worker has too much memory and is killed, in uWSGI's words: what it was doing.
pub fn excess(cell: &Cell<'_>, slot: u32, pid: Pid, what: &str, bytes: u64) {
    let doing = match cell.in_flight() {
        0 => String::new(),
        _ => format!(" ({})", still_doing(cell)),
    };
    error!("*** EVIL RELOAD ON WORKER {slot} {what}: {bytes} (pid: {pid}) ***{doing}");
}

/// A worker of the oldest generation is cut because too many drain: what it was doing.
pub fn eviction(cell: &Cell<'_>, slot: u32, pid: Pid, generation: u64, most: usize) {
    let doing = still_doing(cell);
    warn!(
        "worker {slot} (pid: {pid}, generation {generation}) has to leave at once: more generations drain than \
         max-draining-generations = {most} allows ({doing})"
    );
}

/// What keeps a worker that was told to leave.
fn still_doing(cell: &Cell<'_>) -> String {
    match cell.in_flight() {
        0 => format!(
            "no request is in flight any more, an exit hook or a thread of the application keeps it; the last \
             one was {}",
            Some(cell.last_request()).filter(|last| !last.is_empty()).unwrap_or_else(|| "none".into())
        ),
        many => busy(cell, now_micros()).map_or_else(
            || format!("{many} requests were in flight"),
            |busy| format!("{many} requests were in flight, {busy}"),
        ),
    }
}

/// Since when it works on which request; `None` while it does not.
fn busy(cell: &Cell<'_>, now_micros: u64) -> Option<String> {
    let is_busy = cell.in_flight() > 0 && cell.request_start() > 0;
    let milliseconds = now_micros.saturating_sub(cell.request_start()) / 1000;
    is_busy.then(|| format!("busy for {milliseconds} ms with {}", cell.last_request()))
}

/// Microseconds since the epoch.
pub fn now_micros() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_micros() as u64
}

/// USR1 and FIFO `s`: the configuration and the counters.
pub fn statistics(holdings: &Holdings, machine: &Master) {
    info!(";appserver instance configuration");
    info!("[appserver]");
    for entry in &holdings.config.entries {
        info!("{} = {}", entry.name, entry.value.as_deref().unwrap_or("true"));
    }
    info!(";end of configuration");
    info!("workers total requests: {}", holdings.scoreboard.total_requests());
    info!("workers ended: {}; {}", machine.causes(), machine.setbacks());
    for listener in &holdings.listeners {
        info!("{}", backlog::line(&listener.local, listener.queue().ok()));
    }
    for (_, worker) in machine.workers() {
        let cell = holdings.scoreboard.cell(worker.cell);
        info!(
            "worker {} generation {} requests: {} exceptions: {} tx: {} avg_rt: {} us connections: {}",
            worker.slot,
            worker.generation,
            cell.requests(),
            cell.exceptions(),
            cell.tx_bytes(),
            cell.average_micros(),
            cell.connections()
        );
    }
}

/// USR2: what each generation and each worker is doing.
pub fn workers(holdings: &Holdings, machine: &Master, answer: &Answer) {
    let now = now_micros();
    info!(
        "master {} generation {} reloads {}{}",
        process::this(),
        machine.generation(),
        holdings.reloads,
        if machine.is_paused() { ", paused" } else { "" }
    );
    for standing in &answer.generations {
        info!("{}", generation_line(standing, now));
    }
    for (_, worker) in machine.workers() {
        info!("{}", worker_line(&holdings.scoreboard, worker.cell, now, &answer.slots));
    }
    for line in answer.slots.iter().filter_map(|slot| slot.trouble(now / 1000)) {
        warn!("{line}");
    }
}

/// One generation in one line, with the memory that its zygote has now; for the log and for `--status`.
pub fn generation_line(standing: &Standing, now_micros: u64) -> String {
    let bytes = standing.zygote.and_then(|pid| process::own_memory(Pid::from_raw(pid)));
    standing.line(bytes, now_micros / 1_000_000)
}

/// One worker in one line; for the log and for `--status`.
pub fn worker_line(scoreboard: &Scoreboard, cell: usize, now_micros: u64, slots: &[SlotStanding]) -> String {
    let cell = scoreboard.cell(cell);
    let uptime = (now_micros / 1_000_000).saturating_sub(cell.started_at());
    let mut line = format!(
        "worker {} (pid: {}, generation {}) {}, up {uptime} s, {} requests, {} connections, {} in flight",
        cell.slot(),
        cell.pid(),
        cell.generation(),
        cell.state().name(),
        cell.requests(),
        cell.connections(),
        cell.in_flight(),
    );
    // One that leaves may have outlived its successor.
    let leaves = cell.state() == WorkerState::Draining;
    let slot = slots.iter().find(|slot| u64::from(slot.slot) == cell.slot() && !leaves);
    if let Some(before) = slot.and_then(|slot| slot.before(now_micros / 1000)) {
        line.push_str(&format!(", {before}"));
    }
    if cell.respawns() > 0 {
        line.push_str(&format!(", {} respawns", cell.respawns()));
    }
    if let Some(busy) = busy(&cell, now_micros) {
        line.push_str(&format!(", {busy}"));
    }
    line
}
