//! What careless code does: opens a descriptor that survives execve, and forgets it.

use std::fs::File;
use std::io;

use nix::fcntl::{FcntlArg, fcntl};

/// Leaks a descriptor without close-on-exec; its number, `from` or the next free one.
pub fn descriptor(from: i32) -> io::Result<i32> {
    Ok(fcntl(File::open("/dev/null")?, FcntlArg::F_DUPFD(from))?)
}
