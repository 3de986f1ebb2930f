//! The exit codes an operator, a shell or a supervisor can see.
//!
//! They are `u8`, as [`std::process::ExitCode`] wants them.

/// Served and stopped, printed something, or a command was delivered.
pub const EXIT_OK: u8 = 0;

/// Something failed: the configuration, a socket, a file, a command to a running server.
pub const EXIT_ERROR: u8 = 1;

/// The command line could not be understood.
pub const EXIT_USAGE: u8 = 2;

/// No application could be loaded and `need-app` is on; the number is uWSGI's.
pub const EXIT_NO_APP: u8 = 22;

/// `--wait=SECONDS`: the time was up; the number is that of `timeout(1)`.
pub const EXIT_TIMED_OUT: u8 = 124;

/// `--status`: the server runs. The three are those of the `status` action of init scripts (LSB).
pub const EXIT_STATUS_RUNNING: u8 = 0;

/// `--status`: the server does not run.
pub const EXIT_STATUS_STOPPED: u8 = 3;

/// `--status`: cannot tell, for example because the pidfile may not be read.
pub const EXIT_STATUS_UNKNOWN: u8 = 4;
