//! Bytes that belong to the plugin and are lent to the server until they have been sent.

use std::ffi::c_void;
use std::sync::atomic::{AtomicPtr, Ordering};

use appserver_plugin_abi as abi;
use bytes::Bytes;

/// Gives an owner back to the plugin. In a worker with application threads that is one of theirs: the
/// thread of the connections never waits for the runtime.
///
/// From a leaked box: bytes may be on their way to it whenever another one takes its place.
static RETURN: AtomicPtr<GiveBack> = AtomicPtr::new(std::ptr::null_mut());

type GiveBack = Box<dyn Fn(Owner) + Send + Sync>;

/// An object of the plugin that keeps bytes alive.
pub(super) struct Owner(*mut c_void);

// SAFETY: it is only kept and given back; the plugin demands no thread for that.
unsafe impl Send for Owner {}

impl Owner {
    pub(super) fn into_pointer(self) -> *mut c_void {
        self.0
    }
}

struct Lent {
    bytes: abi::Bytes,
    owner: *mut c_void,
}

// SAFETY: the bytes do not change, and the owner is only kept.
unsafe impl Send for Lent {}
// SAFETY: as above.
unsafe impl Sync for Lent {}

impl AsRef<[u8]> for Lent {
    fn as_ref(&self) -> &[u8] {
        // SAFETY: the plugin keeps them until it has the owner back.
        unsafe { self.bytes.slice() }
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        // SAFETY: null, or from a box that is never freed.
        if let Some(give_back) = unsafe { RETURN.load(Ordering::Acquire).as_ref() } {
            give_back(Owner(self.owner));
        }
    }
}

/// Bytes that live until the last clone is dropped.
pub(super) fn bytes(bytes: abi::Bytes, owner: *mut c_void) -> Bytes {
    Bytes::from_owner(Lent { bytes, owner })
}

/// Says how owners are given back, before the first request.
pub(super) fn set_return(give_back: impl Fn(Owner) + Send + Sync + 'static) {
    let give_back: GiveBack = Box::new(give_back);
    RETURN.store(Box::into_raw(Box::new(give_back)), Ordering::Release);
}
