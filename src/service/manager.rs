//! The way to the service manager: the socket that `NOTIFY_SOCKET` names.

use std::collections::VecDeque;
use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::{Duration, Instant};

use log::{debug, warn};

use crate::boot::StartContext;
use crate::sys::{self, process, seqpacket};

use super::notice;

const NOTIFY_SOCKET: &str = "NOTIFY_SOCKET";
const WATCHDOG_USEC: &str = "WATCHDOG_USEC";
const WATCHDOG_PID: &str = "WATCHDOG_PID";
const FDSTORE: &str = "FDSTORE";

/// The variables of the service manager's that are for the master only: notifications of other processes
/// fill its journal with complaints about a wrong pid.
pub const VARIABLES: [&str; 4] = [NOTIFY_SOCKET, WATCHDOG_USEC, WATCHDOG_PID, FDSTORE];

/// Messages kept while the manager does not read. It reads again within milliseconds, or is stuck.
const KEPT: usize = 64;
/// When to try again then: a socket of this kind cannot be relied upon to tell.
const RETRY: Duration = Duration::from_millis(50);

/// A datagram, and the descriptor that goes with it.
type Message = (String, Option<OwnedFd>);

/// The open way.
#[derive(Debug)]
pub struct Manager {
    socket: UnixDatagram,
    address: SocketAddr,
    unsent: VecDeque<Message>,
    retry_at: Option<Instant>,
    complained: bool,
}

impl Manager {
    /// The one that started this service; `None` when it does not want to be told anything.
    pub fn of(start: &StartContext) -> Option<Self> {
        let name = start.var(NOTIFY_SOCKET).filter(|name| !name.is_empty())?;
        match Self::connect(name) {
            Ok(manager) => Some(manager),
            Err(error) => {
                warn!("the service manager cannot be told anything: {NOTIFY_SOCKET} = {name:?}: {error}");
                None
            }
        }
    }

    fn connect(name: &OsStr) -> io::Result<Self> {
        let address = match name.as_bytes() {
            [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
            [b'/', ..] => SocketAddr::from_pathname(name)?,
            _ => return Err(io::Error::other("neither a path nor an abstract name")),
        };
        let socket = UnixDatagram::unbound()?;
        // The master waits for nobody.
        socket.set_nonblocking(true)?;
        // Now, because its path may be out of reach once the root directory is another one.
        socket.connect_addr(&address)?;
        Ok(Manager { socket, address, unsent: VecDeque::new(), retry_at: None, complained: false })
    }

    /// Sends a datagram, as soon as the manager has room for it.
    pub fn send(&mut self, datagram: String) {
        self.queue((datagram, None));
    }

    /// Sends a copy of a descriptor with a datagram.
    ///
    /// # Errors
    /// When no descriptor is left for the copy.
    pub fn send_with(&mut self, datagram: String, fd: BorrowedFd<'_>) -> io::Result<()> {
        let copy = sys::fd::duplicate(fd)?;
        self.queue((datagram, Some(copy)));
        Ok(())
    }

    fn queue(&mut self, message: Message) {
        debug!("to the service manager: {}", message.0.replace('\n', " "));
        if self.unsent.len() == KEPT {
            self.unsent.pop_front();
        }
        self.unsent.push_back(message);
        self.flush();
    }

    /// Sends what could not be sent before.
    pub fn flush(&mut self) {
        self.retry_at = None;
        while let Some(message) = self.unsent.front() {
            match self.try_send(message) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.retry_at = Some(Instant::now() + RETRY);
                    return;
                }
                Ok(()) => self.complained = false,
                Err(error) if self.complained => debug!("the service manager does not listen: {error}"),
                Err(error) => {
                    self.complained = true;
                    warn!("the service manager does not listen: {error}");
                }
            }
            self.unsent.pop_front();
        }
    }

    fn try_send(&self, (datagram, fd): &Message) -> io::Result<()> {
        let send = || {
            let fds: Vec<_> = fd.iter().map(AsFd::as_fd).collect();
            seqpacket::send(self.socket.as_fd(), datagram.as_bytes(), &fds)
        };
        match send() {
            // Another instance of the manager has made another socket of the same name. The kernel reports the
            // end of the former one once, and forgets it.
            Err(error)
                if matches!(error.kind(), io::ErrorKind::ConnectionRefused | io::ErrorKind::NotConnected) =>
            {
                self.socket.connect_addr(&self.address)?;
                send()
            }
            sent => sent,
        }
    }

    /// When to [`Manager::flush`].
    pub fn deadline(&self) -> Option<Instant> {
        self.retry_at
    }
}

/// How long the service manager waits for a sign of life; `None` when it does not wait for any of ours.
pub fn watchdog_period(start: &StartContext) -> Option<Duration> {
    let number = |name| start.var(name)?.to_str()?.parse::<u64>().ok();
    let period = number(WATCHDOG_USEC).filter(|period| *period > 0)?;
    // Without a pid it is for everybody, see sd_watchdog_enabled(3).
    let ours =
        start.var(WATCHDOG_PID).is_none() || number(WATCHDOG_PID) == Some(u64::from(std::process::id()));
    ours.then_some(Duration::from_micros(period))
}

/// How many descriptors the manager keeps for this service, 0 when none. systemd tells since release 254;
/// under an older one the unit says so itself, since what is not allowed would be logged as an error.
pub fn store_size(start: &StartContext) -> usize {
    start.var(FDSTORE).and_then(|size| size.to_str()?.parse().ok()).unwrap_or(0)
}

/// Takes the variables from the environment of this process, which its children inherit.
pub fn hide_variables() {
    for name in VARIABLES {
        if std::env::var_os(name).is_some() {
            sys::env::remove_var(name);
        }
    }
}

/// After [`crate::master`] has gone to the background: another pid is the service now. `watched` tells
/// whether the former one was, by [`watchdog_period`].
pub fn moved(start: &mut StartContext, watched: bool) {
    let pid = process::this();
    if watched {
        start.set_var(WATCHDOG_PID, pid.to_string());
    }
    if let Some(mut manager) = Manager::of(start) {
        manager.send(notice::main_pid(pid.as_raw().cast_unsigned()));
    }
}

/// Tells the service manager why the start has failed; `again` when another configuration will be tried.
pub fn failed(start: &StartContext, reason: &str, again: bool) {
    if let Some(mut manager) = Manager::of(start) {
        manager.send(notice::failure(reason, again));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn start(env: &[(&str, &str)]) -> StartContext {
        let env = env.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
        StartContext { argv: Vec::new(), env, cwd: "/".into(), binary: "/".into() }
    }

    #[test]
    fn the_watchdog_of_another_process_is_not_ours() {
        let ours = std::process::id().to_string();
        let period = |env: &[(&str, &str)]| watchdog_period(&start(env)).map(|it| it.as_micros());
        assert_eq!(period(&[(WATCHDOG_USEC, "5000000")]), Some(5_000_000));
        assert_eq!(period(&[(WATCHDOG_USEC, "7"), (WATCHDOG_PID, &ours)]), Some(7));
        for env in [
            &[(WATCHDOG_USEC, "7"), (WATCHDOG_PID, "1")][..],
            &[(WATCHDOG_USEC, "7"), (WATCHDOG_PID, "nonsense")],
            &[(WATCHDOG_USEC, "0")],
            &[(WATCHDOG_USEC, "soon")],
            &[(WATCHDOG_PID, &ours)],
        ] {
            assert_eq!(period(env), None, "{env:?}");
        }
    }

    #[test]
    fn what_the_manager_has_no_room_for_is_sent_later_and_in_order() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notify");
        let receiver = UnixDatagram::bind(&path).unwrap();
        receiver.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let mut manager = Manager::of(&start(&[(NOTIFY_SOCKET, path.to_str().unwrap())])).unwrap();
        let mut sent = 0;
        while manager.deadline().is_none() {
            sent += 1;
            manager.send(sent.to_string());
        }
        let mut buffer = [0; 16];
        for number in 1..=sent {
            let length = receiver.recv(&mut buffer).unwrap();
            assert_eq!(buffer[..length], *number.to_string().as_bytes());
            manager.flush();
        }
        assert_eq!(manager.deadline(), None);
    }

    #[test]
    fn a_manager_that_was_replaced_is_found_again() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notify");
        let first = UnixDatagram::bind(&path).unwrap();
        let mut manager = Manager::of(&start(&[(NOTIFY_SOCKET, path.to_str().unwrap())])).unwrap();
        drop(first);
        std::fs::remove_file(&path).unwrap();
        manager.send("lost".to_owned());
        let second = UnixDatagram::bind(&path).unwrap();
        second.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        manager.send("heard".to_owned());
        let mut buffer = [0; 16];
        assert_eq!(second.recv(&mut buffer).unwrap(), 5);
    }
}
