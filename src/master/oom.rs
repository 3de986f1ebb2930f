//! Whether it was the kernel's OOM killer that sent a `SIGKILL` nobody here has sent.
//!
//! The kernel tells nobody directly. It counts, and does so before it kills: the counters are compared with
//! what they were when this image of the master began, or at the last such death. Nothing is read as long as
//! nobody dies that way.

use crate::sys::oom::Kills;
use crate::sys::process::{Exit, Pid, Signal};

use super::Runner;
use super::event::Event;

/// The counters as seen last.
#[derive(Debug)]
pub(super) struct OomWatch {
    seen: Kills,
}

impl OomWatch {
    pub(super) fn new() -> Self {
        OomWatch { seen: Kills::read() }
    }

    /// What the counters say by now about so many deaths.
    fn evidence(&mut self, deaths: usize) -> Option<String> {
        let now = Kills::read();
        let before = std::mem::replace(&mut self.seen, now);
        judge(before, now, deaths as u64)
    }
}

/// What the counters say about so many deaths between two looks.
fn judge(before: Kills, now: Kills, deaths: u64) -> Option<String> {
    let risen = |before: Option<u64>, now: Option<u64>| Some((before?, now?)).filter(|(a, b)| b > a);
    if let Some((before, now)) = risen(before.group, now.group) {
        let probably = if now - before < deaths { "probably " } else { "" };
        return Some(format!(
            "{probably}killed by the kernel, out of memory (oom_kill of the control group: {before}, now {now})"
        ));
    }
    let (before, now) = risen(before.machine, now.machine)?;
    // Anywhere on the machine, for all we know.
    Some(format!(
        "probably killed by the kernel, out of memory (oom_kill of the machine: {before}, now {now})"
    ))
}

impl Runner {
    /// Has a look at the counters if one of these deaths is that of a child which somebody else has killed.
    pub(super) fn look_for_oom(&mut self, dead: &[(Pid, Exit)]) {
        const KILL: i32 = Signal::SIGKILL as i32;
        let is_killed = |exit: Exit| matches!(exit, Exit::Signal { number: KILL, .. });
        let unexplained =
            dead.iter().filter(|(pid, exit)| is_killed(*exit) && self.machine.is_unexplained(*pid));
        let pids: Vec<Pid> = unexplained.map(|(pid, _)| *pid).collect();
        if pids.is_empty() {
            return;
        }
        if let Some(evidence) = self.oom.evidence(pids.len()) {
            let event = |pid| Event::OutOfMemory { pid, evidence: evidence.clone() };
            self.queue.extend(pids.into_iter().map(event));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kills(group: Option<u64>, machine: u64) -> Kills {
        Kills { group, machine: Some(machine) }
    }

    #[test]
    fn counters_that_have_risen_tell_and_others_do_not() {
        let say = |before, now, deaths| judge(before, now, deaths).unwrap_or_default();
        assert_eq!(say(kills(Some(1), 5), kills(Some(1), 5), 1), "");
        assert!(say(kills(Some(1), 5), kills(Some(2), 6), 1).starts_with("killed by the kernel"));
        let two = say(kills(Some(1), 5), kills(Some(2), 6), 2);
        assert!(two.starts_with("probably ") && two.contains("control group: 1, now 2"), "{two}");
        let elsewhere = say(kills(Some(1), 5), kills(Some(1), 6), 1);
        assert!(elsewhere.starts_with("probably ") && elsewhere.contains("machine: 5, now 6"), "{elsewhere}");
        assert!(say(kills(None, 5), kills(None, 6), 1).starts_with("probably "));
    }

    #[test]
    fn a_counter_that_begins_anew_says_nothing() {
        assert_eq!(judge(kills(Some(7), 9), kills(Some(0), 9), 1), None);
        assert_eq!(judge(Kills::default(), Kills::default(), 1), None);
    }
}
