//! Processes that the application forks and lets return from its code into ours.

use crate::sys::{process, stray};

/// Ends this process if the application has forked it. It is a copy that came back from a call to the
/// application made by the original, which goes on itself: two would load, answer, or leave.
#[inline]
pub fn turn_away(place: &str) {
    if stray::is_stray() {
        end(place);
    }
}

#[cold]
fn end(place: &str) -> ! {
    log::warn!(
        "a process that the application forked {place} came back from it, and is ended; it should end itself \
         with os._exit()"
    );
    process::exit_now(0)
}
