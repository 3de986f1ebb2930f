//! The application's locks (`uwsgi.lock`), shared by all workers of all generations.
//!
//! The master makes them once and passes them on to every zygote and over every re-exec, so that an
//! old and a new worker exclude each other as two of one generation do.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};

use crate::sys::robust::{Robust, Taken, WORDS};
use crate::sys::shm::SharedMemory;

/// Locks that exist; how many of them an application may use is up to the option `locks`.
pub const MOST: u32 = 256;

const BYTES: usize = MOST as usize * WORDS * 8;

/// The locks.
#[derive(Debug)]
pub struct Locks {
    memory: SharedMemory,
}

impl Locks {
    /// Makes them.
    ///
    /// # Errors
    /// When memory or descriptors are short.
    pub fn create() -> io::Result<Self> {
        let locks = Locks { memory: SharedMemory::create(c"appserver-locks", BYTES)? };
        (0..MOST).try_for_each(|index| locks.at(index).make())?;
        Ok(locks)
    }

    /// Takes those that another process has made.
    ///
    /// # Errors
    /// When it is not the memory of locks.
    pub fn adopt(file: OwnedFd) -> io::Result<Self> {
        Ok(Locks { memory: SharedMemory::adopt(file, BYTES)? })
    }

    /// The memory file, to pass on.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.memory.fd()
    }

    fn at(&self, index: u32) -> Robust<'_> {
        let start = index.min(MOST - 1) as usize * WORDS;
        Robust::at(&self.memory.words()[start..start + WORDS])
    }

    /// Takes a lock, waiting for it as long as it takes.
    ///
    /// # Errors
    /// When this thread has it already.
    pub fn lock(&self, index: u32) -> io::Result<Taken> {
        self.at(index).lock()
    }

    /// Gives a lock back.
    ///
    /// # Errors
    /// When this thread does not have it.
    pub fn unlock(&self, index: u32) -> io::Result<()> {
        self.at(index).unlock()
    }

    /// Whether somebody has a lock. A holder that died has it no more.
    ///
    /// # Errors
    /// When the lock is beyond use.
    pub fn is_locked(&self, index: u32) -> io::Result<bool> {
        match self.at(index).try_lock()? {
            None => Ok(true),
            Some(_) => self.at(index).unlock().map(|()| false),
        }
    }
}
