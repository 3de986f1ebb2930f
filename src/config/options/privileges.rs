//! Users, groups, confinement.

use crate::config::schema::Group::Privileges;
use crate::config::schema::{Kind, OptionSpec, Shape, not_yet, row};
use crate::config::value::ValueError;
use crate::sys::cap::{self, Capability};

pub(super) const ROWS: &[OptionSpec] = &[
    row(
        Privileges,
        "uid",
        Kind::Name(|c, user| c.credentials.uid = Some(user.to_owned())),
        "User to run as, once sockets are bound and before the application is loaded.",
    ),
    row(
        Privileges,
        "gid",
        Kind::Name(|c, group| c.credentials.gid = Some(group.to_owned())),
        "Group to run as.",
    ),
    row(
        Privileges,
        "add-gid",
        Kind::Name(|c, group| c.credentials.add_gid.push(group.to_owned())),
        "Supplementary group; giving one replaces the user's own.",
    )
    .repeatable(),
    row(
        Privileges,
        "umask",
        Kind::Umask(|c, mask| c.umask = Some(mask)),
        "Permissions that new files do not get, in octal.",
    ),
    row(
        Privileges,
        "no-initgroups",
        Kind::Flag(|c, on| c.credentials.no_initgroups = on),
        "Do not take the user's supplementary groups.",
    ),
    row(
        Privileges,
        "immediate-uid",
        Kind::Name(|c, user| c.credentials.immediate_uid = Some(user.to_owned())),
        "User to become first of all, before log, pidfile and sockets are opened.",
    ),
    row(
        Privileges,
        "immediate-gid",
        Kind::Name(|c, group| c.credentials.immediate_gid = Some(group.to_owned())),
        "Group to become first of all.",
    ),
    row(
        Privileges,
        "cap",
        Kind::Parsed(|c, list| {
            c.credentials.capabilities = Some(capabilities(list)?);
            Ok(())
        }),
        "Capabilities to keep, separated by commas; without uid, the only ones that are left of root's.",
    )
    .metavar("NAME,..."),
    row(
        Privileges,
        "cap-ambient",
        Kind::Parsed(|c, list| {
            c.credentials.ambient = capabilities(list)?;
            Ok(())
        }),
        "The same; programs that the application starts have them, too.",
    )
    .metavar("NAME,..."),
    row(
        Privileges,
        "no-new-privs",
        Kind::Flag(|c, on| c.credentials.no_new_privs = on),
        "Once privileges are dropped, no program gains any, not even by a set-user-id bit.",
    ),
    row(
        Privileges,
        "chroot",
        Kind::Path(|c, directory| c.credentials.chroot = Some(directory)),
        "Make this directory the root, before sockets are bound. Paths but pidfile, logto and daemonize are inside.",
    )
    .metavar("DIR"),
    row(
        Privileges,
        "drop-after-init",
        Kind::Flag(|c, on| c.credentials.drop_after_init = on),
        "Open the log of logto2 and write pidfile2 before privileges are dropped.",
    ),
    row(
        Privileges,
        "drop-after-apps",
        Kind::Flag(|c, on| c.credentials.drop_after_apps = on),
        "Load the application, also at a reload, before privileges are dropped. The master keeps them.",
    ),
    row(
        Privileges,
        "master-as-root",
        Kind::Flag(|c, on| c.credentials.master_as_root = on),
        "Let the master keep its privileges, so that a reload can do what needs root.",
    ),
    not_yet(Privileges, "namespace", Shape::Name, "Run in a jail of its own.", "use a container")
        .aliases(&["ns"])
        .and(&["namespace-keep-mount", "namespace-net"])
        .repeatable(),
    not_yet(
        Privileges,
        "unshare",
        Shape::Name,
        "Leave parts of the system behind.",
        "use a container, or the sandbox options of systemd",
    )
    .and(&["unshare2", "setns"])
    .repeatable(),
    not_yet(
        Privileges,
        "cgroup",
        Shape::Path,
        "Run in this control group.",
        "use a systemd unit or a container",
    )
    .repeatable(),
    not_yet(
        Privileges,
        "cgroup-opt",
        Shape::Pair,
        "Setting of the control group.",
        "use a systemd unit or a container",
    )
    .repeatable(),
];

fn capabilities(list: &str) -> Result<Vec<Capability>, ValueError> {
    let read = |name: &str| {
        let unknown = || {
            ValueError::refused(format!(
                "contains \"{name}\", which is no capability; the names are those of capabilities(7), for \
                 example net_bind_service"
            ))
        };
        cap::parse(name).ok_or_else(unknown)
    };
    list.split(',').map(|name| read(name.trim())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capabilities_are_listed_with_commas() {
        let pair = [Capability::CAP_SETGID, Capability::CAP_SETUID];
        assert_eq!(capabilities("setgid,setuid").unwrap(), pair);
        assert_eq!(capabilities("CAP_SETGID, cap_setuid").unwrap(), pair);
        for list in ["", "setgid,", "setgid setuid", "sudo"] {
            assert!(capabilities(list).unwrap_err().to_string().contains("no capability"), "{list}");
        }
    }
}
