//! Exceptions that have ended a request: counted, and a reason for a fresh worker if the operator thinks so.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::app::{AppCommand, WorkerInfo};
use crate::config::recycling::Raised;

/// Characters of an exception that go into the log line.
const SHOWN: usize = 200;

/// This worker has asked to be replaced: the master does not forget.
static HAS_ASKED: AtomicBool = AtomicBool::new(false);

/// A request has ended in an exception.
pub(super) fn note(worker: &WorkerInfo, raised: &Raised) {
    worker.scoreboard.cell(worker.cell).count_exception();
    let Some(option) = worker.replaced_after.option_for(raised) else { return };
    if !HAS_ASKED.swap(true, Ordering::Relaxed) {
        (worker.master)(AppCommand::Replace { reason: reason(raised, option) });
    }
}

/// One line, whatever the application puts into its exceptions.
fn reason(raised: &Raised, option: &str) -> String {
    let text = if raised.value.is_empty() { String::new() } else { format!(": {}", raised.value) };
    let shown: String = text.chars().flat_map(char::escape_debug).take(SHOWN).collect();
    format!("{}{shown} ({option})", raised.qualified)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exception_takes_one_line_that_ends() {
        let raised = |value: &str| Raised {
            qualified: "shop.Gone".to_owned(),
            value: value.to_owned(),
            ..Raised::default()
        };
        let option = "reload-on-exception";
        assert_eq!(reason(&raised(""), option), "shop.Gone (reload-on-exception)");
        assert_eq!(reason(&raised("a\nb"), option), "shop.Gone: a\\nb (reload-on-exception)");
        assert!(reason(&raised(&"x".repeat(100_000)), option).len() < 300);
    }
}
