//! Files that a process has mapped: its program and libraries.
#![allow(unsafe_code)]

use std::io;
use std::ops::Range;

/// Forgets the pages of its program and libraries that this process has looked at; those that it needs
/// again come from the page cache, or from the file.
///
/// A process that has done much and will do little holds memory that way which nobody else uses.
/// What was changed in memory, as by the loader's relocations, stays. With several threads nothing is done, for another one may replace a
/// mapping meanwhile.
///
/// # Errors
/// When `/proc` cannot be read.
pub fn forget_files() -> io::Result<()> {
    if std::fs::read_dir("/proc/self/task")?.count() > 1 {
        return Ok(());
    }
    let smaps = std::fs::read("/proc/self/smaps")?;
    for range in pristine(&String::from_utf8_lossy(&smaps)) {
        let start = std::ptr::without_provenance_mut(range.start);
        // SAFETY: the kernel named this mapping, and this thread, the only one, has not changed it since:
        // of a file, not writable, without a page that differs from the file. What is read from it
        // next is the same again (madvise(2)).
        unsafe { libc::madvise(start, range.len(), libc::MADV_DONTNEED) };
    }
    Ok(())
}

/// The mappings of files in the text of smaps (proc_pid_smaps(5)) that cannot be written to and have
/// no page of their own, here or in swap.
fn pristine(smaps: &str) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    let mut candidate = None;
    for line in smaps.lines() {
        match line.split_once(':') {
            Some(("Anonymous" | "Swap", amount)) if amount.trim() != "0 kB" => candidate = None,
            Some((field, _)) if field.starts_with(|first: char| first.is_ascii_uppercase()) => {}
            _ => {
                found.extend(candidate.take());
                candidate = read_only_file(line);
            }
        }
    }
    found.extend(candidate);
    found
}

/// The range of a mapping from its first line, when it is a file's, private and not writable.
fn read_only_file(line: &str) -> Option<Range<usize>> {
    let mut words = line.split_ascii_whitespace();
    let (start, end) = words.next()?.split_once('-')?;
    let is_read_only = matches!(words.next()?, "r--p" | "r-xp");
    let inode = words.nth(2)?;
    let address = |text| usize::from_str_radix(text, 16).ok();
    (is_read_only && inode != "0").then_some(address(start)?..address(end)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMAPS: &str = "\
1000-3000 r--p 00000000 fe:00 247749                     /usr/lib/a: b.so
Size:                 12 kB
Anonymous:             0 kB
Swap:                  0 kB
VmFlags: rd mr mw me
3000-4000 r--p 00003000 fe:00 247749                     /usr/lib/relocated.so
Anonymous:             4 kB
Swap:                  0 kB
5000-6000 r--p 00003000 fe:00 247749                     /usr/lib/swapped.so
Anonymous:             0 kB
Swap:                  4 kB
6000-7000 rw-p 00003000 fe:00 247749                     /usr/lib/data.so
Anonymous:             0 kB
7000-8000 r--s 00003000 fe:00 247749                     /shared
Anonymous:             0 kB
8000-9000 r-xp 00000000 00:00 0                          [vdso]
Anonymous:             0 kB
d000-e000 r-xp 00003000 fe:00 247749                     /usr/lib/last.so
Anonymous:             0 kB
";

    #[test]
    fn only_files_that_nobody_can_have_changed_are_forgotten() {
        assert_eq!(pristine(SMAPS), [0x1000..0x3000, 0xd000..0xe000]);
        assert_eq!(pristine(""), []);
    }

    #[test]
    fn the_mappings_of_this_process_are_understood() {
        let smaps = std::fs::read_to_string("/proc/self/smaps").expect("a kernel that tells");
        let here = only_files_that_nobody_can_have_changed_are_forgotten as fn() as usize;
        assert!(pristine(&smaps).iter().any(|range| range.contains(&here)), "{smaps}");
    }
}
