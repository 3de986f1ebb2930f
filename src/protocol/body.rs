//! Bodies on their way between hyper and the application.

use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use super::accounting::InFlight;
use super::outgoing::{self, Piece};
use super::state::ConnectionState;
use crate::app::{BodyError, ResponseBody};

/// Largest piece handed to hyper at once: it copies pieces into its write buffer, which must not
/// grow to the size of the largest response.
const PIECE: usize = 64 * 1024;

/// hyper's request body with an error type that names no library. While the client lets the
/// application wait for it, the request's slot is left to others.
#[derive(Debug)]
pub(super) struct IncomingBody {
    incoming: Incoming,
    state: Rc<ConnectionState>,
    /// What has arrived while others had the slot.
    arrived: Option<Option<Result<Frame<Bytes>, BodyError>>>,
}

impl IncomingBody {
    pub(super) fn new(incoming: Incoming, state: Rc<ConnectionState>) -> Self {
        IncomingBody { incoming, state, arrived: None }
    }
}

impl Body for IncomingBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = &mut *self;
        if this.arrived.is_none() {
            let polled = Pin::new(&mut this.incoming).poll_frame(cx);
            this.state.reading.set(polled.is_pending());
            if polled.is_pending() {
                this.state.leave_slot_to_others();
            }
            this.arrived = Some(ready!(polled).map(|frame| frame.map_err(body_error)));
        }
        ready!(this.state.claim.poll_return(cx));
        Poll::Ready(this.arrived.take().flatten())
    }

    fn is_end_stream(&self) -> bool {
        self.arrived.is_none() && self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        match self.arrived {
            // Whoever needs the length asks before the first piece.
            Some(_) => SizeHint::default(),
            None => self.incoming.size_hint(),
        }
    }
}

impl Drop for IncomingBody {
    fn drop(&mut self) {
        self.state.reading.set(false);
    }
}

fn body_error(error: hyper::Error) -> BodyError {
    let kind = match error.is_timeout() {
        true => io::ErrorKind::TimedOut,
        false => io::ErrorKind::UnexpectedEof,
    };
    io::Error::new(kind, error).into()
}

/// A response body that counts what it hands over, and ends the request when it is dropped.
pub struct CountedBody {
    inner: ResponseBody,
    request: Option<InFlight>,
}

impl CountedBody {
    pub(super) fn new(inner: ResponseBody, mut request: Option<InFlight>) -> Self {
        if let (true, Some(request)) = (is_finished(&inner), &mut request) {
            request.complete();
        }
        CountedBody { inner, request }
    }
}

fn is_finished(body: &ResponseBody) -> bool {
    match body {
        ResponseBody::Empty => true,
        ResponseBody::Full(bytes) => bytes.is_empty(),
        ResponseBody::Stream(stream) | ResponseBody::Produced(stream) => stream.is_end_stream(),
        ResponseBody::File { length, .. } => *length == 0,
    }
}

impl CountedBody {
    /// A file that goes past hyper: how much of it is out, or `None` for any other body.
    fn poll_sent(&mut self) -> Poll<Option<usize>> {
        let ResponseBody::File { file, offset, length } = &mut self.inner else { return Poll::Ready(None) };
        let Some(request) = self.request.as_mut().filter(|_| *length > outgoing::SMALL) else {
            return Poll::Ready(None);
        };
        let count = usize::try_from(*length).unwrap_or(usize::MAX);
        ready!(request.connection().outgoing.poll_sent(file, *offset, count as u64));
        *offset += count as u64;
        *length -= count as u64;
        request.sent(count);
        if *length == 0 {
            request.complete();
        }
        Poll::Ready(Some(count))
    }

    /// The next bytes of all other bodies.
    fn poll_bytes(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self;
        let frame = match &mut this.inner {
            ResponseBody::Empty => None,
            ResponseBody::Full(bytes) if bytes.is_empty() => None,
            ResponseBody::Full(bytes) => Some(Ok(Frame::data(bytes.split_to(bytes.len().min(PIECE))))),
            ResponseBody::Stream(stream) => {
                let Some(request) = &this.request else { return stream.as_mut().poll_frame(cx) };
                ready!(request.poll_slot(cx));
                let polled = stream.as_mut().poll_frame(cx);
                request.producing(polled.is_pending());
                ready!(polled)
            }
            ResponseBody::Produced(stream) => ready!(stream.as_mut().poll_frame(cx)),
            ResponseBody::File { length: 0, .. } => None,
            ResponseBody::File { file, offset, length } => {
                let count = (*length).min(PIECE as u64);
                let piece = outgoing::read(file, *offset, count as usize);
                *offset += count;
                *length -= count;
                Some(piece.map(Frame::data).map_err(BodyError::from))
            }
        };
        if let Some(request) = &mut this.request {
            let sent = frame.as_ref().and_then(|frame| frame.as_ref().ok()?.data_ref());
            request.sent(sent.map_or(0, Bytes::len));
            if frame.is_none() || (!matches!(frame, Some(Err(_))) && is_finished(&this.inner)) {
                request.complete();
            }
        }
        Poll::Ready(frame)
    }
}

impl Drop for CountedBody {
    fn drop(&mut self) {
        // A client that left within a file still got part of it.
        if let (ResponseBody::File { .. }, Some(request)) = (&self.inner, &mut self.request) {
            let sent = request.connection().outgoing.give_up();
            request.sent(sent as usize);
        }
    }
}

impl Body for CountedBody {
    type Data = Piece;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Piece>, BodyError>>> {
        let this = self.get_mut();
        if let Some(count) = ready!(this.poll_sent()) {
            return Poll::Ready(Some(Ok(Frame::data(Piece::Sent(count)))));
        }
        this.poll_bytes(cx).map_ok(|frame| frame.map_data(Piece::Bytes))
    }

    fn is_end_stream(&self) -> bool {
        is_finished(&self.inner)
    }

    fn size_hint(&self) -> SizeHint {
        match &self.inner {
            ResponseBody::Empty => SizeHint::with_exact(0),
            ResponseBody::Full(bytes) => SizeHint::with_exact(bytes.len() as u64),
            ResponseBody::Stream(stream) | ResponseBody::Produced(stream) => stream.size_hint(),
            ResponseBody::File { length, .. } => SizeHint::with_exact(*length),
        }
    }
}
