//! What the master remembers of each generation, and what that is needed for: to take up the
//! configuration of one that was brought back, and to judge which snapshots still can be.
//!
//! A zygote tells it once, when it has loaded the application; it is kept until the last process of the
//! generation is gone, across re-execs.

use std::collections::BTreeMap;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use log::{error, warn};
use serde::{Deserialize, Serialize};

use crate::config::{Config, Entry};
use crate::net::backlog::Socket;
use crate::net::set::Announced;
use crate::signals::Request;
use crate::signals::table::{Origin, Waiting};
use crate::sys::process;

use super::answer::{Answer, Doing};
use super::event::Event;
use super::holdings::{Holdings, Proven};
use super::policy::Policy;
use super::workers::Generation;
use super::{Runner, lifecycle};

/// A generation, as its zygote has told it.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Known {
    /// CLOCK_REALTIME seconds.
    pub loaded_at: u64,
    /// The label its configuration gives it.
    pub release: Option<String>,
    /// Its configuration.
    pub entries: Vec<Entry>,
    /// Names of its listeners, in the order of the configuration.
    pub listeners: Vec<String>,
    /// What its application asked for about signals while it was loaded.
    pub requests: Vec<Request>,
}

impl Known {
    /// What a zygote has just said.
    pub fn new(proven: &Proven, requests: Vec<Request>) -> Self {
        let (release, entries) = match &proven.config {
            Ok(config) => (config.release.clone(), config.entries.clone()),
            Err(entries) => (None, entries.clone()),
        };
        let listeners = proven.listeners.iter().map(|it| match it {
            Announced::Kept(name) => name.clone(),
            Announced::Fresh(state) => state.name.clone(),
        });
        Known { loaded_at: seconds(), release, entries, listeners: listeners.collect(), requests }
    }

    /// Of a generation that serves already: a release without snapshots has not told. `waiting` is what it
    /// has told of its signals.
    pub fn serving(holdings: &Holdings, waiting: Option<&Waiting>) -> Self {
        let of_zygote = |(origin, _): &&(Origin, Request)| *origin == Origin::Zygote;
        let requests = waiting.into_iter().flatten().filter(of_zygote).map(|(_, it)| it.clone());
        Known {
            loaded_at: seconds(),
            release: holdings.config.release.clone(),
            entries: holdings.config.entries.clone(),
            listeners: holdings.listeners.iter().map(|it| it.name.clone()).collect(),
            requests: requests.collect(),
        }
    }

    /// The numbers it asks for; `None` if this release cannot read them.
    pub fn policy(&self) -> Option<Policy> {
        Config::build(self.entries.clone()).ok().as_ref().map(Policy::of)
    }
}

fn seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

impl Runner {
    /// What to tell those who asked.
    pub(super) fn full_answer(&self) -> Answer {
        let mut answer = self.machine.answer();
        answer.slots = self.machine.slot_standings(|at| self.wall_clock(at));
        for standing in &mut answer.generations {
            if let Some(known) = self.known.get(&standing.generation) {
                standing.labelled(known.loaded_at, known.release.as_deref());
            }
        }
        if answer.doing != Doing::Stopping {
            answer.listeners = self.holdings.listeners.iter().filter_map(|it| Socket::of(it).ok()).collect();
        }
        answer
    }

    /// Milliseconds of CLOCK_REALTIME.
    fn wall_clock(&self, at: Instant) -> u64 {
        let (instant, time) = self.epoch;
        let then = match at.checked_duration_since(instant) {
            Some(later) => time + later,
            None => time - instant.duration_since(at),
        };
        then.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
    }

    /// Forgets the generations of which nothing is left.
    pub(super) fn forget_gone(&mut self, answer: &Answer) {
        self.known.retain(|number, _| answer.generations.iter().any(|it| it.generation == *number));
    }

    /// From now on a generation older than the serving one may ask for signals; its zygote has long done so.
    pub(super) fn awaken(&mut self, generation: Generation) {
        let requests = self.known.get(&generation).map(|known| known.requests.clone()).unwrap_or_default();
        self.app_signals.expect(generation, requests);
    }

    /// A generation serves again: the configuration that it has proven is in force again, without a
    /// re-exec, which would bring the binary that is on disk now.
    pub(super) fn take_up(&mut self, generation: Generation) {
        let Some(known) = self.known.get(&generation) else {
            return error!("the configuration of generation {generation} is not known; the one before stays");
        };
        let listeners = known.listeners.iter().cloned().map(Announced::Kept).collect();
        let proven = Proven::new(known.entries.clone(), listeners, Vec::new());
        // Descriptors of a listener that is about to close live on in the workers that drain: while these
        // live, epoll(7) would go on to tell of it.
        let is_watching = self.machine.is_watching();
        if is_watching {
            self.watch_listeners(false);
        }
        if let Err(error) = self.holdings.adopt(proven) {
            error!("the configuration of generation {generation} is not in effect: {error}");
        }
        if is_watching {
            self.watch_listeners(true);
        }
        let Holdings { config, listeners, .. } = &self.holdings;
        for listener in listeners {
            // The socket is that of the generation that was left, with what that had set.
            listener.prepare(config.preparation());
        }
        let base = config.base_directory(&self.holdings.start.cwd);
        if let Err(error) = std::env::set_current_dir(&base) {
            warn!("chdir: cannot enter {}: {error}", base.display());
        }
        self.follow_store();
        self.follow_files(&base);
        self.holdings.follow_config();
        self.watch_fifo();
        if self.holdings.follow_log() {
            self.pass_log_on();
        }
        self.holdings.set_title(generation);
        lifecycle::report_header(&self.holdings, generation);
        self.review_snapshots();
    }

    /// After a change of generations: which snapshots can still be brought back, and what do they cost?
    ///
    /// One that needs a listener that was given up cannot: clients of that address are refused by now, and
    /// another program may have it. Its zygote would keep the socket open with nobody to accept.
    pub(super) fn review_snapshots(&mut self) {
        let mut bytes = BTreeMap::new();
        let mut unfit = Vec::new();
        for (generation, zygote) in self.machine.zygotes().filter(|(_, zygote)| zygote.is_asleep()) {
            let listeners = self.known.get(&generation).map(|known| &known.listeners[..]).unwrap_or_default();
            let Holdings { listeners: served, spares, .. } = &self.holdings;
            let is_held = |name: &&String| served.iter().chain(spares).any(|it| it.name == **name);
            if let Some(name) = listeners.iter().find(|name| !is_held(name)) {
                let reason = format!("it listens on {name}, which is no longer listened on");
                unfit.push(Event::SnapshotUnfit { generation, reason });
            } else if let Some(size) = zygote.pid.and_then(process::own_memory) {
                bytes.insert(generation, size);
            }
        }
        // Before any command: a rollback must not meet one of them.
        self.queue.push_front(Event::SnapshotsMeasured { bytes });
        unfit.into_iter().for_each(|event| self.queue.push_front(event));
    }
}
