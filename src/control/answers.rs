//! The memory through which the master answers: tickets one way, [`Answer`]s the other way.
//!
//! A memory file of the master, found as `--status` finds the scoreboard: through its descriptors in
//! `/proc`. So there is no socket, file or directory that could be left behind, lie in a read-only
//! place or belong to the wrong user after privileges were dropped; who may look is who could look
//! into the master anyway: root, and its own user while it is dumpable and has no capabilities. The
//! master never waits for a reader, and a master that has died leaves what it said last to those who
//! have the memory mapped. The file is kept across a re-exec; a master of a release that does not know
//! it neither writes to it nor says so: a reader with a limit gives up then.
//!
//! An own file and not part of the scoreboard, because that has a fixed size by which older releases
//! recognize it.

use std::ffi::CStr;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release, SeqCst};
use std::sync::atomic::{AtomicU64, fence};
use std::time::Duration;

use crate::master::answer::Answer;
use crate::sys::fd;
use crate::sys::process::Pid;
use crate::sys::shm::SharedMemory;

/// Name of the memory file.
const NAME: &CStr = c"appserver-answers";
/// Layout 1.
const MAGIC: u64 = 0x6170_7061_6e73_0001;
/// Size of the whole; fixed, see [`SharedMemory`].
const BYTES: usize = 64 * 1024;
/// Times a reader tries while the master writes.
const ATTEMPTS: u32 = 1000;

/// Words before the text.
#[derive(Debug, Clone, Copy)]
#[repr(usize)]
enum Word {
    Magic = 0,
    /// The highest ticket given out.
    Ticket = 1,
    /// Odd while the master writes.
    Sequence = 2,
    /// Bytes of the text.
    Length = 3,
    /// Rings after each change.
    Bell = 4,
    /// The latest order to pause: its number times two, plus one if it is to pause; 0 before the first.
    /// Left alone by older releases, as is the next.
    PauseOrder = 5,
    /// The number of the latest order that the master has obeyed.
    PauseObeyed = 6,
    /// First word of the text, which is JSON.
    Text = 8,
}

/// Bytes for the text.
const TEXT_BYTES: usize = BYTES - Word::Text as usize * 8;

/// The mapping.
#[derive(Debug)]
pub struct Answers {
    memory: SharedMemory,
}

impl Answers {
    /// Makes it, without an answer in it.
    ///
    /// # Errors
    /// When the kernel refuses the memory file or its mapping.
    pub fn create() -> io::Result<Self> {
        let answers = Answers { memory: SharedMemory::create(NAME, BYTES)? };
        answers.word(Word::Magic).store(MAGIC, Relaxed);
        Ok(answers)
    }

    /// Maps what another process, or a previous image, has made.
    ///
    /// # Errors
    /// When it is of another layout.
    pub fn adopt(file: OwnedFd) -> io::Result<Self> {
        let answers = Answers { memory: SharedMemory::adopt(file, BYTES)? };
        if answers.word(Word::Magic).load(Relaxed) != MAGIC {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "answers of another layout"));
        }
        Ok(answers)
    }

    /// Those of a running master; `None` when its release gives none.
    ///
    /// # Errors
    /// When its descriptors are not for this user to see.
    pub fn of(pid: Pid) -> io::Result<Option<Self>> {
        fd::memfds_of(pid, NAME)?.into_iter().next().map(Self::adopt).transpose()
    }

    /// True when the master has this memory mapped. One of another release may have dropped it, or have
    /// inherited the descriptor without knowing what it is; one that has just replaced its image has not
    /// mapped it yet.
    pub fn is_held_by(&self, pid: Pid) -> bool {
        self.memory.is_mapped_by(pid)
    }

    /// The memory file, to pass on.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.memory.fd()
    }

    /// A ticket, to be taken before the master is asked.
    pub fn take_ticket(&self) -> u64 {
        self.word(Word::Ticket).fetch_add(1, SeqCst) + 1
    }

    /// The highest ticket given out.
    pub fn ticket(&self) -> u64 {
        self.word(Word::Ticket).load(SeqCst)
    }

    /// Orders the master to pause or to go on; the number of the order. It has to be woken.
    pub fn order_pause(&self, paused: bool) -> u64 {
        let next = |order: u64| ((order >> 1) + 1) << 1 | u64::from(paused);
        let word = self.word(Word::PauseOrder);
        match word.fetch_update(SeqCst, SeqCst, |order| Some(next(order))) {
            Ok(before) | Err(before) => next(before) >> 1,
        }
    }

    /// An order that has not been obeyed: its number, and whether to pause.
    pub fn pause_order(&self) -> Option<(u64, bool)> {
        let order = self.word(Word::PauseOrder).load(SeqCst);
        (order >> 1 > self.pause_obeyed()).then_some((order >> 1, order & 1 == 1))
    }

    /// The number of the latest order that was obeyed, also those before it.
    pub fn pause_obeyed(&self) -> u64 {
        self.word(Word::PauseObeyed).load(SeqCst)
    }

    /// Says that the orders up to this one are obeyed. Only the master calls this.
    pub fn obey_pause(&self, number: u64) {
        self.word(Word::PauseObeyed).store(number, SeqCst);
        self.wake();
    }

    /// Says this from now on. Only the master calls this.
    pub fn publish(&self, answer: &Answer) {
        let mut answer = answer.clone();
        let text = loop {
            let Ok(text) = serde_json::to_vec(&answer) else { return };
            if text.len() <= TEXT_BYTES {
                break text;
            }
            // Many slots with long reasons, or control characters, each six bytes in JSON. The newest reload
            // matters most.
            if !answer.slots.is_empty() {
                answer.slots.truncate(answer.slots.len() / 2);
                continue;
            }
            match answer.reloads.is_empty() {
                false => drop(answer.reloads.remove(0)),
                true if answer.generations.pop().is_none() => return,
                true => {}
            }
        };
        let sequence = self.word(Word::Sequence);
        // Odd from now on, also if a master was killed while it wrote.
        let begun = sequence.load(Relaxed) | 1;
        sequence.store(begun, Relaxed);
        fence(Release);
        self.word(Word::Length).store(text.len() as u64, Relaxed);
        for (word, bytes) in self.text().iter().zip(text.chunks(8)) {
            let mut padded = [0; 8];
            padded[..bytes.len()].copy_from_slice(bytes);
            word.store(u64::from_ne_bytes(padded), Relaxed);
        }
        sequence.store(begun.wrapping_add(1), Release);
        self.memory.ring(Word::Bell as usize);
    }

    /// What the master says; `None` before it has said anything, or while it is saying something else.
    pub fn read(&self) -> Option<Answer> {
        for _ in 0..ATTEMPTS {
            let before = self.word(Word::Sequence).load(Acquire);
            let length = (self.word(Word::Length).load(Relaxed) as usize).min(TEXT_BYTES);
            let words = self.text()[..length.div_ceil(8)].iter();
            let mut text: Vec<u8> = words.flat_map(|word| word.load(Relaxed).to_ne_bytes()).collect();
            text.truncate(length);
            fence(Acquire);
            if before.is_multiple_of(2) && self.word(Word::Sequence).load(Relaxed) == before {
                return serde_json::from_slice(&text).ok();
            }
            std::hint::spin_loop();
        }
        None
    }

    /// How often the master has said something; to be read before the answer itself.
    pub fn changes(&self) -> u32 {
        self.memory.rings(Word::Bell as usize)
    }

    /// Waits until there are more [`Answers::changes`], or for `patience`; may return early.
    pub fn await_change(&self, seen: u32, patience: Duration) {
        self.memory.await_ring(Word::Bell as usize, seen, patience);
    }

    /// Wakes all readers, for them to look at something else.
    pub fn wake(&self) {
        self.memory.ring(Word::Bell as usize);
    }

    fn word(&self, word: Word) -> &AtomicU64 {
        &self.memory.words()[word as usize]
    }

    fn text(&self) -> &[AtomicU64] {
        &self.memory.words()[Word::Text as usize..]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::master::answer::{Kind, Outcome, Record};
    use crate::sys::process::this;

    fn refused(id: u64, reason: String) -> Record {
        Record { id, kind: Kind::Reload, generation: 2, ticket: id, outcome: Outcome::Refused { reason } }
    }

    #[test]
    fn what_is_said_is_read_through_proc() {
        let answers = Answers::create().unwrap();
        let other = Answers::adopt(fd::duplicate(answers.fd()).unwrap()).unwrap();
        assert_eq!(other.read(), None);
        assert_eq!((other.take_ticket(), answers.ticket()), (1, 1));
        for reason in ["a longer reason", "é"] {
            let answer =
                Answer { generation: 7, reloads: vec![refused(1, reason.into())], ..Answer::default() };
            let seen = other.changes();
            answers.publish(&answer);
            other.await_change(seen, Duration::from_secs(3600));
            assert_eq!(other.read(), Some(answer));
        }
        assert!(Answers::of(this()).unwrap().is_some());
    }

    #[test]
    fn orders_to_pause_are_numbered_and_the_last_one_counts() {
        let answers = Answers::create().unwrap();
        assert_eq!(answers.pause_order(), None);
        assert_eq!((answers.order_pause(true), answers.order_pause(true)), (1, 2));
        assert_eq!(answers.pause_order(), Some((2, true)));
        assert_eq!(answers.order_pause(false), 3);
        assert_eq!(answers.pause_order(), Some((3, false)));
        answers.obey_pause(3);
        assert_eq!((answers.pause_order(), answers.pause_obeyed()), (None, 3));
    }

    #[test]
    fn what_is_too_long_loses_its_oldest_part() {
        let answers = Answers::create().unwrap();
        let reloads = (1..=8).map(|id| refused(id, "\u{1}".repeat(2048))).collect();
        answers.publish(&Answer { reloads, ..Answer::default() });
        let read = answers.read().expect("an answer");
        assert_eq!(read.reloads.last().map(|it| it.id), Some(8));
        assert!(read.reloads.len() < 8);
    }
}
