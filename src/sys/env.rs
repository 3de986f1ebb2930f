//! The environment and working directory of this process.
#![allow(unsafe_code)]

use std::ffi::OsStr;
use std::io;
use std::path::PathBuf;

/// Sets a variable for this process and its future children.
///
/// # Panics
/// When there is more than one thread, see [`remove_var`].
pub fn set_var(name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) {
    assert_single_threaded();
    // SAFETY: no other thread exists that could read the environment now.
    unsafe { std::env::set_var(name, value) }
}

/// Removes a variable, so that neither application code nor children see it.
///
/// # Panics
/// When there is more than one thread: code that is not ours reads the environment without a
/// lock, so it may only change while there is nobody to read it. Do it before application code.
pub fn remove_var(name: impl AsRef<OsStr>) {
    assert_single_threaded();
    // SAFETY: no other thread exists that could read the environment now.
    unsafe { std::env::remove_var(name) }
}

/// Removes variables, then sets others, as a configuration wants it (`unenv`, `env`).
///
/// # Panics
/// When there is more than one thread, see [`remove_var`].
pub fn change(removed: &[String], set: &[(String, String)]) {
    removed.iter().for_each(remove_var);
    set.iter().for_each(|(name, value)| set_var(name, value));
}

fn assert_single_threaded() {
    // The test harness always has a second thread, which sleeps.
    if cfg!(test) {
        return;
    }
    // Without /proc there is nothing to count; the server does not start there anyway.
    let threads = std::fs::read_dir("/proc/self/task").map_or(1, Iterator::count);
    assert_eq!(threads, 1, "the environment may only change while there is one thread");
}

/// The working directory.
///
/// # Errors
/// When it has been removed or cannot be reached.
pub fn cwd() -> io::Result<PathBuf> {
    std::env::current_dir()
}

#[cfg(test)]
mod tests {
    use super::super::testing::alone;
    use super::*;

    #[test]
    fn variables_come_and_go() {
        alone("sys::env::tests::variables_come_and_go", || {
            set_var("APPSERVER_TEST_VALUE", "1");
            assert_eq!(std::env::var("APPSERVER_TEST_VALUE").as_deref(), Ok("1"));
            remove_var("APPSERVER_TEST_VALUE");
            assert!(std::env::var_os("APPSERVER_TEST_VALUE").is_none());
        });
    }

    #[test]
    fn what_is_removed_and_set_is_there() {
        alone("sys::env::tests::what_is_removed_and_set_is_there", || {
            set_var("APPSERVER_TEST_OLD", "1");
            let set = [("APPSERVER_TEST_OLD".to_owned(), "2".to_owned())];
            change(&["APPSERVER_TEST_OLD".to_owned()], &[]);
            assert!(std::env::var_os("APPSERVER_TEST_OLD").is_none());
            change(&["APPSERVER_TEST_OLD".to_owned()], &set);
            assert_eq!(std::env::var("APPSERVER_TEST_OLD").as_deref(), Ok("2"));
        });
    }

    #[test]
    fn the_working_directory_is_absolute() {
        assert!(cwd().unwrap().is_absolute());
    }
}
