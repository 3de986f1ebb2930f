//! Which executable the operator means.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::{env, fs, io};

use super::error::{FindError, Trouble};
use crate::config::PythonOptions;
use crate::sys::fs::{Right, may};

/// The interpreter that is looked for when none is named.
const USUAL: &str = "python3";

/// What is searched without `PATH`: what `execvp(3)` searches then, and where things are installed
/// by hand.
const USUAL_PATH: &str = "/usr/local/bin:/usr/bin:/bin";

/// Which interpreter the operator chose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Choice<'a> {
    /// That of a virtual environment, or of an installation: a directory with `bin/python`.
    VirtualEnv(&'a Path),
    /// An executable; looked up in `PATH` when it has no slash.
    Executable(&'a Path),
    /// None: `python3` in `PATH`.
    Path,
}

impl<'a> Choice<'a> {
    /// The choice that the configuration makes. A virtual environment knows its interpreter, so it
    /// goes before an executable.
    pub fn of(options: &'a PythonOptions) -> Self {
        match (&options.virtualenv, &options.executable) {
            (Some(directory), _) => Choice::VirtualEnv(directory),
            (None, Some(executable)) => Choice::Executable(executable),
            (None, None) => Choice::Path,
        }
    }

    /// The executable that is meant, as an absolute path. Links stay: that of a virtual environment
    /// is what tells Python that it is in one.
    pub(super) fn executable(self) -> Result<PathBuf, FindError> {
        match self {
            Choice::VirtualEnv(directory) => of_virtualenv(directory),
            Choice::Executable(name) if !has_slash(name) => in_path(name),
            Choice::Executable(path) => named(path),
            Choice::Path => in_path(Path::new(USUAL)),
        }
    }
}

fn of_virtualenv(directory: &Path) -> Result<PathBuf, FindError> {
    let directory = absolute(directory);
    match fs::metadata(&directory) {
        Err(error) => return Err(Trouble::NoVirtualEnv(error).of(directory)),
        Ok(found) if !found.is_dir() => return Err(Trouble::NotADirectory.of(directory)),
        Ok(_) => {}
    }
    for name in ["bin/python", "bin/python3"] {
        let executable = directory.join(name);
        if executable.exists() {
            return Ok(executable);
        }
        if let Some(target) = dangling(&executable) {
            return Err(Trouble::DanglingLink(target).of(executable));
        }
        // Not to be told from absence by `exists`: a directory that may not be entered.
        if let Err(error) = fs::symlink_metadata(&executable)
            && error.kind() != io::ErrorKind::NotFound
        {
            return Err(cannot_run(error).of(executable));
        }
    }
    if directory.join("pyvenv.cfg").exists() {
        return Err(Trouble::EmptyVirtualEnv.of(directory));
    }
    Err(Trouble::NoVirtualEnvAtAll.of(directory))
}

/// What a link leads to in the end, when that does not exist.
fn dangling(link: &Path) -> Option<PathBuf> {
    // As many links as the kernel follows.
    const MOST_LINKS: usize = 40;
    let mut path = link.to_owned();
    for links in 0..MOST_LINKS {
        match fs::read_link(&path) {
            // Absolute targets replace the directory.
            Ok(target) => path = path.parent()?.join(target),
            Err(error) if error.kind() == io::ErrorKind::NotFound && links > 0 => return Some(path),
            Err(_) => return None,
        }
    }
    Some(path)
}

fn named(path: &Path) -> Result<PathBuf, FindError> {
    let path = absolute(path);
    match fs::metadata(&path) {
        Err(error) => Err(cannot_run(error).of(path)),
        Ok(found) if found.is_dir() => Err(Trouble::IsADirectory.of(path)),
        Ok(_) => Ok(path),
    }
}

/// Searches as a shell does: what is no program is passed over, an empty part of `PATH` is the
/// working directory.
fn in_path(name: &Path) -> Result<PathBuf, FindError> {
    let path = env::var_os("PATH").filter(|path| !path.is_empty()).unwrap_or_else(|| USUAL_PATH.into());
    search(&path, name).ok_or_else(|| Trouble::NotInPath { path: path.display().to_string() }.of(name))
}

fn search(path: &OsStr, name: &Path) -> Option<PathBuf> {
    let is_program = |file: &PathBuf| file.is_file() && may(file, &[Right::Execute]).is_ok();
    env::split_paths(path)
        .map(|directory| absolute(&if directory.as_os_str().is_empty() { ".".into() } else { directory }))
        .map(|directory| directory.join(name))
        .find(is_program)
}

/// What it means here that a file cannot be run.
pub(super) fn cannot_run(source: io::Error) -> Trouble {
    let hint = match source.kind() {
        io::ErrorKind::PermissionDenied => {
            "; the server's user needs the right to run it and to enter every directory above it"
        }
        _ => "",
    };
    Trouble::CannotRun { source, hint }
}

fn has_slash(path: &Path) -> bool {
    path.as_os_str().as_encoded_bytes().contains(&b'/')
}

fn absolute(path: &Path) -> PathBuf {
    // It fails without a working directory; what is relative is not found then either.
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use tempfile::TempDir;

    use super::*;

    fn file(directory: &TempDir, name: &str, mode: u32) -> PathBuf {
        let path = directory.path().join(name);
        fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
        fs::write(&path, "").expect("a file");
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("a mode");
        path
    }

    fn said(choice: Choice<'_>) -> String {
        choice.executable().expect_err("no executable").to_string()
    }

    #[test]
    fn a_virtual_environment_goes_before_an_executable() {
        let mut options = PythonOptions::default();
        assert_eq!(Choice::of(&options), Choice::Path);
        options.executable = Some("python3.11".into());
        assert_eq!(Choice::of(&options), Choice::Executable(Path::new("python3.11")));
        options.virtualenv = Some("/srv/venv".into());
        assert_eq!(Choice::of(&options), Choice::VirtualEnv(Path::new("/srv/venv")));
    }

    #[test]
    fn the_interpreter_of_an_environment_is_its_bin_python() {
        let venv = tempfile::tempdir().expect("a directory");
        let python3 = file(&venv, "bin/python3", 0o755);
        assert_eq!(Choice::VirtualEnv(venv.path()).executable().expect("found"), python3);
        let python = file(&venv, "bin/python", 0o755);
        assert_eq!(Choice::VirtualEnv(venv.path()).executable().expect("found"), python);
    }

    #[test]
    fn an_environment_without_interpreter_is_told_from_a_directory() {
        let directory = tempfile::tempdir().expect("a directory");
        let venv = Choice::VirtualEnv(directory.path());
        assert!(said(venv).contains("has neither bin/python nor pyvenv.cfg"), "{}", said(venv));
        let config = file(&directory, "pyvenv.cfg", 0o644);
        assert!(said(venv).contains("this virtual environment has no bin/python"), "{}", said(venv));
        assert!(said(Choice::VirtualEnv(&config)).contains("is no directory"));
        let missing = directory.path().join("missing");
        let text = said(Choice::VirtualEnv(&missing));
        assert!(text.starts_with(&format!("{}: cannot use", missing.display())), "{text}");
        assert!(text.contains("python3 -m venv"), "{text}");
    }

    #[test]
    fn a_link_to_a_python_that_is_gone_is_named_to_its_end() {
        let venv = tempfile::tempdir().expect("a directory");
        fs::create_dir(venv.path().join("bin")).expect("a directory");
        symlink("python3", venv.path().join("bin/python")).expect("a link");
        symlink("/no/such/python3.7", venv.path().join("bin/python3")).expect("a link");
        let text = said(Choice::VirtualEnv(venv.path()));
        assert!(text.contains("bin/python: is a link to /no/such/python3.7, which does not exist"), "{text}");
        symlink("loop", venv.path().join("bin/loop")).expect("a link");
        assert!(dangling(&venv.path().join("bin/loop")).is_some());
    }

    #[test]
    fn an_executable_with_a_slash_is_not_searched() {
        let directory = tempfile::tempdir().expect("a directory");
        let python = file(&directory, "python", 0o755);
        assert_eq!(Choice::Executable(&python).executable().expect("found"), python);
        assert!(said(Choice::Executable(directory.path())).contains("is a directory"));
        let text = said(Choice::Executable(Path::new("no/such/python")));
        assert!(text.contains("/no/such/python: cannot be run: No such file"), "{text}");
        assert!(text.starts_with('/'), "{text}");
    }

    #[test]
    fn path_is_searched_for_the_first_program() {
        let directory = tempfile::tempdir().expect("a directory");
        let here = directory.path();
        fs::create_dir_all(here.join("a/python")).expect("a directory");
        file(&directory, "b/python", 0o644);
        let program = file(&directory, "c/python", 0o755);
        file(&directory, "d/python", 0o755);
        let path = env::join_paths(["none", "a", "b", "c", "d"].map(|name| here.join(name))).expect("a path");
        assert_eq!(search(&path, Path::new("python")), Some(program));
        assert_eq!(search(&path, Path::new("python9")), None);
        // The tests run in the directory of the package.
        let relative = file(&directory, "e/run", 0o755);
        assert!(search(OsStr::new(":/no"), Path::new("Cargo.toml")).is_none(), "no program");
        assert!(relative.is_absolute());
    }

    #[test]
    fn a_program_that_is_nowhere_is_told_with_the_path() {
        let text = said(Choice::Executable(Path::new("no-such-python")));
        let path = env::var("PATH").expect("a PATH");
        assert!(text.starts_with("no-such-python: there is no such program in PATH"), "{text}");
        assert!(text.contains(&path) && text.contains("apt install python3"), "{text}");
    }
}
