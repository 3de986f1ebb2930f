//! Notices that somebody has removed or replaced the master FIFO.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::path::Path;

use crate::sys::inotify::{Inotify, Mask};

/// inotify(7) watches on the open FIFO and on what stands in its place.
#[derive(Debug)]
pub struct FifoWatch {
    inotify: Inotify,
}

impl FifoWatch {
    /// Watches `fifo`, and whatever else `path` names by now: should that go, the path is free again.
    ///
    /// # Errors
    /// When the user's limit on watches is reached; a removal then goes unnoticed.
    pub fn new(fifo: BorrowedFd<'_>, path: &Path) -> io::Result<Self> {
        // Unlinking shows as IN_ATTRIB, for the link count: the inode itself lives on, it is open.
        let events = Mask::IN_ATTRIB | Mask::IN_MOVE_SELF | Mask::IN_DELETE_SELF;
        let inotify = Inotify::new()?;
        // By descriptor, because the name may have gone while nobody watched it, as in an exec.
        inotify.add_watch(Path::new(&format!("/proc/self/fd/{}", fifo.as_raw_fd())), events)?;
        match inotify.add_watch(path, events) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(FifoWatch { inotify }),
        }
    }

    /// Forgets what has been noticed, so that the next change is told again.
    ///
    /// # Errors
    /// None that the kernel documents.
    pub fn acknowledge(&self) -> io::Result<()> {
        while !self.inotify.read()?.is_empty() {}
        Ok(())
    }
}

impl AsFd for FifoWatch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inotify.as_fd()
    }
}
