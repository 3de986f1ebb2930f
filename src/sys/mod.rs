//! The operating system, fenced: one wrapper per call, typed in and out.
pub mod shm;
