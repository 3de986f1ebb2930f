//! nginx in front of a server: an ordinary child with a directory and a socket of its own, never the
//! service of the machine.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use super::http::{Connection, Target};
use super::{LIMIT, eventually};

/// Its socket, in its directory.
const SOCKET: &str = "nginx.sock";

/// A running nginx; dropped, it is gone.
pub struct Nginx {
    child: Child,
    directory: TempDir,
}

impl Nginx {
    /// Starts it with what a distribution would include into its `http` block. `listen 80;` in
    /// there becomes a Unix socket: no port is ever guessed.
    pub fn start(server_block: &str) -> Self {
        let directory = tempfile::Builder::new().prefix("nginx-").tempdir().expect("a temporary directory");
        let at = |name: &str| directory.path().join(name);
        let listen = "listen 80;";
        assert!(server_block.contains(listen), "the file is for port 80");
        let block = server_block.replace(listen, &format!("listen unix:{};", at(SOCKET).display()));
        fs::write(at("server.conf"), block).expect("a directory of ours");
        fs::write(at("nginx.conf"), main_configuration()).expect("a directory of ours");
        let mut command = Command::new("/usr/sbin/nginx");
        command.arg("-p").arg(directory.path()).args(["-e", "error.log", "-c", "nginx.conf"]);
        let child = command.stdin(Stdio::null()).spawn().expect("nginx is installed: scripts/test does it");
        let nginx = Nginx { child, directory };
        eventually("nginx listens", LIMIT, || Connection::open(&nginx.target(), LIMIT).ok());
        nginx
    }

    /// Where it listens.
    pub fn target(&self) -> Target {
        Target::Unix(self.directory.path().join(SOCKET))
    }

    /// What it complained about.
    pub fn errors(&self) -> String {
        fs::read_to_string(self.directory.path().join("error.log")).unwrap_or_default()
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // One process (`master_process off`), so nothing of it is left. Gone already is as good.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- errors of nginx\n{}--- end", self.errors());
        }
    }
}

/// All paths that nginx would otherwise take from the machine.
fn main_configuration() -> String {
    let modules = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"];
    let temporary: String = modules.map(|it| format!("    {it}_temp_path {it};\n")).concat();
    assert!(Path::new("/etc/nginx/mime.types").exists(), "nginx is installed: scripts/test does it");
    format!(
        "daemon off;\nmaster_process off;\npid nginx.pid;\nevents {{}}\nhttp {{\n{temporary}    \
         access_log off;\n    include /etc/nginx/mime.types;\n    include server.conf;\n}}\n"
    )
}
