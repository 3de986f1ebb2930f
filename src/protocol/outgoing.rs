//! A file on its way to the client, past hyper.
//!
//! hyper takes bodies as bytes in memory. A large file never becomes any: when hyper asks its body
//! for the first piece, the body leaves the file with the connection and has nothing yet. hyper then
//! flushes what it has, the response head, and with the flush [`Io`](super::io::Io) sends the file.
//! Only when the last byte is in the socket the body says so, with one [`Piece`] that counts as the
//! whole file and has no bytes. Until then hyper is within that body, so it can put nothing between
//! head and file, and nothing of the next answer before the end of the file. A file that fails ends
//! the connection, as any failed write does; whatever goes wrong, no byte is made up for one that
//! is missing.

use std::cell::{RefCell, RefMut};
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use http::StatusCode;
use http::header::{self, HeaderValue};
use http::response::Parts;

use super::io::Scratch;
use super::stream::Stream;
use crate::sys::beneath;
use crate::sys::sendfile::{Sent, is_of_the_file};

/// Files up to this length are read at once and leave together with the head: that costs less than
/// two writes and one more look at the connection. At 64 KiB, sendfile(2) takes a fifth less.
pub(super) const SMALL: u64 = 32 * 1024;

/// Bytes of a file sent before other connections of the worker get their turn.
pub(super) const TURN: u64 = 1024 * 1024;

/// The file that a connection is sending, if any.
#[derive(Debug, Default)]
pub(crate) struct Outgoing(RefCell<Option<Transfer>>);

impl Outgoing {
    /// For the body: ready when all of the file is out. The first call begins it.
    pub(super) fn poll_sent(&self, file: &Arc<File>, offset: u64, length: u64) -> Poll<()> {
        let mut transfer = self.0.borrow_mut();
        match &*transfer {
            None => {
                *transfer =
                    Some(Transfer { file: Arc::clone(file), offset, left: length, sent: 0, copied: false })
            }
            Some(Transfer { left: 0, .. }) => {
                *transfer = None;
                return Poll::Ready(());
            }
            Some(_) => {}
        }
        // Whoever sends the last byte wakes the connection.
        Poll::Pending
    }

    /// For the body: it ends, possibly before the file does. Tells how many bytes are out of which
    /// the body has not heard.
    pub(super) fn give_up(&self) -> u64 {
        self.0.take().map_or(0, |transfer| transfer.sent)
    }

    /// For the socket: what has to follow the bytes that hyper has written so far.
    pub(super) fn due(&self) -> Option<RefMut<'_, Transfer>> {
        let transfer = RefMut::filter_map(self.0.borrow_mut(), Option::as_mut).ok()?;
        (transfer.left > 0).then_some(transfer)
    }
}

/// What is left of a file to send.
#[derive(Debug)]
pub(super) struct Transfer {
    file: Arc<File>,
    offset: u64,
    left: u64,
    sent: u64,
    /// sendfile(2) has turned out not to work for it.
    copied: bool,
}

impl Transfer {
    /// Sends at most `turn` bytes.
    ///
    /// # Errors
    /// When the client has left, and when the file cannot be read or has become shorter, which the
    /// log tells.
    pub(super) fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        stream: &mut Stream,
        scratch: &Scratch,
        turn: u64,
    ) -> Poll<io::Result<usize>> {
        let count = self.left.min(turn) as usize;
        let sent = match self.copied {
            true => ready!(self.poll_copy(cx, stream, scratch, count))?,
            false => match ready!(stream.poll_sendfile(cx, self.file.as_fd(), self.offset, count)) {
                Ok(Sent::Bytes(sent)) => sent,
                Ok(Sent::EndOfFile) => return Poll::Ready(Err(failed(&self.file, became_shorter()))),
                Ok(Sent::Unsupported) => {
                    self.copied = true;
                    ready!(self.poll_copy(cx, stream, scratch, count))?
                }
                Err(error) if is_of_the_file(&error) => return Poll::Ready(Err(failed(&self.file, error))),
                Err(error) => return Poll::Ready(Err(error)),
            },
        };
        self.offset += sent as u64;
        self.left -= sent as u64;
        self.sent += sent as u64;
        Poll::Ready(Ok(sent))
    }

    /// Sends through memory. What the client does not take is read again.
    fn poll_copy(
        &self,
        cx: &mut Context<'_>,
        stream: &mut Stream,
        scratch: &Scratch,
        count: usize,
    ) -> Poll<io::Result<usize>> {
        ready!(stream.poll_writable(cx))?;
        let mut scratch = scratch.borrow();
        let count = count.min(scratch.len());
        let piece = &mut scratch[..count];
        match self.file.read_at(piece, self.offset) {
            Ok(0) => Poll::Ready(Err(failed(&self.file, became_shorter()))),
            Ok(count) => stream.poll_write(cx, &piece[..count]),
            Err(error) => Poll::Ready(Err(failed(&self.file, error))),
        }
    }

    /// Nothing is left.
    pub(super) fn is_done(&self) -> bool {
        self.left == 0
    }
}

/// A small file, as bytes.
///
/// # Errors
/// When it cannot be read or has become shorter; the log tells it.
pub(super) fn read(file: &File, offset: u64, length: usize) -> io::Result<Bytes> {
    let mut bytes = vec![0; length];
    match file.read_exact_at(&mut bytes, offset) {
        Ok(()) => Ok(Bytes::from(bytes)),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Err(failed(file, became_shorter())),
        Err(error) => Err(failed(file, error)),
    }
}

fn became_shorter() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "it became shorter while it was sent")
}

fn failed(file: &File, error: io::Error) -> io::Error {
    let name = beneath::path_of(file).map_or_else(|_| "file".to_owned(), |path| path.display().to_string());
    log::warn!("{name}: {error}; the answer ends early, its connection is closed");
    error
}

/// Frames an answer whose body is a file: by its length, whatever the application said.
pub(super) fn frame(answer: &mut Parts, length: u64) {
    if !matches!(answer.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED) {
        answer.headers.remove(header::TRANSFER_ENCODING);
        answer.headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    }
}

/// What hyper gets of a response body.
#[derive(Debug)]
pub enum Piece {
    /// Bytes to write.
    Bytes(Bytes),
    /// So many bytes that are in the socket already: to be counted, not to be written.
    ///
    /// hyper takes the length off what `Content-Length` promises; then it copies chunks into its
    /// write buffer until it meets an empty one. This is the first, against the letter of [`Buf`],
    /// which wants a chunk for every length. The alternative is to hand over as many bytes as the
    /// file has for hyper to copy and the socket to throw away.
    Sent(usize),
}

impl Buf for Piece {
    fn remaining(&self) -> usize {
        match self {
            Piece::Bytes(bytes) => bytes.len(),
            Piece::Sent(count) => *count,
        }
    }

    fn chunk(&self) -> &[u8] {
        match self {
            Piece::Bytes(bytes) => bytes,
            Piece::Sent(_) => &[],
        }
    }

    fn advance(&mut self, count: usize) {
        match self {
            Piece::Bytes(bytes) => bytes.advance(count),
            Piece::Sent(left) => *left -= count,
        }
    }
}
