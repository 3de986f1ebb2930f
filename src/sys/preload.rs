//! Libraries that the dynamic loader puts into a program before those that it asks for: `LD_PRELOAD`, ld.so(8).

use std::env;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

use super::env::{remove_var, set_var};

/// Names the libraries, separated by colons or blanks.
pub const VARIABLE: &str = "LD_PRELOAD";

/// The variable's value for a program that is to have `library` before what others have put there.
pub fn with(library: &Path) -> OsString {
    join(library.as_os_str(), env::var_os(VARIABLE).as_deref())
}

/// Takes the first library out of the variable again, so that the programs that this one starts do without.
///
/// Before there is another thread, which might read the environment.
pub fn forget_first() {
    match env::var_os(VARIABLE).as_deref().and_then(rest) {
        Some(rest) => set_var(VARIABLE, rest),
        None => remove_var(VARIABLE),
    }
}

fn join(library: &OsStr, others: Option<&OsStr>) -> OsString {
    let mut value = library.to_owned();
    if let Some(others) = others.filter(|others| !others.is_empty()) {
        value.push(":");
        value.push(others);
    }
    value
}

fn rest(value: &OsStr) -> Option<OsString> {
    let bytes = value.as_bytes();
    let colon = memchr::memchr(b':', bytes)?;
    Some(OsString::from_vec(bytes[colon + 1..].to_vec()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_have_put_there_stays() {
        for (others, value, after) in [
            (None, "/lib/guest.so", None),
            (Some(""), "/lib/guest.so", None),
            (Some("libfaketime.so.1"), "/lib/guest.so:libfaketime.so.1", Some("libfaketime.so.1")),
            (Some("a.so b.so:c.so"), "/lib/guest.so:a.so b.so:c.so", Some("a.so b.so:c.so")),
        ] {
            let joined = join(OsStr::new("/lib/guest.so"), others.map(OsStr::new));
            assert_eq!(joined, value);
            assert_eq!(rest(&joined).as_deref(), after.map(OsStr::new));
        }
    }
}
