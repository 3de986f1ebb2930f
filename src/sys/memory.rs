//! How much memory processes have.

use std::fs;
use std::io;

use super::process::{self, Pid};

/// What costs next to nothing to find out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Memory {
    /// Bytes that are in memory now, the shared ones too.
    pub resident: u64,
    /// Bytes of address space.
    pub address_space: u64,
}

/// What takes a look at each page: about a millisecond for a hundred megabytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Shares {
    /// Bytes that no other process has ("USS"): what its end would free.
    pub unique: u64,
    /// The same, and of what `n` processes share the nth part ("PSS"): the sum over all is what they have.
    pub proportional: u64,
}

impl Memory {
    /// Those of a process; `None` when there is no such process.
    pub fn of(pid: Pid) -> Option<Self> {
        let (resident, address_space) = process::memory(pid.as_raw().try_into().ok()?)?;
        Some(Memory { resident, address_space })
    }
}

impl Shares {
    /// Those of a process.
    ///
    /// # Errors
    /// When there is no such process, when it is none of this user's, and on kernels before 4.14.
    pub fn of(pid: Pid) -> io::Result<Self> {
        let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
        Self::parse(&text).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "smaps_rollup is empty"))
    }

    /// See proc_pid_smaps(5).
    fn parse(text: &str) -> Option<Self> {
        let bytes = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name))?;
            Some(line.split_ascii_whitespace().next()?.parse::<u64>().ok()? * 1024)
        };
        let unique = bytes("Private_Clean:")? + bytes("Private_Dirty:")?;
        Some(Shares { unique, proportional: bytes("Pss:")? })
    }
}

/// Bytes of memory of the whole machine; `None` without `/proc`.
pub fn of_machine() -> Option<u64> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    Some(line.split_ascii_whitespace().next()?.parse::<u64>().ok()? * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_knows_what_it_has() {
        let (memory, shares) = (Memory::of(process::this()), Shares::of(process::this()));
        let (memory, shares) = (memory.expect("it runs"), shares.expect("it may ask for its own"));
        assert!(memory.address_space >= memory.resident && memory.resident >= shares.unique, "{memory:?}");
        assert!(shares.proportional >= shares.unique && shares.unique > 0, "{shares:?}");
        assert!(of_machine() > Some(memory.resident));
        assert_eq!(Memory::of(Pid::from_raw(i32::MAX)), None);
        assert!(Shares::of(Pid::from_raw(i32::MAX)).is_err());
    }

    #[test]
    fn the_figures_of_the_kernel_are_kilobytes() {
        let text = "00400000-7ffe0000 ---p 00000000 00:00 0   [rollup]\nRss:  900 kB\nPss:   30 kB\nPss_Anon: 7 kB\n\
                    Private_Clean:  4 kB\nPrivate_Dirty:   6 kB\nSwap:   0 kB\n";
        assert_eq!(Shares::parse(text), Some(Shares { unique: 10 << 10, proportional: 30 << 10 }));
        // That of a process that is about to end.
        assert_eq!(Shares::parse(""), None);
    }
}
