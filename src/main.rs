//! The `appserver` command: the library with its built-in applications.

use std::process::ExitCode;

fn main() -> ExitCode {
    appserver::run(appserver::app::build)
}
