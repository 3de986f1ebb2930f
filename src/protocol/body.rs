//! Bodies on their way between hyper and the application.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use super::accounting::InFlight;
use crate::app::{BodyError, ResponseBody};

/// Largest piece handed to hyper at once: it copies pieces into its write buffer, which must not
/// grow to the size of the largest response.
const PIECE: usize = 64 * 1024;

/// hyper's request body with an error type that names no library.
#[derive(Debug)]
pub(super) struct IncomingBody(pub(super) Incoming);

impl Body for IncomingBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let frame = ready!(Pin::new(&mut self.0).poll_frame(cx));
        Poll::Ready(frame.map(|frame| {
            frame.map_err(|error| {
                let kind = match error.is_timeout() {
                    true => io::ErrorKind::TimedOut,
                    false => io::ErrorKind::UnexpectedEof,
                };
                io::Error::new(kind, error).into()
            })
        }))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.0.size_hint()
    }
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
        ResponseBody::Stream(stream) => stream.is_end_stream(),
    }
}

impl Body for CountedBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        let frame = match &mut this.inner {
            ResponseBody::Empty => None,
            ResponseBody::Full(bytes) if bytes.is_empty() => None,
            ResponseBody::Full(bytes) => Some(Ok(Frame::data(bytes.split_to(bytes.len().min(PIECE))))),
            ResponseBody::Stream(stream) => ready!(stream.as_mut().poll_frame(cx)),
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

    fn is_end_stream(&self) -> bool {
        is_finished(&self.inner)
    }

    fn size_hint(&self) -> SizeHint {
        match &self.inner {
            ResponseBody::Empty => SizeHint::with_exact(0),
            ResponseBody::Full(bytes) => SizeHint::with_exact(bytes.len() as u64),
            ResponseBody::Stream(stream) => stream.size_hint(),
        }
    }
}
