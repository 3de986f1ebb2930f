//! Readiness for supervisors that know neither sd_notify(3) nor a status: said once, when the first generation
//! serves.
//!
//! `notify-fd` is the way of s6, of dinit and of whoever can read a pipe: a newline on a descriptor, which is
//! closed then. `notify-stop` is `expect stop` of Upstart: the process stops itself, and the supervisor, who
//! has waited for that, lets it go on. Only the first image of a master has anything to say: to them a
//! service becomes ready once.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use log::{info, warn};

use crate::config::Config;
use crate::sys::fd;
use crate::sys::process::{self, Signal};

/// The line that says it. The protocol ends with the newline; what stands before it is ignored.
const READY: &[u8] = b"\n";

/// What is to be said, and to whom.
#[derive(Debug, Default)]
pub struct Readiness {
    fd: Option<OwnedFd>,
    stop: bool,
}

impl Readiness {
    /// What the configuration asks for. The descriptor becomes this process's own: an application that had
    /// it, too, would keep the supervisor from seeing its end.
    ///
    /// # Errors
    /// When the descriptor was not open when the server was started.
    pub fn claim(config: &Config) -> io::Result<Self> {
        let fd = config.notify_fd.map(fd::claim_given).transpose()?;
        Ok(Readiness { fd, stop: config.notify_stop })
    }

    /// The service is ready.
    pub fn tell(self) {
        if let Some(fd) = self.fd
            && let Err(error) = fd::write(fd.as_fd(), READY)
        {
            warn!("notify-fd: nobody is told that the service is ready: {error}");
        }
        if self.stop {
            info!("notify-stop: waiting for SIGCONT");
            // The process stops in this call, before the kernel returns from it.
            if let Err(error) = process::kill(process::this(), Signal::SIGSTOP) {
                warn!("notify-stop: {error}");
            }
        }
    }
}
