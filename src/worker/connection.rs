//! One client connection as a value: polls hyper, and takes over where hyper has to stop.
//!
//! hyper drives the requests. This future decides about the connection: when it is idle and no
//! longer wanted, when its client is refused, and how it ends without losing the last answer.

use std::future::Future;
use std::os::fd::AsRawFd;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use bytes::{Buf, Bytes};
use hyper::server::conn::http1;
use tokio::io::ReadBuf;

use super::connections::ConnectionSet;
use super::handover::Parcel;
use super::relief::Place;
use crate::app::ConnectionInfo;
use crate::protocol::http::{Service, error_bytes};
use crate::protocol::io::Io;
use crate::protocol::state::{ConnectionState, Order};
use crate::protocol::stream::Stream;
use crate::sys::stray;

#[cfg(test)]
mod tests;

/// Bytes read and thrown away after the last answer, before the client is cut off.
const LINGER_BYTES: usize = 32 * 1024 * 1024;

/// A client connection from accept to close. It is done when the future is.
pub struct Connection {
    /// While requests are served.
    http: Option<http1::Connection<Io, Service>>,
    /// After that, unless the connection can simply be dropped.
    closing: Option<Closing>,
    info: Rc<ConnectionInfo>,
    state: Rc<ConnectionState>,
    set: Rc<ConnectionSet>,
    index: usize,
    /// How others may take it while this worker is stuck.
    place: Option<Arc<Place>>,
}

/// What follows hyper on a connection.
enum Next {
    /// Nothing: drop it.
    Drop,
    /// Wait for the client to close, so that it gets to read its last answer.
    Linger,
    /// The same, with a last answer from us.
    Answer(Bytes),
    /// Let another worker go on with it.
    HandOver,
}

impl Connection {
    /// Serves it. Bytes that another worker has read are read again.
    pub fn new(set: &Rc<ConnectionSet>, parcel: Parcel) -> Self {
        let Parcel { stream, unread: replay, known, info } = parcel;
        let (info, unread) = (Rc::new(info), replay.is_empty());
        let state = Rc::new(ConnectionState::default());
        state.known.set(known);
        let index = set.insert(Rc::clone(&state), Instant::now());
        let place = set.relief().zip(stream.as_fd().ok()).map(|(relief, socket)| {
            relief.enter(index, socket.as_raw_fd(), Arc::clone(&info.listener), unread)
        });
        let http = set.front().serve(stream, replay, Rc::clone(&info), Rc::clone(&state));
        Connection { http: Some(http), closing: None, info, state, set: Rc::clone(set), index, place }
    }

    /// Takes the socket back, with the bytes that were read from it and not answered, to serve it
    /// elsewhere. Only between requests: `None` while one is in flight or the client was refused.
    fn hand_over(&mut self) -> Option<(Stream, Bytes)> {
        if !self.movable() {
            return None;
        }
        let parts = self.http.take()?.into_parts();
        let (stream, replay) = parts.io.into_parts();
        let unread = match replay.is_empty() {
            true => parts.read_buf,
            false => [parts.read_buf, replay].concat().into(),
        };
        Some((stream, unread))
    }

    /// True between two requests of a client that is still welcome; a half-read head moves along.
    fn movable(&self) -> bool {
        let state = &self.state;
        let between = state.all_answered() && !state.in_body.get() && !state.lingering.get();
        between && state.refused.get().is_none() && !state.end_of_input.get()
    }

    /// True while another worker could serve what comes next without being told anything.
    fn rests(&self) -> bool {
        self.closing.is_none() && self.movable() && !self.state.in_head.get()
    }

    /// Polls hyper. Ready when hyper is done with the connection, or has to be.
    fn poll_http(&mut self, cx: &mut Context<'_>) -> Poll<Next> {
        let Some(http) = &mut self.http else { return Poll::Ready(Next::Drop) };
        if let Poll::Ready(result) = http.poll_without_shutdown(cx) {
            if let Err(error) = &result {
                log::debug!("connection of {}: {error}", self.info.peer);
            }
            // A client that announced its last request sends nothing that could reset the
            // connection under its answer.
            let clean =
                self.state.last_request.get() && !self.state.in_head.get() && !self.state.in_body.get();
            // Where a child of the application may hold the socket, only a shutdown ends it.
            let drop = (self.state.end_of_input.get() || (clean && result.is_ok())) && !stray::made();
            return Poll::Ready(if drop { Next::Drop } else { Next::Linger });
        }
        let order = self.state.order.take();
        match order {
            Some(Order::Evict) if self.movable() => return Poll::Ready(Next::HandOver),
            Some(Order::Abort | Order::Evict) => return Poll::Ready(Next::Drop),
            Some(Order::CloseIdle | Order::HandOver) | None => {}
        }
        if let Some(refusal) = self.state.refused_head()
            && self.state.all_answered()
        {
            log::info!("{} refused with {}: {}", self.info.peer, refusal.status, refusal.reason);
            return Poll::Ready(Next::Answer(error_bytes(refusal)));
        }
        let silent = self.state.silent();
        let unwanted = self.set.stopping() && !(silent && self.set.hears_out());
        if (order == Some(Order::CloseIdle) || unwanted) && self.state.idle() {
            // Without an answer in flight there is nothing to protect.
            return Poll::Ready(if silent { Next::Drop } else { Next::Linger });
        }
        let goes = order == Some(Order::HandOver) && self.set.surplus() > 0;
        if (goes || self.set.hands_over()) && self.movable() {
            return Poll::Ready(Next::HandOver);
        }
        if goes {
            self.state.order.set(order);
        }
        Poll::Pending
    }
}

impl Future for Connection {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        let Some(place) = &this.place else { return this.advance(cx) };
        if !place.claim() {
            // Another worker serves it by now. Closing our descriptor says nothing to the client.
            return Poll::Ready(());
        }
        let polled = this.advance(cx);
        if let Some(relief) = this.set.relief() {
            relief.request_took(this.set.front().accounting().take_last());
        }
        if let Some(place) = &this.place
            && polled.is_pending()
            && this.rests()
        {
            place.rest();
        }
        polled
    }
}

impl Connection {
    fn advance(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let this = self;
        if let Some(relief) = this.set.relief() {
            relief.turn();
        }
        this.set.disturb();
        this.state.register(cx);
        if this.closing.is_none() {
            let next = ready!(this.poll_http(cx));
            if matches!(next, Next::HandOver)
                && let Some((stream, unread)) = this.hand_over()
            {
                let info = ConnectionInfo::new(this.info.peer.clone(), Arc::clone(&this.info.listener));
                let known = !this.state.silent();
                this.set.give(Parcel { stream, unread, known, info });
                return Poll::Ready(());
            }
            let http = this.http.take();
            let (answer, http) = match (next, http) {
                (Next::Drop | Next::HandOver, _) | (_, None) => return Poll::Ready(()),
                (Next::Linger, Some(http)) => (Bytes::new(), http),
                (Next::Answer(answer), Some(http)) => (answer, http),
            };
            this.state.lingering.set(true);
            let (stream, _) = http.into_parts().io.into_parts();
            this.closing = Some(Closing { stream, answer, shut_down: false, discarded: 0 });
        }
        if matches!(this.state.order.take(), Some(Order::Abort | Order::Evict)) {
            return Poll::Ready(());
        }
        let Some(closing) = &mut this.closing else { return Poll::Ready(()) };
        closing.poll(cx, &this.set, &this.state)
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        // The fields, and with them the socket, are dropped after this.
        if let (Some(_), Some(relief)) = (&self.place, self.set.relief()) {
            relief.leave(self.index);
        }
        self.set.remove(self.index);
    }
}

/// The end of a connection on which the client may still be sending.
///
/// Closing a socket with unread input resets the connection, and the reset may overtake the last
/// answer. So the answer is sent, our side is shut down, and input is read and thrown away until
/// the client closes too (RFC 9112 §9.6), within a limit of bytes here and of time in the sweeper.
struct Closing {
    stream: Stream,
    answer: Bytes,
    shut_down: bool,
    discarded: usize,
}

impl Closing {
    fn poll(&mut self, cx: &mut Context<'_>, set: &ConnectionSet, state: &ConnectionState) -> Poll<()> {
        while self.answer.has_remaining() {
            match ready!(self.stream.poll_write(cx, &self.answer)) {
                Ok(0) | Err(_) => return Poll::Ready(()),
                Ok(count) => {
                    self.answer.advance(count);
                    set.front().accounting().sent(count as u64);
                }
            }
        }
        if !self.shut_down {
            if self.stream.shut_down().is_err() {
                return Poll::Ready(());
            }
            self.shut_down = true;
        }
        if state.end_of_input.get() {
            return Poll::Ready(());
        }
        let mut scratch = set.front().scratch().borrow();
        loop {
            let mut filled = ReadBuf::new(&mut scratch);
            let result = ready!(self.stream.poll_read(cx, &mut filled));
            self.discarded += filled.filled().len();
            if result.is_err() || filled.filled().is_empty() || self.discarded > LINGER_BYTES {
                return Poll::Ready(());
            }
        }
    }
}
