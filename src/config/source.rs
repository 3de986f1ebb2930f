//! Where the text of a configuration comes from: a file, standard input, a descriptor, a command.
//!
//! Every process of the server reads the configuration anew, and so does every reload. What can be
//! read only once is therefore kept in a memory file that takes the place of the original.

use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::magic::FileFacts;
use crate::sys::{fd, process};

/// Largest text of a file, in bytes.
pub const MAX_FILE: usize = 4 << 20;
/// Longest line, in bytes.
pub const MAX_LINE: usize = 1 << 20;
/// How long the command of `exec://` may take: less than a master waits for a generation, so that the
/// command is named and not only the generation.
const COMMAND_LIMIT: Duration = Duration::from_secs(30);
/// Name of the memory files that hold what was read from a pipe.
pub const KEPT_TEXT: &str = "appserver-config";

/// Set once standard input holds the configuration.
static STDIN_IN_USE: AtomicBool = AtomicBool::new(false);
/// Descriptors of `fd://` that belong to the configuration, so that nobody reuses their numbers.
static DESCRIPTORS: Mutex<Vec<File>> = Mutex::new(Vec::new());

/// Whether standard input holds the configuration, which the next process has to read again.
pub fn stdin_in_use() -> bool {
    STDIN_IN_USE.load(Ordering::Relaxed)
}

/// Parts `FILE:SECTION` at the last colon; in `scheme://rest`, at the last one behind the last slash.
pub fn split_section(name: &str) -> (&str, Option<&str>) {
    let searched = match scheme(name) {
        Some((_, rest)) => rest.rfind('/').map_or(rest, |slash| &rest[slash..]),
        None => name,
    };
    let start = name.len() - searched.len();
    match searched.rfind(':') {
        Some(colon) => (&name[..start + colon], Some(&name[start + colon + 1..])),
        None => (name, None),
    }
}

fn scheme(name: &str) -> Option<(&str, &str)> {
    let (scheme, rest) = name.split_once("://")?;
    let is_word = !scheme.is_empty() && scheme.bytes().all(|byte| byte.is_ascii_lowercase());
    is_word.then_some((scheme, rest))
}

/// Reads a source completely. `name` is a path, `-`, `fd://NUMBER` or `exec://COMMAND`.
///
/// # Errors
/// When it cannot be read, is too large, or of a kind that is not supported; the text reads on
/// behind the name.
pub fn fetch(name: &str, cwd: &Path) -> Result<Vec<u8>, String> {
    match scheme(name) {
        None if name == "-" => standard_input().map_err(|error| format!("cannot be read: {error}")),
        None => file(&cwd.join(name)),
        Some(("fd", "0")) => standard_input().map_err(|error| format!("cannot be read: {error}")),
        Some(("fd", number)) => descriptor(number).map_err(|error| format!("cannot be read: {error}")),
        Some(("exec", command)) => output_of(command, cwd, COMMAND_LIMIT),
        Some((scheme, _)) => Err(format!(
            "cannot be read: {scheme}:// is not supported; use a file, -, fd://NUMBER or exec://COMMAND"
        )),
    }
}

/// What the file system says about a source; `None` when it is no file.
pub fn facts(name: &str, cwd: &Path) -> Option<FileFacts> {
    if name == "-" || scheme(name).is_some() {
        return None;
    }
    let path = cwd.join(name);
    let itself = std::fs::symlink_metadata(&path).ok()?;
    let path = if itself.is_symlink() { path } else { path.canonicalize().ok()? };
    Some(FileFacts { path, inode: itself.ino() })
}

fn file(path: &Path) -> Result<Vec<u8>, String> {
    let failed = |error: io::Error| format!("cannot be read: {error}");
    let file = File::open(path).map_err(failed)?;
    if file.metadata().map_err(failed)?.is_dir() {
        return Err("cannot be read: it is a directory".to_owned());
    }
    bounded(&file).map_err(failed)
}

fn bounded(source: impl Read) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    source.take(MAX_FILE as u64 + 1).read_to_end(&mut text)?;
    if text.len() > MAX_FILE {
        return Err(io::Error::other(format!("it is larger than {} MiB", MAX_FILE >> 20)));
    }
    Ok(text)
}

/// Reads from the beginning without moving the position, which is shared with other processes.
fn from_start(file: &File) -> io::Result<Vec<u8>> {
    struct At<'a>(&'a File, u64);
    impl Read for At<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let count = self.0.read_at(buffer, self.1)?;
            self.1 += count as u64;
            Ok(count)
        }
    }
    bounded(At(file, 0))
}

fn memory_file(text: &[u8]) -> io::Result<OwnedFd> {
    let mut file = File::from(fd::memfd(c"appserver-config")?);
    file.write_all(text)?;
    Ok(file.into())
}

fn standard_input() -> io::Result<Vec<u8>> {
    let mut input = File::from(io::stdin().as_fd().try_clone_to_owned()?);
    STDIN_IN_USE.store(true, Ordering::Relaxed);
    if input.stream_position().is_ok() {
        return from_start(&input);
    }
    let text = bounded(&input)?;
    fd::replace(memory_file(&text)?.as_fd(), 0)?;
    Ok(text)
}

fn descriptor(number: &str) -> io::Result<Vec<u8>> {
    let raw = number.parse().map_err(|_| io::Error::other("fd:// needs the number of a descriptor"))?;
    let mut known = DESCRIPTORS.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if let Some(file) = known.iter().find(|file| file.as_raw_fd() == raw) {
        return from_start(file);
    }
    let is_kept_text = fd::memfd_name(raw).as_deref() == Some(KEPT_TEXT);
    let file = File::from(fd::claim(raw)?);
    let text = if is_kept_text { from_start(&file)? } else { bounded(&file)? };
    if !is_kept_text {
        // The number stays ours; behind it is what can be read again.
        fd::replace(memory_file(&text)?.as_fd(), raw)?;
        fd::set_cloexec(file.as_fd(), true)?;
    }
    known.push(file);
    Ok(text)
}

/// What a command prints; it has to end by itself within `limit`.
fn output_of(command: &str, cwd: &Path, limit: Duration) -> Result<Vec<u8>, String> {
    let failed = |error: io::Error| format!("cannot be run: {error}");
    let late = || format!("failed: it was not done after {} s and was killed", limit.as_secs_f32());
    let deadline = Instant::now() + limit;
    let mut shell = Command::new("/bin/sh");
    shell.args(["-c", command]).current_dir(cwd).stdin(Stdio::null()).stdout(Stdio::piped());
    let mut child = shell.spawn().map_err(failed)?;
    let output = Until { source: child.stdout.take().expect("it was asked for"), deadline };
    let text = bounded(output).map_err(|error| match error.kind() {
        io::ErrorKind::TimedOut => late(),
        _ => failed(error),
    });
    // One that has closed its output may go on all the same.
    let in_time = text.is_ok() && ends_before(&child, deadline);
    if !in_time {
        // Gone already is as good.
        let _ = child.kill();
    }
    let status = child.wait().map_err(failed)?;
    match text {
        Ok(_) if !in_time => Err(late()),
        // A command that breaks off must not leave half a configuration.
        Ok(_) if !status.success() => Err(format!("failed: {status}")),
        text => text,
    }
}

/// Reads until a moment; later on it fails with `TimedOut`.
struct Until<R> {
    source: R,
    deadline: Instant,
}

impl<R: Read + AsFd> Read for Until<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        if fd::await_readable(self.source.as_fd(), left)? {
            self.source.read(buffer)
        } else {
            Err(io::ErrorKind::TimedOut.into())
        }
    }
}

/// Waits for a child to end. On kernels that cannot tell, it is taken to end by itself.
fn ends_before(child: &Child, deadline: Instant) -> bool {
    let pid = process::Pid::from_raw(child.id().cast_signed());
    let left = deadline.saturating_duration_since(Instant::now());
    process::pidfd_open(pid).and_then(|handle| fd::await_readable(handle.as_fd(), left)).unwrap_or(true)
}

/// Bytes to text, for sources that may hold anything.
///
/// # Errors
/// The line, counted from 1, and what is wrong with it: NUL bytes, text that is not UTF-8, lines of
/// more than [`MAX_LINE`] bytes.
pub fn decode(bytes: Vec<u8>) -> Result<String, (usize, String)> {
    let line_at = |offset: usize| 1 + memchr::memchr_iter(b'\n', &bytes[..offset]).count();
    if let Some(offset) = memchr::memchr(0, &bytes) {
        return Err((line_at(offset), "a NUL byte; is this a text file?".to_owned()));
    }
    if let Err(error) = str::from_utf8(&bytes) {
        let offset = error.valid_up_to();
        return Err((line_at(offset), format!("byte {:#04x} is not UTF-8; convert the file", bytes[offset])));
    }
    if let Some(index) = bytes.split(|byte| *byte == b'\n').position(|line| line.len() > MAX_LINE) {
        return Err((index + 1, format!("a line of more than {MAX_LINE} bytes")));
    }
    let text = String::from_utf8(bytes).expect("checked above");
    // Editors on Windows begin a file with a mark that nobody sees.
    Ok(text.strip_prefix('\u{feff}').map_or(text.clone(), str::to_owned))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_section_follows_the_last_colon() {
        let cases = [
            ("a.ini", ("a.ini", None)),
            ("a.ini:sec", ("a.ini", Some("sec"))),
            ("a.ini:", ("a.ini", Some(""))),
            (":sec", ("", Some("sec"))),
            ("/a:b/c.ini:sec", ("/a:b/c.ini", Some("sec"))),
            ("fd://3", ("fd://3", None)),
            ("fd://3:sec", ("fd://3", Some("sec"))),
            ("exec://cat a.ini:sec", ("exec://cat a.ini", Some("sec"))),
            ("exec:///bin/cat a:b", ("exec:///bin/cat a", Some("b"))),
            ("http://host:80/a.ini", ("http://host:80/a.ini", None)),
        ];
        for (name, expected) in cases {
            assert_eq!(split_section(name), expected, "{name}");
        }
    }

    #[test]
    fn files_and_commands_are_read() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("a.ini"), "text").unwrap();
        let fetch = |name: &str| fetch(name, directory.path());
        assert_eq!(fetch("a.ini"), Ok(b"text".to_vec()));
        assert_eq!(fetch("exec://cat a.ini; printf x"), Ok(b"textx".to_vec()));
        assert_eq!(fetch("exec://exit 3"), Err("failed: exit status: 3".to_owned()));
        assert!(fetch("exec://yes").unwrap_err().contains("larger than 4 MiB"));
        assert!(fetch("b.ini").unwrap_err().starts_with("cannot be read: No such file"));
        assert_eq!(fetch("."), Err("cannot be read: it is a directory".to_owned()));
        assert!(fetch("/dev/zero").unwrap_err().contains("larger than 4 MiB"));
        for scheme in ["http", "data", "sym", "section", "call", "emperor"] {
            let error = fetch(&format!("{scheme}://x")).unwrap_err();
            assert!(error.contains(&format!("{scheme}:// is not supported")), "{error}");
        }
        assert!(fetch("fd://x").is_err() && fetch("fd://1").is_err());
    }

    #[test]
    fn a_command_has_to_end_in_time() {
        let here = Path::new("/");
        for command in ["echo a; exec sleep 100", "echo a; exec >&-; exec sleep 100"] {
            let error = output_of(command, here, Duration::from_millis(200)).unwrap_err();
            assert_eq!(error, "failed: it was not done after 0.2 s and was killed", "{command}");
        }
        assert_eq!(output_of("echo a", here, Duration::from_secs(20)), Ok(b"a\n".to_vec()));
    }

    #[test]
    fn a_link_keeps_its_name() {
        let directory = tempfile::tempdir().unwrap();
        let base = directory.path().canonicalize().unwrap();
        std::fs::create_dir(base.join("real")).unwrap();
        std::fs::write(base.join("real/a.ini"), "").unwrap();
        std::os::unix::fs::symlink("real/a.ini", base.join("link.ini")).unwrap();
        std::os::unix::fs::symlink("real", base.join("way")).unwrap();
        let path = |name: &str| facts(name, &base).map(|facts| facts.path);
        assert_eq!(path("link.ini"), Some(base.join("link.ini")));
        assert_eq!(path("way/a.ini"), Some(base.join("real/a.ini")));
        assert_eq!(path("./real/../real/a.ini"), Some(base.join("real/a.ini")));
        assert_eq!((path("none"), path("-"), path("exec://x")), (None, None, None));
    }

    #[test]
    fn text_is_checked_and_the_line_named() {
        assert_eq!(decode(b"a\nb".to_vec()), Ok("a\nb".to_owned()));
        assert_eq!(decode("\u{feff}[uwsgi]".into()), Ok("[uwsgi]".to_owned()));
        assert_eq!(decode(b"a\nb\0".to_vec()).unwrap_err().0, 2);
        let error = decode(b"a\n\xe9\n".to_vec()).unwrap_err();
        assert_eq!(error, (2, "byte 0xe9 is not UTF-8; convert the file".to_owned()));
        let long = format!("a\n{}\n", "x".repeat(MAX_LINE + 1));
        assert_eq!(decode(long.into_bytes()).unwrap_err().0, 2);
    }
}
