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
/// Bytes handed over at a time: they are copied into a buffer that must not grow to their size.
pub(super) const PIECE: usize = 64 * 1024;

/// The queue between an application and its client.
#[derive(Debug, Default)]
pub(super) struct Outlet {
    promised: Option<u64>,
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
    /// Bytes that the head promises and that have not come yet, if it promises a number.
    left: Option<u64>,
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

/// What became of a piece.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pushed {
    /// It will be sent.
    Taken,
    /// It, or the end of it, is more than the head promises.
    Excess,
    /// The client is gone.
    Gone,
}

impl Outlet {
    /// With `promised`, a response of that many bytes; `vars` are the additions to its log line.
    pub(super) fn new(promised: Option<u64>, vars: LogVars) -> Self {
        let state = Mutex::new(State { left: promised, ..State::default() });
        Outlet { promised, state, room: Condvar::new(), vars }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it is held.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a piece.
    pub(super) fn push(&self, mut piece: Bytes) -> Pushed {
        let mut state = self.state();
        if state.closed {
            return Pushed::Gone;
        }
        let mut pushed = Pushed::Taken;
        if let Some(left) = &mut state.left {
            let fits = piece.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
            *left -= fits as u64;
            if fits < piece.len() {
                piece.truncate(fits);
                pushed = Pushed::Excess;
            }
        }
        if !piece.is_empty()
            && let Err(error) = state.push(piece)
        {
            log::error!(
                "a response waits for its client, and the file for it in {} (TMPDIR) fails: {error}",
                std::env::temp_dir().display()
            );
            state.end = Some(End::Broken);
            state.closed = true;
            pushed = Pushed::Gone;
        }
        let reader = state.reader.take();
        drop(state);
        if let Some(reader) = reader {
            reader.wake();
        }
        pushed
    }

    /// The application has finished. What it has promised and not given breaks the response.
    pub(super) fn end(&self, end: End) {
        let mut state = self.state();
        let missing = state.left.filter(|&left| left > 0 && end == End::Complete && !state.closed);
        if let (Some(missing), Some(promised)) = (missing, self.promised) {
            log::error!(
                "the application promised a body of {promised} bytes and gave {}; the client is cut off",
                promised - missing
            );
        }
        state.end.get_or_insert(if missing.is_some() { End::Broken } else { end });
        let reader = state.reader.take();
        drop(state);
        if let Some(reader) = reader {
            reader.wake();
        }
    }

    /// Bytes that the head promises; zero if it does not.
    pub(super) fn promised(&self) -> u64 {
        self.promised.unwrap_or_default()
    }

    /// The application has to wait.
    pub(super) fn is_full(&self) -> bool {
        !self.state().has_room()
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
        if let Some(front) = self.memory.front_mut() {
            let piece = front.split_to(front.len().min(PIECE));
            if front.is_empty() {
                self.memory.pop_front();
            }
            self.in_memory -= piece.len();
            return Ok(Some(piece));
        }
        let Some(overflow) = self.overflow.as_mut().filter(|overflow| overflow.read < overflow.written)
        else {
            return Ok(None);
        };
        let length = usize::try_from(overflow.written - overflow.read).unwrap_or(PIECE).min(PIECE);
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
    /// The end is broken; what came before it is being sent.
    breaking: bool,
}

impl OutletBody {
    /// `length` is what the head promises.
    pub(super) fn new(outlet: Arc<Outlet>, length: Option<u64>) -> Self {
        OutletBody { outlet, left: length, breaking: false }
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
            Ok(Some(piece)) => {
                if let Some(left) = &mut self.left {
                    *left -= piece.len() as u64;
                }
                Poll::Ready(Some(Ok(Frame::data(piece))))
            }
            Ok(None) => match state.end {
                Some(End::Complete) => Poll::Ready(None),
                Some(End::Broken) if self.breaking => {
                    Poll::Ready(Some(Err(io::Error::other("the application's response is cut short").into())))
                }
                Some(End::Broken) => {
                    // An error throws away what has not been written; waiting once has it written first.
                    self.breaking = true;
                    cx.waker().wake_by_ref();
                    Poll::Pending
                }
                None => {
                    state.reader = Some(cx.waker().clone());
                    Poll::Pending
                }
            },
        }
    }

    fn is_end_stream(&self) -> bool {
        self.left == Some(0)
    }

    fn size_hint(&self) -> SizeHint {
        self.left.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

impl Drop for OutletBody {
    fn drop(&mut self) {
        let mut state = self.outlet.state();
        // With all that was promised in the client's hands, the application may go on to its end.
        state.closed = self.left != Some(0);
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
                assert_eq!(outlet.push(piece.into()), Pushed::Taken);
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
        let outlet = Arc::new(Outlet::new(Some(10), LogVars::default()));
        let mut body = OutletBody::new(Arc::clone(&outlet), Some(10));
        outlet.push(Bytes::from_static(b"12345"));
        outlet.end(End::Complete);
        assert_eq!(poll(&mut body), Poll::Ready(Some(Ok(Bytes::from_static(b"12345")))));
        assert!(poll(&mut body).is_pending(), "what was there is written first");
        assert!(matches!(poll(&mut body), Poll::Ready(Some(Err(_)))));
    }

    #[test]
    fn what_exceeds_the_promise_is_cut_off() {
        let outlet = Arc::new(Outlet::new(Some(3), LogVars::default()));
        let mut body = OutletBody::new(Arc::clone(&outlet), Some(3));
        assert_eq!(outlet.push(Bytes::from_static(b"12345")), Pushed::Excess);
        assert_eq!(outlet.push(Bytes::from_static(b"6")), Pushed::Excess);
        outlet.end(End::Complete);
        assert_eq!(drain(&mut body), b"123");
    }

    #[test]
    fn an_application_may_go_on_when_its_client_has_everything() {
        let outlet = Arc::new(Outlet::new(Some(3), LogVars::default()));
        let mut body = OutletBody::new(Arc::clone(&outlet), Some(3));
        assert_eq!(outlet.push(Bytes::from_static(b"123")), Pushed::Taken);
        assert_eq!(drain(&mut body), b"123");
        assert!(body.is_end_stream());
        drop(body);
        assert!(!outlet.closed());
    }

    #[test]
    fn an_application_hears_that_its_client_is_gone() {
        let outlet = Arc::new(Outlet::default());
        let body = OutletBody::new(Arc::clone(&outlet), None);
        assert_eq!(outlet.push(Bytes::from_static(b"x")), Pushed::Taken);
        drop(body);
        assert_eq!(outlet.push(Bytes::from_static(b"y")), Pushed::Gone);
        assert!(outlet.closed());
    }
}
