//! Being told of changes in a directory or to a file; see `inotify(7)`.

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

pub use nix::sys::inotify::AddWatchFlags as Mask;
use nix::sys::inotify::{InitFlags, Inotify as Raw, WatchDescriptor};

/// Adds to the mask of an inode that is watched already, which [`Inotify::add_watch`] would
/// otherwise replace. (nix does not name it.)
pub const MASK_ADD: Mask = Mask::from_bits_retain(libc::IN_MASK_ADD);

/// Names one watch of one [`Inotify`].
pub type Watch = WatchDescriptor;

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// The watch it happened to; meaningless when `mask` has `IN_Q_OVERFLOW`.
    pub watch: Watch,
    /// What happened.
    pub mask: Mask,
    /// The entry it happened to, when a directory is watched.
    pub name: Option<OsString>,
}

/// A set of watches and the queue of their events. Non-blocking, close-on-exec.
#[derive(Debug)]
pub struct Inotify {
    raw: Raw,
}

impl Inotify {
    /// Makes an empty set.
    ///
    /// # Errors
    /// When the user's limit (`fs.inotify.max_user_instances`) is reached.
    pub fn new() -> io::Result<Self> {
        Ok(Inotify { raw: Raw::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)? })
    }

    /// Watches a path. The same inode again replaces the mask and answers the same watch.
    ///
    /// # Errors
    /// When the path is missing or unreadable, or `fs.inotify.max_user_watches` is reached.
    pub fn add_watch(&self, path: &Path, mask: Mask) -> io::Result<Watch> {
        Ok(self.raw.add_watch(path, mask)?)
    }

    /// Takes a watch away.
    ///
    /// # Errors
    /// When it is gone already, for instance with its directory.
    pub fn remove_watch(&self, watch: Watch) -> io::Result<()> {
        Ok(self.raw.rm_watch(watch)?)
    }

    /// The events that have arrived, oldest first; empty when none has. One call may leave more
    /// behind.
    ///
    /// # Errors
    /// None that the kernel documents for a non-blocking queue.
    pub fn read(&self) -> io::Result<Vec<Event>> {
        match super::retry(|| Ok(self.raw.read_events()?)) {
            Ok(events) => Ok(events
                .into_iter()
                .map(|event| Event { watch: event.wd, mask: event.mask, name: event.name })
                .collect()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }
}

impl AsFd for Inotify {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.raw.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_file_in_a_watched_directory_is_reported_by_name() {
        let directory = tempfile::tempdir().unwrap();
        let inotify = Inotify::new().unwrap();
        let watch = inotify.add_watch(directory.path(), Mask::IN_CREATE).unwrap();
        assert_eq!(inotify.read().unwrap(), []);
        std::fs::write(directory.path().join("touched"), "").unwrap();
        let events = inotify.read().unwrap();
        assert_eq!(events, [Event { watch, mask: Mask::IN_CREATE, name: Some("touched".into()) }]);
        inotify.remove_watch(watch).unwrap();
    }

    #[test]
    fn a_missing_directory_is_not_found() {
        let error = Inotify::new().unwrap().add_watch(Path::new("/nonexistent"), Mask::IN_CREATE);
        assert_eq!(error.unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
