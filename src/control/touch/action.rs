//! ● What a touch file is for.

use std::path::PathBuf;

use crate::config::value::{self, ValueError};
use crate::control::Command;
use crate::hooks::Action;

/// A touch file and what touching it asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Touch {
    /// The file.
    pub path: PathBuf,
    /// What is done.
    pub purpose: Purpose,
}

/// What is done when a file is touched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Purpose {
    /// The master gets a command: `touch-reload`, `touch-workers-reload`, `touch-chain-reload`,
    /// `touch-logrotate`, `touch-logreopen`.
    Command(Command),
    /// A command of the shell is run: `touch-exec`.
    Exec(String),
    /// A signal of the application is raised: `touch-signal`.
    Signal(u8),
    /// A hook is run: `hook-touch`.
    Hook(Action),
}

impl Touch {
    /// A file that stands for a command.
    pub fn command(path: PathBuf, command: Command) -> Touch {
        Touch { path, purpose: Purpose::Command(command) }
    }

    /// `touch-exec = FILE COMMAND`.
    ///
    /// # Errors
    /// When there is no file or no command.
    pub fn exec(text: &str) -> Result<Touch, ValueError> {
        let (path, command) = split(text, "needs a file and a command; write \"FILE COMMAND\"")?;
        Ok(Touch { path, purpose: Purpose::Exec(command.to_owned()) })
    }

    /// `touch-signal = FILE SIGNAL`.
    ///
    /// # Errors
    /// When there is no file, or no signal from 0 to 255.
    pub fn signal(text: &str) -> Result<Touch, ValueError> {
        let (path, number) = split(text, "needs a file and a signal; write \"FILE SIGNAL\"")?;
        // In range, so it fits.
        Ok(Touch { path, purpose: Purpose::Signal(value::int(number, 0, 255)? as u8) })
    }

    /// `hook-touch = FILE ACTION:ARGUMENT`.
    ///
    /// # Errors
    /// When there is no file, or the action does not exist.
    pub fn hook(text: &str) -> Result<Touch, ValueError> {
        let (path, action) = split(text, "needs a file and a hook; write \"FILE ACTION:ARGUMENT\"")?;
        Ok(Touch { path, purpose: Purpose::Hook(Action::parse(action)?) })
    }

    /// What the log says when it was touched.
    pub fn told(&self) -> String {
        let does = match &self.purpose {
            Purpose::Command(Command::Reload) => "grace them all !!!",
            Purpose::Command(Command::ReloadWorkers) => "workers reload !!!",
            Purpose::Command(Command::ChainReload) => "chain reload !!!",
            Purpose::Command(Command::RotateLog) => "rotating the log",
            Purpose::Command(Command::ReopenLog) => "reopening the log",
            Purpose::Command(_) => "",
            Purpose::Exec(command) => return format!("[uwsgi-touch-exec] running {command}"),
            Purpose::Signal(number) => return format!("[uwsgi-touch-signal] raising {number}"),
            Purpose::Hook(_) => "running its hook",
        };
        format!("*** {} has been touched... {does} ***", self.path.display())
    }
}

/// The path ends at the first blank, as in uWSGI.
fn split<'a>(text: &'a str, form: &str) -> Result<(PathBuf, &'a str), ValueError> {
    match text.trim().split_once([' ', '\t']) {
        Some((path, rest)) => Ok((PathBuf::from(path), rest.trim_start())),
        None => Err(ValueError::refused(form)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_and_what_to_do_are_told_apart() {
        let touch = |path: &str, purpose| Ok(Touch { path: path.into(), purpose });
        let exec = touch("/a", Purpose::Exec("echo b  c".into()));
        assert_eq!(Touch::exec(" /a   echo b  c"), exec);
        assert_eq!(Touch::signal("/a 17"), touch("/a", Purpose::Signal(17)));
        assert_eq!(Touch::hook("a print:b c"), touch("a", Purpose::Hook(Action::Print("b c".into()))));
        for wrong in
            [Touch::exec("/a"), Touch::signal("/a 256"), Touch::signal("/a b"), Touch::hook("/a b:c")]
        {
            assert!(wrong.is_err(), "{wrong:?}");
        }
    }
}
