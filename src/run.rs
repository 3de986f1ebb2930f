//! The entry: finds out which process this is and runs it.

use std::ffi::OsString;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use log::error;

use crate::app::AppFactory;
use crate::boot::{self, BootRole, Envelope, StartContext, c_string};
use crate::cli::torture::Asked;
use crate::cli::{self, Invocation, Wait};
use crate::config::gather::Ending;
use crate::config::{Config, ConfigErrors, Examined};
use crate::control::{client, pausing, waiting};
use crate::error::{EXIT_ERROR, EXIT_OK, EXIT_USAGE};
use crate::logging::{self, Role};
use crate::master::SocketOrigin;
use crate::master::answer::Kind;
use crate::service::activation::Activation;
use crate::service::manager;
use crate::sys::preload;
use crate::sys::process::{self, Signal};
use crate::sys::signal::SignalSource;
use crate::{inspect, master, torture, zygote};

/// Runs the server, or the command that the arguments ask for, with applications built by `factory`.
///
/// Call it first thing in `main`, before any thread is started: the same binary is executed again
/// as zygote and as the master's own successor, and both come through here.
pub fn run(factory: AppFactory) -> ExitCode {
    ExitCode::from(dispatch(factory))
}

/// Runs a process of the server in the executable of an interpreter, which has put itself there ([`crate::guest`]);
/// `None` in every other process that happens to have the library in it.
///
/// Call it in place of the executable's `main`; the code is that of the process.
pub fn run_as_guest(factory: AppFactory) -> Option<u8> {
    let is_guest = |it: &Envelope| matches!(it.role, BootRole::Guest | BootRole::Trial);
    let envelope = boot::take_envelope().map(|it| it.filter(is_guest)).transpose()?;
    preload::forget_first();
    logging::init(Role::Master);
    Some(match envelope {
        Err(error) => failed("boot", &error),
        Ok(envelope) if envelope.role == BootRole::Trial => inspect::trial::go_on(&envelope, factory),
        Ok(envelope) => match StartContext::capture() {
            Ok(start) => zygote::run(&start, envelope, factory),
            Err(error) => failed("the current directory", &error),
        },
    })
}

fn dispatch(factory: AppFactory) -> u8 {
    logging::init(Role::Master);
    let mut envelope = match boot::take_envelope() {
        Ok(envelope) => envelope,
        Err(error) => return failed("boot", &error),
    };
    let mut start = match StartContext::capture() {
        Ok(start) => start,
        Err(error) => return failed("the current directory", &error),
    };
    manager::hide_variables();
    // A process that another one of ours has executed gets its sockets from that.
    let activation = match envelope {
        Some(_) => Activation::default(),
        None => Activation::take(&mut start),
    };
    if let Some(envelope) = envelope.take_if(|it| it.role == BootRole::Zygote) {
        return zygote::run(&start, envelope, factory);
    }
    if start.argv.get(1).is_some_and(|word| word == cli::torture::NAME) {
        return torture_command(&start.argv[1..]);
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
            let origin = inherited.map_or(SocketOrigin::Manager(&activation), SocketOrigin::Master);
            let Outcome { code, fallback } = first_start(start.clone(), origin, signals, factory);
            match fallback {
                Some(config) if code == EXIT_ERROR => {
                    activation.give_back(&mut start);
                    fall_back(&start, &config)
                }
                _ => code,
            }
        }
    }
}

fn torture_command(words: &[OsString]) -> u8 {
    match cli::torture::parse(words) {
        Ok(Asked::Run(plan)) => torture::run(&plan),
        Ok(Asked::Print(text)) => print(&text),
        Err(text) => {
            eprintln!("{}", text.trim_end());
            EXIT_USAGE
        }
    }
}

/// How a start by a user has ended.
struct Outcome {
    code: u8,
    /// `fallback-config`, as far as the configuration could be read.
    fallback: Option<PathBuf>,
}

fn first_start(
    start: StartContext,
    origin: SocketOrigin<'_>,
    signals: SignalSource,
    factory: AppFactory,
) -> Outcome {
    let done = |code| Outcome { code, fallback: None };
    let entries = match cli::parse(start.argv.iter().cloned()) {
        Ok(Invocation::Serve(entries)) => entries,
        Ok(Invocation::Print(text)) => return done(print(&text)),
        Ok(Invocation::Command(command)) => return done(command_outcome(&command)),
        Ok(Invocation::Inspect(inspection, gathered)) => {
            let report = inspect::run(inspection, gathered, &start, factory);
            report.complaints.iter().for_each(|complaint| eprintln!("{complaint}"));
            print(&report.text);
            return done(report.code);
        }
        Ok(Invocation::End(Ending { code, origin, lines, fallback })) => {
            print(&whole_lines(&lines));
            eprintln!("{origin}: exit ends the start with status {code}");
            return Outcome { code, fallback: fallback.map(PathBuf::from) };
        }
        Err(error) => {
            // A usage error is for the person at the terminal, not for the log.
            eprintln!("{}", error.text.trim_end());
            manager::failed(&start, error.text.trim(), error.fallback.is_some());
            return Outcome { code: error.exit_code, fallback: error.fallback };
        }
    };
    let Examined { config, errors } = Config::examine(entries);
    let fallback = config.fallback_config.clone();
    if !errors.is_empty() {
        let text = ConfigErrors(errors).to_string();
        eprintln!("{text}");
        manager::failed(&start, &text, fallback.is_some());
        return Outcome { code: EXIT_ERROR, fallback };
    }
    print(&whole_lines(&config.prints));
    Outcome { code: master::start(start, config, signals, origin), fallback }
}

/// Executes the binary again, in this process and with the fallback configuration as its only argument;
/// returns only when that is not possible.
fn fall_back(start: &StartContext, config: &Path) -> u8 {
    let program = start.argv.first().cloned().unwrap_or_default();
    let argv = [program, config.as_os_str().to_owned()];
    if start.argv[..] == argv {
        error!("the configuration that failed names itself as fallback-config");
        return EXIT_ERROR;
    }
    error!("the start has failed; trying the fallback configuration {}", config.display());
    let fresh = StartContext { argv: argv.to_vec(), ..start.clone() };
    if let Err(error) = std::env::set_current_dir(&fresh.cwd) {
        return failed("the current directory", &error);
    }
    let binary = c_string(fresh.binary.as_os_str());
    failed("the fallback configuration", &process::exec(&binary, &fresh.argv_c(), &fresh.env_c()))
}

fn whole_lines(lines: &[String]) -> String {
    lines.iter().map(|line| format!("{line}\n")).collect()
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

fn ask_for(kind: Kind, pidfile: &Path, wait: Option<Wait>, say: &mut dyn FnMut(&str)) -> client::Outcome {
    let (verb, signal) = waiting::request(kind);
    match wait {
        Some(wait) => waiting::change(kind, pidfile, wait.limit, say),
        None => client::signal(pidfile, signal, verb),
    }
}

fn command_outcome(command: &cli::Command) -> u8 {
    let say = &mut |line: &str| {
        print(&format!("{line}\n"));
    };
    let outcome = match command {
        cli::Command::Reload(pidfile, wait) => ask_for(Kind::Reload, pidfile, *wait, say),
        cli::Command::Rollback(pidfile, wait) => ask_for(Kind::Rollback, pidfile, *wait, say),
        cli::Command::Stop(pidfile, None) => client::signal(pidfile, Signal::SIGINT, "stop"),
        cli::Command::Stop(pidfile, Some(wait)) => waiting::stop(pidfile, wait.limit, say),
        cli::Command::Pause(pidfile, paused) => pausing::order(pidfile, *paused),
        cli::Command::Status(pidfile) => client::status(pidfile),
    };
    if outcome.code == EXIT_OK {
        print(&format!("{}\n", outcome.text))
    } else {
        eprintln!("{}", outcome.text);
        outcome.code
    }
}
