//! Entries to a [`Config`]: defaults, one entry after the other, then what they imply together.

use std::error::Error;
use std::fmt;
use std::time::Duration;

use super::options::{self, MAX_FIFOS};
use super::schema::OptionSpec;
use super::{
    Config, Credentials, Entry, ListenSpec, ProcessTitles, PythonOptions, RequestLog, suggest, unserved,
};

/// The origin of what nobody configured.
const DEFAULT_ORIGIN: &str = "default";

/// One thing that is wrong with the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    /// The option, under its canonical name if it has one; empty for what is about none.
    pub option: String,
    /// The value as given.
    pub value: Option<String>,
    /// Where it was given.
    pub origin: String,
    /// What is wrong and what to do; reads on behind option and value.
    pub problem: String,
}

/// A look at all entries.
#[derive(Debug, Clone, PartialEq)]
pub struct Examined {
    /// What they come to, without those that are wrong.
    pub config: Config,
    /// What is wrong.
    pub errors: Vec<ConfigError>,
}

/// Everything that is wrong with the configuration, in the order it was given; one line each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigErrors(pub Vec<ConfigError>);

impl ConfigError {
    pub(super) fn new(entry: &Entry, problem: impl Into<String>) -> Self {
        ConfigError {
            option: entry.name.clone(),
            value: entry.value.clone(),
            origin: entry.origin.clone(),
            problem: problem.into(),
        }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ConfigError { option, value, origin, problem } = self;
        match value {
            _ if option.is_empty() => write!(f, "{origin}: {problem}"),
            Some(value) => write!(f, "{origin}: {option} = {value:?} {problem}"),
            None => write!(f, "{origin}: {option} {problem}"),
        }
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, error) in self.0.iter().enumerate() {
            let separator = if index == 0 { "" } else { "\n" };
            write!(f, "{separator}{error}")?;
        }
        Ok(())
    }
}

impl Error for ConfigError {}
impl Error for ConfigErrors {}

impl Config {
    /// What is in force when nothing is configured.
    pub fn defaults() -> Self {
        Config {
            master: false,
            processes: 1,
            threads: 1,
            lazy_apps: false,
            need_app: false,
            no_orphans: false,
            die_on_term: false,
            vacuum: false,
            reload_mercy: Duration::from_secs(3),
            worker_reload_mercy: Duration::from_secs(60),
            boot_timeout: Duration::from_secs(60),
            binary_path: None,
            release: None,
            titles: ProcessTitles::default(),
            listeners: vec![ListenSpec {
                address: "127.0.0.1:8080".to_owned(),
                origin: DEFAULT_ORIGIN.to_owned(),
            }],
            sockets: Vec::new(),
            sockets_speak_http: false,
            backlog: 1024,
            chmod_socket: None,
            chown_socket: None,
            umask: None,
            reuse_port: false,
            tcp_nodelay: true,
            keepalive: Duration::from_secs(75),
            headers_timeout: Duration::from_secs(15),
            io_timeout: Duration::from_secs(60),
            limit_post: 0,
            post_buffering: 0,
            buffer_size: 32 << 10,
            python: PythonOptions::default(),
            locks: 0,
            caches: Vec::new(),
            plugin_dirs: Vec::new(),
            static_maps: Vec::new(),
            static_index: vec!["index.html".to_owned()],
            static_safe: Vec::new(),
            static_follow_symlinks: false,
            chdir: None,
            chdir2: None,
            pidfile: None,
            pidfile2: None,
            safe_pidfile: None,
            safe_pidfile2: None,
            master_fifos: Vec::new(),
            touch_reload: Vec::new(),
            env: Vec::new(),
            unenv: Vec::new(),
            daemonize: None,
            daemonize2: None,
            logto: None,
            logto2: None,
            request_log: RequestLog { enabled: true, ..RequestLog::default() },
            credentials: Credentials::default(),
            prints: Vec::new(),
            strict: false,
            warnings: Vec::new(),
            entries: Vec::new(),
        }
    }

    /// Applies the entries in order: the last one of a scalar wins, lists accumulate.
    ///
    /// # Errors
    /// Every entry that is unknown, misspelt or out of range, not only the first; and those without
    /// which there is nothing to serve.
    pub fn build(entries: Vec<Entry>) -> Result<Config, ConfigErrors> {
        let Examined { config, errors } = Config::examine(entries);
        if errors.is_empty() { Ok(config) } else { Err(ConfigErrors(errors)) }
    }

    /// [`Config::build`] for those who want to say more about a configuration that has errors.
    pub fn examine(entries: Vec<Entry>) -> Examined {
        // Lists with a default start empty, so that the first entry replaces it.
        let mut config = Config { listeners: Vec::new(), static_index: Vec::new(), ..Config::defaults() };
        let mut errors = Vec::new();
        let mut uses = Vec::with_capacity(entries.len());

        for mut entry in entries {
            let row = options::find(&entry.name);
            if let Some(row) = row {
                row.name.clone_into(&mut entry.name);
                if let Err(error) = row.apply(&mut config, &entry) {
                    errors.push(ConfigError::new(&entry, error.to_string()));
                    continue;
                }
            }
            uses.push((row, entry));
        }
        config.settle(&uses, &mut errors);
        config.entries = uses.into_iter().map(|(_, entry)| entry).collect();
        Examined { config, errors }
    }

    /// What can only be said once all entries are known.
    fn settle(&mut self, uses: &[(Option<&OptionSpec>, Entry)], errors: &mut Vec<ConfigError>) {
        let defaults = Config::defaults();
        if self.sockets_speak_http {
            self.listeners.extend(self.sockets.iter().cloned());
        }
        unserved::judge(self, uses, errors);
        let entries: Vec<&Entry> = uses.iter().map(|(_, entry)| entry).collect();
        self.warnings.extend(self.python.settle(&entries));
        if self.listeners.is_empty() {
            self.listeners = defaults.listeners;
        }
        if self.static_index.is_empty() {
            self.static_index = defaults.static_index;
        }
        // As in uWSGI, naming such an option is enough, and `master = false` does not undo it.
        self.master |= uses.iter().any(|(row, _)| row.is_some_and(|row| row.implies_master));

        let fifos = uses.iter().filter(|(_, entry)| entry.name == "master-fifo");
        for (_, entry) in fifos.skip(MAX_FIFOS) {
            errors.push(ConfigError::new(entry, format!("is one too many; there can be {MAX_FIFOS}")));
        }
        for (row, entry) in uses {
            if entry.is_warning() {
                self.warnings.push(warning(entry));
            } else if row.is_none() {
                let objection = ConfigError::new(entry, unknown(&entry.name, self.strict));
                if self.strict { errors.push(objection) } else { self.warnings.push(objection) }
            }
        }
    }
}

/// What reading the configuration has to tell.
fn warning(entry: &Entry) -> ConfigError {
    let problem = entry.value.clone().unwrap_or_default();
    ConfigError { option: String::new(), value: None, origin: entry.origin.clone(), problem }
}

/// What to say about a name that is no option and that no value refers to.
fn unknown(name: &str, strict: bool) -> String {
    let hint = match suggest::option(name) {
        Some(meant) => format!("is not an option; did you mean {meant}?"),
        None => "is not an option; check the spelling against appserver --help".to_owned(),
    };
    // Without strict it would not be told if it were one.
    if strict { format!("{hint} With strict, a placeholder is given by set-placeholder") } else { hint }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::super::StaticMap;
    use super::super::options::OPTIONS;
    use super::super::schema::{Kind, Shape, Status};
    use super::*;

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
            Kind::Seconds { .. } => "7",
            Kind::Mode(_) | Kind::Umask(_) => "0640",
            Kind::Parsed(_) if row.name == "unenv" => "A",
            Kind::Parsed(_) if row.name == "protocol" => "http",
            Kind::Parsed(_) if row.name == "wsgi-env-behavior" => "cheat",
            Kind::Parsed(_) if row.name == "module" || row.name == "callable" => "sample",
            Kind::Parsed(_) if row.name == "mount" => "/a=b:c",
            Kind::Parsed(_) => "/a=b",
            Kind::Str(_) | Kind::Name(_) | Kind::Path(_) | Kind::LogFile(_) | Kind::Address(_) => "sample",
            Kind::Unused(shape) => match shape {
                Shape::Flag => "true",
                Shape::Int | Shape::Signed | Shape::Megabytes | Shape::Size | Shape::Seconds => "7",
                Shape::Mode => "640",
                Shape::Text | Shape::Name | Shape::Pair => "a=b",
                Shape::Path | Shape::Address => "sample",
            },
            Kind::Command(_) | Kind::Directive(_) => "",
        }
    }

    /// Rows whose use can be seen in the configuration.
    fn working() -> impl Iterator<Item = &'static OptionSpec> {
        OPTIONS
            .iter()
            .filter(|row| !matches!(row.kind, Kind::Command(_) | Kind::Directive(_) | Kind::Unused(_)))
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
            assert_ne!(build(&[&entry]), Config::defaults(), "{entry} changes nothing");
        }
    }

    #[test]
    fn the_defaults_in_the_table_are_the_defaults() {
        for row in working().filter(|row| !row.default.is_empty()) {
            let entry = format!("{}={}", row.name, row.default);
            assert_eq!(build(&[&entry]), Config::defaults(), "{entry}");
        }
        for row in OPTIONS.iter().filter(|row| matches!(row.kind, Kind::Flag(_) | Kind::FlagOff(_))) {
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
            // Variables are a map in the end: the second use needs a second name.
            let other = if row.name == "env" || row.name == "unenv" {
                one.replace('A', "B").replace("/a", "/b")
            } else {
                one.clone()
            };
            let adds = build(&[&other, &one]) != build(&[&one]);
            assert_eq!(adds, row.repeatable, "{one}");
        }
    }

    #[test]
    fn the_last_scalar_wins() {
        assert_eq!(build(&["processes=2", "workers=5"]).processes, 5);
        assert_eq!(build(&["http-timeout=10", "socket-timeout=4"]).io_timeout, Duration::from_secs(4));
        assert!(!build(&["master", "master=no"]).master);
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
        let map = |prefix: &str, target: &str| StaticMap {
            prefix: prefix.to_owned(),
            target: PathBuf::from(target),
        };
        let cases = [
            ("disable-logging", with(|c| c.request_log.enabled = false)),
            ("disable-logging=off", Config::defaults()),
            ("tcp-nodelay=false", with(|c| c.tcp_nodelay = false)),
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
        let expected = std::thread::available_parallelism().map_or(1, |count| count.get() as u32);
        assert_eq!(build(&["processes=auto"]).processes, expected);
    }

    #[test]
    fn the_last_word_on_a_variable_counts() {
        let config = build(&["env=A=1", "env=B=2", "unenv=B", "unenv=C", "env=C=3", "env=A=4"]);
        let env = [("C", "3"), ("A", "4")].map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!((config.env.as_slice(), config.unenv.as_slice()), (&env[..], &["B".to_owned()][..]));
    }

    #[test]
    fn options_that_need_a_master_turn_it_on() {
        for text in ["touch-reload=/a", "master-fifo=/a"] {
            assert!(build(&[text]).master, "{text}");
            assert!(build(&[text, "master=false"]).master, "{text}");
        }
    }

    #[test]
    fn every_problem_is_reported_with_its_remedy() {
        let cases = [
            ("processes=0", r#"processes = "0" is too small; the least is 1"#),
            ("processes=1025", r#"processes = "1025" is too large; the most is 1024"#),
            ("workers=many", r#"processes = "many" is not a whole number"#),
            ("threads=0", r#"threads = "0" is too small; the least is 1"#),
            ("master=perhaps", r#"master = "perhaps" is neither on nor off; use true or false"#),
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
        assert_eq!(
            errors.to_string(),
            r#"default: master-fifo = "/run/10" is one too many; there can be 10"#
        );
    }

    #[test]
    fn entries_are_kept_under_canonical_names() {
        let config = try_build(&["workers=2", "chmod"]).expect("valid");
        assert_eq!(config.entries, [entry("processes=2"), entry("chmod-socket")]);
    }
}
