//! Could an address be bound? Asked without disturbing whoever listens there.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs};

use socket2::{Domain, Socket, Type};

use super::addr::{ListenAddr, prefer_v4};
use super::error::BindError;
use super::{listener, unix_path};

/// Binds what can be bound without being seen, and lets go of it again.
///
/// A TCP socket is bound but never listens, so no client can reach it. For a socket file only the
/// name is looked at and its directory tried; a server that listens there sees a connection that
/// is closed at once, as with every start by mistake. Our copy of an inherited socket is closed: its
/// owner, who passed it on, has another.
///
/// # Errors
/// What binding would say.
pub fn probe(address: &str, reuse_port: bool) -> Result<(), BindError> {
    let addr = ListenAddr::parse(address)
        .map_err(|reason| BindError::Address { address: address.to_owned(), reason })?;
    match &addr {
        ListenAddr::Tcp(address) => probe_tcp(*address, reuse_port),
        ListenAddr::Host { host, port } => probe_host(address, host, *port, reuse_port),
        ListenAddr::Unix(path) => match std::path::absolute(path) {
            Ok(path) => unix_path::probe(&path),
            Err(error) => Err(BindError::system(path.display(), error)),
        },
        ListenAddr::Abstract(name) => {
            listener::bind_abstract(name).map(drop).map_err(|source| BindError::system(&addr, source))
        }
        ListenAddr::Fd(raw) => listener::probe_inherited(*raw),
        // Only a service manager can say.
        ListenAddr::Named(_) => Ok(()),
    }
}

fn probe_tcp(address: SocketAddr, reuse_port: bool) -> Result<(), BindError> {
    let bind = || -> io::Result<()> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
        socket.set_reuse_address(true)?;
        socket.set_reuse_port(reuse_port)?;
        if address.is_ipv6() {
            socket.set_only_v6(true)?;
        }
        socket.bind(&address.into())
    };
    bind().map_err(|source| BindError::tcp(address, source))
}

fn probe_host(address: &str, host: &str, port: u16, reuse_port: bool) -> Result<(), BindError> {
    let unresolved = |source| BindError::Resolve { address: address.to_owned(), source };
    let mut found: Vec<SocketAddr> = (host, port).to_socket_addrs().map_err(unresolved)?.collect();
    prefer_v4(&mut found);
    let mut outcome = Err(unresolved(io::Error::other("it has no address")));
    for candidate in found {
        outcome = probe_tcp(candidate, reuse_port);
        if matches!(outcome, Ok(()) | Err(BindError::InUse { .. })) {
            break;
        }
    }
    outcome
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn a_free_address_is_free_and_still_free_afterwards() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("app.sock");
        let name = format!("@appserver-probe-{}", std::process::id());
        for address in ["127.0.0.1:0", "localhost:0", path.to_str().unwrap(), &name] {
            probe(address, false).unwrap();
            probe(address, false).unwrap();
        }
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
    }

    #[test]
    fn an_address_in_use_is_told_and_its_owner_undisturbed() {
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        tcp.set_nonblocking(true).unwrap();
        let address = tcp.local_addr().unwrap().to_string();
        assert!(matches!(probe(&address, false), Err(BindError::InUse { .. })));
        assert!(tcp.accept().is_err(), "nobody connected");
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("app.sock");
        let _unix = UnixListener::bind(&path).unwrap();
        assert!(matches!(probe(path.to_str().unwrap(), false), Err(BindError::InUse { .. })));
    }

    #[test]
    fn what_cannot_be_bound_is_explained() {
        let error = |address: &str| probe(address, false).unwrap_err().to_string();
        assert!(error("192.0.2.1:9").contains("no interface of this machine"));
        assert!(error("/nonexistent/app.sock").contains("does the directory exist?"));
        assert!(error("8080").contains("write :8080"));
    }
}
