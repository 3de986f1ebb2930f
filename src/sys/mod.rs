//! The operating system, fenced: one wrapper per call, typed in and out.
//!
//! Nothing in here logs or decides. Where [`nix`] is already safe the wrapper is a line; the
//! rest is `unsafe`, one block per call.
//!
//! # EINTR
//! A call that may sleep (`waitpid`, `sendmsg`, `recvmsg`, `dup2`) is repeated when a signal
//! interrupts it, so callers never see [`std::io::ErrorKind::Interrupted`]. The loops wait in mio,
//! not here: their `poll` is meant to be interrupted.

use std::io;

pub mod accept;
pub mod affinity;
pub mod beneath;
pub mod cap;
pub mod cgroup;
pub mod clock;
pub mod cred;
pub mod deferral;
pub mod dl;
pub mod env;
pub mod exclusive;
pub mod fd;
pub mod fs;
pub mod heap;
pub mod inotify;
pub mod kill_timer;
pub mod limits;
pub mod lock;
pub mod mapped;
pub mod memory;
pub mod oom;
pub mod output;
pub mod preload;
pub mod process;
pub mod robust;
pub mod sched;
pub mod sendfile;
pub mod seqpacket;
pub mod shm;
pub mod signal;
pub mod sock_diag;
pub mod socket;
pub mod stacks;
pub mod stray;
pub mod title;
pub mod watch;

/// Turns the `-1` of a system call into its `errno`.
pub(crate) fn cvt(ret: libc::c_int) -> io::Result<libc::c_int> {
    if ret == -1 { Err(io::Error::last_os_error()) } else { Ok(ret) }
}

/// [`cvt`] for the `long` that `syscall(2)` returns.
pub(crate) fn cvt_long(ret: libc::c_long) -> io::Result<libc::c_long> {
    if ret == -1 { Err(io::Error::last_os_error()) } else { Ok(ret) }
}

/// Repeats a call for as long as signals interrupt it.
pub(crate) fn retry<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

#[cfg(test)]
pub(crate) mod testing;
