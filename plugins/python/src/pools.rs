//! Python's own allocator, before the fork.
//!
//! Small objects lie in pools of one size class each (Objects/obmalloc.c), and loading leaves free
//! blocks in many of them. What a worker allocated there would make a page of its own of each.

use std::ffi::c_void;

use pyo3_ffi as ffi;

/// Sizes are rounded up to multiples of it.
const GRAIN: usize = 16;

/// Larger objects are malloc's.
const LARGEST: usize = 512;

/// What a pool begins with: its list of blocks, and its neighbours.
const HEADER: usize = 48;

/// What is taken of a size at most.
const MOST: usize = 1 << 20;

/// Pools lie on multiples of it. They are larger from 3.10 on, which is a multiple, too.
const POOL: usize = 4096;

/// Takes the free blocks of used pools out of use, so that new objects of a size lie in one pool, together.
/// They are never freed.
///
/// The GIL must be held.
pub(crate) fn fill() {
    for size in (GRAIN..=LARGEST).step_by(GRAIN) {
        // In that much there is a new pool, unless `PYTHONMALLOC` names another allocator.
        let most = MOST / size;
        if !(0..most).any(|_| begins_pool(size)) {
            return;
        }
    }
}

/// Takes a block, but from a new pool: true then.
fn begins_pool(size: usize) -> bool {
    let block = allocate(size);
    if block as usize % POOL != HEADER {
        return false;
    }
    // The first block of a used pool may be free, too; in a new one the second follows.
    let next = allocate(size);
    let is_new = next as usize == block as usize + size;
    free(next);
    if is_new {
        free(block);
    }
    is_new
}

fn allocate(size: usize) -> *mut c_void {
    // SAFETY: the GIL is held.
    unsafe { ffi::PyObject_Malloc(size) }
}

fn free(block: *mut c_void) {
    // SAFETY: allocated just now, and used by nobody.
    unsafe { ffi::PyObject_Free(block) }
}
