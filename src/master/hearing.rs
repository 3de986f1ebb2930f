//! What zygotes and workers say, as events.

use std::io;

use log::{error, warn};

use crate::channel::{FromWorker, FromZygote, Incoming};
use crate::control::Command;
use crate::signals::table::Origin;
use crate::sys::process::Pid;

use super::Runner;
use super::event::Event;
use super::generations::Known;
use super::holdings::Proven;
use super::killing::Subject;
use super::workers::{Generation, WorkerId};

impl Runner {
    pub(super) fn hear_zygote(&mut self, generation: Generation) {
        let Some(channel) = self.zygotes.get(&generation) else { return };
        let mut asked = Vec::new();
        let mut has_adopted = false;
        let mut answered = false;
        loop {
            let event = match channel.receive() {
                Ok(Incoming::Message(message, fds)) => match message {
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
                    FromZygote::Forked { worker, pid } => {
                        Event::WorkerForked { worker, pid: Pid::from_raw(pid) }
                    }
                    FromZygote::Promoted => {
                        warn!("zygote of generation {generation} was one before");
                        continue;
                    }
                    FromZygote::ForkFailed { worker, reason } => Event::WorkerForkFailed { worker, reason },
                    FromZygote::Stacks => {
                        answered = true;
                        continue;
                    }
                },
                // Its exit follows and is acted upon.
                Ok(Incoming::Closed | Incoming::Nothing) => break,
                Err(error) => {
                    warn!("zygote of generation {generation} sent something unintelligible: {error}");
                    if error.kind() == io::ErrorKind::InvalidData {
                        // A word of another release; what follows may be understood.
                        continue;
                    }
                    break;
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
        loop {
            let event = match channel.receive() {
                Ok(Incoming::Message(message, _)) => match message {
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
                },
                Ok(Incoming::Closed | Incoming::Nothing) => break,
                Err(error) => {
                    warn!("worker {worker} sent something unintelligible: {error}");
                    if error.kind() == io::ErrorKind::InvalidData {
                        continue;
                    }
                    break;
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
