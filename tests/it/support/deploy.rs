//! Releases for a service under a real service manager, in the private root that the manager has
//! ([`Systemd`]): one that works, the next one, one that does not load.

use serde_json::json;

use super::Server;
use super::systemd::Systemd;
use crate::shipped_config::shipped;

/// Installs the server with its libraries for Python, and takes an empty `/srv` for this machine.
pub fn install_server_and_plugin(systemd: &Systemd) {
    systemd.install_server();
    for library in ["libappserver_python.so", "libappserver_guest.so"] {
        systemd.install(&Server::builtin().program().with_file_name(library), library);
    }
    // /srv is the machine's own; from here on it is not.
    systemd.run("mount", ["-t", "tmpfs", "-o", "mode=755", "tmpfs", "/srv"]).succeeds();
}

/// What the files in `config/` for Python projects expect on the machine: `/srv/shop`, `/etc/default/shop`.
pub fn install_shop(systemd: &Systemd) {
    install_server_and_plugin(systemd);
    systemd.run("/usr/bin/python3", ["-m", "venv", "--without-pip", "/srv/shop/venv"]).succeeds();
    systemd.file("/srv/shop/run", shipped("systemd/shop-port80.run"));
    systemd.run("chmod", ["755", "/srv/shop/run"]).succeeds();
    systemd.file("/etc/default/shop", "WEB_CONCURRENCY=2\n");
}

/// What a service runs, in the hands of the test.
#[derive(Debug, Clone, Copy)]
pub enum Code {
    /// The test application, in place of the server.
    BuiltIn,
    /// A module in Python.
    Python,
}

impl Code {
    /// Puts the server, and what it needs, where the files in `config/` look for it.
    pub fn install(self, systemd: &Systemd) {
        match self {
            Code::BuiltIn => {
                systemd.install_app();
                systemd.install(Server::app().program(), "appserver");
                systemd.systemctl(["set-environment", &systemd.settings_variable()]).succeeds();
            }
            Code::Python => install_shop(systemd),
        }
    }

    /// The next start or reload loads this.
    pub fn deploy(self, systemd: &Systemd, version: &str) {
        match self {
            Code::BuiltIn => systemd.set_settings(json!({ "version": version })),
            Code::Python => systemd.file(
                "/srv/shop/shop/wsgi.py",
                format!(
                    "def application(environ, start_response):\n    \
                     start_response('200 OK', [('Content-Type', 'text/plain')])\n    \
                     return [b'hello {version}\\n']\n"
                ),
            ),
        }
    }

    /// The next reload fails.
    pub fn deploy_broken(self, systemd: &Systemd) {
        match self {
            Code::BuiltIn => systemd.set_settings(json!({ "load": "fail" })),
            Code::Python => systemd.file("/srv/shop/shop/wsgi.py", "import no_such_module\n"),
        }
    }
}
