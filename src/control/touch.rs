//! Touch files: a file that appears or gets a new time is a command.
//!
//! The rule is in `compare`; `watches` only says *when* to look. A change is found even if its
//! event was not: every check looks at every file.

mod action;
mod watches;

use std::fs;
use std::os::fd::BorrowedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use watches::Watches;

pub use action::{Purpose, Touch};

use crate::sys::env;

/// What a touch file was when it was last looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stamp {
    dev: u64,
    ino: u64,
    /// Whole seconds and the nanoseconds within: two touches in one second are two.
    mtime: (i64, i64),
}

impl Stamp {
    /// Looks at a file, through links. What cannot be looked at counts as not there.
    fn of(path: &Path) -> Option<Stamp> {
        let found = fs::metadata(path).ok()?;
        Some(Stamp { dev: found.dev(), ino: found.ino(), mtime: (found.mtime(), found.mtime_nsec()) })
    }
}

/// Whether a file was touched between two looks.
///
/// It was if it appeared, was replaced, or has another time; also an earlier one, as after
/// unpacking an archive. That it vanished is no command: the next release may be on its way.
fn compare(before: Option<Stamp>, now: Option<Stamp>) -> bool {
    now.is_some() && before != now
}

/// The last look at a set of files, to hand to the next image.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Baseline(Vec<(PathBuf, Option<Stamp>)>);

impl Baseline {
    /// Looks at the files for the first time. A file named twice is looked at once.
    fn take(paths: &[PathBuf], look: impl Fn(&Path) -> Option<Stamp>) -> Baseline {
        let mut files: Vec<(PathBuf, Option<Stamp>)> = Vec::new();
        for path in paths {
            if !files.iter().any(|(known, _)| known == path) {
                files.push((path.clone(), look(path)));
            }
        }
        Baseline(files)
    }

    /// Puts back what `earlier` knew of the same files, so that the next look sees what changed
    /// since.
    fn resume(&mut self, earlier: &Baseline) {
        for (path, stamp) in &mut self.0 {
            if let Some((_, known)) = earlier.0.iter().find(|(other, _)| other == path) {
                *stamp = *known;
            }
        }
    }

    /// Looks again: the files touched since the last look, in the order of the configuration.
    fn advance(&mut self, look: impl Fn(&Path) -> Option<Stamp>) -> Vec<PathBuf> {
        let mut touched = Vec::new();
        for (path, stamp) in &mut self.0 {
            let now = look(path);
            if compare(*stamp, now) {
                touched.push(path.clone());
            }
            // Also when it vanished: what comes in its place is then new.
            *stamp = now;
        }
        touched
    }
}

/// The touch files of a configuration.
#[derive(Debug)]
pub struct TouchFiles {
    /// What [`TouchFiles::check`] reports, by the absolute path that is looked at.
    configured: Vec<(PathBuf, Touch)>,
    baseline: Baseline,
    /// Or why there are none.
    watches: Result<Watches, String>,
}

impl TouchFiles {
    /// Begins to watch, or goes on after a re-exec: what changed since `earlier` was taken is reported
    /// by the next check. For files that `earlier` does not know, what is there now is not a touch.
    /// Relative paths are taken from the present working directory.
    pub fn watch(touches: &[Touch], earlier: &Baseline) -> TouchFiles {
        let directory = env::cwd().unwrap_or_default();
        let configured: Vec<_> =
            touches.iter().map(|touch| (directory.join(&touch.path), touch.clone())).collect();
        let absolute: Vec<PathBuf> = configured.iter().map(|(absolute, _)| absolute.clone()).collect();
        // Watched first, looked at second: what changes in between is seen twice, not never.
        let watches = Watches::new(&absolute);
        let mut baseline = Baseline::take(&absolute, Stamp::of);
        baseline.resume(earlier);
        TouchFiles { configured, baseline, watches }
    }

    /// What the files touched since the last check ask for, in the order of the configuration.
    ///
    /// Call it when [`TouchFiles::fd`] is readable, once after [`TouchFiles::watch`], and once per
    /// second if there is no descriptor.
    pub fn check(&mut self) -> Vec<Touch> {
        if let Ok(watches) = &mut self.watches
            && let Err(reason) = watches.drain()
        {
            self.watches = Err(reason);
        }
        let touched = self.baseline.advance(Stamp::of);
        let is_touched = |absolute: &PathBuf| touched.contains(absolute);
        self.configured
            .iter()
            .filter(|(absolute, _)| is_touched(absolute))
            .map(|(_, touch)| touch.clone())
            .collect()
    }

    /// Becomes readable when it is worth checking; `None` when the files must be polled.
    ///
    /// It may turn from the one into the other at any check, see [`TouchFiles::degraded`].
    pub fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.watches.as_ref().ok().map(Watches::fd)
    }

    /// Why the files must be polled, if they must.
    pub fn degraded(&self) -> Option<&str> {
        self.watches.as_ref().err().map(String::as_str)
    }

    /// The last look, to hand to the next image.
    pub fn baseline(&self) -> &Baseline {
        &self.baseline
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::collections::HashMap;
    use std::fs::File;
    use std::os::unix::fs::symlink;
    use std::time::{Duration, SystemTime};

    use super::*;
    use crate::control::Command;
    use crate::sys::testing::{await_readable, is_readable_now};

    fn stamp(ino: u64, seconds: i64, nanos: i64) -> Option<Stamp> {
        Some(Stamp { dev: 1, ino, mtime: (seconds, nanos) })
    }

    #[test]
    fn only_what_is_there_and_different_was_touched() {
        let cases = [
            (None, None, false),
            (None, stamp(1, 5, 0), true),
            (stamp(1, 5, 0), None, false),
            (stamp(1, 5, 0), stamp(1, 5, 0), false),
            (stamp(1, 5, 0), stamp(1, 5, 1), true),
            (stamp(1, 5, 0), stamp(1, 4, 0), true),
            (stamp(1, 5, 0), stamp(2, 5, 0), true),
        ];
        for (before, now, touched) in cases {
            assert_eq!(compare(before, now), touched, "{before:?} {now:?}");
        }
    }

    #[test]
    fn a_file_that_vanished_counts_when_it_comes_back_the_same() {
        let disk = RefCell::new(HashMap::from([(PathBuf::from("/a"), stamp(1, 5, 0))]));
        let look = |path: &Path| disk.borrow().get(path).copied().flatten();
        let mut baseline = Baseline::take(&["/a".into(), "/b".into(), "/a".into()], look);
        assert!(baseline.advance(look).is_empty());
        disk.borrow_mut().clear();
        assert!(baseline.advance(look).is_empty());
        disk.borrow_mut().insert("/a".into(), stamp(1, 5, 0));
        assert_eq!(baseline.advance(look), [PathBuf::from("/a")]);
        disk.borrow_mut().insert("/b".into(), stamp(2, 1, 0));
        assert_eq!(baseline.advance(look), [PathBuf::from("/b")]);
        assert!(baseline.advance(look).is_empty());
    }

    #[test]
    fn changes_during_a_re_exec_are_seen_and_new_files_begin_fresh() {
        let before = Baseline(vec![("/a".into(), stamp(1, 5, 0)), ("/gone".into(), stamp(3, 1, 0))]);
        let text = serde_json::to_string(&before).unwrap();
        let look = |_: &Path| stamp(1, 6, 0);
        let mut after = Baseline::take(&["/new".into(), "/a".into()], look);
        after.resume(&serde_json::from_str(&text).unwrap());
        assert_eq!(after.advance(look), [PathBuf::from("/a")]);
    }

    /// Sets a time nobody else has, so that no test depends on the resolution of the clock.
    fn touch(path: &Path, second: u64) {
        let file = File::options().create(true).append(true).open(path).unwrap();
        file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(second)).unwrap();
    }

    /// Files that reload.
    fn watch(paths: &[&Path]) -> TouchFiles {
        let touches: Vec<_> =
            paths.iter().map(|path| Touch::command(path.to_path_buf(), Command::Reload)).collect();
        TouchFiles::watch(&touches, &Baseline::default())
    }

    fn touched(files: &mut TouchFiles) -> Vec<PathBuf> {
        files.check().into_iter().map(|touch| touch.path).collect()
    }

    /// Waits until `path` is reported and nothing else; that may take several events.
    fn await_touch(files: &mut TouchFiles, path: &Path) {
        loop {
            await_readable(files.fd().expect("inotify works here"));
            let touched = touched(files);
            if !touched.is_empty() {
                assert_eq!(touched, [path]);
                return;
            }
        }
    }

    fn is_quiet(files: &TouchFiles) -> bool {
        !is_readable_now(files.fd().expect("inotify works here"))
    }

    #[test]
    fn touching_creating_and_replacing_wake_the_loop() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("touch");
        let mut files = watch(&[&path]);
        assert!(files.check().is_empty());
        touch(&path, 1);
        await_touch(&mut files, &path);
        touch(&path, 2);
        await_touch(&mut files, &path);
        let other = directory.path().join("other");
        touch(&other, 2);
        fs::rename(&other, &path).unwrap();
        await_touch(&mut files, &path);
        fs::remove_file(&path).unwrap();
        assert!(files.check().is_empty());
        touch(&path, 2);
        await_touch(&mut files, &path);
        assert!(files.check().is_empty());
        assert!(is_quiet(&files));
    }

    #[test]
    fn a_file_below_directories_yet_to_come_is_seen() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a/b/touch");
        let mut files = watch(&[&path]);
        for round in 1..3 {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            files.check();
            touch(&path, round);
            await_touch(&mut files, &path);
            fs::remove_dir_all(directory.path().join("a")).unwrap();
            assert!(files.check().is_empty());
        }
    }

    #[test]
    fn a_release_switched_by_a_link_is_seen() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        for (name, second) in [("one", 1), ("two", 2)] {
            fs::create_dir(at(name)).unwrap();
            touch(&at(name).join("touch"), second);
        }
        symlink("one", at("current")).unwrap();
        let path = at("current/touch");
        let mut files = watch(&[&path]);
        symlink("two", at("next")).unwrap();
        fs::rename(at("next"), at("current")).unwrap();
        await_touch(&mut files, &path);
        touch(&at("two/touch"), 3);
        await_touch(&mut files, &path);
    }

    #[test]
    fn a_link_to_a_file_elsewhere_is_followed() {
        let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (link, target) = (here.path().join("link"), there.path().join("target"));
        touch(&target, 1);
        symlink(&target, &link).unwrap();
        let mut files = watch(&[&link]);
        touch(&target, 2);
        await_touch(&mut files, &link);
    }

    #[test]
    fn links_to_links_and_to_what_is_yet_to_come_are_followed() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        symlink("releases/live", at("current")).unwrap();
        let path = at("current/touch");
        let mut files = watch(&[&path]);
        fs::create_dir_all(at("releases/1")).unwrap();
        touch(&at("releases/1/touch"), 1);
        symlink("../releases/1", at("releases/live")).unwrap();
        await_touch(&mut files, &path);
        fs::create_dir(at("releases/2")).unwrap();
        touch(&at("releases/2/touch"), 1);
        symlink("2", at("next")).unwrap();
        fs::rename(at("next"), at("releases/live")).unwrap();
        await_touch(&mut files, &path);
    }

    #[test]
    fn links_in_a_circle_are_given_up() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("loop");
        symlink("loop", &path).unwrap();
        let mut files = watch(&[&path]);
        assert!(files.check().is_empty());
    }

    #[test]
    fn paths_are_reported_as_they_were_configured() {
        let mut files = watch(&[Path::new("no-such-touch-file")]);
        assert!(files.check().is_empty());
        let earlier = Baseline(vec![(env::cwd().unwrap().join("."), None)]);
        let here = Touch::command(".".into(), Command::Reload);
        let mut files = TouchFiles::watch(std::slice::from_ref(&here), &earlier);
        assert_eq!(files.check(), [here]);
    }

    #[test]
    fn a_file_with_several_purposes_is_reported_for_each() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("touch");
        let commands = [Command::ReopenLog, Command::Reload];
        let touches = commands.map(|command| Touch::command(path.clone(), command));
        let mut files = TouchFiles::watch(&touches, &Baseline::default());
        touch(&path, 1);
        await_readable(files.fd().expect("inotify works here"));
        assert_eq!(files.check(), touches);
    }

    #[test]
    fn no_files_never_wake_the_loop() {
        let mut files = watch(&[]);
        assert!(files.check().is_empty());
        assert!(files.degraded().is_none());
        assert!(is_quiet(&files));
    }
}
