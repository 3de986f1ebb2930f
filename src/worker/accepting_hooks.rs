//! `hook-accepting` and its like, in the worker.

use std::sync::Arc;
use std::thread;

use log::error;

use crate::config::Config;
use crate::hooks;

/// The hooks that are due when the generation serves.
pub(super) struct AcceptingHooks {
    /// Worker number.
    pub(super) slot: u32,
    pub(super) config: Arc<Config>,
}

impl AcceptingHooks {
    /// Runs them in their order; one that fails is logged, and the others are run all the same.
    ///
    /// On a thread of their own: the worker serves, and a hook may well be a request to it.
    pub(super) fn run(&self, first: bool) {
        let (slot, config) = (self.slot, Arc::clone(&self.config));
        let hooks = move || {
            for hook in config.hooks.iter().filter(|hook| hook.point.is_for(slot, first)) {
                if let Err(error) = hooks::run(&hook.action) {
                    error!("hook-{}: {error}", hook.point.name());
                }
            }
        };
        if let Err(error) = thread::Builder::new().name("hooks".to_owned()).spawn(hooks) {
            error!("hooks are not run: {error}");
        }
    }
}
