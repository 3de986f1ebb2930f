//! Why there is no interpreter, in words that help.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

use super::plugin_library::GUEST;

/// Why no interpreter was found, or not one that can be used.
#[derive(Debug, Error)]
#[error("{}: {trouble}", subject.display())]
pub struct FindError {
    /// What it is about: the directory or executable that was chosen, or what it led to.
    pub subject: PathBuf,
    /// What is wrong with it.
    pub trouble: Trouble,
}

/// What is wrong; each text says what to do.
#[derive(Debug, Error)]
pub enum Trouble {
    /// A virtual environment that is not there.
    #[error("cannot use this virtual environment: {0}; make one with: python3 -m venv DIRECTORY")]
    NoVirtualEnv(io::Error),
    /// A file where a directory is needed.
    #[error(
        "is no directory; virtualenv is the directory of an environment, an interpreter is named with python"
    )]
    NotADirectory,
    /// A virtual environment without interpreter.
    #[error(
        "this virtual environment has no bin/python; make it anew with: python3 -m venv --clear DIRECTORY"
    )]
    EmptyVirtualEnv,
    /// A directory that is no virtual environment.
    #[error(
        "has neither bin/python nor pyvenv.cfg, so it is no virtual environment and no installation of Python; \
         make an environment with: python3 -m venv DIRECTORY"
    )]
    NoVirtualEnvAtAll,
    /// The interpreter of a virtual environment is gone.
    #[error(
        "is a link to {}, which does not exist: the Python that the virtual environment was made with is gone; \
         make it anew with the one there is: python3 -m venv --clear DIRECTORY", .0.display()
    )]
    DanglingLink(PathBuf),
    /// Nothing of this name in `PATH`.
    #[error(
        "there is no such program in PATH ({path}); install Python (apt install python3), \
         or name one with virtualenv or python"
    )]
    NotInPath {
        /// The `PATH` that was searched.
        path: String,
    },
    /// A directory where a program is needed.
    #[error("is a directory; python names an executable, a virtual environment is named with virtualenv")]
    IsADirectory,
    /// The system did not start it.
    #[error("cannot be run: {source}{hint}")]
    CannotRun {
        /// What it said.
        source: io::Error,
        /// What that means here.
        hint: &'static str,
    },
    /// It is for another processor.
    #[error("is made for {theirs}, the server for {ours}; both must be the same")]
    OtherArchitecture {
        /// The processor it is for.
        theirs: String,
        /// The processor the server is for.
        ours: String,
    },
    /// It did not answer.
    #[error("did not say within {seconds} s which Python it is{said}; try it by hand: {command}")]
    NoAnswer {
        /// How long that was waited for.
        seconds: u64,
        /// What it wrote to standard error, quoted.
        said: String,
        /// A command that has to answer at once.
        command: String,
    },
    /// It answered something else.
    #[error(
        "is not Python, or a broken one: asked for its version, {outcome}{said}; try it by hand: {command}"
    )]
    NotPython {
        /// What it did instead.
        outcome: String,
        /// What it wrote to standard error, quoted.
        said: String,
        /// A command that has to answer at once.
        command: String,
    },
    /// It is PyPy, GraalPy, or another.
    #[error(
        "is {0}, another implementation of Python; the plugin drives CPython only: choose one with python or virtualenv"
    )]
    OtherImplementation(String),
    /// It is older than what the plugin is built for.
    #[error("is Python {0}; the oldest that can be used is 3.9")]
    TooOld(String),
    /// It has no global lock.
    #[error(
        "is a free-threaded build of Python {0}, which has no GIL; the plugin is built for those with one: \
         choose the ordinary build (without the t behind its version)"
    )]
    FreeThreaded(String),
    /// Its code is in the executable only.
    #[error(
        "Python {version} is there, its shared library is not; looked for {tried}. {advice}. Or, where its executable \
         holds the same, put {GUEST} next to the server, or where its plugin is"
    )]
    NoLibrary {
        /// The version.
        version: String,
        /// Every file that was looked for.
        tried: String,
        /// How to get it.
        advice: String,
    },
}

impl Trouble {
    /// Says what is in trouble.
    pub(super) fn of(self, subject: impl Into<PathBuf>) -> FindError {
        FindError { subject: subject.into(), trouble: self }
    }
}
