//! What one worker has in hand, in detail: a row for each core, and room for its stacks.
//!
//! A memory file of its own for each process: the master makes it, the worker maps its rows and writes
//! them, the master reads the file when it has a reason to. Pages that nobody touches cost nothing. A row
//! is written by relaxed stores between two changes of its `Turn`, which is odd while a request is in
//! flight: a reader that finds the same odd turn before and after knows that the row is of one request.
//! Times are microseconds of the monotonic clock.

use std::ffi::CStr;
use std::fs::File;
use std::io::{self, Seek, SeekFrom};
use std::mem::ManuallyDrop;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed, Ordering::Release, Ordering::SeqCst};
use std::time::{Duration, Instant};

use crate::sys::clock::{Monotonic, whole_micros};
use crate::sys::fd;
use crate::sys::shm::SharedMemory;

use super::line;

/// Name of the memory file.
const NAME: &CStr = c"appserver-requests";
/// First word of the file; the low byte is the layout version.
const MAGIC: u64 = 0x6170_7072_6571_0001;
/// Rows there is room for: as many as a worker may have threads.
const MOST_ROWS: usize = 4096;
/// Words of the header and of each row: four cache lines, so that two threads never share one.
const HEADER_WORDS: usize = 32;
const ROW_WORDS: usize = 32;
/// Where the stacks begin, and how much of them is kept.
const TEXT_START: u64 = ((HEADER_WORDS + MOST_ROWS * ROW_WORDS) * 8) as u64;
const TEXT_BYTES: u64 = 256 * 1024;

/// Words of the header.
#[derive(Clone, Copy)]
#[repr(usize)]
enum Header {
    Magic = 0,
    /// Rows in use.
    Rows = 1,
    /// `harakiri` in microseconds; 0 is no limit.
    Limit = 2,
}

/// Words of a row.
#[derive(Clone, Copy)]
#[repr(usize)]
enum Word {
    /// Odd while a request is in flight.
    Turn = 0,
    Started = 1,
    /// When `harakiri` ends its time; 0 is never.
    Deadline = 2,
    /// When the application's own limit ends it; 0 is never.
    OwnDeadline = 3,
    /// The number that the application knows: that of its thread.
    Core = 4,
    /// 4 or 6 for a TCP client, with its port above; 0 for any other.
    Peer = 5,
    /// The address, in two words.
    Address = 6,
    /// First of the words with method and target.
    Line = 8,
}

/// Bytes kept of a request's method and target.
const LINE_BYTES: usize = (ROW_WORDS - Word::Line as usize) * 8;

/// The rows of this worker.
#[derive(Debug)]
pub struct Sheet {
    memory: SharedMemory,
    limit: u64,
    clock: Monotonic,
}

/// A request that waits for its client: it has no row, and its clock stands still.
#[derive(Debug, Clone)]
pub struct Suspended {
    row: u32,
    words: [u64; ROW_WORDS],
    since: u64,
}

impl Sheet {
    /// Takes the sheet into use that the master has made, for `rows` requests at a time that may take `limit`.
    ///
    /// # Errors
    /// When the file is none, or cannot be mapped.
    pub fn adopt(file: OwnedFd, rows: u32, limit: Option<Duration>) -> io::Result<Self> {
        let rows = (rows as usize).min(MOST_ROWS);
        let memory = SharedMemory::adopt(file, (HEADER_WORDS + rows * ROW_WORDS) * 8)?;
        let limit = limit.map_or(0, |limit| whole_micros(limit).max(1));
        let header = |word: Header, value| memory.words()[word as usize].store(value, Relaxed);
        header(Header::Rows, rows as u64);
        header(Header::Limit, limit);
        header(Header::Magic, MAGIC);
        Ok(Sheet { memory, limit, clock: Monotonic::read() })
    }

    fn row(&self, row: u32) -> Option<&[AtomicU64]> {
        let start = HEADER_WORDS + row as usize * ROW_WORDS;
        self.memory.words().get(start..start + ROW_WORDS)
    }

    /// A request begins. `row` is the number of its slot.
    pub fn begin(&self, row: u32, started: Instant, peer: Option<SocketAddr>, method: &str, target: &str) {
        let Some(words) = self.row(row) else { return };
        let started = self.clock.micros_of(started);
        let set = |word: Word, value| words[word as usize].store(value, Relaxed);
        set(Word::Started, started);
        set(Word::Deadline, if self.limit > 0 { started + self.limit } else { 0 });
        set(Word::OwnDeadline, 0);
        set(Word::Core, row.into());
        let (kind, address) = encode(peer);
        set(Word::Peer, kind);
        words[Word::Address as usize].store(address[0], Relaxed);
        words[Word::Address as usize + 1].store(address[1], Relaxed);
        line::write::<LINE_BYTES>(&words[Word::Line as usize..], method, target);
        open(words);
    }

    /// The request has ended. No effect if there is none.
    pub fn end(&self, row: u32) {
        if let Some(words) = self.row(row) {
            close(words);
        }
    }

    /// The clock of the request in this row stands still until [`Sheet::restart`].
    pub fn hold(&self, row: u32) {
        if let Some(words) = self.row(row) {
            words[Word::Deadline as usize].store(0, Relaxed);
        }
    }

    /// The clock of the request in this row starts now: its body has arrived, or a thread is free.
    pub fn restart(&self, row: u32, now: Instant) {
        let Some(words) = self.row(row) else { return };
        let now = self.clock.micros_of(now);
        words[Word::Started as usize].store(now, Relaxed);
        if self.limit > 0 {
            words[Word::Deadline as usize].store(now + self.limit, Relaxed);
        }
    }

    /// The application knows the place where the request runs by this number.
    pub fn set_core(&self, row: u32, core: u32) {
        if let Some(words) = self.row(row) {
            words[Word::Core as usize].store(core.into(), Relaxed);
        }
    }

    /// What was set so.
    pub fn core(&self, row: u32) -> Option<u32> {
        let core = self.row(row)?[Word::Core as usize].load(Relaxed);
        u32::try_from(core).ok()
    }

    /// The application's own limit from now on, beside that of the configuration; `None` takes it back. The
    /// figure that the master has to look at, for [`super::Scoreboard::next_look`].
    pub fn set_own_limit(&self, row: u32, limit: Option<Duration>) -> Option<u64> {
        let words = self.row(row)?;
        let now = self.now();
        let deadline = limit.map(|limit| now.saturating_add(whole_micros(limit)).max(1));
        words[Word::OwnDeadline as usize].store(deadline.unwrap_or(0), SeqCst);
        deadline
    }

    /// The request in this row may take any time from now on.
    pub fn lift_limits(&self, row: u32) {
        if let Some(words) = self.row(row) {
            words[Word::Deadline as usize].store(0, Relaxed);
            words[Word::OwnDeadline as usize].store(0, Relaxed);
        }
    }

    /// The request in this row waits for its client from now on. `None` if there is none.
    pub fn suspend(&self, row: u32) -> Option<Box<Suspended>> {
        let words = self.row(row)?;
        if words[Word::Turn as usize].load(Relaxed).is_multiple_of(2) {
            return None;
        }
        let kept = std::array::from_fn(|word| words[word].load(Relaxed));
        close(words);
        Some(Box::new(Suspended { row, words: kept, since: self.now() }))
    }

    /// It goes on, in this row.
    pub fn resume(&self, row: u32, suspended: &Suspended) {
        let Some(words) = self.row(row) else { return };
        for (word, value) in words.iter().zip(suspended.words).skip(Word::Turn as usize + 1) {
            word.store(value, Relaxed);
        }
        let waited = self.now().saturating_sub(suspended.since);
        for deadline in [Word::Deadline, Word::OwnDeadline] {
            let value = suspended.words[deadline as usize];
            if value > 0 {
                words[deadline as usize].store(value + waited, Relaxed);
            }
        }
        if row != suspended.row {
            words[Word::Core as usize].store(row.into(), Relaxed);
        }
        open(words);
    }

    /// Now, as the rows have it.
    pub fn now(&self) -> u64 {
        self.clock.micros_of(Instant::now())
    }

    /// What others see.
    ///
    /// # Errors
    /// When no descriptor is left.
    pub fn file(&self) -> io::Result<SheetFile> {
        Ok(SheetFile::adopt(self.fd().try_clone_to_owned()?))
    }

    /// Gives the descriptor away under its number, which plugins know; who still has the sheet sees its rows.
    ///
    /// # Errors
    /// When the number has another owner.
    pub fn give_away(sheet: Arc<Self>) -> io::Result<OwnedFd> {
        // Never dropped, so that the number has one owner.
        fd::claim(ManuallyDrop::new(sheet).fd().as_raw_fd())
    }

    /// The memory file.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.memory.fd()
    }
}

/// The row is complete: it holds a request.
fn open(words: &[AtomicU64]) {
    let turn = &words[Word::Turn as usize];
    turn.store((turn.load(Relaxed) | 1) + 2, Release);
}

/// The row holds none any more.
fn close(words: &[AtomicU64]) {
    let turn = &words[Word::Turn as usize];
    let value = turn.load(Relaxed);
    if !value.is_multiple_of(2) {
        turn.store(value + 1, Release);
    }
}

fn encode(peer: Option<SocketAddr>) -> (u64, [u64; 2]) {
    let Some(peer) = peer else { return (0, [0; 2]) };
    let (kind, octets) = match peer.ip() {
        IpAddr::V4(address) => (4, address.to_ipv6_mapped().octets()),
        IpAddr::V6(address) => (6, address.octets()),
    };
    let address = u128::from_be_bytes(octets);
    (u64::from(peer.port()) << 8 | kind, [(address >> 64) as u64, address as u64])
}

fn decode(kind: u64, address: [u64; 2]) -> Option<SocketAddr> {
    let whole = u128::from(address[0]) << 64 | u128::from(address[1]);
    let address = Ipv6Addr::from(whole);
    let ip = match kind & 0xff {
        4 => address.to_ipv4_mapped()?.into(),
        6 => address.into(),
        _ => return None,
    };
    Some(SocketAddr::new(ip, (kind >> 8) as u16))
}

/// A request in flight.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InHand {
    /// The number that the application knows.
    pub core: u32,
    /// When it began.
    pub started: u64,
    /// When its time ends, by whichever limit is the first.
    pub deadline: Option<u64>,
    /// The client, if it has an address.
    pub peer: Option<SocketAddr>,
    /// Method and target, cut and made harmless for a log line.
    pub line: String,
}

/// What a sheet says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reading {
    /// `harakiri` of the worker.
    pub limit: Option<Duration>,
    /// Its requests.
    pub requests: Vec<InHand>,
}

/// The sheet of a process, as the master has it.
#[derive(Debug)]
pub struct SheetFile(File);

impl SheetFile {
    /// Makes a sheet for a process to come.
    ///
    /// # Errors
    /// When memory or descriptors are short.
    pub fn create() -> io::Result<Self> {
        let mut file = File::from(SharedMemory::file(NAME, (TEXT_START + TEXT_BYTES) as usize)?);
        file.seek(SeekFrom::Start(TEXT_START))?;
        Ok(SheetFile(file))
    }

    /// The sheet behind a descriptor that was handed down.
    pub fn adopt(file: OwnedFd) -> Self {
        SheetFile(file.into())
    }

    /// Reads the rows. One that changes meanwhile is of a request that has just begun or ended: it is passed over.
    ///
    /// # Errors
    /// Those of `pread(2)`.
    pub fn read(&self) -> io::Result<Reading> {
        let header = self.words(0, HEADER_WORDS)?;
        if header[Header::Magic as usize] != MAGIC {
            // The worker has not begun to use it.
            return Ok(Reading::default());
        }
        let rows = (header[Header::Rows as usize] as usize).min(MOST_ROWS);
        let limit = header[Header::Limit as usize];
        let before = self.words(HEADER_WORDS, rows * ROW_WORDS)?;
        let after = self.words(HEADER_WORDS, rows * ROW_WORDS)?;
        let (before, after) = (before.chunks_exact(ROW_WORDS), after.chunks_exact(ROW_WORDS));
        let turn = |row: &[u64]| row[Word::Turn as usize];
        let same = |(before, after): &(&[u64], &[u64])| {
            !turn(before).is_multiple_of(2) && turn(before) == turn(after)
        };
        Ok(Reading {
            limit: (limit > 0).then(|| Duration::from_micros(limit)),
            requests: before.zip(after).filter(same).map(|(row, _)| in_hand(row)).collect(),
        })
    }

    fn words(&self, first: usize, count: usize) -> io::Result<Vec<u64>> {
        let mut bytes = vec![0; count * 8];
        self.0.read_exact_at(&mut bytes, first as u64 * 8)?;
        Ok(bytes.as_chunks::<8>().0.iter().map(|word| u64::from_ne_bytes(*word)).collect())
    }

    /// Forgets the stacks that were written down: those to come are the first again.
    ///
    /// # Errors
    /// Those of `lseek(2)`.
    pub fn forget_stacks(&self) -> io::Result<()> {
        (&self.0).seek(SeekFrom::Start(TEXT_START)).map(drop)
    }

    /// What has been written down since: the position in the file is that of whoever writes.
    ///
    /// # Errors
    /// Those of `pread(2)`.
    pub fn stacks(&self) -> io::Result<String> {
        let end = (&self.0).stream_position()?.clamp(TEXT_START, TEXT_START + TEXT_BYTES);
        let mut bytes = vec![0; (end - TEXT_START) as usize];
        self.0.read_exact_at(&mut bytes, TEXT_START)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }
}

fn in_hand(row: &[u64]) -> InHand {
    let word = |word: Word| row[word as usize];
    let deadlines = [word(Word::Deadline), word(Word::OwnDeadline)];
    let address = Word::Address as usize;
    InHand {
        core: word(Word::Core) as u32,
        started: word(Word::Started),
        deadline: deadlines.into_iter().filter(|it| *it > 0).min(),
        peer: decode(word(Word::Peer), [row[address], row[address + 1]]),
        line: line::read(row[Word::Line as usize..].iter().copied()),
    }
}

impl AsFd for SheetFile {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsRawFd for SheetFile {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

impl From<SheetFile> for OwnedFd {
    fn from(sheet: SheetFile) -> OwnedFd {
        sheet.0.into()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn pair(limit: Option<Duration>) -> (SheetFile, Sheet) {
        let file = SheetFile::create().expect("memory files exist");
        let copy = file.as_fd().try_clone_to_owned().expect("descriptors are left");
        (file, Sheet::adopt(copy, 2, limit).expect("just made"))
    }

    #[test]
    fn requests_in_flight_are_read_with_their_clients() {
        let (file, sheet) = pair(None);
        assert_eq!(file.read().expect("readable"), Reading::default());
        let peers = ["10.1.2.3:4567", "[2001:db8::7]:80"].map(|it| it.parse().ok());
        let now = Instant::now();
        sheet.begin(0, now, peers[0], "GET", "/a");
        sheet.begin(1, now, peers[1], "POST", &"x".repeat(1000));
        sheet.set_core(1, 7);
        let read = file.read().expect("readable").requests;
        let seen: Vec<_> = read.iter().map(|it| (it.core, it.peer, it.deadline)).collect();
        assert_eq!(seen, [(0, peers[0], None), (7, peers[1], None)]);
        assert_eq!((read[0].line.as_str(), read[1].line.len()), ("GET /a", LINE_BYTES));
        sheet.end(0);
        sheet.end(0);
        assert_eq!(file.read().expect("readable").requests.len(), 1);
        sheet.begin(0, now, None, "GET", "/b");
        let read = file.read().expect("readable").requests;
        assert_eq!((read[0].line.as_str(), read[0].peer), ("GET /b", None));
        sheet.begin(2, now, None, "GET", "/beyond");
        sheet.end(2);
    }

    #[test]
    fn the_clock_of_a_request_that_waits_for_a_thread_stands_still() {
        let (file, sheet) = pair(Some(Duration::from_secs(5)));
        let now = Instant::now();
        let at = |after| sheet.clock.micros_of(now + Duration::from_secs(after));
        let deadline = || file.read().expect("readable").requests[0].deadline;
        sheet.begin(0, now, None, "GET", "/");
        assert_eq!(deadline(), Some(at(5)));
        sheet.hold(0);
        assert_eq!(deadline(), None);
        sheet.restart(0, now + Duration::from_secs(60));
        assert_eq!(deadline(), Some(at(65)));
    }

    #[test]
    fn each_request_has_its_own_deadline_and_the_earlier_limit_counts() {
        let (file, sheet) = pair(Some(Duration::from_secs(5)));
        let now = Instant::now();
        let at = |after| sheet.clock.micros_of(now + Duration::from_secs(after));
        sheet.begin(0, now, None, "GET", "/first");
        sheet.begin(1, now + Duration::from_secs(2), None, "GET", "/second");
        let deadlines =
            || file.read().expect("readable").requests.iter().map(|it| it.deadline).collect::<Vec<_>>();
        assert_eq!(deadlines(), [Some(at(5)), Some(at(7))]);
        sheet.end(1);
        assert_eq!(deadlines(), [Some(at(5))], "what another has finished changes nothing");
        let sooner = sheet.set_own_limit(0, Some(Duration::from_secs(1))).expect("a row");
        assert_eq!(deadlines(), [Some(sooner)]);
        sheet.set_own_limit(0, Some(Duration::from_secs(100)));
        assert_eq!(deadlines(), [Some(at(5))], "the operator's limit stays");
        sheet.set_own_limit(0, None);
        assert_eq!(deadlines(), [Some(at(5))]);
        sheet.lift_limits(0);
        assert_eq!(deadlines(), [None]);
    }

    #[test]
    fn the_clock_stands_still_while_a_client_is_waited_for() {
        let (file, sheet) = pair(Some(Duration::from_secs(5)));
        let now = Instant::now();
        sheet.begin(0, now, None, "PUT", "/upload");
        let mut suspended = sheet.suspend(0).expect("in flight");
        assert!(sheet.suspend(0).is_none());
        assert_eq!(file.read().expect("readable").requests, []);
        suspended.since -= 3_000_000;
        sheet.resume(1, &suspended);
        let read = file.read().expect("readable").requests;
        assert_eq!((read[0].core, read[0].line.as_str()), (1, "PUT /upload"));
        assert_eq!(read[0].started, sheet.clock.micros_of(now));
        let moved = read[0].deadline.expect("limited") - sheet.clock.micros_of(now);
        assert!((8_000_000..9_000_000).contains(&moved), "{moved}");
    }

    #[test]
    fn stacks_are_what_was_written_since_the_last_were_forgotten() {
        let (file, sheet) = pair(None);
        let mut writer = File::from(sheet.fd().try_clone_to_owned().expect("descriptors are left"));
        assert_eq!(file.stacks().expect("readable"), "");
        writer.write_all(b"first").expect("room");
        assert_eq!(file.stacks().expect("readable"), "first");
        file.forget_stacks().expect("seekable");
        writer.write_all(b"two").expect("room");
        assert_eq!(file.stacks().expect("readable"), "two");
        file.forget_stacks().expect("seekable");
        let too_much = vec![b'x'; TEXT_BYTES as usize + 4096];
        assert!(writer.write_all(&too_much).is_err(), "the file does not grow");
        assert!(file.stacks().expect("readable").len() > TEXT_BYTES as usize - 4096);
    }
}
