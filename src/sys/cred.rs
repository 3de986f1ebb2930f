//! Who this process is, and giving root away for good.

use std::ffi::CString;
use std::io;
use std::path::Path;

use nix::sys::stat::Mode;
pub use nix::unistd::{Gid, Uid};
use nix::unistd::{Group, User};

use super::process;

/// Whom to become; `None` leaves that part as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Identity {
    /// User.
    pub uid: Option<Uid>,
    /// Primary group.
    pub gid: Option<Gid>,
    /// Supplementary groups, all of them.
    pub groups: Option<Vec<Gid>>,
}

/// Looks up the options `uid`, `gid` and `add-gid`, each a number or a name.
///
/// Without `gid` a user known to the system gets its primary group, so that nothing is left of
/// root's. The supplementary groups are the user's own; `add_gid` replaces them; a user or group
/// the system does not know gets none.
///
/// # Errors
/// Names the user or group that does not exist.
pub fn resolve(uid: Option<&str>, gid: Option<&str>, add_gid: &[String]) -> Result<Identity, String> {
    let (uid, user) = match uid {
        None => (None, None),
        Some(text) => {
            let (uid, user) = find_user(text)?;
            (Some(uid), user)
        }
    };
    let gid = match gid {
        Some(text) => Some(find_group(text)?),
        None => user.as_ref().map(|user| user.gid),
    };
    let groups = if !add_gid.is_empty() {
        Some(add_gid.iter().map(|text| find_group(text)).collect::<Result<Vec<_>, _>>()?)
    } else if let Some(user) = &user {
        Some(groups_of(user, gid.unwrap_or(user.gid))?)
    } else if uid.is_some() || gid.is_some() {
        Some(gid.into_iter().collect())
    } else {
        None
    };
    Ok(Identity { uid, gid, groups })
}

/// A number need not belong to a known user; a name must.
fn find_user(text: &str) -> Result<(Uid, Option<User>), String> {
    if let Ok(number) = text.parse() {
        let uid = Uid::from_raw(number);
        // A directory service that does not answer is no reason to refuse a number.
        return Ok((uid, User::from_uid(uid).ok().flatten()));
    }
    match User::from_name(text) {
        Ok(Some(user)) => Ok((user.uid, Some(user))),
        Ok(None) => Err(format!("there is no user named \"{text}\"")),
        Err(errno) => Err(format!("cannot look up user \"{text}\": {}", io::Error::from(errno))),
    }
}

fn find_group(text: &str) -> Result<Gid, String> {
    if let Ok(number) = text.parse() {
        return Ok(Gid::from_raw(number));
    }
    match Group::from_name(text) {
        Ok(Some(group)) => Ok(group.gid),
        Ok(None) => Err(format!("there is no group named \"{text}\"")),
        Err(errno) => Err(format!("cannot look up group \"{text}\": {}", io::Error::from(errno))),
    }
}

fn groups_of(user: &User, gid: Gid) -> Result<Vec<Gid>, String> {
    let failed = |reason: String| format!("cannot look up the groups of user \"{}\": {reason}", user.name);
    let name = CString::new(user.name.as_str()).map_err(|error| failed(error.to_string()))?;
    nix::unistd::getgrouplist(&name, gid).map_err(|errno| failed(io::Error::from(errno).to_string()))
}

/// Reads an owner as `chown-socket` takes it: `user`, `user:group` or `:group`.
///
/// # Errors
/// Names the user or group that does not exist.
pub fn parse_owner(text: &str) -> Result<(Option<Uid>, Option<Gid>), String> {
    let (user, group) = text.split_once(':').map_or((text, ""), |(user, group)| (user, group));
    if user.is_empty() && group.is_empty() {
        return Err(format!("\"{text}\" names no owner; write user, user:group or :group"));
    }
    let uid = if user.is_empty() { None } else { Some(find_user(user)?.0) };
    let gid = if group.is_empty() { None } else { Some(find_group(group)?) };
    Ok((uid, gid))
}

/// Becomes `identity`, and makes sure that there is no way back.
///
/// Groups first, then the group, then the user: each step needs the root that the last one
/// gives up. The process may dump core again afterwards, and its `/proc` files are its own.
///
/// Without root only an identity that is the present one already is accepted; its
/// supplementary groups are then left alone.
///
/// # Errors
/// `PermissionDenied` when that needs root, or when the identity did not stick.
pub fn drop_privileges(identity: &Identity) -> io::Result<()> {
    if !is_root() {
        return verify(identity, "without root this process cannot become");
    }
    if let Some(groups) = &identity.groups {
        nix::unistd::setgroups(groups)?;
    }
    if let Some(gid) = identity.gid {
        nix::unistd::setresgid(gid, gid, gid)?;
    }
    if let Some(uid) = identity.uid {
        nix::unistd::setresuid(uid, uid, uid)?;
    }
    verify(identity, "after the change this process is not")?;
    let gave_root_up = identity.uid.is_some_and(|uid| !uid.is_root());
    if gave_root_up && nix::unistd::setuid(Uid::from_raw(0)).is_ok() {
        return Err(denied("root could be regained after giving it up".to_owned()));
    }
    process::set_dumpable()
}

/// Compares real, effective and saved ids.
fn verify(identity: &Identity, problem: &str) -> io::Result<()> {
    let (user, group) = (nix::unistd::getresuid()?, nix::unistd::getresgid()?);
    if let Some(uid) = identity.uid
        && [user.real, user.effective, user.saved] != [uid; 3]
    {
        return Err(denied(format!("{problem} uid {uid} (it is {})", user.effective)));
    }
    if let Some(gid) = identity.gid
        && [group.real, group.effective, group.saved] != [gid; 3]
    {
        return Err(denied(format!("{problem} gid {gid} (it is {})", group.effective)));
    }
    Ok(())
}

fn denied(text: String) -> io::Error {
    io::Error::new(io::ErrorKind::PermissionDenied, text)
}

/// Whether this process has root's effective user id.
pub fn is_root() -> bool {
    Uid::effective().is_root()
}

/// The user that started this process.
pub fn real_uid() -> Uid {
    nix::unistd::getuid()
}

/// The group of the user that started this process.
pub fn real_gid() -> Gid {
    nix::unistd::getgid()
}

/// The name of a user, if it has one.
pub fn user_name(uid: Uid) -> Option<String> {
    nix::unistd::User::from_uid(uid).ok().flatten().map(|user| user.name)
}

/// The name of a group, if it has one.
pub fn group_name(gid: Gid) -> Option<String> {
    nix::unistd::Group::from_gid(gid).ok().flatten().map(|group| group.name)
}

/// The effective user id: the owner of what this process creates.
pub fn effective_uid() -> Uid {
    Uid::effective()
}

/// Sets the file creation mask and returns the one before.
pub fn set_umask(mask: u32) -> u32 {
    nix::sys::stat::umask(Mode::from_bits_truncate(mask)).bits()
}

/// Changes the owner of a path; of a symbolic link itself, never of what it points to.
///
/// # Errors
/// When that needs root, or the path is gone.
pub fn chown_path(path: &Path, uid: Option<Uid>, gid: Option<Gid>) -> io::Result<()> {
    std::os::unix::fs::lchown(path, uid.map(Uid::as_raw), gid.map(Gid::as_raw))
}

#[cfg(test)]
mod tests {
    use super::super::testing::alone;
    use super::*;

    const NOBODY: u32 = 65534;

    #[test]
    fn numbers_and_names_are_resolved() {
        let root = resolve(Some("root"), None, &[]).unwrap();
        assert_eq!((root.uid, root.gid), (Some(Uid::from_raw(0)), Some(Gid::from_raw(0))));
        let number = resolve(Some("4000000000"), None, &[]).unwrap();
        assert_eq!(number, Identity { uid: Some(4_000_000_000.into()), gid: None, groups: Some(vec![]) });
        assert_eq!(resolve(None, None, &[]).unwrap(), Identity::default());
    }

    #[test]
    fn a_named_user_brings_its_groups_unless_others_are_given() {
        let root = resolve(Some("root"), Some("12"), &[]).unwrap();
        assert_eq!(root.gid, Some(Gid::from_raw(12)));
        assert!(root.groups.unwrap().contains(&Gid::from_raw(12)));
        let replaced = resolve(Some("root"), None, &["7".to_owned(), "root".to_owned()]).unwrap();
        assert_eq!(replaced.groups, Some(vec![Gid::from_raw(7), Gid::from_raw(0)]));
        let group_only = resolve(None, Some("9"), &[]).unwrap();
        assert_eq!(group_only.groups, Some(vec![Gid::from_raw(9)]));
    }

    #[test]
    fn unknown_names_are_named() {
        assert_eq!(
            resolve(Some("no-such-user"), None, &[]).unwrap_err(),
            "there is no user named \"no-such-user\""
        );
        let group = "there is no group named \"no-such-group\"";
        assert_eq!(resolve(None, Some("no-such-group"), &[]).unwrap_err(), group);
        assert_eq!(resolve(None, None, &["no-such-group".to_owned()]).unwrap_err(), group);
        assert_eq!(parse_owner("root:no-such-group").unwrap_err(), group);
    }

    #[test]
    fn owners_have_a_user_a_group_or_both() {
        let (five, six) = (Some(Uid::from_raw(5)), Some(Gid::from_raw(6)));
        assert_eq!(parse_owner("5"), Ok((five, None)));
        assert_eq!(parse_owner("5:6"), Ok((five, six)));
        assert_eq!(parse_owner(":6"), Ok((None, six)));
        assert_eq!(parse_owner("root:root"), Ok((Some(0.into()), Some(0.into()))));
        assert!(parse_owner("").is_err());
        assert!(parse_owner(":").is_err());
    }

    #[test]
    fn root_is_given_away_for_good() {
        alone("sys::cred::tests::root_is_given_away_for_good", || {
            if !is_root() {
                return;
            }
            let nobody = Identity {
                uid: Some(NOBODY.into()),
                gid: Some(NOBODY.into()),
                groups: Some(vec![NOBODY.into()]),
            };
            drop_privileges(&nobody).unwrap();
            assert!(!is_root());
            assert_eq!(nix::unistd::getgroups().unwrap(), [Gid::from_raw(NOBODY)]);
            assert!(nix::sys::prctl::get_dumpable().unwrap());
            std::fs::read_dir("/proc/self/fd").unwrap();

            drop_privileges(&nobody).unwrap();
            drop_privileges(&Identity::default()).unwrap();
            for other in [resolve(Some("root"), None, &[]), resolve(None, Some("0"), &[])] {
                let error = drop_privileges(&other.unwrap()).unwrap_err();
                assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
                assert!(error.to_string().contains("without root this process cannot become"));
            }
        });
    }

    #[test]
    fn the_mask_is_set_and_the_old_one_returned() {
        alone("sys::cred::tests::the_mask_is_set_and_the_old_one_returned", || {
            set_umask(0o027);
            assert_eq!(set_umask(0o022), 0o027);
        });
    }

    #[test]
    fn a_link_is_chowned_in_place_of_its_target() {
        use std::os::unix::fs::MetadataExt;
        if !is_root() {
            return;
        }
        let directory = tempfile::tempdir().unwrap();
        let (target, link) = (directory.path().join("target"), directory.path().join("link"));
        std::fs::write(&target, "").unwrap();
        std::os::unix::fs::symlink(&target, &link).unwrap();
        chown_path(&link, Some(NOBODY.into()), None).unwrap();
        assert_eq!(std::fs::symlink_metadata(&link).unwrap().uid(), NOBODY);
        assert_eq!(std::fs::metadata(&target).unwrap().uid(), 0);
    }
}
