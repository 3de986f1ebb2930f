//! ● What each generation is doing, for status and log.

use serde::{Deserialize, Serialize};

use super::state::Master;
use super::workers::{Generation, Worker};

/// Characters of a label that are passed on.
const LABEL: usize = 100;

/// What a generation is doing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Activity {
    /// New clients meet it.
    Serves,
    /// It loads, or its first workers start.
    Prepares,
    /// It is a snapshot.
    Sleeps,
    /// Nothing but workers is left of it, which finish their requests.
    Drains,
    /// A word of another release.
    #[default]
    #[serde(other)]
    Unknown,
}

/// A generation that has processes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Standing {
    /// Which.
    pub generation: Generation,
    /// What it is doing.
    pub activity: Activity,
    /// Process id of its zygote, unless that is gone or about to go.
    pub zygote: Option<i32>,
    /// Workers that serve or start.
    pub workers: u32,
    /// Workers that finish their requests.
    pub leaving: u32,
    /// CLOCK_REALTIME seconds at which its application was loaded; 0 if that is not known.
    pub loaded_at: u64,
    /// The label its configuration gives it.
    pub release: Option<String>,
}

impl Master {
    /// The generations, the newest first and the one that serves in any case; when they were loaded and how they are labelled is for others
    /// to say.
    pub(super) fn standings(&self) -> Vec<Standing> {
        let mut numbers: Vec<Generation> = std::iter::once(self.generation)
            .chain(self.zygotes.keys().copied())
            .chain(self.workers.values().map(|it| it.generation))
            .collect();
        numbers.sort_unstable_by(|a, b| b.cmp(a));
        numbers.dedup();
        numbers.into_iter().filter_map(|generation| self.standing(generation)).collect()
    }

    fn standing(&self, generation: Generation) -> Option<Standing> {
        let zygote = self.zygotes.get(&generation).filter(|it| !it.is_dismissed());
        let count = |check: &dyn Fn(&Worker) -> bool| {
            self.workers.values().filter(|it| it.generation == generation && check(it)).count() as u32
        };
        let leaving = count(&|it| it.is_leaving());
        let activity = if generation == self.generation {
            Activity::Serves
        } else if self.reload.as_ref().is_some_and(|reload| reload.generation == generation) {
            Activity::Prepares
        } else if zygote.is_some_and(|zygote| zygote.is_asleep()) {
            Activity::Sleeps
        } else if leaving > 0 {
            Activity::Drains
        } else {
            return None;
        };
        Some(Standing {
            generation,
            activity,
            zygote: zygote.and_then(|zygote| zygote.pid).map(|pid| pid.as_raw()),
            workers: count(&|it| !it.is_leaving()),
            leaving,
            ..Standing::default()
        })
    }
}

impl Standing {
    /// Adds what the configuration says.
    pub fn labelled(&mut self, loaded_at: u64, release: Option<&str>) {
        self.loaded_at = loaded_at;
        self.release = release.map(|label| label.chars().take(LABEL).collect());
    }

    /// In one line. `bytes` are those that the zygote has of its own, `now` is in seconds as `loaded_at`.
    pub fn line(&self, bytes: Option<u64>, now: u64) -> String {
        let doing = match self.activity {
            Activity::Serves => "serves",
            Activity::Prepares => "is being prepared",
            Activity::Sleeps => "sleeps",
            Activity::Drains => "drains",
            Activity::Unknown => "does what this release does not know",
        };
        let mut facts = Vec::new();
        facts.extend(self.release.as_ref().map(|label| format!("release {label}")));
        if self.loaded_at > 0 {
            facts.push(format!("loaded {} s ago", now.saturating_sub(self.loaded_at)));
        }
        if let Some(pid) = self.zygote {
            let memory = bytes.map(|bytes| format!(", {} of its own", mebibytes(bytes))).unwrap_or_default();
            facts.push(format!("zygote (pid: {pid}{memory})"));
        }
        if self.activity != Activity::Sleeps && self.activity != Activity::Drains {
            facts.push(format!("{} workers", self.workers));
        }
        if self.leaving > 0 {
            facts.push(format!("{} workers leaving", self.leaving));
        }
        format!("generation {} {doing}: {}", self.generation, facts.join(", "))
    }
}

/// Bytes as people read them.
pub fn mebibytes(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_what_is_known_and_no_more() {
        let mut standing = Standing { generation: 2, activity: Activity::Sleeps, ..Standing::default() };
        standing.zygote = Some(7);
        standing.labelled(100, Some("v2"));
        assert_eq!(
            standing.line(Some(3 << 19), 130),
            "generation 2 sleeps: release v2, loaded 30 s ago, zygote (pid: 7, 1.5 MiB of its own)"
        );
        let bare = Standing { generation: 1, activity: Activity::Drains, leaving: 2, ..Standing::default() };
        assert_eq!(bare.line(None, 130), "generation 1 drains: 2 workers leaving");
    }

    #[test]
    fn words_of_other_releases_are_no_errors() {
        let standing: Standing =
            serde_json::from_str(r#"{"generation":3,"activity":"Dreams"}"#).expect("understood");
        assert_eq!((standing.generation, standing.activity), (3, Activity::Unknown));
    }
}
