//! Strays: processes that the application has forked from one of ours.
//!
//! They inherit everything: listeners that stay bound for as long as they live, handlers that write
//! to pipes of the worker, and the way back into our code. What must not be theirs is taken from
//! them as soon as they begin; [`is_stray`] tells when one comes back from the application.
//! Programs that the application executes are none: descriptors of ours are close-on-exec.
#![allow(unsafe_code)]

use std::cell::Cell;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::Once;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, Ordering::Relaxed};

use super::signal;

/// Listeners and channels of one process; more than anybody configures.
const ROOM: usize = 256;
const NONE: i32 = -1;

/// A descriptor that strays shall not have, and the file it is: the number may become another's.
struct Withheld {
    raw: AtomicI32,
    inode: AtomicU64,
}

static WITHHELD: [Withheld; ROOM] =
    [const { Withheld { raw: AtomicI32::new(NONE), inode: AtomicU64::new(0) } }; ROOM];
static STRAY: AtomicBool = AtomicBool::new(false);
static MADE: AtomicBool = AtomicBool::new(false);

thread_local! {
    /// This thread is forking on our behalf.
    static KNOWN: Cell<bool> = const { Cell::new(false) };
    /// The signal mask of the thread that forks.
    static MASK: Cell<Option<libc::sigset_t>> = const { Cell::new(None) };
}

/// From now on forks that are not `known` make strays.
pub fn watch() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // SAFETY: the functions are async-signal-safe, as a child of a process with threads demands.
        // Should the C library have no memory for it, strays keep what they inherit.
        unsafe { libc::pthread_atfork(Some(before), Some(in_parent), Some(in_child)) };
    });
}

/// Runs a fork of ours: its child is no stray.
pub(super) fn known<T>(fork: impl FnOnce() -> T) -> T {
    KNOWN.set(true);
    let result = fork();
    KNOWN.set(false);
    result
}

/// Strays begin with this descriptor closed, unless its number is by then that of another file.
pub fn withhold(fd: BorrowedFd<'_>) {
    let raw = fd.as_raw_fd();
    let free = WITHHELD.iter().find(|slot| [NONE, raw].contains(&slot.raw.load(Relaxed)));
    if let Some(slot) = free {
        slot.inode.store(inode(raw), Relaxed);
        slot.raw.store(raw, Relaxed);
    }
}

/// What was withheld is forgotten: this process is done with all of it. Strays that were made are forgotten
/// too, for none of them has a descriptor of what comes.
pub fn start_over() {
    for slot in &WITHHELD {
        slot.raw.store(NONE, Relaxed);
    }
    MADE.store(false, Relaxed);
}

/// Async-signal-safe; 0 for a number that is not open.
fn inode(raw: i32) -> u64 {
    // SAFETY: all zeroes is a valid stat.
    let mut status: libc::stat = unsafe { std::mem::zeroed() };
    // SAFETY: `status` is valid for the call; a number that is not open is an error.
    if unsafe { libc::fstat(raw, &raw mut status) } == 0 { status.st_ino } else { 0 }
}

/// This process was forked by the application, and not meant to run code of ours.
pub fn is_stray() -> bool {
    STRAY.load(Relaxed)
}

/// Strays were made: descriptors of this process may have a second owner, so that closing them here
/// ends no connection.
pub fn made() -> bool {
    MADE.load(Relaxed)
}

/// A signal that reached the child while it still has our handlers would be lost: it waits.
extern "C" fn before() {
    if !KNOWN.get() {
        MASK.set(Some(signal::block_all()));
    }
}

extern "C" fn in_parent() {
    if !KNOWN.get() {
        MADE.store(true, Relaxed);
        signal::restore_mask(MASK.get());
    }
}

extern "C" fn in_child() {
    if KNOWN.get() {
        return;
    }
    STRAY.store(true, Relaxed);
    signal::forget_own_handlers();
    signal::restore_mask(MASK.get());
    for slot in &WITHHELD {
        let raw = slot.raw.load(Relaxed);
        if raw != NONE && inode(raw) == slot.inode.load(Relaxed) {
            // SAFETY: whoever withheld it owns it; in this process nobody uses it any more.
            unsafe { libc::close(raw) };
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::super::testing::alone;
    use super::super::{fd, process};
    use super::*;

    #[test]
    fn a_stray_knows_what_it_is_and_lacks_what_was_withheld() {
        alone("sys::stray::tests::a_stray_knows_what_it_is_and_lacks_what_was_withheld", || {
            let (kept, withheld) = fd::pipe().expect("a pipe");
            watch();
            withhold(withheld.as_fd());
            // SAFETY: the child calls nothing but system calls.
            let pid = unsafe { libc::fork() };
            if pid == 0 {
                let as_expected =
                    is_stray() && fd::is_open(kept.as_raw_fd()) && !fd::is_open(withheld.as_raw_fd());
                process::exit_now(i32::from(!as_expected));
            }
            let exit = process::wait(process::Pid::from_raw(pid)).expect("our child");
            assert_eq!(exit, process::Exit::Code(0));
            assert!(!is_stray());
            // SAFETY: as above.
            let pid = known(|| unsafe { libc::fork() });
            if pid == 0 {
                process::exit_now(i32::from(is_stray()));
            }
            let exit = process::wait(process::Pid::from_raw(pid)).expect("our child");
            assert_eq!(exit, process::Exit::Code(0));
        });
    }
}
