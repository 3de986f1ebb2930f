//! What all workers share, as a plugin reaches it.

use std::ffi::c_void;
use std::sync::OnceLock;

use appserver_plugin_abi::{Bytes, CacheAnswer, CacheCall, CacheWhat, LockAnswer, LockCall};

use crate::cache::table::Existing;
use crate::cache::{self, Caches};
use crate::locks::Locks;
use crate::sys::robust::Taken;

/// Set by the zygote, before the application is loaded.
static SHARED: OnceLock<(u64, Shared)> = OnceLock::new();

/// What an application may use that other workers use, too.
#[derive(Debug)]
pub struct Shared {
    /// The locks; none from a master of an older release.
    pub locks: Option<Locks>,
    /// It may use the locks from 0 up to this one.
    pub highest_lock: u32,
    /// The caches.
    pub caches: Caches,
}

/// Lets the application of `generation` use what is shared.
pub fn share(generation: u64, shared: Shared) {
    SHARED.get_or_init(|| (generation, shared));
}

fn shared() -> Option<&'static Shared> {
    SHARED.get().map(|(_, shared)| shared)
}

/// Whether the application has taken the place of an earlier one.
pub(super) fn is_a_reload() -> bool {
    SHARED.get().is_some_and(|(generation, _)| *generation > 1)
}

pub(super) extern "C" fn lock(what: LockCall, index: u32) -> LockAnswer {
    let usable = shared().filter(|shared| index <= shared.highest_lock);
    let Some(locks) = usable.and_then(|shared| shared.locks.as_ref()) else { return LockAnswer::Unknown };
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

pub(super) extern "C" fn cache(
    call: *const CacheCall,
    answer: extern "C" fn(context: *mut c_void, bytes: Bytes),
    context: *mut c_void,
) -> CacheAnswer {
    // SAFETY: the plugin keeps the call and its bytes alive until this returns.
    let (call, name, key, value) = unsafe {
        let call = &*call;
        (call, call.cache.slice(), call.key.slice(), call.value.slice())
    };
    let Some(table) = shared().and_then(|shared| shared.caches.find(name)) else {
        return CacheAnswer::Unknown;
    };
    let (now, number, expires) = (cache::now(), call.number, call.expires);
    let give = |bytes: &[u8]| answer(context, Bytes::of(bytes));
    let done = match call.what {
        CacheWhat::Get => table.get(key, now).map(|value| give(&value)).is_some(),
        CacheWhat::Set => table.store(key, value, expires, Existing::Keep, now),
        CacheWhat::Update => table.store(key, value, expires, Existing::Replace, now),
        CacheWhat::Delete => table.delete(key, now),
        CacheWhat::Exists => table.exists(key, now),
        CacheWhat::Clear => {
            table.clear();
            true
        }
        CacheWhat::Keys => {
            table.keys(now).iter().for_each(|key| give(key));
            true
        }
        CacheWhat::Add => table.calculate(key, expires, now, |it| it.wrapping_add(number)),
        CacheWhat::Multiply => table.calculate(key, expires, now, |it| it.wrapping_mul(number)),
        CacheWhat::Divide if number == 0 => false,
        CacheWhat::Divide => table.calculate(key, expires, now, |it| it.wrapping_div(number)),
    };
    if done { CacheAnswer::Done } else { CacheAnswer::No }
}
