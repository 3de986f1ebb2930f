//! The bed of the black-box tests.
//!
//! - [`server`]: starts a server in a directory and process group of its own, and cleans up.
//! - [`log`]: what the server logged; tests wait for lines instead of sleeping.
//! - [`http`]: a blocking client that tells exactly how a request failed.
//! - [`load`]: many clients at once, counting failures by kind.
//! - [`exchange`]: requests that last exactly as long as the test wants.
//! - [`gate`]: where the test application waits until the test lets it go on.
//! - [`faults`]: a machine that fails on purpose.
//! - [`daemon`]: a server that left its shell.
//! - [`uwsgi_app`]: applications that use the `uwsgi` module.
//! - [`nginx`]: the web server in front of one.
//! - [`browser`]: a client with cookies that sends forms.
//! - [`python`]: the applications of `tests/apps`, with their virtual environments.
//! - [`wsgi`]: applications that are written in the test.
//! - [`python_app`]: Python applications, and the interpreter to run them with.
//! - [`notify`]: a service manager that only listens.
//! - [`systemd`]: a real systemd of the test's own.
//! - [`deploy`]: releases for a service in there.
//! - [`processes`]: what `/proc` says about the server's processes.
//!
//! The test application is an example, which `cargo test` builds along. After a change to the
//! library, `cargo test --test it` alone would run an old one: build it with
//! `cargo build --example testapp`.

use std::time::{Duration, Instant};

pub mod browser;
#[path = "../../app/checksum.rs"]
pub mod checksum;
pub mod container;
pub mod daemon;
pub mod deploy;
pub mod exchange;
pub mod faults;
pub mod gate;
pub mod http;
pub mod load;
pub mod log;
pub mod nginx;
pub mod notify;
pub mod processes;
pub mod python;
pub mod python_app;
pub mod server;
pub mod systemd;
pub mod uwsgi_app;
pub mod wsgi;

pub use exchange::Exchange;
pub use http::{Client, Connection, Failure, Target, get};
pub use load::{Load, LoadSpec};
pub use server::Server;

/// How long anything may take that ought to happen at once; generous, for a busy CI machine.
pub const LIMIT: Duration = Duration::from_secs(30);

/// Polls until `check` gives a value.
///
/// Only for what cannot be waited on: `/proc`, the death of a process that is not our child, the
/// removal of a file. What the server logs is waited for with [`Server::wait_for_log`].
///
/// # Panics
/// After `limit`, naming `what`.
pub fn eventually<T>(what: &str, limit: Duration, mut check: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(value) = check() {
            return value;
        }
        assert!(Instant::now() < deadline, "not within {limit:?}: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
