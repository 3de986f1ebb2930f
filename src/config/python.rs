//! ● What is said about Python: where the application is, in which interpreter, how it is called.

use std::collections::HashSet;
use std::path::PathBuf;
use std::time::Duration;

use super::Entry;
use super::error::ConfigError;

mod spec;

pub use spec::{AppSource, Callable, ModuleSpec, Mount};
pub(super) use spec::{alias, callable, env_behavior, executable, file, module, mount};

/// The options of Python applications.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PythonOptions {
    // The applications.
    /// `module`, `wsgi`, `-w`
    pub module: Option<ModuleSpec>,
    /// `wsgi-file`, `file`
    pub wsgi_file: Option<PathBuf>,
    /// `eval`: code that defines the callable.
    pub eval: Option<String>,
    /// `callable`: the one to take from a module or file that names none, default `application`.
    pub callable: Callable,
    /// `mount`, in order; no prefix twice.
    pub mounts: Vec<Mount>,
    /// `no-default-app`: 404 outside the mount points.
    pub no_default_app: bool,

    // The interpreter.
    /// `virtualenv`, `venv`, `home`, `-H`: a directory with `bin/python`.
    pub virtualenv: Option<PathBuf>,
    /// `python`: the executable of the interpreter; looked up in `PATH` when it has no slash.
    pub executable: Option<PathBuf>,
    /// `py-executable`: `sys.executable`, where it shall not be the interpreter's own.
    pub sys_executable: Option<PathBuf>,
    /// `pythonpath`: directories or patterns for `sys.path`. Each is put in front, so later ones are
    /// searched first.
    pub path: Vec<PathBuf>,
    /// `pyargv`: `sys.argv` behind its first word, which is the server's.
    pub argv: Vec<String>,
    /// `no-site`: the `site` module is not loaded.
    pub no_site: bool,
    /// `optimize`, `-O`: 0 to 2.
    pub optimize: u8,

    // What is loaded besides.
    /// `import`: modules or files loaded before the applications, where those are.
    pub imports: Vec<String>,
    /// `shared-import`: the same, before `import` and for every process.
    pub shared_imports: Vec<String>,
    /// `pymodule-alias`: the name in `sys.modules`, the module or file it stands for. Made before any import.
    pub module_aliases: Vec<(String, String)>,
    /// `post-pymodule-alias`: the same, made after the applications have been loaded.
    pub post_module_aliases: Vec<(String, String)>,

    // Requests.
    /// `wsgi-disable-file-wrapper` makes it false: `environ` has `wsgi.file_wrapper`.
    pub file_wrapper: bool,
    /// `wsgi-accept-buffer`: a chunk of a body may be any object with the buffer interface.
    pub accept_buffer: bool,
    /// `wsgi-strict`: `bytes` returned as a body are iterated, as WSGI has it, not sent as one chunk.
    pub strict: bool,
    /// `start_response-nodelay`: headers are sent by `start_response`.
    pub start_response_nodelay: bool,
    /// `catch-exceptions`: an exception is shown to the client too.
    pub catch_exceptions: bool,

    // Processes.
    /// `reload-os-env`: `os.environ` is read anew when the application is loaded.
    pub reload_os_env: bool,
    /// `py-autoreload`: how often to look for changed modules; zero is never.
    pub autoreload: Duration,
    /// `py-auto-reload-ignore`: modules not to look at.
    pub autoreload_ignore: Vec<String>,
    /// `skip-atexit`: a worker that leaves runs no exit handlers at all.
    pub skip_atexit: bool,
    /// `skip-atexit-teardown`: it runs `uwsgi.atexit` only, and does not finalize the interpreter.
    pub skip_atexit_teardown: bool,
}

impl Default for PythonOptions {
    fn default() -> Self {
        PythonOptions {
            module: None,
            wsgi_file: None,
            eval: None,
            callable: Callable { name: "application".to_owned(), is_factory: false },
            mounts: Vec::new(),
            no_default_app: false,
            virtualenv: None,
            executable: None,
            sys_executable: None,
            path: Vec::new(),
            argv: Vec::new(),
            no_site: false,
            optimize: 0,
            imports: Vec::new(),
            shared_imports: Vec::new(),
            module_aliases: Vec::new(),
            post_module_aliases: Vec::new(),
            file_wrapper: true,
            accept_buffer: false,
            strict: false,
            start_response_nodelay: false,
            catch_exceptions: false,
            reload_os_env: false,
            autoreload: Duration::ZERO,
            autoreload_ignore: Vec::new(),
            skip_atexit: false,
            skip_atexit_teardown: false,
        }
    }
}

impl PythonOptions {
    /// The application outside the mount points. The first of `module`, `wsgi-file` and `eval`, as
    /// in uWSGI, which skips the others because the place is taken.
    pub fn default_app(&self) -> Option<AppSource> {
        let module = self.module.clone().map(AppSource::Module);
        let file = || self.wsgi_file.clone().map(AppSource::File);
        let code = || self.eval.clone().map(AppSource::Code);
        module.or_else(file).or_else(code)
    }

    /// Whether there is an application to load, and so an interpreter to find.
    pub fn has_app(&self) -> bool {
        self.module.is_some() || self.wsgi_file.is_some() || self.eval.is_some() || !self.mounts.is_empty()
    }

    /// Drops what has no place, with a warning for each.
    pub(super) fn settle(&mut self, entries: &[&Entry]) -> Vec<ConfigError> {
        let mut warnings = self.warn_of_other_apps(entries);
        if self.virtualenv.is_some()
            && let Some(entry) = entries.iter().rfind(|entry| entry.name == "python")
        {
            warnings.push(ConfigError::new(entry, "is not used: virtualenv has an interpreter of its own"));
        }
        let mut taken = HashSet::new();
        for entry in entries.iter().filter(|entry| entry.name == "mount") {
            let Some(mount) = entry.value.as_deref().and_then(|value| mount(value).ok()) else { continue };
            if !taken.insert(mount.prefix.clone()) {
                let problem = format!("is not used: an application is mounted on {} already", mount.prefix);
                warnings.push(ConfigError::new(entry, problem));
            }
        }
        taken.clear();
        self.mounts.retain(|mount| taken.insert(mount.prefix.clone()));
        warnings
    }

    fn warn_of_other_apps(&self, entries: &[&Entry]) -> Vec<ConfigError> {
        let given = [
            ("module", self.module.is_some()),
            ("wsgi-file", self.wsgi_file.is_some()),
            ("eval", self.eval.is_some()),
        ];
        let mut given = given.into_iter().filter_map(|(name, is_given)| is_given.then_some(name));
        let Some(first) = given.next() else { return Vec::new() };
        let other = |name| {
            // The last one is the one in force.
            let entry = entries.iter().rfind(|entry| entry.name == name)?;
            let problem = format!("is not used: {first} names the application; use mount for a second one");
            Some(ConfigError::new(entry, problem))
        };
        given.filter_map(other).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::Config;
    use super::*;

    fn build(lines: &[&str]) -> Config {
        let entry = |line: &&str| {
            let (name, value) = line.split_once('=').expect("a value");
            Entry { name: name.to_owned(), value: Some(value.to_owned()), origin: "a.ini:1".to_owned() }
        };
        Config::build(lines.iter().map(entry).collect())
            .unwrap_or_else(|errors| panic!("{lines:?}: {errors}"))
    }

    fn warnings(config: &Config) -> Vec<String> {
        config.warnings.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn the_first_way_to_name_the_application_is_taken_and_the_others_are_told() {
        let config = build(&["eval=x", "wsgi-file=a.py", "module=a:b"]);
        assert_eq!(config.python.default_app(), Some(AppSource::Module(module("a:b").expect("valid"))));
        let problem = "is not used: module names the application; use mount for a second one";
        let expected =
            [format!("a.ini:1: wsgi-file = \"a.py\" {problem}"), format!("a.ini:1: eval = \"x\" {problem}")];
        assert_eq!(warnings(&config), expected);
        let config = build(&["wsgi-file=a.py"]);
        assert_eq!(config.python.default_app(), Some(AppSource::File(PathBuf::from("a.py"))));
        assert_eq!(warnings(&config), <[String; 0]>::default());
    }

    #[test]
    fn a_virtual_environment_goes_before_an_executable_and_that_is_told() {
        let problem = "is not used: virtualenv has an interpreter of its own";
        let config = build(&["python=python3.12", "venv=/srv/venv"]);
        assert_eq!(warnings(&config), [format!("a.ini:1: python = \"python3.12\" {problem}")]);
    }

    #[test]
    fn the_first_application_on_a_mount_point_stays() {
        let config = build(&["mount=/a=a.py", "mount=/b=b.py", "mount=/a/=c.py"]);
        let prefixes: Vec<&str> = config.python.mounts.iter().map(|mount| mount.prefix.as_str()).collect();
        assert_eq!(prefixes, ["/a", "/b"]);
        let expected = "a.ini:1: mount = \"/a/=c.py\" is not used: an application is mounted on /a already";
        assert_eq!(warnings(&config), [expected]);
    }

    #[test]
    fn there_is_an_application_as_soon_as_one_is_named() {
        assert!(!Config::defaults().python.has_app());
        for line in ["module=a", "wsgi-file=a.py", "eval=x", "mount=/a=a.py"] {
            assert!(build(&[line]).python.has_app(), "{line}");
        }
        assert!(!build(&["virtualenv=/srv/venv", "import=a"]).python.has_app());
    }

    #[test]
    fn values_arrive_where_they_belong() {
        let config = build(&[
            "pyargv=  --a  b=c ",
            "callable=create()",
            "venv=/srv/venv",
            "pp=/one",
            "python-path=/two/*",
            "py-auto-reload=2",
            "skip-atexit=true",
            "wsgi-disable-file-wrapper=true",
            "pymodule-alias=a=b",
            "wsgi-env-behaviour=cheat",
        ]);
        let expected = PythonOptions {
            argv: vec!["--a".to_owned(), "b=c".to_owned()],
            callable: Callable { name: "create".to_owned(), is_factory: true },
            virtualenv: Some(PathBuf::from("/srv/venv")),
            path: vec![PathBuf::from("/one"), PathBuf::from("/two/*")],
            autoreload: Duration::from_secs(2),
            skip_atexit: true,
            file_wrapper: false,
            module_aliases: vec![("a".to_owned(), "b".to_owned())],
            ..PythonOptions::default()
        };
        assert_eq!(config.python, expected);
    }
}
