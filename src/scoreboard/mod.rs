//! Shared per-worker status cells: workers write, the master and readers of statistics read.
//!
//! One memfd mapped by every process. Each worker process owns one *cell*; slots are stable
//! worker numbers, but during a reload the old and the new worker of a slot live side by side,
//! each with a cell of its own. Only atomics, with relaxed ordering but for `unheard`: each figure is
//! independent and a reader never waits. The layout is fixed and versioned, because a master may adopt the
//! scoreboard of an older release across a re-exec.

use std::ffi::CStr;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed, Ordering::SeqCst, fence};

use crate::sys::fd;
use crate::sys::process::Pid;
use crate::sys::shm::SharedMemory;

pub mod share;

/// Cells in one scoreboard; bounds live worker processes over all generations.
pub const CELLS: usize = 4096;
/// Bytes of a cell: four cache lines, so that two workers never share one.
const CELL_WORDS: usize = 32;
/// Bytes of the header before the first cell.
const HEADER_WORDS: usize = 32;
/// Name of the memory file.
const NAME: &CStr = c"appserver-scoreboard";
/// First word of the mapping; the low byte is the layout version.
const MAGIC: u64 = 0x6170_7073_7276_0001;

/// What a worker is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u64)]
pub enum WorkerState {
    /// The cell belongs to nobody.
    Free = 0,
    /// Forked, not yet accepting.
    Starting = 1,
    /// Accepting, no request in flight.
    Idle = 2,
    /// At least one request in flight.
    Busy = 3,
    /// Finishing what is in flight, accepting no more.
    Draining = 4,
    /// Paused by the operator.
    Paused = 5,
}

impl WorkerState {
    fn from_word(word: u64) -> Self {
        match word {
            1 => WorkerState::Starting,
            2 => WorkerState::Idle,
            3 => WorkerState::Busy,
            4 => WorkerState::Draining,
            5 => WorkerState::Paused,
            _ => WorkerState::Free,
        }
    }

    /// As the log and the status call it.
    pub fn name(self) -> &'static str {
        match self {
            WorkerState::Free => "free",
            WorkerState::Starting => "starting",
            WorkerState::Idle => "idle",
            WorkerState::Busy => "busy",
            WorkerState::Draining => "draining",
            WorkerState::Paused => "paused",
        }
    }
}

/// The words of a cell.
#[derive(Debug, Clone, Copy)]
#[repr(usize)]
enum Word {
    State = 0,
    Pid = 1,
    Slot = 2,
    Generation = 3,
    Requests = 4,
    Connections = 5,
    InFlight = 6,
    TxBytes = 7,
    RunningMicros = 8,
    AverageMicros = 9,
    RequestStart = 10,
    Exceptions = 11,
    StartedAt = 12,
    Accepting = 13,
    Signals = 14,
    Respawns = 15,
    /// First of the words that hold the text of the last request begun.
    LastRequest = 16,
    /// Behind that text: earlier releases let it reach to the end of the cell.
    Parked = 31,
}

/// Bytes kept of the last request's method and target.
const LAST_REQUEST_BYTES: usize = (Word::Parked as usize - Word::LastRequest as usize) * 8;

/// Words of the header that are counters for the life of the instance.
#[derive(Debug, Clone, Copy)]
#[repr(usize)]
enum HeaderWord {
    Magic = 0,
    /// Requests of workers whose cell has been freed.
    RetiredRequests = 1,
    /// Cells from here on have never been used.
    HighWater = 2,
    /// The generation that serves.
    Generation = 3,
    /// Re-execs of the master.
    Reloads = 4,
    /// CLOCK_REALTIME seconds of the first start.
    StartedAt = 5,
    /// A client may wait of whom those who sleep have not heard.
    Unheard = 6,
    /// 1 while the master wants to be told of the next request; older releases do not ask.
    Awaited = 7,
}

/// The mapping.
#[derive(Debug)]
pub struct Scoreboard {
    memory: SharedMemory,
}

/// One worker's cell.
#[derive(Clone, Copy)]
pub struct Cell<'a> {
    words: &'a [AtomicU64],
}

impl Scoreboard {
    /// Makes a fresh, empty scoreboard.
    ///
    /// # Errors
    /// When the kernel refuses the memory file or its mapping.
    pub fn create() -> io::Result<Self> {
        let memory = SharedMemory::create(NAME, Self::bytes())?;
        memory.words()[HeaderWord::Magic as usize].store(MAGIC, Relaxed);
        Ok(Scoreboard { memory })
    }

    /// Maps the scoreboard that another process made.
    ///
    /// # Errors
    /// When the file is too small or was laid out by an incompatible release.
    pub fn adopt(file: OwnedFd) -> io::Result<Self> {
        let memory = SharedMemory::adopt(file, Self::bytes())?;
        if memory.words()[HeaderWord::Magic as usize].load(Relaxed) != MAGIC {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "scoreboard of another layout"));
        }
        Ok(Scoreboard { memory })
    }

    /// That of a running master, through its descriptors in `/proc`: no question is asked of the
    /// master, so one that is stuck has a status too. `None` when it is not for this user to see.
    pub fn of(pid: Pid) -> Option<Self> {
        fd::memfds_of(pid, NAME).ok()?.into_iter().find_map(|file| Self::adopt(file).ok())
    }

    const fn bytes() -> usize {
        (HEADER_WORDS + CELLS * CELL_WORDS) * 8
    }

    /// The memory file, to pass on.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.memory.fd()
    }

    /// One cell.
    ///
    /// # Panics
    /// When `index` is not below [`CELLS`].
    pub fn cell(&self, index: usize) -> Cell<'_> {
        let start = HEADER_WORDS + index * CELL_WORDS;
        Cell { words: &self.memory.words()[start..start + CELL_WORDS] }
    }

    fn header(&self, word: HeaderWord) -> &AtomicU64 {
        &self.memory.words()[word as usize]
    }

    /// Requests served since the instance started, over all workers that ever lived.
    pub fn total_requests(&self) -> u64 {
        let live: u64 = self.used_cells().map(|index| self.cell(index).requests()).sum();
        live + self.header(HeaderWord::RetiredRequests).load(Relaxed)
    }

    /// Cells that have ever been used: the only ones worth looking at.
    pub fn used_cells(&self) -> std::ops::Range<usize> {
        0..(self.header(HeaderWord::HighWater).load(Relaxed) as usize).min(CELLS)
    }

    /// Counts a cell among [`Scoreboard::used_cells`].
    pub fn note_use(&self, index: usize) {
        self.header(HeaderWord::HighWater).fetch_max(index as u64 + 1, Relaxed);
    }

    /// Opens a cell for a worker about to be forked. Only the master calls this.
    pub fn open(&self, index: usize) -> Cell<'_> {
        self.note_use(index);
        self.cell(index)
    }

    /// Tells readers of the scoreboard about the instance as a whole. Only the master calls this.
    pub fn set_instance(&self, generation: u64, reloads: u64, started_at: u64) {
        self.header(HeaderWord::Generation).store(generation, Relaxed);
        self.header(HeaderWord::Reloads).store(reloads, Relaxed);
        self.header(HeaderWord::StartedAt).store(started_at, Relaxed);
    }

    /// Generation that serves, re-execs so far, CLOCK_REALTIME seconds of the first start.
    pub fn instance(&self) -> (u64, u64, u64) {
        let read = |word| self.header(word).load(Relaxed);
        (read(HeaderWord::Generation), read(HeaderWord::Reloads), read(HeaderWord::StartedAt))
    }

    /// Notes that a client may wait of whom no sleeping worker has heard, or that somebody looks after it.
    pub fn set_unheard(&self, unheard: bool) {
        let word = self.header(HeaderWord::Unheard);
        // All workers read it all the time, and few change it.
        if unheard != (word.load(SeqCst) == 1) {
            word.store(u64::from(unheard), SeqCst);
        }
        fence(SeqCst);
    }

    /// Whether [`Scoreboard::set_unheard`] said so.
    pub fn unheard(&self) -> bool {
        self.header(HeaderWord::Unheard).load(SeqCst) == 1
    }

    /// Asks the workers to tell the master when the next request begins, or takes that back.
    pub fn set_awaited(&self, awaited: bool) {
        self.header(HeaderWord::Awaited).store(u64::from(awaited), Relaxed);
    }

    /// True for one worker of those that ask, after each [`Scoreboard::set_awaited`]: it tells the master.
    pub fn take_awaited(&self) -> bool {
        let word = self.header(HeaderWord::Awaited);
        // All workers read it with each request, and few change it.
        word.load(Relaxed) == 1 && word.swap(0, Relaxed) == 1
    }

    /// Whether a worker other than that of cell `own` sleeps and would take a client.
    pub fn another_parked(&self, own: usize) -> bool {
        self.used_cells().any(|index| index != own && self.cell(index).parked() == 1)
    }

    /// Clears a cell after its worker is gone and keeps its request count in the total.
    pub fn retire(&self, index: usize) {
        let cell = self.cell(index);
        self.header(HeaderWord::RetiredRequests).fetch_add(cell.requests(), Relaxed);
        for word in cell.words {
            word.store(0, Relaxed);
        }
    }
}

macro_rules! figures {
    ($($(#[$doc:meta])* $name:ident, $set:ident: $word:ident;)*) => {
        impl Cell<'_> {
            $($(#[$doc])* pub fn $name(&self) -> u64 { self.words[Word::$word as usize].load(Relaxed) }
              #[doc = concat!("Sets [`Cell::", stringify!($name), "`].")]
              pub fn $set(&self, value: u64) { self.words[Word::$word as usize].store(value, Relaxed) })*
        }
    };
}

figures! {
    /// Process id of the worker.
    pid, set_pid: Pid;
    /// Worker number, 1-based.
    slot, set_slot: Slot;
    /// Generation of the worker.
    generation, set_generation: Generation;
    /// Requests finished by this worker process.
    requests, set_requests: Requests;
    /// Open client connections.
    connections, set_connections: Connections;
    /// Requests begun and not finished.
    in_flight, set_in_flight: InFlight;
    /// Body and head bytes sent.
    tx_bytes, set_tx_bytes: TxBytes;
    /// Microseconds spent in requests.
    running_micros, set_running_micros: RunningMicros;
    /// Running mean of a request's duration, microseconds: (old + new) / 2 as uWSGI counts it.
    average_micros, set_average_micros: AverageMicros;
    /// CLOCK_REALTIME microseconds at which the oldest request in flight began; 0 when idle.
    request_start, set_request_start: RequestStart;
    /// Requests that ended in an application error.
    exceptions, set_exceptions: Exceptions;
    /// CLOCK_REALTIME seconds at which the worker was forked.
    started_at, set_started_at: StartedAt;
    /// 1 while the worker would take a new connection at once.
    accepting, set_accepting: Accepting;
    /// Signals of the application that were handled.
    signals, set_signals: Signals;
    /// Workers of this number and generation before this one.
    respawns, set_respawns: Respawns;
    /// 1 while the worker sleeps and a new connection would wake it.
    parked, set_parked: Parked;
}

impl Cell<'_> {
    /// What the worker is doing.
    pub fn state(&self) -> WorkerState {
        WorkerState::from_word(self.words[Word::State as usize].load(Relaxed))
    }

    /// Sets [`Cell::state`].
    pub fn set_state(&self, state: WorkerState) {
        self.words[Word::State as usize].store(state as u64, Relaxed);
    }

    /// One more of [`Cell::exceptions`]; threads may raise some at the same time.
    pub fn count_exception(&self) {
        self.words[Word::Exceptions as usize].fetch_add(1, Relaxed);
    }

    /// Remembers which request was begun last, for the case that it is the last one ever. A reader
    /// may see a mixture of two; it is evidence for a person, not a protocol.
    pub fn set_last_request(&self, method: &str, target: &str) {
        let mut text = [0_u8; LAST_REQUEST_BYTES];
        let mut length = 0;
        for part in [method.as_bytes(), b" ", target.as_bytes()] {
            let take = part.len().min(LAST_REQUEST_BYTES - length);
            text[length..length + take].copy_from_slice(&part[..take]);
            length += take;
        }
        for (word, bytes) in self.last_request_words().iter().zip(text.as_chunks::<8>().0) {
            word.store(u64::from_ne_bytes(*bytes), Relaxed);
            if bytes[7] == 0 {
                break;
            }
        }
    }

    fn last_request_words(&self) -> &[AtomicU64] {
        &self.words[Word::LastRequest as usize..Word::Parked as usize]
    }

    /// Method and target of the request begun last, cut to what a cell holds; empty before the first.
    pub fn last_request(&self) -> String {
        let words = self.last_request_words().iter();
        let bytes: Vec<u8> =
            words.flat_map(|word| word.load(Relaxed).to_ne_bytes()).take_while(|it| *it != 0).collect();
        String::from_utf8_lossy(&bytes).escape_debug().to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_request_is_kept_and_cut() {
        let board = Scoreboard::create().expect("memory files exist");
        let cell = board.open(3);
        assert_eq!(cell.last_request(), "");
        cell.set_last_request("GET", "/a");
        assert_eq!(cell.last_request(), "GET /a");
        cell.set_last_request("GET", &"x".repeat(1000));
        assert_eq!(cell.last_request().len(), LAST_REQUEST_BYTES);
        cell.set_last_request("POST", "/bcd");
        assert_eq!(cell.last_request(), "POST /bcd");
    }

    #[test]
    fn requests_of_retired_workers_stay_in_the_total() {
        let board = Scoreboard::create().expect("memory files exist");
        board.open(0).set_requests(5);
        board.open(1).set_requests(7);
        board.retire(0);
        assert_eq!(board.total_requests(), 12);
        assert_eq!(board.cell(0).state(), WorkerState::Free);
    }

    #[test]
    fn a_mapping_of_the_same_file_sees_the_same_figures() {
        let board = Scoreboard::create().expect("memory files exist");
        let other = Scoreboard::adopt(board.fd().try_clone_to_owned().expect("descriptors are left"))
            .expect("same layout");
        board.open(9).set_pid(42);
        assert_eq!(other.cell(9).pid(), 42);
        assert_eq!(other.used_cells(), 0..10);
    }
}
