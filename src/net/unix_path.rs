//! Sockets with a name in the file system.
//!
//! The rules: a socket somebody listens on is never displaced; a file that is not a socket is
//! never touched; the name appears with its final mode and owner, already listening, and from
//! the first bind on there is no moment without a socket behind it. So the socket is made under
//! a temporary name beside the final one and renamed. (The kernel goes on to show the temporary
//! name in `getsockname` and `ss`.)

use std::ffi::OsString;
use std::fs::{self, File, Permissions};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};

use socket2::{Domain, SockAddr, Socket, Type};

use super::addr::MAX_UNIX_NAME;
use super::error::BindError;
use super::listener::{BindOptions, OwnedPath};
use crate::sys::fs::{FileId, Right, may, rename_noreplace};
use crate::sys::{cred, process};

/// Temporary names tried, and rounds of finding the final name changed meanwhile.
const ATTEMPTS: u32 = 16;

/// Makes a listening socket called `path`, which is absolute.
pub(super) fn bind(path: &Path, options: &BindOptions) -> Result<(OwnedFd, OwnedPath), BindError> {
    let failed = |source| BindError::system(path.display(), source);
    // Looked at before anything is made, and again when the name is about to be taken.
    let mut occupant = inspect(path)?;
    let (socket, temporary) = bind_temporary(path).map_err(failed)?;
    set_access(&temporary.path, options).map_err(failed)?;
    socket.listen(super::listener::backlog(options.backlog)).map_err(failed)?;
    socket.set_nonblocking(true).map_err(failed)?;

    for _ in 0..ATTEMPTS {
        match occupant {
            Occupant::None => match rename_noreplace(&temporary.path, path) {
                Ok(()) => return Ok((socket.into(), temporary.named(path))),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(failed(error)),
            },
            Occupant::Dead(dead) if FileId::of_path(path).map_err(failed)? == Some(dead) => {
                fs::rename(&temporary.path, path).map_err(failed)?;
                return Ok((socket.into(), temporary.named(path)));
            }
            Occupant::Dead(_) => {}
        }
        occupant = inspect(path)?;
    }
    Err(failed(io::Error::other("the path changes all the time")))
}

/// Whether [`bind`] would find the name free and its directory writable. Makes nothing.
pub(super) fn probe(path: &Path) -> Result<(), BindError> {
    inspect(path)?;
    let directory = path.parent().unwrap_or(Path::new("/"));
    may(directory, &[Right::Write, Right::Execute])
        .map_err(|source| BindError::system(path.display(), source))
}

/// What has the name at present, if it does not forbid taking it.
enum Occupant {
    None,
    /// A socket file left behind by a process that is gone.
    Dead(FileId),
}

fn inspect(path: &Path) -> Result<Occupant, BindError> {
    let failed = |source| BindError::system(path.display(), source);
    let found = match fs::symlink_metadata(path) {
        Ok(found) => found.file_type(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Occupant::None),
        Err(error) => return Err(failed(error)),
    };
    if !found.is_socket() {
        return Err(BindError::InTheWay { path: path.to_owned(), what: describe(found) });
    }
    let Some(id) = FileId::of_path(path).map_err(failed)? else { return Ok(Occupant::None) };

    let probe = Socket::new(Domain::UNIX, Type::STREAM, None).map_err(failed)?;
    // A full queue must not make us wait for the server we are asking about.
    probe.set_nonblocking(true).map_err(failed)?;
    match connect(&probe, path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(Occupant::Dead(id)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Occupant::None),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Err(failed(error)),
        // Connected, the queue full (EAGAIN), or a socket of another type (EPROTOTYPE).
        _ => Err(BindError::in_use(path.display())),
    }
}

fn describe(found: fs::FileType) -> &'static str {
    if found.is_symlink() {
        "a symbolic link"
    } else if found.is_dir() {
        "a directory"
    } else if found.is_fifo() {
        "a FIFO"
    } else if found.is_file() {
        "a regular file"
    } else {
        "a device"
    }
}

/// A name that is removed again unless it became the final one.
struct Temporary {
    path: PathBuf,
    id: FileId,
    renamed: bool,
}

impl Temporary {
    fn named(mut self, path: &Path) -> OwnedPath {
        self.renamed = true;
        OwnedPath { path: path.to_owned(), dev: self.id.dev, ino: self.id.ino }
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if !self.renamed {
            crate::sys::fs::remove_if_same(&self.path, self.id);
        }
    }
}

/// Binds a fresh socket to an unused name in the directory of `path`.
fn bind_temporary(path: &Path) -> io::Result<(Socket, Temporary)> {
    let mut last = None;
    for attempt in 0..ATTEMPTS {
        let temporary = temporary_name(path, attempt);
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
        match with_short_name(&temporary, |name| socket.bind(&SockAddr::unix(name)?)) {
            Ok(()) => {
                let id = FileId::of_path(&temporary)?.ok_or(io::ErrorKind::NotFound)?;
                return Ok((socket, Temporary { path: temporary, id, renamed: false }));
            }
            // Left behind by an earlier process of the same number.
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => last = Some(error),
            Err(error) => return Err(error),
        }
    }
    Err(last.unwrap_or_else(|| io::ErrorKind::AddrInUse.into()))
}

/// Says whose it is while there is room for that.
fn temporary_name(path: &Path, attempt: u32) -> PathBuf {
    let suffix = format!(".{}-{attempt}", process::this());
    let mut name = path.file_name().map(OsString::from).unwrap_or_default();
    name.push(&suffix);
    let telling = path.with_file_name(name);
    if telling.as_os_str().len() <= MAX_UNIX_NAME { telling } else { path.with_file_name(suffix) }
}

fn connect(socket: &Socket, path: &Path) -> io::Result<()> {
    with_short_name(path, |name| socket.connect(&SockAddr::unix(name)?))
}

/// Calls with a name that fits into `sun_path`: a long one goes through its open directory.
fn with_short_name(path: &Path, call: impl FnOnce(&Path) -> io::Result<()>) -> io::Result<()> {
    if path.as_os_str().len() <= MAX_UNIX_NAME {
        return call(path);
    }
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let directory = File::open(parent)?;
    call(&Path::new("/proc/self/fd").join(directory.as_raw_fd().to_string()).join(name))
}

/// Before `listen`, so nobody can have connected under other rules.
fn set_access(path: &Path, options: &BindOptions) -> io::Result<()> {
    if let Some((uid, gid)) = options.chown {
        cred::chown_path(path, uid, gid)?;
    }
    if let Some(mode) = options.chmod {
        fs::set_permissions(path, Permissions::from_mode(mode))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt, symlink};
    use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};

    use super::*;

    fn options() -> BindOptions {
        BindOptions { backlog: 16, ..BindOptions::default() }
    }

    fn names(directory: &Path) -> Vec<OsString> {
        fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name()).collect()
    }

    #[test]
    fn a_fresh_path_is_reachable_and_leaves_no_temporary_name() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("app.sock");
        let (_socket, owned) = bind(&path, &options()).unwrap();
        UnixStream::connect(&path).unwrap();
        assert_eq!(names(directory.path()), ["app.sock"]);
        let found = fs::symlink_metadata(&path).unwrap();
        assert_eq!((owned.dev, owned.ino), (found.dev(), found.ino()));
    }

    #[test]
    fn the_mode_is_what_was_asked_whatever_the_mask() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("app.sock");
        for mode in [0o600, 0o666, 0o660] {
            let (_socket, _) = bind(&path, &BindOptions { chmod: Some(mode), ..options() }).unwrap();
            assert_eq!(fs::symlink_metadata(&path).unwrap().mode() & 0o7777, mode);
            fs::remove_file(&path).unwrap();
        }
    }

    #[test]
    fn the_owner_is_what_was_asked() {
        if !cred::is_root() {
            return;
        }
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("app.sock");
        let chown = cred::parse_owner("65534:65533").unwrap();
        let (_socket, _) = bind(&path, &BindOptions { chown: Some(chown), ..options() }).unwrap();
        let found = fs::symlink_metadata(&path).unwrap();
        assert_eq!((found.uid(), found.gid()), (65534, 65533));
    }

    #[test]
    fn a_dead_socket_file_is_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("app.sock");
        drop(UnixListener::bind(&path).unwrap());
        let before = FileId::of_path(&path).unwrap();
        let (_socket, owned) = bind(&path, &options()).unwrap();
        assert_ne!(before, Some(FileId { dev: owned.dev, ino: owned.ino }));
        UnixStream::connect(&path).unwrap();
        assert_eq!(names(directory.path()), ["app.sock"]);
    }

    #[test]
    fn a_living_server_keeps_its_socket_even_with_a_full_queue() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("app.sock");
        let full = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
        full.bind(&SockAddr::unix(&path).unwrap()).unwrap();
        full.listen(0).unwrap();
        let _first = UnixStream::connect(&path).unwrap();
        for _ in 0..2 {
            let error = bind(&path, &options()).unwrap_err();
            assert!(matches!(error, BindError::InUse { .. }), "{error}");
        }
        assert_eq!(names(directory.path()), ["app.sock"]);
    }

    #[test]
    fn a_datagram_socket_in_use_is_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let _log = UnixDatagram::bind(&path).unwrap();
        assert!(matches!(bind(&path, &options()).unwrap_err(), BindError::InUse { .. }));
    }

    #[test]
    fn what_is_not_a_socket_is_never_touched() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        fs::write(at("file"), "precious").unwrap();
        fs::create_dir(at("directory")).unwrap();
        symlink("/nonexistent", at("link")).unwrap();
        crate::sys::fs::make_fifo(&at("fifo"), 0o600).unwrap();
        let cases = [
            ("file", "a regular file"),
            ("directory", "a directory"),
            ("link", "a symbolic link"),
            ("fifo", "a FIFO"),
        ];
        for (name, what) in cases {
            let before = FileId::of_path(&at(name)).unwrap();
            let error = bind(&at(name), &options()).unwrap_err().to_string();
            assert!(error.contains(&format!("{what} is in the way")), "{error}");
            assert_eq!(FileId::of_path(&at(name)).unwrap(), before);
        }
        assert_eq!(names(directory.path()).len(), 4);
    }

    #[test]
    fn the_longest_path_has_room_for_its_temporary_name() {
        let directory = tempfile::tempdir().unwrap();
        let room = MAX_UNIX_NAME - directory.path().as_os_str().len() - 1;
        let path = directory.path().join("x".repeat(room));
        let (_socket, _) = bind(&path, &options()).unwrap();
        UnixStream::connect(&path).unwrap();
        assert!(matches!(bind(&path, &options()).unwrap_err(), BindError::InUse { .. }));
        assert_eq!(names(directory.path()).len(), 1);
    }

    #[test]
    fn a_leftover_temporary_name_is_stepped_over() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("app.sock");
        fs::write(directory.path().join(format!("app.sock.{}-0", process::this())), "").unwrap();
        let (_socket, _) = bind(&path, &options()).unwrap();
        UnixStream::connect(&path).unwrap();
    }
}
