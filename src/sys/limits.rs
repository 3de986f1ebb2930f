//! What the kernel allows.

/// Longest listen queue of a socket: `net.core.somaxconn`. A longer one is cut without a word.
///
/// 4096, the default since kernel 5.4, where the setting cannot be read.
pub fn somaxconn() -> u32 {
    const KERNEL_DEFAULT: u32 = 4096;
    std::fs::read_to_string("/proc/sys/net/core/somaxconn")
        .ok()
        .and_then(|text| text.trim().parse().ok())
        .unwrap_or(KERNEL_DEFAULT)
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_listen_queue_has_a_limit() {
        assert!(super::somaxconn() > 0);
    }
}
