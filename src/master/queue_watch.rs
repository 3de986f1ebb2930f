//! ● Says when a listen queue is full, and when it no longer is.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use log::Level;

use super::sample::QueueSample;

/// While a queue stays full, the log is told no more often than this.
const REPEAT: Duration = Duration::from_secs(10);

/// The queues that are full, by address.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct QueueWatch(BTreeMap<String, Full>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Full {
    since: Instant,
    told: Instant,
}

impl QueueWatch {
    /// What a look at the queues gives the log.
    pub(super) fn look(&mut self, now: Instant, queues: &[QueueSample]) -> Vec<(Level, String)> {
        let mut lines = Vec::new();
        for queue in queues {
            let QueueSample { address, fd, waiting, limit } = queue;
            if waiting < limit {
                if let Some(full) = self.0.remove(address) {
                    let seconds = now.saturating_duration_since(full.since).as_secs();
                    let line = format!(
                        "listen queue of socket \"{address}\" is no longer full, after {seconds} s \
                         ({waiting}/{limit})"
                    );
                    lines.push((Level::Info, line));
                }
                continue;
            }
            let known = self.0.get_mut(address);
            if known.as_ref().is_some_and(|full| now.saturating_duration_since(full.told) < REPEAT) {
                continue;
            }
            match known {
                Some(full) => full.told = now,
                None => drop(self.0.insert(address.clone(), Full { since: now, told: now })),
            }
            // But for the name as uWSGI words it: monitoring looks for this line.
            let line = format!(
                "*** appserver listen queue of socket \"{address}\" (fd: {fd}) full !!! ({waiting}/{limit}) ***"
            );
            lines.push((Level::Warn, line));
        }
        // A listener that was given up is full no more.
        self.0.retain(|address, _| queues.iter().any(|queue| queue.address == *address));
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queue(address: &str, waiting: u32) -> QueueSample {
        QueueSample { address: address.into(), fd: 5, waiting, limit: 8 }
    }

    #[test]
    fn a_full_queue_is_told_at_once_then_seldom_then_its_end() {
        let start = Instant::now();
        let mut watch = QueueWatch::default();
        let mut look = |second, waiting| {
            let now = start + Duration::from_secs(second);
            watch.look(now, &[queue(":80", waiting)]).into_iter().map(|(_, line)| line).collect::<Vec<_>>()
        };
        let full = |waiting| {
            vec![format!("*** appserver listen queue of socket \":80\" (fd: 5) full !!! ({waiting}/8) ***")]
        };
        assert_eq!(look(0, 7), NOTHING);
        assert_eq!(look(1, 8), full(8));
        assert_eq!(look(2, 9), NOTHING);
        assert_eq!(look(10, 9), NOTHING);
        assert_eq!(look(11, 9), full(9));
        assert_eq!(look(13, 0), ["listen queue of socket \":80\" is no longer full, after 12 s (0/8)"]);
        assert_eq!(look(14, 0), NOTHING);
        assert_eq!(look(15, 8), full(8), "anew");
    }

    #[test]
    fn each_queue_has_a_story_of_its_own_and_a_closed_one_has_none() {
        let now = Instant::now();
        let mut watch = QueueWatch::default();
        assert_eq!(watch.look(now, &[queue("a", 8), queue("b", 0)]).len(), 1);
        assert_eq!(watch.look(now, &[queue("a", 8), queue("b", 9)]).len(), 1);
        assert_eq!(watch.look(now, &[queue("b", 8)]).len(), 0);
        assert_eq!(watch.look(now, &[queue("a", 0), queue("b", 8)]).len(), 0, "it is another one");
    }

    const NOTHING: [&str; 0] = [];
}
