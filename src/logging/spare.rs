//! A second descriptor of the log, where application code does not look.
//!
//! Code that closes descriptors 0 to 2 would make the next file or connection the log. The spare one
//! puts them back.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::Mutex;

use crate::sys::{fd, stray};

static SPARE: Mutex<Option<OwnedFd>> = Mutex::new(None);

/// Keeps the log that descriptor 2 leads to now, in place of one that was kept before.
pub fn keep() {
    let Ok(copy) = fd::duplicate(std::io::stderr().as_fd()).map(fd::shelter) else { return };
    stray::withhold(copy.as_fd());
    super::output::look();
    *SPARE.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(copy);
}

/// Opens those of descriptors 0 to 2 again that are closed, and says so.
pub fn mend() {
    let spare = SPARE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let Some(log) = spare.as_ref().filter(|log| fd::is_open(log.as_raw_fd())) else { return };
    match fd::mend_standard_streams(log.as_fd()) {
        Ok(false) => {}
        Ok(true) => {
            super::output::look();
            log::warn!("the application has closed standard streams; they lead to the log again");
        }
        // There is no log to say it in.
        Err(_) => {}
    }
}
