//! Accepting a connection in one system call.
#![allow(unsafe_code)]

use std::io;
use std::mem;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use super::retry;

/// The client of an accepted connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Client {
    /// Its TCP address.
    Tcp(SocketAddr),
    /// A client on a Unix socket.
    Unix,
}

/// Takes the next connection of a listener; non-blocking and close-on-exec from birth.
///
/// The standard library needs a second system call to make it non-blocking. Interruptions are
/// retried.
///
/// # Errors
/// `WouldBlock` when no client waits, `ConnectionAborted` when one has gone already, `EMFILE` and
/// `ENFILE` when there is no descriptor left.
pub fn accept(listener: BorrowedFd<'_>) -> io::Result<(OwnedFd, Client)> {
    // SAFETY: all zeroes is a valid sockaddr_storage.
    let mut address: libc::sockaddr_storage = unsafe { mem::zeroed() };
    let raw = retry(|| {
        let mut length = size_of::<libc::sockaddr_storage>() as libc::socklen_t;
        // SAFETY: the address buffer has the length stated and lives through the call.
        super::cvt(unsafe {
            libc::accept4(
                listener.as_raw_fd(),
                (&raw mut address).cast(),
                &raw mut length,
                libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC,
            )
        })
    })?;
    // SAFETY: the kernel has just given this number to us alone.
    let socket = unsafe { OwnedFd::from_raw_fd(raw) };
    Ok((socket, client(&address)))
}

fn client(address: &libc::sockaddr_storage) -> Client {
    match i32::from(address.ss_family) {
        libc::AF_INET => {
            // SAFETY: the family says that the kernel has written a sockaddr_in.
            let v4 = unsafe { &*std::ptr::from_ref(address).cast::<libc::sockaddr_in>() };
            let ip = Ipv4Addr::from(u32::from_be(v4.sin_addr.s_addr));
            Client::Tcp(SocketAddrV4::new(ip, u16::from_be(v4.sin_port)).into())
        }
        libc::AF_INET6 => {
            // SAFETY: the family says that the kernel has written a sockaddr_in6.
            let v6 = unsafe { &*std::ptr::from_ref(address).cast::<libc::sockaddr_in6>() };
            let ip = Ipv6Addr::from(v6.sin6_addr.s6_addr);
            let port = u16::from_be(v6.sin6_port);
            Client::Tcp(SocketAddrV6::new(ip, port, v6.sin6_flowinfo, v6.sin6_scope_id).into())
        }
        _ => Client::Unix,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::AsFd;

    #[test]
    fn the_client_is_named_and_the_socket_does_not_block() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let listener = TcpListener::bind(address).expect("loopback exists");
            let client = TcpStream::connect(listener.local_addr().expect("bound")).expect("it listens");
            let (socket, named) = accept(listener.as_fd()).expect("a client waits");
            assert_eq!(named, Client::Tcp(client.local_addr().expect("connected")));
            let error =
                std::io::Read::read(&mut TcpStream::from(socket), &mut [0]).expect_err("nothing was sent");
            assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
        }
    }
}
