//! Carrying out hooks.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use log::info;

use crate::sys::fd;
use crate::sys::fs::NON_BLOCK;
use crate::sys::inotify::{Inotify, Mask};

use super::{Action, Hook, Point};

/// "No such device or address", errno(3): nobody reads the FIFO.
const ENXIO: i32 = 6;
/// "No child processes", errno(3).
const ECHILD: i32 = 10;
/// How long the reader of a FIFO may take.
const PATIENCE: Duration = Duration::from_secs(10);

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

/// Carries out one action; the end of a command and the reader of a FIFO are waited for.
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
        Action::WriteFifo(path, text) => {
            write_fifo_and_wait(path, text, PATIENCE).map_err(|error| at(path, error))
        }
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

/// Writes to a FIFO that somebody reads; no reader is no error: an instance that is not there needs no
/// word. The open FIFO, if it was written.
///
/// # Errors
/// When there is no such FIFO, or no room in it.
pub fn write_fifo(path: &Path, text: &str) -> io::Result<Option<File>> {
    let mut options = OpenOptions::new();
    match options.write(true).custom_flags(NON_BLOCK).open(path) {
        Ok(mut fifo) => fifo.write_all(text.as_bytes()).map(|()| Some(fifo)),
        Err(error) if error.raw_os_error() == Some(ENXIO) => {
            info!("nobody reads {}: not written", path.display());
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// The same, and waits until the text is read: the next hook may let another process read this FIFO, for
/// which the text is not meant. What is not read in time is taken back.
fn write_fifo_and_wait(path: &Path, text: &str, patience: Duration) -> io::Result<()> {
    let inotify = Inotify::new()?;
    // Before the text is there to be read: no event is missed.
    inotify.add_watch(path, Mask::IN_ACCESS)?;
    let Some(fifo) = write_fifo(path, text)? else { return Ok(()) };
    let deadline = Instant::now() + patience;
    while fd::unread(fifo.as_fd())? > 0 {
        if !fd::await_readable(inotify.as_fd(), deadline.saturating_duration_since(Instant::now()))? {
            let mut reader = OpenOptions::new().read(true).custom_flags(NON_BLOCK).open(path)?;
            let mut taken_back = vec![0; text.len()];
            // If the reader was faster after all, nothing is there.
            let _ = reader.read(&mut taken_back);
            return Err(io::Error::new(ErrorKind::TimedOut, "who has it open does not read: taken back"));
        }
        inotify.read()?;
    }
    Ok(())
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
    fn a_fifo_without_a_reader_is_left_alone_and_with_one_waited_for() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("fifo");
        let action = Action::WriteFifo(path.clone(), "2p".into());
        assert!(run(&action).is_err(), "there is no such file");
        make_fifo(&path, 0o600).unwrap();
        assert_eq!(run(&action), Ok(()));
        // Reading and writing: opening does not wait for the other side.
        let mut reader = OpenOptions::new().read(true).write(true).open(&path).unwrap();
        let writer = std::thread::spawn(move || run(&action));
        let mut letters = [0; 2];
        reader.read_exact(&mut letters).unwrap();
        assert_eq!(&letters, b"2p");
        assert_eq!(writer.join().unwrap(), Ok(()));
    }

    #[test]
    fn what_is_not_read_is_taken_back() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("fifo");
        make_fifo(&path, 0o600).unwrap();
        let reader = OpenOptions::new().read(true).write(true).open(&path).unwrap();
        let error = write_fifo_and_wait(&path, "2p", Duration::from_millis(1)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TimedOut);
        assert_eq!(fd::unread(reader.as_fd()).unwrap(), 0);
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
