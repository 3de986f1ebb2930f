//! A file of the application, broken for a while.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::sys::fs::rename_noreplace;

/// What no interpreter and no reader of configurations takes. An INI may have any text before its section.
const NONSENSE: &str =
    "))) this is not code\n[appserver]\nprocesses = nonsense\n[uwsgi]\nprocesses = nonsense\n";
/// Added to the name of the original.
const SUFFIX: &str = ".before-torture";

/// A file in whose place nonsense stands; dropped, it is as it was.
#[derive(Debug)]
pub struct Broken {
    path: PathBuf,
    original: PathBuf,
}

impl Broken {
    /// Puts nonsense in the place of a file. The original keeps its identity under another name beside it.
    ///
    /// # Errors
    /// When the file cannot be renamed, or a run that was killed has left its original behind.
    pub fn new(path: &Path) -> io::Result<Self> {
        let mut original = OsString::from(path);
        original.push(SUFFIX);
        let original = PathBuf::from(original);
        rename_noreplace(path, &original).map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => io::Error::other(format!(
                "{} is left from a run that was killed: put it back in its place",
                original.display()
            )),
            _ => error,
        })?;
        let broken = Broken { path: path.to_owned(), original };
        fs::write(path, NONSENSE)?;
        Ok(broken)
    }

    /// Puts it back.
    ///
    /// # Errors
    /// When it cannot; it is still beside its place then.
    pub fn mend(&self) -> io::Result<()> {
        fs::rename(&self.original, &self.path)
    }
}

impl Drop for Broken {
    fn drop(&mut self) {
        if self.original.exists()
            && let Err(error) = self.mend()
        {
            eprintln!("torture: {} cannot be put back: {error}", self.original.display());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broken_file_comes_back_as_it_was() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("app.py");
        fs::write(&path, "x = 1\n").unwrap();
        let broken = Broken::new(&path).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), NONSENSE);
        let error = Broken::new(&path).unwrap_err().to_string();
        assert!(error.contains("app.py.before-torture is left"), "{error}");
        drop(broken);
        assert_eq!(fs::read_to_string(&path).unwrap(), "x = 1\n");
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
        assert!(Broken::new(&directory.path().join("missing")).is_err());
    }
}
