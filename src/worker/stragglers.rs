//! Clients that the kernel keeps to itself until they have said something.
//!
//! With `TCP_DEFER_ACCEPT` a client takes itself for connected while it is in no queue: were the listener
//! closed, its request would be answered with a reset. So who closes one for good tells the kernel to keep no
//! more clients, and waits for those that it keeps: they come with their first bytes, or when the kernel next
//! asks for a sign of life, a second after they have connected.

use std::collections::HashSet;
use std::io;
use std::net::SocketAddr;
use std::os::fd::BorrowedFd;
use std::time::Duration;

use log::{debug, info};
use socket2::SockRef;

use crate::sys::deferral;
use crate::sys::sock_diag::{self, HalfOpen};

/// How long they are waited for: until the kernel has asked each, and the answer had its way.
pub(super) const PATIENCE: Duration = Duration::from_millis(1300);

/// Those that the kernel keeps for listeners that are about to close.
pub(super) struct Stragglers {
    addresses: Vec<SocketAddr>,
    /// `None` when the kernel does not tell.
    clients: Option<HashSet<HalfOpen>>,
}

impl Stragglers {
    /// Has the kernel keep no more for `listeners`, and notes whom it keeps.
    pub(super) fn of<'a>(listeners: impl Iterator<Item = BorrowedFd<'a>>) -> Self {
        let mut addresses = Vec::new();
        for listener in listeners {
            match keep_no_more(listener) {
                Ok(address) => addresses.extend(address),
                Err(error) => debug!("clients that have only connected may be refused: {error}"),
            }
        }
        let clients = half_open(&addresses);
        let clients = clients.inspect_err(|error| {
            info!(
                "who has connected and not sent anything is waited for, {PATIENCE:?}: the kernel does not tell \
                 whether there is anybody ({error}; RestrictAddressFamilies= of systemd should allow AF_NETLINK)"
            );
        });
        Stragglers { addresses, clients: clients.ok() }
    }

    /// All of them have come, or have left.
    pub(super) fn are_gone(&mut self) -> bool {
        let Some(clients) = &mut self.clients else { return false };
        if !clients.is_empty()
            && let Ok(still) = half_open(&self.addresses)
        {
            clients.retain(|client| still.contains(client));
        }
        clients.is_empty()
    }
}

/// The address of a listener for which the kernel has kept clients until now.
fn keep_no_more(listener: BorrowedFd<'_>) -> io::Result<Option<SocketAddr>> {
    let Some(address) = SockRef::from(&listener).local_addr()?.as_socket() else { return Ok(None) };
    if deferral::get(listener)?.is_zero() {
        return Ok(None);
    }
    deferral::set(listener, Duration::ZERO)?;
    Ok(Some(address))
}

fn half_open(addresses: &[SocketAddr]) -> io::Result<HashSet<HalfOpen>> {
    let clients = addresses.iter().map(|address| sock_diag::tcp_half_open(*address));
    Ok(clients.collect::<io::Result<Vec<_>>>()?.into_iter().flatten().collect())
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn a_client_is_waited_for_until_it_has_come() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("bound");
        deferral::set(listener.as_fd(), Duration::from_secs(1)).expect("a TCP socket");
        let mut client = TcpStream::connect(address).expect("it listens");
        let mut stragglers = Stragglers::of([listener.as_fd()].into_iter());
        assert!(!stragglers.are_gone());
        assert_eq!(deferral::get(listener.as_fd()).expect("a TCP socket"), Duration::ZERO);
        client.write_all(b"GET").expect("connected");
        listener.accept().expect("the client");
        assert!(stragglers.are_gone());
    }

    #[test]
    fn a_listener_that_keeps_nobody_back_is_left_as_it_is() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let _client = TcpStream::connect(listener.local_addr().expect("bound")).expect("it listens");
        assert!(Stragglers::of([listener.as_fd()].into_iter()).are_gone());
    }
}
