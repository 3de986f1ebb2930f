//! POSIX record locks: who is the living owner of a file.
//!
//! The kernel drops such a lock when its process ends in any way, and it survives `execve`
//! because the pid does. Two properties to mind (`fcntl_locking(2)`): a forked child does *not*
//! have it, and closing **any** descriptor of the file in the owning process drops it.

use std::io;
use std::os::fd::BorrowedFd;

use nix::fcntl::{FcntlArg, fcntl};

use super::process::Pid;

/// Locks the whole file for this process, without waiting. `false`: another process holds it.
///
/// # Errors
/// When the descriptor is not open for writing, or the file system has no locks.
pub fn try_lock(fd: BorrowedFd<'_>) -> io::Result<bool> {
    match fcntl(fd, FcntlArg::F_SETLK(&whole_file())) {
        Ok(_) => Ok(true),
        Err(nix::Error::EAGAIN | nix::Error::EACCES) => Ok(false),
        Err(errno) => Err(errno.into()),
    }
}

/// Locks the whole file for this process and waits for its present holder to end or let go.
/// Interruptions are retried.
///
/// # Errors
/// As [`try_lock`], and when the kernel sees a deadlock.
pub fn wait_lock(fd: BorrowedFd<'_>) -> io::Result<()> {
    super::retry(|| Ok(fcntl(fd, FcntlArg::F_SETLKW(&whole_file()))?))?;
    Ok(())
}

/// The process that holds a lock which [`try_lock`] of *this* process would meet.
///
/// `None` when nobody does, and when this process itself does. The pid is 0 for a holder that
/// is invisible from this pid namespace.
///
/// # Errors
/// When the file system has no locks.
pub fn holder(fd: BorrowedFd<'_>) -> io::Result<Option<Pid>> {
    let mut lock = whole_file();
    fcntl(fd, FcntlArg::F_GETLK(&mut lock))?;
    Ok((libc::c_int::from(lock.l_type) != libc::F_UNLCK).then(|| Pid::from_raw(lock.l_pid)))
}

fn whole_file() -> libc::flock {
    const TO_THE_END: libc::off_t = 0;
    libc::flock {
        l_type: libc::F_WRLCK as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: 0,
        l_len: TO_THE_END,
        l_pid: 0,
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::super::process::{Exit, this, wait};
    use super::super::testing::{alone, in_child, spawn_child};
    use super::*;

    #[test]
    fn others_see_the_lock_and_its_owner() {
        alone("sys::lock::tests::others_see_the_lock_and_its_owner", || {
            let file = tempfile::tempfile().unwrap();
            assert!(try_lock(file.as_fd()).unwrap());
            assert!(try_lock(file.as_fd()).unwrap());
            assert_eq!(holder(file.as_fd()).unwrap(), None);
            let owner = this();
            in_child(|| {
                assert!(!try_lock(file.as_fd()).unwrap());
                assert_eq!(holder(file.as_fd()).unwrap(), Some(owner));
            });
        });
    }

    #[test]
    fn a_lock_can_be_waited_for() {
        alone("sys::lock::tests::a_lock_can_be_waited_for", || {
            let file = tempfile::tempfile().unwrap();
            assert!(try_lock(file.as_fd()).unwrap());
            let (read, write) = super::super::fd::pipe().unwrap();
            let child = spawn_child(|| {
                nix::unistd::write(&write, b"x").unwrap();
                wait_lock(file.as_fd()).unwrap();
            });
            nix::unistd::read(&read, &mut [0]).unwrap();
            drop(file);
            assert_eq!(wait(child).unwrap(), Exit::Code(0));
        });
    }

    #[test]
    fn a_lock_is_gone_with_its_process() {
        alone("sys::lock::tests::a_lock_is_gone_with_its_process", || {
            let file = tempfile::tempfile().unwrap();
            in_child(|| assert!(try_lock(file.as_fd()).unwrap()));
            assert_eq!(holder(file.as_fd()).unwrap(), None);
            assert!(try_lock(file.as_fd()).unwrap());
        });
    }
}
