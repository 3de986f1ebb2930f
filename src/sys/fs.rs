//! Files as the server makes them: without following links, without overwriting what is not its
//! own, and removed only while they still are.
#![allow(unsafe_code)]

use std::ffi::CString;
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::{fs, io};

use nix::sys::stat::Mode;
use nix::unistd::AccessFlags;
use serde::{Deserialize, Serialize};

use super::{cvt, fd};

/// For `OpenOptionsExt::custom_flags`: fail when the last component is a symbolic link.
pub const NO_FOLLOW: i32 = libc::O_NOFOLLOW;
/// For `OpenOptionsExt::custom_flags`: never wait, neither to open a FIFO nor to read one.
pub const NON_BLOCK: i32 = libc::O_NONBLOCK;

/// What a file is, whatever its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct FileId {
    /// Device it lies on.
    pub dev: u64,
    /// Inode number there.
    pub ino: u64,
}

impl FileId {
    /// The file that `path` names, not following a link; `None` when there is none.
    ///
    /// # Errors
    /// Those of `lstat(2)` other than absence.
    pub fn of_path(path: &Path) -> io::Result<Option<FileId>> {
        match fs::symlink_metadata(path) {
            Ok(found) => Ok(Some(FileId { dev: found.dev(), ino: found.ino() })),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The open file. For a socket this is not what its path names.
    ///
    /// # Errors
    /// Those of `fstat(2)`.
    pub fn of_fd(fd: BorrowedFd<'_>) -> io::Result<FileId> {
        let (dev, ino) = fd::identity(fd)?;
        Ok(FileId { dev, ino })
    }
}

/// What came of removing a file that should be ours.
#[derive(Debug, PartialEq, Eq)]
pub enum Removal {
    /// It was ours and is gone.
    Removed,
    /// The name now belongs to another file, which was left alone.
    NotOurs,
    /// There was nothing of that name.
    Absent,
    /// It is ours and the system refused; the text says why.
    Failed(String),
}

/// Removes `path` if it still names `ours`.
///
/// Between the comparison and the removal another process may replace the file; no system call
/// closes that gap.
pub fn remove_if_same(path: &Path, ours: FileId) -> Removal {
    match FileId::of_path(path) {
        Ok(None) => Removal::Absent,
        Ok(Some(found)) if found != ours => Removal::NotOurs,
        Ok(Some(_)) => match fs::remove_file(path) {
            Ok(()) => Removal::Removed,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Removal::Absent,
            Err(error) => Removal::Failed(error.to_string()),
        },
        Err(error) => Removal::Failed(error.to_string()),
    }
}

/// Renames, unless something of the new name exists.
///
/// # Errors
/// `AlreadyExists` when it does, and those of `rename(2)`.
pub fn rename_noreplace(from: &Path, to: &Path) -> io::Result<()> {
    let (old, new) = (c_path(from)?, c_path(to)?);
    // SAFETY: both are valid NUL-terminated strings for the call.
    let renamed = cvt(unsafe {
        libc::renameat2(libc::AT_FDCWD, old.as_ptr(), libc::AT_FDCWD, new.as_ptr(), libc::RENAME_NOREPLACE)
    });
    match renamed {
        Ok(_) => Ok(()),
        // File systems without the flag; a second name is as exclusive.
        Err(error) if matches!(error.raw_os_error(), Some(libc::EINVAL | libc::ENOSYS)) => {
            fs::hard_link(from, to)?;
            fs::remove_file(from)
        }
        Err(error) => Err(error),
    }
}

/// Whether some process has this FIFO open for reading.
///
/// # Errors
/// When it cannot be opened, or is a symbolic link.
pub fn fifo_has_reader(path: &Path) -> io::Result<bool> {
    match fs::OpenOptions::new().write(true).custom_flags(NO_FOLLOW | NON_BLOCK).open(path) {
        Ok(_) => Ok(true),
        // fifo(7): this is how opening for writing fails while nobody reads.
        Err(error) if error.raw_os_error() == Some(libc::ENXIO) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Makes a FIFO. The file creation mask applies to `mode`.
///
/// # Errors
/// `AlreadyExists` when the name is taken by anything, a dangling link included.
pub fn make_fifo(path: &Path, mode: u32) -> io::Result<()> {
    Ok(nix::unistd::mkfifo(path, Mode::from_bits_truncate(mode))?)
}

/// Whether this process, with its effective user and groups, may do with a path all that is asked.
///
/// Only good for telling somebody: what is true now may not be when the file is opened.
///
/// # Errors
/// Those of `access(2)`: the path is not there, or one of the rights is missing.
pub fn may(path: &Path, rights: &[Right]) -> io::Result<()> {
    let flag = |right: &Right| match right {
        Right::Read => AccessFlags::R_OK,
        Right::Write => AccessFlags::W_OK,
        Right::Execute => AccessFlags::X_OK,
    };
    let mode = rights.iter().map(flag).fold(AccessFlags::F_OK, |all, one| all | one);
    Ok(nix::unistd::faccessat(nix::fcntl::AT_FDCWD, path, mode, nix::fcntl::AtFlags::AT_EACCESS)?)
}

/// What [`may`] asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Right {
    /// Read a file, list a directory.
    Read,
    /// Write a file, create in a directory.
    Write,
    /// Execute a file, enter a directory.
    Execute,
}

fn c_path(path: &Path) -> io::Result<CString> {
    Ok(CString::new(path.as_os_str().as_bytes())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_removed_only_while_it_is_the_same() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        fs::write(&path, "mine").unwrap();
        let mine = FileId::of_path(&path).unwrap().unwrap();
        let replacement = directory.path().join("replacement");
        fs::write(&replacement, "theirs").unwrap();
        fs::rename(&replacement, &path).unwrap();
        assert_eq!(remove_if_same(&path, mine), Removal::NotOurs);
        let theirs = FileId::of_path(&path).unwrap().unwrap();
        assert_eq!(remove_if_same(&path, theirs), Removal::Removed);
        assert_eq!(remove_if_same(&path, theirs), Removal::Absent);
    }

    #[test]
    fn a_rename_does_not_overwrite() {
        let directory = tempfile::tempdir().unwrap();
        let (a, b) = (directory.path().join("a"), directory.path().join("b"));
        fs::write(&a, "a").unwrap();
        fs::write(&b, "b").unwrap();
        assert_eq!(rename_noreplace(&a, &b).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        fs::remove_file(&b).unwrap();
        rename_noreplace(&a, &b).unwrap();
        assert_eq!(fs::read_to_string(&b).unwrap(), "a");
        assert!(!a.exists());
    }

    #[test]
    fn rights_are_told() {
        let directory = tempfile::tempdir().unwrap();
        may(directory.path(), &[Right::Read, Right::Write, Right::Execute]).unwrap();
        let path = directory.path().join("file");
        assert_eq!(may(&path, &[]).unwrap_err().kind(), io::ErrorKind::NotFound);
        fs::write(&path, "").unwrap();
        let denied = may(&path, &[Right::Execute]).unwrap_err();
        assert_eq!(denied.kind(), io::ErrorKind::PermissionDenied);
    }
}
