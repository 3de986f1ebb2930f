//! The Python applications of `tests/apps`, each with its virtual environment and its ini.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use super::Server;
use super::server::Builder;
use crate::shipped_config::{find_address, with_ini};

/// An application in `tests/apps`, and a directory for what it writes.
pub struct Project {
    name: &'static str,
    data: tempfile::TempDir,
}

impl Project {
    /// The one of that name.
    ///
    /// # Panics
    /// When its requirements are not installed.
    pub fn new(name: &'static str) -> Self {
        let data = tempfile::Builder::new().prefix("shop-").tempdir().expect("a temporary directory");
        let project = Project { name, data };
        let python = project.python();
        assert!(python.exists(), "{} is not there: run scripts/test-apps", python.display());
        project
    }

    /// Its directory in the source tree.
    pub fn root(&self) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/apps").join(self.name)
    }

    /// Its virtual environment.
    pub fn environment(&self) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("target/apps").join(self.name)
    }

    fn python(&self) -> PathBuf {
        self.environment().join("bin/python")
    }

    /// A file that the application writes, or that is served beside it.
    pub fn data(&self, name: &str) -> PathBuf {
        self.data.path().join(name)
    }

    fn variables(&self) -> [(&'static str, PathBuf); 2] {
        // The source tree stays as it is.
        [("SHOP_DATA", self.data("")), ("PYTHONDONTWRITEBYTECODE", PathBuf::from("1"))]
    }

    /// Runs the interpreter of its virtual environment in its directory, to its end.
    ///
    /// # Panics
    /// When it fails.
    pub fn run(&self, args: &[&str], env: &[(&str, &str)]) -> Output {
        let mut command = Command::new(self.python());
        command.args(args).current_dir(self.root()).envs(self.variables()).envs(env.iter().copied());
        let output = command.output().expect("the interpreter runs");
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        output
    }

    /// A server with the ini in `config/` that is made for it.
    pub fn builder(&self) -> Builder {
        let text = |path: PathBuf| path.to_str().expect("a plain name").to_owned();
        let (base, environment) = (text(self.root()), text(self.environment()));
        let (public, release) = (text(self.data("public")), text(self.data("release")));
        let mut replaced = vec![
            ("base=/srv/shop", format!("base={base}")),
            ("%(base)/venv", environment),
            ("%(base)/release", release),
            ("http-socket = 127.0.0.1:8000", "http-socket = 127.0.0.1:0".to_owned()),
        ];
        if self.name == "django" {
            replaced.push(("%(base)/public", public));
        }
        let replaced: Vec<_> = replaced.iter().map(|(from, to)| (*from, to.as_str())).collect();
        let builder = with_ini(Server::builtin(), &format!("{}.ini", self.name), &replaced);
        self.variables().into_iter().fold(builder, |builder, (name, value)| builder.env(name, value))
    }

    /// Starts it.
    pub fn start(&self) -> Server {
        let mut server = self.builder().start();
        find_address(&mut server);
        server
    }
}
