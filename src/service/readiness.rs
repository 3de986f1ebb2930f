//! `notify-fd`: readiness for supervisors that can read a pipe, such as s6 and dinit.
//!
//! A newline on a descriptor, which is closed then, says that the first generation serves. Only the first
//! image of a master has anything to say: to these supervisors a service becomes ready once.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use log::warn;

use crate::config::Config;
use crate::sys::fd;

/// The line that says it. The protocol ends with the newline; what stands before it is ignored.
const READY: &[u8] = b"\n";

/// Who waits for the service to be ready.
#[derive(Debug)]
pub struct Readiness(OwnedFd);

impl Readiness {
    /// The one that the configuration names. The descriptor becomes this process's own: the supervisor waits for
    /// its end, too, and would never see it if an application had it.
    ///
    /// # Errors
    /// When the descriptor was not open when the server was started.
    pub fn claim(config: &Config) -> io::Result<Option<Self>> {
        Ok(config.notify_fd.map(fd::claim_given).transpose()?.map(Readiness))
    }

    /// The service is ready.
    pub fn tell(self) {
        if let Err(error) = fd::write(self.0.as_fd(), READY) {
            warn!("notify-fd: nobody is told that the service is ready: {error}");
        }
    }
}
