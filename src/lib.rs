//! A pre-fork application server whose reload loses nothing and stops nothing.
//!
//! The modules, from the outside in:
//!
//! - [`cli`] and [`config`]: one option table, the typed configuration built from it.
//! - [`inspect`]: `--check-config` and `--show-config`, which start nothing.
//! - [`boot`]: which process this is: a user's command, a zygote, or a master's successor.
//! - [`master`]: the process an operator talks to. A pure state machine decides, `perform`
//!   carries out; it runs no application code and no async runtime.
//! - [`zygote`]: loads the application once per generation and forks workers on request.
//! - [`guest`]: the zygote in the executable of an interpreter that has its code there.
//! - [`worker`]: accepts, speaks HTTP through [`protocol`], calls the [`app`].
//! - [`control`]: the master FIFO, pidfiles, touch files and the commands they carry.
//! - [`hooks`]: what the configuration asks to be done at points of a process's life.
//! - [`privileges`]: who the processes are, and whether that user can do what is asked of it.
//! - [`net`]: listen addresses and the sockets behind them.
//! - [`channel`] and [`scoreboard`]: what travels between the processes; [`cause`]: why workers end;
//!   [`evidence`]: what a process is doing.
//! - [`signals`], [`locks`] and [`cache`]: what the workers of an application share.
//! - [`logging`]: one log, one owner, uWSGI's request line.
//! - [`service`]: what a service manager such as systemd passes and is told: sockets, readiness, watchdog.
//! - [`torture`]: `appserver torture`, a load that counts what is lost while a server is hit.
//! - [`sys`]: the only place that talks to libc.
//!
//! An application written in Rust is a binary whose `main` is [`run`] with its own factory:
//!
//! ```no_run
//! use std::process::ExitCode;
//!
//! fn main() -> ExitCode {
//!     appserver::run(appserver::app::build)
//! }
//! ```

pub mod app;
pub mod boot;
pub mod cache;
pub mod cause;
pub mod channel;
pub mod cli;
pub mod config;
pub mod control;
pub mod error;
pub mod evidence;
pub mod guest;
pub mod hooks;
pub mod inspect;
pub mod locks;
pub mod logging;
pub mod master;
pub mod net;
pub mod privileges;
pub mod protocol;
mod run;
pub mod scoreboard;
pub mod service;
pub mod signals;
pub mod sys;
pub mod torture;
pub mod worker;
pub mod zygote;

pub use run::{run, run_as_guest};

/// Compiles the example in the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
