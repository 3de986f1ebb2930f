//! uWSGI's way to lend listening sockets: `zerg-server`, `zerg-pool` and `zerg`.
//!
//! Who connects to the Unix socket of a server gets one message: ten letters, the number of sockets as a
//! native `int`, and the sockets themselves (`SCM_RIGHTS`); then the connection is closed.

use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixStream};
use std::path::PathBuf;
use std::time::Duration;

use crate::config::ListenSpec;
use crate::config::value::ValueError;
use crate::sys::seqpacket;

use super::Listener;

/// What the message begins with.
const GREETING: &[u8; 10] = b"uwsgi-zerg";
/// How long a server may take to answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// `zerg-pool = PATH:ADDRESS[,ADDRESS...]`: sockets that are lent and served by nobody here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolSpec {
    /// The Unix socket to connect to.
    pub door: String,
    /// What is lent.
    pub addresses: Vec<String>,
}

impl PoolSpec {
    /// Reads the option's value.
    ///
    /// # Errors
    /// When the path or the addresses are missing.
    pub fn parse(text: &str) -> Result<Self, ValueError> {
        let form = || {
            ValueError::refused("is no pool; write PATH:ADDRESS[,ADDRESS...], as in /run/pool:127.0.0.1:3031")
        };
        let (door, addresses) = text.split_once(':').ok_or_else(form)?;
        let addresses: Vec<String> = addresses.split(',').map(|it| it.trim().to_owned()).collect();
        if door.is_empty() || addresses.iter().any(String::is_empty) {
            return Err(form());
        }
        Ok(PoolSpec { door: door.to_owned(), addresses })
    }
}

/// A door through which sockets are lent.
#[derive(Debug)]
pub struct Lender {
    /// The Unix socket to connect to.
    pub door: Listener,
    /// The sockets of a pool; `None` lends those that the server itself serves on.
    pub pool: Option<Vec<Listener>>,
}

impl Lender {
    /// Lends the sockets to everybody who has connected; how often. Never waits.
    ///
    /// # Errors
    /// What kept it from the last one who asked, or from asking who it is.
    pub fn lend(&self, served: &[Listener]) -> io::Result<usize> {
        let sockets: Vec<BorrowedFd<'_>> =
            self.pool.as_deref().unwrap_or(served).iter().map(|listener| listener.fd.as_fd()).collect();
        let mut times = 0;
        loop {
            match crate::sys::accept::accept(self.door.fd.as_fd()) {
                Ok((client, _)) => seqpacket::send(client.as_fd(), &message(sockets.len()), &sockets)?,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(times),
                Err(error) if error.kind() == ErrorKind::ConnectionAborted => continue,
                Err(error) => return Err(error),
            }
            times += 1;
        }
    }
}

fn message(sockets: usize) -> Vec<u8> {
    let count = i32::try_from(sockets).unwrap_or(i32::MAX);
    GREETING.iter().copied().chain(count.to_ne_bytes()).collect()
}

/// Takes the sockets that a server lends; it is asked once, and may take 30 seconds.
///
/// # Errors
/// When there is no server, or it does not speak like one.
pub fn borrow(spec: &ListenSpec) -> io::Result<Vec<OwnedFd>> {
    let stream = match spec.address.strip_prefix('@') {
        Some(name) => UnixStream::connect_addr(&SocketAddr::from_abstract_name(name)?)?,
        None => UnixStream::connect(PathBuf::from(&spec.address))?,
    };
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut buffer = [0; 32];
    let received = seqpacket::recv(stream.as_fd(), &mut buffer).map_err(|error| match error.kind() {
        ErrorKind::WouldBlock => io::Error::new(ErrorKind::TimedOut, "it does not answer"),
        _ => error,
    })?;
    if received.fds.is_empty() || buffer[..received.len] != message(received.fds.len()) {
        return Err(io::Error::new(ErrorKind::InvalidData, "it lends no sockets"));
    }
    Ok(received.fds)
}

/// The beginning of the names of sockets that come from this server.
pub fn name_prefix(spec: &ListenSpec) -> String {
    format!("zerg://{}#", spec.address)
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;
    use crate::net::BindOptions;

    fn bind(address: &str) -> Listener {
        Listener::bind(address, &BindOptions { backlog: 16, ..BindOptions::default() }).unwrap()
    }

    fn spec(address: &str) -> ListenSpec {
        ListenSpec { address: address.to_owned(), origin: "test".to_owned() }
    }

    #[test]
    fn sockets_are_lent_to_who_connects_and_are_the_same() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("door");
        let abstract_name = format!("@appserver-zerg-{}", std::process::id());
        for door in [path.to_str().unwrap(), &abstract_name] {
            let sockets = [bind("127.0.0.1:0"), bind("127.0.0.1:0")];
            let lender = Lender { door: bind(door), pool: None };
            assert_eq!(lender.lend(&sockets).unwrap(), 0);
            let spec = spec(door);
            let borrower = thread::spawn(move || borrow(&spec).unwrap());
            crate::sys::testing::await_readable(lender.door.fd.as_fd());
            assert_eq!(lender.lend(&sockets).unwrap(), 1);
            let names: Vec<String> = borrower
                .join()
                .unwrap()
                .into_iter()
                .map(|fd| Listener::lent("zerg://x#0".to_owned(), fd).unwrap().local)
                .collect();
            assert_eq!(names, sockets.map(|socket| socket.local));
        }
    }

    #[test]
    fn who_is_not_there_or_no_server_is_told() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("door");
        let spec = spec(path.to_str().unwrap());
        assert_eq!(borrow(&spec).unwrap_err().kind(), ErrorKind::NotFound);
        let other = std::os::unix::net::UnixListener::bind(&path).unwrap();
        let borrower = thread::spawn(move || borrow(&spec).unwrap_err().to_string());
        io::Write::write_all(&mut other.accept().unwrap().0, b"220 mail.example.org").unwrap();
        assert_eq!(borrower.join().unwrap(), "it lends no sockets");
    }

    #[test]
    fn a_pool_has_a_path_and_addresses() {
        let pool = PoolSpec { door: "/run/pool".into(), addresses: vec!["127.0.0.1:1".into(), "/a".into()] };
        assert_eq!(PoolSpec::parse("/run/pool:127.0.0.1:1, /a"), Ok(pool));
        for wrong in ["/run/pool", "/run/pool:", ":127.0.0.1:1", "/run/pool::1,"] {
            assert!(PoolSpec::parse(wrong).is_err(), "{wrong}");
        }
    }
}
