//! What the master holds in its hands: listeners, files, the scoreboard, the log.

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use log::{error, info, warn};

use crate::boot::StartContext;
use crate::config::Config;
use crate::control::fifo::MasterFifo;
use crate::control::fifo_watch::FifoWatch;
use crate::control::pidfile::Pidfile;
use crate::control::touch::TouchFiles;
use crate::logging::logfile::LogFile;
use crate::net::{Listener, VacuumOutcome};
use crate::scoreboard::Scoreboard;
use crate::sys::fs::Removal;
use crate::sys::process;
use crate::sys::title::Title;

use super::state::Policy;
use super::workers::Generation;

/// A pidfile and the moment at which it is written.
#[derive(Debug)]
pub struct HeldPidfile {
    /// The option that named it.
    pub option: &'static str,
    /// The file.
    pub file: Pidfile,
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
    /// Status cells.
    pub scoreboard: Arc<Scoreboard>,
    /// The queue through which workers pass connections on: the end to take from, the end to give to.
    pub handover: (OwnedFd, OwnedFd),
    /// Pidfiles.
    pub pidfiles: Vec<HeldPidfile>,
    /// Command FIFOs.
    pub fifos: Fifos,
    /// Touch files.
    pub touch: TouchFiles,
    /// The log file, when there is one.
    pub log: Option<LogFile>,
    /// The line in `ps`.
    pub title: Title,
    /// Re-execs so far.
    pub reloads: u64,
    /// CLOCK_REALTIME seconds of the first start.
    pub started_at: u64,
}

impl Holdings {
    /// What a zygote or a re-exec executes.
    pub fn binary(&self) -> PathBuf {
        match &self.config.binary_path {
            Some(path) => self.start.cwd.join(path),
            None => self.start.binary.clone(),
        }
    }

    /// The numbers for the state machine.
    pub fn policy(&self) -> Policy {
        Policy::of(&self.config)
    }

    /// Puts role, generation and release into `ps`.
    pub fn set_title(&mut self, generation: Generation) {
        let text = crate::logging::title::master(&self.config, generation);
        self.title.set(&text);
    }

    /// Writes all pidfiles anew (FIFO `P`), taking over those of a master that is gone.
    pub fn rewrite_pidfiles(&mut self) {
        let pid = process::this();
        for (option, path) in pidfile_paths(&self.config, &self.start.cwd) {
            let held = self.pidfiles.iter_mut().find(|it| it.file.path() == path);
            let written = match held {
                Some(held) => held.file.write(pid).map_err(|error| error.to_string()),
                None => {
                    Pidfile::claim(&path, 0o644).map_err(|error| error.to_string()).and_then(|mut file| {
                        file.write(pid).map_err(|error| error.to_string())?;
                        self.pidfiles.push(HeldPidfile { option, file });
                        Ok(())
                    })
                }
            };
            match written {
                Ok(()) => info!("{option} {} written", path.display()),
                Err(error) => error!("{option}: {error}"),
            }
        }
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
        for listener in &self.listeners {
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
        if let Some(fifo) = self.fifos.active.take() {
            let path = fifo.path().to_owned();
            match fifo.remove_if_ours() {
                Removal::Removed => info!("VACUUM: master fifo {} removed.", path.display()),
                Removal::NotOurs => {
                    warn!("VACUUM: master fifo {} is no longer ours: not removed", path.display())
                }
                Removal::Absent => {}
                Removal::Failed(reason) => warn!("VACUUM: master fifo {}: {reason}", path.display()),
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
