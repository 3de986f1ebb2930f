//! Notices that somebody has removed or replaced the master FIFO.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use crate::sys::inotify::{Inotify, Mask};

/// An inotify(7) watch on the FIFO's inode.
#[derive(Debug)]
pub struct FifoWatch {
    inotify: Inotify,
}

impl FifoWatch {
    /// Watches the FIFO at `path`.
    ///
    /// # Errors
    /// When the user's limit on watches is reached; a removal then goes unnoticed.
    pub fn new(path: &Path) -> io::Result<Self> {
        let inotify = Inotify::new()?;
        // Unlinking shows as IN_ATTRIB, for the link count: the inode itself lives on, it is open.
        inotify.add_watch(path, Mask::IN_ATTRIB | Mask::IN_MOVE_SELF | Mask::IN_DELETE_SELF)?;
        Ok(FifoWatch { inotify })
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
