//! Entries in, a configuration or every problem out.

use std::path::PathBuf;

use super::*;
use crate::config::StaticMap;
use crate::config::options::OPTIONS;
use crate::config::reload::{MaxSurge, ReloadMode};
use crate::config::schema::{Group, Kind, Shape, Status};

/// `name`, `name=value`
fn entry(text: &str) -> Entry {
    let (name, value) = match text.split_once('=') {
        Some((name, value)) => (name, Some(value.to_owned())),
        None => (text, None),
    };
    Entry { name: name.to_owned(), value, origin: DEFAULT_ORIGIN.to_owned() }
}

fn try_build(entries: &[&str]) -> Result<Config, ConfigErrors> {
    Config::build(entries.iter().copied().map(entry).collect())
}

/// Without the entries, so that ways to say the same compare equal.
fn build(entries: &[&str]) -> Config {
    let config = try_build(entries).unwrap_or_else(|errors| panic!("{entries:?}: {errors}"));
    Config { entries: Vec::new(), ..config }
}

fn with(change: impl FnOnce(&mut Config)) -> Config {
    let mut config = Config::defaults();
    change(&mut config);
    config
}

fn warnings(entries: &[&str]) -> Vec<String> {
    build(entries).warnings.iter().map(ToString::to_string).collect()
}

fn addresses(config: &Config) -> Vec<&str> {
    config.listeners.iter().map(|spec| spec.address.as_str()).collect()
}

/// A value that is accepted and, where possible, differs from the default.
fn sample(row: &OptionSpec) -> &'static str {
    match row.kind {
        Kind::Flag(_) if row.default == "true" => "false",
        Kind::Flag(_) | Kind::FlagOff(_) => "true",
        Kind::Int { max, .. } if max < 7 => "1",
        Kind::Int { .. } | Kind::IntOrAuto { .. } => "7",
        Kind::Size { .. } => "7k",
        Kind::Seconds { .. } if row.name == "max-worker-lifetime" => "70",
        Kind::Seconds { .. } => "7",
        Kind::Mode(_) | Kind::Umask(_) => "0640",
        Kind::Parsed(_) if row.name == "unenv" => "A",
        Kind::Parsed(_) if row.name == "protocol" => "http",
        Kind::Parsed(_) if row.name == "wsgi-env-behavior" => "cheat",
        Kind::Parsed(_) if row.name == "module" || row.name == "callable" => "sample",
        Kind::Parsed(_) if row.name == "cap" || row.name == "cap-ambient" => "setgid,setuid",
        Kind::Parsed(_) if row.name == "cache" => "7",
        Kind::Parsed(_) if row.name == "cache2" => "name=a,items=7",
        Kind::Parsed(_) if row.name == "timer" || row.name == "rbtimer" => "1 7",
        Kind::Parsed(_) if row.name == "reload-mode" => "drain",
        Kind::Parsed(_) if row.name == "max-surge" => "2",
        Kind::Parsed(_) if row.name == "harakiri-graceful-signal" => "10",
        Kind::Parsed(_) if row.name == "prio" => "7",
        Kind::Parsed(_) if row.name == "cheaper-algo" => "backlog",
        Kind::Parsed(_) if row.name == "max-fd" => "777",
        Kind::Parsed(_) if row.group == Group::Recycling => "7",
        Kind::Parsed(_) if row.name.ends_with("-signal") => "/a 7",
        Kind::Parsed(_) if row.name.ends_with("reload-on-fd") => "7",
        Kind::Parsed(_) if row.name == "zerg-pool" => "/a:/b",
        Kind::Parsed(_) if row.name == "touch-exec" => "/a b",
        Kind::Parsed(_) if row.name == "hook-touch" => "/a print:b",
        Kind::Parsed(_) if row.group == Group::Hooks => "print:b",
        Kind::Parsed(_) if row.name == "mount" => "/a=b:c",
        Kind::Parsed(_) => "/a=b",
        Kind::Str(_) | Kind::Name(_) | Kind::Path(_) | Kind::LogFile(_) | Kind::Address(_) => "sample",
        Kind::Unused(shape) => match shape {
            Shape::Flag => "true",
            Shape::Int | Shape::Megabytes | Shape::Size | Shape::Seconds => "7",
            Shape::Mode => "640",
            Shape::Text | Shape::Name | Shape::Pair => "a=b",
            Shape::Path | Shape::Address => "sample",
        },
        Kind::Command(_) | Kind::Directive(_) => "",
    }
}

/// What stands before a use of the row: there are fewer workers with cheaper than without.
fn context(row: &OptionSpec) -> &'static str {
    if row.name == "cheaper" { "processes=9" } else { "processes=1" }
}

/// Rows whose use can be seen in the configuration.
fn working() -> impl Iterator<Item = &'static OptionSpec> {
    OPTIONS.iter().filter(|row| !matches!(row.kind, Kind::Command(_) | Kind::Directive(_) | Kind::Unused(_)))
}

#[test]
fn no_entries_give_the_defaults() {
    assert_eq!(build(&[]), Config::defaults());
    assert_eq!(addresses(&build(&[])), ["127.0.0.1:8080"]);
}

#[test]
fn every_row_changes_the_configuration() {
    for row in working().filter(|row| row.status == Status::Works) {
        let entry = format!("{}={}", row.name, sample(row));
        assert_ne!(build(&[context(row), &entry]), build(&[context(row)]), "{entry} changes nothing");
    }
}

#[test]
fn the_defaults_in_the_table_are_the_defaults() {
    for row in working().filter(|row| !row.default.is_empty()) {
        let entry = format!("{}={}", row.name, row.default);
        assert_eq!(build(&[&entry]), Config::defaults(), "{entry}");
    }
    let flags = OPTIONS.iter().filter(|row| matches!(row.kind, Kind::Flag(_) | Kind::FlagOff(_)));
    // To process 1 it is not the same whether it is off or not given.
    for row in flags.filter(|row| row.name != "die-on-term") {
        let off = format!("{}=off", row.name);
        let is_off_by_default = build(&[&off]) == Config::defaults();
        assert_eq!(is_off_by_default, row.default != "true", "{off}");
    }
}

#[test]
fn each_use_of_a_repeatable_option_adds_and_of_another_replaces() {
    for row in working().filter(|row| !matches!(row.kind, Kind::Flag(_) | Kind::FlagOff(_))) {
        if row.status != Status::Works {
            continue;
        }
        let one = format!("{}={}", row.name, sample(row));
        // These have names: the second use needs a second one.
        let other = match row.name {
            "env" | "unenv" => one.replace('A', "B").replace("/a", "/b"),
            "cache2" => one.replace("name=a", "name=b"),
            _ => one.clone(),
        };
        let adds = build(&[context(row), &other, &one]) != build(&[context(row), &one]);
        assert_eq!(adds, row.repeatable, "{one}");
    }
}

#[test]
fn the_last_scalar_wins() {
    assert_eq!(build(&["processes=2", "workers=5"]).processes, 5);
    assert_eq!(build(&["http-timeout=10", "socket-timeout=4"]).io_timeout, Duration::from_secs(4));
    assert!(!build(&["vacuum", "vacuum=no"]).vacuum);
    assert_eq!(build(&["procname-prefix=a", "procname-prefix-spaced=b"]).titles.prefix, "b ");
}

#[test]
fn listeners_keep_their_order_and_replace_the_default() {
    let config = build(&["http=:1", "http-socket=/run/a.sock", "http=:2"]);
    assert_eq!(addresses(&config), [":1", "/run/a.sock", ":2"]);
    assert_eq!(build(&["static-index=a", "static-index=b"]).static_index, ["a", "b"]);
}

#[test]
fn values_arrive_where_they_belong() {
    let secs = Duration::from_secs;
    let map =
        |prefix: &str, target: &str| StaticMap { prefix: prefix.to_owned(), target: PathBuf::from(target) };
    let cases = [
        ("disable-logging", with(|c| c.request_log.enabled = false)),
        ("disable-logging=off", Config::defaults()),
        ("tcp-nodelay=false", with(|c| c.tcp_nodelay = false)),
        ("no-defer-accept", with(|c| c.defer_accept = false)),
        ("chmod-socket", with(|c| c.chmod_socket = Some(0o666))),
        ("chmod-socket=1", with(|c| c.chmod_socket = Some(0o666))),
        ("chmod=0660", with(|c| c.chmod_socket = Some(0o660))),
        ("http-keepalive", Config::defaults()),
        ("http-keepalive=1", Config::defaults()),
        ("http-keepalive=", Config::defaults()),
        ("http-keepalive=true", Config::defaults()),
        ("http-keepalive=false", with(|c| c.keepalive = Duration::ZERO)),
        ("http-keepalive=0", with(|c| c.keepalive = Duration::ZERO)),
        ("http-keepalive=2m", with(|c| c.keepalive = secs(120))),
        ("reload-mode=drain", with(|c| c.reload_mode = ReloadMode::Drain)),
        ("max-surge=25%", with(|c| c.max_surge = Some(MaxSurge::Percent(25)))),
        ("max-draining-generations=3", with(|c| c.max_draining_generations = 3)),
        ("worker-reload-mercy=500ms", with(|c| c.worker_reload_mercy = Duration::from_millis(500))),
        ("buffer-size=64k", with(|c| c.buffer_size = 65536)),
        ("log-slow=0", Config::defaults()),
        ("log-slow=250", with(|c| c.request_log.slow = Some(250))),
        ("static-dir=/srv", with(|c| c.static_maps = vec![map("/", "/srv")])),
        ("check-static=/srv", with(|c| c.static_maps = vec![map("/", "/srv")])),
        ("static-map=/a=/b", with(|c| c.static_maps = vec![map("/a", "/b")])),
        ("lazy", with(|c| c.lazy_apps = true)),
        ("umask=022", with(|c| c.umask = Some(0o22))),
    ];
    for (text, expected) in cases {
        assert_eq!(build(&[text]), expected, "{text}");
    }
}

#[test]
fn auto_counts_the_processors() {
    let expected = crate::sys::cgroup::cpus() as u32;
    assert_eq!(build(&["processes=auto"]).processes, expected);
}

#[test]
fn the_last_word_on_a_variable_counts() {
    let config = build(&["env=A=1", "env=B=2", "unenv=B", "unenv=C", "env=C=3", "env=A=4"]);
    let env = [("C", "3"), ("A", "4")].map(|(name, value)| (name.to_owned(), value.to_owned()));
    assert_eq!((config.env.as_slice(), config.unenv.as_slice()), (&env[..], &["B".to_owned()][..]));
}

#[test]
fn every_problem_is_reported_with_its_remedy() {
    let cases = [
        ("processes=0", r#"processes = "0" is too small; the least is 1"#),
        ("processes=1025", r#"processes = "1025" is too large; the most is 1024"#),
        ("workers=many", r#"processes = "many" is not a whole number"#),
        ("threads=0", r#"threads = "0" is too small; the least is 1"#),
        ("vacuum=perhaps", r#"vacuum = "perhaps" is neither on nor off; use true or false"#),
        ("pidfile", "pidfile needs a value: PATH"),
        ("uid=", r#"uid = "" needs a value: NAME|NUMBER"#),
        ("buffer-size=1023", r#"buffer-size = "1023" is too small; the least is 1024"#),
        ("buffer-size=2m", r#"buffer-size = "2m" is too large; the most is 1048576"#),
        ("http-timeout=0", r#"http-timeout = "0" is too small; the least is 1 ms"#),
        (
            "chmod-socket=66",
            r#"chmod-socket = "66" is not a file mode; use three octal digits, for example 660"#,
        ),
        ("chdir=/a\0b", r#"chdir = "/a\0b" contains a NUL byte; remove it"#),
        ("reload=/run/a.pid", r#"reload = "/run/a.pid" is a command; it works on the command line only"#),
        ("unenv=A=b", r#"unenv = "A=b" contains `=`; give the name of the variable only"#),
        (
            "http=8080",
            r#"http = "8080" is not an address: a port needs a colon: write :8080 (a socket file would be unix:8080)"#,
        ),
        ("protocol=fastcgi", r#"protocol = "fastcgi" is not spoken here; use http"#),
        ("ini=a.ini", r#"ini = "a.ini" is a directive; it must come before options are put together"#),
    ];
    for (text, expected) in cases {
        let errors = try_build(&[text]).expect_err(text);
        assert_eq!(errors.to_string(), format!("default: {expected}"));
    }
    let all: Vec<&str> = cases.iter().map(|(text, _)| *text).collect();
    let together = try_build(&all).expect_err("all of them");
    assert_eq!(together.0.len(), cases.len());
    assert_eq!(together.to_string().lines().count(), cases.len());
}

#[test]
fn an_unknown_name_is_a_warning_and_with_strict_an_error() {
    let expected = r#"default: proceses = "2" is not an option; did you mean processes?"#;
    assert_eq!(warnings(&["proceses=2"]), [expected]);
    let expected = r#"default: x = "2" is not an option; check the spelling against appserver --help"#;
    assert_eq!(warnings(&["x=2"]), [expected]);
    let errors = try_build(&["strict", "proceses=2", "set-placeholder=x=2"]).expect_err("strict");
    assert_eq!(errors.0.len(), 1);
    assert!(errors.to_string().contains("did you mean processes?"), "{errors}");
}

#[test]
fn an_entry_without_a_name_is_a_warning_of_the_reader() {
    assert_eq!(warnings(&["=watch out"]), ["default: watch out"]);
}

#[test]
fn an_eleventh_fifo_is_one_too_many() {
    let paths: Vec<String> = (0..11).map(|number| format!("master-fifo=/run/{number}")).collect();
    let all: Vec<&str> = paths.iter().map(String::as_str).collect();
    assert_eq!(build(&all[..10]).master_fifos.len(), 10);
    let errors = try_build(&all).expect_err("eleven");
    assert_eq!(errors.to_string(), r#"default: master-fifo = "/run/10" is one too many; there can be 10"#);
}

#[test]
fn there_is_an_end_to_variables() {
    let lines: Vec<String> = (0..MAX_VARIABLES + 2).map(|number| format!("env=A{number}=1")).collect();
    let all: Vec<&str> = lines.iter().map(String::as_str).collect();
    assert_eq!(build(&all[..MAX_VARIABLES]).env.len(), MAX_VARIABLES);
    let errors = try_build(&all).expect_err("too many");
    assert_eq!(
        errors.to_string(),
        r#"default: env = "A10000=1" is one too many; there can be 10000 variables"#
    );
    assert_eq!(build(&vec![all[0]; MAX_VARIABLES + 2]).env.len(), 1);
}

#[test]
fn entries_are_kept_under_canonical_names() {
    let config = try_build(&["workers=2", "chmod"]).expect("valid");
    assert_eq!(config.entries, [entry("processes=2"), entry("chmod-socket")]);
}

#[test]
fn draining_before_code_that_nobody_has_loaded_is_warned_about() {
    let warnings = |options: &[&str]| build(options).warnings.len();
    assert_eq!(warnings(&["reload-mode=drain", "lazy-apps"]), 1);
    assert_eq!(warnings(&["reload-mode=surge", "lazy-apps"]), 0);
    assert_eq!(warnings(&["refork-after=1000", "lazy-apps"]), 1);
    assert_eq!(warnings(&["refork-after=0", "lazy-apps"]), 0);
    assert_eq!(warnings(&["reload-mode=drain"]), 0);
}
