//! Which processor a program or library is made for.
//!
//! Asked before it is run or loaded: an emulator may run the one, and the loader's words about the
//! other ("wrong ELF class") help nobody.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

/// The part of an ELF header that must be the same in what shares a process (elf(5)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Architecture {
    class: u8,
    byte_order: u8,
    machine: u16,
}

const CLASS: usize = 4;
const BYTE_ORDER: usize = 5;
const MACHINE: usize = 18;
const HEADER: usize = 20;
const BIG_ENDIAN: u8 = 2;

impl Architecture {
    /// That of this program.
    pub(super) fn ours() -> io::Result<Option<Self>> {
        Self::of(Path::new("/proc/self/exe"))
    }

    /// That of a file; `None` when it is something else than ELF, for example a script.
    pub(super) fn of(path: &Path) -> io::Result<Option<Self>> {
        let mut header = Vec::with_capacity(HEADER);
        File::open(path)?.take(HEADER as u64).read_to_end(&mut header)?;
        if header.len() < HEADER || !header.starts_with(b"\x7fELF") {
            return Ok(None);
        }
        let machine = [header[MACHINE], header[MACHINE + 1]];
        let machine = if header[BYTE_ORDER] == BIG_ENDIAN {
            u16::from_be_bytes(machine)
        } else {
            u16::from_le_bytes(machine)
        };
        Ok(Some(Architecture { class: header[CLASS], byte_order: header[BYTE_ORDER], machine }))
    }
}

impl fmt::Display for Architecture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bits = if self.class == 1 { 32 } else { 64 };
        match self.machine {
            3 => f.write_str("i386"),
            // x32: this processor with pointers of the other size.
            62 if bits == 32 => f.write_str("x32"),
            62 => f.write_str("x86-64"),
            40 => f.write_str("arm"),
            183 => f.write_str("aarch64"),
            21 => f.write_str("ppc64"),
            22 => write!(f, "s390 ({bits} bits)"),
            243 => write!(f, "riscv ({bits} bits)"),
            number => write!(f, "processor {number} of the ELF list ({bits} bits)"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_told_apart_and_scripts_are_none() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("file");
        let ours = Architecture::ours().expect("readable").expect("a program");
        assert_eq!(
            Architecture::of(&std::env::current_exe().expect("a path")).expect("readable"),
            Some(ours)
        );

        let mut header = std::fs::read("/proc/self/exe").expect("readable")[..64].to_vec();
        header[MACHINE..HEADER].copy_from_slice(&[243, 0]);
        std::fs::write(&path, &header).expect("a file");
        let other = Architecture::of(&path).expect("readable").expect("a header");
        assert_ne!(other, ours);
        assert!(other.to_string().starts_with("riscv"), "{other}");

        for content in [&b"#!/bin/sh\nexec python\n"[..], b"", b"\x7fELF"] {
            std::fs::write(&path, content).expect("a file");
            assert_eq!(Architecture::of(&path).expect("readable"), None);
        }
        assert!(Architecture::of(&directory.path().join("missing")).is_err());
    }
}
