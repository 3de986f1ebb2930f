//! Users, groups, confinement.

use crate::config::schema::Group::Privileges;
use crate::config::schema::{Kind, OptionSpec, Shape, not_yet, row};

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
    not_yet(
        Privileges,
        "no-initgroups",
        Shape::Flag,
        "Do not take the user's supplementary groups.",
        "they are taken; use add-gid to choose others",
    ),
    not_yet(
        Privileges,
        "immediate-uid",
        Shape::Name,
        "User to become while options are read.",
        "use uid; start as that user to have it from the beginning",
    ),
    not_yet(
        Privileges,
        "immediate-gid",
        Shape::Name,
        "Group to become while options are read.",
        "use gid; start as that group to have it from the beginning",
    ),
    not_yet(
        Privileges,
        "master-as-root",
        Shape::Flag,
        "Let only the workers drop privileges.",
        "the master drops them too",
    ),
    not_yet(
        Privileges,
        "drop-after-init",
        Shape::Flag,
        "Drop privileges later.",
        "they are dropped before the application is loaded",
    ),
    not_yet(
        Privileges,
        "drop-after-apps",
        Shape::Flag,
        "Drop privileges once the application is loaded.",
        "they are dropped before the application is loaded",
    ),
    not_yet(
        Privileges,
        "cap",
        Shape::Name,
        "Capabilities to keep.",
        "none are kept; use AmbientCapabilities of systemd",
    )
    .and(&["cap-ambient"]),
    not_yet(
        Privileges,
        "chroot",
        Shape::Path,
        "Directory that becomes the root.",
        "paths would mean others; use RootDirectory of systemd or a container",
    )
    .application(),
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
