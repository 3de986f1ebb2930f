//! What the kernel allows: limits of a process (setrlimit(2)), its priority, the length of a listen queue.
#![allow(unsafe_code)]

use std::io;

pub use nix::sys::resource::Resource;
use nix::sys::resource::{getrlimit, setrlimit};

use super::cvt;

/// Soft and hard limit of this process; [`u64::MAX`] is none.
///
/// # Errors
/// None that the kernel documents.
pub fn get(resource: Resource) -> io::Result<(u64, u64)> {
    Ok(getrlimit(resource)?)
}

/// Sets both. Children inherit them, and `execve(2)` keeps them.
///
/// # Errors
/// `PermissionDenied` when that raises the hard limit, and this process lacks `CAP_SYS_RESOURCE`;
/// `InvalidInput` when the soft one is above the hard one.
pub fn set(resource: Resource, soft: u64, hard: u64) -> io::Result<()> {
    Ok(setrlimit(resource, soft, hard)?)
}

/// Nice value of the calling thread: -20 is served first, 19 last.
pub fn nice() -> i32 {
    const THIS_THREAD: libc::id_t = 0;
    // SAFETY: two integers; the kernel touches no memory of ours. It cannot fail for the caller itself, and
    // -1 is a value like any other.
    unsafe { libc::getpriority(libc::PRIO_PROCESS, THIS_THREAD) }
}

/// Sets it, for the threads and processes that this one starts from now on, too.
///
/// # Errors
/// `PermissionDenied` when that lowers it, and this process has neither `CAP_SYS_NICE` nor the limit
/// `RLIMIT_NICE` for it.
pub fn set_nice(nice: i32) -> io::Result<()> {
    const THIS_THREAD: libc::id_t = 0;
    // SAFETY: three integers; the kernel touches no memory of ours.
    cvt(unsafe { libc::setpriority(libc::PRIO_PROCESS, THIS_THREAD, nice) })?;
    Ok(())
}

/// Longest listen queue of a socket: `net.core.somaxconn`. A longer one is cut without a word.
///
/// 4096, the default since kernel 5.4, where the setting cannot be read.
pub fn somaxconn() -> u32 {
    const KERNEL_DEFAULT: u32 = 4096;
    std::fs::read_to_string("/proc/sys/net/core/somaxconn")
        .ok()
        .and_then(|text| text.trim().parse().ok())
        .unwrap_or(KERNEL_DEFAULT)
}

#[cfg(test)]
mod tests {
    use super::super::testing::alone;
    use super::*;

    #[test]
    fn the_listen_queue_has_a_limit() {
        assert!(somaxconn() > 0);
    }

    #[test]
    fn limits_are_read_back_and_hard_ones_bound_soft_ones() {
        alone("sys::limits::tests::limits_are_read_back_and_hard_ones_bound_soft_ones", || {
            set(Resource::RLIMIT_NOFILE, 300, 400).unwrap();
            assert_eq!(get(Resource::RLIMIT_NOFILE).unwrap(), (300, 400));
            let error = set(Resource::RLIMIT_NOFILE, 401, 400).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
        });
    }

    #[test]
    fn everybody_may_be_nicer() {
        let before = nice();
        // A thread of its own, which ends with it: there may be no way back.
        let nicer = std::thread::spawn(move || set_nice((before + 1).min(19)).map(|()| nice()));
        assert_eq!(nicer.join().unwrap().unwrap(), (before + 1).min(19));
        assert_eq!(nice(), before, "this thread is as it was");
    }
}
