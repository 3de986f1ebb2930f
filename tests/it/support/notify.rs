//! A service manager that only listens: it records the datagrams of sd_notify(3).

use std::ffi::OsString;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::Path;
use std::time::Duration;

use super::LIMIT;

/// The lines of one datagram.
pub type Datagram = Vec<String>;

/// The socket.
pub struct NotifySocket {
    socket: UnixDatagram,
    /// For `NOTIFY_SOCKET`.
    pub name: OsString,
}

impl NotifySocket {
    /// With a name in the file system.
    pub fn at(path: &Path) -> Self {
        let socket = UnixDatagram::bind(path).expect("a new name in a directory of ours");
        NotifySocket { socket, name: path.into() }
    }

    /// With an abstract name.
    pub fn abstract_name(name: &str) -> Self {
        let address = SocketAddr::from_abstract_name(name).expect("a short name");
        let socket = UnixDatagram::bind_addr(&address).expect("a name of ours");
        NotifySocket { socket, name: format!("@{name}").into() }
    }

    /// The next datagram; `None` when none comes within this time.
    pub fn within(&self, time: Duration) -> Option<Datagram> {
        self.socket.set_read_timeout(Some(time)).expect("a time-out");
        let mut buffer = [0; 4096];
        let length = self.socket.recv(&mut buffer).ok()?;
        let text = std::str::from_utf8(&buffer[..length]).expect("text");
        Some(text.lines().map(str::to_owned).collect())
    }

    /// The next datagram.
    pub fn next(&self) -> Datagram {
        self.within(LIMIT).expect("the server notifies")
    }

    /// All datagrams up to the first that has a line which begins so.
    pub fn until(&self, begin: &str) -> Vec<Datagram> {
        let mut all = Vec::new();
        loop {
            let Some(datagram) = self.within(LIMIT) else { panic!("no {begin:?} after {all:#?}") };
            let found = datagram.iter().any(|line| line.starts_with(begin));
            all.push(datagram);
            if found {
                return all;
            }
        }
    }
}

/// The value in a datagram, such as that of `STATUS`.
pub fn value<'a>(datagram: &'a Datagram, name: &str) -> Option<&'a str> {
    datagram.iter().find_map(|line| line.strip_prefix(name)?.strip_prefix('='))
}
