//! The rules of the configuration as a whole, in tables: files in, entries out.

use std::fs;

use proptest::prelude::*;
use tempfile::TempDir;

use super::super::Config;
use super::super::magic::Fixed;
use super::*;

/// A directory with files, and an environment.
struct World {
    directory: TempDir,
    context: Context,
}

fn world(files: &[(&str, &str)]) -> World {
    let directory = tempfile::tempdir().unwrap();
    let cwd = directory.path().canonicalize().unwrap();
    for (name, text) in files {
        fs::write(cwd.join(name), text).unwrap();
    }
    let env = [("HOME", "/home"), ("EMPTY", "")].map(|(name, value)| (name.into(), value.into()));
    let fixed = Fixed { hostname: "web1".to_owned(), ..Fixed::default() };
    let context = Context { env: env.into(), cwd, fixed, is_reload: false };
    World { directory, context }
}

impl World {
    fn env(mut self, pairs: &[(&str, &str)]) -> Self {
        self.context.env.extend(pairs.iter().map(|(name, value)| (name.into(), value.into())));
        self
    }

    fn gather(&self, options: &[&str], files: &[&str]) -> Gathered {
        let options = options.iter().map(|text| {
            let (name, value) =
                text.split_once('=').map_or((*text, None), |(name, value)| (name, Some(value)));
            Entry {
                name: name.to_owned(),
                value: value.map(str::to_owned),
                origin: "command line".to_owned(),
            }
        });
        gather(&self.context, options.collect(), files.iter().map(|file| (*file).to_owned()).collect())
    }

    /// Entries as `name=value`, in order; there must be no problem.
    fn entries(&self, options: &[&str], files: &[&str]) -> Vec<String> {
        let gathered = self.gather(options, files);
        assert_eq!(gathered.problems, [], "{options:?} {files:?}");
        gathered
            .entries
            .iter()
            .map(|it| format!("{}={}", it.name, it.value.as_deref().unwrap_or("-")))
            .collect()
    }

    fn problems(&self, options: &[&str]) -> Vec<String> {
        self.gather(options, &[]).problems.iter().map(ToString::to_string).collect()
    }
}

/// What an ini file with these lines comes to.
fn ini(lines: &str) -> Vec<String> {
    world(&[("a.ini", &format!("[uwsgi]\n{lines}"))]).entries(&["ini=a.ini"], &[])
}

/// The only problem of an ini file with these lines.
fn problem(lines: &str) -> String {
    let problems = world(&[("a.ini", &format!("[uwsgi]\n{lines}"))]).problems(&["ini=a.ini"]);
    assert_eq!(problems.len(), 1, "{lines}: {problems:?}");
    problems[0].clone()
}

#[test]
fn the_last_word_is_that_of_the_documented_order() {
    let base = world(&[
        ("f.ini", "[uwsgi]\nprocesses = 2\n"),
        ("i.ini", "[uwsgi]\ninherit = g.ini\nprocesses = 3\n"),
    ]);
    fs::write(base.directory.path().join("g.ini"), "[uwsgi]\nprocesses = 9\n").unwrap();
    type Case<'a> = (&'a [(&'a str, &'a str)], &'a [&'a str], &'a [&'a str], u32);
    let cases: [Case<'_>; 8] = [
        (&[], &["ini=f.ini", "processes=5"], &[], 5),
        (&[], &["processes=5", "ini=f.ini"], &[], 2),
        (&[], &["processes=5"], &["f.ini"], 2),
        (&[("UWSGI_PROCESSES", "4")], &["ini=f.ini"], &[], 2),
        (&[("UWSGI_PROCESSES", "4")], &[], &[], 4),
        (&[("APPSERVER_PROCESSES", "6"), ("UWSGI_PROCESSES", "4")], &[], &[], 6),
        (&[("UWSGI_INI", "f.ini")], &[], &[], 2),
        (&[], &["ini=i.ini", "processes=5"], &[], 9),
    ];
    for (env, options, files, expected) in cases {
        let here = World { directory: tempfile::tempdir().unwrap(), context: base.context.clone() }.env(env);
        let gathered = here.gather(options, files);
        assert_eq!(gathered.problems, []);
        let config = Config::build(gathered.entries).expect("valid");
        assert_eq!(config.processes, expected, "{env:?} {options:?} {files:?}");
    }
}

#[test]
fn every_format_says_the_same() {
    let files = [
        ("a.ini", "[uwsgi]\nmaster = true\nenv = A=1\nenv = B=2\n"),
        ("a.yaml", "uwsgi:\n  master: true\n  env: [A=1, B=2]\n"),
        ("a.yml", "appserver:\n  master: true\n  env:\n    - A=1\n    - B=2\n"),
        ("a.json", r#"{"uwsgi": {"master": "true", "env": ["A=1", "B=2"]}}"#),
        ("a.js", r#"{"appserver": {"master": "true", "env": ["A=1", "B=2"]}}"#),
        ("a.toml", "[uwsgi]\nmaster = true\nenv = [\"A=1\", \"B=2\"]\n"),
        ("a.xml", "<uwsgi><master>true</master><env>A=1</env><env>B=2</env></uwsgi>"),
    ];
    let world = world(&files);
    for (name, _) in files {
        let expected = ["master=true", "env=A=1", "env=B=2"];
        assert_eq!(world.entries(&[], &[name]), expected, "{name}");
        assert_eq!(world.entries(&[&format!("config={name}")], &[]), expected, "{name}");
    }
}

#[test]
fn values_are_expanded_in_three_passes() {
    let cases = [
        ("a = 1\nchdir = $(HOME)/%(a)", "chdir=/home/1"),
        ("chdir = $(NOPE)%(nope)", "chdir=$(NOPE)%(nope)"),
        ("chdir = $(NOPE:-/x)$(EMPTY:-y)$(EMPTY-z)", "chdir=/xy"),
        ("a = x$(HOME)\nchdir = %(a)", "chdir=x/home"),
        ("chdir = /%(late)\nlate = 2", "chdir=/2"),
        ("a = 1\na = 2\nchdir = %(a)", "chdir=1"),
        ("a = 2\nprocesses = %(a * 3 + 1)", "processes=7"),
        ("set-ph = base=$(HOME)/x\nchdir = %(base)", "chdir=/home/x"),
        ("processes = 2\nprocname = w%(workers)", "procname=w2"),
        ("procname = @(text)", "procname=one\ntwo"),
        ("procname = @(exec://echo hi)", "procname=hi"),
        ("print = %n-$(HOME)", "print=a-/home"),
        ("iprint = %n-$(HOME)", "iprint=a-$(HOME)"),
    ];
    for (lines, expected) in cases {
        let world = world(&[("a.ini", &format!("[uwsgi]\n{lines}")), ("text", "one\ntwo\n")]);
        let entries = world.entries(&["ini=a.ini"], &[]);
        assert!(entries.contains(&expected.to_owned()), "{lines}: {entries:?}");
    }
}

#[test]
fn a_command_line_knows_variables_but_no_magic() {
    let world = world(&[]);
    let entries = world.entries(&["set-placeholder=a=1", "chdir=$(HOME)/%(a)/%n"], &[]);
    assert_eq!(entries[1], "chdir=/home/1/%n");
}

#[test]
fn blocks_apply_to_each_of_their_lines() {
    let cases: [(&str, &[&str]); 16] = [
        ("for = a b\nenv = %(_)=1\nunenv = x%(_)\nendfor =", &["env=a=1", "env=b=1", "unenv=xa", "unenv=xb"]),
        ("for-times = 2\nprint = %(_)\nend", &["print=1", "print=2"]),
        ("for-glob = *.ini\nprint = %(_)\nend", &["print=a.ini"]),
        ("for-glob = *.nope\nprint = %(_)\nend", &["print=*.nope"]),
        ("for-readline = lines\nprint = %(_)\nend-for", &["print=x", "print=y"]),
        ("if-env = HOME\nprint = %(_)\nendif", &["print=/home"]),
        ("if-env = HOME=/x\nprint = %(_)\nendif", &[]),
        ("if-not-env = NOPE\nprint = %(_)\nendif", &["print=%(_)"]),
        ("if-env = NOPE\nprint = 1\nelse\nprint = 2\nendif\nprint = 3", &["print=2", "print=3"]),
        ("threads = 2\nif-opt = threads=2\nprint = %(_)\nend", &["threads=2", "print=2"]),
        ("if-not-opt = threads\nprint = 1\nend\nthreads = 2", &["print=1", "threads=2"]),
        ("if-exists = lines\nprint = %(_)\nendif", &["print=lines"]),
        ("if-dir = lines\nprint = %(_)\nend-if", &[]),
        ("if-reload = 1\nprint = 1\nelse\nprint = 2\nendif", &["print=2"]),
        ("if-hostname = web1\nprint = 1\nendif\nif-hostname-match = ^db\nprint = 2\nendif", &["print=1"]),
        ("for = a b\nset = env=%(_)=1\nendfor", &["env=a=1", "env=b=1"]),
    ];
    for (lines, expected) in cases {
        let world = world(&[("a.ini", &format!("[uwsgi]\n{lines}")), ("lines", "x\ny\n")]);
        assert_eq!(world.entries(&["ini=a.ini"], &[]), expected, "{lines}");
    }
}

#[test]
fn an_open_block_ends_with_its_file_and_says_so() {
    let world =
        world(&[("a.ini", "[uwsgi]\nif-env = NOPE\nthreads = 2\n"), ("b.ini", "[uwsgi]\nmaster = 1\n")]);
    let entries = world.gather(&["ini=a.ini", "ini=b.ini"], &[]).entries;
    assert!(entries[0].is_warning() && entries[0].origin == "a.ini:2", "{entries:?}");
    assert_eq!(entries[1].name, "master");
}

#[test]
fn files_read_files() {
    let world = world(&[
        (
            "a.ini",
            "[uwsgi]\nset-ph = which=b\nini = :extra\ninclude = %(which).ini\nprint = %n %N\n[extra]\nprint = %x\n",
        ),
        ("b.ini", "[uwsgi]\nprint = %n %N\nif-env = HOME\ninclude = c.yaml\nendif\n"),
        ("c.yaml", "uwsgi:\n  print: deep\n"),
    ]);
    let expected = ["set-placeholder=which=b", "print=extra", "print=b a", "print=deep", "print=a a"];
    assert_eq!(world.entries(&["ini=a.ini"], &[]), expected);
    assert_eq!(world.entries(&["ini=a.ini:extra"], &[]), ["print=extra"]);
    assert_eq!(world.entries(&[], &["a.ini:extra"]), ["print=extra"]);
}

#[test]
fn what_is_inherited_comes_last_and_is_expanded() {
    let world = world(&[
        ("a.ini", "[uwsgi]\nset-ph = x=1\ninherit = b.ini\nprint = a\n"),
        ("b.ini", "[uwsgi]\ninherit = c.ini\nprint = b%(x)$(HOME)\n"),
        ("c.ini", "[uwsgi]\nprint = c%(x)\n"),
    ]);
    let entries = world.entries(&["ini=a.ini", "print=z"], &[]);
    assert_eq!(entries, ["set-placeholder=x=1", "print=a", "print=z", "print=b1/home", "print=c1"]);
}

#[test]
fn names_that_nobody_uses_stay_and_others_become_placeholders() {
    let entries = ini("base = /srv\nproceses = 2\nchdir = %(base)/x\nflag = 1\nif-opt = flag\nendif");
    assert_eq!(entries, ["set-placeholder=base=/srv", "proceses=2", "chdir=/srv/x", "flag=1"]);
    let strict = ini("strict\nbase = /srv\nchdir = %(base)/x");
    assert_eq!(strict[1], "base=/srv");
}

#[test]
fn options_can_be_declared() {
    let entries = ini("declare-option = app=chdir=/srv/$1;env=N=$2;env=ALL=$1$2\napp = one $(HOME)");
    assert_eq!(entries, ["chdir=/srv/one", "env=N=/home", "env=ALL=one/home"]);
}

#[test]
fn lists_of_forbidden_and_allowed_options_count_until_they_end() {
    let text = "blacklist = master threads\nthreads = 2\nend-blacklist\nthreads = 3";
    assert_eq!(problem(text), r#"a.ini:3: threads = "2" is forbidden here by a blacklist"#);
    let text = "whitelist = master end-whitelist\nthreads = 2\nend-whitelist\nthreads = 3";
    assert_eq!(problem(text), r#"a.ini:3: threads = "2" is forbidden here by a whitelist"#);
}

#[test]
fn the_environment_gives_options_by_two_prefixes() {
    let world = world(&[]).env(&[
        ("APPSERVER_THREADS", "3"),
        ("UWSGI_HTTP_SOCKET", ":1"),
        ("UWSGI_RELOADS", "7"),
        ("APPSERVER_LOG", "debug"),
        ("APPSERVER_PORT", "tcp://10.0.0.1:80"),
        ("APPSERVER_SERVICE_HOST", "10.0.0.1"),
        ("UWSGI_NOTANOPTION", "1"),
    ]);
    let gathered = world.gather(&["master"], &[]);
    assert_eq!(gathered.entries[0].origin, "environment UWSGI_HTTP_SOCKET");
    assert_eq!(world.entries(&["master"], &[]), ["http-socket=:1", "notanoption=1", "threads=3", "master=-"]);
}

#[test]
fn every_problem_names_file_and_line() {
    let cases = [
        (
            "\nini = none.ini",
            r#"a.ini:3: ini = "none.ini" cannot be read: No such file or directory (os error 2)"#,
        ),
        (
            "include = a.conf",
            r#"a.ini:2: include = "a.conf" has no known extension; use .ini, .yaml, .yml, .json, .js, .toml or .xml"#,
        ),
        (
            "ini = http://x/a.ini",
            r#"a.ini:2: ini = "http://x/a.ini" cannot be read: http:// is not supported; use a file, -, fd://NUMBER or exec://COMMAND"#,
        ),
        ("set = x", r#"a.ini:2: set = "x" has no `=`; write NAME=VALUE"#),
        (
            "set-ph = threads=1",
            r#"a.ini:2: set-ph = "threads=1" cannot be a placeholder: threads is an option; use set"#,
        ),
        (
            "if-env = HOME\nif-env = HOME\nend",
            r#"a.ini:3: if-env = "HOME" stands inside another block; blocks cannot be nested, use an included file"#,
        ),
        ("else", r#"a.ini:2: else = "" has no `if-…` before it"#),
        ("for = a\nelse\nend", r#"a.ini:3: else = "" stands in a loop; it belongs to an `if-…`"#),
        (
            "for-times = x\nprint = 1\nprint = 2\nend",
            r#"a.ini:2: for-times = "x" is not a number of times; use 0 to 100000"#,
        ),
        (
            "chdir = @(none)",
            r#"a.ini:2: chdir = "@(none)" names none, which cannot be read: No such file or directory (os error 2)"#,
        ),
        ("c = x%(c)", r#"a.ini:2: c = "x%(c)" does not stop expanding; does it refer to itself?"#),
        ("threads = 1\nyaml = bad.yaml", "bad.yaml:2: yaml file is not well-formed: "),
        ("ini = nul.ini", "nul.ini:2: ini file contains a NUL byte; is this a text file?"),
        ("toml = empty", "empty:1: toml file has no \"uwsgi\", where options are looked for"),
    ];
    for (lines, expected) in cases {
        let world = world(&[
            ("a.ini", &format!("[uwsgi]\n{lines}")),
            ("bad.yaml", "uwsgi:\n\tx: 1"),
            ("nul.ini", "[uwsgi]\n\0"),
            ("empty", ""),
        ]);
        let problems = world.problems(&["ini=a.ini"]);
        assert!(
            problems.len() == 1 && problems[0].starts_with(expected),
            "{lines}:\n{problems:?}\n{expected}"
        );
    }
}

#[test]
fn circles_end_in_an_error() {
    let files = [
        ("a.ini", "[uwsgi]\ninclude = b.ini\n"),
        ("b.ini", "[uwsgi]\ninclude = a.ini\n"),
        ("twice.ini", "[uwsgi]\ninclude = twice.ini\ninclude = twice.ini\n"),
        ("inherit.ini", "[uwsgi]\ninherit = inherit.ini\n"),
        ("set.ini", &format!("[uwsgi]\n{}threads=2\n", "set=".repeat(100_000))),
        ("declare.ini", "[uwsgi]\ndeclare-option = x=x=$1$1;x=$1\nx = 1\n"),
        ("loop.ini", "[uwsgi]\nfor-times = 100000\nprint = %(_)\nthreads = %(_)\n"),
        ("grow.ini", "[uwsgi]\na = x%(b)%(b)\nb = x%(a)%(a)\nc = 1%(c)%(a)%(b)\n"),
        ("laughs.ini", "[uwsgi]\nfor-times = 900\nx%(_) = y\nq = 1%(q)\nend\n"),
    ];
    let world = world(&files);
    for (name, _) in files {
        let started = std::time::Instant::now();
        let problems = world.problems(&[&format!("ini={name}")]);
        assert!(!problems.is_empty() && problems.len() <= MAX_PROBLEMS, "{name}: {problems:?}");
        // Generous: the point is that it ends.
        assert!(started.elapsed().as_secs() < 60, "{name}");
    }
}

#[test]
fn a_missing_section_is_a_warning_as_in_uwsgi() {
    let world = world(&[("a.ini", "[other]\nthreads = 2\n"), ("a.json", "{}")]);
    let gathered = world.gather(&["ini=a.ini:x"], &[]);
    assert!(gathered.entries[0].is_warning(), "{gathered:?}");
    assert!(gathered.entries[0].value.as_ref().unwrap().contains("Can't find section \"x\""), "{gathered:?}");
    assert!(world.problems(&["json=a.json"])[0].contains("has no \"uwsgi\""));
}

#[test]
fn positional_arguments_that_are_no_files_are_told_apart() {
    let world = world(&[]);
    for (word, part) in [
        ("app.py", "Python plugin"),
        ("pkg.mod:app", "Python plugin"),
        ("site.wsgi", "Python plugin"),
        ("5", "--name=value"),
        ("a.conf", ".toml or .xml"),
        ("none.ini", "No such file"),
    ] {
        let problems = world.gather(&[], &[word]).problems;
        assert!(problems.len() == 1 && problems[0].to_string().contains(part), "{word}: {problems:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn any_text_is_gathered_or_refused(text in "([\\[\\]%$(=;#a-f \n]|uwsgi|for = |if-opt = |end\n|set = |declare-option = |%\\(a\\)|[\\x00-\\x7f]){0,60}") {
        let world = world(&[("a.ini", &format!("[uwsgi]\n{text}")), ("a.yaml", &text), ("a.toml", &text)]);
        for file in ["a.ini", "a.yaml", "a.toml"] {
            let gathered = world.gather(&[], &[file]);
            let _ = Config::build(gathered.entries);
        }
    }
}
