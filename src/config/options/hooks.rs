//! What is run at points of a process's life.

use crate::config::Config;
use crate::config::schema::Group::Hooks;
use crate::config::schema::{Kind, OptionSpec, Shape, not_yet, row};
use crate::config::value::ValueError;
use crate::hooks::{Action, Hook, Point};

const HOOK: &str = "it is not run; use ExecStartPre, ExecStartPost or ExecStopPost of systemd";
const JAIL: &str = "there is no jail; use hook-as-root or hook-as-user";

/// A row of `hook-POINT`.
const fn hook(name: &'static str, kind: Kind, help: &'static str) -> OptionSpec {
    row(Hooks, name, kind, help).metavar("ACTION:ARGUMENT").repeatable()
}

/// A row of `exec-POINT`.
const fn exec(name: &'static str, kind: Kind, help: &'static str) -> OptionSpec {
    row(Hooks, name, kind, help).metavar("COMMAND").repeatable()
}

pub(super) const ROWS: &[OptionSpec] = &[
    hook(
        "hook-asap",
        Kind::Parsed(|c, text| add(c, Point::Asap, text)),
        "Do this when the configuration has been read; if that fails, so does the start or the reload.",
    ),
    hook(
        "hook-as-root",
        Kind::Parsed(|c, text| add(c, Point::AsRoot, text)),
        "Do this before privileges are dropped, if there are any; if that fails, so does the start.",
    ),
    hook(
        "hook-as-user",
        Kind::Parsed(|c, text| add(c, Point::AsUser, text)),
        "Do this once privileges are dropped; if that fails, so does the start.",
    ),
    hook(
        "hook-pre-app",
        Kind::Parsed(|c, text| add(c, Point::PreApp, text)),
        "Do this before the application is loaded; if that fails, it is not loaded.",
    ),
    hook(
        "hook-post-app",
        Kind::Parsed(|c, text| add(c, Point::PostApp, text)),
        "Do this after the application is loaded; if that fails, it does not serve.",
    ),
    hook(
        "hook-post-fork",
        Kind::Parsed(|c, text| add(c, Point::PostFork, text)),
        "Do this in each worker after its fork; if that fails, it does not serve.",
    ),
    hook(
        "hook-accepting",
        Kind::Parsed(|c, text| add(c, Point::Accepting, text)),
        "Do this in each worker when it serves.",
    ),
    hook(
        "hook-accepting-once",
        Kind::Parsed(|c, text| add(c, Point::AcceptingOnce, text)),
        "The same, but not in workers that take the place of others of their generation.",
    ),
    hook(
        "hook-accepting1",
        Kind::Parsed(|c, text| add(c, Point::Accepting1, text)),
        "Do this in worker 1 when it serves.",
    ),
    hook(
        "hook-accepting1-once",
        Kind::Parsed(|c, text| add(c, Point::Accepting1Once, text)),
        "The same, once per generation: after the start and after each reload.",
    ),
    hook(
        "hook-master-start",
        Kind::Parsed(|c, text| add(c, Point::MasterStart, text)),
        "Do this in the master when it starts; commands are not waited for.",
    ),
    hook(
        "hook-as-user-atexit",
        Kind::Parsed(|c, text| add(c, Point::AsUserAtexit, text)),
        "Do this in the master when it leaves, not when it reloads.",
    ),
    exec(
        "exec-asap",
        Kind::Parsed(|c, text| add_command(c, Point::Asap, text)),
        "hook-asap with the action exec.",
    ),
    exec(
        "exec-as-root",
        Kind::Parsed(|c, text| add_command(c, Point::AsRoot, text)),
        "hook-as-root with the action exec.",
    ),
    exec(
        "exec-as-user",
        Kind::Parsed(|c, text| add_command(c, Point::AsUser, text)),
        "hook-as-user with the action exec.",
    ),
    exec(
        "exec-pre-app",
        Kind::Parsed(|c, text| add_command(c, Point::PreApp, text)),
        "hook-pre-app with the action exec.",
    ),
    exec(
        "exec-post-app",
        Kind::Parsed(|c, text| add_command(c, Point::PostApp, text)),
        "hook-post-app with the action exec.",
    ),
    exec(
        "exec-as-user-atexit",
        Kind::Parsed(|c, text| add_command(c, Point::AsUserAtexit, text)),
        "hook-as-user-atexit with the action exec.",
    ),
    not_yet(Hooks, "hook-pre-jail", Shape::Name, "Action at this point of a process's life.", JAIL)
        .repeatable()
        .and(&["hook-post-jail", "hook-in-jail", "exec-pre-jail", "exec-post-jail", "exec-in-jail"]),
    not_yet(Hooks, "hook-emperor-start", Shape::Name, "Action at this point of a process's life.", HOOK)
        .repeatable()
        .and(&[
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

fn add(config: &mut Config, point: Point, text: &str) -> Result<(), ValueError> {
    config.hooks.push(Hook { point, action: Action::parse(text)? });
    Ok(())
}

fn add_command(config: &mut Config, point: Point, text: &str) -> Result<(), ValueError> {
    config.hooks.push(Hook { point, action: Action::Exec(text.to_owned()) });
    Ok(())
}
