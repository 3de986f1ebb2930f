//! What the master holds in its hands: listeners, files, the scoreboard, the log.

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use log::{error, info, warn};

use crate::boot::StartContext;
use crate::config::{Config, Entry};
use crate::control::answers::Answers;
use crate::control::changes::ChangeWatch;
use crate::control::fd_trigger::ArmedFd;
use crate::control::fifo::MasterFifo;
use crate::control::fifo_watch::FifoWatch;
use crate::control::pidfile::{self, Pidfile};
use crate::control::touch::TouchFiles;
use crate::locks::Locks;
use crate::logging::logfile::LogFile;
use crate::net::set::{self, Announced};
use crate::net::zerg::Lender;
use crate::net::{Listener, VacuumOutcome};
use crate::privileges::limits;
use crate::scoreboard::Scoreboard;
use crate::service::store;
use crate::sys::fs::Removal;
use crate::sys::process;
use crate::sys::title::Title;

use super::lenders;
use super::policy::Policy;
use super::startup::early_log;
use super::workers::Generation;

/// A pidfile and the moment at which it is written.
#[derive(Debug)]
pub struct HeldPidfile {
    /// The option that named it.
    pub option: &'static str,
    /// The file.
    pub file: Pidfile,
}

/// A configuration that a zygote has loaded an application with, and the listeners it needs.
#[derive(Debug)]
pub struct Proven {
    /// The configuration; as it was passed on when this release cannot read it, as may happen when a
    /// newer binary is deployed together with an option that only it knows.
    pub config: Result<Config, Vec<Entry>>,
    /// Its listeners.
    pub listeners: Vec<Announced>,
    /// Descriptors of those among them that are new.
    pub fds: Vec<OwnedFd>,
}

impl Proven {
    /// Reads what a zygote has passed on.
    pub fn new(entries: Vec<Entry>, listeners: Vec<Announced>, fds: Vec<OwnedFd>) -> Self {
        Proven { config: Config::build(entries.clone()).map_err(|_| entries), listeners, fds }
    }

    /// The numbers it asks for; `None` if this release cannot read what the zygote's could.
    pub fn policy(&self) -> Option<Policy> {
        self.config.as_ref().ok().map(Policy::of)
    }

    /// It will not be used: closes its new sockets and removes their files.
    pub fn discard(self) {
        let fresh = self.listeners.into_iter().filter_map(|it| match it {
            Announced::Fresh(state) => Some(state),
            Announced::Kept(_) => None,
        });
        for (state, fd) in fresh.zip(self.fds) {
            let listener = Listener::receive(state, fd);
            if let VacuumOutcome::Failed(reason) = listener.remove_if_ours() {
                warn!("unix socket {}: {reason}", listener.name);
            }
        }
    }
}

/// The configured FIFOs, of which one is open.
#[derive(Debug, Default)]
pub struct Fifos {
    /// All paths, slot 0 first.
    pub paths: Vec<PathBuf>,
    /// The open one.
    pub active: Option<MasterFifo>,
    /// Which one that is.
    pub slot: usize,
    /// Tells when somebody removes the open one.
    pub watch: Option<FifoWatch>,
}

/// Everything the master owns that is no child.
#[derive(Debug)]
pub struct Holdings {
    /// What the user started.
    pub start: StartContext,
    /// The proven configuration.
    pub config: Config,
    /// Listening sockets, in the order of the configuration.
    pub listeners: Vec<Listener>,
    /// Sockets of a service manager that no option claims: a later reload may.
    pub spares: Vec<Listener>,
    /// Names in the descriptor store of the service manager that are to be taken out of it.
    pub unstored: Vec<String>,
    /// Status cells.
    pub scoreboard: Arc<Scoreboard>,
    /// The queue through which workers pass connections on: the end to take from, the end to give to.
    pub handover: (OwnedFd, OwnedFd),
    /// What those who wait for a reload or a stop are told.
    pub answers: Answers,
    /// Locks of the application.
    pub locks: Locks,
    /// Pidfiles.
    pub pidfiles: Vec<HeldPidfile>,
    /// Command FIFOs.
    pub fifos: Fifos,
    /// Touch files.
    pub touch: TouchFiles,
    /// What `fs-reload` names.
    pub changes: ChangeWatch,
    /// Sockets that are lent.
    pub lenders: Vec<Lender>,
    /// Descriptors of `reload-on-fd`.
    pub armed_fds: Vec<ArmedFd>,
    /// The log file, when there is one.
    pub log: Option<LogFile>,
    /// The line in `ps`.
    pub title: Title,
    /// Re-execs so far.
    pub reloads: u64,
    /// CLOCK_REALTIME seconds of the first start.
    pub started_at: u64,
    /// Real user and group that started the service.
    pub started_by: (u32, u32),
    /// Limits that the service was started with.
    pub limits: limits::Started,
}

impl Holdings {
    /// What a zygote or a re-exec executes.
    pub fn binary(&self) -> PathBuf {
        self.start.binary(&self.config)
    }

    /// The numbers for the state machine.
    pub fn policy(&self) -> Policy {
        Policy::of(&self.config)
    }

    /// Takes up the configuration of the generation that serves from now on.
    ///
    /// # Errors
    /// When a listener is missing; then everything stays as it was.
    pub fn adopt(&mut self, proven: Proven) -> Result<(), String> {
        let spare: Vec<String> = self.spares.iter().map(|it| it.name.clone()).collect();
        let is_spare = |listener: &Listener| spare.contains(&listener.name);
        self.listeners.append(&mut self.spares);
        let listeners =
            set::assemble(proven.listeners, proven.fds, &mut self.listeners).inspect_err(|_| {
                self.spares = self.listeners.extract_if(.., |it| is_spare(it)).collect();
            })?;
        for listener in std::mem::replace(&mut self.listeners, listeners) {
            if is_spare(&listener) {
                self.spares.push(listener);
                continue;
            }
            info!("no longer listening on {}", listener.local);
            if listener.given.is_some() {
                self.spares.push(listener);
                continue;
            }
            if listener.stored {
                self.unstored.extend(store::name(&listener));
            }
            if let VacuumOutcome::Failed(reason) = listener.remove_if_ours() {
                warn!("unix socket {}: {reason}", listener.name);
            }
        }
        match proven.config {
            Ok(config) => {
                self.config = config;
                self.follow_limits();
            }
            Err(entries) => {
                warn!("this release of the master cannot read the new configuration; the next image gets it");
                self.config.entries = entries;
            }
        }
        Ok(())
    }

    /// Gives this process the limits of the configuration.
    pub fn follow_limits(&self) {
        if let Err(error) = limits::follow(&self.config, self.limits) {
            warn!("max-fd: the master keeps the limit it has: {error}");
        }
    }

    /// The log file that the configuration asks for.
    fn log_path(&self) -> Option<PathBuf> {
        let (config, cwd) = (&self.config, &self.start.cwd);
        let late = config.logto2.as_ref().map(|path| config.base_directory(cwd).join(path));
        let last = || config.daemonize2.as_ref().map(|path| cwd.join(path));
        late.or_else(|| early_log(config, cwd).map(|(_, path)| path)).or_else(last)
    }

    /// After a reload, opens the log that the configuration names: another one than before, or the same
    /// once more with `log-reopen`. True when the children have to be told.
    pub fn follow_log(&mut self) -> bool {
        let Some(wanted) = self.log_path() else { return false };
        if self.log.as_ref().is_some_and(|log| log.path() == wanted) && !self.config.log_reopen {
            return false;
        }
        info!("logging goes on in {}", wanted.display());
        match LogFile::open(&wanted).and_then(|log| log.install().map(|()| log)) {
            Ok(log) => {
                self.log = Some(log);
                true
            }
            Err(error) => {
                error!("{error}; the old log stays in use");
                false
            }
        }
    }

    /// Makes FIFO, pidfiles and log follow a configuration that names others than are held.
    pub fn follow_config(&mut self) {
        self.follow_fifos();
        let (lenders, errors) = lenders::open(&self.config, std::mem::take(&mut self.lenders));
        self.lenders = lenders;
        for error in errors {
            error!("{error}; the rest is lent");
        }
        let wanted = pidfile_paths(&self.config, &self.start.cwd);
        for held in
            self.pidfiles.extract_if(.., |held| !wanted.iter().any(|(_, path)| path == held.file.path()))
        {
            info!("{} {} is no longer configured", held.option, held.file.path().display());
            held.file.remove_if_ours();
        }
        if wanted.len() != self.pidfiles.len() {
            self.rewrite_pidfiles();
        }
    }

    /// Listens to the first FIFO that is configured now, unless the active one still is; those that are
    /// configured no more are removed.
    fn follow_fifos(&mut self) {
        let wanted = self.config.fifo_paths(&self.start.cwd);
        let former = std::mem::replace(&mut self.fifos.paths, wanted);
        let Fifos { paths, active, slot, .. } = &mut self.fifos;
        if active.as_ref().is_none_or(|it| paths.get(*slot).is_none_or(|path| path != it.path())) {
            if paths.is_empty() {
                *active = None;
            } else {
                self.switch_fifo(0);
            }
        }
        let in_use = self.fifos.active.as_ref().map(MasterFifo::path);
        let still = |path: &&PathBuf| self.fifos.paths.contains(path) || in_use == Some(path.as_path());
        for path in former.iter().filter(|path| !still(path)) {
            info!("master fifo {} is no longer configured", path.display());
            remove_fifo(path);
        }
    }

    /// Puts role, generation and release into `ps`.
    pub fn set_title(&mut self, generation: Generation) {
        let text = crate::logging::title::master(&self.config, generation);
        self.title.set(&text);
    }

    /// Writes all pidfiles anew (FIFO `P`), taking over those of a master that is gone.
    pub fn rewrite_pidfiles(&mut self) {
        for (option, path) in pidfile_paths(&self.config, &self.start.cwd) {
            if self.write_pidfile(option, &path) {
                info!("{option} {} written", path.display());
            }
        }
    }

    /// Writes the safe pidfiles: the server is up.
    pub fn write_safe_pidfiles(&mut self) {
        for (option, path) in pidfile_paths(&self.config, &self.start.cwd) {
            if option.starts_with("safe-") {
                self.write_pidfile(option, &path);
            }
        }
    }

    fn write_pidfile(&mut self, option: &'static str, path: &Path) -> bool {
        let pid = process::this();
        let held = self.pidfiles.iter_mut().find(|it| it.file.path() == path);
        let written = match held {
            Some(held) => held.file.write(pid),
            None => Pidfile::publish(path, pidfile::MODE, pid)
                .map(|file| self.pidfiles.push(HeldPidfile { option, file })),
        };
        if let Err(error) = &written {
            error!("{option}: {error}");
        }
        written.is_ok()
    }

    /// Opens another FIFO slot and leaves the current one.
    pub fn switch_fifo(&mut self, slot: u8) {
        let slot = if usize::from(slot) < self.fifos.paths.len() { usize::from(slot) } else { 0 };
        let Some(path) = self.fifos.paths.get(slot) else {
            return warn!("FIFO slot {slot}: no master-fifo is configured");
        };
        match MasterFifo::open(path) {
            Ok(fifo) => {
                info!("active master fifo is now {}", path.display());
                self.fifos.active = Some(fifo);
                self.fifos.slot = slot;
            }
            Err(error) => error!("master-fifo: {error}; the former slot stays active"),
        }
    }

    /// Another master listens on the same sockets from now on: their files are its own.
    pub fn share_sockets(&mut self) {
        for listener in &mut self.listeners {
            listener.owned = None;
        }
    }

    /// Closes the listeners; their files are removed later, by [`Holdings::clean_up`].
    pub fn release_listeners(&mut self) {
        for listener in &mut self.listeners {
            if let Err(error) = listener.release() {
                warn!("{} stays open until the end: {error}", listener.local);
            }
        }
    }

    /// Leaves nothing behind that is ours: pidfiles always, sockets and FIFOs with `vacuum`.
    pub fn clean_up(&mut self) {
        for held in &mut self.pidfiles {
            match held.file.remove_if_ours() {
                Removal::Removed => info!("VACUUM: {} removed.", held.option),
                Removal::NotOurs => {
                    warn!("{} {} is no longer ours: not removed", held.option, held.file.path().display());
                }
                Removal::Absent => {}
                Removal::Failed(reason) => warn!("{} {}: {reason}", held.option, held.file.path().display()),
            }
        }
        if !self.config.vacuum {
            return;
        }
        self.lenders.iter().for_each(lenders::remove_files);
        // A socket in the store is of no use to the next start without its file.
        for listener in self.listeners.iter().filter(|listener| !listener.stored) {
            match listener.remove_if_ours() {
                VacuumOutcome::Removed => info!("VACUUM: unix socket {} removed.", listener.name),
                VacuumOutcome::NotOurs => {
                    warn!("VACUUM WARNING: unix socket {} changed inode. Skip removal", listener.name);
                }
                VacuumOutcome::Absent | VacuumOutcome::NoPath => {}
                VacuumOutcome::Failed(reason) => warn!("VACUUM: unix socket {}: {reason}", listener.name),
            }
        }
        self.remove_fifos();
    }

    fn remove_fifos(&mut self) {
        let replaced = self.fifos.active.take().filter(|fifo| !fifo.is_in_place());
        let replaced = replaced.map(|fifo| fifo.path().to_owned());
        // The slots that were left before, too; but none that another master reads, such as a copy of
        // this one (FIFO `f`).
        for path in &self.fifos.paths {
            match replaced.as_ref() == Some(path) {
                true => warn_of_fifo(path),
                false => remove_fifo(path),
            }
        }
    }

    /// Renames the log to `LOG.SECONDS` and starts a new one; the caller passes it on.
    ///
    /// # Errors
    /// When renaming or opening fails; the old file stays in use.
    pub fn rotate_log(&mut self) -> io::Result<bool> {
        let Some(log) = &self.log else { return self.reopen_log() };
        let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let mut backup = log.path().as_os_str().to_owned();
        backup.push(format!(".{seconds}"));
        info!("triggering rotation to {}...", Path::new(&backup).display());
        std::fs::rename(log.path(), &backup)?;
        self.reopen_log()
    }

    /// Opens the log anew; the caller passes the new descriptor to the children.
    ///
    /// # Errors
    /// When the path cannot be opened; the old file stays in use.
    pub fn reopen_log(&mut self) -> io::Result<bool> {
        let Some(log) = &mut self.log else {
            warn!("no log file to reopen: logging goes to standard error (use logto)");
            return Ok(false);
        };
        log.reopen().map_err(io::Error::other)?;
        info!("[{}] {} reopened.", process::this(), log.path().display());
        Ok(true)
    }
}

/// Removes a FIFO that nobody reads.
fn remove_fifo(path: &Path) {
    match MasterFifo::remove_idle(path) {
        Removal::Removed => info!("VACUUM: master fifo {} removed.", path.display()),
        Removal::NotOurs => warn_of_fifo(path),
        Removal::Absent => {}
        Removal::Failed(reason) => warn!("VACUUM: master fifo {}: {reason}", path.display()),
    }
}

fn warn_of_fifo(path: &Path) {
    warn!("VACUUM: master fifo {} is no longer ours: not removed", path.display());
}

/// The pidfiles of a configuration: option and absolute path.
///
/// `pidfile` is relative to the directory the user started in, the others to `chdir`, as in uWSGI.
pub fn pidfile_paths(config: &Config, cwd: &Path) -> Vec<(&'static str, PathBuf)> {
    let base = config.base_directory(cwd);
    let absolute = |path: &Option<PathBuf>, base: &Path| path.as_ref().map(|path| base.join(path));
    [
        ("pidfile", absolute(&config.pidfile, cwd)),
        ("pidfile2", absolute(&config.pidfile2, &base)),
        ("safe-pidfile2", absolute(&config.safe_pidfile2, &base)),
        ("safe-pidfile", absolute(&config.safe_pidfile, &base)),
    ]
    .into_iter()
    .filter_map(|(option, path)| path.map(|path| (option, path)))
    // One file named by two options is claimed once: closing either descriptor would drop the lock
    // of both (fcntl(2)).
    .fold(Vec::new(), |mut files, (option, path)| {
        if !files.iter().any(|(_, known)| *known == path) {
            files.push((option, path));
        }
        files
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proven(name: &str, value: &str) -> (Vec<Entry>, Proven) {
        let entry = Entry { name: name.into(), value: Some(value.into()), origin: "app.ini:1".into() };
        (vec![entry.clone()], Proven::new(vec![entry], Vec::new(), Vec::new()))
    }

    #[test]
    fn a_configuration_that_only_a_newer_release_can_read_is_passed_on_as_it_is() {
        let (entries, proven) = proven("processes", "as many as the year 2099 allows");
        assert_eq!(proven.policy(), None);
        assert_eq!(proven.config, Err(entries));
    }

    #[test]
    fn a_configuration_that_can_be_read_says_what_it_wants() {
        let (_, proven) = proven("processes", "3");
        assert_eq!(proven.policy().map(|policy| policy.processes), Some(3));
    }
}
