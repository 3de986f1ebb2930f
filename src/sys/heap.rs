//! The heap of a process that is about to be copied by fork.
//!
//! Loading an application leaves a heap full of small holes. What a copy allocates would go into
//! them, a few bytes to a page, and each such page would cease to be shared with the other copies.
#![allow(unsafe_code)]

/// Sizes of 16 bytes apart have chunks of their own up to here (malloc's small bins, and what a
/// thread caches).
const LARGEST_SMALL: usize = 1040;

/// Half of `M_MMAP_THRESHOLD` (mallopt(3)): where there is no hole, more would be mapped apart.
const LARGEST: usize = 64 << 10;

/// What the smallest chunk holds.
const SMALLEST: usize = 24;

/// Gives unused pages back, and takes what free memory there is between used pieces out of use: what
/// is allocated from now on lies together at the end of the heap.
///
/// Call it before the first fork of a process, for the holes are never freed.
#[cfg(target_env = "gnu")]
pub fn fill_holes() {
    // SAFETY: takes a number; only gives back memory that nobody uses.
    unsafe { libc::malloc_trim(0) };
    // SAFETY: moves nothing, tells where the heap ends.
    let end = unsafe { libc::sbrk(0) };
    // The large ones first: their pages stay untouched but for the first.
    let large =
        std::iter::successors(Some(LARGEST), |size| Some(size / 2)).take_while(|size| *size > LARGEST_SMALL);
    let small = (0..=(LARGEST_SMALL - SMALLEST) / 16).rev().map(|step| SMALLEST + 16 * step);
    for size in large.chain(small) {
        loop {
            // SAFETY: any size may be asked for.
            let hole = unsafe { libc::malloc(size) };
            if hole.is_null() || hole >= end {
                // No hole but new memory: there is none left of this size.
                // SAFETY: allocated just now, and not used.
                unsafe { libc::free(hole) };
                break;
            }
        }
    }
}

/// With other C libraries nothing is known about holes.
#[cfg(not(target_env = "gnu"))]
pub fn fill_holes() {}
