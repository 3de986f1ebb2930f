//! Processes: fork, exec, wait, signal, and the ties between parent and child.
#![allow(unsafe_code)]

use std::ffi::{CStr, CString};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::{fmt, io};

use nix::sys::prctl;
pub use nix::sys::signal::Signal;
pub use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use super::{cvt, cvt_long, retry, stray};

/// Which side of [`fork`] this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fork {
    /// The new process.
    Child,
    /// The old process, with the pid of the new one.
    Parent(Pid),
}

/// Makes a copy of this process, which must have one thread only.
///
/// A lock held by another thread at this moment would stay locked in the child for ever, so a
/// process with more than one thread is refused; that check is what makes this a safe function.
///
/// # Errors
/// When there are other threads, or a limit on processes or memory is reached.
pub fn fork() -> io::Result<Fork> {
    let threads = threads()?;
    if threads != 1 {
        return Err(io::Error::other(format!("a process with {threads} threads cannot fork")));
    }
    // SAFETY: single-threaded, as was just seen; nobody else can start a thread.
    unsafe { copy() }
}

/// Whoever has this vouches that a fork finds no lock in the hands of another thread which the child
/// would want.
#[derive(Debug)]
pub struct ThreadsPrepared(());

impl ThreadsPrepared {
    /// The word of who knows the other threads.
    ///
    /// # Safety
    /// Until it is dropped, no other thread may hold a lock that the child needs. The C library
    /// looks after its own (pthread_atfork(3)).
    pub unsafe fn new() -> Self {
        ThreadsPrepared(())
    }
}

/// Makes a copy of this process; other threads are not copied.
///
/// # Errors
/// When a limit on processes or memory is reached.
pub fn fork_among_threads(_word: &ThreadsPrepared) -> io::Result<Fork> {
    // SAFETY: whoever made the word promised what this needs.
    unsafe { copy() }
}

/// # Safety
/// See fork(2): no other thread may hold a lock that the child needs.
unsafe fn copy() -> io::Result<Fork> {
    // SAFETY: as the caller promises.
    match stray::known(|| unsafe { nix::unistd::fork() })? {
        nix::unistd::ForkResult::Child => Ok(Fork::Child),
        nix::unistd::ForkResult::Parent { child } => Ok(Fork::Parent(child)),
    }
}

/// Resident and virtual memory of a process, bytes; `None` when there is no such process.
pub fn memory(pid: u64) -> Option<(u64, u64)> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/statm")).ok()?;
    let mut pages = text.split_ascii_whitespace().map(str::parse::<u64>);
    let (all, resident) = (pages.next()?.ok()?, pages.next()?.ok()?);
    let size = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE).ok().flatten()?.unsigned_abs();
    Some((resident * size, all * size))
}

/// Bytes that a process has of its own: anonymous pages and what of them was swapped out. Those that its
/// children share since the fork count, for they go with the last of them. `None` when there is no such
/// process; everybody may ask (proc_pid_status(5)), unlike for `smaps`.
pub fn own_memory(pid: Pid) -> Option<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let kibibytes = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        line.split_ascii_whitespace().next()?.parse::<u64>().ok()
    };
    Some((kibibytes("RssAnon:")? + kibibytes("VmSwap:").unwrap_or(0)) * 1024)
}

/// The name of this machine (gethostname(2)); empty if it has none.
pub fn hostname() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    name.trim_end().to_owned()
}

/// Threads of this process: field 20 of `/proc/self/stat` (proc_pid_stat(5)).
///
/// # Errors
/// When `/proc` is not mounted.
pub fn threads() -> io::Result<u64> {
    const NUM_THREADS: usize = 20;
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    stat_field(&stat, NUM_THREADS)
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "/proc/self/stat is cut short"))
}

/// Runs another program in this process; returns only when that failed.
pub fn exec(path: &CStr, argv: &[CString], envp: &[CString]) -> io::Error {
    match nix::unistd::execve(path, argv, envp) {
        Ok(never) => match never {},
        Err(errno) => errno.into(),
    }
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Exit {
    /// It left with this code.
    Code(i32),
    /// A signal ended it.
    Signal {
        /// Signal number; may be a real-time signal, which [`Signal`] cannot name.
        number: i32,
        /// Whether a core file was written.
        core: bool,
    },
}

impl Exit {
    fn from_status(status: libc::c_int) -> Self {
        if libc::WIFSIGNALED(status) {
            Exit::Signal { number: libc::WTERMSIG(status), core: libc::WCOREDUMP(status) }
        } else {
            Exit::Code(libc::WEXITSTATUS(status))
        }
    }
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Exit::Code(code) => write!(f, "exit code {code}"),
            Exit::Signal { number, core } => {
                write!(f, "signal {number}")?;
                if let Ok(signal) = Signal::try_from(number) {
                    write!(f, " ({})", signal.as_str())?;
                }
                if core { write!(f, ", core dumped") } else { Ok(()) }
            }
        }
    }
}

/// Collects one dead child, without waiting; `None` when none is dead or there are no children.
///
/// Raw `waitpid`: nix reports a death by a real-time signal as an error, after the kernel has
/// already forgotten the child.
///
/// # Errors
/// None that the kernel documents for these arguments.
pub fn reap() -> io::Result<Option<(Pid, Exit)>> {
    const ANY_CHILD: libc::pid_t = -1;
    let mut status = 0;
    // SAFETY: `status` is valid for the call.
    match retry(|| cvt(unsafe { libc::waitpid(ANY_CHILD, &raw mut status, libc::WNOHANG) })) {
        Ok(0) => Ok(None),
        Ok(pid) => Ok(Some((Pid::from_raw(pid), Exit::from_status(status)))),
        Err(error) if error.raw_os_error() == Some(libc::ECHILD) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Waits until the child `pid` ends; interruptions are retried.
///
/// # Errors
/// When `pid` is not a child of this process.
pub fn wait(pid: Pid) -> io::Result<Exit> {
    let mut status = 0;
    // SAFETY: `status` is valid for the call.
    retry(|| cvt(unsafe { libc::waitpid(pid.as_raw(), &raw mut status, 0) }))?;
    Ok(Exit::from_status(status))
}

/// Sends a signal to a process.
///
/// # Errors
/// When there is no such process or it belongs to somebody else. A pid that is not positive is
/// refused: to the kernel it would mean a whole process group, or everything.
pub fn kill(pid: Pid, signal: Signal) -> io::Result<()> {
    if pid.as_raw() <= 0 {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("{pid} is not a process id")));
    }
    Ok(nix::sys::signal::kill(pid, signal)?)
}

/// Sends a signal to every process of the group that `leader` leads.
///
/// # Errors
/// `NotFound` when nobody is in it. A pid that is not positive is refused: to the kernel it would
/// mean the group of this process, or everything.
pub fn kill_group(leader: Pid, signal: Signal) -> io::Result<()> {
    if leader.as_raw() <= 0 {
        let text = format!("{leader} is not the id of a process group");
        return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
    }
    nix::sys::signal::killpg(leader, signal).map_err(|errno| no_such_process(errno.into()))
}

/// Makes this process the parent of descendants whose own parent dies.
///
/// Survives `execve`; a forked child does not have it.
///
/// # Errors
/// Only on kernels before 3.4.
pub fn set_child_subreaper() -> io::Result<()> {
    Ok(prctl::set_child_subreaper(true)?)
}

/// Asks the kernel to signal this process when its parent dies; `None` takes that back.
///
/// Fork clears the setting, so call it in the child, then compare [`parent`] with the expected
/// one: the parent may have died before the call. It is also cleared by a change of
/// credentials, so drop privileges first.
///
/// # Errors
/// None that the kernel documents for a valid signal.
pub fn set_parent_death_signal(signal: Option<Signal>) -> io::Result<()> {
    Ok(prctl::set_pdeathsig(signal)?)
}

/// The program of this command is killed when the thread that starts it ends: with the main thread's end
/// nothing is left of what it has started, however it ends.
pub fn die_with_this_one(command: &mut Command) {
    let ours = this();
    let tie = move || {
        set_parent_death_signal(Some(Signal::SIGKILL))?;
        // It may have ended before.
        if parent() == ours { Ok(()) } else { Err(io::Error::from_raw_os_error(libc::ESRCH)) }
    };
    // SAFETY: between fork and exec only two system calls are made and no memory is allocated.
    unsafe { command.pre_exec(tie) };
}

/// The pid of the parent.
pub fn parent() -> Pid {
    Pid::parent()
}

/// The pid of this process.
pub fn this() -> Pid {
    Pid::this()
}

/// Whether this is process 1, as the program of a container is: the kernel drops its signals that have no
/// handler, hands every orphan to it, and ends all others with it (pid_namespaces(7)).
pub fn is_init() -> bool {
    this().as_raw() == 1
}

/// Lets this process dump core and keeps its `/proc` files its own.
///
/// The kernel withdraws both when credentials change.
///
/// # Errors
/// None that the kernel documents.
pub fn set_dumpable() -> io::Result<()> {
    Ok(prctl::set_dumpable(true)?)
}

/// Ends the process at once: no destructors, no exit handlers, nothing flushed.
///
/// For forked children, whose exit handlers belong to the parent.
pub fn exit_now(code: i32) -> ! {
    // SAFETY: _exit does not return and runs nothing of ours.
    unsafe { libc::_exit(code) }
}

/// Leaves the terminal and process group: the caller becomes leader of a new session.
///
/// # Errors
/// When the caller already leads a process group; a freshly forked child never does.
pub fn new_session() -> io::Result<()> {
    nix::unistd::setsid()?;
    Ok(())
}

/// Opens a handle on a process that stays valid when its number is reused.
///
/// It becomes readable when the process ends. The number itself may be reused between finding
/// it and this call: verify what the process is *after* opening.
///
/// # Errors
/// `NotFound` when there is no such process; otherwise as `pidfd_open(2)`, kernel 5.3.
pub fn pidfd_open(pid: Pid) -> io::Result<OwnedFd> {
    const NO_FLAGS: libc::c_uint = 0;
    // SAFETY: two integers; the kernel touches no memory of ours.
    let raw = cvt_long(unsafe { libc::syscall(libc::SYS_pidfd_open, pid.as_raw(), NO_FLAGS) })
        .map_err(no_such_process)?;
    let raw = libc::c_int::try_from(raw).expect("descriptors are small");
    // SAFETY: the kernel has just made this number for us.
    Ok(unsafe { OwnedFd::from_raw_fd(raw) })
}

/// Sends a signal through a handle of [`pidfd_open`].
///
/// # Errors
/// `NotFound` when the process has ended; otherwise as `pidfd_send_signal(2)`.
pub fn pidfd_signal(pidfd: BorrowedFd<'_>, signal: Signal) -> io::Result<()> {
    const NO_FLAGS: libc::c_uint = 0;
    let no_info: *const libc::siginfo_t = std::ptr::null();
    // SAFETY: a null siginfo is allowed and means what kill(2) would send.
    cvt_long(unsafe {
        let signal = signal as libc::c_int;
        libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_raw_fd(), signal, no_info, NO_FLAGS)
    })
    .map_err(no_such_process)?;
    Ok(())
}

/// std has no kind for ESRCH, which callers want to tell from the rest.
fn no_such_process(error: io::Error) -> io::Error {
    match error.raw_os_error() {
        Some(libc::ESRCH) => io::Error::new(io::ErrorKind::NotFound, "no such process"),
        _ => error,
    }
}

/// When a process was started, in clock ticks since boot: with the pid it names one process for
/// ever.
///
/// # Errors
/// `NotFound` when there is no such process.
pub fn start_time(pid: Pid) -> io::Result<u64> {
    const STARTTIME: usize = 22;
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    stat_field(&stat, STARTTIME)
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, format!("/proc/{pid}/stat is cut short")))
}

/// Field `number` of `/proc/PID/stat`, counted from 1 as in `proc(5)`; 3 and above.
///
/// The second field is the command name, which may hold blanks and brackets of its own; only
/// the *last* closing bracket ends it.
pub(crate) fn stat_field(stat: &str, number: usize) -> Option<u64> {
    const FIRST_AFTER_NAME: usize = 3;
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_ascii_whitespace().nth(number.checked_sub(FIRST_AFTER_NAME)?)?.parse().ok()
}

/// Sets the name of the calling thread, which `ps -o comm` and `top` show; 15 bytes are kept.
///
/// # Errors
/// None that the kernel documents.
pub fn set_thread_name(name: &CStr) -> io::Result<()> {
    Ok(prctl::set_name(name)?)
}

#[cfg(test)]
// They wait with the functions under test.
#[allow(clippy::zombie_processes)]
mod tests {
    use std::os::fd::AsFd;
    use std::os::unix::process::CommandExt;
    use std::process::Command;

    use super::super::fd;
    use super::super::testing::{alone, await_readable, spawn_child};
    use super::*;

    #[test]
    fn exits_read_as_an_operator_would_say_them() {
        let cases = [
            (Exit::Code(3), "exit code 3"),
            (Exit::Signal { number: 9, core: false }, "signal 9 (SIGKILL)"),
            (Exit::Signal { number: 11, core: true }, "signal 11 (SIGSEGV), core dumped"),
            (Exit::Signal { number: 40, core: false }, "signal 40"),
        ];
        for (exit, text) in cases {
            assert_eq!(exit.to_string(), text);
        }
    }

    #[test]
    fn a_stat_line_is_read_past_a_hostile_command_name() {
        let stat = "42 (evil) 1 2 (x) S 7 8 9";
        assert_eq!(stat_field(stat, 4), Some(7));
        assert_eq!(stat_field(stat, 6), Some(9));
        assert_eq!(stat_field(stat, 7), None);
        assert_eq!(stat_field(stat, 1), None);
        assert_eq!(stat_field("42", 4), None);
    }

    #[test]
    fn a_forked_child_is_waited_for() {
        alone("sys::process::tests::a_forked_child_is_waited_for", || {
            let child = spawn_child(|| exit_now(7));
            assert_eq!(wait(child).unwrap(), Exit::Code(7));
        });
    }

    #[test]
    fn reaping_tells_no_children_from_none_dead_and_knows_real_time_signals() {
        alone(
            "sys::process::tests::reaping_tells_no_children_from_none_dead_and_knows_real_time_signals",
            || {
                assert_eq!(reap().unwrap(), None);
                let child = Command::new("/bin/sleep").arg("100").spawn().unwrap();
                let pid = Pid::from_raw(child.id().cast_signed());
                assert_eq!(reap().unwrap(), None);
                let handle = pidfd_open(pid).unwrap();
                // SAFETY: a signal to our own child.
                unsafe { libc::kill(pid.as_raw(), 40) };
                await_readable(handle.as_fd());
                assert_eq!(reap().unwrap(), Some((pid, Exit::Signal { number: 40, core: false })));
                assert_eq!(
                    pidfd_signal(handle.as_fd(), Signal::SIGTERM).unwrap_err().kind(),
                    io::ErrorKind::NotFound
                );
                assert_eq!(pidfd_open(pid).unwrap_err().kind(), io::ErrorKind::NotFound);
            },
        );
    }

    #[test]
    fn a_signal_through_a_handle_arrives() {
        let child = Command::new("/bin/sleep").arg("100").spawn().unwrap();
        let pid = Pid::from_raw(child.id().cast_signed());
        let handle = pidfd_open(pid).unwrap();
        pidfd_signal(handle.as_fd(), Signal::SIGKILL).unwrap();
        assert_eq!(wait(pid).unwrap(), Exit::Signal { number: 9, core: false });
    }

    #[test]
    fn groups_and_everybody_cannot_be_signalled_by_mistake() {
        for raw in [0, -1, -5] {
            assert!(kill(Pid::from_raw(raw), Signal::SIGTERM).is_err());
        }
    }

    #[test]
    fn a_group_is_signalled_as_a_whole() {
        // The shell leads a group, and waits for a child in it that holds the pipe open.
        let (read, write) = std::io::pipe().unwrap();
        let mut shell = Command::new("/bin/sh");
        shell.args(["-c", "sleep 100; true"]).stdout(write).process_group(0);
        let leader = Pid::from_raw(shell.spawn().unwrap().id().cast_signed());
        drop(shell);
        kill_group(leader, Signal::SIGKILL).unwrap();
        assert_eq!(wait(leader).unwrap(), Exit::Signal { number: 9, core: false });
        await_readable(read.as_fd());
        let nobody = kill_group(Pid::from_raw(i32::MAX), Signal::SIGKILL).unwrap_err();
        assert_eq!(nobody.kind(), io::ErrorKind::NotFound);
        assert!(kill_group(Pid::from_raw(0), Signal::SIGTERM).is_err());
    }

    #[test]
    fn start_times_tell_processes_apart_and_missing_ones_are_not_found() {
        let own = start_time(this()).unwrap();
        assert!(own > 0);
        assert_eq!(own, start_time(this()).unwrap());
        let missing = start_time(Pid::from_raw(i32::MAX)).unwrap_err();
        assert_eq!(missing.kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn a_failing_exec_returns_its_reason() {
        let error = exec(c"/nonexistent/program", &[c"program".to_owned()], &[]);
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn a_subreaper_inherits_its_grandchild() {
        alone("sys::process::tests::a_subreaper_inherits_its_grandchild", || {
            set_child_subreaper().unwrap();
            let (read, write) = fd::pipe().unwrap();
            let child = spawn_child(|| {
                spawn_child(|| {
                    nix::unistd::write(&write, &this().as_raw().to_ne_bytes()).unwrap();
                    exit_now(5)
                });
            });
            drop(write);
            let mut bytes = [0; 4];
            assert_eq!(nix::unistd::read(&read, &mut bytes).unwrap(), 4);
            let grandchild = Pid::from_raw(i32::from_ne_bytes(bytes));
            assert_eq!(wait(child).unwrap(), Exit::Code(0));
            assert_eq!(wait(grandchild).unwrap(), Exit::Code(5));
        });
    }

    #[test]
    fn a_child_goes_with_its_parent_when_it_asked_to() {
        let mut command = Command::new("/bin/sleep");
        command.arg("100");
        // SAFETY: one prctl, which is async-signal-safe.
        unsafe { command.pre_exec(|| set_parent_death_signal(Some(Signal::SIGTERM))) };
        // To the kernel the parent is the thread that started the child.
        let child = std::thread::spawn(move || command.spawn().unwrap()).join().unwrap();
        let pid = Pid::from_raw(child.id().cast_signed());
        assert_eq!(wait(pid).unwrap(), Exit::Signal { number: 15, core: false });
    }
}
