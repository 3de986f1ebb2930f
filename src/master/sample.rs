//! ● What the master sees when it looks at its workers and listeners.

use super::workers::WorkerId;

/// One look.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sample {
    /// The workers that were ready.
    pub workers: Vec<WorkerSample>,
    /// The listen queues that the kernel tells of.
    pub queues: Vec<QueueSample>,
    /// Requests finished since the instance started.
    pub requests: u64,
    /// Requests in flight, those of workers that leave included.
    pub in_flight: u64,
    /// Resident memory of all workers, bytes; 0 when nobody asks for it.
    pub rss: u64,
}

/// One worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WorkerSample {
    /// Which.
    pub worker: WorkerId,
    /// Requests begun and not finished.
    pub in_flight: u64,
    /// Microseconds in requests since it was forked, that of the oldest one in flight included.
    pub busy_micros: u64,
}

/// One listen queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueueSample {
    /// The address of its listener.
    pub address: String,
    /// The master's descriptor, for the log.
    pub fd: i32,
    /// Clients that wait.
    pub waiting: u32,
    /// How many may.
    pub limit: u32,
}

impl Sample {
    /// Clients that wait in the longest queue.
    pub fn waiting(&self) -> u32 {
        self.queues.iter().map(|queue| queue.waiting).max().unwrap_or_default()
    }
}
