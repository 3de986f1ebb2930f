//! Locks between processes that survive whoever holds them; see pthread_mutexattr_setrobust(3).
//!
//! The kernel hands a lock on when its holder ends in any way. It belongs to a thread: nobody else can
//! give it back. It needs no descriptor, so an application that closes all it finds does no harm.
#![allow(unsafe_code)]

use std::io;
use std::mem::MaybeUninit;
use std::sync::atomic::AtomicU64;

/// Words of shared memory that a lock takes: a cache line, so that two do not disturb each other.
pub const WORDS: usize = 8;

const _: () = assert!(size_of::<libc::pthread_mutex_t>() <= WORDS * 8);
const _: () = assert!(align_of::<libc::pthread_mutex_t>() <= align_of::<AtomicU64>());

/// A lock in shared memory.
#[derive(Debug, Clone, Copy)]
pub struct Robust<'a> {
    words: &'a [AtomicU64],
}

/// How a lock was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taken {
    /// From nobody, or from a holder that gave it back.
    Clean,
    /// From a holder that died: what the lock protects may be half done.
    FromTheDead,
}

impl<'a> Robust<'a> {
    /// The lock in these words.
    ///
    /// # Panics
    /// When there are fewer than [`WORDS`].
    pub fn at(words: &'a [AtomicU64]) -> Self {
        assert!(words.len() >= WORDS);
        Robust { words }
    }

    fn mutex(self) -> *mut libc::pthread_mutex_t {
        self.words.as_ptr().cast_mut().cast()
    }

    /// Makes the lock. Once, before another process sees it.
    ///
    /// # Errors
    /// None that is documented for these attributes.
    pub fn make(self) -> io::Result<()> {
        let mut attributes = MaybeUninit::<libc::pthread_mutexattr_t>::uninit();
        let attributes = attributes.as_mut_ptr();
        // SAFETY: room for the attributes, which are set before they are used; the lock's memory is
        // large enough, aligned, and outlives this value's lifetime.
        unsafe {
            check(libc::pthread_mutexattr_init(attributes))?;
            check(libc::pthread_mutexattr_setpshared(attributes, libc::PTHREAD_PROCESS_SHARED))?;
            check(libc::pthread_mutexattr_setrobust(attributes, libc::PTHREAD_MUTEX_ROBUST))?;
            check(libc::pthread_mutexattr_settype(attributes, libc::PTHREAD_MUTEX_ERRORCHECK))?;
            check(libc::pthread_mutex_init(self.mutex(), attributes))?;
            check(libc::pthread_mutexattr_destroy(attributes))
        }
    }

    /// Takes the lock, waiting for it.
    ///
    /// # Errors
    /// `EDEADLK` when this thread has it already.
    pub fn lock(self) -> io::Result<Taken> {
        // SAFETY: a lock that was made.
        self.taken(unsafe { libc::pthread_mutex_lock(self.mutex()) })
    }

    /// Takes the lock if nobody has it.
    ///
    /// # Errors
    /// When the lock is beyond use.
    pub fn try_lock(self) -> io::Result<Option<Taken>> {
        // SAFETY: a lock that was made.
        match unsafe { libc::pthread_mutex_trylock(self.mutex()) } {
            libc::EBUSY => Ok(None),
            other => self.taken(other).map(Some),
        }
    }

    fn taken(self, result: libc::c_int) -> io::Result<Taken> {
        match result {
            0 => Ok(Taken::Clean),
            libc::EOWNERDEAD => {
                // SAFETY: taken just now from an owner that died.
                check(unsafe { libc::pthread_mutex_consistent(self.mutex()) })?;
                Ok(Taken::FromTheDead)
            }
            error => Err(io::Error::from_raw_os_error(error)),
        }
    }

    /// Gives the lock back.
    ///
    /// # Errors
    /// `EPERM` when this thread does not have it.
    pub fn unlock(self) -> io::Result<()> {
        // SAFETY: a lock that was made; that it is ours is checked there.
        check(unsafe { libc::pthread_mutex_unlock(self.mutex()) })
    }
}

/// The pthread functions return their error.
fn check(result: libc::c_int) -> io::Result<()> {
    if result == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(result)) }
}

#[cfg(test)]
mod tests {
    use super::super::shm::SharedMemory;
    use super::super::testing::{alone, in_child};
    use super::*;

    fn memory() -> SharedMemory {
        let memory = SharedMemory::create(c"test", WORDS * 8).expect("memory");
        Robust::at(memory.words()).make().expect("attributes that exist");
        memory
    }

    #[test]
    fn a_lock_excludes_others_and_whoever_has_it() {
        alone("sys::robust::tests::a_lock_excludes_others_and_whoever_has_it", || {
            let memory = memory();
            let lock = Robust::at(memory.words());
            assert_eq!(lock.lock().expect("free"), Taken::Clean);
            assert_eq!(lock.lock().expect_err("mine").raw_os_error(), Some(libc::EDEADLK));
            in_child(|| {
                assert_eq!(lock.try_lock().expect("usable"), None);
                assert_eq!(lock.unlock().expect_err("not mine").raw_os_error(), Some(libc::EPERM));
            });
            lock.unlock().expect("mine");
            in_child(|| assert_eq!(lock.lock().expect("free"), Taken::Clean));
        });
    }

    #[test]
    fn a_lock_of_the_dead_is_handed_on() {
        alone("sys::robust::tests::a_lock_of_the_dead_is_handed_on", || {
            let memory = memory();
            let lock = Robust::at(memory.words());
            in_child(|| assert_eq!(lock.lock().expect("free"), Taken::Clean));
            assert_eq!(lock.lock().expect("handed on"), Taken::FromTheDead);
            lock.unlock().expect("mine");
            assert_eq!(lock.lock().expect("free"), Taken::Clean);
        });
    }
}
