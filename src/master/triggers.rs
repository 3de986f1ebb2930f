//! Commands that come from files and descriptors: `touch-…`, `fs-reload`, `reload-on-fd`; and the
//! commands of the shell that the master runs.

use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use log::{error, info, warn};

use crate::config::Config;
use crate::control::changes::{ChangeWatch, Looks};
use crate::control::fd_trigger::{ArmedFd, Arrived};
use crate::control::touch::{Baseline, Purpose, Touch, TouchFiles};
use crate::hooks::{self, Action, Point};

use super::event::Event;
use super::{Runner, Source};

/// How often files are looked at when the kernel cannot tell.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// Starts watching the touch files; what is not there yet counts when it appears.
/// Changes since `earlier` count as touches: a re-exec misses none.
pub fn watch_touch_files(config: &Config, base: &Path, earlier: &Baseline) -> TouchFiles {
    let touches: Vec<_> =
        config.touches.iter().map(|it| Touch { path: base.join(&it.path), ..it.clone() }).collect();
    let touch = TouchFiles::watch(&touches, earlier);
    if let Some(reason) = touch.degraded() {
        warn!("touch files: {reason}; looking once a second instead");
    }
    touch
}

/// Starts watching what `fs-reload` names; changes since `earlier` count.
pub fn watch_changes(config: &Config, base: &Path, earlier: &Looks) -> ChangeWatch {
    let paths: Vec<(PathBuf, _)> =
        config.fs_reloads.iter().map(|(path, command)| (base.join(path), *command)).collect();
    ChangeWatch::new(paths, earlier)
}

impl Runner {
    /// Begins to listen to all of them, and looks what has happened before.
    pub(super) fn watch_triggers(&mut self) {
        for fd in self.holdings.armed_fds.iter().map(AsRawFd::as_raw_fd).collect::<Vec<_>>() {
            self.watch(fd, Source::ArmedFd(fd));
        }
        self.watch_files();
    }

    /// Listens to the files that the configuration names now; what changed since the last look counts.
    pub(super) fn follow_files(&mut self, base: &Path) {
        for (fd, source) in self.file_sources() {
            self.unwatch(fd, source);
        }
        let holdings = &mut self.holdings;
        let (touched, changed) = (holdings.touch.baseline().clone(), holdings.changes.looks());
        holdings.touch = watch_touch_files(&holdings.config, base, &touched);
        holdings.changes = watch_changes(&holdings.config, base, &changed);
        self.next_look = None;
        self.watch_files();
    }

    fn watch_files(&mut self) {
        for (fd, source) in self.file_sources() {
            self.watch(fd, source);
        }
        self.check_touch();
        self.check_changes();
    }

    fn file_sources(&self) -> Vec<(i32, Source)> {
        let touch = self.holdings.touch.fd().map(|fd| (fd.as_raw_fd(), Source::Touch));
        let changes = self.holdings.changes.fd().map(|fd| (fd.as_raw_fd(), Source::Changes));
        touch.into_iter().chain(changes).collect()
    }

    /// When files have to be looked at, if nothing tells of them.
    pub(super) fn look_deadline(&self) -> Option<Instant> {
        self.next_look
    }

    /// Looks at files whose time has come.
    pub(super) fn look(&mut self, now: Instant) {
        if self.next_look.is_some_and(|at| now >= at) {
            self.next_look = None;
            self.check_touch();
            self.check_changes();
        }
    }

    fn look_later(&mut self) {
        self.next_look.get_or_insert_with(|| Instant::now() + LOOK_INTERVAL);
    }

    pub(super) fn check_touch(&mut self) {
        let touched = self.holdings.touch.check();
        // The kernel may refuse to watch any longer, which shows after a check.
        if self.holdings.touch.fd().is_none() {
            self.look_later();
        }
        for touch in touched {
            info!("{}", touch.told());
            match touch.purpose {
                Purpose::Command(command) => self.queue.push_back(Event::Command(command)),
                Purpose::Exec(command) => self.start_command(&command),
                Purpose::Signal(number) => self.app_signals.raise(number),
                Purpose::Hook(action) => self.run_hook("hook-touch", &action),
            }
        }
    }

    pub(super) fn check_changes(&mut self) {
        let changed = self.holdings.changes.check();
        if self.holdings.changes.must_be_polled() {
            self.look_later();
        }
        for (path, command) in changed {
            info!("[uwsgi-fsmon] detected event on \"{}\"", path.display());
            self.queue.push_back(Event::Command(command));
        }
    }

    /// One of the descriptors of `reload-on-fd` is readable.
    pub(super) fn read_armed_fd(&mut self, raw: i32) {
        let Some(armed) = self.holdings.armed_fds.iter().find(|it| it.as_raw_fd() == raw) else { return };
        let ArmedFd { trigger, .. } = armed;
        match armed.read() {
            Ok(Arrived::Event) => {
                info!("*** fd {raw} ready: {} ***", trigger.message);
                self.queue.push_back(Event::Command(trigger.command));
                return;
            }
            Ok(Arrived::Nothing) => return,
            Ok(Arrived::End) => warn!("reload-on-fd: the other side has closed descriptor {raw}"),
            Err(error) => error!("reload-on-fd: descriptor {raw} is not listened to any more: {error}"),
        }
        self.unwatch(raw, Source::ArmedFd(raw));
        self.holdings.armed_fds.retain(|it| it.as_raw_fd() != raw);
    }

    /// Runs the hooks of a point of the master's own life.
    pub(super) fn run_hooks(&mut self, point: Point) {
        let actions: Vec<Action> = self
            .holdings
            .config
            .hooks
            .iter()
            .filter(|hook| hook.point == point)
            .map(|hook| hook.action.clone())
            .collect();
        for action in actions {
            self.run_hook(&format!("hook-{}", point.name()), &action);
        }
    }

    /// Nothing here is waited for.
    fn run_hook(&mut self, option: &str, action: &Action) {
        match action {
            Action::Exec(command) => self.start_command(command),
            Action::WriteFifo(path, text) => {
                if let Err(error) = hooks::write_fifo(path, text) {
                    error!("{option}: {}: {error}", path.display());
                }
            }
            action => {
                if let Err(error) = hooks::run(action) {
                    error!("{option}: {error}");
                }
            }
        }
    }

    fn start_command(&mut self, command: &str) {
        let start = &self.holdings.start;
        let directory = self.holdings.config.base_directory(&start.cwd);
        self.commands.start(command, start, &directory);
    }
}
