//! The worker process as it looks from inside.

use std::collections::BTreeMap;

use appserver::app::WorkerInfo;
use serde_json::{Value, json};

/// Pid, worker, arguments, environment and open descriptors of this process.
pub fn describe(version: &str, worker: Option<&WorkerInfo>) -> Value {
    let lossy = |text: std::ffi::OsString| text.to_string_lossy().into_owned();
    let environment: BTreeMap<_, _> =
        std::env::vars_os().map(|(key, value)| (lossy(key), lossy(value))).collect();
    json!({
        "pid": std::process::id(),
        "slot": worker.map(|worker| worker.slot),
        "generation": worker.map(|worker| worker.generation),
        "reloads": worker.map(|worker| worker.reloads),
        "version": version,
        "cwd": std::env::current_dir().ok(),
        "argv": std::env::args_os().map(lossy).collect::<Vec<_>>(),
        "env": environment,
        "fds": descriptors(),
    })
}

/// Open descriptors by number, with what they lead to.
fn descriptors() -> BTreeMap<String, String> {
    let entries = std::fs::read_dir("/proc/self/fd").into_iter().flatten().flatten();
    // The descriptor that reads the directory is listed, and closed before it can be resolved
    // or resolves to the directory itself.
    let own = format!("/proc/{}/fd", std::process::id());
    entries
        .filter_map(|entry| {
            let target = entry.path().read_link().ok()?.to_string_lossy().into_owned();
            let number = entry.file_name().to_string_lossy().into_owned();
            (target != own).then_some((number, target))
        })
        .collect()
}
