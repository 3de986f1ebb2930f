//! A gate at which the test application waits: the test knows exactly how far it has come.

use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use nix::sys::socket::{setsockopt, sockopt};
use nix::sys::time::{TimeVal, TimeValLike};

use super::LIMIT;
use super::http::Connection;

/// A gate; name it in the settings as `load_gate` or `worker_gate`.
pub struct Gate {
    listener: UnixListener,
    path: PathBuf,
}

/// A process that waits at the gate. Dropped, it goes on.
pub struct Visitor {
    /// Its pid.
    pub pid: u32,
    _connection: UnixStream,
}

impl Gate {
    /// Opens a gate on a socket of this name.
    pub fn new(path: PathBuf) -> Self {
        let listener = UnixListener::bind(&path).expect("a new name in a directory of ours");
        let patience = TimeVal::seconds(LIMIT.as_secs().try_into().expect("a short time"));
        // accept(2) obeys it: a process that never comes fails the test instead of hanging it.
        setsockopt(&listener, sockopt::ReceiveTimeout, &patience).expect("sockets have time-outs");
        Gate { listener, path }
    }

    /// For the settings.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Waits for the next process to come to the gate.
    pub fn wait(&self) -> Visitor {
        let (connection, _) = self.listener.accept().expect("the application comes to the gate");
        let peer = nix::sys::socket::getsockopt(&connection, sockopt::PeerCredentials);
        let pid = peer.expect("unix sockets know their peer").pid();
        Visitor { pid: pid.try_into().expect("pids are positive"), _connection: connection }
    }

    /// Sends a request that occupies a slot until the visitor is dropped.
    pub fn hold(&self, connection: &mut Connection) -> Visitor {
        let request = format!("GET /wait?{} HTTP/1.1\r\nHost: a\r\n\r\n", self.path.display());
        connection.send(request.as_bytes()).expect("the server reads");
        self.wait()
    }
}
