//! The socket as hyper sees it: every byte read goes through the gate first.

use std::cell::{RefCell, RefMut};
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use hyper::rt::ReadBufCursor;
use tokio::io::ReadBuf;

use super::accounting::Accounting;
use super::gate::Gate;
use super::outgoing;
use super::state::ConnectionState;
use super::stream::Stream;

/// One read buffer for all connections of a worker.
///
/// hyper lends out uninitialised memory, into which only unsafe code may read. Reading here and
/// copying what passes the gate costs less than a nanosecond per 16 bytes, and a connection that
/// waits holds no buffer of its own.
#[derive(Debug, Clone, Default)]
pub struct Scratch(Rc<RefCell<Vec<u8>>>);

impl Scratch {
    /// Bytes read at most at once.
    pub const SIZE: usize = 64 * 1024;

    pub(crate) fn borrow(&self) -> RefMut<'_, Vec<u8>> {
        let mut buffer = self.0.borrow_mut();
        if buffer.is_empty() {
            // Not before: a worker without connections has no use for it.
            buffer.resize(Self::SIZE, 0);
        }
        buffer
    }
}

/// Socket, gate, and the figures they keep.
#[derive(Debug)]
pub struct Io {
    stream: Stream,
    /// Bytes that another worker had read already; they come before those of the socket.
    replay: Bytes,
    gate: Gate,
    scratch: Scratch,
    state: Rc<ConnectionState>,
    accounting: Rc<Accounting>,
}

impl Io {
    /// Puts `gate` in front of `stream`.
    pub(crate) fn new(
        stream: Stream,
        replay: Bytes,
        gate: Gate,
        scratch: Scratch,
        state: Rc<ConnectionState>,
        accounting: Rc<Accounting>,
    ) -> Self {
        Io { stream, replay, gate, scratch, state, accounting }
    }

    /// The bare socket, and what was to be replayed and has not been.
    pub(crate) fn into_parts(self) -> (Stream, Bytes) {
        (self.stream, self.replay)
    }

    /// Shows `bytes` to the gate, hands on what passes. False when nothing did.
    fn deliver(gate: &mut Gate, state: &ConnectionState, bytes: &[u8], buf: &mut ReadBufCursor<'_>) -> bool {
        let verdict = gate.advance(bytes);
        state.received.set(state.received.get() + bytes.len() as u64);
        state.heads.set(gate.heads());
        state.in_head.set(gate.in_head());
        state.in_body.set(gate.in_body());
        state.last_request.set(gate.last_request());
        if let Some(refusal) = verdict.refusal {
            state.refuse(refusal, gate.in_body());
        }
        buf.put_slice(&bytes[..verdict.pass]);
        verdict.pass > 0
    }

    /// What hyper is told instead of bytes once the client has been refused.
    fn refused(state: &ConnectionState) -> Poll<io::Result<()>> {
        if let Some(refusal) = state.refused_in_body() {
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, refusal.reason)));
        }
        // Nothing will ever arrive, and no waker is kept for it: hyper finishes the answers that
        // are due, then the connection is taken away from it.
        Poll::Pending
    }

    fn written(&self, result: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        self.state.write_blocked.set(result.is_pending());
        if result.is_pending() {
            self.state.leave_slot_to_others();
        }
        let count = ready!(result)?;
        self.state.sent.set(self.state.sent.get() + count as u64);
        self.accounting.sent(count as u64);
        Poll::Ready(Ok(count))
    }
}

impl hyper::rt::Read for Io {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut buf: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.state.refused.get().is_some() {
            return Self::refused(&this.state);
        }
        if this.replay.has_remaining() {
            let next = this.replay.split_to(this.replay.len().min(buf.remaining()));
            return match Self::deliver(&mut this.gate, &this.state, &next, &mut buf) {
                true => Poll::Ready(Ok(())),
                false => Self::refused(&this.state),
            };
        }
        let mut scratch = this.scratch.borrow();
        let room = buf.remaining().min(scratch.len());
        let mut filled = ReadBuf::new(&mut scratch[..room]);
        let result = this.stream.poll_read(cx, &mut filled);
        this.state.read_blocked.set(result.is_pending());
        if result.is_pending() {
            this.state.leave_slot_to_others();
        }
        ready!(result)?;
        if filled.filled().is_empty() {
            this.state.end_of_input.set(true);
            return Poll::Ready(Ok(()));
        }
        // Zero bytes would mean the end of input.
        match Self::deliver(&mut this.gate, &this.state, filled.filled(), &mut buf) {
            true => Poll::Ready(Ok(())),
            false => Self::refused(&this.state),
        }
    }
}

impl hyper::rt::Write for Io {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let result = this.stream.poll_write(cx, bytes);
        this.written(result)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let result = this.stream.poll_write_vectored(cx, bytes);
        this.written(result)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        // Sockets have no user-space buffer. But hyper flushes when it has written all it has.
        let Some(mut file) = this.state.outgoing.due() else { return Poll::Ready(Ok(())) };
        let mut turn = outgoing::TURN;
        while !file.is_done() {
            if turn == 0 {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            let polled = file.poll_send(cx, &mut this.stream, &this.scratch, turn);
            turn -= ready!(this.written(polled))? as u64;
        }
        drop(file);
        // For the body, which has been waiting for this.
        this.state.wake();
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.stream.shut_down())
    }
}
