//! Wear: what makes a worker ask to be replaced by a fresh one, as far as it finds out by itself.
//!
//! It counts its requests, and looks at its own memory when one has ended: not at once, but a moment later and
//! once for all that end until then. A worker without requests does not look, and does not wake.

use std::cell::Cell;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use log::{debug, warn};
use tokio::sync::Notify;

use crate::cause::Cause;
use crate::channel::FromWorker;
use crate::config::recycling::Recycling;
use crate::protocol::accounting::Accounting;
use crate::sys::memory::{Memory, Shares};
use crate::sys::process;

use super::{Birth, MasterChannel};

/// How often a worker that serves looks at what costs next to nothing.
const CHEAP_LOOK: Duration = Duration::from_secs(1);

/// One worker's.
struct Wear {
    channel: Arc<MasterChannel>,
    /// Requests after which it asks, and what `max-requests` says.
    requests: Option<(u64, u64)>,
    watches: Vec<Watch>,
    /// The master knows.
    has_asked: Cell<bool>,
}

/// Looks at some figures of memory.
struct Watch {
    every: Duration,
    read: fn() -> io::Result<[u64; 2]>,
    gauges: [Gauge; 2],
    /// The master wants to know the first figure.
    is_told: bool,
    /// No request has ended since the last look, and that has found nothing.
    rests: Cell<bool>,
    stirred: Notify,
}

/// One figure and its limit.
#[derive(Debug)]
struct Gauge {
    /// What is measured, for the log.
    name: &'static str,
    /// The option that limits it.
    option: &'static str,
    limit: Option<u64>,
    /// Looks in a row that must find too much.
    patience: u32,
    /// Those that have.
    exceeded: Cell<u32>,
}

/// What a look has found.
#[derive(Debug, PartialEq, Eq)]
enum Finding {
    Fine,
    /// Too much, but not for long enough.
    Suspicious,
    TooMuch(String),
}

/// Watches this worker, if there is anything to watch for.
pub(super) fn watch(birth: &Birth, channel: &Arc<MasterChannel>, accounting: &Accounting) {
    let limits = &birth.config.recycling;
    let requests = limits.requests_of(birth.slot, birth.worker).zip(limits.max_requests);
    let is_of_use = |it: &Watch| it.is_told || it.gauges.iter().any(|gauge| gauge.limit.is_some());
    let watches: Vec<Watch> = watches(limits).into_iter().filter(is_of_use).collect();
    if requests.is_none() && watches.is_empty() {
        return;
    }
    let channel = Arc::clone(channel);
    let wear = Rc::new(Wear { channel, requests, watches, has_asked: Cell::new(false) });
    for index in 0..wear.watches.len() {
        tokio::task::spawn_local(Rc::clone(&wear).look(index));
    }
    accounting.when_finished(move |requests| wear.request_ended(requests));
}

fn watches(limits: &Recycling) -> [Watch; 2] {
    let gauge = |name, option, limit| Gauge {
        name,
        option,
        limit,
        patience: limits.memory_samples,
        exceeded: Cell::new(0),
    };
    let watch = |every, read, gauges, is_told| Watch {
        every,
        read,
        gauges,
        is_told,
        // The first look shows the master what a fresh worker has.
        rests: Cell::new(!is_told),
        stirred: Notify::new(),
    };
    let memory = &limits.memory;
    [
        watch(
            CHEAP_LOOK,
            read_memory as fn() -> io::Result<[u64; 2]>,
            [
                gauge("resident memory", "reload-on-rss", memory.resident),
                gauge("address space", "reload-on-as", memory.address_space),
            ],
            false,
        ),
        watch(
            limits.look_every,
            read_shares,
            [
                gauge("memory of its own", "reload-on-uss", memory.unique),
                gauge("proportional memory", "reload-on-pss", memory.proportional),
            ],
            limits.budget.is_some(),
        ),
    ]
}

fn read_memory() -> io::Result<[u64; 2]> {
    let memory = Memory::of(process::this()).ok_or(io::ErrorKind::NotFound)?;
    Ok([memory.resident, memory.address_space])
}

fn read_shares() -> io::Result<[u64; 2]> {
    let shares = Shares::of(process::this())?;
    Ok([shares.unique, shares.proportional])
}

impl Wear {
    fn request_ended(&self, requests: u64) {
        for watch in &self.watches {
            if watch.rests.replace(false) {
                watch.stirred.notify_one();
            }
        }
        if let Some((limit, configured)) = self.requests
            && requests >= limit
            && !self.has_asked.get()
        {
            self.ask(Cause::MaxRequests, format!("{requests} requests (max-requests = {configured})"));
        }
    }

    /// Looks at memory while requests end, until there is too much.
    async fn look(self: Rc<Self>, index: usize) {
        let watch = &self.watches[index];
        while !self.has_asked.get() {
            while watch.rests.get() {
                watch.stirred.notified().await;
            }
            tokio::time::sleep(watch.every).await;
            watch.rests.set(true);
            let figures = match (watch.read)() {
                Ok(figures) => figures,
                Err(error) => {
                    let gauges = watch.gauges.iter().filter(|it| it.limit.is_some());
                    let budget = watch.is_told.then_some("memory-budget");
                    let options: Vec<_> = gauges.map(|it| it.option).chain(budget).collect();
                    return warn!("{}: memory cannot be measured: {error}", options.join(", "));
                }
            };
            if watch.is_told {
                self.tell(figures[0]);
            }
            for (gauge, bytes) in watch.gauges.iter().zip(figures) {
                match gauge.judge(bytes) {
                    Finding::Fine => {}
                    Finding::Suspicious => watch.rests.set(false),
                    Finding::TooMuch(reason) => {
                        watch.rests.set(false);
                        self.ask(Cause::Memory, reason);
                        break;
                    }
                }
            }
        }
    }

    /// Tells the master what this worker has of its own.
    fn tell(&self, unique: u64) {
        if let Err(error) = self.channel.send(&FromWorker::Memory { unique }, &[]) {
            debug!("the master does not hear of memory: {error}");
        }
    }

    /// Asks the master once: it does not forget. Should it not listen, the next occasion is soon.
    fn ask(&self, cause: Cause, reason: String) {
        match self.channel.send(&FromWorker::Leave { cause, reason }, &[]) {
            Ok(()) => self.has_asked.set(true),
            Err(error) => debug!("the master cannot be asked for a replacement: {error}"),
        }
    }
}

impl Gauge {
    fn judge(&self, bytes: u64) -> Finding {
        let Some(limit) = self.limit else { return Finding::Fine };
        if bytes < limit {
            self.exceeded.set(0);
            return Finding::Fine;
        }
        self.exceeded.set(self.exceeded.get().saturating_add(1));
        if self.exceeded.get() < self.patience {
            return Finding::Suspicious;
        }
        let mebibytes = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        Finding::TooMuch(format!(
            "{:.1} MiB of {} in {} looks ({} = {})",
            mebibytes(bytes),
            self.name,
            self.patience,
            self.option,
            mebibytes(limit)
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_much_is_what_is_found_several_times_in_a_row() {
        let gauge = Gauge {
            name: "resident memory",
            option: "reload-on-rss",
            limit: Some(100 << 20),
            patience: 3,
            exceeded: Cell::new(0),
        };
        for (mebibytes, expected) in [
            (100, Finding::Suspicious),
            (101, Finding::Suspicious),
            (99, Finding::Fine),
            (101, Finding::Suspicious),
            (101, Finding::Suspicious),
        ] {
            assert_eq!(gauge.judge(mebibytes << 20), expected);
        }
        let reason = "102.5 MiB of resident memory in 3 looks (reload-on-rss = 100)";
        assert_eq!(gauge.judge(205 << 19), Finding::TooMuch(reason.to_owned()));
    }

    #[test]
    fn what_has_no_limit_is_never_too_much() {
        let limits = Recycling { memory_samples: 1, ..Recycling::default() };
        assert!(
            watches(&limits).iter().flat_map(|it| &it.gauges).all(|it| it.judge(u64::MAX) == Finding::Fine)
        );
    }
}
