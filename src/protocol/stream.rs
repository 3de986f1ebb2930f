//! The socket of a client connection, which the reactor gets to know only when it has to wait for it.
//!
//! The request of a new connection has often arrived by the time the connection is taken, and its
//! answer nearly always fits into the socket. Such a connection never meets the reactor: that saves
//! two system calls, two allocations and a turn of the event loop.

use std::io::{self, IoSlice};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

use crate::sys::fd;
use crate::sys::sendfile::{Sent, sendfile};

/// A client connection of either kind.
#[derive(Debug)]
pub struct Stream {
    kind: Kind,
    socket: Socket,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Tcp,
    Unix,
}

#[derive(Debug)]
enum Socket {
    /// Nothing has been waited for.
    New(OwnedFd),
    Tcp(TcpStream),
    Unix(UnixStream),
    /// The reactor had no room for it, which closes it.
    Lost,
}

/// Calls a method of the reactor's stream; it is registered first.
macro_rules! each {
    ($self:expr, $inner:ident => $call:expr) => {{
        $self.register()?;
        match &mut $self.socket {
            Socket::Tcp($inner) => $call,
            Socket::Unix($inner) => $call,
            Socket::New(_) | Socket::Lost => Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
        }
    }};
}

impl Stream {
    /// A TCP connection; the socket does not block.
    pub fn tcp(socket: OwnedFd) -> Self {
        Stream { kind: Kind::Tcp, socket: Socket::New(socket) }
    }

    /// A connection on a Unix socket, which does not block.
    pub fn unix(socket: OwnedFd) -> Self {
        Stream { kind: Kind::Unix, socket: Socket::New(socket) }
    }

    /// Has the reactor know it.
    fn register(&mut self) -> io::Result<()> {
        if let Socket::New(_) = &self.socket
            && let Socket::New(socket) = std::mem::replace(&mut self.socket, Socket::Lost)
        {
            self.socket = match self.kind {
                Kind::Tcp => Socket::Tcp(TcpStream::from_std(socket.into())?),
                Kind::Unix => Socket::Unix(UnixStream::from_std(socket.into())?),
            };
        }
        Ok(())
    }

    /// Reads into the unfilled part of `buf`.
    pub(crate) fn poll_read(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if let Socket::New(socket) = &self.socket {
            match fd::read(socket.as_fd(), buf.initialize_unfilled()) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                result => return Poll::Ready(result.map(|count| buf.advance(count))),
            }
        }
        each!(self, stream => Pin::new(stream).poll_read(cx, buf))
    }

    /// Writes some of `bytes`.
    pub(crate) fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if let Socket::New(socket) = &self.socket {
            match fd::write(socket.as_fd(), bytes) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                result => return Poll::Ready(result),
            }
        }
        each!(self, stream => Pin::new(stream).poll_write(cx, bytes))
    }

    /// Writes some of several slices.
    pub(super) fn poll_write_vectored(
        &mut self,
        cx: &mut Context<'_>,
        bytes: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        each!(self, stream => Pin::new(stream).poll_write_vectored(cx, bytes))
    }

    /// Ready when a write may succeed.
    pub(super) fn poll_writable(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, stream => stream.poll_write_ready(cx))
    }

    /// Sends at most `count` bytes of `file`, from `offset` on.
    pub(super) fn poll_sendfile(
        &mut self,
        cx: &mut Context<'_>,
        file: BorrowedFd<'_>,
        offset: u64,
        count: usize,
    ) -> Poll<io::Result<Sent>> {
        each!(self, stream => loop {
            ready!(stream.poll_write_ready(cx))?;
            let send = || sendfile(stream.as_fd(), file, offset, count);
            match stream.try_io(Interest::WRITABLE, send) {
                // The readiness was out of date, and is forgotten now.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                result => return Poll::Ready(result),
            }
        })
    }

    /// Tells the client that nothing more will come.
    pub(crate) fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, stream => Pin::new(stream).poll_shutdown(cx))
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.socket {
            Socket::New(socket) => socket.as_fd(),
            Socket::Tcp(stream) => stream.as_fd(),
            Socket::Unix(stream) => stream.as_fd(),
            Socket::Lost => unreachable!("invariant: a lost socket fails its connection at once"),
        }
    }
}
