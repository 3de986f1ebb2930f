//! Opening files below a directory without leaving it.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat, openat2};
use nix::sys::stat::Mode;

/// `O_NONBLOCK` keeps a FIFO from blocking the opener; on regular files it means nothing.
const READ: OFlag = OFlag::O_RDONLY.union(OFlag::O_CLOEXEC).union(OFlag::O_NONBLOCK).union(OFlag::O_NOCTTY);

/// Opens a directory as a starting point for other opens; it need not be readable.
///
/// # Errors
/// As `open(2)`; `NotADirectory` when it is something else.
pub fn open_directory(path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    Ok(openat(nix::fcntl::AT_FDCWD, path, flags, Mode::empty())?)
}

/// Opens `path` for reading, relative to `root`, through no `..`, link or mount trick that leads
/// out of it: the kernel checks while it resolves (openat2(2), `RESOLVE_BENEATH`), so that nobody
/// can exchange a component between check and use.
///
/// # Errors
/// `CrossesDevices` when the path leaves `root`, also through a link with an absolute target;
/// `Unsupported` before Linux 5.6; otherwise as `open(2)`.
pub fn open_beneath(root: BorrowedFd<'_>, path: &Path) -> io::Result<File> {
    let resolve = ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_MAGICLINKS;
    let how = OpenHow::new().flags(READ).resolve(resolve);
    Ok(openat2(root, path, how)?.into())
}

/// Opens `path` for reading, relative to `root`, wherever links may lead.
///
/// # Errors
/// As `open(2)`.
pub fn open_from(root: BorrowedFd<'_>, path: &Path) -> io::Result<File> {
    Ok(openat(root, path, READ, Mode::empty())?.into())
}

/// The path, free of links, under which an open file was found.
///
/// # Errors
/// When `/proc` is not mounted.
pub fn path_of(file: &impl AsFd) -> io::Result<PathBuf> {
    std::fs::read_link(format!("/proc/self/fd/{}", file.as_fd().as_raw_fd()))
}

/// Tells `ELOOP`, for which `io::ErrorKind` has no stable name: too many links, or links in a circle.
pub fn is_link_loop(error: &io::Error) -> bool {
    error.raw_os_error() == Some(nix::errno::Errno::ELOOP as i32)
}
