//! The entry: finds out which process this is and runs it.

use std::io::Write;
use std::process::ExitCode;

use log::error;

use crate::app::AppFactory;
use crate::boot::{self, BootRole, StartContext};
use crate::cli::{self, Invocation};
use crate::config::Config;
use crate::control::client;
use crate::error::{EXIT_ERROR, EXIT_OK};
use crate::logging::{self, Role};
use crate::sys::process::Signal;
use crate::{inspect, master, zygote};

/// Runs the server, or the command that the arguments ask for, with applications built by `factory`.
///
/// Call it first thing in `main`, before any thread is started: the same binary is executed again
/// as zygote and as the master's own successor, and both come through here.
pub fn run(factory: AppFactory) -> ExitCode {
    ExitCode::from(dispatch(factory))
}

fn dispatch(factory: AppFactory) -> u8 {
    logging::init(Role::Master);
    let mut envelope = match boot::take_envelope() {
        Ok(envelope) => envelope,
        Err(error) => return failed("boot", &error),
    };
    let start = match StartContext::capture() {
        Ok(start) => start,
        Err(error) => return failed("the current directory", &error),
    };
    if let Some(envelope) = envelope.take_if(|it| it.role == BootRole::Zygote) {
        return zygote::run(&start, envelope, factory);
    }
    // From here on no signal may kill the process or get lost: first of all, because reading the
    // configuration may take its time.
    let signals = match master::catch_signals() {
        Ok(signals) => signals,
        Err(error) => return failed("signals", &error),
    };
    match envelope {
        Some(envelope) if envelope.role == BootRole::Master => master::resume(start, envelope, signals),
        inherited => {
            let entries = match cli::parse(start.argv.iter().cloned()) {
                Ok(Invocation::Serve(entries)) => entries,
                Ok(Invocation::Print(text)) => return print(&text),
                Ok(Invocation::Command(command)) => return command_outcome(&command),
                Ok(Invocation::Inspect(inspection, gathered)) => {
                    let report = inspect::run(inspection, gathered, &start, factory);
                    report.complaints.iter().for_each(|complaint| eprintln!("{complaint}"));
                    print(&report.text);
                    return report.code;
                }
                Err(error) => {
                    // A usage error is for the person at the terminal, not for the log.
                    eprintln!("{}", error.text.trim_end());
                    return error.exit_code;
                }
            };
            match Config::build(entries) {
                Ok(config) => {
                    print(&printed_lines(&config));
                    master::start(start, config, signals, inherited)
                }
                Err(errors) => {
                    eprintln!("{errors}");
                    EXIT_ERROR
                }
            }
        }
    }
}

/// What `print` asks for, one line each.
fn printed_lines(config: &Config) -> String {
    config.prints.iter().map(|line| format!("{line}\n")).collect()
}

fn failed(what: &str, error: &dyn std::fmt::Display) -> u8 {
    error!("{what}: {error}");
    EXIT_ERROR
}

fn print(text: &str) -> u8 {
    // A closed pipe (`--help | head`) is no error.
    let _ = std::io::stdout().write_all(text.as_bytes());
    EXIT_OK
}

fn command_outcome(command: &cli::Command) -> u8 {
    let outcome = match command {
        cli::Command::Reload(pidfile) => client::signal(pidfile, Signal::SIGHUP, "reload"),
        cli::Command::Stop(pidfile) => client::signal(pidfile, Signal::SIGINT, "stop"),
        cli::Command::Status(pidfile) => client::status(pidfile),
    };
    if outcome.code == EXIT_OK {
        print(&format!("{}\n", outcome.text))
    } else {
        eprintln!("{}", outcome.text);
        outcome.code
    }
}
