//! Processes as `/proc` shows them.

use std::collections::BTreeMap;
use std::fs;
use std::os::fd::BorrowedFd;
use std::path::PathBuf;
use std::sync::Once;

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::Signal;
use nix::unistd::Pid;

/// Flag of a process that ends. It stands before the process closes its files: whoever waits for
/// the end of a pipe and looks then finds it set, while the process may not be a zombie yet.
const PF_EXITING: u32 = 4;

/// The fields of `/proc/PID/stat` that the tests need.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stat {
    /// Process id.
    pub pid: u32,
    /// Parent.
    pub parent: u32,
    /// Process group.
    pub group: u32,
    /// Dead, but not reaped yet; or about to be, and holding nothing any more but its number.
    pub zombie: bool,
}

/// One process; `None` when it does not exist.
pub fn stat(pid: u32) -> Option<Stat> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The command name stands in parentheses and may itself contain some, see proc_pid_stat(5).
    let mut fields = text.rsplit_once(')')?.1.split_ascii_whitespace();
    let dead = matches!(fields.next()?, "Z" | "X");
    let (parent, group) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    let flags: u32 = fields.nth(3)?.parse().ok()?;
    Some(Stat { pid, zombie: dead || flags & PF_EXITING != 0, parent, group })
}

/// True while the process runs.
pub fn is_alive(pid: u32) -> bool {
    stat(pid).is_some_and(|stat| !stat.zombie)
}

/// All running processes that `wanted` picks.
pub fn list(wanted: impl Fn(&Stat) -> bool) -> Vec<Stat> {
    list_all(|stat| !stat.zombie && wanted(stat))
}

/// All processes that `wanted` picks, those included that nobody has reaped.
pub fn list_all(wanted: impl Fn(&Stat) -> bool) -> Vec<Stat> {
    let entries = fs::read_dir("/proc").expect("/proc is mounted").flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter_map(stat).filter(|stat| wanted(stat)).collect()
}

/// Sends a signal to a process that is known to exist.
pub fn kill(pid: u32, signal: Signal) {
    let pid = Pid::from_raw(pid.try_into().expect("pids are small"));
    nix::sys::signal::kill(pid, signal).expect("the process exists");
}

/// How often the process has gone to sleep by itself.
pub fn wakes(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
    line.expect("the kernel counts them").trim().parse().expect("a number")
}

/// The title of a process, as `ps` shows it.
pub fn title(pid: u32) -> String {
    let raw = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&raw).replace('\0', " ").trim().to_owned()
}

/// True when the process has a handler for this signal.
pub fn catches(pid: u32, signal: Signal) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    mask & (1 << (signal as u64 - 1)) != 0
}

/// Open descriptors of a process and what they lead to.
pub fn descriptors(pid: u32) -> BTreeMap<u32, PathBuf> {
    let entries = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    let descriptor = |entry: fs::DirEntry| {
        let number = entry.file_name().to_str()?.parse().ok()?;
        Some((number, entry.path().read_link().ok()?))
    };
    entries.filter_map(descriptor).collect()
}

/// What kinds of descriptors a process has open, and how many of each: for comparing processes
/// or moments. Inode numbers of sockets and pipes are left out, they differ each time.
pub fn descriptor_kinds(pid: u32) -> BTreeMap<String, usize> {
    let mut kinds = BTreeMap::new();
    for target in descriptors(pid).into_values() {
        let target = target.to_string_lossy().into_owned();
        // A file of the kernel that is read at this very moment.
        if target.starts_with("/proc/") {
            continue;
        }
        let kind = match target.split_once(":[") {
            Some((kind @ ("socket" | "pipe"), _)) => kind.to_owned(),
            _ => target,
        };
        *kinds.entry(kind).or_default() += 1;
    }
    kinds
}

/// Makes sure that no server inherits what the test runner itself inherited, such as the job
/// server of make: its descriptors would be counted as the server's.
pub fn keep_own_descriptors() {
    static DONE: Once = Once::new();
    DONE.call_once(|| {
        for number in descriptors(std::process::id()).into_keys().filter(|&number| number > 2) {
            let number = number.try_into().expect("descriptors are small numbers");
            // SAFETY: it is only used for one call, which changes nothing for a descriptor that the
            // standard library opened and fails for one that was closed since it was listed.
            #[allow(unsafe_code)]
            let descriptor = unsafe { BorrowedFd::borrow_raw(number) };
            let _ = fcntl(descriptor, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC));
        }
    });
}

/// Makes sure that servers started from now on may use descriptors above 1024, the usual limit.
pub fn allow_high_descriptors() {
    const ENOUGH: u64 = 4096;
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("there is such a limit");
    setrlimit(Resource::RLIMIT_NOFILE, soft.max(ENOUGH.min(hard)), hard).expect("up to the hard limit");
}
