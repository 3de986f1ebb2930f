//! Shared memory: a memory file, mapped, seen as words that are read and written atomically.
#![allow(unsafe_code)]

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::SeqCst};
use std::time::Duration;

use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::stat::fstat;

use super::cred;
use super::process::Pid;

/// A mapped memory file. Unmapped when dropped; the file goes with its last descriptor.
#[derive(Debug)]
pub struct SharedMemory {
    file: OwnedFd,
    base: NonNull<AtomicU64>,
    words: usize,
}

// SAFETY: the mapping stays where it is whoever owns the value.
unsafe impl Send for SharedMemory {}
// SAFETY: the memory is reached through atomics only.
unsafe impl Sync for SharedMemory {}

impl SharedMemory {
    /// Makes a memory file of `bytes`, all zero, and maps it.
    ///
    /// Its size is sealed: were it to shrink, everyone who has it mapped would die of `SIGBUS`.
    ///
    /// # Errors
    /// When memory or descriptors are short, or `bytes` is not a positive multiple of 8.
    pub fn create(name: &CStr, bytes: usize) -> io::Result<Self> {
        Self::map(Self::file(name, bytes)?, bytes)
    }

    /// Such a file for others to map.
    ///
    /// # Errors
    /// As [`SharedMemory::create`].
    pub fn file(name: &CStr, bytes: usize) -> io::Result<OwnedFd> {
        let file = memfd_create(name, MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING)?;
        let size = libc::off_t::try_from(bytes).map_err(|_| invalid(bytes))?;
        nix::unistd::ftruncate(&file, size)?;
        let seals = SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SEAL;
        fcntl(&file, FcntlArg::F_ADD_SEALS(seals))?;
        Ok(file)
    }

    /// Maps the first `bytes` of a memory file that another process made.
    ///
    /// # Errors
    /// When the file is smaller, or not protected against shrinking.
    pub fn adopt(file: OwnedFd, bytes: usize) -> io::Result<Self> {
        let size = fstat(&file)?.st_size;
        if usize::try_from(size).is_ok_and(|size| size < bytes) {
            let text = format!("shared memory of {size} bytes where {bytes} are needed");
            return Err(io::Error::new(io::ErrorKind::InvalidData, text));
        }
        let seals = SealFlag::from_bits_truncate(fcntl(&file, FcntlArg::F_GET_SEALS)?);
        if !seals.contains(SealFlag::F_SEAL_SHRINK) {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "shared memory that may shrink"));
        }
        Self::map(file, bytes)
    }

    fn map(file: OwnedFd, bytes: usize) -> io::Result<Self> {
        if bytes == 0 || !bytes.is_multiple_of(size_of::<AtomicU64>()) {
            return Err(invalid(bytes));
        }
        // SAFETY: a new mapping at an address of the kernel's choice overlays nothing.
        let base = unsafe {
            let access = libc::PROT_READ | libc::PROT_WRITE;
            libc::mmap(ptr::null_mut(), bytes, access, libc::MAP_SHARED, file.as_raw_fd(), 0)
        };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let base = NonNull::new(base.cast()).expect("mmap without MAP_FIXED never answers null");
        Ok(SharedMemory { file, base, words: bytes / size_of::<AtomicU64>() })
    }

    /// The memory.
    pub fn words(&self) -> &[AtomicU64] {
        // SAFETY: mapped for as long as `self`, page-aligned, `words` long, and the file cannot
        // shrink. Other processes change it, which atomics allow.
        unsafe { std::slice::from_raw_parts(self.base.as_ptr(), self.words) }
    }

    /// How often the bell in this word has rung. The word must be used for nothing else.
    pub fn rings(&self, word: usize) -> u32 {
        self.bell(word).load(SeqCst)
    }

    /// Rings the bell in this word: wakes everybody in [`SharedMemory::await_ring`], in whatever process.
    pub fn ring(&self, word: usize) {
        let bell = self.bell(word);
        bell.fetch_add(1, SeqCst);
        // SAFETY: the address is mapped for as long as `self`; waking reads and writes nothing there.
        unsafe { libc::syscall(libc::SYS_futex, bell.as_ptr(), libc::FUTEX_WAKE, i32::MAX) };
    }

    /// Waits until the bell has rung more often than `heard`, or for `patience`; may return early.
    pub fn await_ring(&self, word: usize, heard: u32, patience: Duration) {
        let timeout = libc::timespec {
            tv_sec: patience.as_secs().try_into().unwrap_or(libc::time_t::MAX),
            // Below 10^9, which fits everywhere.
            tv_nsec: patience.subsec_nanos() as _,
        };
        let bell = self.bell(word).as_ptr();
        // SAFETY: the address is mapped for as long as `self`, `timeout` lives during the call. The
        // kernel compares and goes to sleep in one step, so no ring is missed. Any error only means
        // that there is nothing to wait for.
        unsafe { libc::syscall(libc::SYS_futex, bell, libc::FUTEX_WAIT, heard, &raw const timeout) };
    }

    /// True when a process has this file mapped; false when it is gone, or its mappings are not for this
    /// user to see.
    pub fn is_mapped_by(&self, pid: Pid) -> bool {
        let Ok(file) = fstat(&self.file) else { return false };
        let maps = cred::with_eyes_of(pid, || std::fs::read_to_string(format!("/proc/{pid}/maps")));
        let Ok(maps) = maps else { return false };
        // Address, permissions, offset, device, inode, path: proc_pid_maps(5).
        maps.lines().any(|line| {
            let mut fields = line.split_ascii_whitespace().skip(4);
            let inode = fields.next().and_then(|it| it.parse().ok());
            inode == Some(file.st_ino) && fields.next().is_some_and(|path| path.starts_with("/memfd:"))
        })
    }

    fn bell(&self, word: usize) -> &AtomicU32 {
        let word: *mut u64 = self.words()[word].as_ptr();
        // SAFETY: the first half of a word that is mapped for as long as `self` and, as documented,
        // accessed by nobody as a whole.
        unsafe { AtomicU32::from_ptr(word.cast()) }
    }

    /// The memory file, to pass on.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl Drop for SharedMemory {
    fn drop(&mut self) {
        // SAFETY: exactly what `map` mapped; borrows of it ended before the drop.
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.words * size_of::<AtomicU64>()) };
    }
}

fn invalid(bytes: usize) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, format!("{bytes} bytes cannot be shared as whole words"))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering::Relaxed;

    use super::super::fd;
    use super::*;

    #[test]
    fn two_mappings_of_one_file_show_the_same_words() {
        let first = SharedMemory::create(c"test", 4096).unwrap();
        let second = SharedMemory::adopt(fd::duplicate(first.fd()).unwrap(), 4096).unwrap();
        first.words()[511].store(42, Relaxed);
        assert_eq!(second.words()[511].load(Relaxed), 42);
        drop(first);
        assert_eq!(second.words()[511].load(Relaxed), 42);
        assert_eq!(second.words().len(), 512);
    }

    #[test]
    fn a_bell_wakes_who_waits_at_another_mapping() {
        let first = SharedMemory::create(c"test", 4096).unwrap();
        let second = SharedMemory::adopt(fd::duplicate(first.fd()).unwrap(), 4096).unwrap();
        let heard = second.rings(3);
        std::thread::scope(|scope| {
            scope.spawn(|| first.ring(3));
            while second.rings(3) == heard {
                second.await_ring(3, heard, Duration::from_secs(60));
            }
        });
        // One that has rung already is not waited for.
        second.await_ring(3, heard, Duration::from_secs(3600));
    }

    #[test]
    fn a_file_that_is_too_small_or_may_shrink_is_refused() {
        let small = SharedMemory::create(c"test", 64).unwrap();
        let copy = fd::duplicate(small.fd()).unwrap();
        assert!(SharedMemory::adopt(copy, 72).unwrap_err().to_string().contains("64 bytes where 72"));

        let open = fd::memfd(c"open").unwrap();
        nix::unistd::ftruncate(&open, 4096).unwrap();
        assert!(SharedMemory::adopt(open, 4096).is_err());
    }

    #[test]
    fn nobody_can_change_the_size() {
        let memory = SharedMemory::create(c"test", 4096).unwrap();
        assert!(nix::unistd::ftruncate(memory.fd(), 0).is_err());
        assert!(nix::unistd::ftruncate(memory.fd(), 8192).is_err());
    }

    #[test]
    fn part_words_and_nothing_are_refused() {
        for bytes in [0, 7, 12] {
            assert!(SharedMemory::create(c"test", bytes).is_err());
        }
    }
}
