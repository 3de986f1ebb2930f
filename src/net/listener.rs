//! Listening sockets: bound here, or adopted from whoever had them before.

use std::io;
use std::net::{SocketAddr, TcpListener, ToSocketAddrs};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::Duration;

use log::warn;
use serde::{Deserialize, Serialize};
use socket2::{Domain, SockAddr, SockRef, Socket, Type};

use super::addr::{ListenAddr, prefer_v4};
use super::error::BindError;
use super::inherited::{self, Given};
use super::unix_path;
use crate::sys::cred::{Gid, Uid};
use crate::sys::fs::{FileId, Removal, remove_if_same};
use crate::sys::{deferral, env, fd, limits};

/// How long the kernel keeps a connection that has not sent anything: the least there is. Who serves such
/// a connection is told of it then, and applies the time limits.
const DEFERRAL: Duration = Duration::from_secs(1);

/// How to bind.
#[derive(Debug, Clone, Default)]
pub struct BindOptions {
    /// Length of the listen queue; what the kernel allows at most, see [`effective_backlog`].
    pub backlog: u32,
    /// Let several processes bind the address and share its connections.
    pub reuse_port: bool,
    /// Mode of a socket file; otherwise the file creation mask decides.
    pub chmod: Option<u32>,
    /// Owner and group of a socket file.
    pub chown: Option<(Option<Uid>, Option<Gid>)>,
}

/// A socket file this server made, and so may remove.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OwnedPath {
    /// Absolute path.
    pub path: PathBuf,
    /// Device of the socket file.
    pub dev: u64,
    /// Inode of the socket file.
    pub ino: u64,
}

/// A listening socket, non-blocking and close-on-exec.
#[derive(Debug)]
pub struct Listener {
    /// The address as configured, by which a new configuration finds it.
    pub name: String,
    /// The address as understood.
    pub addr: ListenAddr,
    /// The socket.
    pub fd: OwnedFd,
    /// The address as bound, with the real port, to print.
    pub local: String,
    /// The socket file, when this server made one.
    pub owned: Option<OwnedPath>,
    /// Who else has it, when a service manager made it.
    pub given: Option<Given>,
    /// It is in the descriptor store of the service manager.
    pub stored: bool,
}

/// What the next image needs to know of a listener whose descriptor it inherits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListenerState {
    /// [`Listener::name`].
    pub name: String,
    /// Number of the descriptor.
    pub fd: RawFd,
    /// [`Listener::local`].
    pub local: String,
    /// [`Listener::owned`].
    pub owned: Option<OwnedPath>,
    /// [`Listener::given`]; absent in older releases, as all below.
    #[serde(default)]
    pub given: Option<Given>,
    /// [`Listener::stored`].
    #[serde(default)]
    pub stored: bool,
    /// Not served on, but kept for its manager.
    #[serde(default)]
    pub spare: bool,
}

/// What came of removing a socket file.
#[derive(Debug, PartialEq, Eq)]
pub enum VacuumOutcome {
    /// It was ours and is gone.
    Removed,
    /// The path now names another file, which was left alone.
    NotOurs,
    /// The path was gone already.
    Absent,
    /// The listener has no file, or one that somebody else made.
    NoPath,
    /// It is ours and the system refused; the text says why.
    Failed(String),
}

/// What the connections that a TCP listener brings are like.
#[derive(Debug, Clone, Copy)]
pub struct Preparation {
    /// `TCP_NODELAY`: on Linux connections inherit it from the listener, which saves a system call each.
    pub nodelay: bool,
    /// `TCP_DEFER_ACCEPT`: a connection comes with its first bytes, so that nobody has to wait for them.
    pub defer_accept: bool,
}

/// A copy of a listener as std knows it, to be made into an asynchronous one.
#[derive(Debug)]
pub enum StdListener {
    /// IPv4 or IPv6.
    Tcp(TcpListener),
    /// A socket file or abstract name.
    Unix(UnixListener),
}

impl Listener {
    /// Binds an address and listens on it; or, for `fd://N`, takes the socket over as it is.
    ///
    /// # Errors
    /// Names the address and, where there is one, the way out.
    pub fn bind(address: &str, options: &BindOptions) -> Result<Listener, BindError> {
        let addr = ListenAddr::parse(address)
            .map_err(|reason| BindError::Address { address: address.to_owned(), reason })?;
        let (fd, local, owned) = match &addr {
            ListenAddr::Tcp(socket_address) => bind_tcp(*socket_address, options)?,
            ListenAddr::Host { host, port } => bind_host(address, host, *port, options)?,
            ListenAddr::Unix(path) => bind_unix(path, options)?,
            ListenAddr::Abstract(name) => listen_abstract(name, &addr, options)?,
            ListenAddr::Fd(raw) => inherit(*raw).map_err(|error| unusable(&addr, &error))?,
            ListenAddr::Named(_) => return Err(unusable(&addr, &"it is passed by a service manager only")),
        };
        Ok(Listener { name: address.to_owned(), addr, fd, local, owned, given: None, stored: false })
    }

    /// A socket that a service manager has passed.
    ///
    /// # Errors
    /// When nobody can connect to it; says what to do.
    pub fn given(given: Given, fd: OwnedFd) -> Result<Listener, String> {
        inherited::unfit(fd.as_fd()).map_err(|reason| given.refusal(reason))?;
        let listener =
            Listener::lent(given.listener_name(), fd).map_err(|error| given.refusal(&error.to_string()))?;
        Ok(Listener { given: Some(given), ..listener })
    }

    /// One of our own that the descriptor store has kept; `address` is that of [`Listener::local`].
    ///
    /// # Errors
    /// When it does not listen.
    pub fn kept(address: String, fd: OwnedFd, owned: Option<OwnedPath>) -> io::Result<Listener> {
        let listener = Listener::lent(address, fd)?;
        let local = match &owned {
            Some(owned) => owned.path.display().to_string(),
            None => listener.local,
        };
        let addr = ListenAddr::parse(&listener.name).unwrap_or(listener.addr);
        Ok(Listener { addr, local, owned, stored: true, ..listener })
    }

    /// Sets what the connections to come shall be like; the log is told what the kernel refuses. No
    /// effect on Unix sockets.
    pub fn prepare(&self, connections: Preparation) {
        let socket = SockRef::from(&self.fd);
        if socket.local_addr().is_ok_and(|address| address.is_unix()) {
            return;
        }
        if let Err(error) = socket.set_tcp_nodelay(connections.nodelay) {
            warn!("tcp-nodelay on {}: {error}", self.local);
        }
        if let Err(error) = defer_accept(self.fd.as_fd(), connections.defer_accept) {
            warn!("TCP_DEFER_ACCEPT on {}: {error}", self.local);
        }
    }

    /// What to write down for the next image. The caller clears close-on-exec.
    pub fn state(&self) -> ListenerState {
        ListenerState {
            name: self.name.clone(),
            fd: self.fd.as_raw_fd(),
            local: self.local.clone(),
            owned: self.owned.clone(),
            given: self.given.clone(),
            stored: self.stored,
            spare: false,
        }
    }

    /// Takes back a listener that the previous image wrote down.
    ///
    /// # Errors
    /// When the descriptor is not open, is claimed already or is not listening.
    pub fn adopt(state: ListenerState) -> io::Result<Listener> {
        let (fd, _, _) = inherit(state.fd)?;
        Ok(Listener::receive(state, fd))
    }

    /// A socket that another server lends; it stays that server's.
    ///
    /// # Errors
    /// When it does not listen.
    pub fn lent(name: String, fd: OwnedFd) -> io::Result<Listener> {
        let fd = listening(fd)?;
        let socket = SockRef::from(&fd);
        socket.set_nonblocking(true)?;
        let local = printable(&socket.local_addr()?);
        let addr = ListenAddr::Fd(fd.as_raw_fd());
        Ok(Listener { name, addr, fd, local, owned: None, given: None, stored: false })
    }

    /// The same for a descriptor that came over a channel.
    pub fn receive(state: ListenerState, fd: OwnedFd) -> Listener {
        // A name this release cannot read is no reason to lose a queue of connections.
        let addr = ListenAddr::parse(&state.name).unwrap_or(ListenAddr::Fd(state.fd));
        let ListenerState { name, local, owned, given, stored, .. } = state;
        Listener { name, addr, fd, local, owned, given, stored }
    }

    /// Closes this copy of the socket and keeps what is known about it.
    ///
    /// # Errors
    /// When there is no descriptor for a stand-in; the socket is still open then.
    pub fn release(&mut self) -> io::Result<()> {
        self.fd = std::fs::File::open("/dev/null")?.into();
        Ok(())
    }

    /// Removes the socket file if this server made it and the path still names it.
    pub fn remove_if_ours(&self) -> VacuumOutcome {
        let Some(owned) = &self.owned else { return VacuumOutcome::NoPath };
        match remove_if_same(&owned.path, FileId { dev: owned.dev, ino: owned.ino }) {
            Removal::Removed => VacuumOutcome::Removed,
            Removal::NotOurs => VacuumOutcome::NotOurs,
            Removal::Absent => VacuumOutcome::Absent,
            Removal::Failed(reason) => VacuumOutcome::Failed(reason),
        }
    }

    /// Copies the descriptor; the queue of connections is shared.
    ///
    /// # Errors
    /// When no descriptor is left.
    pub fn try_clone_std(&self) -> io::Result<StdListener> {
        let copy = fd::duplicate(self.fd.as_fd())?;
        if SockRef::from(&copy).local_addr()?.is_unix() {
            Ok(StdListener::Unix(UnixListener::from(copy)))
        } else {
            Ok(StdListener::Tcp(TcpListener::from(copy)))
        }
    }
}

/// A longer time that the socket has already, by `DeferAcceptSec=` of its unit, stays.
fn defer_accept(socket: BorrowedFd<'_>, on: bool) -> io::Result<()> {
    let time = deferral::get(socket)?;
    match on {
        true if !time.is_zero() => Ok(()),
        true => deferral::set(socket, DEFERRAL),
        false => deferral::set(socket, Duration::ZERO),
    }
}

/// The queue length the kernel will use for `asked`, and a text for the log when that is less.
pub fn effective_backlog(asked: u32) -> (u32, Option<String>) {
    cut_backlog(asked, limits::somaxconn())
}

fn cut_backlog(asked: u32, limit: u32) -> (u32, Option<String>) {
    if asked <= limit {
        return (asked, None);
    }
    (limit, Some(format!("listen backlog {asked} cut to {limit} (net.core.somaxconn)")))
}

/// The argument of `listen(2)`.
pub(super) fn backlog(asked: u32) -> i32 {
    i32::try_from(effective_backlog(asked).0).unwrap_or(i32::MAX)
}

type Bound = (OwnedFd, String, Option<OwnedPath>);

fn bind_tcp(address: SocketAddr, options: &BindOptions) -> Result<Bound, BindError> {
    let (fd, local) = listen_tcp(address, options).map_err(|source| BindError::tcp(address, source))?;
    Ok((fd, local, None))
}

fn listen_tcp(address: SocketAddr, options: &BindOptions) -> io::Result<(OwnedFd, String)> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    // Connections of an earlier server that linger in TIME_WAIT do not keep the port from us.
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(options.reuse_port)?;
    if address.is_ipv6() {
        // Else [::]:80 and :80 exclude each other, depending on a system-wide setting.
        socket.set_only_v6(true)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(backlog(options.backlog))?;
    let local = printable(&socket.local_addr()?);
    Ok((socket.into(), local))
}

/// The first address of the name that can be bound.
fn bind_host(address: &str, host: &str, port: u16, options: &BindOptions) -> Result<Bound, BindError> {
    let unresolved = |source| BindError::Resolve { address: address.to_owned(), source };
    let mut found: Vec<SocketAddr> = (host, port).to_socket_addrs().map_err(unresolved)?.collect();
    prefer_v4(&mut found);
    let mut first_error = None;
    for candidate in found {
        match bind_tcp(candidate, options) {
            Ok(bound) => return Ok(bound),
            // In use is in use: to slip to the next address would hide a second instance.
            Err(error @ BindError::InUse { .. }) => return Err(error),
            Err(error) => first_error = first_error.or(Some(error)),
        }
    }
    Err(first_error.unwrap_or_else(|| unresolved(io::Error::other("it has no address"))))
}

fn bind_unix(path: &Path, options: &BindOptions) -> Result<Bound, BindError> {
    // The working directory may change before the file is removed.
    let absolute = match env::cwd() {
        Ok(directory) => directory.join(path),
        Err(_) if path.is_absolute() => path.to_owned(),
        Err(error) => return Err(BindError::system(path.display(), error)),
    };
    let (fd, owned) = unix_path::bind(&absolute, options)?;
    Ok((fd, owned.path.display().to_string(), Some(owned)))
}

fn listen_abstract(name: &[u8], addr: &ListenAddr, options: &BindOptions) -> Result<Bound, BindError> {
    let listen = || {
        let socket = bind_abstract(name)?;
        socket.listen(backlog(options.backlog))?;
        Ok(socket)
    };
    let socket = listen().map_err(|source| BindError::system(addr, source))?;
    Ok((socket.into(), addr.to_string(), None))
}

/// A socket with an abstract name that does not listen yet.
pub(super) fn bind_abstract(name: &[u8]) -> io::Result<Socket> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    socket.bind(&abstract_address(name)?)?;
    Ok(socket)
}

/// An abstract name is a path that begins with NUL.
fn abstract_address(name: &[u8]) -> io::Result<SockAddr> {
    use std::os::unix::ffi::OsStrExt;
    let path = [&[0], name].concat();
    SockAddr::unix(std::ffi::OsStr::from_bytes(&path))
}

/// Takes over a descriptor by number, if it is what its user believes.
fn inherit(raw: RawFd) -> io::Result<Bound> {
    let fd = claim_listening(raw)?;
    let socket = SockRef::from(&fd);
    socket.set_nonblocking(true)?;
    let local = printable(&socket.local_addr()?);
    Ok((fd, local, None))
}

/// Whether `fd://raw` could be taken over; it is closed in passing.
pub(super) fn probe_inherited(raw: RawFd) -> Result<(), BindError> {
    claim_listening(raw).map(drop).map_err(|error| unusable(&ListenAddr::Fd(raw), &error))
}

fn claim_listening(raw: RawFd) -> io::Result<OwnedFd> {
    listening(fd::claim(raw)?)
}

fn listening(fd: OwnedFd) -> io::Result<OwnedFd> {
    let raw = fd.as_raw_fd();
    let told = |reason| io::Error::new(io::ErrorKind::InvalidInput, format!("descriptor {raw} {reason}"));
    inherited::unfit(fd.as_fd()).map_err(told)?;
    Ok(fd)
}

fn unusable(address: &ListenAddr, reason: &dyn std::fmt::Display) -> BindError {
    BindError::Inherited { address: address.to_string(), reason: reason.to_string() }
}

fn printable(address: &SockAddr) -> String {
    if let Some(inet) = address.as_socket() {
        return inet.to_string();
    }
    if let Some(path) = address.as_pathname() {
        return path.display().to_string();
    }
    match address.as_abstract_namespace() {
        Some(name) => format!("@{}", String::from_utf8_lossy(name)),
        None => "(unnamed)".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpStream;
    use std::os::fd::IntoRawFd;
    use std::os::unix::net::UnixStream;

    use super::*;

    fn options() -> BindOptions {
        BindOptions { backlog: 16, ..BindOptions::default() }
    }

    /// Sends a listener's descriptor through the door an exec would.
    fn over_exec(listener: Listener) -> ListenerState {
        let state = listener.state();
        assert_eq!(listener.fd.into_raw_fd(), state.fd);
        state
    }

    #[test]
    fn a_port_chosen_by_the_kernel_is_told() {
        let listener = Listener::bind("127.0.0.1:0", &options()).unwrap();
        assert!(!listener.local.ends_with(":0"));
        TcpStream::connect(&listener.local).unwrap();
        assert_eq!(listener.remove_if_ours(), VacuumOutcome::NoPath);
    }

    #[test]
    fn an_address_in_use_is_named() {
        let first = Listener::bind("127.0.0.1:0", &options()).unwrap();
        let error = Listener::bind(&first.local, &options()).unwrap_err().to_string();
        let expected = format!(
            "cannot bind {}: address in use (os error 98); probably another instance is running on the same address",
            first.local
        );
        assert_eq!(error, expected);
    }

    #[test]
    fn two_may_share_a_port_if_both_ask() {
        let shared = BindOptions { reuse_port: true, ..options() };
        let first = Listener::bind("127.0.0.1:0", &shared).unwrap();
        Listener::bind(&first.local, &shared).unwrap();
    }

    #[test]
    fn both_families_share_a_port_number() {
        let Ok(six) = Listener::bind("[::]:0", &options()) else { return };
        let port = six.local.rsplit_once(':').unwrap().1;
        Listener::bind(&format!(":{port}"), &options()).unwrap();
    }

    #[test]
    fn a_host_name_is_resolved_and_a_wrong_one_is_named() {
        let listener = Listener::bind("localhost:0", &options()).unwrap();
        assert!(listener.local.starts_with("127.0.0.1:"), "{}", listener.local);
        assert_eq!(listener.name, "localhost:0");
    }

    #[test]
    fn errors_say_what_to_do() {
        let error = |text: &str| Listener::bind(text, &options()).unwrap_err().to_string();
        assert_eq!(error("8080x:"), "bad address \"8080x:\": the port is missing after the colon");
        assert!(error("192.0.2.1:9").contains("no interface of this machine has the address"));
        assert!(error("/nonexistent/app.sock").contains("does the directory exist?"));
        assert!(error("fd://1000000").contains("descriptor 1000000 is not open"));
    }

    #[test]
    fn an_abstract_name_is_bound_and_refused_the_second_time() {
        let name = format!("@appserver-test-{}", std::process::id());
        let listener = Listener::bind(&name, &options()).unwrap();
        assert_eq!(listener.local, name);
        assert!(matches!(Listener::bind(&name, &options()), Err(BindError::InUse { .. })));
    }

    #[test]
    fn a_socket_file_is_removed_by_its_maker_only_while_it_is_the_same() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("app.sock");
        let listener = Listener::bind(path.to_str().unwrap(), &options()).unwrap();
        std::fs::remove_file(&path).unwrap();
        assert_eq!(listener.remove_if_ours(), VacuumOutcome::Absent);
        let successor = Listener::bind(path.to_str().unwrap(), &options()).unwrap();
        assert_eq!(listener.remove_if_ours(), VacuumOutcome::NotOurs);
        assert_eq!(successor.remove_if_ours(), VacuumOutcome::Removed);
    }

    #[test]
    fn a_listener_handed_over_still_answers_and_still_owns_its_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("app.sock");
        let state = over_exec(Listener::bind(path.to_str().unwrap(), &options()).unwrap());
        let text = serde_json::to_string(&state).unwrap();
        let adopted = Listener::adopt(serde_json::from_str(&text).unwrap()).unwrap();
        UnixStream::connect(&path).unwrap();
        assert!(matches!(adopted.try_clone_std().unwrap(), StdListener::Unix(_)));
        assert_eq!(adopted.addr, ListenAddr::Unix(path));
        assert_eq!(adopted.remove_if_ours(), VacuumOutcome::Removed);
    }

    #[test]
    fn an_inherited_listener_is_taken_over_and_never_removed() {
        let given = TcpListener::bind("127.0.0.1:0").unwrap();
        let local = given.local_addr().unwrap();
        let listener = Listener::bind(&format!("fd://{}", given.into_raw_fd()), &options()).unwrap();
        assert_eq!(listener.local, local.to_string());
        let StdListener::Tcp(copy) = listener.try_clone_std().unwrap() else { panic!("not TCP") };
        assert_eq!(copy.accept().unwrap_err().kind(), io::ErrorKind::WouldBlock);
        assert_eq!(listener.remove_if_ours(), VacuumOutcome::NoPath);
    }

    #[test]
    fn a_descriptor_that_does_not_listen_is_refused() {
        let bound = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        let datagram = Socket::new(Domain::IPV4, Type::DGRAM, None).unwrap();
        let memory = crate::sys::fd::memfd(c"x").unwrap();
        let cases = [
            (bound.into_raw_fd(), "does not listen"),
            (datagram.into_raw_fd(), "is not a stream socket"),
            (memory.into_raw_fd(), "is not a socket"),
        ];
        for (raw, reason) in cases {
            let error = Listener::bind(&format!("fd://{raw}"), &options()).unwrap_err().to_string();
            assert!(
                error.starts_with(&format!("cannot use fd://{raw}: ")) && error.contains(reason),
                "{error}"
            );
        }
    }

    #[test]
    fn a_queue_longer_than_the_kernel_allows_is_cut_aloud() {
        assert_eq!(cut_backlog(100, 4096), (100, None));
        let text = "listen backlog 5000 cut to 4096 (net.core.somaxconn)";
        assert_eq!(cut_backlog(5000, 4096), (4096, Some(text.to_owned())));
        assert!(effective_backlog(u32::MAX).1.is_some());
    }
}
