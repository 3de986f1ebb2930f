//! Where an application puts a response that comes piece by piece, and where the connection takes it.
//!
//! The application runs ahead of its client: what the client has not taken yet waits here, in memory
//! first and then in a file without a name, so that a slow reader never occupies the application. Only
//! when the file is full too does the application wait.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::pin::Pin;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use crate::app::BodyError;
use crate::app::logvars::LogVars;

/// Bytes that wait in memory.
const IN_MEMORY: usize = 512 * 1024;
/// Bytes that wait in the file; nginx uses as many.
const IN_FILE: u64 = 1024 * 1024 * 1024;
/// Bytes read from the file at a time.
const FILE_PIECE: usize = 64 * 1024;

/// The queue between an application and its client.
#[derive(Debug, Default)]
pub(super) struct Outlet {
    state: Mutex<State>,
    /// For an application thread that waits for room.
    room: Condvar,
    /// What the application adds to the log line of the request.
    pub(super) vars: LogVars,
}

#[derive(Debug, Default)]
struct State {
    memory: VecDeque<Bytes>,
    in_memory: usize,
    overflow: Option<Overflow>,
    end: Option<End>,
    /// The client is gone.
    closed: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

/// What did not fit into memory; it follows what is there.
#[derive(Debug)]
struct Overflow {
    file: File,
    written: u64,
    read: u64,
}

/// How a response ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// As it should.
    Complete,
    /// In the middle: the client must see that.
    Broken,
}

impl Outlet {
    /// An empty one, for a request with these additions to its log line.
    pub(super) fn logging(vars: LogVars) -> Self {
        Outlet { vars, ..Outlet::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it is held.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a piece. False when the client is gone.
    pub(super) fn push(&self, piece: Bytes) -> bool {
        let mut state = self.state();
        if state.closed {
            return false;
        }
        if let Err(error) = state.push(piece) {
            log::error!("a response waits for its client, and the file for it fails: {error}");
            state.end = Some(End::Broken);
            state.closed = true;
        }
        let is_open = !state.closed;
        let reader = state.reader.take();
        drop(state);
        if let Some(reader) = reader {
            reader.wake();
        }
        is_open
    }

    /// The application has finished.
    pub(super) fn end(&self, end: End) {
        let mut state = self.state();
        state.end.get_or_insert(end);
        let reader = state.reader.take();
        drop(state);
        if let Some(reader) = reader {
            reader.wake();
        }
    }

    /// The client is gone.
    pub(super) fn closed(&self) -> bool {
        self.state().closed
    }

    /// Ready when there is room for another piece, or nobody who would take it.
    pub(super) fn poll_room(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = self.state();
        if state.has_room() {
            return Poll::Ready(());
        }
        state.writer = Some(cx.waker().clone());
        Poll::Pending
    }

    /// Waits for that, in a thread of the application's own.
    pub(super) fn wait_room(&self) {
        let state = self.state();
        drop(self.room.wait_while(state, |state| !state.has_room()).unwrap_or_else(PoisonError::into_inner));
    }
}

impl State {
    fn has_room(&self) -> bool {
        let in_file = self.overflow.as_ref().map_or(0, |overflow| overflow.written - overflow.read);
        self.closed || in_file < IN_FILE
    }

    fn push(&mut self, piece: Bytes) -> io::Result<()> {
        // A file that has been read to its end is kept for the rest of the response, from its start.
        if self.overflow.as_ref().is_none_or(|overflow| overflow.read == overflow.written)
            && self.in_memory < IN_MEMORY
        {
            self.in_memory += piece.len();
            self.memory.push_back(piece);
            return Ok(());
        }
        let overflow = match &mut self.overflow {
            Some(overflow) => overflow,
            none => none.insert(Overflow { file: tempfile::tempfile()?, written: 0, read: 0 }),
        };
        if overflow.read == overflow.written {
            overflow.file.set_len(0)?;
            (overflow.read, overflow.written) = (0, 0);
        }
        overflow.file.write_all_at(&piece, overflow.written)?;
        overflow.written += piece.len() as u64;
        Ok(())
    }

    fn pop(&mut self) -> io::Result<Option<Bytes>> {
        if let Some(piece) = self.memory.pop_front() {
            self.in_memory -= piece.len();
            return Ok(Some(piece));
        }
        let Some(overflow) = self.overflow.as_mut().filter(|overflow| overflow.read < overflow.written)
        else {
            return Ok(None);
        };
        let length = usize::try_from(overflow.written - overflow.read).unwrap_or(FILE_PIECE).min(FILE_PIECE);
        let mut piece = vec![0; length];
        overflow.file.read_exact_at(&mut piece, overflow.read)?;
        overflow.read += length as u64;
        Ok(Some(piece.into()))
    }
}

/// The connection's end of an outlet.
pub(super) struct OutletBody {
    outlet: Arc<Outlet>,
    /// Bytes that the head promises and that have not passed yet, if it promises a number.
    left: Option<u64>,
}

impl OutletBody {
    /// With `length`, the body has exactly that many bytes, or breaks.
    pub(super) fn new(outlet: Arc<Outlet>, length: Option<u64>) -> Self {
        OutletBody { outlet, left: length }
    }
}

impl Body for OutletBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let outlet = Arc::clone(&self.outlet);
        let mut state = outlet.state();
        let popped = state.pop();
        if state.has_room() {
            if let Some(writer) = state.writer.take() {
                writer.wake();
            }
            outlet.room.notify_one();
        }
        match popped {
            Err(error) => Poll::Ready(Some(Err(error.into()))),
            Ok(Some(mut piece)) => {
                if let Some(left) = &mut self.left {
                    piece.truncate(usize::try_from(*left).unwrap_or(usize::MAX));
                    *left -= piece.len() as u64;
                }
                Poll::Ready(Some(Ok(Frame::data(piece))))
            }
            Ok(None) => match state.end {
                Some(End::Complete) if self.left.is_none_or(|left| left == 0) => Poll::Ready(None),
                Some(_) => {
                    Poll::Ready(Some(Err(io::Error::other("the application's response is cut short").into())))
                }
                None => {
                    state.reader = Some(cx.waker().clone());
                    Poll::Pending
                }
            },
        }
    }

    fn size_hint(&self) -> SizeHint {
        self.left.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

impl Drop for OutletBody {
    fn drop(&mut self) {
        let mut state = self.outlet.state();
        state.closed = true;
        let writer = state.writer.take();
        state.memory.clear();
        state.overflow = None;
        drop(state);
        self.outlet.room.notify_one();
        if let Some(writer) = writer {
            writer.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn poll(body: &mut OutletBody) -> Poll<Option<Result<Bytes, String>>> {
        let polled = Pin::new(body).poll_frame(&mut Context::from_waker(Waker::noop()));
        polled.map(|frame| {
            frame.map(|frame| frame.map(|frame| frame.into_data().expect("data")).map_err(|e| e.to_string()))
        })
    }

    fn drain(body: &mut OutletBody) -> Vec<u8> {
        let mut all = Vec::new();
        while let Poll::Ready(Some(Ok(piece))) = poll(body) {
            all.extend_from_slice(&piece);
        }
        all
    }

    #[test]
    fn pieces_come_out_as_they_went_in_however_many_there_are() {
        let outlet = Arc::new(Outlet::default());
        let mut body = OutletBody::new(Arc::clone(&outlet), None);
        let mut expected = Vec::new();
        let mut taken = Vec::new();
        for round in 0..3u8 {
            for number in 0..40u8 {
                let piece = vec![round * 40 + number; 60_000];
                expected.extend_from_slice(&piece);
                assert!(outlet.push(piece.into()));
            }
            taken.extend(drain(&mut body));
        }
        assert!(taken == expected);
        assert!(poll(&mut body).is_pending());
        outlet.end(End::Complete);
        assert!(matches!(poll(&mut body), Poll::Ready(None)));
    }

    #[test]
    fn a_body_that_is_shorter_than_promised_breaks() {
        let outlet = Arc::new(Outlet::default());
        let mut body = OutletBody::new(Arc::clone(&outlet), Some(10));
        outlet.push(Bytes::from_static(b"12345"));
        outlet.end(End::Complete);
        assert_eq!(poll(&mut body), Poll::Ready(Some(Ok(Bytes::from_static(b"12345")))));
        assert!(matches!(poll(&mut body), Poll::Ready(Some(Err(_)))));
    }

    #[test]
    fn what_exceeds_the_promise_is_cut_off() {
        let outlet = Arc::new(Outlet::default());
        let mut body = OutletBody::new(Arc::clone(&outlet), Some(3));
        outlet.push(Bytes::from_static(b"12345"));
        outlet.end(End::Complete);
        assert_eq!(drain(&mut body), b"123");
    }

    #[test]
    fn an_application_hears_that_its_client_is_gone() {
        let outlet = Arc::new(Outlet::default());
        let body = OutletBody::new(Arc::clone(&outlet), None);
        assert!(outlet.push(Bytes::from_static(b"x")));
        drop(body);
        assert!(!outlet.push(Bytes::from_static(b"y")) && outlet.closed());
    }
}
