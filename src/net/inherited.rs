//! Which of the sockets at hand is the one that a configuration means.
//!
//! By the name it was bound under; by the name that a service manager gave it; by its address. Matching by
//! position would serve the wrong clients as soon as somebody changes the order in a file.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use socket2::{SockRef, Type};

use super::{ListenAddr, Listener};
use crate::sys::fs::FileId;
use crate::sys::{env, fd};

/// The name of a socket that inetd passes.
pub const STDIN_NAME: &str = "stdin";

/// Who has made a socket, and keeps it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Giver {
    /// A `.socket` unit.
    Systemd,
    /// The socket bridge of Upstart.
    Upstart,
    /// inetd or xinetd.
    Stdin,
}

/// A socket that a service manager has passed. It is never unlinked, and stays open when it is not used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Given {
    /// `FileDescriptorName=`; several sockets may have the same.
    pub name: String,
    /// The descriptor as passed.
    pub number: RawFd,
    /// Who passed it.
    pub giver: Giver,
}

impl Given {
    /// The name of the listener, which no other has.
    pub(super) fn listener_name(&self) -> String {
        ListenAddr::Fd(self.number).to_string()
    }

    /// Why its descriptor, which `unfit` says of, is of no use, and what to do.
    pub(super) fn refusal(&self, unfit: &str) -> String {
        let Given { name, number, giver } = self;
        match giver {
            Giver::Systemd => format!(
                "descriptor {number}, which systemd has passed under the name \"{name}\", {unfit}; the .socket \
                 unit needs ListenStream= and Accept=no"
            ),
            Giver::Upstart => format!("descriptor {number}, which Upstart has passed, {unfit}"),
            Giver::Stdin => format!(
                "standard input {unfit}; inetd has to start the server with \"wait\" (xinetd: wait = yes), \
                 and otherwise the address to listen on has to be given with http"
            ),
        }
    }
}

/// A place that a socket is bound to.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Place {
    Tcp {
        address: SocketAddr,
        /// An IPv6 socket that takes the connections of IPv4, too.
        both: bool,
    },
    Unix(PathBuf),
    Abstract(Vec<u8>),
}

/// Takes from `held` what `address` means: one listener, none, or all of a name that several have.
///
/// # Errors
/// When `fd:NAME` names nothing; says what there is.
pub(super) fn take(address: &str, held: &mut Vec<Listener>) -> Result<Vec<Listener>, String> {
    if let Some(position) = held.iter().position(|it| it.name == address) {
        return Ok(vec![held.remove(position)]);
    }
    // What cannot be read is told by who binds it.
    let Ok(wanted) = ListenAddr::parse(address) else { return Ok(Vec::new()) };
    if let ListenAddr::Named(name) = &wanted {
        let named: Vec<_> =
            held.extract_if(.., |it| it.given.as_ref().is_some_and(|given| given.name == *name)).collect();
        return if named.is_empty() { Err(nothing_named(name, held)) } else { Ok(named) };
    }
    let position = position(&wanted, held);
    Ok(position.map(|position| held.remove(position)).into_iter().collect())
}

/// Whether one of `taken`, a socket of IPv6 and IPv4, serves this address, too.
pub(super) fn covered(address: &str, taken: &[&Listener]) -> bool {
    let Ok(ListenAddr::Tcp(wanted)) = ListenAddr::parse(address) else { return false };
    let given = taken.iter().filter(|it| it.given.is_some()).filter_map(|it| place(it));
    given.into_iter().any(|place| match place {
        Place::Tcp { address, both: true } => address.port() == wanted.port() && wanted.ip().is_unspecified(),
        _ => false,
    })
}

fn nothing_named(name: &str, held: &[Listener]) -> String {
    let mut names: Vec<&str> = held.iter().filter_map(|it| Some(&*it.given.as_ref()?.name)).collect();
    names.sort_unstable();
    names.dedup();
    match names[..] {
        [] => "no service manager has passed a socket; start the .socket unit, which needs Service= or the \
               same name as the service"
            .to_owned(),
        _ => format!(
            "the service manager has passed no socket of that name (FileDescriptorName={name}); there is {}",
            names.join(", ")
        ),
    }
}

fn position(wanted: &ListenAddr, held: &[Listener]) -> Option<usize> {
    let places: Vec<Option<Place>> = held.iter().map(place).collect();
    let find =
        |matches: &dyn Fn(&Place) -> bool| places.iter().position(|it| it.as_ref().is_some_and(matches));
    match wanted {
        ListenAddr::Tcp(address) => find_tcp(*address, &places),
        // Not asked for in vain: the resolver may take its time.
        ListenAddr::Host { host, port } if places.iter().flatten().any(|it| it.port() == Some(*port)) => {
            let addresses = (host.as_str(), *port).to_socket_addrs().ok()?;
            addresses.into_iter().find_map(|address| find_tcp(address, &places))
        }
        ListenAddr::Unix(path) => {
            let path = env::cwd().ok()?.join(path);
            find(&|place| matches!(place, Place::Unix(bound) if same_file(bound, &path)))
        }
        ListenAddr::Abstract(name) => find(&|place| matches!(place, Place::Abstract(bound) if bound == name)),
        ListenAddr::Host { .. } | ListenAddr::Fd(_) | ListenAddr::Named(_) => None,
    }
}

/// The very address; else, for all addresses of IPv4, a socket that has them together with those of IPv6,
/// as `ListenStream=80` makes it: the address cannot be bound a second time.
fn find_tcp(wanted: SocketAddr, places: &[Option<Place>]) -> Option<usize> {
    let find = |matches: &dyn Fn(SocketAddr, bool) -> bool| {
        let fits = |place: &Option<Place>| matches!(place, Some(Place::Tcp { address, both }) if matches(*address, *both));
        places.iter().position(fits)
    };
    let same = |address: SocketAddr| address.ip() == wanted.ip() && address.port() == wanted.port();
    let exact = find(&|address, _| same(address));
    let all_v4 = wanted.ip() == IpAddr::V4(Ipv4Addr::UNSPECIFIED);
    let unspecified = |address: SocketAddr| address.ip() == IpAddr::V6(Ipv6Addr::UNSPECIFIED);
    exact.or_else(|| {
        find(&|address, both| all_v4 && both && unspecified(address) && address.port() == wanted.port())
    })
}

/// Names may differ by a symbolic link to the directory, such as `/var/run`.
fn same_file(bound: &Path, wanted: &Path) -> bool {
    let id = |path| FileId::of_path(path).ok().flatten();
    bound == wanted || id(bound).is_some_and(|bound| id(wanted) == Some(bound))
}

impl Place {
    fn port(&self) -> Option<u16> {
        match self {
            Place::Tcp { address, .. } => Some(address.port()),
            Place::Unix(_) | Place::Abstract(_) => None,
        }
    }
}

fn place(listener: &Listener) -> Option<Place> {
    if let Some(owned) = &listener.owned {
        // The kernel knows the temporary name of the file only.
        return Some(Place::Unix(owned.path.clone()));
    }
    let socket = SockRef::from(&listener.fd);
    let bound = socket.local_addr().ok()?;
    if let Some(address) = bound.as_socket() {
        let both = address.is_ipv6() && !socket.only_v6().unwrap_or(true);
        return Some(Place::Tcp { address, both });
    }
    let path = bound.as_pathname().map(|path| Place::Unix(path.to_owned()));
    path.or_else(|| bound.as_abstract_namespace().map(|name| Place::Abstract(name.to_vec())))
}

/// What nobody has asked for, and what to write.
pub fn unclaimed(listener: &Listener) -> Option<String> {
    let Given { name, number, giver } = listener.given.as_ref()?;
    let passed = match giver {
        Giver::Systemd => format!("was passed by systemd as descriptor {number}, named \"{name}\","),
        Giver::Upstart => format!("was passed by Upstart as descriptor {number}"),
        Giver::Stdin => "is standard input, as inetd does it,".to_owned(),
    };
    let otherwise = match giver {
        Giver::Systemd => "take its line out of the .socket unit",
        Giver::Upstart => "take it out of \"start on\"",
        Giver::Stdin => "set skip-zero",
    };
    let local = &listener.local;
    Some(format!(
        "the socket {local} {passed} and no option claims it: write http = {local} or http = fd:{name}, or {otherwise}"
    ))
}

/// Whether it is a listening socket.
pub fn listens(fd: &impl AsFd) -> bool {
    SockRef::from(fd).is_listener().unwrap_or(false)
}

/// What is wrong with a descriptor that is to be a listening stream socket; the words follow its name.
pub(super) fn unfit(fd: BorrowedFd<'_>) -> Result<(), &'static str> {
    let socket = SockRef::from(&fd);
    match socket.r#type() {
        Err(_) => Err("is not a socket"),
        Ok(kind) if kind != Type::STREAM => Err("is not a stream socket"),
        Ok(_) if socket.is_listener().unwrap_or(false) => Ok(()),
        Ok(_) if socket.peer_addr().is_ok() => Err("is a connection and not a socket that listens"),
        Ok(_) => Err("is a socket that does not listen"),
    }
}

/// Takes the socket from standard input, if it is one that inetd could have put there. Standard output and
/// error that are the same socket lead to `/dev/null` from now on: no word of ours may reach a client.
///
/// Sockets without an address are something else: shells and supervisors take pairs of them for pipes.
pub fn socket_on_stdin() -> Option<OwnedFd> {
    let stdin = std::io::stdin();
    let socket = SockRef::from(&stdin);
    let is_inet = socket.local_addr().ok()?.as_socket().is_some();
    if !is_inet && !listens(&stdin) {
        return None;
    }
    let copy = fd::duplicate(stdin.as_fd()).ok()?;
    let null = std::fs::File::open("/dev/null").ok()?;
    let same = |other: BorrowedFd<'_>| fd::identity(other).ok() == fd::identity(copy.as_fd()).ok();
    let sink = std::fs::OpenOptions::new().write(true).open("/dev/null").ok()?;
    for (number, shared) in [(1, same(std::io::stdout().as_fd())), (2, same(std::io::stderr().as_fd()))] {
        if shared {
            fd::replace(sink.as_fd(), number).ok()?;
        }
    }
    // Children must not have it, and it must not look like a file to read the configuration from.
    fd::replace(null.as_fd(), 0).ok()?;
    Some(copy)
}
