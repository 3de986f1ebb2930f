//! What a zygote holds that is not its own: handed down by the master, and meant for the workers.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use super::proof::Unfit;
use super::sockets::Sockets;
use crate::locks::Locks;
use crate::master::spawn::ZygoteBoot;
use crate::scoreboard::Scoreboard;
use crate::scoreboard::sheet::SheetFile;
use crate::sys::fd;

/// Each under a number that no application closes by mistake.
pub(super) struct Belongings<'a> {
    pub(super) control: BorrowedFd<'a>,
    pub(super) scoreboard: Scoreboard,
    /// The hand-over queue: the end to take from and the end to give to.
    pub(super) handover: (OwnedFd, OwnedFd),
    pub(super) sheet: OwnedFd,
    pub(super) locks: Option<Locks>,
    pub(super) sockets: Sockets,
}

impl<'a> Belongings<'a> {
    /// Takes what `boot` names.
    pub(super) fn claim(control: BorrowedFd<'a>, boot: &ZygoteBoot, sockets: Sockets) -> Result<Self, Unfit> {
        let claim = |raw: RawFd| fd::claim(raw).map(fd::shelter);
        let claimed = || -> io::Result<Self> {
            let scoreboard = Scoreboard::adopt(claim(boot.scoreboard)?)?;
            let sheet = match boot.sheet {
                Some(raw) => claim(raw)?,
                None => fd::shelter(SheetFile::create()?.into()),
            };
            let handover = (claim(boot.handover.0)?, claim(boot.handover.1)?);
            let locks = boot.locks.map(|raw| Locks::adopt(claim(raw)?)).transpose()?;
            Ok(Belongings { control, scoreboard, handover, sheet, locks, sockets })
        };
        claimed().map_err(Unfit::new)
    }

    /// Those that an application must leave alone.
    pub(super) fn kept_from_the_application(&self) -> Vec<BorrowedFd<'_>> {
        let mut kept =
            vec![self.control, self.sheet.as_fd(), self.handover.0.as_fd(), self.handover.1.as_fd()];
        kept.extend(self.sockets.all().map(|listener| listener.fd.as_fd()));
        kept
    }

    /// Every descriptor.
    pub(super) fn all(&self) -> Vec<BorrowedFd<'_>> {
        let mut all = self.kept_from_the_application();
        all.push(self.scoreboard.fd());
        all.extend(self.locks.as_ref().map(Locks::fd));
        all
    }

    /// What the master has told, with the numbers that descriptors have now.
    pub(super) fn boot(&self, boot: &ZygoteBoot) -> ZygoteBoot {
        ZygoteBoot {
            control: self.control.as_raw_fd(),
            scoreboard: self.scoreboard.fd().as_raw_fd(),
            handover: (self.handover.0.as_raw_fd(), self.handover.1.as_raw_fd()),
            sheet: Some(self.sheet.as_raw_fd()),
            locks: self.locks.as_ref().map(|locks| locks.fd().as_raw_fd()),
            ..boot.clone()
        }
    }
}
