//! When to look at the touch files.
//!
//! Watched are, for each path: the directory it lies in, for the file to appear, change and be
//! replaced; each directory and link on the way, for it to be moved away or switched to another
//! release; the same for what links lead to; and, while something is missing on the way, the
//! place where it would appear. Any of this changes which directories matter, so all is then
//! watched anew.

use std::collections::{HashMap, HashSet};
use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::{fs, io};

use crate::sys::inotify::{Event, Inotify, MASK_ADD, Mask, Watch};

/// The watched object itself went or moved.
const SELF_GONE: Mask = Mask::IN_DELETE_SELF.union(Mask::IN_MOVE_SELF);
/// An entry of a directory came or went.
const ENTRIES: Mask =
    Mask::IN_CREATE.union(Mask::IN_DELETE).union(Mask::IN_MOVED_FROM).union(Mask::IN_MOVED_TO);
/// A file got a new time.
const TIMES: Mask = Mask::IN_ATTRIB.union(Mask::IN_MODIFY);
/// Links followed from one path, as many as the kernel follows (`path_resolution(7)`).
const MAX_LINKS: usize = 40;
/// Rounds of watching anew within one call; then the next call goes on.
const ROUNDS: usize = 8;

/// The watches for a set of absolute paths.
#[derive(Debug)]
pub(super) struct Watches {
    inotify: Inotify,
    paths: Vec<PathBuf>,
    /// What is watched, and in directories which entries matter.
    watched: HashMap<Watch, HashSet<OsString>>,
}

impl Watches {
    /// Watches, or says why that is not possible and the files must be polled.
    pub(super) fn new(paths: &[PathBuf]) -> Result<Watches, String> {
        let inotify = Inotify::new().map_err(|error| format!("inotify is not available: {error}"))?;
        let mut watches = Watches { inotify, paths: paths.to_vec(), watched: HashMap::new() };
        watches.watch_all()?;
        Ok(watches)
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.inotify.as_fd()
    }

    /// Takes all events that have arrived. What they mean for the files is seen by looking.
    pub(super) fn drain(&mut self) -> Result<(), String> {
        for _ in 0..ROUNDS {
            let mut stale = false;
            loop {
                let events =
                    self.inotify.read().map_err(|error| format!("cannot read inotify events: {error}"))?;
                if events.is_empty() {
                    break;
                }
                stale |= events.iter().any(|event| self.is_structural(event));
            }
            if !stale {
                break;
            }
            self.watch_anew()?;
        }
        Ok(())
    }

    /// Whether an event changes which directories matter.
    fn is_structural(&self, event: &Event) -> bool {
        if event.mask.contains(Mask::IN_Q_OVERFLOW) {
            return true;
        }
        // Also sorts out the last word (IN_IGNORED) of watches that were taken away.
        let Some(names) = self.watched.get(&event.watch) else { return false };
        match &event.name {
            Some(name) => names.contains(name) && event.mask.intersects(ENTRIES),
            // A link switched by rename only reports a changed link count.
            None => event.mask.intersects(SELF_GONE.union(Mask::IN_IGNORED).union(Mask::IN_ATTRIB)),
        }
    }

    fn watch_anew(&mut self) -> Result<(), String> {
        for (watch, _) in self.watched.drain() {
            // It may be gone with its directory.
            let _ = self.inotify.remove_watch(watch);
        }
        self.watch_all()
    }

    fn watch_all(&mut self) -> Result<(), String> {
        for path in self.paths.clone() {
            self.watch_path(&path, 0)?;
        }
        Ok(())
    }

    /// Walks down to the file, and again from wherever a link on the way leads.
    ///
    /// Top down, so that what appears below while we are at it is found or reported.
    fn watch_path(&mut self, path: &Path, links: usize) -> Result<(), String> {
        let mut ancestors: Vec<&Path> = path.ancestors().collect();
        ancestors.reverse();
        for pair in ancestors.windows(2) {
            let (directory, entry) = (pair[0], pair[1]);
            // `..` is no entry of its own.
            let Some(name) = entry.file_name() else { continue };
            if entry == path {
                self.add(directory, ENTRIES | TIMES | SELF_GONE, Some(name))?;
            } else if !self.add_component(entry)? {
                self.add(directory, ENTRIES | SELF_GONE, Some(name))?;
                // It may have come before that watch was there.
                if !self.add_component(entry)? {
                    return Ok(());
                }
            }
            if let Ok(target) = fs::read_link(entry) {
                if entry == path {
                    self.add_component(entry)?;
                }
                let rest = path.strip_prefix(entry).unwrap_or(Path::new(""));
                let target = directory.join(target);
                // Joining nothing would add a slash, and ask for a directory.
                let target = if rest.as_os_str().is_empty() { target } else { target.join(rest) };
                return if links < MAX_LINKS { self.watch_path(&target, links + 1) } else { Ok(()) };
            }
        }
        Ok(())
    }

    /// Watches a directory or link on the way, not what a link leads to.
    fn add_component(&mut self, path: &Path) -> Result<bool, String> {
        self.add(path, SELF_GONE | Mask::IN_ATTRIB | Mask::IN_DONT_FOLLOW, None)
    }

    /// Adds one watch. `false`: there is nothing of that name.
    fn add(&mut self, path: &Path, mask: Mask, name: Option<&OsStr>) -> Result<bool, String> {
        // One inode may be on the way of several paths, each with a mask of its own.
        match self.inotify.add_watch(path, mask | MASK_ADD) {
            Ok(watch) => {
                self.watched.entry(watch).or_default().extend(name.map(OsStr::to_owned));
                Ok(true)
            }
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                Ok(false)
            }
            Err(error) => Err(format!("cannot watch {}: {error}", path.display())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strangers_in_the_same_directory_change_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let mut watches = Watches::new(&[directory.path().join("ours")]).unwrap();
        let before = watches.watched.clone();
        fs::write(directory.path().join("strange"), "").unwrap();
        watches.drain().unwrap();
        assert_eq!(watches.watched, before);
        fs::write(directory.path().join("ours"), "").unwrap();
        watches.drain().unwrap();
        assert_ne!(watches.watched, before);
    }

    #[test]
    fn what_cannot_be_watched_is_named() {
        let too_long = format!("/{}", "x".repeat(300));
        let reason = Watches::new(&[PathBuf::from(&too_long).join("touch")]).unwrap_err();
        assert!(reason.starts_with(&format!("cannot watch {too_long}: ")), "{reason}");
    }
}
