//! Asking a process where its threads are: a signal of our own, and the answer when all is written down.
//!
//! The handler here only says that it has run. A language plugin puts one in front of it that writes the
//! stacks of all threads into [`sink`] first (Python: `faulthandler.register` with `chain`), without any lock
//! of its runtime: that works in a process whose threads wait for each other, or compute for ever.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::sync::atomic::{AtomicI32, Ordering::SeqCst};

use super::cvt;
use super::process::Pid;

/// What is sent over the control channel of the process that was asked: a whole message of it.
pub const ANSWER: &[u8] = b"\"Stacks\"";

/// Below the highest real-time signal, which debuggers take, and far from the lowest, which libraries do.
const BELOW_THE_HIGHEST: libc::c_int = 4;

/// The process that answers: a forked child does not.
static OWNER: AtomicI32 = AtomicI32::new(0);
/// Its control channel.
static CHANNEL: AtomicI32 = AtomicI32::new(-1);
/// Where stacks are written.
static SINK: AtomicI32 = AtomicI32::new(-1);

/// The signal that asks: 60 on Linux (`SIGRTMAX-4`).
pub fn number() -> i32 {
    libc::SIGRTMAX() - BELOW_THE_HIGHEST
}

/// Has this process, and those that it forks and that call [`answer_on`], say when it was asked. Stacks go
/// to `sink`, a descriptor that keeps its number.
///
/// # Errors
/// None that the kernel documents.
pub fn prepare(sink: BorrowedFd<'_>) -> io::Result<()> {
    SINK.store(sink.as_raw_fd(), SeqCst);
    // SAFETY: all zeroes is a valid sigaction.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = on_question as *const () as usize;
    action.sa_flags = libc::SA_RESTART;
    // SAFETY: the handler has the signature its flags ask for and is async-signal-safe.
    cvt(unsafe { libc::sigaction(number(), &raw const action, std::ptr::null_mut()) })?;
    Ok(())
}

/// This process answers on `channel` from now on, which must be of packets and stay open.
pub fn answer_on(channel: BorrowedFd<'_>) {
    CHANNEL.store(channel.as_raw_fd(), SeqCst);
    OWNER.store(nix::unistd::getpid().as_raw(), SeqCst);
}

/// The number of the descriptor that stacks are to be written to; `None` where nobody asks.
pub fn sink() -> Option<RawFd> {
    Some(SINK.load(SeqCst)).filter(|raw| *raw >= 0)
}

/// Asks a process.
///
/// # Errors
/// When it is gone, is not ours to signal, or the queue of real-time signals is full (`EAGAIN`).
pub fn ask(pid: Pid) -> io::Result<()> {
    if pid.as_raw() <= 0 {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("{pid} is not a process id")));
    }
    // SAFETY: takes two numbers.
    cvt(unsafe { libc::kill(pid.as_raw(), number()) })?;
    Ok(())
}

/// Writes down the stacks of this process, on the calling thread: done when this returns.
///
/// # Errors
/// None that the kernel documents.
pub fn ask_this_thread() -> io::Result<()> {
    // SAFETY: takes a number.
    cvt(unsafe { libc::raise(number()) })?;
    Ok(())
}

/// Whether a process has a handler for the question: without one it would die of it.
pub fn heeds(pid: Pid) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    is_caught(&status, number())
}

/// The mask of caught signals in `/proc/PID/status`, proc_pid_status(5).
fn is_caught(status: &str, signal: i32) -> bool {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    mask & (1 << (signal - 1)) != 0
}

/// Runs in signal context: atomics, `getpid` and `send` only.
extern "C" fn on_question(_signal: libc::c_int) {
    let errno = nix::errno::Errno::last();
    // SAFETY: getpid has no preconditions.
    if OWNER.load(SeqCst) == unsafe { libc::getpid() } {
        let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
        // SAFETY: the bytes are static. A channel that is full or gone loses the answer; whoever asked does
        // not wait for ever.
        unsafe { libc::send(CHANNEL.load(SeqCst), ANSWER.as_ptr().cast(), ANSWER.len(), flags) };
    }
    errno.set();
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::super::process::{self, this, wait};
    use super::super::seqpacket;
    use super::super::testing::{alone, await_readable, spawn_child};
    use super::*;

    #[test]
    fn a_process_that_is_stuck_answers_and_its_children_do_not() {
        alone("sys::stacks::tests::a_process_that_is_stuck_answers_and_its_children_do_not", || {
            let (ours, theirs) = seqpacket::pair().unwrap();
            assert!(!heeds(this()));
            prepare(theirs.as_fd()).unwrap();
            assert!(heeds(this()));
            let pid = spawn_child(|| {
                // A child that does not say that it answers has nothing to say.
                ask_this_thread().unwrap();
                answer_on(theirs.as_fd());
                let mut buffer = [0; 1];
                seqpacket::send(theirs.as_fd(), b"begun", &[]).unwrap();
                loop {
                    std::hint::black_box(&mut buffer);
                }
            });
            let hear = || {
                await_readable(ours.as_fd());
                let mut buffer = [0; 64];
                let received = seqpacket::recv(ours.as_fd(), &mut buffer).unwrap();
                buffer[..received.len].to_vec()
            };
            assert_eq!(hear(), b"begun");
            ask(pid).unwrap();
            assert_eq!(hear(), ANSWER);
            process::kill(pid, process::Signal::SIGKILL).unwrap();
            wait(pid).unwrap();
            assert!(ask(Pid::from_raw(0)).is_err());
        });
    }

    #[test]
    fn the_mask_of_caught_signals_is_read() {
        let status = "Name:\tx\nSigIgn:\tffffffffffffffff\nSigCgt:\t0800000000000001\n";
        assert!(is_caught(status, 60) && is_caught(status, 1));
        assert!(!is_caught(status, 59) && !is_caught("", 60));
    }
}
