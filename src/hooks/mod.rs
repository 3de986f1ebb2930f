//! ● Hooks: what the configuration asks to be done at points of a process's life.
//!
//! `hook-POINT = ACTION:ARGUMENT`. This file knows the points and reads the actions; `run` carries
//! them out. Who runs the hooks of a point, and what a failure means there, stands at [`Point`].

use std::path::PathBuf;

use crate::config::value::ValueError;

mod run;
pub mod shell;

pub use run::{run, run_all, write_fifo};

/// The words before the colon, for error messages.
const ACTIONS: &str = "exec, print, write, writefifo, unlink, cd, chdir";

/// A point of a process's life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Point {
    /// The configuration has been read: the master of a first start, the zygote of each later
    /// generation. A failure ends the start, or the reload.
    Asap,
    /// The master of a first start, before it gives up privileges; only if it is root. A failure ends
    /// the start.
    AsRoot,
    /// The master of a first start, once it has the user it is to have. A failure ends the start.
    AsUser,
    /// Before the application is loaded: the zygote, with `lazy-apps` each worker. A failure is as if
    /// the application could not be loaded.
    PreApp,
    /// After it was loaded; the same otherwise.
    PostApp,
    /// Each worker, after the fork. A failure ends the worker.
    PostFork,
    /// Each worker of a generation, when it serves. A failure is logged.
    Accepting,
    /// The same, but a worker number only once per generation: not those that take the place of others.
    AcceptingOnce,
    /// [`Point::Accepting`] of worker 1 alone.
    Accepting1,
    /// [`Point::AcceptingOnce`] of worker 1 alone.
    Accepting1Once,
    /// The master of a first start, before its loop. A failure is logged, commands are not waited for.
    MasterStart,
    /// The master, as the last thing before it leaves. A failure is logged.
    AsUserAtexit,
}

impl Point {
    /// The point's name in options and log.
    pub const fn name(self) -> &'static str {
        match self {
            Point::Asap => "asap",
            Point::AsRoot => "as-root",
            Point::AsUser => "as-user",
            Point::PreApp => "pre-app",
            Point::PostApp => "post-app",
            Point::PostFork => "post-fork",
            Point::Accepting => "accepting",
            Point::AcceptingOnce => "accepting-once",
            Point::Accepting1 => "accepting1",
            Point::Accepting1Once => "accepting1-once",
            Point::MasterStart => "master-start",
            Point::AsUserAtexit => "as-user-atexit",
        }
    }

    /// True for what a worker runs when the master tells it that its generation serves.
    pub const fn is_accepting(self) -> bool {
        matches!(self, Point::Accepting | Point::AcceptingOnce | Point::Accepting1 | Point::Accepting1Once)
    }

    /// Whether worker `slot` runs the hooks of this point now; `first` is false for one that takes the
    /// place of another of its generation.
    pub const fn is_for(self, slot: u32, first: bool) -> bool {
        match self {
            Point::Accepting => true,
            Point::AcceptingOnce => first,
            Point::Accepting1 => slot == 1,
            Point::Accepting1Once => slot == 1 && first,
            _ => false,
        }
    }
}

/// Something to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Run a command with `/bin/sh -c`.
    Exec(String),
    /// Write a line to the log.
    Print(String),
    /// Replace the content of a file.
    Write(PathBuf, String),
    /// Write to a FIFO that somebody reads; nothing happens if nobody does.
    WriteFifo(PathBuf, String),
    /// Remove a file.
    Unlink(PathBuf),
    /// Change the working directory of the process.
    Chdir(PathBuf),
}

impl Action {
    /// Reads `ACTION:ARGUMENT`.
    ///
    /// # Errors
    /// For an action that does not exist, or one whose argument is not what it needs.
    pub fn parse(text: &str) -> Result<Action, ValueError> {
        let Some((word, argument)) = text.split_once(':') else {
            return Err(ValueError::refused(format!(
                "is no hook; write ACTION:ARGUMENT, where ACTION is one of {ACTIONS}"
            )));
        };
        let path = || match argument.is_empty() {
            true => Err(ValueError::refused(format!("names no file; write {word}:PATH"))),
            false => Ok(PathBuf::from(argument)),
        };
        Ok(match word {
            "exec" if argument.trim().is_empty() => {
                return Err(ValueError::refused("names no command; write exec:COMMAND"));
            }
            "exec" => Action::Exec(argument.to_owned()),
            "print" => Action::Print(argument.to_owned()),
            "write" => file_and_text(word, argument).map(|(file, text)| Action::Write(file, text))?,
            "writefifo" => file_and_text(word, argument).map(|(file, text)| Action::WriteFifo(file, text))?,
            "unlink" => Action::Unlink(path()?),
            "cd" | "chdir" => Action::Chdir(path()?),
            _ => {
                return Err(ValueError::refused(format!(
                    "begins with an action that does not exist; there are {ACTIONS}"
                )));
            }
        })
    }
}

fn file_and_text(word: &str, argument: &str) -> Result<(PathBuf, String), ValueError> {
    match argument.split_once(' ') {
        Some((file, text)) if !file.is_empty() && !text.is_empty() => {
            Ok((PathBuf::from(file), text.to_owned()))
        }
        _ => Err(ValueError::refused(format!("needs a file and a text; write {word}:PATH TEXT"))),
    }
}

/// An action at a point.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hook {
    /// When.
    pub point: Point,
    /// What.
    pub action: Action,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn actions_are_read_with_their_arguments() {
        let cases = [
            ("exec:echo a:b > c", Action::Exec("echo a:b > c".into())),
            ("print:", Action::Print(String::new())),
            ("writefifo:/run/a.fifo 2p", Action::WriteFifo("/run/a.fifo".into(), "2p".into())),
            ("write:/run/a some words", Action::Write("/run/a".into(), "some words".into())),
            ("unlink:/run/a b", Action::Unlink("/run/a b".into())),
            ("cd:/srv", Action::Chdir("/srv".into())),
            ("chdir:/srv", Action::Chdir("/srv".into())),
        ];
        for (text, action) in cases {
            assert_eq!(Action::parse(text), Ok(action), "{text}");
        }
    }

    #[test]
    fn what_is_no_action_is_refused_with_what_there_is() {
        for text in ["", "reload", "mount:proc none /proc", "callint:putenv A=1"] {
            let problem = Action::parse(text).unwrap_err().to_string();
            assert!(problem.contains("writefifo"), "{text}: {problem}");
        }
        for text in ["exec: ", "writefifo:/a", "write:/a ", "write: text", "unlink:", "cd:"] {
            assert!(Action::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn once_is_for_the_first_of_its_number_and_1_for_worker_one() {
        let points = [Point::Accepting, Point::AcceptingOnce, Point::Accepting1, Point::Accepting1Once];
        let cases = [
            (1, true, [true, true, true, true]),
            (1, false, [true, false, true, false]),
            (2, true, [true, true, false, false]),
            (2, false, [true, false, false, false]),
        ];
        for (slot, first, expected) in cases {
            assert_eq!(points.map(|point| point.is_for(slot, first)), expected, "{slot} {first}");
        }
        assert!(!Point::PostFork.is_for(1, true));
    }
}
