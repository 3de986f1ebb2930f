//! Why an address could not be bound, in words that help.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::{fmt, io};

use thiserror::Error;

use super::addr::is_privileged;

/// Why an address could not be bound.
#[derive(Debug, Error)]
pub enum BindError {
    /// The text is not an address.
    #[error("bad address \"{address}\": {reason}")]
    Address {
        /// As configured.
        address: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The host name has no address.
    #[error("cannot bind {address}: the host name cannot be resolved: {source}")]
    Resolve {
        /// As configured.
        address: String,
        /// What the resolver said.
        source: io::Error,
    },
    /// Somebody listens there.
    #[error(
        "cannot bind {address}: address in use (os error 98); probably another instance is running on the same address"
    )]
    InUse {
        /// The address.
        address: String,
    },
    /// The path of a unix socket is taken by something else.
    #[error("cannot bind {}: {what} is in the way; remove it or choose another path", path.display())]
    InTheWay {
        /// The path.
        path: PathBuf,
        /// What was found there.
        what: &'static str,
    },
    /// The inherited descriptor is of no use.
    #[error("cannot use {address}: {reason}")]
    Inherited {
        /// As configured.
        address: String,
        /// What it lacks.
        reason: String,
    },
    /// Anything else the system said.
    #[error("cannot bind {address}: {source}{hint}")]
    System {
        /// The address.
        address: String,
        /// The error.
        source: io::Error,
        /// What to do about it, or empty.
        hint: &'static str,
    },
}

impl BindError {
    pub(super) fn in_use(address: impl fmt::Display) -> Self {
        BindError::InUse { address: address.to_string() }
    }

    pub(super) fn system(address: impl fmt::Display, source: io::Error) -> Self {
        let hint = match source.kind() {
            io::ErrorKind::AddrInUse => return BindError::in_use(address),
            io::ErrorKind::AddrNotAvailable => "; no interface of this machine has the address",
            io::ErrorKind::NotFound => "; does the directory exist?",
            _ => "",
        };
        BindError::System { address: address.to_string(), source, hint }
    }

    pub(super) fn tcp(address: SocketAddr, source: io::Error) -> Self {
        if source.kind() == io::ErrorKind::PermissionDenied && is_privileged(&address) {
            let hint = "; a port below 1024 needs root or CAP_NET_BIND_SERVICE: a server that drops its privileges \
                        keeps it for reloads with cap = net_bind_service";
            return BindError::System { address: address.to_string(), source, hint };
        }
        BindError::system(address, source)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn low_ports_hint_at_the_privilege() {
        let denied = || io::Error::from(io::ErrorKind::PermissionDenied);
        let low = BindError::tcp("0.0.0.0:80".parse().unwrap(), denied()).to_string();
        assert!(low.starts_with("cannot bind 0.0.0.0:80: permission denied; a port below 1024"), "{low}");
        let high = BindError::tcp("0.0.0.0:8080".parse().unwrap(), denied()).to_string();
        assert_eq!(high, "cannot bind 0.0.0.0:8080: permission denied");
    }
}
