//! Control channels: typed messages between the master and its children.
//!
//! A channel is a `SOCK_SEQPACKET` socketpair: one message a packet, so a reader never sees half
//! of one, and descriptors travel with the message they belong to. Messages are JSON: they are
//! rare, and a master may talk to children of an older release across a re-exec.

use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::cause::Cause;
use crate::config::Entry;
use crate::net::set::Announced;
use crate::signals;
use crate::sys::seqpacket;
#[cfg(doc)]
use crate::sys::stacks;

/// Longest message accepted; a traceback of an application fits.
const MESSAGE_LIMIT: usize = 64 * 1024;

/// Longest reason that a child may put into a message.
const REASON_LIMIT: usize = 16 * 1024;

/// Master to zygote.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToZygote {
    /// Fork a worker; its end of a new control channel comes along, and from newer masters the sheet for
    /// its requests.
    Spawn {
        /// Identity of the worker for the life of the instance.
        worker: u64,
        /// Worker number.
        slot: u32,
        /// Its cell in the scoreboard.
        cell: usize,
        /// Re-execs of the master so far.
        reloads: u64,
        /// True when the worker shall not accept before it is told to resume.
        paused: bool,
    },
    /// Write to this log from now on; the descriptor comes along.
    LogFile,
}

/// Zygote to master.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum FromZygote {
    /// The configuration is valid and the application is loaded.
    Loaded {
        /// The configuration that was proven; the re-exec'd master uses exactly this one.
        entries: Vec<Entry>,
        /// Its listeners; the descriptors of the new ones come along.
        listeners: Vec<Announced>,
        /// What the application asked for while it was loaded; nothing from older releases.
        #[serde(default)]
        requests: Vec<signals::Request>,
    },
    /// This generation cannot serve.
    LoadFailed {
        /// What an operator reads.
        reason: String,
        /// Exit code for a first start.
        code: u8,
    },
    /// It was a worker until now, and can fork others. In place of `Loaded`; in place of `LoadFailed` when
    /// it cannot.
    Promoted,
    /// A worker was forked and is a child of the master by now.
    Forked {
        /// Which.
        worker: u64,
        /// Its process id.
        pid: i32,
    },
    /// The worker could not be forked.
    ForkFailed {
        /// Which.
        worker: u64,
        /// The system's word.
        reason: String,
    },
    /// It was asked for its stacks, and has written down what there is: [`stacks::ANSWER`].
    Stacks,
}

/// How a worker shall leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum DrainMode {
    /// A newer worker serves: finish what is in flight, let idle clients leave unharmed.
    Handover,
    /// The server goes away: empty the accept queue, finish what is in flight, close idle clients.
    Stop,
    /// At once; requests in flight are cut.
    Now,
}

/// Master to worker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToWorker {
    /// Leave.
    Drain {
        /// How.
        mode: DrainMode,
        /// Milliseconds until the master's patience ends, from when the worker leaves.
        patience_ms: u64,
        /// Milliseconds that the worker serves on before it leaves; older releases do not say.
        #[serde(default)]
        delay_ms: u64,
    },
    /// Leave to a newer worker, then become the zygote of its generation; the zygote's end of a new control
    /// channel comes along. Sent only to workers that have said [`FromWorker::Warm`].
    Promote {
        /// Milliseconds that requests in flight may take.
        patience_ms: u64,
    },
    /// Stop accepting.
    Pause,
    /// Accept again.
    Resume,
    /// Call the application's function for a signal. Sent only to workers that have registered one.
    Signal {
        /// Which.
        number: u8,
    },
    /// Write to this log from now on; the descriptor comes along.
    LogFile,
    /// Give a sign of life.
    Ping,
    /// Run the hooks for when its generation serves. Sent only if there are any.
    Accepting {
        /// False when another worker of its number and generation was told before.
        first: bool,
    },
}

/// Worker to master.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum FromWorker {
    /// It accepts (or would, were it not paused).
    Ready,
    /// The application could not be loaded in the worker (`lazy-apps`).
    LoadFailed {
        /// What an operator reads.
        reason: String,
    },
    /// It wants to be replaced.
    Leave {
        /// Why, in a word; older releases do not say.
        #[serde(default)]
        cause: Cause,
        /// Why, for the log.
        reason: String,
    },
    /// It was told to leave and runs the application no more; it only waits until it can pass connections
    /// on. Not told by older releases, and not understood by them.
    Quiet,
    /// It has served `refork-after` requests, so that those forked from it would share what it has warmed up.
    Warm {
        /// What keeps it from being forked.
        obstacle: Option<String>,
    },
    /// A request has begun. Told only when the scoreboard says that the master awaits one.
    Busy,
    /// The application asks for a reload of everything.
    Reload,
    /// The application asks for a stop.
    Stop,
    /// The application asks for something about signals.
    Signals(signals::Request),
    /// The answer to a ping.
    Pong,
    /// A request has a deadline before the master would look at it.
    LookSooner,
    /// It was asked for its stacks, and has written down what there is: [`stacks::ANSWER`].
    Stacks,
    /// What memory it has, when there is a budget for all. Not understood by older releases.
    Memory {
        /// Bytes that no other process has.
        unique: u64,
    },
}

/// One end of a channel that sends `S` and receives `R`.
#[derive(Debug)]
pub struct Channel<S, R> {
    fd: OwnedFd,
    types: PhantomData<fn(S) -> R>,
}

/// The master's end towards a zygote.
pub type ZygoteChannel = Channel<ToZygote, FromZygote>;
/// The master's end towards a worker.
pub type WorkerChannel = Channel<ToWorker, FromWorker>;

/// What [`Channel::receive`] found.
#[derive(Debug)]
pub enum Incoming<R> {
    /// A message and the descriptors that came with it.
    Message(R, Vec<OwnedFd>),
    /// Nothing there now.
    Nothing,
    /// The other side is gone.
    Closed,
}

impl<S: Serialize, R: DeserializeOwned> Channel<S, R> {
    /// Wraps one end of a socketpair.
    pub fn new(fd: OwnedFd) -> Self {
        Channel { fd, types: PhantomData }
    }

    /// Sends one message.
    ///
    /// # Errors
    /// `WouldBlock` when the other side does not read, `BrokenPipe` when it is gone.
    pub fn send(&self, message: &S, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        let bytes = serde_json::to_vec(message)?;
        if bytes.len() > MESSAGE_LIMIT {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "message too long for a control channel",
            ));
        }
        seqpacket::send(self.fd.as_fd(), &bytes, fds)
    }

    /// Takes the next message, if there is one.
    ///
    /// # Errors
    /// `InvalidData` for a message that is not of this channel's type.
    pub fn receive(&self) -> io::Result<Incoming<R>> {
        // Room for what there is: for the largest, each of many idle workers would have pages of its own.
        let received = seqpacket::next_length(self.fd.as_fd()).and_then(|length| {
            let mut buffer = vec![0; length.min(MESSAGE_LIMIT)];
            Ok((seqpacket::recv(self.fd.as_fd(), &mut buffer)?, buffer))
        });
        match received {
            Ok((received, _)) if received.len == 0 => Ok(Incoming::Closed),
            Ok((received, buffer)) => {
                let message = serde_json::from_slice(&buffer[..received.len])?;
                Ok(Incoming::Message(message, received.fds))
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(Incoming::Nothing),
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => Ok(Incoming::Closed),
            Err(error) => Err(error),
        }
    }

    /// Gives the descriptor away, to carry it over an exec.
    pub fn into_fd(self) -> OwnedFd {
        self.fd
    }
}

impl<S, R> AsFd for Channel<S, R> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl<S, R> AsRawFd for Channel<S, R> {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}

/// A connected pair: the master's end and the child's raw end.
///
/// # Errors
/// When the process is out of descriptors.
pub fn pair<S: Serialize, R: DeserializeOwned>() -> io::Result<(Channel<S, R>, OwnedFd)> {
    let (ours, theirs) = seqpacket::pair()?;
    Ok((Channel::new(ours), theirs))
}

/// What parts the first line of a reason from its details, such as a traceback. Whoever finds the reason
/// logs the details himself; they travel for those who do not read the log.
const DETAILS: &str = "\n\nIn detail:\n";

/// A reason without its details, and these: see the Python plugin's `summary`.
pub fn parts_of_reason(reason: &str) -> (&str, Option<&str>) {
    reason.split_once(DETAILS).map_or((reason, None), |(line, details)| (line, Some(details)))
}

/// A reason as the log says it.
pub fn headline(reason: &str) -> &str {
    parts_of_reason(reason).0
}

/// Cuts a reason to what a message can carry, at a character boundary.
pub fn bounded_reason(mut reason: String) -> String {
    if reason.len() > REASON_LIMIT {
        let mut end = REASON_LIMIT;
        while !reason.is_char_boundary(end) {
            end -= 1;
        }
        reason.truncate(end);
        reason.push_str(" [cut]");
    }
    reason
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_zygote_of_an_older_release_asks_for_nothing_and_a_newer_one_may_say_more() {
        for text in [
            r#"{"Loaded": {"entries": [], "listeners": []}}"#,
            r#"{"Loaded": {"entries": [], "listeners": [], "requests": [], "of_the_future": 1}}"#,
        ] {
            let loaded: FromZygote = serde_json::from_str(text).expect("understood");
            assert_eq!(
                loaded,
                FromZygote::Loaded { entries: Vec::new(), listeners: Vec::new(), requests: Vec::new() }
            );
        }
    }

    #[test]
    fn what_the_signal_handler_sends_is_a_message() {
        let answer = crate::sys::stacks::ANSWER;
        assert_eq!(serde_json::from_slice::<FromWorker>(answer).expect("understood"), FromWorker::Stacks);
        assert_eq!(serde_json::from_slice::<FromZygote>(answer).expect("understood"), FromZygote::Stacks);
    }

    #[test]
    fn what_this_release_does_not_know_does_not_hide_what_follows() {
        let (ours, theirs): (WorkerChannel, _) = pair().expect("descriptors");
        seqpacket::send(theirs.as_fd(), br#"{"OfTheFuture": 1}"#, &[]).expect("room");
        seqpacket::send(theirs.as_fd(), br#""Ready""#, &[]).expect("room");
        assert_eq!(ours.receive().expect_err("unknown").kind(), io::ErrorKind::InvalidData);
        assert!(matches!(ours.receive(), Ok(Incoming::Message(FromWorker::Ready, _))));
    }
}
