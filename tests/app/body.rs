//! A response body that takes its time.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use appserver::app::BodyError;
use bytes::Bytes;
use http_body::{Body, Frame};
use tokio::time::{Sleep, sleep};

/// What the last piece says, so that a reader can tell a whole body from a cut one.
const END: &[u8] = b"end\n";

/// Pieces sent one by one.
pub struct Pieces {
    piece: Bytes,
    left: u64,
    pause: Duration,
    timer: Option<Pin<Box<Sleep>>>,
    ended: bool,
}

/// `count` pieces of `size` bytes, each `pause` after the one before, then a line `end`.
pub fn pieces(count: u64, size: u64, pause: Duration) -> Pieces {
    let mut piece = vec![b'x'; usize::try_from(size).unwrap_or(0).max(1)];
    if let Some(last) = piece.last_mut() {
        *last = b'\n';
    }
    Pieces { piece: piece.into(), left: count, pause, timer: None, ended: false }
}

impl Body for Pieces {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        if this.left == 0 {
            let last = (!std::mem::replace(&mut this.ended, true)).then(|| Bytes::from_static(END));
            return Poll::Ready(last.map(|data| Ok(Frame::data(data))));
        }
        if !this.pause.is_zero() {
            let timer = this.timer.get_or_insert_with(|| Box::pin(sleep(this.pause)));
            ready!(timer.as_mut().poll(cx));
            this.timer = None;
        }
        this.left -= 1;
        Poll::Ready(Some(Ok(Frame::data(this.piece.clone()))))
    }
}
