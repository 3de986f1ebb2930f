//! What all workers share, as a plugin reaches it.

use std::sync::OnceLock;

use appserver_plugin_abi::{LockAnswer, LockCall};

use crate::locks::Locks;
use crate::sys::robust::Taken;

/// The locks, and the highest number in use.
static LOCKS: OnceLock<(Locks, u32)> = OnceLock::new();

/// The generation of the application.
static GENERATION: OnceLock<u64> = OnceLock::new();

/// Lets the application of `generation` use the locks from 0 up to `highest`. Without them, as from a
/// master of an older release, there are none.
pub fn share(generation: u64, locks: Option<Locks>, highest: u32) {
    GENERATION.get_or_init(|| generation);
    if let Some(locks) = locks {
        LOCKS.get_or_init(|| (locks, highest));
    }
}

/// Whether the application has taken the place of an earlier one.
pub(super) fn is_a_reload() -> bool {
    GENERATION.get().is_some_and(|generation| *generation > 1)
}

pub(super) extern "C" fn lock(what: LockCall, index: u32) -> LockAnswer {
    let Some((locks, _)) = LOCKS.get().filter(|(_, highest)| index <= *highest) else {
        return LockAnswer::Unknown;
    };
    match what {
        LockCall::Take => match locks.lock(index) {
            Ok(Taken::Clean) => LockAnswer::Done,
            Ok(Taken::FromTheDead) => LockAnswer::FromTheDead,
            Err(_) => LockAnswer::HeldHere,
        },
        LockCall::GiveBack => match locks.unlock(index) {
            Ok(()) => LockAnswer::Done,
            Err(_) => LockAnswer::NotHeldHere,
        },
        LockCall::Look => match locks.is_locked(index) {
            Ok(false) => LockAnswer::Done,
            Ok(true) | Err(_) => LockAnswer::Busy,
        },
    }
}
