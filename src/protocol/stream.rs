//! A client's socket, which the reactor hears of only when there is something to wait for.
//!
//! A request often lies in the socket before it is accepted, and a client that wants no other is answered at once. Such
//! a connection needs no place among those that are watched (epoll_ctl(2), twice), nor a turn of the worker to
//! be told what is there already.

use std::io::{self, IoSlice};
use std::mem;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::task::{Context, Poll, ready};

use tokio::io::ReadBuf;
use tokio::io::unix::AsyncFd;

use crate::sys::sendfile::{Sent, sendfile};
use crate::sys::{fd, socket, watch};

/// Reads from a socket that is not watched: what comes with the connection. Who sends on without end must let others
/// have their turn; the reactor sees to that.
const UNWATCHED_READS: u8 = 1;
/// Writes to a socket that is not watched, at most. Who writes to a client that takes all must let others have
/// their turn, too.
const UNWATCHED_WRITES: u8 = 8;

/// A client connection of either kind, TCP or Unix socket, in non-blocking mode.
#[derive(Debug)]
pub struct Stream(State);

#[derive(Debug)]
enum State {
    Fresh {
        socket: OwnedFd,
        /// How often it may still be read from, and written to, before it is watched.
        reads: u8,
        writes: u8,
    },
    Watched(AsyncFd<OwnedFd>),
    /// The reactor did not take it; it is closed.
    Lost,
}

/// Where the bytes go.
#[derive(Debug, Clone, Copy)]
enum Way {
    In,
    Out,
}

impl Stream {
    /// A socket that nobody watches yet.
    pub fn new(socket: OwnedFd) -> Self {
        Stream(State::Fresh { socket, reads: UNWATCHED_READS, writes: UNWATCHED_WRITES })
    }

    /// Reads into the unfilled part of `buf`.
    pub(crate) fn poll_read(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let room = buf.initialize_unfilled();
        let size = room.len();
        // Less than there is room for is all that there was, unless it was the end: epoll(7), question 9.
        let drained = |count: &usize| (1..size).contains(count);
        let count = ready!(self.poll_io(cx, Way::In, drained, |socket| fd::read(socket, room)))?;
        buf.advance(count);
        Poll::Ready(Ok(()))
    }

    /// Writes some of `bytes`.
    pub(crate) fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_io(cx, Way::Out, |sent| *sent < bytes.len(), |socket| socket::send(socket, bytes))
    }

    /// Writes some of `bytes`.
    pub(crate) fn poll_write_vectored(
        &mut self,
        cx: &mut Context<'_>,
        bytes: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let size: usize = bytes.iter().map(|it| it.len()).sum();
        self.poll_io(cx, Way::Out, |sent| *sent < size, |socket| socket::send_vectored(socket, bytes))
    }

    /// Ready when a write may succeed.
    pub(super) fn poll_writable(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.watched()?.poll_write_ready(cx).map_ok(drop)
    }

    /// Sends at most `count` bytes of `file`, from `offset` on.
    pub(super) fn poll_sendfile(
        &mut self,
        cx: &mut Context<'_>,
        file: BorrowedFd<'_>,
        offset: u64,
        count: usize,
    ) -> Poll<io::Result<Sent>> {
        // How much the file has left is not known here.
        self.poll_io(cx, Way::Out, |_| false, |socket| sendfile(socket, file, offset, count))
    }

    /// Tells the client that nothing more will come.
    ///
    /// # Errors
    /// When it is gone.
    pub(crate) fn shut_down(&self) -> io::Result<()> {
        socket::shut_down(self.as_fd()?)
    }

    /// The socket.
    ///
    /// # Errors
    /// When the reactor could not take it.
    pub fn as_fd(&self) -> io::Result<BorrowedFd<'_>> {
        match &self.0 {
            State::Fresh { socket, .. } => Ok(socket.as_fd()),
            State::Watched(socket) => Ok(socket.as_fd()),
            State::Lost => Err(lost()),
        }
    }

    /// Does it at once as long as nobody watches, else when the reactor has said that it can be done. What leaves
    /// the socket `exhausted` waits for the reactor the next time.
    fn poll_io<T>(
        &mut self,
        cx: &mut Context<'_>,
        way: Way,
        exhausted: impl Fn(&T) -> bool,
        mut attempt: impl FnMut(BorrowedFd<'_>) -> io::Result<T>,
    ) -> Poll<io::Result<T>> {
        if let State::Fresh { socket, reads, writes } = &mut self.0 {
            let left = match way {
                Way::In => reads,
                Way::Out => writes,
            };
            if *left > 0 {
                *left -= 1;
                match attempt(socket.as_fd()) {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    result => return Poll::Ready(result),
                }
            }
        }
        let watched = self.watched()?;
        loop {
            let mut ready = match way {
                Way::In => ready!(watched.poll_read_ready(cx))?,
                Way::Out => ready!(watched.poll_write_ready(cx))?,
            };
            match attempt(watched.as_fd()) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => ready.clear_ready(),
                result => {
                    if result.as_ref().is_ok_and(&exhausted) {
                        ready.clear_ready();
                    }
                    return Poll::Ready(result);
                }
            }
        }
    }

    fn watched(&mut self) -> io::Result<&mut AsyncFd<OwnedFd>> {
        if let State::Fresh { .. } = self.0
            && let State::Fresh { socket, .. } = mem::replace(&mut self.0, State::Lost)
        {
            self.0 = State::Watched(watch::both_ways(socket).inspect_err(|error| {
                log::warn!("a connection is lost, the reactor refuses it: {error}");
            })?);
        }
        match &mut self.0 {
            State::Watched(socket) => Ok(socket),
            State::Fresh { .. } | State::Lost => Err(lost()),
        }
    }
}

fn lost() -> io::Error {
    io::Error::new(io::ErrorKind::NotConnected, "the reactor could not watch the connection")
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;
    use std::pin::pin;
    use std::task::Waker;

    use super::*;

    fn pair() -> (UnixStream, Stream) {
        let (client, server) = UnixStream::pair().expect("sockets");
        server.set_nonblocking(true).expect("ours");
        (client, Stream::new(server.into()))
    }

    fn run(future: impl Future<Output = ()>) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().expect("a runtime");
        runtime.block_on(future);
    }

    async fn read(stream: &mut Stream) -> Vec<u8> {
        let mut bytes = [0; 100];
        let mut buf = ReadBuf::new(&mut bytes);
        poll_fn(|cx| stream.poll_read(cx, &mut buf)).await.expect("it is there");
        buf.filled().to_vec()
    }

    #[test]
    fn a_request_that_is_there_is_answered_without_a_reactor() {
        let (mut client, mut stream) = pair();
        client.write_all(b"request").expect("there is room");
        // Outside of a runtime nothing can be watched.
        let mut cx = Context::from_waker(Waker::noop());
        let mut bytes = [0; 100];
        let mut buf = ReadBuf::new(&mut bytes);
        assert!(stream.poll_read(&mut cx, &mut buf).is_ready());
        assert_eq!(buf.filled(), b"request");
        assert!(matches!(stream.poll_write(&mut cx, b"ans"), Poll::Ready(Ok(3))));
        assert!(matches!(stream.poll_write_vectored(&mut cx, &[IoSlice::new(b"wer")]), Poll::Ready(Ok(3))));
        stream.shut_down().expect("the client is there");
        assert!(matches!(stream.0, State::Fresh { .. }));
        let mut answer = String::new();
        client.read_to_string(&mut answer).expect("an answer");
        assert_eq!(answer, "answer");
    }

    #[test]
    fn what_is_not_there_yet_is_waited_for() {
        run(async {
            let (mut client, mut stream) = pair();
            {
                let mut reading = pin!(read(&mut stream));
                let mut cx = Context::from_waker(Waker::noop());
                assert!(reading.as_mut().poll(&mut cx).is_pending());
                client.write_all(b"late").expect("there is room");
                assert_eq!(reading.await, b"late");
            }
            assert!(matches!(stream.0, State::Watched(_)));
            client.write_all(b"later").expect("there is room");
            assert_eq!(read(&mut stream).await, b"later");
            drop(client);
            assert_eq!(read(&mut stream).await, b"");
        });
    }

    #[test]
    fn a_client_that_takes_all_is_watched_in_the_end() {
        run(async {
            let (mut client, mut stream) = pair();
            let mut taken = [0; 1];
            for _ in 0..=UNWATCHED_WRITES {
                assert!(matches!(stream.0, State::Fresh { .. }));
                poll_fn(|cx| stream.poll_write(cx, b"x")).await.expect("there is room");
                client.read_exact(&mut taken).expect("written");
            }
            assert!(matches!(stream.0, State::Watched(_)));
        });
    }

    #[test]
    fn a_client_that_takes_nothing_is_waited_for() {
        run(async {
            let (mut client, mut stream) = pair();
            let bytes = [0; 4096];
            let mut cx = Context::from_waker(Waker::noop());
            let mut sent = 0;
            while let Poll::Ready(count) = stream.poll_write(&mut cx, &bytes) {
                sent += count.expect("the client is there");
                tokio::task::yield_now().await;
            }
            let reader = std::thread::spawn(move || {
                let mut taken = Vec::new();
                client.read_to_end(&mut taken).expect("the end");
                taken.len()
            });
            sent += poll_fn(|cx| stream.poll_write(cx, &bytes)).await.expect("the client reads");
            drop(stream);
            assert_eq!(reader.join().expect("it ends"), sent);
        });
    }

    #[test]
    fn a_client_that_left_is_an_error_and_no_signal() {
        let (client, mut stream) = pair();
        drop(client);
        let mut cx = Context::from_waker(Waker::noop());
        let Poll::Ready(Err(error)) = stream.poll_write(&mut cx, b"x") else { panic!("nobody reads") };
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
    }
}
