//! The option table: the one place that knows which options exist.
//!
//! Command line, `--help` and [`Config::build`](super::Config::build) are driven by it. To add an
//! option, add the field to [`Config`], its default to [`Config::defaults`], and a row here.

use std::thread::available_parallelism;
use std::time::Duration;

use super::Config;
use super::directive::Directive;
use super::document::Format;
use super::logic::{BlockKind, Loop, Test};
use super::schema::Group::{
    Commands, Configuration, FilesAndDirectories, Http, Listeners, Logging, Privileges, ProcessTitles,
    Processes, ReloadAndStop, StaticFiles,
};
use super::schema::{CommandKind, Kind, OptionSpec, Status, row};
use super::value::{self, ValueError};

/// Most worker processes: two generations of them, and stragglers, fit into the scoreboard.
pub const MAX_PROCESSES: u64 = 1024;
/// Most requests that one worker runs at a time.
pub const MAX_THREADS: u64 = 4096;
/// Most `master-fifo`s: the FIFO letters `0` to `9` choose among them.
pub const MAX_FIFOS: usize = 10;
/// The kernel keeps the backlog in an `int`.
const MAX_BACKLOG: u64 = i32::MAX as u64;
/// Time-outs that would end everything at once make no sense.
const A_MOMENT: Duration = Duration::from_millis(1);

/// Every option, by topic.
pub static OPTIONS: &[OptionSpec] = &[
    row(Processes, "master", Kind::Flag(|c, on| c.master = on), "Run under a master process, as production does.")
        .short('M'),
    row(
        Processes,
        "processes",
        Kind::IntOrAuto { min: 1, max: MAX_PROCESSES, auto: cpus, set: |c, n| c.processes = to_u32(n) },
        "How many worker processes serve requests; auto is one for each CPU.",
    )
    .short('p')
    .aliases(&["workers"])
    .default("1"),
    row(
        Processes,
        "threads",
        Kind::Int { min: 1, max: MAX_THREADS, set: |c, n| c.threads = to_u32(n) },
        "How many requests a worker runs at a time.",
    )
    .default("1"),
    row(
        Processes,
        "lazy-apps",
        Kind::Flag(|c, on| c.lazy_apps = on),
        "Load the application in each worker instead of once before forking them.",
    )
    .aliases(&["lazy"]),
    row(Processes, "need-app", Kind::Flag(|c, on| c.need_app = on), "Exit with status 22 when no application loads."),
    row(
        Processes,
        "no-orphans",
        Kind::Flag(|c, on| c.no_orphans = on),
        "Kill the workers at once when the master dies, instead of letting them finish their requests.",
    ),
    row(
        Processes,
        "boot-timeout",
        Kind::Seconds { min: A_MOMENT, set: |c, time| c.boot_timeout = time },
        "How long loading the application or starting a worker may take.",
    )
    .default("60"),
    row(
        Listeners,
        "http-socket",
        Kind::Address(|c, spec| c.listeners.push(spec)),
        "Serve HTTP on this address: HOST:PORT, :PORT, a path for a Unix socket, @NAME for an abstract one.",
    )
    .repeatable(),
    row(
        Listeners,
        "http",
        Kind::Address(|c, spec| c.listeners.push(spec)),
        "The same as http-socket: the workers speak HTTP, there is no router process.",
    )
    .repeatable(),
    row(
        Listeners,
        "listen",
        Kind::Int { min: 1, max: MAX_BACKLOG, set: |c, n| c.backlog = to_u32(n) },
        "How many connections may wait to be accepted; the kernel caps it at net.core.somaxconn.",
    )
    .short('l')
    .default("1024"),
    row(
        Listeners,
        "chmod-socket",
        Kind::Mode(|c, mode| c.chmod_socket = Some(mode)),
        "Mode of Unix sockets, in octal; without a value 666.",
    )
    .short('C')
    .aliases(&["chmod"])
    .bare("666"),
    row(
        Listeners,
        "chown-socket",
        Kind::Name(|c, owner| c.chown_socket = Some(owner.to_owned())),
        "Owner of Unix sockets.",
    )
    .metavar("USER[:GROUP]"),
    row(
        Listeners,
        "reuse-port",
        Kind::Flag(|c, on| c.reuse_port = on),
        "Let other servers bind the same TCP address (SO_REUSEPORT).",
    ),
    row(
        Listeners,
        "tcp-nodelay",
        Kind::Flag(|c, on| c.tcp_nodelay = on),
        "Send small packets at once (TCP_NODELAY).",
    )
    .default("true"),
    row(
        Http,
        "http-keepalive",
        Kind::Seconds { min: Duration::ZERO, set: |c, time| c.keepalive = time },
        "How long an idle connection may wait for its next request; 0 closes after each response, 1 is the default.",
    )
    .default("75")
    .bare("75"),
    row(
        Http,
        "http-headers-timeout",
        Kind::Seconds { min: A_MOMENT, set: |c, time| c.headers_timeout = time },
        "How long the head of a request may take to arrive.",
    )
    .default("15"),
    row(
        Http,
        "http-timeout",
        Kind::Seconds { min: A_MOMENT, set: |c, time| c.io_timeout = time },
        "How long reading a body or writing a response may stand still.",
    )
    .short('z')
    .aliases(&["socket-timeout"])
    .default("60"),
    row(
        Http,
        "limit-post",
        Kind::Size { min: 0, max: u64::MAX, set: |c, bytes| c.limit_post = bytes },
        "Largest request body; 0 is no limit.",
    )
    .default("0"),
    row(
        Http,
        "buffer-size",
        Kind::Size { min: 1 << 10, max: 1 << 20, set: |c, bytes| c.buffer_size = to_usize(bytes) },
        "Largest head of a request.",
    )
    .short('b')
    .default("32768"),
    row(StaticFiles, "static-map", Kind::Parsed(add_static_map), "Serve the files of a directory under a URL prefix.")
        .metavar("/PREFIX=DIR")
        .repeatable(),
    row(
        StaticFiles,
        "static-dir",
        Kind::Path(|c, target| c.static_maps.push(super::StaticMap { prefix: "/".to_owned(), target })),
        "Serve the files of a directory under /, as static-map=/=DIR.",
    )
    .aliases(&["check-static"])
    .metavar("DIR")
    .repeatable(),
    row(
        StaticFiles,
        "static-index",
        Kind::Name(|c, name| c.static_index.push(name.to_owned())),
        "File to look for when a directory is asked for; the first one given replaces the default.",
    )
    .metavar("NAME")
    .default("index.html")
    .repeatable(),
    row(
        StaticFiles,
        "static-safe",
        Kind::Path(|c, dir| c.static_safe.push(dir)),
        "Directory that symbolic links may lead to.",
    )
    .metavar("DIR")
    .repeatable(),
    row(
        StaticFiles,
        "static-follow-symlinks",
        Kind::Flag(|c, on| c.static_follow_symlinks = on),
        "Follow symbolic links out of the served directories.",
    ),
    row(
        ReloadAndStop,
        "worker-reload-mercy",
        Kind::Seconds { min: Duration::ZERO, set: |c, time| c.worker_reload_mercy = time },
        "How long a worker may take to finish its requests before it is killed.",
    )
    .default("60"),
    row(
        ReloadAndStop,
        "reload-mercy",
        Kind::Seconds { min: Duration::ZERO, set: |c, time| c.reload_mercy = time },
        "How long processes other than workers may take to leave.",
    )
    .default("3")
    .status(Status::AcceptedNoEffect("there are no such processes; workers have worker-reload-mercy")),
    row(
        ReloadAndStop,
        "touch-reload",
        Kind::Path(|c, path| c.touch_reload.push(path)),
        "Reload when this file is touched.",
    )
    .repeatable()
    .implies_master(),
    row(
        ReloadAndStop,
        "die-on-term",
        Kind::Flag(|c, on| c.die_on_term = on),
        "Stop on SIGTERM and reload brutally on SIGQUIT; without it, the other way round.",
    ),
    row(
        ReloadAndStop,
        "vacuum",
        Kind::Flag(|c, on| c.vacuum = on),
        "Remove Unix sockets, FIFOs and pidfiles at exit.",
    ),
    row(
        ReloadAndStop,
        "binary-path",
        Kind::Path(|c, path| c.binary_path = Some(path)),
        "The program that a reload executes, in place of the one that was started.",
    ),
    row(
        ReloadAndStop,
        "release",
        Kind::Str(|c, label| c.release = Some(label.to_owned())),
        "Label of what is deployed, shown in process titles, status and the built-in page.",
    )
    .metavar("LABEL"),
    row(
        FilesAndDirectories,
        "chdir",
        Kind::Path(|c, dir| c.chdir = Some(dir)),
        "Change to this directory before binding sockets and loading the application.",
    )
    .metavar("DIR"),
    row(
        FilesAndDirectories,
        "chdir2",
        Kind::Path(|c, dir| c.chdir2 = Some(dir)),
        "Change to this directory in each worker, after the application is loaded.",
    )
    .metavar("DIR"),
    row(
        FilesAndDirectories,
        "pidfile",
        Kind::Path(|c, path| c.pidfile = Some(path)),
        "Write the master's process id to this file, first of all.",
    ),
    row(
        FilesAndDirectories,
        "pidfile2",
        Kind::Path(|c, path| c.pidfile2 = Some(path)),
        "The same, after privileges are dropped.",
    ),
    row(
        FilesAndDirectories,
        "safe-pidfile",
        Kind::Path(|c, path| c.safe_pidfile = Some(path)),
        "The same, once the server is up.",
    ),
    row(
        FilesAndDirectories,
        "safe-pidfile2",
        Kind::Path(|c, path| c.safe_pidfile2 = Some(path)),
        "The same, once the workers are forked.",
    ),
    row(
        FilesAndDirectories,
        "master-fifo",
        Kind::Path(|c, path| c.master_fifos.push(path)),
        "Take one-letter commands from this FIFO, made when missing; up to ten, the digits 0 to 9 choose one.",
    )
    .repeatable()
    .implies_master(),
    row(FilesAndDirectories, "env", Kind::Parsed(set_variable), "Set an environment variable.")
        .metavar("NAME=VALUE")
        .repeatable(),
    row(FilesAndDirectories, "unenv", Kind::Parsed(unset_variable), "Remove an environment variable.")
        .metavar("NAME")
        .repeatable(),
    row(
        FilesAndDirectories,
        "strict",
        Kind::Flag(|c, on| c.strict = on),
        "Refuse to start, rather than warn, when an option is not supported.",
    ),
    row(
        Privileges,
        "uid",
        Kind::Name(|c, user| c.credentials.uid = Some(user.to_owned())),
        "User to run as, once sockets are bound and before the application is loaded.",
    ),
    row(Privileges, "gid", Kind::Name(|c, group| c.credentials.gid = Some(group.to_owned())), "Group to run as."),
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
        Logging,
        "daemonize",
        Kind::LogFile(|c, path| c.daemonize = Some(path)),
        "Go to the background and log to this file.",
    )
    .short('d'),
    row(
        Logging,
        "daemonize2",
        Kind::LogFile(|c, path| c.daemonize2 = Some(path)),
        "The same, but only once the application is loaded, so that the shell sees a failure.",
    ),
    row(
        Logging,
        "logto",
        Kind::LogFile(|c, path| c.logto = Some(path)),
        "Log to this file, opened before privileges are dropped.",
    ),
    row(
        Logging,
        "logto2",
        Kind::LogFile(|c, path| c.logto2 = Some(path)),
        "Log to this file, opened after privileges are dropped.",
    ),
    row(Logging, "disable-logging", Kind::FlagOff(|c, on| c.request_log.enabled = on), "Do not log requests.")
        .short('L'),
    row(
        Logging,
        "log-format",
        Kind::Str(|c, format| c.request_log.format = Some(format.to_owned())),
        "Line to log for a request, with variables as %(uri).",
    )
    .aliases(&["logformat"])
    .metavar("FORMAT"),
    row(
        Logging,
        "log-4xx",
        Kind::Flag(|c, on| c.request_log.log_4xx = on),
        "Log requests answered with 4xx even with disable-logging.",
    ),
    row(
        Logging,
        "log-5xx",
        Kind::Flag(|c, on| c.request_log.log_5xx = on),
        "Log requests answered with 5xx even with disable-logging.",
    ),
    row(
        Logging,
        "log-slow",
        Kind::Int { min: 0, max: u64::MAX, set: |c, ms| c.request_log.slow = (ms > 0).then_some(ms) },
        "Log requests that take this many milliseconds even with disable-logging; 0 is off.",
    )
    .metavar("MILLISECONDS"),
    row(
        Logging,
        "log-micros",
        Kind::Flag(|c, on| c.request_log.micros = on),
        "Log how long a request took in microseconds instead of milliseconds.",
    ),
    row(
        Logging,
        "log-x-forwarded-for",
        Kind::Flag(|c, on| c.request_log.x_forwarded_for = on),
        "Log the client named by X-Forwarded-For instead of the peer.",
    ),
    row(
        ProcessTitles,
        "procname",
        Kind::Str(|c, title| c.titles.workers = Some(title.to_owned())),
        "Title of all processes but the master.",
    ),
    row(
        ProcessTitles,
        "procname-master",
        Kind::Str(|c, title| c.titles.master = Some(title.to_owned())),
        "Title of the master.",
    ),
    row(
        ProcessTitles,
        "procname-prefix",
        Kind::Str(|c, prefix| prefix.clone_into(&mut c.titles.prefix)),
        "Text in front of every title.",
    ),
    row(
        ProcessTitles,
        "procname-prefix-spaced",
        Kind::Str(|c, prefix| c.titles.prefix = format!("{prefix} ")),
        "The same, with a space behind it.",
    ),
    row(
        ProcessTitles,
        "procname-append",
        Kind::Str(|c, suffix| suffix.clone_into(&mut c.titles.append)),
        "Text behind every title.",
    ),
    row(ProcessTitles, "auto-procname", Kind::Flag(|_, _| ()), "Give every process a title.")
        .status(Status::AcceptedNoEffect("processes always have titles")),
    row(
        Commands,
        "reload",
        Kind::Command(CommandKind::Reload),
        "Ask the server with this pidfile to reload gracefully.",
    ),
    row(Commands, "stop", Kind::Command(CommandKind::Stop), "Ask the server with this pidfile to stop."),
    row(
        Commands,
        "status",
        Kind::Command(CommandKind::Status),
        "Tell whether the server with this pidfile runs; exit status 0 if it does, 3 if not, 4 if that is unknown.",
    ),
    row(Commands, "version", Kind::Command(CommandKind::Version), "Print the version."),
    row(Commands, "help", Kind::Command(CommandKind::Help), "Print this help.").short('h'),
    row(Configuration, "ini", Kind::Directive(Directive::Read(Some(Format::Ini))), "Read an ini file here; - is standard input, fd://N a descriptor, exec://CMD a command.").repeatable(),
    row(Configuration, "yaml", Kind::Directive(Directive::Read(Some(Format::Yaml))), "Read a YAML file here.").short('y').aliases(&["yml"]).repeatable(),
    row(Configuration, "json", Kind::Directive(Directive::Read(Some(Format::Json))), "Read a JSON file here.").short('j').aliases(&["js"]).repeatable(),
    row(Configuration, "toml", Kind::Directive(Directive::Read(Some(Format::Toml))), "Read a TOML file here.").repeatable(),
    row(Configuration, "xml", Kind::Directive(Directive::Read(Some(Format::Xml))), "Read an XML file here.").short('x').aliases(&["xmlconfig"]).repeatable(),
    row(Configuration, "config", Kind::Directive(Directive::Read(None)), "Read a file here; its extension tells the format.").repeatable(),
    row(Configuration, "include", Kind::Directive(Directive::Include), "The same, as a part of the file it is named in: %N and its kin stay those of the first file.").repeatable(),
    row(Configuration, "inherit", Kind::Directive(Directive::Inherit), "Read a file after everything else, so that its values win.").repeatable(),
    row(Configuration, "set", Kind::Directive(Directive::Set), "Give an option or a placeholder by NAME=VALUE.").short('S').repeatable(),
    row(Configuration, "set-placeholder", Kind::Directive(Directive::Placeholder), "Give a placeholder that other values use as %(NAME).").aliases(&["set-ph"]).repeatable(),
    row(Configuration, "resolve", Kind::Directive(Directive::Resolve), "Give a placeholder that is the IPv4 address of a host.").repeatable(),
    row(Configuration, "print", Kind::Str(|c, text| c.prints.push(text.to_owned())), "Print this line at start-up.")
        .repeatable(),
    row(
        Configuration,
        "iprint",
        Kind::Str(|c, text| c.prints.push(text.to_owned())),
        "The same, without expanding variables and placeholders.",
    )
    .repeatable(),
    row(Configuration, "declare-option", Kind::Directive(Directive::Declare), "Define an option by NAME=TEMPLATE, where $1 to $9 stand for the words of its value.").aliases(&["declare-option2"]).repeatable(),
    row(Configuration, "blacklist", Kind::Directive(Directive::Deny(true)), "Refuse these options until end-blacklist."),
    row(Configuration, "end-blacklist", Kind::Directive(Directive::Deny(false)), "End a blacklist."),
    row(Configuration, "whitelist", Kind::Directive(Directive::AllowOnly(true)), "Refuse all but these options until end-whitelist."),
    row(Configuration, "end-whitelist", Kind::Directive(Directive::AllowOnly(false)), "End a whitelist."),
    row(Configuration, "autoload", Kind::Flag(|_, _| ()), "Load the plugin that an unknown option belongs to.")
        .status(Status::AcceptedNoEffect("all options are known without their plugins")),
    row(Configuration, "for", Kind::Directive(Directive::Open(BlockKind::For(Loop::Words))), "Repeat each line up to endfor for these words, which are %(_) in it.").repeatable(),
    row(Configuration, "for-times", Kind::Directive(Directive::Open(BlockKind::For(Loop::Times))), "Repeat each line up to endfor this many times.").repeatable(),
    row(Configuration, "for-glob", Kind::Directive(Directive::Open(BlockKind::For(Loop::Glob))), "Repeat each line up to endfor for the files that match a pattern.").repeatable(),
    row(Configuration, "for-readline", Kind::Directive(Directive::Open(BlockKind::For(Loop::Lines))), "Repeat each line up to endfor for the lines of a file.").repeatable(),
    row(Configuration, "if-opt", Kind::Directive(Directive::Open(BlockKind::If(Test::Option, false))), "Apply the lines up to endif when an option was given before, or has this value: NAME or NAME=VALUE.").aliases(&["ifopt"]).repeatable(),
    row(Configuration, "if-not-opt", Kind::Directive(Directive::Open(BlockKind::If(Test::Option, true))), "The same, when that is not so.").repeatable(),
    row(Configuration, "if-env", Kind::Directive(Directive::Open(BlockKind::If(Test::Env, false))), "Apply the lines up to endif when an environment variable is set, or has this value: NAME or NAME=VALUE.").aliases(&["ifenv"]).repeatable(),
    row(Configuration, "if-not-env", Kind::Directive(Directive::Open(BlockKind::If(Test::Env, true))), "The same, when that is not so.").repeatable(),
    row(Configuration, "if-exists", Kind::Directive(Directive::Open(BlockKind::If(Test::Exists, false))), "Apply the lines up to endif when a path exists.").aliases(&["ifexists"]).repeatable(),
    row(Configuration, "if-not-exists", Kind::Directive(Directive::Open(BlockKind::If(Test::Exists, true))), "The same, when that is not so.").repeatable(),
    row(Configuration, "if-file", Kind::Directive(Directive::Open(BlockKind::If(Test::File, false))), "Apply the lines up to endif when a path is a regular file.").aliases(&["iffile"]).repeatable(),
    row(Configuration, "if-not-file", Kind::Directive(Directive::Open(BlockKind::If(Test::File, true))), "The same, when that is not so.").repeatable(),
    row(Configuration, "if-dir", Kind::Directive(Directive::Open(BlockKind::If(Test::Directory, false))), "Apply the lines up to endif when a path is a directory.").aliases(&["ifdir", "if-directory"]).repeatable(),
    row(Configuration, "if-not-dir", Kind::Directive(Directive::Open(BlockKind::If(Test::Directory, true))), "The same, when that is not so.").aliases(&["if-not-directory"]).repeatable(),
    row(Configuration, "if-reload", Kind::Directive(Directive::Open(BlockKind::If(Test::Reload, false))), "Apply the lines up to endif when this is a reload.").aliases(&["ifreload"]).repeatable(),
    row(Configuration, "if-not-reload", Kind::Directive(Directive::Open(BlockKind::If(Test::Reload, true))), "The same, when that is not so.").repeatable(),
    row(Configuration, "if-plugin", Kind::Directive(Directive::Open(BlockKind::If(Test::Plugin, false))), "Apply the lines up to endif when a plugin was asked for before.").aliases(&["ifplugin"]).repeatable(),
    row(Configuration, "if-not-plugin", Kind::Directive(Directive::Open(BlockKind::If(Test::Plugin, true))), "The same, when that is not so.").repeatable(),
    row(Configuration, "if-hostname", Kind::Directive(Directive::Open(BlockKind::If(Test::Hostname, false))), "Apply the lines up to endif when the host has this name.").aliases(&["ifhostname"]).repeatable(),
    row(Configuration, "if-not-hostname", Kind::Directive(Directive::Open(BlockKind::If(Test::Hostname, true))), "The same, when that is not so.").repeatable(),
    row(Configuration, "if-hostname-match", Kind::Directive(Directive::Open(BlockKind::If(Test::HostnameMatch, false))), "Apply the lines up to endif when the name of the host matches a regular expression.").repeatable(),
    row(Configuration, "if-not-hostname-match", Kind::Directive(Directive::Open(BlockKind::If(Test::HostnameMatch, true))), "The same, when that is not so.").repeatable(),
    row(Configuration, "else", Kind::Directive(Directive::Else), "Apply the lines up to endif when the condition before does not hold.").repeatable(),
    row(Configuration, "end", Kind::Directive(Directive::End), "End a block, of whatever kind.").aliases(&["endif", "end-if", "endfor", "end-for"]).repeatable(),
];

/// The row that answers to `name`, canonical or alias.
pub fn find(name: &str) -> Option<&'static OptionSpec> {
    OPTIONS.iter().find(|row| row.names().any(|known| known == name))
}

fn cpus() -> u64 {
    available_parallelism().map_or(1, |count| count.get() as u64)
}

fn to_u32(number: u64) -> u32 {
    u32::try_from(number).expect("the row's maximum fits 32 bits")
}

fn to_usize(number: u64) -> usize {
    usize::try_from(number).expect("the row's maximum fits an address")
}

fn add_static_map(config: &mut Config, text: &str) -> Result<(), ValueError> {
    config.static_maps.push(value::static_map(text)?);
    Ok(())
}

/// The last word on a variable wins, whether it sets or removes it.
fn set_variable(config: &mut Config, text: &str) -> Result<(), ValueError> {
    let (name, value) = value::variable(text)?;
    config.unenv.retain(|other| *other != name);
    config.env.retain(|(other, _)| *other != name);
    config.env.push((name, value));
    Ok(())
}

fn unset_variable(config: &mut Config, name: &str) -> Result<(), ValueError> {
    if name.contains('=') {
        return Err(ValueError::refused("contains `=`; give the name of the variable only"));
    }
    config.env.retain(|(other, _)| other != name);
    config.unenv.retain(|other| other != name);
    config.unenv.push(name.to_owned());
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn no_two_options_share_a_name_or_a_letter() {
        let mut names = HashSet::new();
        let mut letters = HashSet::new();
        for row in OPTIONS {
            for name in row.names() {
                assert!(names.insert(name), "{name} twice");
            }
            if let Some(letter) = row.short {
                assert!(letters.insert(letter), "-{letter} twice");
            }
        }
    }

    #[test]
    fn every_name_finds_its_row() {
        for row in OPTIONS {
            for name in row.names() {
                assert_eq!(find(name).map(|found| found.name), Some(row.name));
            }
        }
        assert!(find("no-such-option").is_none());
    }

    #[test]
    fn every_row_is_written_out_and_rows_of_a_topic_stand_together() {
        let mut topics = Vec::new();
        for row in OPTIONS {
            assert!(row.help.ends_with('.') && row.help.len() > 10, "{}: {}", row.name, row.help);
            assert!(!row.since.is_empty(), "{}", row.name);
            if topics.last() != Some(&row.group) {
                assert!(!topics.contains(&row.group), "{} stands apart from its topic", row.name);
                topics.push(row.group);
            }
        }
    }
}
