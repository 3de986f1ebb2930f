//! Threads that come before all others on the machine.
#![allow(unsafe_code)]

use std::io;

/// While it lives, this thread and those that it starts run as soon as they have something to do, whatever else
/// there is to do (`SCHED_FIFO` of sched(7)); those that it has started go on to do so.
#[derive(Debug)]
pub struct ComingFirst(());

impl ComingFirst {
    /// Begins.
    ///
    /// # Errors
    /// `PermissionDenied` without `CAP_SYS_NICE`.
    pub fn begin() -> io::Result<Self> {
        set(libc::SCHED_FIFO, 1)?;
        Ok(ComingFirst(()))
    }
}

impl Drop for ComingFirst {
    fn drop(&mut self) {
        // It needs no privilege.
        let _ = set(libc::SCHED_OTHER, 0);
    }
}

fn set(policy: libc::c_int, priority: libc::c_int) -> io::Result<()> {
    let priority = libc::sched_param { sched_priority: priority };
    // SAFETY: the kernel only reads the struct, for the calling thread.
    match unsafe { libc::sched_setscheduler(0, policy, &raw const priority) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}
