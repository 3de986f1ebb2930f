//! Watching a descriptor from a tokio reactor.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::OwnedFd;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Registers a descriptor for reading with the reactor of this thread.
///
/// # Errors
/// When the reactor cannot watch this kind of file, or has no memory left.
///
/// # Panics
/// Outside of a tokio runtime.
pub fn readable(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    register(fd, Interest::READABLE)
}

/// The same for writing.
///
/// # Errors
/// As [`readable`].
///
/// # Panics
/// Outside of a tokio runtime.
pub fn writable(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    register(fd, Interest::WRITABLE)
}

/// The same for both, as a connection needs it.
///
/// # Errors
/// As [`readable`].
///
/// # Panics
/// Outside of a tokio runtime.
pub fn both_ways(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    register(fd, Interest::READABLE.add(Interest::WRITABLE))
}

fn register(fd: OwnedFd, interest: Interest) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an OwnedFd names the same open file for as long as it lives, and AsyncFd owns it.
    let watched = unsafe { AsyncFd::register_with_interest(fd, interest) };
    watched.map_err(|error| error.into_parts().1)
}
