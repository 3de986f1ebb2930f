//! Who this process is, and giving root away for good.

use std::ffi::CString;
use std::io;
use std::path::Path;

use nix::sys::stat::Mode;
pub use nix::unistd::{Gid, Uid};
use nix::unistd::{Group, User};

use super::cap::{self, Rights};
use super::process::{self, Pid};

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
/// the system does not know gets none. Without `own_groups` the user's own are not looked up.
///
/// # Errors
/// Names the user or group that does not exist.
pub fn resolve(
    uid: Option<&str>,
    gid: Option<&str>,
    add_gid: &[String],
    own_groups: bool,
) -> Result<Identity, String> {
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
    } else if !own_groups && (uid.is_some() || gid.is_some()) {
        Some(Vec::new())
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

/// Becomes `identity`, and makes sure that there is no way back but the rights in `keep`.
///
/// Groups first, then the group, then the user: each step needs the root that the last one
/// gives up. The process may dump core again afterwards, and its `/proc` files are its own; a signal
/// for the death of its parent has to be asked for anew.
///
/// Without root only an identity that is the present one already is accepted; its
/// supplementary groups are then left alone. Without `keep` capabilities are left as a change of user
/// leaves them: root's are gone, and those of another user, given by a service manager, stay.
///
/// # Errors
/// `PermissionDenied` when that needs root or rights that this process does not have, or when the identity
/// did not stick.
pub fn drop_privileges(identity: &Identity, keep: Option<&Rights>) -> io::Result<()> {
    let changes = is_root() && !is_already(identity)?;
    if changes {
        become_other(identity, keep.is_some())?;
    } else {
        verify(identity, "without root this process cannot become")?;
    }
    if let Some(rights) = keep {
        if is_root() {
            rights.bound()?;
        }
        rights.hold()?;
    }
    if changes || keep.is_some() { process::set_dumpable() } else { Ok(()) }
}

/// Root that has given up the right to change its groups may be asked for the same once more.
fn is_already(identity: &Identity) -> io::Result<bool> {
    let sorted = |mut groups: Vec<Gid>| {
        groups.sort_by_key(|gid| gid.as_raw());
        groups.dedup();
        groups
    };
    let same_groups = match &identity.groups {
        Some(groups) => sorted(groups.clone()) == sorted(nix::unistd::getgroups()?),
        None => true,
    };
    Ok(same_groups && verify(identity, "").is_ok())
}

fn become_other(identity: &Identity, keep_rights: bool) -> io::Result<()> {
    if let Some(groups) = &identity.groups {
        nix::unistd::setgroups(groups)?;
    }
    if let Some(gid) = identity.gid {
        nix::unistd::setresgid(gid, gid, gid)?;
    }
    // The permitted set outlives the change then; the effective one is empty in any case, so that the
    // attempt below proves what it should.
    cap::keep_across_change_of_user(keep_rights)?;
    if let Some(uid) = identity.uid {
        nix::unistd::setresuid(uid, uid, uid)?;
    }
    verify(identity, "after the change this process is not")?;
    let gave_root_up = identity.uid.is_some_and(|uid| !uid.is_root());
    if gave_root_up && nix::unistd::setuid(Uid::from_raw(0)).is_ok() {
        return Err(denied("root could be regained after giving it up".to_owned()));
    }
    cap::keep_across_change_of_user(false)?;
    if gave_root_up && !keep_rights {
        // The inheritable set, which some container runtimes fill, is all that could be left.
        Rights::default().hold()?;
    }
    Ok(())
}

/// Makes a directory the root of this process, and enters it: the old working directory would be a way out.
///
/// # Errors
/// When it is no directory, or this process lacks `CAP_SYS_CHROOT`.
pub fn change_root(directory: &Path) -> io::Result<()> {
    nix::unistd::chroot(directory)?;
    std::env::set_current_dir("/")
}

/// From now on no program that this process or a descendant executes gains rights (prctl(2)).
///
/// # Errors
/// None that the kernel documents.
pub fn refuse_new_privileges() -> io::Result<()> {
    Ok(nix::sys::prctl::set_no_new_privs()?)
}

/// Looks at the files of another process as its user would, when they are closed to this one.
///
/// Root without `CAP_SYS_PTRACE`, as in many containers, is a stranger in `/proc` to a process of another
/// user; but it may take that user's place in the file system (setfsuid(2)) and keeps the capabilities that
/// the other process may have.
///
/// # Errors
/// Those of `look`.
pub fn with_eyes_of<T>(pid: Pid, look: impl Fn() -> io::Result<T>) -> io::Result<T> {
    let refused = match look() {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied && is_root() => error,
        outcome => return outcome,
    };
    let Some((uid, gid)) = ids_of(pid) else { return Err(refused) };
    let group = nix::unistd::setfsgid(gid);
    let user = nix::unistd::setfsuid(uid);
    let seen = look();
    nix::unistd::setfsuid(user);
    nix::unistd::setfsgid(group);
    seen
}

/// Effective user and group of a process, which everybody may read.
fn ids_of(pid: Pid) -> Option<(Uid, Gid)> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let effective = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        line.split_ascii_whitespace().nth(1)?.parse().ok()
    };
    Some((Uid::from_raw(effective("Uid:")?), Gid::from_raw(effective("Gid:")?)))
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
        let root = resolve(Some("root"), None, &[], true).unwrap();
        assert_eq!((root.uid, root.gid), (Some(Uid::from_raw(0)), Some(Gid::from_raw(0))));
        let number = resolve(Some("4000000000"), None, &[], true).unwrap();
        assert_eq!(number, Identity { uid: Some(4_000_000_000.into()), gid: None, groups: Some(vec![]) });
        assert_eq!(resolve(None, None, &[], true).unwrap(), Identity::default());
    }

    #[test]
    fn a_named_user_brings_its_groups_unless_others_are_given() {
        let root = resolve(Some("root"), Some("12"), &[], true).unwrap();
        assert_eq!(root.gid, Some(Gid::from_raw(12)));
        assert!(root.groups.unwrap().contains(&Gid::from_raw(12)));
        let replaced = resolve(Some("root"), None, &["7".to_owned(), "root".to_owned()], true).unwrap();
        assert_eq!(replaced.groups, Some(vec![Gid::from_raw(7), Gid::from_raw(0)]));
        let group_only = resolve(None, Some("9"), &[], true).unwrap();
        assert_eq!(group_only.groups, Some(vec![Gid::from_raw(9)]));
        let without = resolve(Some("root"), None, &[], false).unwrap();
        assert_eq!((without.gid, without.groups), (Some(Gid::from_raw(0)), Some(vec![])));
    }

    #[test]
    fn unknown_names_are_named() {
        assert_eq!(
            resolve(Some("no-such-user"), None, &[], true).unwrap_err(),
            "there is no user named \"no-such-user\""
        );
        let group = "there is no group named \"no-such-group\"";
        assert_eq!(resolve(None, Some("no-such-group"), &[], true).unwrap_err(), group);
        assert_eq!(resolve(None, None, &["no-such-group".to_owned()], true).unwrap_err(), group);
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
            drop_privileges(&nobody, None).unwrap();
            assert!(!is_root());
            assert_eq!(nix::unistd::getgroups().unwrap(), [Gid::from_raw(NOBODY)]);
            assert!(nix::sys::prctl::get_dumpable().unwrap());
            std::fs::read_dir("/proc/self/fd").unwrap();

            drop_privileges(&nobody, None).unwrap();
            drop_privileges(&Identity::default(), None).unwrap();
            for other in [resolve(Some("root"), None, &[], true), resolve(None, Some("0"), &[], true)] {
                let error = drop_privileges(&other.unwrap(), None).unwrap_err();
                assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
                assert!(error.to_string().contains("without root this process cannot become"));
            }
        });
    }

    #[test]
    fn some_rights_can_be_kept_and_no_others() {
        alone("sys::cred::tests::some_rights_can_be_kept_and_no_others", || {
            if !is_root() {
                return;
            }
            let nobody =
                Identity { uid: Some(NOBODY.into()), gid: Some(NOBODY.into()), groups: Some(vec![]) };
            let wanted = caps::CapsHashSet::from([caps::Capability::CAP_NET_BIND_SERVICE]);
            let rights = Rights { held: wanted.clone(), passed_on: Default::default() };
            drop_privileges(&nobody, Some(&rights)).unwrap();
            use caps::CapSet::{Ambient, Effective, Inheritable, Permitted};
            for set in [Effective, Permitted, Inheritable] {
                assert_eq!(caps::read(None, set).unwrap(), wanted);
            }
            assert!(caps::read(None, Ambient).unwrap().is_empty());
            drop_privileges(&nobody, Some(&rights)).unwrap();
            let more = Rights { held: caps::all(), passed_on: Default::default() };
            let error = drop_privileges(&nobody, Some(&more)).unwrap_err().to_string();
            assert!(error.contains("does not have ") && error.contains("setuid"), "{error}");
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
