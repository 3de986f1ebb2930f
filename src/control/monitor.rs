//! Paths watched for any change, as `fs-reload` and the application's file monitors want it.
//!
//! Not the way of touch files: here a directory's entries count, and what is done is not a command but
//! a change. Directories below a watched one are not watched.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};

use crate::sys::inotify::{Inotify, Mask, Watch};

/// What counts as a change of a watched file or directory.
const CHANGES: Mask = Mask::IN_ATTRIB
    .union(Mask::IN_CREATE)
    .union(Mask::IN_DELETE)
    .union(Mask::IN_DELETE_SELF)
    .union(Mask::IN_MODIFY)
    .union(Mask::IN_MOVE_SELF)
    .union(Mask::IN_MOVED_FROM)
    .union(Mask::IN_MOVED_TO);

/// Watched paths, each with what it means to whoever watches.
#[derive(Debug)]
pub struct Monitor<T> {
    inotify: Inotify,
    watches: HashMap<Watch, (PathBuf, Vec<T>)>,
}

/// What has happened.
#[derive(Debug)]
pub struct Changes<T> {
    /// What changed paths stand for; each once, however much has changed.
    pub changed: Vec<T>,
    /// Paths that cannot be watched any more, and why.
    pub lost: Vec<(PathBuf, T, io::Error)>,
}

impl<T: Copy + Ord> Monitor<T> {
    /// Watches nothing yet.
    ///
    /// # Errors
    /// When the user's limit (`fs.inotify.max_user_instances`) is reached.
    pub fn new() -> io::Result<Self> {
        Ok(Monitor { inotify: Inotify::new()?, watches: HashMap::new() })
    }

    /// Watches a path. One that is there twice has one watch and both meanings.
    ///
    /// # Errors
    /// When there is no such path, or the user's limit is reached.
    pub fn add(&mut self, path: &Path, meaning: T) -> io::Result<()> {
        let watch = self.inotify.add_watch(path, CHANGES)?;
        let (_, meanings) = self.watches.entry(watch).or_insert_with(|| (path.to_owned(), Vec::new()));
        if !meanings.contains(&meaning) {
            meanings.push(meaning);
        }
        Ok(())
    }

    /// Readable when there is something to [`Monitor::read`].
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.inotify.as_fd()
    }

    /// What has changed since the last call.
    ///
    /// # Errors
    /// When the events cannot be read.
    pub fn read(&mut self) -> io::Result<Changes<T>> {
        let mut touched = Vec::new();
        loop {
            let events = self.inotify.read()?;
            if events.is_empty() {
                break;
            }
            for event in events {
                // Gone with its file: the number may be used for another one from now on.
                if event.mask.contains(Mask::IN_IGNORED) {
                    let gone = self.watches.remove(&event.watch);
                    touched.extend(gone.filter(|watched| !touched.contains(watched)));
                } else if let Some(watched) = self.watches.get(&event.watch)
                    && !touched.contains(watched)
                {
                    touched.push(watched.clone());
                }
            }
        }
        let mut changes = Changes { changed: Vec::new(), lost: Vec::new() };
        for (path, meanings) in touched {
            changes.changed.extend_from_slice(&meanings);
            self.watches.retain(|_, (known, _)| *known != path);
            // Editors and deployments put a new file in the place of the old one, which somebody may
            // still hold, so that its watch lives on.
            for meaning in meanings {
                if let Err(error) = self.add(&path, meaning) {
                    changes.lost.push((path.clone(), meaning, error));
                }
            }
        }
        changes.changed.sort_unstable();
        changes.changed.dedup();
        Ok(changes)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::sys::testing::await_readable;

    /// What is reported next.
    fn await_change(monitor: &mut Monitor<u8>) -> Vec<u8> {
        loop {
            await_readable(monitor.fd());
            let changes = monitor.read().unwrap();
            if !changes.changed.is_empty() {
                return changes.changed;
            }
        }
    }

    #[test]
    fn entries_of_a_directory_count_and_many_changes_are_one() {
        let directory = tempfile::tempdir().unwrap();
        let mut monitor = Monitor::new().unwrap();
        monitor.add(directory.path(), 2).unwrap();
        monitor.add(directory.path(), 1).unwrap();
        for name in ["a", "b"] {
            fs::write(directory.path().join(name), name).unwrap();
        }
        assert_eq!(await_change(&mut monitor), [1, 2]);
        fs::remove_file(directory.path().join("a")).unwrap();
        assert_eq!(await_change(&mut monitor), [1, 2]);
    }

    #[test]
    fn a_file_put_in_the_place_of_another_is_watched_also_while_somebody_holds_the_old_one() {
        let directory = tempfile::tempdir().unwrap();
        let (path, draft) = (directory.path().join("file"), directory.path().join("draft"));
        fs::write(&path, "").unwrap();
        let mut monitor = Monitor::new().unwrap();
        monitor.add(&path, 1).unwrap();
        for _ in 0..3 {
            let _held = fs::File::open(&path).unwrap();
            fs::write(&draft, "").unwrap();
            fs::rename(&draft, &path).unwrap();
            assert_eq!(await_change(&mut monitor), [1]);
        }
    }

    #[test]
    fn a_path_that_vanishes_is_told_and_given_up() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        let mut monitor = Monitor::new().unwrap();
        assert!(monitor.add(&path, 1).is_err());
        fs::write(&path, "").unwrap();
        monitor.add(&path, 1).unwrap();
        fs::remove_file(&path).unwrap();
        await_readable(monitor.fd());
        let changes = monitor.read().unwrap();
        assert_eq!(changes.changed, [1]);
        assert_eq!(changes.lost[0].0, path);
    }
}
