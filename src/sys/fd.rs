//! File descriptors: flags, copies, and numbers handed down by an earlier image.
//!
//! Every descriptor made here is close-on-exec from birth; what a child or the next image is to
//! have is unmarked by name just before `execve`.
#![allow(unsafe_code)]

use std::collections::HashMap;
use std::ffi::CStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::path::Path;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::memfd::{MFdFlags, memfd_create};

use super::process::Pid;
use super::{cvt, cvt_long, retry};

/// Sets or clears close-on-exec.
///
/// # Errors
/// Those of `fcntl(2)`.
pub fn set_cloexec(fd: BorrowedFd<'_>, on: bool) -> io::Result<()> {
    let flags = if on { FdFlag::FD_CLOEXEC } else { FdFlag::empty() };
    fcntl(fd, FcntlArg::F_SETFD(flags))?;
    Ok(())
}

/// Whether the descriptor of this number is close-on-exec.
///
/// # Errors
/// When it is not open.
pub fn is_cloexec(raw: RawFd) -> io::Result<bool> {
    // SAFETY: takes a number only; one that is not open is an error.
    let flags = cvt(unsafe { libc::fcntl(raw, libc::F_GETFD) })?;
    Ok(flags & libc::FD_CLOEXEC != 0)
}

/// Sets or clears non-blocking mode, which belongs to the open file and so to all its copies.
///
/// # Errors
/// Those of `fcntl(2)`.
pub fn set_nonblocking(fd: BorrowedFd<'_>, on: bool) -> io::Result<()> {
    let mut flags = OFlag::from_bits_retain(fcntl(fd, FcntlArg::F_GETFL)?);
    flags.set(OFlag::O_NONBLOCK, on);
    fcntl(fd, FcntlArg::F_SETFL(flags))?;
    Ok(())
}

/// Makes a pipe: the end to read, the end to write.
///
/// # Errors
/// When no descriptor is left.
pub fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(nix::unistd::pipe2(OFlag::O_CLOEXEC)?)
}

/// Reads what is there (read(2)); zero at the end. Interruptions are retried.
///
/// # Errors
/// `WouldBlock` when nothing is there and `fd` is in non-blocking mode.
pub fn read(fd: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<usize> {
    retry(|| Ok(nix::unistd::read(fd, buffer)?))
}

/// Writes what there is room for (write(2)). Interruptions are retried.
///
/// # Errors
/// `WouldBlock` when there is no room and `fd` is in non-blocking mode.
pub fn write(fd: BorrowedFd<'_>, bytes: &[u8]) -> io::Result<usize> {
    retry(|| Ok(nix::unistd::write(fd, bytes)?))
}

/// Bytes in a pipe or FIFO that nobody has read yet; either end may be asked (pipe(7)).
///
/// # Errors
/// For what is neither.
pub fn unread(fd: BorrowedFd<'_>) -> io::Result<usize> {
    let mut count: libc::c_int = 0;
    // SAFETY: the kernel writes one int to a place that is valid for the call.
    cvt(unsafe { libc::ioctl(fd.as_raw_fd(), libc::FIONREAD, &raw mut count) })?;
    Ok(usize::try_from(count).unwrap_or(0))
}

/// Waits until one of `fds` is readable, at its end or broken, for no longer than `patience`; the positions
/// of those that are. Numbers that are no open descriptor count as readable.
///
/// # Errors
/// Those of `poll(2)`.
pub fn readable_among(fds: impl Iterator<Item = RawFd>, patience: Duration) -> io::Result<Vec<usize>> {
    let mut fds: Vec<libc::pollfd> =
        fds.map(|fd| libc::pollfd { fd, events: libc::POLLIN, revents: 0 }).collect();
    let milliseconds = libc::c_int::try_from(patience.as_millis()).unwrap_or(libc::c_int::MAX);
    let count = fds.len() as libc::nfds_t;
    // SAFETY: the array is valid for the call, and has that many elements.
    match cvt(unsafe { libc::poll(fds.as_mut_ptr(), count, milliseconds) }) {
        Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(Vec::new()),
        Err(error) => Err(error),
        Ok(_) => Ok((0..fds.len()).filter(|&position| fds[position].revents != 0).collect()),
    }
}

/// A copy of the descriptor with this number, close-on-exec.
///
/// # Errors
/// When it is not open, or no number is left.
pub fn duplicate_number(fd: RawFd) -> io::Result<OwnedFd> {
    duplicate_from(fd, libc::STDERR_FILENO + 1)
}

/// A copy whose number is `lowest` or higher.
fn duplicate_from(fd: RawFd, lowest: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: takes numbers only; one that is not open is an error.
    let copy = cvt(unsafe { libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, lowest) })?;
    // SAFETY: the kernel has just made this number for us and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(copy) })
}

/// Waits until `fd` is readable or at its end, for no longer than `patience`; false when it is not by
/// then. Interruptions are retried.
///
/// For a moment of waiting without a thread, outside the loops.
///
/// # Errors
/// Those of `poll(2)`.
pub fn await_readable(fd: BorrowedFd<'_>, patience: Duration) -> io::Result<bool> {
    let deadline = Instant::now() + patience;
    retry(|| {
        let left = deadline.saturating_duration_since(Instant::now());
        // Rounded up: with the rest of a millisecond it would spin.
        let milliseconds = left.as_millis().saturating_add(u128::from(!left.is_zero()));
        let timeout = PollTimeout::try_from(milliseconds).unwrap_or(PollTimeout::MAX);
        Ok(poll(&mut [PollFd::new(fd, PollFlags::POLLIN)], timeout)? > 0)
    })
}

/// Marks every descriptor above standard error close-on-exec.
///
/// Nothing is closed, so a failing `execve` has lost nothing. Kernels before 5.11 do not know
/// the flag of `close_range(2)`; there the descriptor directory is walked, never the numbers up
/// to `RLIMIT_NOFILE`, which can be a thousand million in containers.
///
/// # Errors
/// When `/proc` is needed and not there.
pub fn mark_all_cloexec() -> io::Result<()> {
    const FIRST: libc::c_uint = 3;
    // SAFETY: close_range with CLOSE_RANGE_CLOEXEC only sets a flag; no descriptor is closed.
    let marked = cvt_long(unsafe {
        libc::syscall(libc::SYS_close_range, FIRST, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC)
    });
    match marked.map_err(|error| (error.raw_os_error(), error)) {
        Ok(_) => Ok(()),
        // EPERM is what seccomp filters written before the call existed answer.
        Err((Some(libc::ENOSYS | libc::EINVAL | libc::EPERM), _)) => mark_listed_cloexec(),
        Err((_, error)) => Err(error),
    }
}

fn mark_listed_cloexec() -> io::Result<()> {
    for raw in open_fds()?.into_iter().filter(|raw| *raw > libc::STDERR_FILENO) {
        // SAFETY: F_SETFD takes an integer; a number closed meanwhile answers EBADF.
        let marked = cvt(unsafe { libc::fcntl(raw, libc::F_SETFD, libc::FD_CLOEXEC) });
        if let Err(error) = marked
            && error.raw_os_error() != Some(libc::EBADF)
        {
            return Err(error);
        }
    }
    Ok(())
}

/// The numbers of all open descriptors in rising order, without the one used to find out.
///
/// # Errors
/// When `/proc` is not mounted.
pub fn open_fds() -> io::Result<Vec<RawFd>> {
    let mut listed = Vec::new();
    for entry in std::fs::read_dir("/proc/self/fd")? {
        if let Some(raw) = entry?.file_name().to_str().and_then(|name| name.parse().ok()) {
            listed.push(raw);
        }
    }
    // The directory's own descriptor is in the list and is closed by now.
    listed.retain(|raw| is_open(*raw));
    listed.sort_unstable();
    Ok(listed)
}

/// Takes ownership of everything that was left open across an exec and is not claimed yet: what is
/// not close-on-exec and above the standard streams. Memory files called `but` are left alone.
///
/// # Errors
/// When `/proc` is not mounted.
pub fn claim_left_open(but: &str) -> io::Result<Vec<OwnedFd>> {
    let left_open = |raw: &RawFd| {
        // SAFETY: F_GETFD takes no argument and fails for a number that is not open.
        let flags = unsafe { libc::fcntl(*raw, libc::F_GETFD) };
        let is_left = *raw > libc::STDERR_FILENO && flags != -1 && flags & libc::FD_CLOEXEC == 0;
        is_left && memfd_name(*raw).as_deref() != Some(but)
    };
    open_fds()?.into_iter().filter(left_open).map(claim).collect()
}

/// Whether `raw` names an open descriptor.
pub fn is_open(raw: RawFd) -> bool {
    // SAFETY: F_GETFD takes no argument; a number that is not open answers EBADF.
    cvt(unsafe { libc::fcntl(raw, libc::F_GETFD) }).is_ok()
}

/// Makes an anonymous memory file; `name` shows in `/proc/PID/fd`.
///
/// # Errors
/// When no memory or descriptor is left.
pub fn memfd(name: &CStr) -> io::Result<OwnedFd> {
    Ok(memfd_create(name, MFdFlags::MFD_CLOEXEC)?)
}

/// The name a memory file was made with, or `None` when `fd` is something else.
pub fn memfd_name(fd: RawFd) -> Option<String> {
    memfd_name_at(Path::new(&format!("/proc/self/fd/{fd}"))).ok().flatten()
}

fn memfd_name_at(link: &Path) -> io::Result<Option<String>> {
    Ok(memfd_name_of(&std::fs::read_link(link)?))
}

/// The name in what a link in `/proc/PID/fd` says.
fn memfd_name_of(target: &Path) -> Option<String> {
    let name = target.to_str()?.strip_prefix("/memfd:")?;
    Some(name.strip_suffix(" (deleted)").unwrap_or(name).to_owned())
}

/// The memory files of this name that a process has open, for reading and writing.
///
/// # Errors
/// When the process is gone, or its descriptors are not for this user to see.
pub fn memfds_of(pid: Pid, name: &CStr) -> io::Result<Vec<OwnedFd>> {
    super::cred::with_eyes_of(pid, || {
        let mut found = Vec::new();
        for entry in std::fs::read_dir(format!("/proc/{pid}/fd"))? {
            let link = entry?.path();
            let theirs = match memfd_name_at(&link) {
                // The directory may be open to one to whom its links are not.
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => return Err(error),
                // One that was closed meanwhile has no name.
                Err(_) => None,
                Ok(theirs) => theirs,
            };
            if theirs.is_some_and(|it| it.as_bytes() == name.to_bytes()) {
                found.push(File::options().read(true).write(true).open(link)?.into());
            }
        }
        Ok(found)
    })
}

/// Lets the next image have the memory files of this name, under the numbers they have.
///
/// # Errors
/// When `/proc` is not mounted.
pub fn keep_memfds(name: &str) -> io::Result<()> {
    for raw in open_fds()? {
        if memfd_name(raw).as_deref() == Some(name) {
            // SAFETY: it was open a moment ago and only its flag is changed; were it closed
            // meanwhile, the call would answer EBADF.
            set_cloexec(unsafe { BorrowedFd::borrow_raw(raw) }, false)?;
        }
    }
    Ok(())
}

/// Makes number `target` a copy of `source` that survives `execve`, closing what it was.
///
/// Meant for standard input, output and error: a number owned by an [`OwnedFd`] of this
/// process would change under its owner.
///
/// # Errors
/// Those of `dup2(2)`; interruptions are retried.
pub fn replace(source: BorrowedFd<'_>, target: RawFd) -> io::Result<()> {
    if source.as_raw_fd() == target {
        // dup2 of a number onto itself changes nothing, not even the flag.
        return set_cloexec(source, false);
    }
    // SAFETY: both are plain numbers; the caller gives `target` away (see above).
    retry(|| cvt(unsafe { libc::dup2(source.as_raw_fd(), target) }))?;
    Ok(())
}

/// Gives the number of `place` to what `fd` is: whoever knows the number reaches that from now on.
///
/// # Errors
/// Those of `dup3(2)`; interruptions are retried.
pub fn take_place(place: OwnedFd, fd: OwnedFd) -> io::Result<OwnedFd> {
    if place.as_raw_fd() != fd.as_raw_fd() {
        // SAFETY: both are owned here, and `place` goes on to be owned by the caller.
        retry(|| cvt(unsafe { libc::dup3(fd.as_raw_fd(), place.as_raw_fd(), libc::O_CLOEXEC) }))?;
    }
    Ok(place)
}

/// Copies a descriptor to a free number above standard error, close-on-exec.
///
/// # Errors
/// When no descriptor is left.
pub fn duplicate(fd: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    duplicate_number(fd.as_raw_fd())
}

/// Descriptors of ours are moved here or above before application code runs: some of it closes or
/// overwrites low numbers which it takes for its own.
pub const SHELTER: RawFd = 64;

/// Moves a descriptor out of the way of application code; where the limit on descriptors leaves no
/// room for that it stays where it is.
pub fn shelter(fd: OwnedFd) -> OwnedFd {
    if fd.as_raw_fd() >= SHELTER {
        return fd;
    }
    duplicate_from(fd.as_raw_fd(), SHELTER).unwrap_or(fd)
}

/// Fills the numbers below [`SHELTER`], so that descriptors made while the result lives get others.
pub fn occupy_low() -> Vec<OwnedFd> {
    let mut fillers = Vec::new();
    let Ok(mut last) = File::open("/dev/null").map(OwnedFd::from) else { return fillers };
    while last.as_raw_fd() < SHELTER {
        let Ok(next) = duplicate(last.as_fd()) else { break };
        fillers.push(std::mem::replace(&mut last, next));
    }
    fillers
}

/// Makes the closed ones of numbers 0 to 2 copies of `log`, which must be a higher one; true if there
/// were any. Without that the next file or connection would be taken for standard output.
///
/// # Errors
/// Those of `dup2(2)`.
pub fn mend_standard_streams(log: BorrowedFd<'_>) -> io::Result<bool> {
    let closed: Vec<RawFd> = (0..=libc::STDERR_FILENO).filter(|&raw| !is_open(raw)).collect();
    closed.iter().try_for_each(|&raw| replace(log, raw))?;
    Ok(!closed.is_empty())
}

/// Numbers claimed so far, with the file each of them was.
static CLAIMED: Mutex<Option<HashMap<RawFd, (u64, u64)>>> = Mutex::new(None);

/// Takes ownership of a descriptor inherited by number: from the previous image, a service
/// manager, or `fd://N`.
///
/// The result is close-on-exec, as every descriptor of ours. A number is given out once: a
/// second claim would make two owners, each of which closes it. A number that was claimed,
/// closed and reused by the kernel for *another* file may be claimed again. The register is
/// per process image and a forked child starts with a copy of it.
///
/// # Errors
/// When `raw` is a standard stream, is not open, or has been claimed before; the text names
/// the number.
pub fn claim(raw: RawFd) -> io::Result<OwnedFd> {
    if raw <= libc::STDERR_FILENO {
        let text = format!("descriptor {raw} cannot be taken over: 0 to 2 are the standard streams");
        return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
    }
    if !is_open(raw) {
        return Err(io::Error::new(io::ErrorKind::NotFound, format!("descriptor {raw} is not open")));
    }
    // SAFETY: it is open (checked) and stays so: inherited numbers are closed by their claimant
    // only, and nobody has claimed it (or this borrow ends in an error).
    let borrowed = unsafe { BorrowedFd::borrow_raw(raw) };
    let file = identity(borrowed)?;
    let mut claimed = CLAIMED.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let claimed = claimed.get_or_insert_default();
    if claimed.get(&raw) == Some(&file) {
        let text = format!("descriptor {raw} is already in use; is it named twice?");
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, text));
    }
    set_cloexec(borrowed, true)?;
    claimed.insert(raw, file);
    // SAFETY: open, and the register has just made us its only owner.
    Ok(unsafe { OwnedFd::from_raw_fd(raw) })
}

/// [`claim`], for a number that the operator says was open when the server was started.
///
/// # Errors
/// Those of [`claim`]; when it is one of our own that happens to have the number.
pub fn claim_given(raw: RawFd) -> io::Result<OwnedFd> {
    // Whatever came across an exec does not have the flag, whatever is ours has it.
    if is_open(raw) && is_cloexec(raw)? {
        let text = format!("descriptor {raw} was not open when the server was started");
        return Err(io::Error::new(io::ErrorKind::NotFound, text));
    }
    claim(raw)
}

/// Device and inode number of the open file: the same for two descriptors of one file.
///
/// # Errors
/// Those of `fstat(2)`.
pub fn identity(fd: BorrowedFd<'_>) -> io::Result<(u64, u64)> {
    let status = nix::sys::stat::fstat(fd.as_fd())?;
    Ok((status.st_dev, status.st_ino))
}

#[cfg(test)]
mod tests {
    use std::os::fd::IntoRawFd;

    use super::super::testing::alone;
    use super::*;

    fn is_cloexec(raw: RawFd) -> bool {
        // SAFETY: F_GETFD takes no argument.
        unsafe { libc::fcntl(raw, libc::F_GETFD) & libc::FD_CLOEXEC != 0 }
    }

    #[test]
    fn new_descriptors_are_close_on_exec() {
        let (read, write) = pipe().unwrap();
        let copy = duplicate(read.as_fd()).unwrap();
        let memory = memfd(c"x").unwrap();
        for fd in [&read, &write, &copy, &memory] {
            assert!(is_cloexec(fd.as_raw_fd()));
        }
        set_cloexec(read.as_fd(), false).unwrap();
        assert!(!is_cloexec(read.as_raw_fd()));
    }

    #[test]
    fn a_pipe_can_be_made_non_blocking_and_back() {
        let (read, _write) = pipe().unwrap();
        set_nonblocking(read.as_fd(), true).unwrap();
        let mut byte = [0];
        assert_eq!(nix::unistd::read(&read, &mut byte), Err(nix::Error::EAGAIN));
        set_nonblocking(read.as_fd(), false).unwrap();
        assert_eq!(fcntl(&read, FcntlArg::F_GETFL).unwrap() & libc::O_NONBLOCK, 0);
    }

    #[test]
    fn a_descriptor_is_waited_for_until_it_is_readable_or_time_is_up() {
        let (read, write) = pipe().unwrap();
        let begin = Instant::now();
        assert!(!await_readable(read.as_fd(), Duration::from_millis(30)).unwrap());
        assert!(begin.elapsed() >= Duration::from_millis(30));
        assert!(!await_readable(read.as_fd(), Duration::ZERO).unwrap());
        nix::unistd::write(&write, b"x").unwrap();
        assert!(await_readable(read.as_fd(), Duration::ZERO).unwrap());
        nix::unistd::read(&read, &mut [0]).unwrap();
        drop(write);
        assert!(await_readable(read.as_fd(), Duration::from_secs(60)).unwrap());
    }

    #[test]
    fn a_memory_file_tells_its_name_and_a_pipe_has_none() {
        let memory = memfd(c"appserver-state").unwrap();
        let (read, _write) = pipe().unwrap();
        assert_eq!(memfd_name(memory.as_raw_fd()).as_deref(), Some("appserver-state"));
        assert_eq!(memfd_name(read.as_raw_fd()), None);
    }

    #[test]
    fn two_descriptors_of_one_file_have_one_identity() {
        let memory = memfd(c"a").unwrap();
        let copy = duplicate(memory.as_fd()).unwrap();
        let other = memfd(c"b").unwrap();
        assert_eq!(identity(memory.as_fd()).unwrap(), identity(copy.as_fd()).unwrap());
        assert_ne!(identity(memory.as_fd()).unwrap(), identity(other.as_fd()).unwrap());
    }

    #[test]
    fn an_inherited_number_is_claimed_once() {
        alone("sys::fd::tests::an_inherited_number_is_claimed_once", || {
            let (read, _write) = pipe().unwrap();
            set_cloexec(read.as_fd(), false).unwrap();
            let raw = read.into_raw_fd();
            let owned = claim(raw).unwrap();
            assert!(is_cloexec(raw));
            let refused = claim(raw).unwrap_err();
            assert_eq!(refused.kind(), io::ErrorKind::AlreadyExists);
            drop(owned);
            assert_eq!(claim(raw).unwrap_err().kind(), io::ErrorKind::NotFound);
            assert_eq!(claim(1).unwrap_err().kind(), io::ErrorKind::InvalidInput);
        });
    }

    #[test]
    fn a_number_reused_for_another_file_may_be_claimed_again() {
        alone("sys::fd::tests::a_number_reused_for_another_file_may_be_claimed_again", || {
            let first = memfd(c"first").unwrap().into_raw_fd();
            drop(claim(first).unwrap());
            let second = memfd(c"second").unwrap().into_raw_fd();
            assert_eq!(first, second);
            drop(claim(second).unwrap());
        });
    }

    #[test]
    fn all_descriptors_above_the_standard_streams_get_marked() {
        alone("sys::fd::tests::all_descriptors_above_the_standard_streams_get_marked", || {
            for mark in [mark_all_cloexec, mark_listed_cloexec] {
                let (read, _write) = pipe().unwrap();
                set_cloexec(read.as_fd(), false).unwrap();
                mark().unwrap();
                assert!(is_cloexec(read.as_raw_fd()));
                assert!(!is_cloexec(2));
            }
        });
    }

    #[test]
    fn the_list_of_open_descriptors_holds_what_is_open_and_no_more() {
        alone("sys::fd::tests::the_list_of_open_descriptors_holds_what_is_open_and_no_more", || {
            let before = open_fds().unwrap();
            let (read, write) = pipe().unwrap();
            let mut expected = before;
            expected.extend([read.as_raw_fd(), write.as_raw_fd()]);
            expected.sort_unstable();
            assert_eq!(open_fds().unwrap(), expected);
        });
    }

    #[test]
    fn a_replaced_number_survives_exec() {
        alone("sys::fd::tests::a_replaced_number_survives_exec", || {
            let (read, _write) = pipe().unwrap();
            let target = memfd(c"target").unwrap();
            replace(read.as_fd(), target.as_raw_fd()).unwrap();
            assert!(!is_cloexec(target.as_raw_fd()));
            assert_eq!(identity(read.as_fd()).unwrap(), identity(target.as_fd()).unwrap());
            replace(read.as_fd(), read.as_raw_fd()).unwrap();
            assert!(!is_cloexec(read.as_raw_fd()));
        });
    }
}
