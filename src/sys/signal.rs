//! Signals: masks, dispositions, and the source an event loop waits on.
#![allow(unsafe_code)]

use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::{fmt, io, mem, ptr};

use mio::event::Source;
use mio::{Interest, Registry, Token};
pub use nix::sys::signal::Signal;
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet};
use signal_hook_mio::v1_0::Signals;

use super::cvt;
pub use super::kill_timer::KillTimer;

/// Blocks the given signals in the calling thread; what arrives stays [`pending`].
///
/// # Errors
/// None that the kernel documents.
pub fn block(signals: &[Signal]) -> io::Result<()> {
    Ok(signals.iter().copied().collect::<SigSet>().thread_block()?)
}

/// Unblocks the given signals in the calling thread.
///
/// # Errors
/// None that the kernel documents.
pub fn unblock(signals: &[Signal]) -> io::Result<()> {
    Ok(signals.iter().copied().collect::<SigSet>().thread_unblock()?)
}

/// Unblocks every signal in the calling thread. The mask survives `execve` and fork, so a new
/// image and a new child cannot know what they were given.
///
/// # Errors
/// None that the kernel documents.
pub fn unblock_all() -> io::Result<()> {
    Ok(SigSet::empty().thread_set_mask()?)
}

/// Blocks all signals in the calling thread, so that other threads of the process get them; the mask it
/// had. Async-signal-safe.
pub fn block_all() -> libc::sigset_t {
    // SAFETY: all zeroes is a valid set.
    let (mut all, mut old): (libc::sigset_t, libc::sigset_t) = unsafe { (mem::zeroed(), mem::zeroed()) };
    // SAFETY: both sets are valid for the calls, which cannot fail with these arguments.
    unsafe {
        libc::sigfillset(&raw mut all);
        libc::pthread_sigmask(libc::SIG_SETMASK, &raw const all, &raw mut old);
    }
    old
}

/// Gives the calling thread the mask that [`block_all`] has returned. Async-signal-safe.
pub(super) fn restore_mask(mask: Option<libc::sigset_t>) {
    if let Some(mask) = mask {
        // SAFETY: a set that the kernel has filled; this cannot fail.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const mask, ptr::null_mut()) };
    }
}

/// Gives every signal its default action, also the real-time ones and those that were ignored,
/// which `execve` would pass on.
///
/// In a forked child drop the parent's [`SignalSource`] as well: it writes to the parent's pipe.
///
/// # Errors
/// None: signals whose action cannot be changed are passed over.
pub fn reset_all() -> io::Result<()> {
    for number in 1..=libc::SIGRTMAX() {
        // SAFETY: all zeroes is a valid sigaction, SIG_DFL with an empty mask.
        let default: libc::sigaction = unsafe { mem::zeroed() };
        // SAFETY: `default` is valid for the call and installs no code.
        let set = cvt(unsafe { libc::sigaction(number, &raw const default, ptr::null_mut()) });
        // SIGKILL, SIGSTOP and the two real-time signals the C library keeps for itself.
        if let Err(error) = set
            && error.raw_os_error() != Some(libc::EINVAL)
        {
            return Err(error);
        }
    }
    Ok(())
}

/// Ignores a signal; an ignored signal stays ignored across `execve`.
///
/// # Errors
/// For `SIGKILL` and `SIGSTOP`.
pub fn ignore(signal: Signal) -> io::Result<()> {
    // SAFETY: SIG_IGN installs no code.
    unsafe { nix::sys::signal::signal(signal, SigHandler::SigIgn) }?;
    Ok(())
}

extern "C" fn nothing(_: libc::c_int) {}

/// The action of a signal: `SIG_DFL`, `SIG_IGN`, or the address of its handler.
fn action(number: libc::c_int) -> libc::sighandler_t {
    // SAFETY: all zeroes is a valid sigaction.
    let mut action: libc::sigaction = unsafe { mem::zeroed() };
    // SAFETY: `action` is valid for the call; a null new action changes nothing.
    unsafe { libc::sigaction(number, ptr::null(), &raw mut action) };
    action.sa_sigaction
}

/// Those of `signals` that have their default action, which application code may have given back to
/// them.
pub fn defaulted(signals: &[Signal]) -> Vec<Signal> {
    signals.iter().copied().filter(|signal| action(*signal as libc::c_int) == libc::SIG_DFL).collect()
}

/// Signals that [`remember_own_handler`] was told, and their handlers.
static OWN: [AtomicUsize; 65] = [const { AtomicUsize::new(0) }; 65];

/// The handler that `signal` has now is ours.
pub fn remember_own_handler(signal: Signal) {
    OWN[signal as usize].store(action(signal as libc::c_int), Ordering::Relaxed);
}

/// Gives the signals whose handlers are ours their default actions. Async-signal-safe.
pub(super) fn forget_own_handlers() {
    for (number, own) in OWN.iter().enumerate().skip(1) {
        let number = number as libc::c_int;
        let now = action(number);
        if now == nothing as *const () as usize || (now > libc::SIG_IGN && now == own.load(Ordering::Relaxed))
        {
            // SAFETY: SIG_DFL installs no code.
            unsafe { libc::signal(number, libc::SIG_DFL) };
        }
    }
}

/// Catches signals and does nothing about them.
///
/// Unlike [`ignore`] this does not reach programs that the process executes: they start with the
/// default action, as they may expect.
///
/// # Errors
/// For signals nobody may catch.
pub fn shrug_off(signals: &[Signal]) -> io::Result<()> {
    let action = SigAction::new(SigHandler::Handler(nothing), SaFlags::SA_RESTART, SigSet::empty());
    for signal in signals {
        // SAFETY: the handler runs no code that could interfere with what it interrupts.
        unsafe { nix::sys::signal::sigaction(*signal, &action) }?;
    }
    Ok(())
}

/// Writes a byte to `pipe` whenever `signal` arrives, for a loop that watches the other end.
///
/// # Errors
/// For signals nobody may catch.
pub fn write_on(signal: Signal, pipe: OwnedFd) -> io::Result<Writing> {
    let number = signal as libc::c_int;
    let is_first = HANDLER.load(Ordering::Relaxed) == 0;
    let writing = Writing(signal_hook::low_level::pipe::register(number, pipe)?);
    // Where it was caught before, signal-hook does not look whose handler is there now.
    if is_first {
        ensure_caught(number)?
    } else {
        install_again(number)?
    }
    Ok(writing)
}

/// What [`write_on`] does, for as long as the process lives or until it is ended.
#[derive(Debug)]
pub struct Writing(signal_hook::SigId);

impl Writing {
    /// Closes the pipe; the signal does nothing from now on.
    pub fn end(self) {
        signal_hook::low_level::unregister(self.0);
    }
}

/// Whether a blocked signal has arrived and waits for its delivery.
pub fn pending(signal: Signal) -> bool {
    // SAFETY: all zeroes is a valid set.
    let mut set: libc::sigset_t = unsafe { mem::zeroed() };
    // SAFETY: `set` is valid for both calls.
    unsafe { libc::sigpending(&raw mut set) == 0 && libc::sigismember(&raw const set, signal as i32) == 1 }
}

/// Signals as an event source: the handler only writes to a pipe that the loop watches.
pub struct SignalSource {
    /// `None` only while it is dropped.
    signals: Option<Signals>,
}

impl SignalSource {
    /// Catches the given signals from now on.
    ///
    /// # Errors
    /// For signals nobody may catch, and when no descriptor is left.
    pub fn new(signals: &[Signal]) -> io::Result<Self> {
        let numbers: Vec<libc::c_int> = signals.iter().map(|signal| *signal as libc::c_int).collect();
        if let Some(signal) = numbers.iter().find(|number| signal_hook::consts::FORBIDDEN.contains(number)) {
            let text = format!("signal {signal} cannot be waited for");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
        let source = SignalSource { signals: Some(Signals::new(&numbers)?) };
        numbers.into_iter().try_for_each(ensure_caught)?;
        Ok(source)
    }

    /// The signals that arrived since the last call, each once however often it came.
    pub fn pending(&mut self) -> impl Iterator<Item = Signal> {
        self.signals().pending().filter_map(|number| Signal::try_from(number).ok())
    }

    fn signals(&mut self) -> &mut Signals {
        self.signals.as_mut().expect("invariant: there until it is dropped")
    }
}

impl Drop for SignalSource {
    /// Signals wait while the handlers are taken down. signal-hook closes the end of its pipe that is
    /// read before that: a signal in between would write to a broken pipe, which raises `SIGPIPE`,
    /// whose handler writes to it again, for ever.
    fn drop(&mut self) {
        let mask = block_all();
        drop(self.signals.take());
        restore_mask(Some(mask));
    }
}

impl fmt::Debug for SignalSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SignalSource").finish_non_exhaustive()
    }
}

impl Source for SignalSource {
    fn register(&mut self, registry: &Registry, token: Token, interests: Interest) -> io::Result<()> {
        self.signals().register(registry, token, interests)
    }

    fn reregister(&mut self, registry: &Registry, token: Token, interests: Interest) -> io::Result<()> {
        self.signals().reregister(registry, token, interests)
    }

    fn deregister(&mut self, registry: &Registry) -> io::Result<()> {
        self.signals().deregister(registry)
    }
}

/// The handler signal-hook installs: one function for all signals.
static HANDLER: AtomicUsize = AtomicUsize::new(0);

/// Puts the handler of signal-hook back where [`reset_all`] has taken it away.
///
/// signal-hook installs a handler once per signal and process and does not look again. A forked
/// child inherits that belief, and after `reset_all` it would wait for signals that kill it.
fn ensure_caught(number: libc::c_int) -> io::Result<()> {
    // SAFETY: all zeroes is a valid sigaction.
    let mut action: libc::sigaction = unsafe { mem::zeroed() };
    // SAFETY: `action` is valid for the call; a null new action changes nothing.
    cvt(unsafe { libc::sigaction(number, ptr::null(), &raw mut action) })?;
    if ![libc::SIG_DFL, libc::SIG_IGN].contains(&action.sa_sigaction) {
        HANDLER.store(action.sa_sigaction, Ordering::Relaxed);
        return Ok(());
    }
    install_again(number)
}

fn install_again(number: libc::c_int) -> io::Result<()> {
    // SAFETY: all zeroes is a valid sigaction.
    let mut action: libc::sigaction = unsafe { mem::zeroed() };
    action.sa_sigaction = HANDLER.load(Ordering::Relaxed);
    if action.sa_sigaction == 0 {
        return Err(io::Error::other(format!("the handler of signal {number} was not installed")));
    }
    action.sa_flags = libc::SA_SIGINFO | libc::SA_RESTART;
    // SAFETY: the function was installed by signal-hook in this process image with these flags.
    cvt(unsafe { libc::sigaction(number, &raw const action, ptr::null_mut()) })?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use nix::sys::signal::raise;

    use super::super::process::{Exit, kill, this, wait};
    use super::super::testing::{alone, in_child, spawn_child};
    use super::*;

    #[test]
    fn a_blocked_signal_is_pending_until_it_is_unblocked() {
        alone("sys::signal::tests::a_blocked_signal_is_pending_until_it_is_unblocked", || {
            ignore(Signal::SIGUSR1).unwrap();
            block(&[Signal::SIGUSR2]).unwrap();
            assert!(!pending(Signal::SIGUSR2));
            raise(Signal::SIGUSR2).unwrap();
            assert!(pending(Signal::SIGUSR2));
            assert!(!pending(Signal::SIGUSR1));
            ignore(Signal::SIGUSR2).unwrap();
            unblock_all().unwrap();
            assert!(!pending(Signal::SIGUSR2));
        });
    }

    #[test]
    fn a_source_reports_each_signal_once() {
        alone("sys::signal::tests::a_source_reports_each_signal_once", || {
            let mut source = SignalSource::new(&[Signal::SIGHUP, Signal::SIGUSR1]).unwrap();
            raise(Signal::SIGHUP).unwrap();
            raise(Signal::SIGHUP).unwrap();
            assert_eq!(source.pending().collect::<Vec<_>>(), [Signal::SIGHUP]);
            assert_eq!(source.pending().count(), 0);
        });
    }

    #[test]
    fn a_source_wakes_the_loop() {
        alone("sys::signal::tests::a_source_wakes_the_loop", || {
            let mut poll = mio::Poll::new().unwrap();
            let mut source = SignalSource::new(&[Signal::SIGHUP]).unwrap();
            poll.registry().register(&mut source, Token(7), Interest::READABLE).unwrap();
            raise(Signal::SIGHUP).unwrap();
            let mut events = mio::Events::with_capacity(4);
            poll.poll(&mut events, Some(std::time::Duration::from_secs(10))).unwrap();
            assert_eq!(events.iter().next().unwrap().token(), Token(7));
            assert_eq!(source.pending().collect::<Vec<_>>(), [Signal::SIGHUP]);
        });
    }

    #[test]
    fn signals_that_arrive_while_a_source_is_dropped_do_no_harm() {
        alone("sys::signal::tests::signals_that_arrive_while_a_source_is_dropped_do_no_harm", || {
            // In a child: it has one thread, as a master has.
            in_child(|| {
                let signals = crate::control::MASTER_SIGNALS;
                shrug_off(signals).unwrap();
                let target = this();
                let sender = spawn_child(move || while kill(target, Signal::SIGCHLD).is_ok() {});
                for _ in 0..500 {
                    drop(SignalSource::new(signals).unwrap());
                }
                kill(sender, Signal::SIGKILL).unwrap();
                wait(sender).unwrap();
            });
        });
    }

    #[test]
    fn a_child_that_reset_all_can_catch_signals_again() {
        alone("sys::signal::tests::a_child_that_reset_all_can_catch_signals_again", || {
            let parent = SignalSource::new(&[Signal::SIGTERM]).unwrap();
            in_child(|| {
                drop(parent);
                reset_all().unwrap();
                let mut own = SignalSource::new(&[Signal::SIGTERM, Signal::SIGUSR1]).unwrap();
                raise(Signal::SIGTERM).unwrap();
                assert_eq!(own.pending().collect::<Vec<_>>(), [Signal::SIGTERM]);
            });
        });
    }

    #[test]
    fn a_child_that_reset_all_dies_of_an_uncaught_signal() {
        alone("sys::signal::tests::a_child_that_reset_all_dies_of_an_uncaught_signal", || {
            ignore(Signal::SIGTERM).unwrap();
            let child = spawn_child(|| {
                reset_all().unwrap();
                kill(this(), Signal::SIGTERM).unwrap();
            });
            assert_eq!(wait(child).unwrap(), Exit::Signal { number: 15, core: false });
        });
    }

    #[test]
    fn signals_nobody_may_catch_are_refused() {
        for signal in [Signal::SIGKILL, Signal::SIGSTOP, Signal::SIGSEGV] {
            assert_eq!(SignalSource::new(&[signal]).unwrap_err().kind(), io::ErrorKind::InvalidInput);
        }
    }
}
