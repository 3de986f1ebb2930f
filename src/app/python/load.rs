//! Loading the applications: the plugin, and what it has to know.

use std::collections::BTreeMap;
use std::error::Error;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{Choice, Code, Interpreter, find, guest_library, plugin_library};
use crate::app::plugin::{PluginApp, Settings};
use crate::config::python::{AppSource, Mount};
use crate::config::{Config, PythonOptions};
use crate::sys::{process, stacks};

/// Bytes of a request body that are kept in memory unless `post-buffering` says otherwise.
const BODY_IN_MEMORY: u64 = 1024 * 1024;

/// What applications are loaded with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Found {
    /// The interpreter.
    pub interpreter: Interpreter,
    /// The plugin.
    plugin: PathBuf,
    /// The server as a library, for an interpreter whose code is in its executable.
    pub guest: Option<PathBuf>,
    /// This process is that executable.
    #[serde(skip)]
    is_here: bool,
}

/// A generation is loaded with one interpreter, be it in several workers.
static FOUND: OnceLock<Found> = OnceLock::new();

/// Finds the interpreter and the plugin that `config` names, once for this process and those forked
/// from it.
///
/// With `may_move` this process could become the executable of the interpreter ([`use_found`]).
///
/// # Errors
/// When there is no such interpreter, or no plugin for it.
pub fn find_once(config: &Config, may_move: bool) -> Result<&'static Found, Box<dyn Error>> {
    if let Some(found) = FOUND.get() {
        return Ok(found);
    }
    let guest = if may_move { guest_library(&config.plugin_dirs) } else { None };
    let interpreter = find(&Choice::of(&config.python), guest.as_deref())?;
    let plugin = plugin_library(&config.plugin_dirs)?;
    Ok(FOUND.get_or_init(|| Found { interpreter, plugin, guest, is_here: false }))
}

/// Makes it known in the process that has become the executable of the interpreter.
pub fn use_found(found: Found) {
    FOUND.get_or_init(|| Found { is_here: true, ..found });
}

/// Loads the applications that `config` names, with the interpreter that it names.
///
/// # Errors
/// When there is no such interpreter, no plugin for it, or an application cannot be loaded.
pub fn load(config: &Config) -> Result<PluginApp, Box<dyn Error>> {
    let found = find_once(config, false)?;
    let library = match &found.interpreter.code {
        Code::Executable { .. } if found.is_here => None,
        code => Some(code.library().ok_or("this process is not the executable of the interpreter")?),
    };
    let body_in_memory = match config.post_buffering {
        0 => BODY_IN_MEMORY,
        bytes => bytes,
    };
    let settings = Settings {
        threads: config.threads,
        body_in_memory: usize::try_from(body_in_memory).unwrap_or(usize::MAX),
        plugin: format!("{}\0{}", command_line(&found.interpreter, &config.python), settings(config)),
        skip_atexit: config.python.skip_atexit,
    };
    PluginApp::load(library, &found.plugin, settings)
}

/// As the interpreter would be started by hand, one argument a line.
fn command_line(interpreter: &Interpreter, options: &PythonOptions) -> String {
    let mut line = interpreter.executable.to_string_lossy().into_owned();
    match options.optimize {
        0 => {}
        1 => line.push_str("\n-O"),
        _ => line.push_str("\n-OO"),
    }
    if options.no_site {
        line.push_str("\n-S");
    }
    line
}

fn settings(config: &Config) -> Value {
    let options = &config.python;
    let mut mounts: Vec<Value> = options.default_app().iter().map(|source| mount(None, source)).collect();
    mounts.extend(options.mounts.iter().map(|Mount { prefix, source }| mount(Some(prefix), source)));
    json!({
        "mounts": mounts,
        "callable": options.callable.to_string(),
        "no_default_app": options.no_default_app,
        "py_executable": options.sys_executable.as_deref().map(Path::to_string_lossy),
        "pythonpath": options.path.iter().map(|path| path.to_string_lossy()).collect::<Vec<_>>(),
        "pyargv": options.argv,
        "imports": options.shared_imports.iter().chain(&options.imports).collect::<Vec<_>>(),
        "aliases": options.module_aliases,
        "post_aliases": options.post_module_aliases,
        "file_wrapper": options.file_wrapper,
        "accept_buffer": options.accept_buffer,
        "strict": options.strict,
        "start_response_nodelay": options.start_response_nodelay,
        "catch_exceptions": options.catch_exceptions,
        "exception_texts": config.recycling.exceptions.wants_text(),
        "lc_ctype": std::env::var_os("LC_CTYPE").map(|it| it.to_string_lossy().into_owned()),
        "reload_os_env": options.reload_os_env,
        "autoreload": options.autoreload.as_secs_f64(),
        "autoreload_ignore": options.autoreload_ignore,
        "skip_atexit_teardown": options.skip_atexit_teardown,
        "lazy_apps": config.lazy_apps,
        "processes": config.processes,
        "threads": config.threads,
        "buffer_size": config.buffer_size,
        "has_cores": config.threads > 1,
        "harakiri_no_arh": config.harakiri.no_after_request,
        "stacks": stacks::sink().map(|descriptor| [stacks::number(), descriptor]),
        "hostname": process::hostname(),
        "version": env!("CARGO_PKG_VERSION"),
        "opt": opt(config),
    })
}

/// An application and its mount point; without one, the default application.
fn mount(prefix: Option<&str>, source: &AppSource) -> Value {
    let (kind, what) = match source {
        AppSource::Module(module) => ("module", module.to_string()),
        AppSource::File(file) => ("file", file.to_string_lossy().into_owned()),
        AppSource::Code(code) => ("code", code.clone()),
    };
    let is_default = prefix.is_none();
    // The root has no prefix.
    let prefix = prefix.unwrap_or_default().trim_end_matches('/');
    json!({ "prefix": prefix, "is_default": is_default, "kind": kind, "what": what })
}

/// `uwsgi.opt`: every option as given, the values of repeated ones in a list.
fn opt(config: &Config) -> Value {
    let mut options: BTreeMap<&str, Vec<Option<&str>>> = BTreeMap::new();
    for entry in config.entries.iter().filter(|entry| !entry.is_warning()) {
        options.entry(&entry.name).or_default().push(entry.value.as_deref());
    }
    json!(options)
}
