//! A place where the application waits until the test lets it pass.

use std::io::Read;
use std::os::unix::net::UnixStream;
use std::path::Path;

/// Connects to the test, which sees in that how far the application has come, and waits until it
/// closes the connection. Without a gate, or with one that nobody keeps any more, it passes.
pub fn pass(gate: Option<&Path>) {
    if let Some(Ok(mut keeper)) = gate.map(UnixStream::connect) {
        let _ = keeper.read(&mut [0]);
    }
}
