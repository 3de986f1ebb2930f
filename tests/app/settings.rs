//! How the application is to behave, read from a file each time it is loaded.

use std::error::Error;
use std::io::Read;
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

use super::{gate, leak};

/// Names the JSON file; unset, everything is as in [`Settings::default`].
const VARIABLE: &str = "TESTAPP_CONFIG";

/// What loading does.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Load {
    /// Succeeds.
    #[default]
    Ok,
    /// Returns an error.
    Fail,
    /// Never returns.
    Hang,
    /// Aborts the process.
    Crash,
    /// Exits with code 3.
    Exit,
}

/// What the start of a worker does.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WorkerStart {
    /// Succeeds.
    #[default]
    Ok,
    /// Aborts the worker.
    Crash,
    /// Never returns.
    Hang,
}

/// The file's content.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// What `/` says after hello.
    pub version: String,
    /// See [`Load`].
    pub load: Load,
    /// Milliseconds that loading takes.
    pub load_ms: u64,
    /// See [`WorkerStart`].
    pub worker_start: WorkerStart,
    /// Socket of a gate (see [`super::gate`]) at which loading waits.
    pub load_gate: Option<PathBuf>,
    /// Socket of a gate at which the start of each worker waits.
    pub worker_gate: Option<PathBuf>,
    /// Loading leaks descriptors without close-on-exec, numbered from each of these up.
    pub open_fds: Vec<i32>,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            version: "v1".to_owned(),
            load: Load::Ok,
            load_ms: 0,
            worker_start: WorkerStart::Ok,
            load_gate: None,
            worker_gate: None,
            open_fds: Vec::new(),
        }
    }
}

impl Settings {
    /// Reads the file, if one is named.
    pub fn read() -> Result<Self, Box<dyn Error>> {
        match std::env::var_os(VARIABLE) {
            Some(path) => Ok(serde_json::from_slice(&std::fs::read(path)?)?),
            None => Ok(Settings::default()),
        }
    }

    /// Does what loading is to do.
    pub fn act_on_load(&self) -> Result<(), Box<dyn Error>> {
        // A slow import is simulated, no event is waited for.
        std::thread::sleep(Duration::from_millis(self.load_ms));
        for from in &self.open_fds {
            leak::descriptor(*from)?;
        }
        gate::pass(self.load_gate.as_deref());
        match self.load {
            Load::Ok => Ok(()),
            Load::Fail => Err("the test application was told to fail".into()),
            Load::Hang => hang(),
            Load::Crash => std::process::abort(),
            Load::Exit => std::process::exit(3),
        }
    }
}

/// Waits for ever: reads a pipe whose other end stays open and silent.
pub fn hang() -> ! {
    let (mut reader, _writer) = std::io::pipe().expect("a pipe to hang on");
    loop {
        let _ = reader.read(&mut [0]);
    }
}
