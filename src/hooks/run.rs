//! Carrying out hooks.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

use log::info;

use crate::sys::fs::NON_BLOCK;

use super::{Action, Hook, Point};

/// "No such device or address", errno(3): nobody reads the FIFO.
const ENXIO: i32 = 6;
/// "No child processes", errno(3).
const ECHILD: i32 = 10;

/// Runs the hooks of a point in their order, up to the first that fails.
///
/// # Errors
/// Names the point and what is wrong.
pub fn run_all(hooks: &[Hook], point: Point) -> Result<(), String> {
    for hook in hooks.iter().filter(|hook| hook.point == point) {
        run(&hook.action).map_err(|error| format!("hook-{}: {error}", point.name()))?;
    }
    Ok(())
}

/// Carries out one action; a command is waited for.
///
/// # Errors
/// Names what was tried.
pub fn run(action: &Action) -> Result<(), String> {
    let at = |path: &Path, error: io::Error| format!("{}: {error}", path.display());
    match action {
        Action::Exec(command) => execute(command),
        Action::Print(text) => {
            info!("{text}");
            Ok(())
        }
        Action::Write(path, text) => fs::write(path, text).map_err(|error| at(path, error)),
        Action::WriteFifo(path, text) => write_fifo(path, text).map_err(|error| at(path, error)),
        Action::Unlink(path) => fs::remove_file(path).map_err(|error| at(path, error)),
        Action::Chdir(path) => std::env::set_current_dir(path).map_err(|error| at(path, error)),
    }
}

fn execute(command: &str) -> Result<(), String> {
    info!("running \"{command}\"");
    match Command::new("/bin/sh").arg("-c").arg(command).stdin(Stdio::null()).status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("command \"{command}\" ended with {status}")),
        // The application has told the kernel to reap its children; how it ended nobody knows.
        Err(error) if error.raw_os_error() == Some(ECHILD) => Ok(()),
        Err(error) => Err(format!("command \"{command}\": {error}")),
    }
}

/// Whoever does not read is not waited for, and no error: an instance that is not there needs no word.
fn write_fifo(path: &Path, text: &str) -> io::Result<()> {
    let mut options = OpenOptions::new();
    match options.write(true).custom_flags(NON_BLOCK).open(path) {
        Ok(mut fifo) => fifo.write_all(text.as_bytes()),
        Err(error) if error.raw_os_error() == Some(ENXIO) => {
            info!("nobody reads {}: not written", path.display());
            Ok(())
        }
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::fs::make_fifo;

    #[test]
    fn files_are_written_and_removed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        run(&Action::Write(path.clone(), "long before".into())).unwrap();
        run(&Action::Write(path.clone(), "after".into())).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "after");
        run(&Action::Unlink(path.clone())).unwrap();
        let error = run(&Action::Unlink(path.clone())).unwrap_err();
        assert!(error.contains(path.to_str().unwrap()), "{error}");
    }

    #[test]
    fn a_fifo_without_a_reader_is_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("fifo");
        let action = Action::WriteFifo(path.clone(), "2p".into());
        assert!(run(&action).is_err(), "there is no such file");
        make_fifo(&path, 0o600).unwrap();
        assert_eq!(run(&action), Ok(()));
        let mut options = OpenOptions::new();
        // Reading and writing: opening does not wait for the other side.
        let mut reader = options.read(true).write(true).open(&path).unwrap();
        assert_eq!(run(&action), Ok(()));
        let mut letters = [0; 2];
        io::Read::read_exact(&mut reader, &mut letters).unwrap();
        assert_eq!(&letters, b"2p");
    }

    #[test]
    fn a_command_that_fails_is_named_and_ends_the_row() {
        let hook = |command: &str| Hook { point: Point::PreApp, action: Action::Exec(command.to_owned()) };
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("never");
        let hooks = [hook("exit 0"), hook("exit 3"), hook(&format!("touch {}", path.display()))];
        let error = run_all(&hooks, Point::PreApp).unwrap_err();
        assert_eq!(error, "hook-pre-app: command \"exit 3\" ended with exit status: 3");
        assert!(!path.exists());
        assert_eq!(run_all(&hooks, Point::PostApp), Ok(()));
    }
}
