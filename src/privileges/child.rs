//! Something tried in a child, which may become anybody.

use std::fs::File;
use std::io::{Read, Write};

use crate::sys::fd;
use crate::sys::process::{self, Exit, Fork};

/// Runs `job` in a child of its own and waits for what came of it.
///
/// # Errors
/// Those of the job, and a child that did not end well.
pub fn ask(job: impl FnOnce() -> Result<(), String>) -> Result<(), String> {
    let failed = |error: std::io::Error| format!("privileges cannot be tried: {error}");
    let (reader, writer) = fd::pipe().map_err(failed)?;
    let child = match process::fork().map_err(failed)? {
        Fork::Parent(child) => child,
        Fork::Child => {
            let outcome = job();
            let text = outcome.as_ref().err().map_or("", String::as_str);
            let told = File::from(writer).write_all(text.as_bytes());
            process::exit_now(i32::from(outcome.is_err() || told.is_err()));
        }
    };
    drop(writer);
    let mut text = String::new();
    let heard = File::from(reader).read_to_string(&mut text);
    let exit = process::wait(child).map_err(failed)?;
    heard.map_err(failed)?;
    match exit {
        Exit::Code(0) => Ok(()),
        Exit::Code(1) if !text.is_empty() => Err(text),
        other => Err(format!("privileges cannot be tried: the process that tries ended with {other}")),
    }
}
