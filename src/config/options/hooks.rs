//! What is run at points of a process's life.

use crate::config::schema::Group::Hooks;
use crate::config::schema::{OptionSpec, Shape, not_yet};

const HOOK: &str = "it is not run; use ExecStartPre, ExecStartPost or ExecStopPost of systemd";

pub(super) const ROWS: &[OptionSpec] = &[
    not_yet(Hooks, "hook-asap", Shape::Name, "Action at this point of a process's life.", HOOK)
        .repeatable()
        .and(&[
            "hook-pre-jail",
            "hook-post-jail",
            "hook-in-jail",
            "hook-as-root",
            "hook-as-user",
            "hook-as-user-atexit",
            "hook-pre-app",
            "hook-post-app",
            "hook-post-fork",
            "hook-accepting",
            "hook-accepting-once",
            "hook-accepting1",
            "hook-accepting1-once",
            "hook-master-start",
            "hook-emperor-start",
            "hook-emperor-stop",
            "hook-emperor-reload",
            "hook-emperor-lost",
            "hook-as-mule",
            "hook-as-gateway",
            "hook-as-vassal",
            "hook-as-emperor",
            "hook-as-on-demand-vassal",
            "hook-as-on-config-vassal",
            "hook-as-emperor-before-vassal",
            "hook-as-emperor-setns",
            "hook-as-vassal-before-drop",
        ]),
    not_yet(Hooks, "exec-asap", Shape::Name, "Command at this point of a process's life.", HOOK)
        .repeatable()
        .and(&[
            "exec-pre-jail",
            "exec-post-jail",
            "exec-in-jail",
            "exec-as-root",
            "exec-as-user",
            "exec-as-user-atexit",
            "exec-pre-app",
            "exec-post-app",
            "exec-as-vassal",
            "exec-as-emperor",
        ]),
    not_yet(Hooks, "call-asap", Shape::Name, "Function at this point of a process's life.", HOOK)
        .repeatable()
        .and(&[
            "call-pre-jail",
            "call-post-jail",
            "call-in-jail",
            "call-as-root",
            "call-as-user",
            "call-as-user-atexit",
            "call-pre-app",
            "call-post-app",
            "call-as-vassal",
            "call-as-vassal1",
            "call-as-vassal3",
            "call-as-emperor",
            "call-as-emperor1",
            "call-as-emperor2",
            "call-as-emperor4",
        ]),
];
