//! The log file: one open file that all processes write to, changed by the master alone.
//!
//! The master opens the file and puts it on descriptors 1 and 2; children inherit both. After a
//! rotation the master opens the path anew and passes the descriptor to each child
//! ([`install_passed`]), so no process keeps writing to the file that was renamed away.
//! `O_APPEND` makes each write land whole at the end, whoever writes.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::sys;

/// Mode of a log file we create; the umask may take bits away, as in uWSGI.
const MODE: u32 = 0o640;

/// How often [`open_in_place`] tries again when the file vanishes between open and check.
const ATTEMPTS: u32 = 3;

/// Why the log file could not be opened or put in place.
#[derive(Debug, thiserror::Error)]
pub enum LogFileError {
    /// The path cannot be opened for appending.
    #[error("cannot open the log file {}: {source}; check the directory and its permissions", path.display())]
    Open {
        /// The file asked for.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The opened file could not become descriptors 1 and 2.
    #[error("cannot send output to the log file {}: {source}", path.display())]
    Install {
        /// The file asked for.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// The log file as its owner, the master, holds it.
#[derive(Debug)]
pub struct LogFile {
    path: PathBuf,
    file: File,
}

impl LogFile {
    /// Opens `path` for appending and creates it if needed. Nothing is written there before
    /// [`LogFile::install`].
    ///
    /// A relative path is resolved now, so that a later change of directory does not move the log.
    /// Symbolic links are followed: logs are commonly linked to another disk.
    ///
    /// # Errors
    /// [`LogFileError::Open`].
    pub fn open(path: &Path) -> Result<Self, LogFileError> {
        let absolute = std::path::absolute(path);
        let opened = absolute.and_then(|path| open_in_place(&path).map(|file| LogFile { path, file }));
        opened.map_err(|source| LogFileError::Open { path: path.to_owned(), source })
    }

    /// Takes over the log of the image before a re-exec: descriptor 2 is the log file already and
    /// `path` is where it was opened.
    ///
    /// # Errors
    /// [`LogFileError::Open`] when descriptor 2 cannot be duplicated.
    pub fn adopt(path: &Path) -> Result<Self, LogFileError> {
        let file = io::stderr().as_fd().try_clone_to_owned().map(File::from);
        let file = file.map_err(|source| LogFileError::Open { path: path.to_owned(), source })?;
        Ok(LogFile { path: path.to_owned(), file })
    }

    /// Makes this file standard output and standard error of this process.
    ///
    /// # Errors
    /// [`LogFileError::Install`].
    pub fn install(&self) -> Result<(), LogFileError> {
        install(self.file.as_fd()).map_err(|source| LogFileError::Install { path: self.path.clone(), source })
    }

    /// Opens the path anew, after a rotation, and installs the new file. Pass [`LogFile::fd`] to
    /// the children afterwards.
    ///
    /// # Errors
    /// As for [`LogFile::open`] and [`LogFile::install`]; lines then go on to the old file.
    pub fn reopen(&mut self) -> Result<(), LogFileError> {
        let fresh = LogFile::open(&self.path)?;
        fresh.install()?;
        *self = fresh;
        Ok(())
    }

    /// True when the path no longer leads to the open file: it was renamed, deleted or replaced,
    /// and lines are going to a place nobody looks at. False when that cannot be told, as in a
    /// directory closed to us since privileges were dropped: reopening would fail just as well.
    pub fn is_stale(&self) -> bool {
        !leads_to(&self.path, &self.file).unwrap_or(true)
    }

    /// The open file, to pass on.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    /// The absolute path.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// Writes where the master writes from now on: `fds` came along with its word that the log is another.
pub fn follow_master(fds: Vec<OwnedFd>) {
    match fds.into_iter().next().map(install_passed) {
        Some(Err(error)) => log::warn!("the new log cannot be used: {error}"),
        _ => super::spare::keep(),
    }
}

/// Makes a log file that the master reopened standard output and standard error of this process.
///
/// # Errors
/// When the system cannot duplicate the descriptor; the old log stays in place.
pub fn install_passed(fd: OwnedFd) -> io::Result<()> {
    install(fd.as_fd())
}

fn install(fd: BorrowedFd<'_>) -> io::Result<()> {
    // Standard error first: if only one of them can be had, it is the one that carries the log.
    sys::fd::replace(fd, 2)?;
    super::output::look();
    sys::fd::replace(fd, 1)
}

/// Opens `path` and makes sure that it still leads to what was opened: logrotate may rename and
/// recreate the file at the very moment we open it.
fn open_in_place(path: &Path) -> io::Result<File> {
    let mut file = open_once(path)?;
    for _ in 1..ATTEMPTS {
        if leads_to(path, &file)? {
            break;
        }
        file = open_once(path)?;
    }
    Ok(file)
}

fn open_once(path: &Path) -> io::Result<File> {
    // Opening a FIFO for writing only would wait for its reader, and the master must never wait.
    let is_fifo = path.metadata().is_ok_and(|metadata| metadata.file_type().is_fifo());
    OpenOptions::new().append(true).create(true).read(is_fifo).mode(MODE).open(path)
}

/// Whether `path` names the same file as `file`.
fn leads_to(path: &Path, file: &File) -> io::Result<bool> {
    let opened = file.metadata()?;
    match path.metadata() {
        Ok(named) => Ok((named.dev(), named.ino()) == (opened.dev(), opened.ino())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_new_log_is_created_closed_to_strangers() {
        let dir = tempfile::tempdir().unwrap();
        let log = LogFile::open(&dir.path().join("log")).unwrap();
        let mode = fs::metadata(log.path()).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777 & !MODE, 0, "{mode:o}");
    }

    #[test]
    fn an_existing_log_is_appended_to() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        fs::write(&path, "old\n").unwrap();
        let mut log = LogFile::open(&path).unwrap();
        log.file.write_all(b"new\n").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "old\nnew\n");
    }

    #[test]
    fn a_log_that_was_renamed_is_stale() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let log = LogFile::open(&path).unwrap();
        assert!(!log.is_stale());
        fs::rename(&path, dir.path().join("log.1")).unwrap();
        assert!(log.is_stale());
        fs::write(&path, "").unwrap();
        assert!(log.is_stale(), "another file of the same name");
    }

    #[test]
    fn a_linked_log_is_followed() {
        let dir = tempfile::tempdir().unwrap();
        let link = dir.path().join("log");
        std::os::unix::fs::symlink(dir.path().join("elsewhere"), &link).unwrap();
        let log = LogFile::open(&link).unwrap();
        assert!(dir.path().join("elsewhere").exists());
        assert!(!log.is_stale());
    }

    #[test]
    fn a_path_that_cannot_be_opened_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let error = LogFile::open(dir.path()).unwrap_err().to_string();
        assert!(error.starts_with(&format!("cannot open the log file {}", dir.path().display())), "{error}");
    }

    #[test]
    fn a_failed_reopen_keeps_the_old_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("logs/log");
        fs::create_dir(path.parent().unwrap()).unwrap();
        let mut log = LogFile::open(&path).unwrap();
        fs::remove_dir_all(path.parent().unwrap()).unwrap();
        log.reopen().unwrap_err();
        log.file.write_all(b"still there").unwrap();
        assert_eq!(log.file.metadata().unwrap().len(), 11);
    }

    #[test]
    fn opening_a_fifo_does_not_wait_for_its_reader() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("fifo");
        let made = std::process::Command::new("mkfifo").arg(&path).status().unwrap();
        assert!(made.success());
        LogFile::open(&path).unwrap();
    }
}
