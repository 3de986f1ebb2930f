//! Entries to a [`Config`]: defaults, one entry after the other, then what they imply together.

use std::collections::HashMap;
use std::time::Duration;

use super::error::{ConfigError, ConfigErrors};
use super::harakiri::Harakiri;
use super::limits::Limits;
use super::options::{self, MAX_FIFOS};
use super::recycling::Recycling;
use super::reload::ReloadMode;
use super::schema::OptionSpec;
use super::{
    Config, Credentials, Entry, ListenSpec, ProcessTitles, PythonOptions, RequestLog, scaling, suggest,
    unserved,
};

/// The origin of what nobody configured.
pub(super) const DEFAULT_ORIGIN: &str = "default";
/// Most variables that are set or removed: setenv(3) compares each with all others.
const MAX_VARIABLES: usize = 10_000;
/// Unknown names for which a similar one is looked for: a file of something else has many.
const MAX_SUGGESTIONS: usize = 100;

/// A look at all entries.
#[derive(Debug, Clone, PartialEq)]
pub struct Examined {
    /// What they come to, without those that are wrong.
    pub config: Config,
    /// What is wrong.
    pub errors: Vec<ConfigError>,
}

impl Config {
    /// What is in force when nothing is configured.
    pub fn defaults() -> Self {
        Config {
            processes: 1,
            threads: 1,
            relief: true,
            lazy_apps: false,
            need_app: false,
            no_orphans: false,
            die_on_term: None,
            vacuum: false,
            reload_mercy: Duration::from_secs(3),
            worker_reload_mercy: Duration::from_secs(60),
            drain_delay: Duration::ZERO,
            ready_path: None,
            reload_mode: ReloadMode::Surge,
            max_surge: None,
            max_draining_generations: 0,
            harakiri: Harakiri::default(),
            refork_after: None,
            scaling: scaling::Scaling::default(),
            boot_timeout: Duration::from_secs(60),
            respawn_pause: Duration::from_secs(30),
            die_on_no_workers: false,
            limits: Limits::default(),
            binary_path: None,
            fallback_config: None,
            release: None,
            snapshots: 0,
            snapshot_memory: None,
            recycling: Recycling::default(),
            titles: ProcessTitles::default(),
            listeners: vec![ListenSpec {
                address: "127.0.0.1:8080".to_owned(),
                origin: DEFAULT_ORIGIN.to_owned(),
            }],
            sockets: Vec::new(),
            zergs: Vec::new(),
            zerg_fallback: false,
            skip_zero: false,
            expect_stop: false,
            zerg_server: None,
            zerg_pools: Vec::new(),
            sockets_speak_http: false,
            backlog: 1024,
            chmod_socket: None,
            chown_socket: None,
            umask: None,
            reuse_port: false,
            tcp_nodelay: true,
            defer_accept: true,
            keepalive: Duration::from_secs(75),
            headers_timeout: Duration::from_secs(15),
            io_timeout: Duration::from_secs(60),
            limit_post: 0,
            post_buffering: 0,
            buffer_size: 32 << 10,
            python: PythonOptions::default(),
            locks: 0,
            caches: Vec::new(),
            signals: Vec::new(),
            plugin_dirs: Vec::new(),
            static_maps: Vec::new(),
            static_index: vec!["index.html".to_owned()],
            static_safe: Vec::new(),
            static_follow_symlinks: false,
            mime_files: Vec::new(),
            chdir: None,
            chdir2: None,
            pidfile: None,
            pidfile2: None,
            safe_pidfile: None,
            safe_pidfile2: None,
            master_fifos: Vec::new(),
            touches: Vec::new(),
            fs_reloads: Vec::new(),
            reload_on_fds: Vec::new(),
            notify_fd: None,
            hooks: Vec::new(),
            env: Vec::new(),
            unenv: Vec::new(),
            daemonize: None,
            daemonize2: None,
            logto: None,
            logto2: None,
            log_reopen: false,
            request_log: RequestLog { enabled: true, ..RequestLog::default() },
            credentials: Credentials::default(),
            prints: Vec::new(),
            strict: false,
            warnings: Vec::new(),
            entries: Vec::new(),
        }
    }

    /// Applies the entries in order: the last one of a scalar wins, lists accumulate.
    ///
    /// # Errors
    /// Every entry that is unknown, misspelt or out of range, not only the first; and those without
    /// which there is nothing to serve.
    pub fn build(entries: Vec<Entry>) -> Result<Config, ConfigErrors> {
        let Examined { config, errors } = Config::examine(entries);
        if errors.is_empty() { Ok(config) } else { Err(ConfigErrors(errors)) }
    }

    /// [`Config::build`] for those who want to say more about a configuration that has errors.
    pub fn examine(entries: Vec<Entry>) -> Examined {
        // Lists with a default start empty, so that the first entry replaces it.
        let mut config = Config { listeners: Vec::new(), static_index: Vec::new(), ..Config::defaults() };
        let mut errors = Vec::new();
        let mut uses = Vec::with_capacity(entries.len());

        for mut entry in entries {
            let row = options::find(&entry.name);
            if let Some(row) = row {
                row.name.clone_into(&mut entry.name);
                if let Err(error) = row.apply(&mut config, &entry) {
                    errors.push(ConfigError::new(&entry, error.to_string()));
                    continue;
                }
            }
            uses.push((row, entry));
        }
        config.settle(&uses, &mut errors);
        config.entries = uses.into_iter().map(|(_, entry)| entry).collect();
        Examined { config, errors }
    }

    /// What can only be said once all entries are known.
    fn settle(&mut self, uses: &[(Option<&OptionSpec>, Entry)], errors: &mut Vec<ConfigError>) {
        let defaults = Config::defaults();
        if self.sockets_speak_http {
            self.listeners.extend(self.sockets.iter().cloned());
        }
        unserved::judge(self, uses, errors);
        let entries: Vec<&Entry> = uses.iter().map(|(_, entry)| entry).collect();
        self.warnings.extend(self.python.settle(&entries));
        self.recycling.settle(&entries, errors);
        self.warnings.extend(Limits::judge(self, &entries));
        if self.lazy_apps
            && self.snapshots > 0
            && let Some(entry) = entries.iter().rfind(|entry| entry.name == "snapshots")
        {
            let problem = "has no effect with lazy-apps: the application is not in the memory that is kept";
            self.warnings.push(ConfigError::new(entry, problem));
        }
        if self.lazy_apps
            && self.refork_after.is_some()
            && let Some(entry) = entries.iter().rfind(|entry| entry.name == "refork-after")
        {
            let problem = "has no effect with lazy-apps: each worker loads the application by itself";
            self.warnings.push(ConfigError::new(entry, problem));
            self.refork_after = None;
        }
        if self.listeners.is_empty() && self.zergs.is_empty() {
            if self.zerg_pools.is_empty() {
                self.listeners = defaults.listeners;
            } else {
                // It lends sockets and serves nobody.
                self.processes = 0;
            }
        }
        scaling::settle(self, &entries, errors);
        if self.static_index.is_empty() {
            self.static_index = defaults.static_index;
        }

        if let Err(error) = self.settle_variables(uses) {
            errors.push(error);
        }
        let fifos = uses.iter().filter(|(_, entry)| entry.name == "master-fifo");
        for (_, entry) in fifos.skip(MAX_FIFOS) {
            errors.push(ConfigError::new(entry, format!("is one too many; there can be {MAX_FIFOS}")));
        }
        let order = uses.iter().rev().find(|(_, entry)| entry.name == "reload-mode");
        if self.lazy_apps
            && self.reload_mode == ReloadMode::Drain
            && let Some((_, entry)) = order
        {
            let unproven = "cannot prove new code together with lazy-apps: the new workers load it when the \
                            old ones have left";
            self.warnings.push(ConfigError::new(entry, unproven));
        }
        let mut unknown_names = 0;
        for (row, entry) in uses {
            if entry.is_warning() {
                self.warnings.push(warning(entry));
            } else if row.is_none() {
                unknown_names += 1;
                let meant =
                    (unknown_names <= MAX_SUGGESTIONS).then(|| suggest::option(&entry.name)).flatten();
                let objection = ConfigError::new(entry, unknown(meant, self.strict));
                if self.strict { errors.push(objection) } else { self.warnings.push(objection) }
            }
        }
    }
}

impl Config {
    /// The last word on a variable counts, whether it sets or removes it.
    fn settle_variables(&mut self, uses: &[(Option<&OptionSpec>, Entry)]) -> Result<(), ConfigError> {
        let mut last_word = HashMap::new();
        for (index, (_, entry)) in uses.iter().enumerate() {
            let word = match (&*entry.name, entry.value.as_deref()) {
                ("env", Some(pair)) => pair.split_once('=').map(|(name, _)| (name, true)),
                ("unenv", Some(name)) => Some((name, false)),
                _ => None,
            };
            let Some((name, sets)) = word else { continue };
            last_word.insert(name, (index, sets));
            if last_word.len() > MAX_VARIABLES {
                let problem = format!("is one too many; there can be {MAX_VARIABLES} variables");
                return Err(ConfigError::new(entry, problem));
            }
        }
        // Each name once: the value of its last use, in the order of those.
        let mut values: HashMap<String, String> = self.env.drain(..).collect();
        let mut settled: Vec<_> = last_word.into_iter().collect();
        settled.sort_unstable_by_key(|(_, (index, _))| *index);
        self.unenv.clear();
        for (name, (_, sets)) in settled {
            match values.remove(name) {
                Some(value) if sets => self.env.push((name.to_owned(), value)),
                _ => self.unenv.push(name.to_owned()),
            }
        }
        Ok(())
    }
}

/// What reading the configuration has to tell.
fn warning(entry: &Entry) -> ConfigError {
    let problem = entry.value.clone().unwrap_or_default();
    ConfigError { option: String::new(), value: None, origin: entry.origin.clone(), problem }
}

/// What to say about a name that is no option and that no value refers to, and that may have been `meant`
/// to be another.
fn unknown(meant: Option<&str>, strict: bool) -> String {
    let hint = match meant {
        Some(meant) => format!("is not an option; did you mean {meant}?"),
        None => "is not an option; check the spelling against appserver --help".to_owned(),
    };
    // Without strict it would not be told if it were one.
    let stop = if hint.ends_with('?') { "" } else { "." };
    if strict { format!("{hint}{stop} With strict, a placeholder is given by set-placeholder") } else { hint }
}

#[cfg(test)]
mod tests;
