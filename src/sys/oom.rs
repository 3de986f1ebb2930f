//! How often the kernel's OOM killer has struck.

use super::cgroup;

/// Its counters. The kernel adds to them before it kills.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Kills {
    /// Of the control group of this process; `None` where there is none that counts.
    pub group: Option<u64>,
    /// Of the whole machine, also as seen from a container; `None` before kernel 4.13.
    pub machine: Option<u64>,
}

impl Kills {
    /// What they are now: a handful of small files.
    pub fn read() -> Self {
        let vmstat = std::fs::read_to_string("/proc/vmstat").unwrap_or_default();
        Kills { group: cgroup::oom_kills(), machine: cgroup::counter(&vmstat, "oom_kill") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machine_counts() {
        let kills = Kills::read();
        assert!(kills.machine.is_some(), "{kills:?}");
        assert!(Kills::read().machine >= kills.machine, "it never counts down");
    }
}
