//! The listen queue: how many connections wait to be accepted, and how many may.
//!
//! The kernel keeps one queue for a listening socket, whoever has it: all workers take from the same.

use std::io;
use std::os::fd::AsFd;

use serde::{Deserialize, Serialize};
use socket2::SockRef;

use super::Listener;
use crate::sys::{fd, sock_diag};

pub use crate::sys::sock_diag::Queue;

/// A listening socket, for others to find it: by its inode, which is no secret.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Socket {
    /// The address as bound.
    pub address: String,
    /// Inode of the socket.
    pub inode: u64,
}

impl Socket {
    /// The one of this listener.
    ///
    /// # Errors
    /// Those of `fstat(2)`.
    pub fn of(listener: &Listener) -> io::Result<Socket> {
        let (_, inode) = fd::identity(listener.fd.as_fd())?;
        Ok(Socket { address: listener.local.clone(), inode })
    }
}

impl Listener {
    /// Its queue now. One system call for TCP, four for a Unix socket; never waits.
    ///
    /// # Errors
    /// When the kernel does not tell, see [`crate::sys::sock_diag`]; and for a listener that was released.
    pub fn queue(&self) -> io::Result<Queue> {
        if SockRef::from(&self.fd).local_addr()?.is_unix() {
            return sock_diag::unix_queue(Socket::of(self)?.inode);
        }
        sock_diag::tcp_queue(self.fd.as_fd())
    }
}

/// The queues of sockets that other processes have, in the order of `sockets`; `None` where the kernel does
/// not tell.
pub fn of_others(sockets: &[Socket]) -> Vec<Option<Queue>> {
    let tcp = sock_diag::tcp_listening().unwrap_or_default();
    let find = |inode: u64| {
        let known = tcp.iter().find(|it| it.inode == inode).map(|it| it.queue);
        known.or_else(|| sock_diag::unix_queue(inode).ok())
    };
    sockets.iter().map(|socket| find(socket.inode)).collect()
}

/// `listen queue of socket "127.0.0.1:8080": 3/1024`.
pub fn line(address: &str, queue: Option<Queue>) -> String {
    let depth = match queue {
        Some(Queue { waiting, limit }) => format!("{waiting}/{limit}"),
        None => "the kernel does not tell".to_owned(),
    };
    format!("listen queue of socket \"{address}\": {depth}")
}

#[cfg(test)]
mod tests {
    use std::net::TcpStream;
    use std::os::unix::net::UnixStream;

    use super::*;
    use crate::net::BindOptions;

    fn options(backlog: u32) -> BindOptions {
        BindOptions { backlog, ..BindOptions::default() }
    }

    fn takes_one(listener: &Listener) {
        crate::sys::accept::accept(listener.fd.as_fd()).expect("a client waits");
    }

    #[test]
    fn clients_of_a_tcp_listener_are_counted_until_they_are_taken() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let listener = Listener::bind(address, &options(7)).expect("loopback exists");
            let socket = Socket::of(&listener).expect("it is open");
            let both = || (listener.queue().expect("it listens"), of_others(std::slice::from_ref(&socket)));
            assert_eq!(both(), (Queue { waiting: 0, limit: 7 }, vec![Some(Queue { waiting: 0, limit: 7 })]));
            let _clients: Vec<_> =
                (0..3).map(|_| TcpStream::connect(&listener.local).expect("it listens")).collect();
            assert_eq!(both(), (Queue { waiting: 3, limit: 7 }, vec![Some(Queue { waiting: 3, limit: 7 })]));
            takes_one(&listener);
            assert_eq!(listener.queue().expect("it listens").waiting, 2);
        }
    }

    #[test]
    fn clients_of_a_unix_listener_are_counted_until_they_are_taken() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("socket");
        let listener = Listener::bind(path.to_str().expect("text"), &options(5)).expect("a new name");
        let socket = Socket::of(&listener).expect("it is open");
        let both = || (listener.queue().expect("it listens"), of_others(std::slice::from_ref(&socket)));
        assert_eq!(both(), (Queue { waiting: 0, limit: 5 }, vec![Some(Queue { waiting: 0, limit: 5 })]));
        let _clients: Vec<_> = (0..4).map(|_| UnixStream::connect(&path).expect("it listens")).collect();
        assert_eq!(both(), (Queue { waiting: 4, limit: 5 }, vec![Some(Queue { waiting: 4, limit: 5 })]));
        takes_one(&listener);
        assert_eq!(listener.queue().expect("it listens").waiting, 3);
    }

    #[test]
    fn what_does_not_listen_has_no_queue() {
        let mut listener = Listener::bind("127.0.0.1:0", &options(7)).expect("loopback exists");
        let client = TcpStream::connect(&listener.local).expect("it listens");
        assert!(sock_diag::tcp_queue(client.as_fd()).is_err());
        let (one, _other) = UnixStream::pair().expect("a pair");
        let (_, inode) = fd::identity(one.as_fd()).expect("open");
        assert!(sock_diag::unix_queue(inode).is_err());
        assert_eq!(of_others(&[Socket { address: "gone".into(), inode: u64::MAX }]), [None]);
        listener.release().expect("a descriptor");
        assert!(listener.queue().is_err());
    }
}
