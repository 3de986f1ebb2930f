//! Running a test body in a process of its own.
//!
//! The test harness is multi-threaded, so a test that forks, changes the environment or waits
//! for any child must not do it there. It runs itself again instead: the same test, by name, in
//! a fresh process with a marker variable.

#![allow(unsafe_code)]

use std::os::fd::BorrowedFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::{Command, Output};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::ForkResult;

use super::process::{Exit, Pid, exit_now, wait};

const MARKER: &str = "APPSERVER_TEST_ALONE";

/// Runs `body` in a fresh process of the test binary, and fails if that process does.
///
/// `test` is the full path of the calling test, as the harness prints it. The body runs on a
/// thread of the harness beside an idle main thread; it has the process to itself otherwise.
pub(crate) fn alone(test: &str, body: impl FnOnce()) {
    if is_alone(test) {
        body();
        return;
    }
    let output = rerun(test);
    assert!(
        output.status.success(),
        "{test} failed in its own process: {}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    // A renamed test would otherwise select nothing and pass.
    assert!(
        String::from_utf8_lossy(&output.stdout).contains("1 passed"),
        "no test is named {test}: correct the name given to alone()"
    );
}

/// Whether this process was started by [`alone`] or [`rerun`] for `test`.
pub(crate) fn is_alone(test: &str) -> bool {
    std::env::var_os(MARKER).is_some_and(|name| name == *test)
}

/// Runs `test` in a fresh process and returns what came of it.
pub(crate) fn rerun(test: &str) -> Output {
    command(test).output().expect("the test binary starts")
}

/// The command that runs `test` in a fresh process.
pub(crate) fn command(test: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("a test binary has a path"));
    command.args(["--exact", test, "--nocapture", "--test-threads=1"]).env(MARKER, test);
    command
}

/// Runs `body` in a forked child, which then leaves: with code 0, or 101 if it panicked. Only
/// from within [`alone`].
pub(crate) fn spawn_child(body: impl FnOnce()) -> Pid {
    // SAFETY: `alone` has seen to it that any other thread is asleep in the harness and holds
    // no lock.
    match unsafe { nix::unistd::fork() }.expect("a child can be forked") {
        ForkResult::Parent { child } => child,
        // A panic must not unwind into the harness, which the child has a copy of.
        ForkResult::Child => match catch_unwind(AssertUnwindSafe(body)) {
            Ok(()) => exit_now(0),
            Err(_) => exit_now(101),
        },
    }
}

/// Runs `body` in a forked child and fails if it panics. Only from within [`alone`].
pub(crate) fn in_child(body: impl FnOnce()) {
    assert_eq!(wait(spawn_child(body)).expect("it is our child"), Exit::Code(0));
}

/// Waits until `fd` is readable; fails after ten seconds.
pub(crate) fn await_readable(fd: BorrowedFd<'_>) {
    assert!(is_readable(fd, PollTimeout::from(10_000_u16)), "nothing came");
}

/// Whether `fd` is readable at this moment.
pub(crate) fn is_readable_now(fd: BorrowedFd<'_>) -> bool {
    is_readable(fd, PollTimeout::ZERO)
}

fn is_readable(fd: BorrowedFd<'_>, limit: PollTimeout) -> bool {
    poll(&mut [PollFd::new(fd, PollFlags::POLLIN)], limit).expect("poll takes any descriptor") == 1
}
