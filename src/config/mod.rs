//! The typed configuration: validated once, immutable afterwards.
//!
//! Options arrive as [`Entry`]s, in order; [`Config::build`] turns them into this struct and reports
//! every problem, not only the first.
//!
//! [`options`] is the table of all options, [`schema`] what its rows are made of, [`value`] how
//! text becomes a value, [`markdown`] the table as a page of the documentation.
//! [`gather`](mod@gather) makes the entries: from the environment, the command line and files, which
//! come from a [`source`], are read as a [`document`] and may have [`magic`] variables, [`logic`] and
//! placeholders to [`expand`].

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::control::StopSignals;
use crate::net::Preparation;
use crate::sys::cap::Capability;
use crate::sys::process;

mod build;
pub mod context;
pub mod directive;
pub mod document;
mod error;
pub mod expand;
pub mod gather;
pub mod harakiri;
pub mod ini;
mod items;
mod json;
pub mod limits;
pub mod logic;
pub mod magic;
pub mod markdown;
pub mod options;
pub mod python;
pub mod recycling;
pub mod reload;
pub mod scaling;
pub mod schema;
mod shape;
pub mod source;
mod suggest;
mod toml;
mod unserved;
pub mod value;
mod xml;
mod yaml;

pub use build::Examined;
pub use error::{ConfigError, ConfigErrors};
use harakiri::Harakiri;
pub use python::PythonOptions;

/// One option as the user gave it: the canonical name from the option table, its value, its origin.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Canonical option name, without dashes.
    pub name: String,
    /// The value; `None` where a flag was named without one.
    pub value: Option<String>,
    /// Where it came from, for error messages: `command line`, `app.ini:12`.
    pub origin: String,
}

impl Entry {
    /// A warning about what was read, for [`Config::build`] to pass on. It has no name, which no
    /// option can do without.
    pub fn is_warning(&self) -> bool {
        self.name.is_empty()
    }
}

/// A listener as configured; parsed further by [`crate::net::addr`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListenSpec {
    /// The address as the user wrote it, e.g. `:8080`, `/run/app.sock`, `@abstract`, `fd://3`.
    pub address: String,
    /// Where it came from.
    pub origin: String,
}

/// Who the server's processes are, and from when on. Names are resolved at start-up.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Credentials {
    /// `uid`
    pub uid: Option<String>,
    /// `gid`
    pub gid: Option<String>,
    /// `add-gid`, repeatable
    pub add_gid: Vec<String>,
    /// `no-initgroups`: without the user's own supplementary groups.
    pub no_initgroups: bool,
    /// `immediate-uid`: before anything is opened.
    pub immediate_uid: Option<String>,
    /// `immediate-gid`
    pub immediate_gid: Option<String>,
    /// `cap`: what is kept of root's rights; `None` when nothing was said about them.
    pub capabilities: Option<Vec<Capability>>,
    /// `cap-ambient`: those that programs started by the application have, too.
    pub ambient: Vec<Capability>,
    /// `no-new-privs`: no program executed from then on gains rights, not even by set-user-id.
    pub no_new_privs: bool,
    /// `chroot`
    pub chroot: Option<PathBuf>,
    /// `drop-after-init`: the log of `logto2` and `pidfile2` come before.
    pub drop_after_init: bool,
    /// `drop-after-apps`: the application is loaded before; the master stays root.
    pub drop_after_apps: bool,
    /// `master-as-root`: the master stays root.
    pub master_as_root: bool,
}

impl Credentials {
    /// Whether the master goes on as the user that started it.
    pub fn master_keeps_root(&self) -> bool {
        self.master_as_root || self.drop_after_apps
    }
}

/// Process titles.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ProcessTitles {
    /// `procname-prefix`: text put in front of every title.
    pub prefix: String,
    /// `procname-append`: text put behind every title.
    pub append: String,
    /// `procname`: replaces the title of all processes but the master.
    pub workers: Option<String>,
    /// `procname-master`: replaces the title of the master.
    pub master: Option<String>,
}

/// Which requests are logged, and how.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RequestLog {
    /// False with `disable-logging`.
    pub enabled: bool,
    /// `log-format`; `None` is uWSGI's default line.
    pub format: Option<String>,
    /// `log-4xx`: log these even with `disable-logging`.
    pub log_4xx: bool,
    /// `log-5xx`
    pub log_5xx: bool,
    /// `log-slow`: log these even with `disable-logging`; milliseconds.
    pub slow: Option<u64>,
    /// `log-micros`: durations in microseconds.
    pub micros: bool,
    /// `log-x-forwarded-for`
    pub x_forwarded_for: bool,
}

/// `/prefix=directory` of `static-map`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StaticMap {
    /// URL path prefix, beginning with a slash and, but for the root, not ending with one; matched
    /// on segment boundaries.
    pub prefix: String,
    /// Directory (or file) behind it.
    pub target: PathBuf,
}

/// The whole configuration.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    // Processes.
    /// `processes`, `workers`, `-p`: worker processes, at least 1; 0 for a server that only lends sockets.
    pub processes: u32,
    /// `threads`: requests that one worker runs at a time, at least 1.
    pub threads: u32,
    /// `relief`: connections of a worker that is stuck in a request go to others, default on.
    pub relief: bool,
    /// `lazy-apps`: each worker loads the app itself.
    pub lazy_apps: bool,
    /// `need-app`: start-up fails when no application could be loaded.
    pub need_app: bool,
    /// `no-orphans`: workers are killed at once when the master dies.
    pub no_orphans: bool,
    /// `die-on-term`: TERM stops, QUIT reloads brutally. See [`Config::stop_signals`].
    pub die_on_term: Option<bool>,
    /// `vacuum`: remove sockets, FIFOs and pidfiles at exit.
    pub vacuum: bool,
    /// `reload-mercy`: seconds the whole reload may wait for auxiliary processes.
    pub reload_mercy: Duration,
    /// `worker-reload-mercy`: how long a worker may take to leave, default 60 s.
    pub worker_reload_mercy: Duration,
    /// `drain-delay`: how long workers serve on after a stop was asked for.
    pub drain_delay: Duration,
    /// `ready-path`: the path that tells whether the server is here to stay.
    pub ready_path: Option<String>,
    /// `reload-mode`: whether the new workers or the old ones come first.
    pub reload_mode: reload::ReloadMode,
    /// `max-surge`: workers beyond `processes` while they are replaced; `None` is as many as it takes.
    pub max_surge: Option<reload::MaxSurge>,
    /// `max-draining-generations`: older generations that may drain at a time; 0 is any number.
    pub max_draining_generations: u32,
    /// `harakiri` and all that begins with it.
    pub harakiri: Harakiri,
    /// `refork-after`: requests after which a worker becomes the zygote; `None` is never.
    pub refork_after: Option<u64>,
    /// `cheaper`, `cheap`, `idle`: how many workers run, and when.
    pub scaling: scaling::Scaling,
    /// `boot-timeout`: how long zygote and workers may take to become ready, default 60 s.
    pub boot_timeout: Duration,
    /// `forkbomb-delay`: longest pause before a worker is replaced that keeps dying, default 30 s; zero for none.
    pub respawn_pause: Duration,
    /// `die-on-no-workers`: stop when no worker is left and none can be started.
    pub die_on_no_workers: bool,
    /// `limit-as`, `limit-nproc`, `max-fd`, `prio`, `cpu-affinity`.
    pub limits: limits::Limits,
    /// `binary-path`: what a reload executes; default is the path of the running binary's `argv[0]`.
    pub binary_path: Option<PathBuf>,
    /// `fallback-config`: what to start with when the start fails.
    pub fallback_config: Option<PathBuf>,
    /// `release`: a label shown in titles, status and the built-in page.
    pub release: Option<String>,
    /// `snapshots`: zygotes of earlier generations kept asleep, for a rollback.
    pub snapshots: u32,
    /// `snapshot-memory`: bytes that these may have of their own, together; `None` is no bound.
    pub snapshot_memory: Option<u64>,
    /// When workers are replaced by fresh ones.
    pub recycling: recycling::Recycling,
    /// Process titles.
    pub titles: ProcessTitles,

    // Listeners.
    /// `http`, `http-socket`, in order; empty only with `zerg` or `zerg-pool`.
    pub listeners: Vec<ListenSpec>,
    /// `socket`, in order. They are among [`Config::listeners`] if they speak HTTP, else nobody serves them.
    pub sockets: Vec<ListenSpec>,
    /// `zerg`: servers that lend their sockets.
    pub zergs: Vec<ListenSpec>,
    /// `zerg-fallback`: own addresses are for when they do not.
    pub zerg_fallback: bool,
    /// Standard input is not looked at for a socket of inetd.
    pub skip_zero: bool,
    /// Stop the master's process once when the first generation serves, for Upstart.
    pub expect_stop: bool,
    /// `zerg-server`: where the sockets are lent.
    pub zerg_server: Option<ListenSpec>,
    /// `zerg-pool`: sockets that are lent only.
    pub zerg_pools: Vec<crate::net::zerg::PoolSpec>,
    /// `protocol`: what is spoken on `socket` addresses is HTTP, not uwsgi.
    pub sockets_speak_http: bool,
    /// `listen`: backlog asked for, before clamping to somaxconn.
    pub backlog: u32,
    /// `chmod-socket`: mode of unix sockets.
    pub chmod_socket: Option<u32>,
    /// `chown-socket`: `user[:group]`.
    pub chown_socket: Option<String>,
    /// `umask`
    pub umask: Option<u32>,
    /// `reuse-port`
    pub reuse_port: bool,
    /// `tcp-nodelay`: default on (off with `tcp-nodelay=false`).
    pub tcp_nodelay: bool,
    /// `no-defer-accept` turns it off: the kernel keeps connections until they have sent something.
    pub defer_accept: bool,

    // HTTP limits.
    /// `http-keepalive`: how long an idle connection may wait for its next request; zero closes after each response.
    pub keepalive: Duration,
    /// `http-headers-timeout`: how long a request head may take to arrive.
    pub headers_timeout: Duration,
    /// `http-timeout`, `socket-timeout`: how long a body read or a response write may stand still.
    pub io_timeout: Duration,
    /// `limit-post`: largest request body in bytes; 0 is no limit.
    pub limit_post: u64,
    /// `post-buffering`: bytes of a request body kept in memory; what is larger goes to a temporary
    /// file before the application is called. 0 hands bodies to the application as they arrive.
    pub post_buffering: u64,
    /// `buffer-size`: largest request head in bytes.
    pub buffer_size: usize,

    // Applications.
    /// Python applications.
    pub python: PythonOptions,
    /// `locks`: the application may use the locks from 0 up to this one.
    pub locks: u32,
    /// `cache2`, `cache`: caches for the application, in order.
    pub caches: Vec<crate::cache::Spec>,
    /// `timer`, `rbtimer`, `fs-signal`: signals of the application that the master raises.
    pub signals: Vec<crate::signals::Request>,
    /// `plugin-dir`: directories of plugins, in the order they are searched.
    pub plugin_dirs: Vec<PathBuf>,
    /// `static-map`, `static-dir` (as prefix `/`), in order.
    pub static_maps: Vec<StaticMap>,
    /// `static-index`: file names tried for a directory, default `index.html`.
    pub static_index: Vec<String>,
    /// `static-safe`: directories that symlinks may lead to.
    pub static_safe: Vec<PathBuf>,
    /// `static-follow-symlinks`: allow symlinks that leave the directory.
    pub static_follow_symlinks: bool,
    /// `mimefile`: files of media types, read when the application is loaded.
    pub mime_files: Vec<PathBuf>,

    // Files, directories, environment.
    /// `chdir`, before the app is loaded.
    pub chdir: Option<PathBuf>,
    /// `chdir2`, in each worker after the app is loaded.
    pub chdir2: Option<PathBuf>,
    /// `pidfile`
    pub pidfile: Option<PathBuf>,
    /// `pidfile2`
    pub pidfile2: Option<PathBuf>,
    /// `safe-pidfile`
    pub safe_pidfile: Option<PathBuf>,
    /// `safe-pidfile2`
    pub safe_pidfile2: Option<PathBuf>,
    /// `master-fifo`, up to ten.
    pub master_fifos: Vec<PathBuf>,
    /// `touch-reload` and all others that begin with `touch-`, `hook-touch`; in order.
    pub touches: Vec<crate::control::touch::Touch>,
    /// `fs-reload`, `fs-brutal-reload`
    pub fs_reloads: Vec<(PathBuf, crate::control::Command)>,
    /// `reload-on-fd`, `brutal-reload-on-fd`
    pub reload_on_fds: Vec<crate::control::fd_trigger::FdTrigger>,
    /// `notify-fd`
    pub notify_fd: Option<std::os::fd::RawFd>,
    /// `hook-…` and `exec-…`, in order.
    pub hooks: Vec<crate::hooks::Hook>,
    /// `env`: `NAME=VALUE`, in order; no name twice, none that is in `unenv`.
    pub env: Vec<(String, String)>,
    /// `unenv`: names removed.
    pub unenv: Vec<String>,
    /// `daemonize`: log target.
    pub daemonize: Option<PathBuf>,
    /// `daemonize2`: same, but after the app is loaded.
    pub daemonize2: Option<PathBuf>,
    /// `logto`, opened before privileges are dropped.
    pub logto: Option<PathBuf>,
    /// `logto2`, opened afterwards.
    pub logto2: Option<PathBuf>,
    /// `log-reopen`: open the log anew at each reload.
    pub log_reopen: bool,
    /// Request log.
    pub request_log: RequestLog,
    /// `uid`, `gid`, `add-gid`
    pub credentials: Credentials,

    /// `print`, `iprint`: lines for standard output at start-up.
    pub prints: Vec<String>,
    /// `strict`: an option that is not supported is an error, not a warning.
    pub strict: bool,
    /// What does not do what it says: to tell the operator at start-up.
    pub warnings: Vec<ConfigError>,
    /// The entries this was built from, under canonical names: what a reload hands to the next image.
    pub entries: Vec<Entry>,
}

impl Config {
    /// ` (app.ini:3)` for the last use of an option, to end a message with; empty where it was not given.
    pub fn place(&self, option: &str) -> String {
        let last = self.entries.iter().rev().find(|entry| entry.name == option);
        last.map_or(String::new(), |entry| format!(" ({})", entry.origin))
    }

    /// What the connections of TCP listeners are like.
    pub fn preparation(&self) -> Preparation {
        Preparation { nodelay: self.tcp_nodelay, defer_accept: self.defer_accept }
    }

    /// True when no address to serve on is configured; then sockets of a service manager are.
    pub fn listens_by_default(&self) -> bool {
        self.listeners.iter().all(|spec| spec.origin == build::DEFAULT_ORIGIN) && !self.listeners.is_empty()
    }

    /// The directory that relative paths of sockets, FIFOs, touch files and applications start from:
    /// `chdir`, itself relative to where the user started the server.
    pub fn base_directory(&self, cwd: &std::path::Path) -> PathBuf {
        self.chdir.as_ref().map_or_else(|| cwd.to_owned(), |directory| cwd.join(directory))
    }

    /// The FIFOs of all slots, absolute.
    pub fn fifo_paths(&self, cwd: &std::path::Path) -> Vec<PathBuf> {
        let base = self.base_directory(cwd);
        self.master_fifos.iter().map(|path| base.join(path)).collect()
    }

    /// Which signals stop this process, if it is a master.
    pub fn stop_signals(&self) -> StopSignals {
        StopSignals::of(self.die_on_term, process::is_init())
    }
}
