//! What a configuration may refer to besides its own text: environment, machine, directory.

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::OnceLock;
use std::time::{SystemTime, UNIX_EPOCH};

use super::magic::Fixed;
use crate::sys::{cgroup, cred};

/// Which reading of the configuration this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reading {
    /// CLOCK_REALTIME seconds at which the service was started: `%t`, the same for all generations.
    pub started: u64,
    /// Real user and group that started the service: `%u`, `%g`. They are the same for all generations,
    /// which are made by a master that has dropped its privileges.
    pub started_by: (u32, u32),
    /// Whether this is a reload: `if-reload`.
    pub is_reload: bool,
}

impl Reading {
    /// The first one. Moment and user are those of the first call, so that the process that reads the
    /// configuration, and later drops privileges, agrees with those that are told about its start.
    pub fn first() -> Self {
        static FIRST: OnceLock<Reading> = OnceLock::new();
        *FIRST.get_or_init(|| Reading {
            started: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()),
            started_by: (cred::real_uid().as_raw(), cred::real_gid().as_raw()),
            is_reload: false,
        })
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
        let (uid, gid) = reading.started_by;
        let binary = std::env::current_exe().unwrap_or_default();
        let fixed = Fixed {
            cwd: cwd.to_string_lossy().into_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            hostname: crate::sys::process::hostname(),
            started: reading.started,
            cpus: cgroup::cpus(),
            uid,
            user: cred::user_name(uid.into()).unwrap_or_else(|| uid.to_string()),
            gid,
            group: cred::group_name(gid.into()).unwrap_or_else(|| gid.to_string()),
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
