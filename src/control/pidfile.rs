//! The pidfile: who runs here, proven by a lock.
//!
//! The number alone proves nothing; it stays when the process dies and may be somebody else's
//! by now. So the running server keeps a record lock on the file, which the kernel drops with
//! the process and keeps across `execve`. A second start by mistake finds the lock and touches
//! nothing; a stale file is taken over.
//!
//! Closing *any* descriptor of the file drops the lock (`fcntl_locking(2)`), so the server
//! itself must not read its own pidfile, and one path must not be claimed twice.

mod lookup;

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

pub use lookup::{Owner, OwnerError, owner};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::sys::fs::{FileId, NO_FOLLOW, NON_BLOCK, Removal, remove_if_same, rename_noreplace};
use crate::sys::process::{self, Pid};
use crate::sys::{env, fd, lock};

/// Mode for [`Pidfile::claim`]: everybody may read it, nobody else may write it, whatever the
/// file creation mask of a daemon.
pub const MODE: u32 = 0o644;

/// Rounds of finding the name changed under our hands.
const ATTEMPTS: u32 = 16;

/// Why a pidfile cannot be ours.
#[derive(Debug, Error)]
pub enum PidfileError {
    /// A living process has it.
    #[error("pidfile {} belongs to the running process {pid}; stop that first or choose another path", path.display())]
    Locked {
        /// The pidfile.
        path: PathBuf,
        /// Its owner.
        pid: Pid,
    },
    /// The name is taken by something that is not a pidfile.
    #[error("pidfile {} is not a regular file; remove it or choose another path", path.display())]
    NotAFile {
        /// The pidfile.
        path: PathBuf,
    },
    /// Another process put its own file there after we had claimed ours.
    #[error("pidfile {} was replaced by somebody else while this server started", path.display())]
    Replaced {
        /// The pidfile.
        path: PathBuf,
    },
    /// Anything the system said.
    #[error("cannot use pidfile {}: {source}", path.display())]
    System {
        /// The pidfile.
        path: PathBuf,
        /// The error.
        source: io::Error,
    },
}

/// A pidfile this process has claimed.
#[derive(Debug)]
pub struct Pidfile {
    path: PathBuf,
    mode: u32,
    /// Holds the lock. Never read from.
    file: OwnedFd,
    id: FileId,
    /// Whose lock it is: a forked child has a copy of this value, but not the lock.
    locked_by: Pid,
    /// Made by the claim and without a number yet: to be removed if that never comes.
    empty: bool,
}

/// What the next image needs to know of a pidfile whose descriptor it inherits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PidfileState {
    /// Absolute path.
    pub path: PathBuf,
    /// Number of the descriptor.
    pub fd: RawFd,
    /// Mode of new files.
    pub mode: u32,
}

impl Pidfile {
    /// Makes sure that no other server runs with this pidfile, and that none can start with it.
    ///
    /// The content stays as it is until [`Pidfile::write`], so that a start which fails later
    /// has not destroyed anything. A file made here and never written is removed on drop.
    ///
    /// # Errors
    /// Names the running owner, or what is wrong with the file.
    pub fn claim(path: &Path, mode: u32) -> Result<Pidfile, PidfileError> {
        let path = env::cwd().map_or_else(|_| path.to_owned(), |directory| directory.join(path));
        let failed = |source| PidfileError::System { path: path.clone(), source };
        for _ in 0..ATTEMPTS {
            let (file, empty) = match open(&path, mode) {
                Ok(opened) => opened,
                // Removed between two looks.
                Err(error)
                    if error.kind() == io::ErrorKind::NotFound && path.parent().is_some_and(Path::exists) =>
                {
                    continue;
                }
                Err(source) => return Err(classify(&path, source)),
            };
            if !file.metadata().map_err(failed)?.is_file() {
                return Err(PidfileError::NotAFile { path });
            }
            if !lock::try_lock(file.as_fd()).map_err(failed)? {
                match lock::holder(file.as_fd()).map_err(failed)? {
                    Some(pid) => return Err(PidfileError::Locked { path, pid }),
                    None => continue,
                }
            }
            // Its previous owner may have removed or replaced it before we had the lock.
            let id = FileId::of_fd(file.as_fd()).map_err(failed)?;
            if FileId::of_path(&path).map_err(failed)? == Some(id) {
                return Ok(Pidfile { path, mode, file: file.into(), id, locked_by: process::this(), empty });
            }
        }
        Err(failed(io::Error::other("it changes all the time")))
    }

    /// Puts the number into the file. Readers see the old content or the new one, whole.
    ///
    /// Call it when the server is able to serve, again to repair a file that was removed.
    ///
    /// # Errors
    /// When the directory is not writable, or another process took the name.
    pub fn write(&mut self, pid: Pid) -> Result<(), PidfileError> {
        let failed = |source| PidfileError::System { path: self.path.clone(), source };
        let (mut file, temporary) = create_temporary(&self.path, self.mode).map_err(failed)?;
        let id = FileId::of_fd(file.as_fd()).map_err(failed)?;
        let written =
            fill(&mut file, self.mode, pid).map_err(failed).and_then(|()| self.put_in_place(&temporary));
        if let Err(error) = written {
            remove_if_same(&temporary, id);
            return Err(error);
        }
        // Locked before it had its name, and the old file only closes now: no moment without.
        self.file = file.into();
        self.id = id;
        self.locked_by = process::this();
        self.empty = false;
        Ok(())
    }

    /// Claims a pidfile and writes it, for those that tell of readiness by being there: where
    /// nothing has the name, the file appears with its number in it.
    ///
    /// # Errors
    /// As [`Pidfile::claim`] and [`Pidfile::write`].
    pub fn publish(path: &Path, mode: u32, pid: Pid) -> Result<Pidfile, PidfileError> {
        let path = env::cwd().map_or_else(|_| path.to_owned(), |directory| directory.join(path));
        let failed = |source| PidfileError::System { path: path.clone(), source };
        let (mut file, temporary) = create_temporary(&path, mode).map_err(failed)?;
        let id = FileId::of_fd(file.as_fd()).map_err(failed)?;
        let published = fill(&mut file, mode, pid).and_then(|()| rename_noreplace(&temporary, &path));
        if published.is_err() {
            remove_if_same(&temporary, id);
        }
        match published {
            Ok(()) => {
                Ok(Pidfile { path, mode, file: file.into(), id, locked_by: process::this(), empty: false })
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                let mut pidfile = Pidfile::claim(&path, mode)?;
                pidfile.write(pid)?;
                Ok(pidfile)
            }
            Err(error) => Err(failed(error)),
        }
    }

    fn put_in_place(&self, temporary: &Path) -> Result<(), PidfileError> {
        let failed = |source| PidfileError::System { path: self.path.clone(), source };
        match FileId::of_path(&self.path).map_err(failed)? {
            Some(found) if found == self.id => fs::rename(temporary, &self.path).map_err(failed),
            Some(_) => Err(PidfileError::Replaced { path: self.path.clone() }),
            None => match rename_noreplace(temporary, &self.path) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                    Err(PidfileError::Replaced { path: self.path.clone() })
                }
                renamed => renamed.map_err(failed),
            },
        }
    }

    /// Takes the lock in a forked child, which does not inherit it.
    ///
    /// The parent must [`Pidfile::release`] or end: this waits for it, and for nobody else.
    ///
    /// # Errors
    /// When another process took the lock in between.
    pub fn relock(&mut self) -> Result<(), PidfileError> {
        let failed = |source| PidfileError::System { path: self.path.clone(), source };
        for _ in 0..ATTEMPTS {
            if lock::try_lock(self.file.as_fd()).map_err(failed)? {
                self.locked_by = process::this();
                return Ok(());
            }
            match lock::holder(self.file.as_fd()).map_err(failed)? {
                Some(pid) if pid == self.locked_by => {
                    lock::wait_lock(self.file.as_fd()).map_err(failed)?;
                }
                Some(pid) => return Err(PidfileError::Locked { path: self.path.clone(), pid }),
                None => {}
            }
        }
        Err(failed(io::Error::other("the lock changes hands all the time")))
    }

    /// Gives the lock up and leaves the file: in the parent of a daemon, for the child to take.
    pub fn release(mut self) {
        self.empty = false;
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The descriptor that holds the lock, to be kept across an exec.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    /// What to write down for the next image. The caller clears close-on-exec.
    pub fn state(&self) -> PidfileState {
        PidfileState { path: self.path.clone(), fd: self.file.as_raw_fd(), mode: self.mode }
    }

    /// Takes back a pidfile that the previous image of this process wrote down.
    ///
    /// # Errors
    /// When the descriptor is not open or the lock is not ours.
    pub fn adopt(state: PidfileState) -> Result<Pidfile, PidfileError> {
        let failed = |source| PidfileError::System { path: state.path.clone(), source };
        let file = fd::claim(state.fd).map_err(failed)?;
        let id = FileId::of_fd(file.as_fd()).map_err(failed)?;
        // A no-op while we have it, which we do as long as the pid is the same.
        if !lock::try_lock(file.as_fd()).map_err(failed)? {
            let pid = lock::holder(file.as_fd()).map_err(failed)?.unwrap_or(Pid::from_raw(0));
            return Err(PidfileError::Locked { path: state.path, pid });
        }
        let PidfileState { path, mode, .. } = state;
        Ok(Pidfile { path, mode, file, id, locked_by: process::this(), empty: false })
    }

    /// Removes the file if its name still means ours.
    pub fn remove_if_ours(&self) -> Removal {
        // Somebody may have written another number into the same inode, as uWSGI's fopen("w") does.
        // Reading closes a descriptor of the file and so drops the lock: the file goes anyway.
        let expected = if self.empty { String::new() } else { self.locked_by.to_string() };
        match std::fs::read_to_string(&self.path) {
            Ok(text) if text.trim() != expected => Removal::NotOurs,
            _ => remove_if_same(&self.path, self.id),
        }
    }
}

impl Drop for Pidfile {
    fn drop(&mut self) {
        // Not in a forked child that drops its copy.
        if self.empty && self.locked_by == process::this() {
            self.remove_if_ours();
        }
    }
}

/// Gives a new file its mode, its lock and its number.
fn fill(file: &mut File, mode: u32, pid: Pid) -> io::Result<()> {
    // The file creation mask has had its say in open.
    file.set_permissions(Permissions::from_mode(mode))?;
    if !lock::try_lock(file.as_fd())? {
        return Err(io::Error::other("the temporary file is locked by somebody else"));
    }
    file.write_all(format!("{pid}\n").as_bytes())
}

/// Opens the file or makes it; tells which.
fn open(path: &Path, mode: u32) -> io::Result<(File, bool)> {
    let mut options = OpenOptions::new();
    // Not waiting, should it be a FIFO.
    options.read(true).write(true).mode(mode).custom_flags(NO_FOLLOW | NON_BLOCK);
    match options.clone().create_new(true).open(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok((options.open(path)?, false)),
        created => Ok((created?, true)),
    }
}

/// A directory or a link says so in its own way when it is opened.
fn classify(path: &Path, source: io::Error) -> PidfileError {
    match fs::symlink_metadata(path) {
        Ok(found) if !found.is_file() => PidfileError::NotAFile { path: path.to_owned() },
        _ => PidfileError::System { path: path.to_owned(), source },
    }
}

fn create_temporary(path: &Path, mode: u32) -> io::Result<(File, PathBuf)> {
    let mut last = io::Error::from(io::ErrorKind::InvalidInput);
    for attempt in 0..ATTEMPTS {
        let mut name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?.to_owned();
        name.push(format!(".{}-{attempt}", process::this()));
        let temporary = path.with_file_name(name);
        let mut options = OpenOptions::new();
        options.write(true).create_new(true).mode(mode).custom_flags(NO_FOLLOW);
        match options.open(&temporary) {
            Ok(file) => return Ok((file, temporary)),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => last = error,
            Err(error) => return Err(error),
        }
    }
    Err(last)
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::fd::IntoRawFd;
    use std::os::unix::fs::{MetadataExt, symlink};

    use super::*;
    use crate::sys::cred;
    use crate::sys::process::{Exit, this, wait};
    use crate::sys::testing::{alone, in_child, spawn_child};

    /// A place for a pidfile, and its directory.
    fn place() -> (tempfile::TempDir, PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("app.pid");
        (directory, path)
    }

    fn content(path: &Path) -> String {
        fs::read_to_string(path).unwrap()
    }

    #[test]
    fn the_running_owner_is_found_and_refuses_a_second_server() {
        alone("control::pidfile::tests::the_running_owner_is_found_and_refuses_a_second_server", || {
            let (directory, path) = place();
            let mut pidfile = Pidfile::claim(&path, MODE).unwrap();
            pidfile.write(this()).unwrap();
            let master = this();
            in_child(|| {
                assert_eq!(owner(&path).unwrap().pid, master);
                let refused = Pidfile::claim(&path, MODE).unwrap_err();
                assert!(matches!(refused, PidfileError::Locked { pid, .. } if pid == master));
            });
            assert_eq!(content(&path), format!("{master}\n"));
            assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
        });
    }

    #[test]
    fn the_mode_does_not_depend_on_the_mask() {
        alone("control::pidfile::tests::the_mode_does_not_depend_on_the_mask", || {
            for mask in [0, 0o077] {
                cred::set_umask(mask);
                let (_directory, path) = place();
                Pidfile::claim(&path, MODE).unwrap().write(this()).unwrap();
                assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o644);
            }
        });
    }

    #[test]
    fn a_second_server_that_fails_leaves_the_content_alone() {
        alone("control::pidfile::tests::a_second_server_that_fails_leaves_the_content_alone", || {
            let (_directory, path) = place();
            fs::write(&path, "4000000\n").unwrap();
            drop(Pidfile::claim(&path, MODE).unwrap());
            assert_eq!(content(&path), "4000000\n");
        });
    }

    #[test]
    fn a_claim_never_written_leaves_no_file_of_its_own() {
        alone("control::pidfile::tests::a_claim_never_written_leaves_no_file_of_its_own", || {
            let (directory, path) = place();
            let mut pidfile = Some(Pidfile::claim(&path, MODE).unwrap());
            in_child(|| drop(pidfile.take()));
            assert!(path.exists());
            drop(pidfile);
            assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
        });
    }

    #[test]
    fn a_stale_file_is_taken_over_without_writing_through_its_other_names() {
        alone(
            "control::pidfile::tests::a_stale_file_is_taken_over_without_writing_through_its_other_names",
            || {
                let (directory, path) = place();
                let other = directory.path().join("other");
                fs::write(&path, "1\n").unwrap();
                fs::hard_link(&path, &other).unwrap();
                Pidfile::claim(&path, MODE).unwrap().write(this()).unwrap();
                assert_eq!(content(&path), format!("{}\n", this()));
                assert_eq!(content(&other), "1\n");
            },
        );
    }

    #[test]
    fn links_and_what_is_no_file_are_refused() {
        let (directory, path) = place();
        let victim = directory.path().join("victim");
        fs::write(&victim, "precious").unwrap();
        symlink(&victim, &path).unwrap();
        assert!(matches!(Pidfile::claim(&path, MODE), Err(PidfileError::NotAFile { .. })));
        assert_eq!(content(&victim), "precious");
        assert!(matches!(Pidfile::claim(directory.path(), MODE), Err(PidfileError::NotAFile { .. })));
        let fifo = directory.path().join("fifo");
        crate::sys::fs::make_fifo(&fifo, 0o600).unwrap();
        assert!(matches!(Pidfile::claim(&fifo, MODE), Err(PidfileError::NotAFile { .. })));
        let missing = Pidfile::claim(&directory.path().join("missing/app.pid"), MODE).unwrap_err();
        assert!(matches!(missing, PidfileError::System { .. }), "{missing}");
    }

    #[test]
    fn a_file_somebody_else_put_there_is_neither_overwritten_nor_removed() {
        alone(
            "control::pidfile::tests::a_file_somebody_else_put_there_is_neither_overwritten_nor_removed",
            || {
                let (directory, path) = place();
                let mut pidfile = Pidfile::claim(&path, MODE).unwrap();
                let theirs = directory.path().join("theirs");
                fs::write(&theirs, "77\n").unwrap();
                fs::rename(&theirs, &path).unwrap();
                assert!(matches!(pidfile.write(this()), Err(PidfileError::Replaced { .. })));
                assert_eq!(pidfile.remove_if_ours(), Removal::NotOurs);
                drop(pidfile);
                assert_eq!(content(&path), "77\n");
                assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
            },
        );
    }

    #[test]
    fn a_removed_file_is_written_again() {
        alone("control::pidfile::tests::a_removed_file_is_written_again", || {
            let (_directory, path) = place();
            let mut pidfile = Pidfile::claim(&path, MODE).unwrap();
            pidfile.write(this()).unwrap();
            fs::remove_file(&path).unwrap();
            assert_eq!(pidfile.remove_if_ours(), Removal::Absent);
            pidfile.write(this()).unwrap();
            assert_eq!(content(&path), format!("{}\n", this()));
            assert_eq!(pidfile.remove_if_ours(), Removal::Removed);
        });
    }

    #[test]
    fn the_next_image_keeps_the_lock() {
        alone("control::pidfile::tests::the_next_image_keeps_the_lock", || {
            let (_directory, path) = place();
            let mut pidfile = Pidfile::claim(&path, MODE).unwrap();
            pidfile.write(this()).unwrap();
            let state = serde_json::to_string(&pidfile.state()).unwrap();
            let copy = fd::duplicate(pidfile.file.as_fd()).unwrap();
            // As exec does: the value is forgotten and its descriptor stays.
            let raw = std::mem::replace(&mut pidfile.file, copy).into_raw_fd();
            let adopted = Pidfile::adopt(serde_json::from_str(&state).unwrap()).unwrap();
            assert_eq!(adopted.file.as_raw_fd(), raw);
            in_child(|| assert!(matches!(Pidfile::claim(&path, MODE), Err(PidfileError::Locked { .. }))));
            assert_eq!(adopted.remove_if_ours(), Removal::Removed);
        });
    }

    #[test]
    fn a_daemon_takes_the_lock_over_from_its_parent() {
        alone("control::pidfile::tests::a_daemon_takes_the_lock_over_from_its_parent", || {
            let (_directory, path) = place();
            let mut pidfile = Pidfile::claim(&path, MODE).unwrap();
            let (ready, tell) = fd::pipe().unwrap();
            let child = spawn_child(|| {
                pidfile.relock().unwrap();
                pidfile.write(this()).unwrap();
                tell_ready(&tell);
                loop {
                    std::thread::park();
                }
            });
            // The child may be waiting for the lock already, or come to it later.
            pidfile.release();
            await_ready(&ready);
            let found = owner(&path).unwrap();
            assert_eq!(found.pid, child);
            process::pidfd_signal(found.pidfd.as_fd(), process::Signal::SIGKILL).unwrap();
            assert_eq!(wait(child).unwrap(), Exit::Signal { number: 9, core: false });
            assert!(matches!(owner(&path), Err(OwnerError::NotRunning { pid, .. }) if pid == child));
        });
    }

    fn tell_ready(fd: &OwnedFd) {
        File::from(fd.try_clone().unwrap()).write_all(b"x").unwrap();
    }

    fn await_ready(fd: &OwnedFd) {
        File::from(fd.try_clone().unwrap()).read_exact(&mut [0]).unwrap();
    }
}
