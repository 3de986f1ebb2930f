//! The zygote to be, while it is still a worker: it is told, heard, and put in the place of the one before.

use std::os::fd::{AsFd, AsRawFd};
use std::time::Duration;

use log::warn;

use crate::channel::{self, DrainMode, FromZygote, ToWorker, ZygoteChannel};

use super::event::Event;
use super::hearing::next_word;
use super::killing::Subject;
use super::workers::{Generation, WorkerId};
use super::{Runner, Source};

/// The worker that is about to become the zygote.
pub(super) struct Heir {
    worker: WorkerId,
    /// What it will be spoken to through.
    pub(super) channel: ZygoteChannel,
}

impl Runner {
    /// Tells a worker to become the zygote.
    pub(super) fn promote(&mut self, worker: WorkerId, patience: Duration) {
        let patience_ms = patience.as_millis() as u64;
        match self.try_promote(worker, patience_ms) {
            Ok(heir) => {
                self.watch(heir.channel.as_raw_fd(), Source::Heir);
                self.heir = Some(heir);
            }
            Err(reason) => {
                // Another one has taken over from it already.
                self.tell(worker, &ToWorker::Drain { mode: DrainMode::Handover, patience_ms, delay_ms: 0 });
                self.queue.push_back(Event::HeirUnfit { worker, reason });
            }
        }
    }

    fn try_promote(&self, worker: WorkerId, patience_ms: u64) -> Result<Heir, String> {
        let told = self.workers.get(&worker).ok_or("it is gone")?;
        let (ours, theirs): (ZygoteChannel, _) = channel::pair().map_err(|error| error.to_string())?;
        told.send(&ToWorker::Promote { patience_ms }, &[theirs.as_fd()])
            .map_err(|error| format!("it cannot be told: {error}"))?;
        Ok(Heir { worker, channel: ours })
    }

    pub(super) fn hear_heir(&mut self) {
        let Some(Heir { worker, channel }) = &self.heir else { return };
        let worker = *worker;
        let mut events = Vec::new();
        while let Some((word, _)) = next_word(channel, format_args!("worker {worker}")) {
            match word {
                FromZygote::Promoted => events.push(Event::HeirReady { worker }),
                FromZygote::LoadFailed { reason, .. } => events.push(Event::HeirUnfit { worker, reason }),
                other => warn!("worker {worker} has become no zygote yet: {other:?}"),
            }
        }
        // The last words of the worker came before.
        self.hear_worker(worker);
        self.queue.extend(events);
    }

    /// What was a worker is the zygote of this generation from now on.
    pub(super) fn enthrone(&mut self, generation: Generation, worker: WorkerId) {
        let Some(heir) = self.heir.take_if(|heir| heir.worker == worker) else { return };
        self.unwatch(heir.channel.as_raw_fd(), Source::Heir);
        // All that the zygote before had to say was said: no worker is missing.
        self.drop_zygote_channel(generation);
        self.evidence.pass_sheet_on(Subject::Worker(worker), Subject::Zygote(generation));
        self.adopt_zygote(generation, heir.channel);
    }

    /// The worker goes like any other: it finds its channel closed.
    pub(super) fn call_off_promotion(&mut self) {
        if let Some(heir) = self.heir.take() {
            self.unwatch(heir.channel.as_raw_fd(), Source::Heir);
        }
    }
}
