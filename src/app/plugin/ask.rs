//! What a plugin can ask of the server outside the path of a request.
//!
//! Questions have names; arguments and answers are JSON. They come from any thread.

use std::ffi::c_void;
use std::sync::{Arc, OnceLock};

use appserver_plugin_abi as abi;
use serde_json::{Value, json};

use crate::app::{AppCommand, WorkerInfo};
use crate::scoreboard::Scoreboard;
use crate::sys::process;

/// The worker, once this process is one.
static WORKER: OnceLock<Worker> = OnceLock::new();

struct Worker {
    master: Arc<dyn Fn(AppCommand) + Send + Sync>,
    scoreboard: Arc<Scoreboard>,
    cell: usize,
}

/// From here on questions are answered for this worker.
pub(super) fn set_worker(worker: &WorkerInfo) {
    let (master, scoreboard) = (Arc::clone(&worker.master), Arc::clone(&worker.scoreboard));
    WORKER.get_or_init(|| Worker { master, scoreboard, cell: worker.cell });
}

/// Why a question has no answer.
type Refusal = String;

fn answer(name: &str, _argument: &Value) -> Result<Value, Refusal> {
    let worker = || {
        WORKER
            .get()
            .ok_or_else(|| "only a worker can do that; the application is still being loaded".to_owned())
    };
    match name {
        "reload" => {
            (worker()?.master)(AppCommand::Reload);
            Ok(Value::Null)
        }
        "stop" => {
            (worker()?.master)(AppCommand::Stop);
            Ok(Value::Null)
        }
        "masterpid" => Ok(json!(process::parent().as_raw())),
        "requests" => {
            let worker = worker()?;
            Ok(json!(worker.scoreboard.cell(worker.cell).requests()))
        }
        _ => Err("the server does not know this question".to_owned()),
    }
}

pub(super) extern "C" fn ask(
    _exchange: abi::Exchange,
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
        .and_then(|argument| answer(&name, &argument))
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
