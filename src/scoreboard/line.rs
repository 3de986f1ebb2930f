//! A request's method and target in words of shared memory.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Writes both, cut to `BYTES`. A reader may see a mixture of two; it is evidence for a person, not a
/// protocol.
pub(super) fn write<const BYTES: usize>(words: &[AtomicU64], method: &str, target: &str) {
    let mut text = [0_u8; BYTES];
    let mut length = 0;
    for part in [method.as_bytes(), b" ", target.as_bytes()] {
        let take = part.len().min(BYTES - length);
        text[length..length + take].copy_from_slice(&part[..take]);
        length += take;
    }
    for (word, bytes) in words.iter().zip(text.as_chunks::<8>().0) {
        word.store(u64::from_ne_bytes(*bytes), Relaxed);
        if bytes[7] == 0 {
            break;
        }
    }
}

/// The text in these words, made harmless for a log line; empty before the first.
pub(super) fn read(words: impl Iterator<Item = u64>) -> String {
    let bytes: Vec<u8> = words.flat_map(u64::to_ne_bytes).take_while(|it| *it != 0).collect();
    String::from_utf8_lossy(&bytes).escape_debug().to_string()
}
