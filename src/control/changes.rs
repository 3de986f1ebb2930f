//! `fs-reload` and `fs-brutal-reload`: a change of a file, or of a directory's entries, is a command.
//!
//! The [`Monitor`] says that something has changed. What a path looked like is remembered besides, for
//! the time in which nobody watches: while the master replaces its image, and while the path is not
//! there. That it vanishes is no command; that it comes back is.

use std::fs::{self, Metadata};
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use log::{debug, warn};
use serde::{Deserialize, Serialize};

use super::Command;
use super::monitor::Monitor;

/// What paths looked like, to hand to the next image; `None` is a path that was not there.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Looks(Vec<(PathBuf, Option<u64>)>);

/// The watched paths of a configuration.
#[derive(Debug, Default)]
pub struct ChangeWatch {
    /// Absolute paths, each with what a change means.
    paths: Vec<(PathBuf, Command)>,
    /// What each of them looked like when it was last looked at.
    looks: Vec<Option<u64>>,
    /// Paths that are not watched at present, by position.
    unwatched: Vec<usize>,
    /// None without paths, or when the kernel refuses.
    monitor: Option<Monitor<usize>>,
}

impl ChangeWatch {
    /// Begins to watch, or goes on after a re-exec: what changed since `earlier` is reported by the next
    /// check.
    pub fn new(paths: Vec<(PathBuf, Command)>, earlier: &Looks) -> Self {
        let monitor = match paths.is_empty() {
            true => None,
            false => Monitor::new()
                .inspect_err(|error| warn!("fs-reload: {error}; looking once a second instead"))
                .ok(),
        };
        let mut watch = ChangeWatch { unwatched: (0..paths.len()).collect(), monitor, ..Self::default() };
        // Watched first, looked at second: what changes in between is seen twice, not never.
        watch.looks = paths
            .iter()
            .enumerate()
            .map(|(position, (path, _))| {
                if watch.watch(position, path) {
                    debug!("[uwsgi-fsmon] registered monitor for \"{}\"", path.display());
                } else {
                    warn!("fs-reload: {} is not there or cannot be watched yet", path.display());
                }
                match earlier.0.iter().find(|(known, _)| known == path) {
                    Some((_, look)) => *look,
                    None => look(path),
                }
            })
            .collect();
        // Those of before may have changed meanwhile: the first check looks at all.
        watch.unwatched = (0..paths.len()).collect();
        watch.paths = paths;
        watch
    }

    /// Readable when it is worth checking.
    pub fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.monitor.as_ref().map(Monitor::fd)
    }

    /// True while some path has to be looked at once a second, because nothing tells of it.
    pub fn must_be_polled(&self) -> bool {
        !self.unwatched.is_empty()
    }

    /// What the paths looked like, to hand to the next image.
    pub fn looks(&self) -> Looks {
        Looks(self.paths.iter().map(|(path, _)| path.clone()).zip(self.looks.iter().copied()).collect())
    }

    /// Paths that have changed since the last check, and what that means.
    pub fn check(&mut self) -> Vec<(PathBuf, Command)> {
        let mut suspects = Vec::new();
        match self.monitor.as_mut().map(Monitor::read) {
            Some(Ok(changes)) => {
                self.unwatched.extend(changes.lost.into_iter().map(|(_, position, _)| position));
                suspects = changes.changed;
            }
            Some(Err(error)) => {
                warn!("fs-reload: {error}; looking once a second instead");
                self.monitor = None;
                self.unwatched = (0..self.paths.len()).collect();
            }
            None => {}
        }
        let told = suspects.len();
        suspects.append(&mut std::mem::take(&mut self.unwatched));
        let mut changed = Vec::new();
        for (place, position) in suspects.into_iter().enumerate() {
            let (path, command) = self.paths[position].clone();
            let watched = self.watch(position, &path);
            let now = look(&path);
            let differs = std::mem::replace(&mut self.looks[position], now) != now;
            if now.is_some() && (differs || place < told) && !changed.contains(&(path.clone(), command)) {
                changed.push((path, command));
            }
            if !watched && !self.unwatched.contains(&position) {
                self.unwatched.push(position);
            }
        }
        changed
    }

    fn watch(&mut self, position: usize, path: &Path) -> bool {
        self.monitor.as_mut().is_some_and(|monitor| monitor.add(path, position).is_ok())
    }
}

/// A number that differs when the file, or an entry of the directory, was changed; `None` when the path
/// is not there. Through links.
fn look(path: &Path) -> Option<u64> {
    let own = digest(&[], &fs::metadata(path).ok()?);
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    // A sum: the order of entries means nothing.
    let entries =
        entries.filter_map(|entry| Some(digest(entry.file_name().as_bytes(), &entry.metadata().ok()?)));
    Some(entries.fold(own, u64::wrapping_add))
}

/// FNV-1a, because the next image may be of another release: it must come to the same number.
fn digest(name: &[u8], file: &Metadata) -> u64 {
    let facts = [
        file.dev().cast_signed(),
        file.ino().cast_signed(),
        file.size().cast_signed(),
        file.mtime(),
        file.mtime_nsec(),
        file.ctime(),
        file.ctime_nsec(),
    ];
    let bytes = name.iter().copied().chain(facts.into_iter().flat_map(i64::to_le_bytes));
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::testing::await_readable;

    fn watch(path: &Path, earlier: &Looks) -> ChangeWatch {
        ChangeWatch::new(vec![(path.to_owned(), Command::Reload)], earlier)
    }

    fn await_change(watch: &mut ChangeWatch) {
        loop {
            await_readable(watch.fd().expect("inotify works here"));
            if !watch.check().is_empty() {
                return;
            }
        }
    }

    #[test]
    fn a_changed_entry_is_a_command_and_quiet_is_none() {
        let directory = tempfile::tempdir().unwrap();
        let mut watch = watch(directory.path(), &Looks::default());
        assert_eq!(watch.check(), []);
        assert!(!watch.must_be_polled());
        fs::write(directory.path().join("a"), "1").unwrap();
        await_change(&mut watch);
        fs::write(directory.path().join("a"), "2").unwrap();
        await_change(&mut watch);
    }

    #[test]
    fn what_vanishes_counts_when_it_comes_back() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        let mut watch = watch(&path, &Looks::default());
        assert_eq!(watch.check(), []);
        assert!(watch.must_be_polled());
        for text in ["1", "2"] {
            fs::write(&path, text).unwrap();
            assert_eq!(watch.check().len(), 1, "{text}");
            assert!(!watch.must_be_polled());
            fs::remove_file(&path).unwrap();
            await_readable(watch.fd().unwrap());
            assert_eq!(watch.check(), []);
            assert!(watch.must_be_polled());
        }
    }

    #[test]
    fn what_changes_while_nobody_watches_is_seen_by_the_next_image() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        fs::write(&path, "1").unwrap();
        let elsewhere = tempfile::tempdir().unwrap();
        for (place, changed) in [(directory.path(), 1), (&path, 1), (elsewhere.path(), 0)] {
            let before = watch(place, &Looks::default());
            let text = serde_json::to_string(&before.looks()).unwrap();
            drop(before);
            fs::write(&path, format!("not as before: {}", place.display())).unwrap();
            let mut after = watch(place, &serde_json::from_str(&text).unwrap());
            assert_eq!(after.check().len(), changed, "{}", place.display());
        }
    }
}
