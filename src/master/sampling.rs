//! Looking at workers and listeners, for the state machine to judge.

use std::os::fd::AsRawFd;

use log::info;

use crate::scoreboard::CELLS;
use crate::sys::memory::Memory;

use super::Runner;
use super::event::Event;
use super::report::now_micros;
use super::sample::{QueueSample, Sample, WorkerSample};
use super::workers::Worker;

impl Runner {
    /// Reads scoreboard and kernel; never waits.
    pub(super) fn sample(&mut self) {
        let queues = self.queues();
        let board = &self.holdings.scoreboard;
        let now = now_micros();
        let alive = || self.machine.workers().filter(|(_, it)| it.cell < CELLS);
        let workers = alive().filter(|(_, it)| it.is_ready()).map(|(worker, it)| {
            let cell = board.cell(it.cell);
            let in_flight = cell.in_flight();
            // What runs has not been added up yet. The clock may have been set: then it is a little wrong once.
            let running = if in_flight > 0 { now.saturating_sub(cell.request_start()) } else { 0 };
            WorkerSample { worker, in_flight, busy_micros: cell.running_micros() + running }
        });
        let sample = Sample {
            workers: workers.collect(),
            queues,
            requests: board.total_requests(),
            in_flight: alive().map(|(_, it)| board.cell(it.cell).in_flight()).sum(),
            rss: if self.machine.bounds_memory() { self.resident_memory() } else { 0 },
        };
        self.queue.push_back(Event::Sampled(sample));
    }

    fn queues(&mut self) -> Vec<QueueSample> {
        let mut queues = Vec::with_capacity(self.holdings.listeners.len());
        for listener in &self.holdings.listeners {
            match listener.queue() {
                Ok(queue) => queues.push(QueueSample {
                    address: listener.local.clone(),
                    fd: listener.fd.as_raw_fd(),
                    waiting: queue.waiting,
                    limit: queue.limit,
                }),
                Err(_) if self.told_unmeasured => {}
                Err(error) => {
                    let address = &listener.local;
                    info!(
                        "listen queue of socket \"{address}\": the kernel does not tell its depth: {error}"
                    );
                    self.told_unmeasured = true;
                }
            }
        }
        queues
    }

    /// Clients in the longest queue; `None` where the kernel does not tell of all.
    pub(super) fn longest_queue(&mut self) -> Option<u32> {
        let queues = self.queues();
        let complete = queues.len() == self.holdings.listeners.len();
        queues.iter().map(|it| it.waiting).max().filter(|_| complete)
    }

    fn resident_memory(&self) -> u64 {
        let pids = self.machine.workers().filter_map(|(_, it): (_, &Worker)| it.pid);
        pids.filter_map(Memory::of).map(|it| it.resident).sum()
    }
}
