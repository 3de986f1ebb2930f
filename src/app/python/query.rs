//! Asking an executable which Python it is.
//!
//! No thread waits for it: the process that asks forks afterwards. The answer is plain lines rather
//! than JSON because importing `json` would take a third of the time.

use std::ffi::OsString;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use super::choice::cannot_run;
use super::error::{FindError, Trouble};
use crate::sys::fd::await_readable;
use crate::sys::preload;
use crate::sys::process::{Pid, Signal, kill_group, pidfd_open};

/// What the executable runs. `-I` keeps it from the user's own modules, and from those in the
/// working directory. The library that is mapped is the one in use, whatever a configuration says
/// about directories. Ends without finalization, which nobody waits for.
const SCRIPT: &str = r#"
import os, sys, sysconfig
var = sysconfig.get_config_var
version = "%d.%d.%d" % sys.version_info[:3]
facts = [
    ("implementation", sys.implementation.name),
    ("version", version),
    ("executable", sys.executable),
    ("prefix", sys.prefix),
    ("base_prefix", sys.base_prefix),
    ("gil_disabled", var("Py_GIL_DISABLED")),
    ("shared", var("Py_ENABLE_SHARED")),
    ("libdir", var("LIBDIR")),
    ("soname", var("INSTSONAME")),
    ("linked", var("LDLIBRARY")),
    ("multiarch", var("MULTIARCH")),
]
try:
    with open("/proc/self/maps", "rb") as maps:
        for line in maps:
            if b"/libpython" in line:
                facts.append(("mapped", os.fsdecode(line.split(None, 5)[5].rstrip(b"\n"))))
            elif b"/libappserver_guest.so" in line:
                facts.append(("guest", 1))
except OSError:
    pass
text = "".join("%s=%s\n" % (key, "" if value is None else value) for key, value in facts)
sys.stdout.flush()
os.write(1, os.fsencode("\n" + text + "end\n"))
os._exit(0)
"#;

/// First and last line of the answer; what modules loaded by `site` print stands around it.
const FIRST: &[u8] = b"\nimplementation=";
const LAST: &[u8] = b"\nend\n";

/// Nothing that is an answer is longer.
const LONGEST: usize = 64 << 10;

/// What Python says about itself. A fact that it does not know is empty.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Answer {
    /// `cpython`, `pypy`, ...
    pub implementation: String,
    /// Major, minor, patch.
    pub version: (u8, u8, u8),
    /// `sys.executable`: the interpreter itself, where a script was asked.
    pub executable: PathBuf,
    /// `sys.prefix`
    pub prefix: PathBuf,
    /// `sys.base_prefix`
    pub base_prefix: PathBuf,
    /// `Py_GIL_DISABLED`
    pub is_free_threaded: bool,
    /// `Py_ENABLE_SHARED`
    pub is_shared: bool,
    /// `LIBDIR`
    pub libdir: PathBuf,
    /// `INSTSONAME`: name of the library, with its version.
    pub soname: PathBuf,
    /// `LDLIBRARY`: its name for the linker.
    pub linked: PathBuf,
    /// `MULTIARCH`: Debian's name of the architecture.
    pub multiarch: PathBuf,
    /// Libraries of Python that the process had mapped.
    pub mapped: Vec<PathBuf>,
    /// It had mapped the library that it was started with.
    pub has_guest: bool,
}

/// Runs `executable`, with the library `guest` in it, and reads what it says, for no longer than `patience`.
///
/// Whatever it started is killed afterwards, answer or not.
///
/// # Errors
/// When it cannot be run, does not answer in time, or answers something else.
pub(super) fn ask(executable: &Path, guest: Option<&Path>, patience: Duration) -> Result<Answer, FindError> {
    let trouble = |trouble: Trouble| trouble.of(executable);
    let deadline = Instant::now() + patience;
    let mut child =
        Running::start(executable, guest).map_err(|error| trouble(not_started(executable, error)))?;

    let mut said = Vec::new();
    let mut ending = read(&mut child.stdout, &mut said, deadline, is_complete);
    if let Ending::Done = ending
        && let Some(answer) = parse(&said)
    {
        return Ok(answer);
    }
    let mut complaint = Vec::new();
    if let Ending::Eof = ending {
        // Its last words.
        ending = read(&mut child.stderr, &mut complaint, deadline, |_| false);
    } else {
        read(&mut child.stderr, &mut complaint, Instant::now(), |_| false);
    }
    if let Ending::Eof = ending
        && !child.has_ended_by(deadline)
    {
        ending = Ending::Deadline;
    }
    let status = child.end().map_err(|error| trouble(cannot_run(error)))?;
    let words = quote(&complaint);
    let command = format!("{} -c 'import sys; print(sys.version)'", executable.display());
    Err(trouble(match ending {
        Ending::Deadline => Trouble::NoAnswer { seconds: patience.as_secs(), said: words, command },
        _ if complaint.starts_with(b"Unknown option: -I") => Trouble::TooOld("2".to_owned()),
        Ending::Eof => {
            Trouble::NotPython { outcome: format!("it ended with {status}"), said: words, command }
        }
        Ending::Done | Ending::TooMuch => {
            Trouble::NotPython { outcome: "it answered something else".to_owned(), said: words, command }
        }
        Ending::Failed(error) => cannot_run(error),
    }))
}

fn not_started(executable: &Path, error: io::Error) -> Trouble {
    if error.kind() == io::ErrorKind::NotFound && executable.exists() {
        let hint = "; the file is there, but not what runs it: the program behind #! in its first line, \
                    or the dynamic loader of another C library";
        return Trouble::CannotRun { source: error, hint };
    }
    cannot_run(error)
}

/// The executable at work, in a process group of its own so that nothing it starts is left.
struct Running {
    child: Child,
    stdout: UnixStream,
    stderr: UnixStream,
    has_ended: bool,
}

impl Running {
    fn start(executable: &Path, guest: Option<&Path>) -> io::Result<Self> {
        let (stdout, its_stdout) = UnixStream::pair()?;
        let (stderr, its_stderr) = UnixStream::pair()?;
        // The command holds their ends and is dropped here: what remains are those of the child.
        let preload = guest.map(|guest| (preload::VARIABLE, preload::with(guest)));
        let child = Command::new(executable)
            .envs(preload)
            .args(["-I", "-c", SCRIPT])
            .stdin(Stdio::null())
            .stdout(OwnedFd::from(its_stdout))
            .stderr(OwnedFd::from(its_stderr))
            .process_group(0)
            .spawn()?;
        Ok(Running { child, stdout, stderr, has_ended: false })
    }

    /// Waits for its own end. Programs may close their output before that, and a signal then would
    /// hide how they ended.
    fn has_ended_by(&self, deadline: Instant) -> bool {
        let left = deadline.saturating_duration_since(Instant::now());
        // Where it cannot be waited for it is only told less about.
        pidfd_open(self.pid()).and_then(|pidfd| await_readable(pidfd.as_fd(), left)).unwrap_or(true)
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.child.id()).expect("invariant: a pid fits pid_t"))
    }

    fn end(&mut self) -> io::Result<ExitStatus> {
        self.has_ended = true;
        // Before the wait: afterwards the number may belong to others. Nobody in the group is left
        // when this fails.
        let _ = kill_group(self.pid(), Signal::SIGKILL);
        self.child.wait()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.has_ended {
            // There is an answer; how the process ends is of no interest.
            let _ = self.end();
        }
    }
}

/// Why reading stopped.
#[derive(Debug)]
enum Ending {
    /// What was waited for came.
    Done,
    /// Nothing more can come.
    Eof,
    /// Time is up.
    Deadline,
    /// More than any answer has.
    TooMuch,
    /// The system failed.
    Failed(io::Error),
}

fn read(
    stream: &mut UnixStream,
    text: &mut Vec<u8>,
    deadline: Instant,
    is_done: impl Fn(&[u8]) -> bool,
) -> Ending {
    // What is there is read after the deadline too; zero would mean to wait for ever.
    const NO_TIME: Duration = Duration::from_millis(1);
    let mut piece = [0; 4096];
    while text.len() < LONGEST {
        let left = deadline.saturating_duration_since(Instant::now()).max(NO_TIME);
        let read = stream.set_read_timeout(Some(left)).and_then(|()| stream.read(&mut piece));
        match read {
            Ok(0) => return Ending::Eof,
            Ok(length) => text.extend_from_slice(&piece[..length]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                return Ending::Deadline;
            }
            Err(error) => return Ending::Failed(error),
        }
        if is_done(text) {
            return Ending::Done;
        }
    }
    Ending::TooMuch
}

fn is_complete(text: &[u8]) -> bool {
    body(text).is_some()
}

/// The lines between the first, inclusive, and the last.
fn body(text: &[u8]) -> Option<&[u8]> {
    let start = memchr::memmem::find(text, FIRST)? + 1;
    let length = memchr::memmem::find(&text[start..], LAST)?;
    Some(&text[start..start + length])
}

fn parse(text: &[u8]) -> Option<Answer> {
    let mut answer = Answer::default();
    for line in body(text)?.split(|byte| *byte == b'\n') {
        let equals = memchr::memchr(b'=', line)?;
        let (key, value) = (&line[..equals], &line[equals + 1..]);
        let path = || PathBuf::from(OsString::from_vec(value.to_vec()));
        let is_on = || !matches!(value, b"" | b"0");
        match key {
            b"implementation" => answer.implementation = String::from_utf8_lossy(value).into_owned(),
            b"version" => answer.version = version(value)?,
            b"executable" => answer.executable = path(),
            b"prefix" => answer.prefix = path(),
            b"base_prefix" => answer.base_prefix = path(),
            b"gil_disabled" => answer.is_free_threaded = is_on(),
            b"shared" => answer.is_shared = is_on(),
            b"libdir" => answer.libdir = path(),
            b"soname" => answer.soname = path(),
            b"linked" => answer.linked = path(),
            b"multiarch" => answer.multiarch = path(),
            b"mapped" if !answer.mapped.contains(&path()) => answer.mapped.push(path()),
            b"mapped" => {}
            b"guest" => answer.has_guest = true,
            _ => return None,
        }
    }
    // The one fact that nothing can do without.
    (answer.version != (0, 0, 0)).then_some(answer)
}

fn version(text: &[u8]) -> Option<(u8, u8, u8)> {
    let mut numbers = std::str::from_utf8(text).ok()?.split('.').map(|number| number.parse().ok());
    let version = (numbers.next()??, numbers.next()??, numbers.next()??);
    numbers.next().is_none().then_some(version)
}

/// The last line of a complaint, which with Python is the error, for an error message to end with.
fn quote(complaint: &[u8]) -> String {
    const LONGEST_LINE: usize = 200;
    let text = String::from_utf8_lossy(complaint);
    match text.lines().map(str::trim).rfind(|line| !line.is_empty()) {
        Some(line) => format!(" and said: {}", line.chars().take(LONGEST_LINE).collect::<String>()),
        None => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANSWER: &str = "\nimplementation=cpython\nversion=3.11.2\nexecutable=/usr/bin/python3\nprefix=/srv/venv\n\
                          base_prefix=/usr\ngil_disabled=\nshared=1\nlibdir=/usr/lib\nsoname=libpython3.11.so.1.0\n\
                          linked=libpython3.11.so\nmultiarch=x86_64-linux-gnu\nmapped=/a=b\nmapped=/a=b\nguest=1\nguest=1\nend\n";

    #[test]
    fn an_answer_is_read_among_the_words_of_others() {
        let expected = Answer {
            implementation: "cpython".to_owned(),
            version: (3, 11, 2),
            executable: "/usr/bin/python3".into(),
            prefix: "/srv/venv".into(),
            base_prefix: "/usr".into(),
            is_free_threaded: false,
            is_shared: true,
            libdir: "/usr/lib".into(),
            soname: "libpython3.11.so.1.0".into(),
            linked: "libpython3.11.so".into(),
            multiarch: "x86_64-linux-gnu".into(),
            mapped: vec!["/a=b".into()],
            has_guest: true,
        };
        for text in [ANSWER.to_owned(), format!("hello from a .pth file{ANSWER}goodbye\n")] {
            assert_eq!(parse(text.as_bytes()), Some(expected.clone()));
        }
    }

    #[test]
    fn half_an_answer_is_none() {
        for end in 0..ANSWER.len() {
            assert!(!is_complete(&ANSWER.as_bytes()[..end]), "{end}");
        }
        for (from, to) in
            [("version=3.11.2", "version=3.11"), ("version=3.11.2", "version=three"), ("prefix=", "oops ")]
        {
            assert_eq!(parse(ANSWER.replace(from, to).as_bytes()), None, "{to}");
        }
    }

    #[test]
    fn a_complaint_is_quoted_by_its_last_line() {
        let text = b"Traceback (most recent call last):\n  File ...\nImportError: no os\n\n";
        assert_eq!(quote(text), " and said: ImportError: no os");
        assert_eq!(quote(b"\n \n"), "");
    }
}
