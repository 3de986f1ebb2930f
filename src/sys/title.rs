//! Process titles, as `ps` shows them, without clobbering the environment.
//!
//! The classic trick writes over the argument *and environment* area, after which
//! `/proc/PID/environ` lies. Here the kernel is told of a new argument area instead
//! (`PR_SET_MM_MAP`, `prctl(2)`); the environment stays where and what it is. Where the kernel
//! refuses that, the title is cut to what the original arguments occupied.
#![allow(unsafe_code)]

use std::ffi::CString;
use std::io;

use super::process::{set_thread_name, stat_field};
use super::{cvt, cvt_long};

/// Bytes of our own argument area: one page, of which the kernel reads no more.
const PAGE: usize = 4096;

/// What `prctl(2)` calls `struct prctl_mm_map`, from `linux/prctl.h`.
#[repr(C)]
struct MemoryMap {
    start_code: u64,
    end_code: u64,
    start_data: u64,
    end_data: u64,
    start_brk: u64,
    brk: u64,
    start_stack: u64,
    arg_start: u64,
    arg_end: u64,
    env_start: u64,
    env_end: u64,
    auxv: *const u64,
    auxv_size: u32,
    exe_fd: u32,
}

/// The place the title of this process is written to.
///
/// A forked child may go on using its copy: the memory is copied on write.
#[derive(Debug)]
pub struct Title {
    area: &'static mut [u8],
    /// Bytes at the end that stay as they are.
    reserved: usize,
}

impl Title {
    /// Finds or makes room for titles. Call once, early, while there is one thread.
    ///
    /// One thread, because the kernel is told the end of the heap along with the rest, and an
    /// allocation by another thread at that moment would move it.
    pub fn prepare() -> Title {
        Title::moved().or_else(|_| Title::in_place()).unwrap_or(Title { area: &mut [], reserved: 0 })
    }

    /// Moves the argument area to a page of ours.
    ///
    /// Its last byte is never NUL, by which the kernel knows that a title was set and ends it
    /// at the first NUL (`get_mm_cmdline` in `fs/proc/base.c`): so a new title is a plain write.
    fn moved() -> io::Result<Title> {
        // A vector, not a static: the kernel reads the area only from anonymous memory.
        let area: &'static mut [u8] = Vec::leak(vec![0; PAGE]);
        let reserved = 1;
        area[PAGE - reserved] = b' ';
        let (original, text) = original_arguments()?;
        let end = PAGE - reserved - 1;
        // Until the first title: the arguments, with blanks for the NULs between them, of which
        // the first would be the end.
        let arguments = original.strip_suffix(b"\0").unwrap_or(original);
        for (byte, argument) in area[..end].iter_mut().zip(arguments) {
            *byte = if *argument == 0 { b' ' } else { *argument };
        }

        let field = |number| stat_field(&text, number).ok_or(io::ErrorKind::InvalidData);
        let mut map = MemoryMap {
            start_code: field(26)?,
            end_code: field(27)?,
            start_stack: field(28)?,
            start_data: field(45)?,
            end_data: field(46)?,
            start_brk: field(47)?,
            env_start: field(50)?,
            env_end: field(51)?,
            arg_start: area.as_ptr() as u64,
            arg_end: area.as_ptr() as u64 + PAGE as u64,
            auxv: std::ptr::null(),
            auxv_size: 0,
            exe_fd: u32::MAX,
            brk: 0,
        };
        // Asked last: the lines above allocate. The raw call with 0 answers the present end.
        // SAFETY: an impossible new end leaves the heap as it is.
        map.brk = cvt_long(unsafe { libc::syscall(libc::SYS_brk, 0) })?.cast_unsigned();
        // SAFETY: the map is valid for the call, and describes memory as it is except for the
        // arguments, which now lie in a page that is never freed.
        cvt(unsafe {
            libc::prctl(libc::PR_SET_MM, libc::PR_SET_MM_MAP, &raw const map, size_of::<MemoryMap>(), 0)
        })?;
        Ok(Title { area, reserved })
    }

    /// Takes the area the arguments were passed in.
    fn in_place() -> io::Result<Title> {
        let (area, _) = original_arguments()?;
        // The closing NUL stays: without it the kernel would read on into the environment.
        Ok(Title { area, reserved: 1 })
    }

    /// Shows `text` as the command line, and its first 15 bytes as the command name.
    ///
    /// It is cut at the end of the area, at a character boundary. An embedded NUL ends it.
    pub fn set(&mut self, text: &str) {
        let text = text.split('\0').next().unwrap_or_default();
        let room = self.area.len().saturating_sub(self.reserved);
        // One less, for the NUL that ends the title.
        let title = &text.as_bytes()[..text.floor_char_boundary(room.saturating_sub(1))];
        let (head, tail) = self.area[..room].split_at_mut(title.len());
        head.copy_from_slice(title);
        tail.fill(0);

        const COMM_BYTES: usize = 15;
        if let Ok(name) = CString::new(&text[..text.floor_char_boundary(COMM_BYTES)]) {
            // Cosmetic, and the kernel documents no failure.
            let _ = set_thread_name(&name);
        }
    }
}

/// The argument area the kernel knows of, and `/proc/self/stat`, which tells where it is.
fn original_arguments() -> io::Result<(&'static mut [u8], String)> {
    let text = std::fs::read_to_string("/proc/self/stat")?;
    let (Some(start), Some(end)) = (stat_field(&text, 48), stat_field(&text, 49)) else {
        return Err(io::ErrorKind::InvalidData.into());
    };
    let length = end.checked_sub(start).filter(|_| start != 0).ok_or(io::ErrorKind::InvalidData)?;
    // SAFETY: the kernel placed the strings of argv there, writable and for the life of the
    // process. std and libc read them only through pointers, and every byte remains valid.
    let area = unsafe { std::slice::from_raw_parts_mut(start as *mut u8, length as usize) };
    Ok((area, text))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::testing::{alone, in_child};
    use super::*;

    fn command_line() -> String {
        let bytes = fs::read("/proc/self/cmdline").unwrap();
        String::from_utf8(bytes).unwrap().trim_end_matches('\0').to_owned()
    }

    #[test]
    fn a_moved_title_can_be_long_and_leaves_the_environment_alone() {
        alone("sys::title::tests::a_moved_title_can_be_long_and_leaves_the_environment_alone", || {
            let environment = fs::read("/proc/self/environ").unwrap();
            let before = command_line();
            let Ok(mut title) = Title::moved() else { return };
            assert_eq!(command_line(), before.replace('\0', " "));
            let long = "appserver worker 1, generation 3 ".repeat(60);
            title.set(&long);
            assert_eq!(command_line(), long);
            title.set("short");
            assert_eq!(fs::read("/proc/self/cmdline").unwrap(), b"short\0");
            assert_eq!(fs::read("/proc/self/environ").unwrap(), environment);
            assert!(environment.len() > 10);
            title.set(&"ü".repeat(PAGE));
            assert_eq!(command_line(), "ü".repeat((PAGE - 2) / 2));
        });
    }

    #[test]
    fn a_title_in_place_is_cut_and_leaves_the_environment_alone() {
        alone("sys::title::tests::a_title_in_place_is_cut_and_leaves_the_environment_alone", || {
            let environment = fs::read("/proc/self/environ").unwrap();
            let room = fs::read("/proc/self/cmdline").unwrap().len();
            let mut title = Title::in_place().unwrap();
            title.set(&"x".repeat(10_000));
            assert_eq!(command_line(), "x".repeat(room - 2));
            title.set("master");
            assert_eq!(command_line(), "master");
            assert_eq!(fs::read("/proc/self/environ").unwrap(), environment);
        });
    }

    #[test]
    fn a_forked_child_has_a_title_of_its_own() {
        alone("sys::title::tests::a_forked_child_has_a_title_of_its_own", || {
            let mut title = Title::prepare();
            title.set("parent");
            in_child(|| {
                title.set("child");
                assert_eq!(command_line(), "child");
                assert_eq!(fs::read_to_string("/proc/self/comm").unwrap(), "child\n");
            });
            assert_eq!(command_line(), "parent");
        });
    }

    #[test]
    fn the_command_name_is_cut_at_a_character_boundary() {
        alone("sys::title::tests::the_command_name_is_cut_at_a_character_boundary", || {
            Title::prepare().set("appserver-wörker");
            assert_eq!(fs::read_to_string("/proc/thread-self/comm").unwrap(), "appserver-wörk\n");
            Title::prepare().set("appserver-mastör");
            assert_eq!(fs::read_to_string("/proc/thread-self/comm").unwrap(), "appserver-mast\n");
        });
    }
}
