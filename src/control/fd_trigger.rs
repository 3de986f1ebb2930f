//! `reload-on-fd`: what arrives on a descriptor that the server was started with is a command.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use crate::config::value::{self, ValueError};
use crate::sys::fd;

use super::Command;

/// Largest number of bytes that make one event.
const MAX_SIZE: u64 = 4096;

/// A descriptor as configured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FdTrigger {
    /// Its number.
    pub fd: RawFd,
    /// Bytes that make one event: 1, or 8 for an eventfd.
    pub size: usize,
    /// For the log.
    pub message: String,
    /// [`Command::Reload`] or [`Command::BrutalReload`].
    pub command: Command,
}

impl FdTrigger {
    /// Reads `FD[:SIZE] [MESSAGE]`.
    ///
    /// # Errors
    /// When it is not of that form, or names a standard stream.
    pub fn parse(text: &str, command: Command) -> Result<Self, ValueError> {
        let (numbers, message) = text.trim().split_once([' ', '\t']).unwrap_or((text.trim(), ""));
        let (number, size) = numbers.split_once(':').unwrap_or((numbers, "1"));
        let number = value::int(number, 0, RawFd::MAX.unsigned_abs().into())?;
        if number <= 2 {
            return Err(ValueError::refused("is a standard stream; give a descriptor from 3 on"));
        }
        Ok(FdTrigger {
            fd: RawFd::try_from(number).expect("invariant: it was checked against the largest"),
            size: value::int(size, 1, MAX_SIZE)? as usize,
            message: message.trim().to_owned(),
            command,
        })
    }
}

/// A descriptor that is listened to.
#[derive(Debug)]
pub struct ArmedFd {
    /// What it is for.
    pub trigger: FdTrigger,
    fd: OwnedFd,
}

/// What came of reading it.
#[derive(Debug, PartialEq, Eq)]
pub enum Arrived {
    /// An event.
    Event,
    /// Nothing, or somebody else took it.
    Nothing,
    /// The other side has closed it: there will never be one again.
    End,
}

impl ArmedFd {
    /// Takes over a descriptor that the server was started with. It becomes non-blocking, for all who
    /// share it.
    ///
    /// # Errors
    /// When it is not open, or one of the server's own that happens to have the number.
    pub fn claim(trigger: FdTrigger) -> io::Result<Self> {
        let fd = fd::claim_given(trigger.fd)?;
        fd::set_nonblocking(fd.as_fd(), true)?;
        Ok(ArmedFd { trigger, fd })
    }

    /// The descriptor.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Takes one event, if one is there.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn read(&self) -> io::Result<Arrived> {
        let mut bytes = vec![0; self.trigger.size];
        match fd::read(self.fd.as_fd(), &mut bytes) {
            Ok(0) => Ok(Arrived::End),
            Ok(_) => Ok(Arrived::Event),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(Arrived::Nothing),
            Err(error) => Err(error),
        }
    }
}

impl AsRawFd for ArmedFd {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::IntoRawFd;

    use super::*;

    #[test]
    fn a_descriptor_may_have_a_size_and_a_message() {
        let parsed = |text| FdTrigger::parse(text, Command::Reload);
        let trigger = |fd, size, message: &str| FdTrigger {
            fd,
            size,
            message: message.to_owned(),
            command: Command::Reload,
        };
        assert_eq!(parsed("7"), Ok(trigger(7, 1, "")));
        assert_eq!(parsed(" 7:8  out of memory "), Ok(trigger(7, 8, "out of memory")));
        for wrong in ["", "x", "-1", "2", "7:0", "7:x", "7:5000", "99999999999"] {
            assert!(parsed(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn events_are_taken_one_by_one_up_to_the_end() {
        let (out, into) = fd::pipe().unwrap();
        let own = FdTrigger::parse(&format!("{}:2", out.as_raw_fd()), Command::Reload).unwrap();
        assert!(ArmedFd::claim(own.clone()).is_err(), "a descriptor of the server itself");
        fd::set_cloexec(out.as_fd(), false).unwrap();
        let armed = ArmedFd::claim(FdTrigger { fd: out.into_raw_fd(), ..own }).unwrap();
        assert_eq!(armed.read().unwrap(), Arrived::Nothing);
        fd::write(into.as_fd(), b"abcd").unwrap();
        let read = || armed.read().unwrap();
        assert_eq!([read(), read(), read()], [Arrived::Event, Arrived::Event, Arrived::Nothing]);
        drop(into);
        assert_eq!(read(), Arrived::End);
    }
}
