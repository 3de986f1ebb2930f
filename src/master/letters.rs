//! Commands by the letter: the master FIFO is read, and made anew when somebody removes it.

use std::os::fd::{AsFd, AsRawFd};

use log::{error, warn};

use crate::control;
use crate::control::fifo::Restored;
use crate::control::fifo_watch::FifoWatch;

use super::{Runner, Source};

impl Runner {
    pub(super) fn read_fifo(&mut self) {
        loop {
            let Some(fifo) = &mut self.holdings.fifos.active else { return };
            let bytes = match fifo.read() {
                Ok(bytes) if bytes.is_empty() => return,
                Ok(bytes) => bytes,
                Err(error) => return error!("master fifo {}: {error}", fifo.path().display()),
            };
            for byte in bytes {
                match control::fifo_command(byte) {
                    Ok(Some(command)) => {
                        self.command(command, &format!("master fifo '{}'", char::from(byte)))
                    }
                    Ok(None) => {}
                    Err(unknown) => warn!("{unknown}: ignored"),
                }
            }
        }
    }

    pub(super) fn check_fifo(&mut self) {
        if let Some(Err(error)) = self.holdings.fifos.watch.as_ref().map(FifoWatch::acknowledge) {
            warn!("the master fifo cannot be watched any more: {error}");
        }
        let Some(fifo) = &mut self.holdings.fifos.active else { return };
        let path = fifo.path().to_owned();
        match fifo.restore() {
            Ok(Restored::InPlace) => return,
            Ok(Restored::Recreated) => {
                warn!("master fifo {} was removed by somebody: made anew", path.display());
                self.watch_fifo();
                // Letters rescued from the removed one come first.
                self.read_fifo();
            }
            Err(error) => {
                error!("master fifo {} is gone: {error}", path.display());
                // Wait for what is in the way to go, too.
                self.watch_fifo();
                if path.symlink_metadata().is_ok() {
                    return;
                }
            }
        }
        // What happened before the new watch was there goes unnoticed by it.
        self.check_fifo();
    }

    pub(super) fn watch_fifo(&mut self) {
        self.sources.retain(|_, it| *it != Source::FifoWatch);
        self.holdings.fifos.watch = None;
        let Some(raw) = self.holdings.fifos.active.as_ref().map(|fifo| fifo.fd().as_raw_fd()) else { return };
        // It is watched already when it is the same one, with something else in its place.
        self.unwatch(raw, Source::Fifo);
        let Some(fifo) = &self.holdings.fifos.active else { return };
        match FifoWatch::new(fifo.fd(), fifo.path()) {
            Ok(watch) => {
                let raw = watch.as_fd().as_raw_fd();
                self.holdings.fifos.watch = Some(watch);
                self.watch(raw, Source::FifoWatch);
            }
            Err(error) => warn!("master fifo: should somebody remove it, that goes unnoticed: {error}"),
        }
        self.watch(raw, Source::Fifo);
    }
}
