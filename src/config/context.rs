//! What a configuration may refer to besides its own text: environment, machine, directory.

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::OnceLock;
use std::thread::available_parallelism;
use std::time::{SystemTime, UNIX_EPOCH};

use super::magic::Fixed;
use crate::sys::cred;

/// Which reading of the configuration this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reading {
    /// CLOCK_REALTIME seconds at which the service was started: `%t`, the same for all generations.
    pub started: u64,
    /// Whether this is a reload: `if-reload`.
    pub is_reload: bool,
}

impl Reading {
    /// The first one. The moment is that of the first call, so that the process that reads the
    /// configuration and the one that is told when it was started agree.
    pub fn first() -> Self {
        static STARTED: OnceLock<u64> = OnceLock::new();
        let now = || SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        Reading { started: *STARTED.get_or_init(now), is_reload: false }
    }
}

/// The surroundings in which a configuration is read.
#[derive(Debug, Clone)]
pub struct Context {
    /// The environment, in its order.
    pub env: Vec<(OsString, OsString)>,
    /// Relative paths start here.
    pub cwd: PathBuf,
    /// Magic variables that do not depend on a file.
    pub fixed: Fixed,
    /// Whether this is a reload.
    pub is_reload: bool,
}

impl Context {
    /// Reads it from the process.
    pub fn capture(reading: Reading) -> Self {
        let cwd = std::env::current_dir().unwrap_or_default();
        let (uid, gid) = (cred::real_uid(), cred::real_gid());
        let binary = std::env::current_exe().unwrap_or_default();
        let fixed = Fixed {
            cwd: cwd.to_string_lossy().into_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            hostname: crate::sys::process::hostname(),
            started: reading.started,
            cpus: available_parallelism().map_or(1, usize::from),
            uid: uid.as_raw(),
            user: cred::user_name(uid).unwrap_or_else(|| uid.to_string()),
            gid: gid.as_raw(),
            group: cred::group_name(gid).unwrap_or_else(|| gid.to_string()),
            binary: binary.to_string_lossy().into_owned(),
        };
        Context { env: std::env::vars_os().collect(), cwd, fixed, is_reload: reading.is_reload }
    }

    /// A variable, if it is text.
    pub fn variable(&self, name: &str) -> Option<String> {
        let (_, value) = self.env.iter().find(|(known, _)| known.as_os_str() == name)?;
        value.to_str().map(str::to_owned)
    }
}
