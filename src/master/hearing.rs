//! What zygotes and workers say, as events.

use std::os::fd::OwnedFd;
use std::{fmt, io};

use log::{error, warn};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::channel::{Channel, FromWorker, FromZygote, Incoming};
use crate::control::Command;
use crate::signals::table::Origin;
use crate::sys::process::Pid;

use super::Runner;
use super::event::Event;
use super::generations::Known;
use super::holdings::Proven;
use super::killing::Subject;
use super::workers::{Generation, WorkerId};

/// What a child says next that can be understood; `None` when it has no more to say at the moment.
pub(super) fn next_word<S: Serialize, R: DeserializeOwned>(
    channel: &Channel<S, R>,
    who: fmt::Arguments<'_>,
) -> Option<(R, Vec<OwnedFd>)> {
    loop {
        match channel.receive() {
            Ok(Incoming::Message(message, fds)) => return Some((message, fds)),
            // Its exit follows and is acted upon.
            Ok(Incoming::Closed | Incoming::Nothing) => return None,
            Err(error) => {
                warn!("{who} sent something unintelligible: {error}");
                // A word of another release; what follows may be understood.
                if error.kind() != io::ErrorKind::InvalidData {
                    return None;
                }
            }
        }
    }
}

impl Runner {
    pub(super) fn hear_zygote(&mut self, generation: Generation) {
        let Some(channel) = self.zygotes.get(&generation) else { return };
        let mut asked = Vec::new();
        let mut has_adopted = false;
        let mut answered = false;
        while let Some((message, fds)) = next_word(channel, format_args!("zygote of generation {generation}"))
        {
            let event = match message {
                FromZygote::Loaded { entries, listeners, requests } => {
                    let proven = Proven::new(entries, listeners, fds);
                    self.known.insert(generation, Known::new(&proven, requests.clone()));
                    asked.extend(requests.into_iter().map(|it| (generation, Origin::Zygote, it)));
                    let policy = proven.policy().unwrap_or_else(|| self.holdings.policy());
                    if generation == self.machine.generation() {
                        // First start, or in place of a zygote that was lost: it serves at once.
                        if let Err(error) = self.holdings.adopt(proven) {
                            error!("the configuration of generation {generation}: {error}");
                        }
                        has_adopted = true;
                    } else {
                        self.proven.insert(generation, proven);
                    }
                    Event::ZygoteLoaded { generation, policy }
                }
                FromZygote::LoadFailed { reason, code } => {
                    Event::ZygoteLoadFailed { generation, reason, code }
                }
                FromZygote::Forked { worker, pid } => Event::WorkerForked { worker, pid: Pid::from_raw(pid) },
                FromZygote::Promoted => {
                    warn!("zygote of generation {generation} was one before");
                    continue;
                }
                FromZygote::ForkFailed { worker, reason } => Event::WorkerForkFailed { worker, reason },
                FromZygote::Stacks => {
                    answered = true;
                    continue;
                }
            };
            self.queue.push_back(event);
        }
        if has_adopted {
            self.follow_store();
        }
        if answered {
            self.stacks_arrived(Subject::Zygote(generation));
        }
        self.ask_signals(asked);
    }

    pub(super) fn hear_worker(&mut self, worker: WorkerId) {
        let Some(channel) = self.workers.get(&worker) else { return };
        let mut asked = Vec::new();
        // Messages keep their order, the machine's knowledge lags behind it.
        let mut ready = self.machine.workers().any(|(id, it)| id == worker && !it.is_starting());
        let generation = self.machine.workers().find(|(id, _)| *id == worker).map(|(_, it)| it.generation);
        let mut alive = false;
        let (mut look, mut answered) = (false, false);
        let mut unique = None;
        while let Some((message, _)) = next_word(channel, format_args!("worker {worker}")) {
            let event = match message {
                FromWorker::Ready => {
                    ready = true;
                    look = true;
                    alive = true;
                    Event::WorkerReady { worker }
                }
                FromWorker::LoadFailed { reason } => Event::WorkerLoadFailed { worker, reason },
                FromWorker::Leave { cause, reason } => Event::WorkerLeaves { worker, cause, reason },
                FromWorker::Warm { obstacle } => Event::WorkerWarm { worker, obstacle },
                FromWorker::Quiet => Event::WorkerQuiet { worker },
                FromWorker::Busy => Event::RequestBegun,
                FromWorker::Reload => Event::Command(Command::Reload),
                FromWorker::Stop => Event::Command(Command::Stop),
                FromWorker::LookSooner => {
                    look = true;
                    continue;
                }
                FromWorker::Stacks => {
                    answered = true;
                    continue;
                }
                FromWorker::Pong => {
                    alive = true;
                    continue;
                }
                FromWorker::Memory { unique: bytes } => {
                    unique = Some(bytes);
                    continue;
                }
                FromWorker::Signals(request) => {
                    let origin = if ready { Origin::Serving(worker) } else { Origin::Starting(worker) };
                    asked.extend(generation.map(|generation| (generation, origin, request)));
                    continue;
                }
            };
            self.queue.push_back(event);
        }
        self.ask_signals(asked);
        if alive {
            self.hear_sign_of_life(worker);
        }
        if look {
            self.look_at_requests([worker]);
        }
        if answered {
            self.stacks_arrived(Subject::Worker(worker));
        }
        if let Some(bytes) = unique {
            self.memory.hear(worker, bytes);
        }
    }
}
