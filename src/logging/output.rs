//! Descriptor 2, to which the server writes its lines: whatever is wrong with the log, the server goes on.
//!
//! No lock is held meanwhile, for a process that the application forks at this moment from one with threads would
//! inherit it taken, and wait for ever when it logs itself (the one in [`std::io::Stderr`] among them).
//!
//! A disk may be full, the reader of a pipe gone or stuck. Then lines are lost, and counted; the count is
//! told as soon as the log takes lines again. A reader that is only slow is waited for, but once it has been
//! waited for in vain, not before it reads again.

use std::io::{self, ErrorKind, Write};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use crate::sys::output::{self, Kind};

/// How long a process waits for whoever reads the log, once.
const PATIENCE: Duration = Duration::from_secs(1);

/// What descriptor 2 is, as `look` has seen it.
static KIND: AtomicU8 = AtomicU8::new(encode(Kind::Plain));
/// Its reader was waited for in vain.
static STUCK: AtomicBool = AtomicBool::new(false);
/// Only the beginning of a line could be written.
static TORN: AtomicBool = AtomicBool::new(false);
/// Lines that were lost, not yet told.
static LOST: AtomicU64 = AtomicU64::new(0);

const fn encode(kind: Kind) -> u8 {
    match kind {
        Kind::Plain => 0,
        Kind::Pipe => 1,
        Kind::Socket => 2,
    }
}

fn kind() -> Kind {
    match KIND.load(Relaxed) {
        1 => Kind::Pipe,
        2 => Kind::Socket,
        _ => Kind::Plain,
    }
}

/// Looks what descriptor 2 leads to; to be called when it has changed.
pub(super) fn look() {
    KIND.store(encode(Kind::of(io::stderr().as_fd())), Relaxed);
    STUCK.store(false, Relaxed);
}

/// Descriptor 2 as it is, for [`Write`]: no buffer, and errors are for the caller.
#[derive(Debug)]
pub struct Output;

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn write(bytes: &[u8]) -> io::Result<usize> {
    // Only its number is taken from it: the lock is that of its methods.
    let log = io::stderr();
    let mut deadline = None;
    loop {
        let kind = kind();
        let error = match output::write_now(log.as_fd(), kind, bytes) {
            Ok(count) => {
                // A short line may find a corner in a pipe that is as good as full.
                if STUCK.load(Relaxed) && output::await_room(log.as_fd(), Duration::ZERO)? {
                    STUCK.store(false, Relaxed);
                }
                return Ok(count);
            }
            Err(error) => error,
        };
        if Kind::of(log.as_fd()) != kind {
            // The application has put something else there, for which this error means nothing.
            look();
            continue;
        }
        if error.kind() != ErrorKind::WouldBlock {
            return Err(error);
        }
        let now = Instant::now();
        let left = deadline.get_or_insert(now + PATIENCE).saturating_duration_since(now);
        if STUCK.load(Relaxed) || left.is_zero() || !output::await_room(log.as_fd(), left)? {
            STUCK.store(true, Relaxed);
            return Err(error);
        }
    }
}

/// Writes a line of the server log, its newline included; one that cannot be written is counted.
pub(super) fn line(line: &[u8], tell_lost: impl FnOnce(u64) -> String) {
    if whole(line).is_err() {
        LOST.fetch_add(1, Relaxed);
        return;
    }
    let lost = LOST.swap(0, Relaxed);
    if lost > 0 && whole(tell_lost(lost).as_bytes()).is_err() {
        LOST.fetch_add(lost, Relaxed);
    }
}

fn whole(line: &[u8]) -> io::Result<()> {
    if TORN.swap(false, Relaxed)
        && let Err(error) = Output.write_all(b"\n")
    {
        TORN.store(true, Relaxed);
        return Err(error);
    }
    let mut rest = line;
    while !rest.is_empty() {
        match write(rest) {
            Ok(count) if count > 0 => rest = &rest[count..],
            failed => {
                TORN.fetch_or(rest.len() < line.len(), Relaxed);
                return failed.and(Err(ErrorKind::WriteZero.into()));
            }
        }
    }
    Ok(())
}
