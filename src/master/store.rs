//! Listeners in the descriptor store of the service manager, which gives them back to the next start of the
//! service: clients wait in their queues meanwhile, instead of being refused.

use std::os::fd::AsFd;

use log::{info, warn};

use crate::service::{notice, store};

use super::Runner;

impl Runner {
    /// Stores the listeners that are new, and takes out of the store what is not listened on any more.
    pub(super) fn follow_store(&mut self) {
        let Some((manager, size)) = self.service.as_mut().and_then(|service| service.store()) else { return };
        for name in self.holdings.unstored.drain(..) {
            manager.send(notice::forget(&name));
        }
        let mut stored = self.holdings.listeners.iter().filter(|listener| listener.stored).count();
        for listener in self.holdings.listeners.iter_mut().filter(|listener| !listener.stored) {
            let Some(name) = store::name(listener) else { continue };
            if stored == size {
                warn!(
                    "{} is not stored over a restart: FileDescriptorStoreMax={size} is less than the listeners there are",
                    listener.local
                );
                continue;
            }
            match manager.send_with(notice::store(&name), listener.fd.as_fd()) {
                Ok(()) => {
                    stored += 1;
                    listener.stored = true;
                    info!("{} is in the descriptor store of the service manager", listener.local);
                }
                Err(error) => warn!("{} is not stored over a restart: {error}", listener.local),
            }
        }
    }
}
