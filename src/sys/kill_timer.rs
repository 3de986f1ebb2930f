//! A process that ends itself, however stuck it is.
//!
//! A worker told to leave may be deep in application code that never returns. The timer here
//! lives in the kernel: once armed it kills, whether or not any code of ours runs again and
//! whether or not a master is left to watch.
#![allow(unsafe_code)]

use std::os::fd::{BorrowedFd, FromRawFd, IntoRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicPtr, AtomicU64, Ordering::SeqCst};
use std::time::Duration;
use std::{io, mem, ptr};

use super::process::Signal;
use super::{cvt, fd, signal};

/// Handle of the kernel timer; null until [`KillTimer::install`].
static TIMER: AtomicPtr<libc::c_void> = AtomicPtr::new(ptr::null_mut());
/// The process the timer belongs to: a forked child does not inherit it.
static OWNER: AtomicI32 = AtomicI32::new(0);
/// Nanoseconds the trigger allows.
static PATIENCE: AtomicU64 = AtomicU64::new(0);
/// Set by whoever arms first; the trigger never puts an end off.
static ARMED: AtomicBool = AtomicBool::new(false);
/// Where the trigger says that it came.
static NOTIFY: AtomicI32 = AtomicI32::new(-1);

/// The one timer of this process that ends in `SIGKILL`.
#[derive(Debug, Clone, Copy)]
pub struct KillTimer;

impl KillTimer {
    /// Makes `trigger` start a countdown of `after` to this process's death.
    ///
    /// Each trigger writes a byte to `notify`, so that code which is not stuck can leave in
    /// good order; the first one starts the countdown. `notify` must be non-blocking; a copy of
    /// it is kept. `trigger` must not be in a [`super::signal::SignalSource`] too, and is not to
    /// be reset afterwards. Timers do not pass through fork: install it in the child.
    ///
    /// # Errors
    /// When it is already installed in this process, or the kernel has no timer left.
    pub fn install(trigger: Signal, after: Duration, notify: BorrowedFd<'_>) -> io::Result<()> {
        let this = nix::unistd::getpid().as_raw();
        if OWNER.load(SeqCst) == this {
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, "the kill timer is already installed"));
        }
        let copy = fd::shelter(fd::duplicate(notify)?);
        let timer = create()?;

        ARMED.store(false, SeqCst);
        PATIENCE.store(nanoseconds(after), SeqCst);
        TIMER.store(timer, SeqCst);
        // The handler may run until the process ends, so the copy is never closed.
        NOTIFY.store(copy.into_raw_fd(), SeqCst);
        OWNER.store(this, SeqCst);

        Self::catch(trigger)
    }

    /// Takes the trigger back from application code that has installed a handler of its own.
    ///
    /// # Errors
    /// `NotFound` when the timer is not installed in this process.
    pub fn retake(trigger: Signal) -> io::Result<()> {
        if OWNER.load(SeqCst) != nix::unistd::getpid().as_raw() {
            return Err(io::Error::new(io::ErrorKind::NotFound, "the kill timer is not installed"));
        }
        Self::catch(trigger)
    }

    fn catch(trigger: Signal) -> io::Result<()> {
        // SAFETY: all zeroes is a valid sigaction.
        let mut action: libc::sigaction = unsafe { mem::zeroed() };
        action.sa_sigaction = on_trigger as *const () as usize;
        // Application code need not know that a signal passed by.
        action.sa_flags = libc::SA_RESTART;
        // SAFETY: the handler has the signature its flags ask for and is async-signal-safe.
        cvt(unsafe { libc::sigaction(trigger as libc::c_int, &raw const action, ptr::null_mut()) })?;
        Ok(())
    }

    /// Takes the timer away, armed or not: this process goes on as something else. The trigger does nothing
    /// from now on.
    ///
    /// # Errors
    /// `NotFound` when the timer is not installed in this process.
    pub fn remove(trigger: Signal) -> io::Result<()> {
        if OWNER.load(SeqCst) != nix::unistd::getpid().as_raw() {
            return Err(io::Error::new(io::ErrorKind::NotFound, "the kill timer is not installed"));
        }
        // First the handler, which uses all the rest.
        signal::shrug_off(&[trigger])?;
        OWNER.store(0, SeqCst);
        // SAFETY: the timer was made by `install` in this process, and nobody can arm it any more.
        cvt(unsafe { libc::timer_delete(TIMER.swap(ptr::null_mut(), SeqCst)) })?;
        let notify = NOTIFY.swap(-1, SeqCst);
        // SAFETY: `install` gave up a copy that nobody else owns, and no handler writes to it any more.
        drop(unsafe { OwnedFd::from_raw_fd(notify) });
        Ok(())
    }

    /// Sets the remaining time to `after` from now, whether or not the countdown has begun. A
    /// trigger that comes later does not change it.
    ///
    /// # Errors
    /// `NotFound` when the timer is not installed in this process.
    pub fn arm_kill(after: Duration) -> io::Result<()> {
        if OWNER.load(SeqCst) != nix::unistd::getpid().as_raw() {
            return Err(io::Error::new(io::ErrorKind::NotFound, "the kill timer is not installed"));
        }
        // First, so that a trigger between the two lines cannot lengthen the time.
        ARMED.store(true, SeqCst);
        cvt(arm(nanoseconds(after)))?;
        Ok(())
    }
}

fn create() -> io::Result<libc::timer_t> {
    // SAFETY: all zeroes is a valid sigevent.
    let mut event: libc::sigevent = unsafe { mem::zeroed() };
    event.sigev_notify = libc::SIGEV_SIGNAL;
    event.sigev_signo = libc::SIGKILL;
    let mut timer: libc::timer_t = ptr::null_mut();
    // SAFETY: both pointers are valid for the call.
    cvt(unsafe { libc::timer_create(libc::CLOCK_MONOTONIC, &raw mut event, &raw mut timer) })?;
    Ok(timer)
}

/// Never 0, which would disarm.
fn nanoseconds(after: Duration) -> u64 {
    u64::try_from(after.as_nanos()).unwrap_or(u64::MAX).max(1)
}

/// Starts or restarts the countdown. Async-signal-safe: `timer_settime` is, see
/// `signal-safety(7)`.
fn arm(nanoseconds: u64) -> libc::c_int {
    const PER_SECOND: u64 = 1_000_000_000;
    // SAFETY: all zeroes is a valid itimerspec, one that does not repeat.
    let mut spec: libc::itimerspec = unsafe { mem::zeroed() };
    spec.it_value.tv_sec = (nanoseconds / PER_SECOND) as libc::time_t;
    spec.it_value.tv_nsec = (nanoseconds % PER_SECOND) as libc::c_long;
    // SAFETY: the timer exists, as TIMER is set before the handler is installed and never
    // deleted; `spec` is valid for the call.
    unsafe { libc::timer_settime(TIMER.load(SeqCst), 0, &raw const spec, ptr::null_mut()) }
}

/// Runs in signal context: atomics, `timer_settime`, `getpid` and `write` only.
extern "C" fn on_trigger(_signal: libc::c_int) {
    let errno = nix::errno::Errno::last();
    // A forked child that did not reset its handlers has neither the timer nor a say here.
    // SAFETY: getpid has no preconditions.
    if OWNER.load(SeqCst) == unsafe { libc::getpid() } {
        if !ARMED.swap(true, SeqCst) {
            arm(PATIENCE.load(SeqCst));
        }
        let byte = 0_u8;
        // SAFETY: the descriptor is a copy of ours that is never closed; one byte is valid. A
        // full pipe loses the byte, but then the reader has one already.
        unsafe { libc::write(NOTIFY.load(SeqCst), (&raw const byte).cast(), 1) };
    }
    errno.set();
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::super::process::{Exit, kill, this, wait};
    use super::super::testing::{alone, in_child, spawn_child};
    use super::*;

    const KILLED: Exit = Exit::Signal { number: 9, core: false };

    fn stuck() -> ! {
        loop {
            std::hint::spin_loop();
        }
    }

    #[test]
    fn a_stuck_process_dies_after_the_trigger() {
        alone("sys::kill_timer::tests::a_stuck_process_dies_after_the_trigger", || {
            let (read, write) = fd::pipe().unwrap();
            fd::set_nonblocking(write.as_fd(), true).unwrap();
            let pid = spawn_child(|| {
                KillTimer::install(Signal::SIGUSR1, Duration::from_millis(30), write.as_fd()).unwrap();
                kill(this(), Signal::SIGUSR1).unwrap();
                kill(this(), Signal::SIGUSR1).unwrap();
                stuck()
            });
            drop(write);
            assert_eq!(wait(pid).unwrap(), KILLED);
            let mut bytes = [1; 8];
            assert_eq!(nix::unistd::read(&read, &mut bytes).unwrap(), 2);
        });
    }

    #[test]
    fn the_time_left_can_be_shortened_before_and_after_the_trigger() {
        alone("sys::kill_timer::tests::the_time_left_can_be_shortened_before_and_after_the_trigger", || {
            for trigger_first in [true, false] {
                let (_read, write) = fd::pipe().unwrap();
                let pid = spawn_child(|| {
                    KillTimer::install(Signal::SIGUSR1, Duration::from_secs(600), write.as_fd()).unwrap();
                    if trigger_first {
                        kill(this(), Signal::SIGUSR1).unwrap();
                    }
                    KillTimer::arm_kill(Duration::from_millis(30)).unwrap();
                    kill(this(), Signal::SIGUSR1).unwrap();
                    stuck()
                });
                assert_eq!(wait(pid).unwrap(), KILLED);
            }
        });
    }

    #[test]
    fn a_timer_that_is_taken_away_kills_nobody_and_can_be_installed_again() {
        alone(
            "sys::kill_timer::tests::a_timer_that_is_taken_away_kills_nobody_and_can_be_installed_again",
            || {
                let (_read, write) = fd::pipe().unwrap();
                let pid = spawn_child(|| {
                    let hour = Duration::from_secs(3600);
                    let before = fd::open_fds().unwrap();
                    KillTimer::install(Signal::SIGUSR1, hour, write.as_fd()).unwrap();
                    KillTimer::arm_kill(Duration::from_millis(30)).unwrap();
                    KillTimer::remove(Signal::SIGUSR1).unwrap();
                    kill(this(), Signal::SIGUSR1).unwrap();
                    assert!(KillTimer::remove(Signal::SIGUSR1).is_err());
                    assert_eq!(fd::open_fds().unwrap(), before);
                    // Longer than it was armed for.
                    std::thread::sleep(Duration::from_millis(60));
                    KillTimer::install(Signal::SIGUSR1, hour, write.as_fd()).unwrap();
                    super::super::process::exit_now(7);
                });
                assert_eq!(wait(pid).unwrap(), Exit::Code(7));
            },
        );
    }

    #[test]
    fn no_patience_at_all_kills_at_once() {
        alone("sys::kill_timer::tests::no_patience_at_all_kills_at_once", || {
            let (_read, write) = fd::pipe().unwrap();
            let pid = spawn_child(|| {
                KillTimer::install(Signal::SIGUSR1, Duration::ZERO, write.as_fd()).unwrap();
                kill(this(), Signal::SIGUSR1).unwrap();
                stuck()
            });
            assert_eq!(wait(pid).unwrap(), KILLED);
        });
    }

    #[test]
    fn the_timer_is_installed_once_and_by_the_process_it_kills() {
        alone("sys::kill_timer::tests::the_timer_is_installed_once_and_by_the_process_it_kills", || {
            let (_read, write) = fd::pipe().unwrap();
            let after = Duration::from_secs(600);
            assert_eq!(KillTimer::arm_kill(after).unwrap_err().kind(), io::ErrorKind::NotFound);
            KillTimer::install(Signal::SIGUSR1, after, write.as_fd()).unwrap();
            let again = KillTimer::install(Signal::SIGUSR1, after, write.as_fd()).unwrap_err();
            assert_eq!(again.kind(), io::ErrorKind::AlreadyExists);
            in_child(|| {
                assert!(KillTimer::arm_kill(after).is_err());
                KillTimer::install(Signal::SIGUSR1, after, write.as_fd()).unwrap();
            });
        });
    }
}
