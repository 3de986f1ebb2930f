//! What a plugin can ask of the server outside the path of a request.
//!
//! Questions have names; arguments and answers are JSON. They come from any thread.

use std::ffi::c_void;
use std::path::PathBuf;
use std::sync::atomic::{AtomicPtr, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use appserver_plugin_abi as abi;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::{exceptions, exchange, facts, place, shared};
use crate::app::logvars::LogVars;
use crate::app::{AppCommand, WorkerInfo};
use crate::signals::{Request, Schedule, Target};
use crate::sys::process;

/// The worker, while this process is one: from a leaked box. A process is a worker seldom more than once, and
/// an answer may be under way on another thread.
static WORKER: AtomicPtr<WorkerInfo> = AtomicPtr::new(std::ptr::null_mut());

/// What was asked of the master before this process was a worker.
static EARLY: Mutex<Vec<Request>> = Mutex::new(Vec::new());

/// Bytes of early requests, about: they go to the master in one message.
const EARLY_LIMIT: usize = 24 * 1024;

/// From here on questions are answered for this worker.
pub(super) fn set_worker(worker: &WorkerInfo) {
    WORKER.store(Box::into_raw(Box::new(worker.clone())), Ordering::Release);
    for request in take_early() {
        (worker.master)(AppCommand::Signals(request));
    }
}

/// From here on this process is a worker no more.
pub(super) fn forget_worker() {
    WORKER.store(std::ptr::null_mut(), Ordering::Release);
}

fn known_worker() -> Option<&'static WorkerInfo> {
    // SAFETY: null, or from a box that is never freed.
    unsafe { WORKER.load(Ordering::Acquire).as_ref() }
}

/// What was asked of the master while the application was loaded.
pub(super) fn take_early() -> Vec<Request> {
    std::mem::take(&mut *EARLY.lock().unwrap_or_else(PoisonError::into_inner))
}

/// Why a question has no answer.
type Refusal = String;

const NO_REQUEST: &str = "there is no request in this thread";

pub(super) fn worker() -> Result<&'static WorkerInfo, Refusal> {
    known_worker()
        .ok_or_else(|| "only a worker can do that; the application is still being loaded".to_owned())
}

fn answer(exchange: abi::Exchange, name: &str, argument: Value) -> Result<Value, Refusal> {
    match name {
        "reload" => tell(AppCommand::Reload),
        "stop" => tell(AppCommand::Stop),
        "masterpid" => Ok(json!(process::parent().as_raw())),
        "requests" => worker().map(|it| json!(it.scoreboard.cell(it.cell).requests())),
        "total_requests" => worker().map(|it| json!(it.scoreboard.total_requests())),
        "workers" => worker().map(|it| facts::workers(&it.scoreboard)),
        "is_a_reload" => Ok(json!(shared::is_a_reload())),
        "ready" => Ok(json!(known_worker().is_some_and(facts::is_ready))),
        "accepting" => worker().map(|it| json!(it.scoreboard.cell(it.cell).accepting() == 1)),
        "exception" => {
            exceptions::note(worker()?, &read(argument)?);
            Ok(Value::Null)
        }
        "setprocname" => {
            (worker()?.set_title)(&read::<String>(argument)?);
            Ok(Value::Null)
        }
        "set_logvar" => {
            let (name, value): (String, Vec<u8>) = read(argument)?;
            log_vars(exchange)?.set(&name, &value);
            Ok(Value::Null)
        }
        "get_logvar" => Ok(json!(log_vars(exchange)?.get(&read::<String>(argument)?))),
        "log_this_request" => {
            if !worker()?.requests_logged {
                return Err("no request is ever logged; in place of disable-logging alone, use it with \
                            log-4xx, log-5xx or log-slow"
                    .to_owned());
            }
            log_vars(exchange)?.force();
            Ok(Value::Null)
        }
        "set_user_harakiri" => {
            let limit = Duration::from_secs(read(argument)?);
            set_own_limit((!limit.is_zero()).then_some(limit))
        }
        "lift_limits" => {
            if let Some((row, sheet)) = place::row().zip(place::sheet()) {
                sheet.lift_limits(row);
            }
            Ok(Value::Null)
        }
        "signal" => {
            worker()?;
            signals(Request::Raise { number: read(argument)? })
        }
        "register_signal" => {
            let (number, word): (u8, String) = read(argument)?;
            let target = Target::parse(&word).ok_or_else(|| {
                format!("no process is called {word:?}; use worker, workers, active-workers or workerN")
            })?;
            if target == Target::Nobody {
                log::warn!(
                    "signal {number} is for {word:?}, which do not exist yet: its function is never called"
                );
            }
            signals(Request::Register { number, target })
        }
        "add_timer" => {
            let (number, every_ms, times) = read(argument)?;
            signals(Request::Timer { number, every_ms, times })
        }
        "add_cron" => {
            let (number, figures) = read(argument)?;
            signals(Request::Cron { number, schedule: Schedule::new(figures)? })
        }
        "add_file_monitor" => {
            let (number, path): (u8, PathBuf) = read(argument)?;
            signals(Request::Watch { number, path })
        }
        _ => Err("the server does not know this question".to_owned()),
    }
}

fn read<T: DeserializeOwned>(argument: Value) -> Result<T, Refusal> {
    serde_json::from_value(argument).map_err(|error| error.to_string())
}

fn tell(command: AppCommand) -> Result<Value, Refusal> {
    (worker()?.master)(command);
    Ok(Value::Null)
}

/// Limits the time of the request that this thread works on, from now on.
fn set_own_limit(limit: Option<Duration>) -> Result<Value, Refusal> {
    let worker = worker()?;
    let row = place::row().ok_or_else(|| NO_REQUEST.to_owned())?;
    let deadline = worker.sheet.set_own_limit(row, limit);
    // Written before this is read: the master says when it looks before it looks.
    let next_look = worker.scoreboard.next_look();
    if deadline.is_some_and(|deadline| next_look == 0 || deadline < next_look) {
        (worker.master)(AppCommand::LookSooner);
    }
    Ok(Value::Null)
}

/// Passes a request on to the master, or keeps it until there is a way.
fn signals(request: Request) -> Result<Value, Refusal> {
    if known_worker().is_some() {
        return tell(AppCommand::Signals(request));
    }
    let mut early = EARLY.lock().unwrap_or_else(PoisonError::into_inner);
    early.push(request);
    let length = serde_json::to_string(&*early).map_or(0, |text| text.len());
    if length > EARLY_LIMIT {
        early.pop();
        return Err("too many signals, timers and files are registered while the application is loaded; \
                    register the rest in post_fork_hook"
            .to_owned());
    }
    Ok(Value::Null)
}

fn log_vars(exchange: abi::Exchange) -> Result<LogVars, Refusal> {
    if exchange.is_null() {
        return Err(NO_REQUEST.to_owned());
    }
    // SAFETY: the plugin gives the exchange of the step that its thread is in.
    Ok(unsafe { exchange::log_vars(exchange) })
}

pub(super) extern "C" fn ask(
    exchange: abi::Exchange,
    name: abi::Bytes,
    argument: abi::Bytes,
    take: extern "C" fn(*mut c_void, abi::Bytes),
    context: *mut c_void,
) {
    // SAFETY: the plugin keeps the texts alive for the call.
    let (name, argument) = unsafe { (name.slice(), argument.slice()) };
    let name = String::from_utf8_lossy(name);
    let answer = serde_json::from_slice(argument)
        .map_err(|error| error.to_string())
        .and_then(|argument| answer(exchange, &name, argument))
        .unwrap_or_else(|refusal| json!({ "error": refusal }));
    let text = answer.to_string();
    take(context, abi::Bytes::of(text.as_bytes()));
}

pub(super) extern "C" fn log(level: abi::Level, text: abi::Bytes) {
    // SAFETY: the plugin keeps the text alive for the call.
    let text = String::from_utf8_lossy(unsafe { text.slice() });
    match level {
        abi::Level::Error => log::error!("{text}"),
        abi::Level::Warning => log::warn!("{text}"),
        abi::Level::Info => log::info!("{text}"),
    }
}
