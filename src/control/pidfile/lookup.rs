//! From a pidfile to the server that owns it: for `--reload`, `--stop` and `--status`.

use std::fs::OpenOptions;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::sys::fs::NON_BLOCK;
use crate::sys::lock;
use crate::sys::process::{self, Pid};

/// Why a pidfile does not lead to a running server.
#[derive(Debug, Error)]
pub enum OwnerError {
    /// Never started, or stopped in good order.
    #[error("there is no pidfile {}; the server is not running, or with another pidfile", path.display())]
    Missing {
        /// The pidfile.
        path: PathBuf,
    },
    /// It cannot be read.
    #[error("cannot read pidfile {}: {source}", path.display())]
    Unreadable {
        /// The pidfile.
        path: PathBuf,
        /// The error.
        source: io::Error,
    },
    /// It does not hold a process id.
    #[error("pidfile {} does not hold a process id", path.display())]
    Garbage {
        /// The pidfile.
        path: PathBuf,
    },
    /// A server has claimed it and is not ready yet.
    #[error("the server of pidfile {} is still starting as process {pid}", path.display())]
    Starting {
        /// The pidfile.
        path: PathBuf,
        /// The process that holds the lock.
        pid: Pid,
    },
    /// Its process is gone: a stale file.
    #[error("the server of pidfile {} is not running; process {pid} has ended", path.display())]
    NotRunning {
        /// The pidfile.
        path: PathBuf,
        /// The number in it.
        pid: Pid,
    },
    /// Some process has the number, but not the lock: a stale file whose number was reused.
    #[error("process {pid} of pidfile {} runs but does not own the file; nothing was done to it", path.display())]
    NotOurs {
        /// The pidfile.
        path: PathBuf,
        /// The number in it.
        pid: Pid,
    },
}

/// A running server, found through its pidfile.
#[derive(Debug)]
pub struct Owner {
    /// Its number, to print.
    pub pid: Pid,
    /// A handle that cannot come to mean another process, to signal and to wait for.
    pub pidfd: OwnedFd,
}

/// Finds the running server that owns a pidfile. Not for the server's own pidfile, see above.
///
/// # Errors
/// Tells apart why there is none.
pub fn owner(path: &Path) -> Result<Owner, OwnerError> {
    let unreadable = |source| OwnerError::Unreadable { path: path.to_owned(), source };
    let mut file = match OpenOptions::new().read(true).custom_flags(NON_BLOCK).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(OwnerError::Missing { path: path.to_owned() });
        }
        Err(error) => return Err(unreadable(error)),
    };
    let mut text = String::new();
    // More than a number needs; what is longer is no pidfile, nor is what is not text.
    let read = (&mut file).take(64).read_to_string(&mut text);
    let pid = match read {
        Err(error) if error.kind() != io::ErrorKind::InvalidData => return Err(unreadable(error)),
        _ => parse(&text),
    };

    // The handle first: from then on the number cannot change its meaning, and if that very
    // process also holds the lock, it is the server.
    let opened = pid.map(|pid| (pid, process::pidfd_open(pid)));
    let holder = lock::holder(file.as_fd()).map_err(unreadable)?;
    let path = path.to_owned();
    match (opened, holder) {
        (Some((pid, Ok(pidfd))), Some(holder)) if pid == holder => Ok(Owner { pid, pidfd }),
        (_, Some(holder)) if holder.as_raw() > 0 => Err(OwnerError::Starting { path, pid: holder }),
        (None, _) => Err(OwnerError::Garbage { path }),
        (Some((pid, Err(error))), _) if error.kind() == io::ErrorKind::NotFound => {
            Err(OwnerError::NotRunning { path, pid })
        }
        (Some((pid, Ok(_))), _) => Err(OwnerError::NotOurs { path, pid }),
        (Some((_, Err(source))), _) => Err(OwnerError::Unreadable { path, source }),
    }
}

fn parse(text: &str) -> Option<Pid> {
    let number: i32 = text.trim().parse().ok()?;
    (number > 0).then(|| Pid::from_raw(number))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::{MODE, Pidfile};
    use super::*;
    use crate::sys::process::this;
    use crate::sys::testing::{alone, in_child};

    #[test]
    fn a_file_without_a_running_owner_says_why() {
        alone("control::pidfile::lookup::tests::a_file_without_a_running_owner_says_why", || {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("app.pid");
            assert!(matches!(owner(&path), Err(OwnerError::Missing { .. })));
            for garbage in ["", "\n", "x", "-5", "0", "12 13", "99999999999999"] {
                fs::write(&path, garbage).unwrap();
                assert!(matches!(owner(&path), Err(OwnerError::Garbage { .. })), "{garbage}");
            }
            fs::write(&path, [0xff, 0xfe]).unwrap();
            assert!(matches!(owner(&path), Err(OwnerError::Garbage { .. })));
            // A living process that never heard of the file.
            fs::write(&path, format!("{}\n", this())).unwrap();
            assert!(matches!(owner(&path), Err(OwnerError::NotOurs { .. })));
            fs::write(&path, format!("{}\n", i32::MAX)).unwrap();
            assert!(matches!(owner(&path), Err(OwnerError::NotRunning { .. })));
            assert!(matches!(owner(directory.path()), Err(OwnerError::Unreadable { .. })));
        });
    }

    #[test]
    fn a_server_between_claim_and_write_is_starting() {
        alone("control::pidfile::lookup::tests::a_server_between_claim_and_write_is_starting", || {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("app.pid");
            fs::write(&path, "1\n").unwrap();
            let _pidfile = Pidfile::claim(&path, MODE).unwrap();
            let master = this();
            in_child(|| {
                let error = owner(&path).unwrap_err();
                assert!(matches!(error, OwnerError::Starting { pid, .. } if pid == master), "{error}");
            });
        });
    }
}
