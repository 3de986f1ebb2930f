//! Passing open connections from a worker that leaves, or has too many, to another one.
//!
//! All workers of all generations share one `SOCK_SEQPACKET` queue, made by the first master and kept
//! across re-execs. A worker puts a connection that is between two requests into it: the
//! socket itself (`SCM_RIGHTS`, unix(7)) and the bytes already read from it. Nothing runs between the
//! last poll of the connection and the message, so no byte is lost; what the client sends meanwhile
//! waits in the socket and travels with it. The client sees no close and makes no new connection.
//! A message that nobody has read yet survives the worker that sent it.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;
use std::net::TcpStream;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::io::unix::AsyncFd;

use crate::app::{ConnectionInfo, Peer};
use crate::protocol::stream::Stream;
use crate::sys::{seqpacket, watch};

/// Largest message; more unread bytes than this stay where they are until they have been served.
const MESSAGE_LIMIT: usize = 96 * 1024;
/// Between two tries when the kernel can take no descriptor for a reason it does not tell the end of.
const PAUSE: Duration = Duration::from_millis(20);
/// Version of [`Header`]: sender and receiver may be of different releases.
const VERSION: u32 = 1;

thread_local! {
    /// Room for a message.
    static BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// What travels in front of the unread bytes.
#[derive(Debug, Serialize, Deserialize)]
struct Header {
    version: u32,
    /// The listener the connection came in on, as configured.
    listener: String,
    /// See [`Parcel`]. Releases that did not tell it passed on kept connections for the most part.
    #[serde(default = "yes")]
    known: bool,
}

/// A connection to serve: new, or on its way between two workers.
#[derive(Debug)]
pub struct Parcel {
    /// The socket.
    pub stream: Stream,
    /// Bytes read from it that belong to the next request.
    pub unread: Bytes,
    /// It has had an answer: what the client thinks about is its next request, for which it may take
    /// longer than for its first.
    pub known: bool,
    /// Whose it is.
    pub info: ConnectionInfo,
}

fn yes() -> bool {
    true
}

/// The end that connections are put into.
#[derive(Debug)]
pub struct Giver {
    queue: OwnedFd,
}

impl Giver {
    /// Wraps the descriptor.
    pub fn new(queue: OwnedFd) -> Self {
        Giver { queue }
    }

    /// Gives a connection away.
    ///
    /// # Errors
    /// `WouldBlock` when the queue is full, `InvalidInput` when there are too many unread bytes. The
    /// parcel is still whole then.
    pub fn give(&self, parcel: &Parcel) -> io::Result<()> {
        let message = encode(&parcel.info.listener, parcel.known, &parcel.unread)?;
        seqpacket::send(self.queue.as_fd(), &message, &[parcel.stream.as_fd()?])
    }

    /// Gives connections away in their order, as the queue has room, until none is left.
    pub async fn give_patiently(&self, waiting: &RefCell<VecDeque<Parcel>>) {
        while let Err(error) = self.give_all(waiting).await {
            // ETOOMANYREFS or no memory: the kernel does not tell when that is over.
            log::debug!("{} connections wait to be passed on: {error}", waiting.borrow().len());
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn give_all(&self, waiting: &RefCell<VecDeque<Parcel>>) -> io::Result<()> {
        // Registered only now: a queue watched all the time would wake this worker whenever another
        // one takes something out.
        let queue: AsyncFd<OwnedFd> = watch::writable(self.queue.try_clone()?)?;
        while !waiting.borrow().is_empty() {
            let mut ready = queue.writable().await?;
            let give = || waiting.borrow().front().map_or(Ok(()), |parcel| self.give(parcel));
            if let Ok(given) = ready.try_io(|_| give()) {
                given?;
                waiting.borrow_mut().pop_front();
            }
        }
        Ok(())
    }
}

/// Gives away a connection of which nothing has been read.
///
/// # Errors
/// `WouldBlock` when the queue is full.
pub(super) fn give_unread(queue: BorrowedFd<'_>, listener: &str, socket: BorrowedFd<'_>) -> io::Result<()> {
    // Its client has just sent something: which time limit there was no longer matters.
    seqpacket::send(queue, &encode(listener, true, &[])?, &[socket])
}

/// Takes one connection out of the queue, if there is one.
///
/// # Errors
/// `WouldBlock` when the queue is empty, `InvalidData` for a message of another release that this
/// one cannot read; its connection is closed then.
pub fn take(queue: BorrowedFd<'_>) -> io::Result<Parcel> {
    BUFFER.with_borrow_mut(|buffer| {
        buffer.resize(MESSAGE_LIMIT, 0);
        let received = seqpacket::recv(queue, buffer)?;
        let (Header { listener, known, .. }, unread) = decode(&buffer[..received.len])?;
        let (info, unread) = (Arc::from(listener), Bytes::copy_from_slice(unread));
        let socket = received.fds.into_iter().next();
        let socket = socket.ok_or_else(|| invalid("a connection without its socket"))?;
        let (stream, peer) = open(socket)?;
        Ok(Parcel { stream, unread, known, info: ConnectionInfo::new(peer, info) })
    })
}

/// The peer is asked for again: it is not worth trusting a message with.
fn open(socket: OwnedFd) -> io::Result<(Stream, Peer)> {
    let tcp = TcpStream::from(socket);
    let peer = match tcp.peer_addr() {
        Ok(address) => Peer::Tcp(address),
        // Not an address of TCP: the other kind of stream there is.
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => Peer::Unix,
        Err(error) => return Err(error),
    };
    Ok((Stream::new(tcp.into()), peer))
}

/// Length of the header (little endian), header, unread bytes.
fn encode(listener: &str, known: bool, unread: &[u8]) -> io::Result<Vec<u8>> {
    let header = Header { version: VERSION, listener: listener.to_owned(), known };
    let header = serde_json::to_vec(&header)?;
    if 4 + header.len() + unread.len() > MESSAGE_LIMIT {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "too many unread bytes to pass on"));
    }
    let length = header.len() as u32;
    Ok([&length.to_le_bytes(), header.as_slice(), unread].concat())
}

fn decode(message: &[u8]) -> io::Result<(Header, &[u8])> {
    let (length, rest) =
        message.split_first_chunk::<4>().ok_or_else(|| invalid("a message without a header"))?;
    let length = u32::from_le_bytes(*length) as usize;
    let (header, unread) =
        rest.split_at_checked(length).ok_or_else(|| invalid("a header that is cut short"))?;
    let header: Header = serde_json::from_slice(header)?;
    if header.version != VERSION {
        return Err(invalid("a message of another release"));
    }
    Ok((header, unread))
}

fn invalid(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("hand-over: {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_holds_listener_and_unread_bytes() {
        let message = encode("[::1]:80", false, b"GET /ha").expect("it is short");
        let (header, unread) = decode(&message).expect("just encoded");
        assert_eq!((header.listener.as_str(), header.known, unread), ("[::1]:80", false, &b"GET /ha"[..]));
        let message = encode("@a", true, b"").expect("short");
        let (header, unread) = decode(&message).expect("just encoded");
        assert_eq!((header.known, unread), (true, &b""[..]));
    }

    #[test]
    fn a_message_of_before_is_of_a_kept_connection() {
        let header = br#"{"version":1,"listener":":80"}"#;
        let message = [&(header.len() as u32).to_le_bytes()[..], header].concat();
        assert!(decode(&message).expect("it is complete").0.known);
    }

    #[test]
    fn damaged_messages_are_refused() {
        let message = encode(":80", true, b"").expect("it is short");
        let other = [&2_u32.to_le_bytes()[..], b"{}"].concat();
        for damaged in [&message[..0], &message[..3], &message[..message.len() - 1], &other] {
            assert_eq!(
                decode(damaged).expect_err("damaged").kind(),
                io::ErrorKind::InvalidData,
                "{damaged:?}"
            );
        }
    }

    #[test]
    fn too_many_unread_bytes_stay() {
        let error = encode(":80", true, &vec![0; MESSAGE_LIMIT]).expect_err("too long");
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    }
}
