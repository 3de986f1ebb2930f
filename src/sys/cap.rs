//! Capabilities: root's rights one by one (capabilities(7)).

use std::io;

pub use caps::Capability;
use caps::{CapSet, CapsHashSet, errors::CapsError};

use super::cred;

/// What a process may do of what root may.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rights {
    /// What it may do itself: its effective, permitted and inheritable sets.
    pub held: CapsHashSet,
    /// What remains across `execve(2)` without being root: its ambient set. Part of `held`.
    pub passed_on: CapsHashSet,
}

impl Rights {
    /// Holds these and no others from now on.
    ///
    /// # Errors
    /// `PermissionDenied` when this process has not got one of them, with its name.
    pub fn hold(&self) -> io::Result<()> {
        let permitted = caps::read(None, CapSet::Permitted).map_err(failed)?;
        let mut missing: Vec<_> = self.held.difference(&permitted).copied().map(name).collect();
        if !missing.is_empty() {
            missing.sort();
            let text = format!("this process does not have {} itself", missing.join(", "));
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, text));
        }
        // The permitted set last: the effective one must stay within it, and what goes from it is gone.
        for set in [CapSet::Effective, CapSet::Inheritable, CapSet::Permitted] {
            caps::set(None, set, &self.held).map_err(failed)?;
        }
        caps::set(None, CapSet::Ambient, &self.passed_on).map_err(failed)
    }

    /// Takes all others from what programs executed from here on can ever get, as root's programs do.
    ///
    /// # Errors
    /// When there is something to take, and this process lacks `CAP_SETPCAP`.
    pub fn bound(&self) -> io::Result<()> {
        let bounding = caps::read(None, CapSet::Bounding).map_err(failed)?;
        bounding
            .difference(&self.held)
            .try_for_each(|it| caps::drop(None, CapSet::Bounding, *it).map_err(failed))
    }
}

/// Whether this process can do something that a program which it executes cannot (capabilities(7), "Transformation of
/// capabilities during execve"). A root that gives nothing up has no such thing.
///
/// # Errors
/// When they cannot be read.
pub fn lost_by_execution() -> io::Result<bool> {
    if cred::is_root() {
        return Ok(false);
    }
    let permitted = caps::read(None, CapSet::Permitted).map_err(failed)?;
    let ambient = caps::read(None, CapSet::Ambient).map_err(failed)?;
    Ok(!permitted.is_subset(&ambient))
}

/// Whether the permitted set survives that the user stops being root; execve(2) turns it off again.
///
/// # Errors
/// When a secure bit forbids it.
pub fn keep_across_change_of_user(keep: bool) -> io::Result<()> {
    caps::securebits::set_keepcaps(keep).map_err(failed)
}

/// Reads the name of one, in any case and with or without `cap_`.
pub fn parse(name: &str) -> Option<Capability> {
    let upper = name.to_ascii_uppercase();
    let bare = upper.strip_prefix("CAP_").unwrap_or(&upper);
    format!("CAP_{bare}").parse().ok()
}

/// Its name as options have it.
pub fn name(capability: Capability) -> String {
    let name = capability.to_string().to_ascii_lowercase();
    name.strip_prefix("cap_").map_or(name.clone(), str::to_owned)
}

fn failed(error: CapsError) -> io::Error {
    // The crate tells what it tried and the errno in words only.
    io::Error::other(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_people_write_them() {
        for name in ["net_bind_service", "CAP_NET_BIND_SERVICE", "cap_net_bind_service", "Net_Bind_Service"] {
            assert_eq!(parse(name), Some(Capability::CAP_NET_BIND_SERVICE), "{name}");
        }
        for name in ["", "cap_", "net-bind-service", "cap_cap_chown", "10"] {
            assert_eq!(parse(name), None, "{name}");
        }
        assert_eq!(name(Capability::CAP_SETUID), "setuid");
    }
}
