//! The master FIFO: letters written to a file are commands.
//!
//! It is opened for reading *and writing* (`fifo(7)`): with a writer of our own there is never
//! an end of file, so it need not be reopened between two `echo r > fifo`, and no letter is lost
//! there. What a letter means is decided elsewhere.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::sys::fs::{FileId, NO_FOLLOW, NON_BLOCK, Removal, fifo_has_reader, make_fifo, remove_if_same};
use crate::sys::{cred, env, fd};

/// The owner may write commands; nobody else.
const MODE: u32 = 0o600;
/// Most bytes taken at once: one page, which is also what a writer can write in one piece.
const READ_MOST: usize = 4096;

/// Why a FIFO cannot be used.
#[derive(Debug, Error)]
pub enum FifoError {
    /// Something else has the name.
    #[error("master FIFO {}: something that is not a FIFO is in the way; remove it or choose another path", path.display())]
    InTheWay {
        /// The path.
        path: PathBuf,
    },
    /// It belongs to somebody else, who could read our commands.
    #[error("master FIFO {} belongs to uid {uid}; remove it or choose another path", path.display())]
    Foreign {
        /// The path.
        path: PathBuf,
        /// Its owner.
        uid: u32,
    },
    /// Anything the system said.
    #[error("cannot use master FIFO {}: {source}", path.display())]
    System {
        /// The path.
        path: PathBuf,
        /// The error.
        source: io::Error,
    },
}

/// What [`MasterFifo::restore`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Restored {
    /// Nothing: the path names the open FIFO.
    InPlace,
    /// A new one was opened. Watch its descriptor in place of the old one and read once: letters
    /// found in the old one come first.
    Recreated,
}

/// An open master FIFO.
#[derive(Debug)]
pub struct MasterFifo {
    path: PathBuf,
    file: File,
    id: FileId,
    /// Letters rescued from a FIFO that had lost its name.
    rescued: Vec<u8>,
}

/// What the next image needs to know of a FIFO whose descriptor it inherits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FifoState {
    /// Absolute path.
    pub path: PathBuf,
    /// Number of the descriptor.
    pub fd: RawFd,
}

impl MasterFifo {
    /// Makes the FIFO, or takes one of ours that is there already; either way only we may write.
    ///
    /// # Errors
    /// When the name is taken by anything but a FIFO of ours: nothing is ever removed.
    pub fn open(path: &Path) -> Result<MasterFifo, FifoError> {
        let path = env::cwd().map_or_else(|_| path.to_owned(), |directory| directory.join(path));
        let failed = |source| FifoError::System { path: path.clone(), source };
        match make_fifo(&path, MODE) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(failed(error)),
        }
        // Before opening: to open a device can have effects of its own.
        if !fs::symlink_metadata(&path).map_err(failed)?.file_type().is_fifo() {
            return Err(FifoError::InTheWay { path });
        }
        let mut options = OpenOptions::new();
        options.read(true).write(true).custom_flags(NO_FOLLOW | NON_BLOCK);
        let file = options.open(&path).map_err(failed)?;
        // And after it, about what has really been opened.
        let found = file.metadata().map_err(failed)?;
        if !found.file_type().is_fifo() {
            return Err(FifoError::InTheWay { path });
        }
        if found.uid() != cred::effective_uid().as_raw() {
            return Err(FifoError::Foreign { path, uid: found.uid() });
        }
        file.set_permissions(Permissions::from_mode(MODE)).map_err(failed)?;
        let id = FileId::of_fd(file.as_fd()).map_err(failed)?;
        Ok(MasterFifo { path, file, id, rescued: Vec::new() })
    }

    /// The letters that have arrived, in order, at most 4096; empty when none has. Where events
    /// are edge-triggered, read until it is empty.
    ///
    /// # Errors
    /// Those of `read(2)`.
    pub fn read(&mut self) -> io::Result<Vec<u8>> {
        if !self.rescued.is_empty() {
            return Ok(std::mem::take(&mut self.rescued));
        }
        let mut letters = vec![0; READ_MOST];
        loop {
            match self.file.read(&mut letters) {
                Ok(length) => {
                    letters.truncate(length);
                    return Ok(letters);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Vec::new()),
                Err(error) => return Err(error),
            }
        }
    }

    /// Whether the path still names this FIFO. Somebody may have removed it.
    pub fn is_in_place(&self) -> bool {
        FileId::of_path(&self.path).is_ok_and(|found| found == Some(self.id))
    }

    /// Makes the path lead here again, if it does not.
    ///
    /// # Errors
    /// As [`MasterFifo::open`]; the FIFO without a name then stays in use.
    pub fn restore(&mut self) -> Result<Restored, FifoError> {
        if self.is_in_place() {
            return Ok(Restored::InPlace);
        }
        let mut new = MasterFifo::open(&self.path)?;
        let failed = |source| FifoError::System { path: new.path.clone(), source };
        loop {
            let letters = self.read().map_err(failed)?;
            if letters.is_empty() {
                break;
            }
            new.rescued.extend(letters);
        }
        *self = new;
        Ok(Restored::Recreated)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The descriptor, to wait on.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    /// What to write down for the next image. The caller clears close-on-exec. Letters not read
    /// yet stay in the FIFO and reach the next image.
    pub fn state(&self) -> FifoState {
        FifoState { path: self.path.clone(), fd: self.file.as_raw_fd() }
    }

    /// Takes back a FIFO that the previous image wrote down.
    ///
    /// # Errors
    /// When the descriptor is not open, is claimed already or is not a FIFO.
    pub fn adopt(state: FifoState) -> Result<MasterFifo, FifoError> {
        let FifoState { path, fd: raw } = state;
        let failed = |source| FifoError::System { path: path.clone(), source };
        let file = File::from(fd::claim(raw).map_err(failed)?);
        if !file.metadata().map_err(failed)?.file_type().is_fifo() {
            return Err(failed(io::Error::other(format!("descriptor {raw} is not a FIFO"))));
        }
        fd::set_nonblocking(file.as_fd(), true).map_err(failed)?;
        let id = FileId::of_fd(file.as_fd()).map_err(failed)?;
        Ok(MasterFifo { path, file, id, rescued: Vec::new() })
    }

    /// Removes a FIFO that was left for another one. It is taken for ours if it belongs to our user
    /// and no process reads from it.
    pub fn remove_idle(path: &Path) -> Removal {
        let found = match fs::symlink_metadata(path) {
            Ok(found) => found,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Removal::Absent,
            Err(error) => return Removal::Failed(error.to_string()),
        };
        if !found.file_type().is_fifo() || found.uid() != cred::effective_uid().as_raw() {
            return Removal::NotOurs;
        }
        match fifo_has_reader(path) {
            Ok(true) => Removal::NotOurs,
            Ok(false) => remove_if_same(path, FileId { dev: found.dev(), ino: found.ino() }),
            Err(error) => Removal::Failed(error.to_string()),
        }
    }

    /// Removes the FIFO if its name still means ours.
    pub fn remove_if_ours(&self) -> Removal {
        remove_if_same(&self.path, self.id)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::fd::IntoRawFd;
    use std::os::unix::fs::symlink;

    use super::*;

    fn write(path: &Path, letters: &str) {
        OpenOptions::new().write(true).open(path).unwrap().write_all(letters.as_bytes()).unwrap();
    }

    fn mode(path: &Path) -> u32 {
        fs::symlink_metadata(path).unwrap().mode() & 0o7777
    }

    #[test]
    fn letters_of_several_writers_arrive_in_order_and_there_is_no_end() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("fifo");
        let mut fifo = MasterFifo::open(&path).unwrap();
        assert_eq!(mode(&path), 0o600);
        assert_eq!(fifo.read().unwrap(), b"");
        write(&path, "r\n");
        write(&path, "w");
        assert_eq!(fifo.read().unwrap(), b"r\nw");
        assert_eq!(fifo.read().unwrap(), b"");
    }

    #[test]
    fn a_flood_is_taken_in_portions() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("fifo");
        let mut fifo = MasterFifo::open(&path).unwrap();
        write(&path, &"s".repeat(5000));
        assert_eq!(fifo.read().unwrap().len(), 4096);
        assert_eq!(fifo.read().unwrap().len(), 904);
    }

    #[test]
    fn a_fifo_of_ours_is_used_again_with_its_mode_repaired() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("fifo");
        make_fifo(&path, 0o600).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o666)).unwrap();
        let before = FileId::of_path(&path).unwrap();
        let fifo = MasterFifo::open(&path).unwrap();
        assert_eq!(mode(&path), 0o600);
        assert_eq!(FileId::of_path(&path).unwrap(), before);
        assert!(fifo.is_in_place());
    }

    #[test]
    fn anything_else_is_refused_and_stays() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        fs::write(at("file"), "precious").unwrap();
        fs::create_dir(at("directory")).unwrap();
        make_fifo(&at("real"), 0o600).unwrap();
        symlink(at("real"), at("link")).unwrap();
        for name in ["file", "directory", "link"] {
            let before = FileId::of_path(&at(name)).unwrap();
            assert!(matches!(MasterFifo::open(&at(name)), Err(FifoError::InTheWay { .. })), "{name}");
            assert_eq!(FileId::of_path(&at(name)).unwrap(), before);
        }
        assert_eq!(fs::read_to_string(at("file")).unwrap(), "precious");
        assert!(MasterFifo::open(&at("missing/fifo")).is_err());
    }

    #[test]
    fn a_fifo_of_somebody_else_is_refused() {
        if !cred::is_root() {
            return;
        }
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("fifo");
        make_fifo(&path, 0o600).unwrap();
        cred::chown_path(&path, Some(65534.into()), None).unwrap();
        assert!(matches!(MasterFifo::open(&path), Err(FifoError::Foreign { uid: 65534, .. })));
    }

    #[test]
    fn a_removed_fifo_comes_back_without_losing_a_letter() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("fifo");
        let mut fifo = MasterFifo::open(&path).unwrap();
        assert_eq!(fifo.restore().unwrap(), Restored::InPlace);
        write(&path, "old");
        fs::remove_file(&path).unwrap();
        assert!(!fifo.is_in_place());
        assert_eq!(fifo.remove_if_ours(), Removal::Absent);
        assert_eq!(fifo.restore().unwrap(), Restored::Recreated);
        assert!(fifo.is_in_place());
        write(&path, "new");
        assert_eq!(fifo.read().unwrap(), b"old");
        assert_eq!(fifo.read().unwrap(), b"new");
    }

    #[test]
    fn a_file_put_in_its_place_keeps_it_and_the_fifo_goes_on() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("fifo");
        let mut fifo = MasterFifo::open(&path).unwrap();
        fs::remove_file(&path).unwrap();
        fs::write(&path, "precious").unwrap();
        assert!(matches!(fifo.restore(), Err(FifoError::InTheWay { .. })));
        assert_eq!(fifo.remove_if_ours(), Removal::NotOurs);
        assert_eq!(fifo.read().unwrap(), b"");
    }

    #[test]
    fn letters_written_during_an_exec_reach_the_next_image() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("fifo");
        let fifo = MasterFifo::open(&path).unwrap();
        let state = serde_json::to_string(&fifo.state()).unwrap();
        let _inherited = fifo.file.into_raw_fd();
        write(&path, "r");
        let mut adopted = MasterFifo::adopt(serde_json::from_str(&state).unwrap()).unwrap();
        assert_eq!(adopted.read().unwrap(), b"r");
        assert_eq!(adopted.remove_if_ours(), Removal::Removed);
    }

    #[test]
    fn a_descriptor_that_is_no_fifo_is_not_adopted() {
        let raw = fd::memfd(c"x").unwrap().into_raw_fd();
        let error = MasterFifo::adopt(FifoState { path: "/x".into(), fd: raw }).unwrap_err();
        assert!(error.to_string().contains("is not a FIFO"));
    }
}
