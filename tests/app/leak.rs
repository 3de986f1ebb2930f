//! What careless code does: opens a descriptor that survives execve, or takes memory, and forgets it.

use std::fs::File;
use std::io;

use nix::fcntl::{FcntlArg, fcntl};

/// Leaks a descriptor without close-on-exec; its number, `from` or the next free one.
pub fn descriptor(from: i32) -> io::Result<i32> {
    Ok(fcntl(File::open("/dev/null")?, FcntlArg::F_DUPFD(from))?)
}

/// Leaks so many MiB, which are in memory if they are touched.
pub fn memory(mebibytes: u64, touched: bool) {
    let bytes = usize::try_from(mebibytes << 20).expect("less than the machine has");
    let block: Vec<u8> = if touched { vec![1; bytes] } else { Vec::with_capacity(bytes) };
    block.leak();
}
