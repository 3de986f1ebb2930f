//! The worker's request log: one per process, fed by the accounting, flushed when the worker idles.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use log::warn;

use crate::config;
use crate::logging::reqlog::{LogRecord, Process, RequestLog};
use crate::protocol::accounting::{LogHook, RequestRecord};

use super::Birth;

thread_local! {
    /// In a thread-local because the runtime's park hook must be `Send` and has nowhere else to look.
    static LOG: RefCell<Option<RequestLog>> = const { RefCell::new(None) };
}

/// Writes out what is buffered. Cheap when there is nothing.
pub(super) fn flush() {
    LOG.with_borrow_mut(|log| {
        if let Some(log) = log {
            log.flush();
        }
    });
}

/// Writes out what is buffered: nothing more is logged by this worker.
pub(super) fn close() {
    LOG.with_borrow_mut(|log| drop(log.take()));
}

/// False when no request is ever logged.
pub(super) fn is_on(config: &config::RequestLog) -> bool {
    config.enabled || config.log_4xx || config.log_5xx || config.slow.is_some()
}

/// Opens the request log of this worker; `None` when nothing is ever to be logged.
pub(super) fn install(birth: &Birth) -> Option<LogHook> {
    let config = &birth.config.request_log;
    if !is_on(config) {
        return None;
    }
    let (log, warnings) = RequestLog::new(config, Process { pid: std::process::id(), slot: birth.slot });
    if birth.slot == 1 {
        warnings.iter().for_each(|warning| warn!("{warning}"));
    }
    LOG.set(Some(log));
    let (scoreboard, cell) = (Arc::clone(&birth.scoreboard), birth.cell);
    Some(Rc::new(move |record: &RequestRecord| {
        let (worker, total) = (scoreboard.cell(cell).requests(), scoreboard.total_requests());
        LOG.with_borrow_mut(|log| {
            if let Some(log) = log {
                write(log, record, worker, total);
            }
        });
    }))
}

fn write(log: &mut RequestLog, record: &RequestRecord, worker_requests: u64, total_requests: u64) {
    let uri = record.uri.to_string();
    log.record(&LogRecord {
        method: record.method.as_str().as_bytes(),
        uri: uri.as_bytes(),
        version: record.version,
        peer: &record.connection.peer,
        status: record.status,
        body_bytes: record.body_bytes,
        head_bytes: record.head_bytes,
        header_count: record.header_count,
        request_header_count: record.request_header_count,
        request_bytes: record.request_bytes,
        content_length: record.content_length.unwrap_or(0),
        started: record.started,
        duration: record.duration,
        host: record.host.as_ref().map(|it| it.as_bytes()),
        user_agent: record.user_agent.as_ref().map(|it| it.as_bytes()),
        referer: record.referer.as_ref().map(|it| it.as_bytes()),
        x_forwarded_for: record.x_forwarded_for.as_ref().map(|it| it.as_bytes()),
        core: record.core,
        worker_requests,
        total_requests,
        aborted: record.aborted,
        vars: record.vars.as_ref(),
    });
}
