//! Command lines, and what becomes of them.

use std::os::unix::ffi::OsStringExt;

use super::parser::{Audience, parser};
use super::*;
use crate::config::options::OPTIONS;
use crate::config::schema::{Kind, Status};

fn arguments_of(words: &[&str]) -> Result<Arguments, CliError> {
    let args = std::iter::once("appserver").chain(words.iter().copied()).map(OsString::from);
    parse_arguments(arguments::words(args)?).map_err(|refusal| refusal.error)
}

fn parse_words(words: &[&str]) -> Result<Invocation, CliError> {
    match arguments_of(words)? {
        Arguments::Done(invocation) => Ok(invocation),
        Arguments::Gather { inspection: Some(inspection), options: entries, .. } => {
            Ok(Invocation::Inspect(inspection, Gathered { entries, ..Gathered::default() }))
        }
        Arguments::Gather { inspection: None, options, files } => {
            assert_eq!(files, [""; 0], "{words:?}");
            Ok(Invocation::Serve(options))
        }
    }
}

/// Entries as `name` or `name=value`.
fn served(words: &[&str]) -> Vec<String> {
    match parse_words(words) {
        Ok(Invocation::Serve(entries)) => entries
            .into_iter()
            .map(|entry| match entry.value {
                Some(value) => format!("{}={value}", entry.name),
                None => entry.name,
            })
            .collect(),
        other => panic!("{words:?}: {other:?}"),
    }
}

fn refused(words: &[&str]) -> String {
    match parse_words(words) {
        Err(error) => {
            assert_eq!(error.exit_code, EXIT_USAGE, "{words:?}");
            error.text
        }
        other => panic!("{words:?}: {other:?}"),
    }
}

fn printed(words: &[&str]) -> String {
    match parse_words(words) {
        Ok(Invocation::Print(text)) => text,
        other => panic!("{words:?}: {other:?}"),
    }
}

#[test]
fn entries_keep_the_order_in_which_they_were_typed() {
    let words = ["--http", ":1", "-M", "--http-socket=:2", "--http", ":3", "--master=no", "-p", "4", "-Mp5"];
    let expected = [
        "http=:1",
        "master",
        "http-socket=:2",
        "http=:3",
        "master=no",
        "processes=4",
        "master",
        "processes=5",
    ];
    assert_eq!(served(&words), expected);
    assert_eq!(served(&[]), [""; 0]);
}

#[test]
fn options_can_be_written_in_several_ways() {
    let cases: [(&[&str], &[&str]); 14] = [
        (&["--processes", "3"], &["processes=3"]),
        (&["--processes=3"], &["processes=3"]),
        (&["-p3"], &["processes=3"]),
        (&["--workers", "3"], &["processes=3"]),
        (&["--process", "3"], &["processes=3"]),
        (&["--processes", "-3"], &["processes=-3"]),
        (&["--chmod-socket"], &["chmod-socket"]),
        (&["--chmod-socket=660"], &["chmod-socket=660"]),
        (&["--chmod=660"], &["chmod-socket=660"]),
        (&["-C660"], &["chmod-socket=660"]),
        (&["-C", "-M"], &["chmod-socket", "master"]),
        (&["--http-keepalive=", "--pidfile="], &["http-keepalive", "pidfile="]),
        (&["--env", "A=b,c"], &["env=A=b,c"]),
        (&["-LMz5"], &["disable-logging", "master", "http-timeout=5"]),
    ];
    for (words, expected) in cases {
        assert_eq!(served(words), expected, "{words:?}");
    }
}

#[test]
fn every_option_reaches_the_configuration_by_each_of_its_names() {
    for row in OPTIONS.iter().filter(|row| !matches!(row.kind, Kind::Command(_))) {
        let shorts = row.short.map(|letter| format!("-{letter}=x"));
        for word in row.names().map(|name| format!("--{name}=x")).chain(shorts) {
            assert_eq!(served(&[&word]), [format!("{}=x", row.name)], "{word}");
        }
    }
}

#[test]
fn commands_take_a_pidfile_and_nothing_else() {
    let path = || PathBuf::from("/run/a.pid");
    let cases = [
        ("--reload", Command::Reload(path(), None)),
        ("--rollback", Command::Rollback(path(), None)),
        ("--stop", Command::Stop(path(), None)),
        ("--status", Command::Status(path())),
    ];
    for (word, expected) in cases {
        assert_eq!(parse_words(&[word, "/run/a.pid"]), Ok(Invocation::Command(expected)));
        assert!(refused(&[word]).contains("a value is required"), "{word}");
        assert!(refused(&[word, "/run/a.pid", "-M"]).contains("cannot be used with"), "{word}");
    }
    assert!(refused(&["--reload", "a", "--stop", "b"]).contains("cannot be used with"));
}

#[test]
fn an_unknown_option_brings_a_suggestion() {
    let text = refused(&["--proceses", "3"]);
    assert!(text.contains("--proceses") && text.contains("'--processes'"), "{text}");
    assert!(refused(&["-9"]).contains("-9"));
    assert!(refused(&["--procname-", "x"]).contains("unexpected argument"), "an ambiguous beginning");
}

#[test]
fn a_missing_value_is_a_usage_error() {
    assert!(refused(&["--pidfile"]).contains("a value is required"));
    assert!(refused(&["--pidfile", "--master"]).contains("a value is required"));
}

#[test]
fn positional_arguments_are_files_wherever_they_stand() {
    for words in [&["a.ini", "-M", "b.yaml"][..], &["-M", "--", "a.ini", "b.yaml"]] {
        let Ok(Arguments::Gather { options, files, .. }) = arguments_of(words) else { panic!("{words:?}") };
        assert_eq!((options.len(), files), (1, vec!["a.ini".to_owned(), "b.yaml".to_owned()]));
    }
    let Ok(Arguments::Gather { files, .. }) = arguments_of(&["--ini", "-", "-"]) else { panic!("-") };
    assert_eq!(files, ["-"]);
}

#[test]
fn problems_of_files_and_values_come_together() {
    let words = ["appserver", "--ini", "/nowhere/a.ini", "--processes=many", "app.py", "5"];
    let error = parse(words.map(OsString::from)).expect_err("four problems");
    assert_eq!((error.exit_code, error.problems.len()), (EXIT_ERROR, 4), "{error}");
    for part in ["/nowhere/a.ini\" cannot be read: No such file", "Python", "--name=value", "whole number"] {
        assert!(error.text.contains(part), "{part}: {error}");
    }
}

#[test]
fn arguments_must_be_utf_8_except_the_name_of_the_program() {
    let bad = || OsString::from_vec(b"--pid\xff".to_vec());
    let error = arguments::words([OsString::from("appserver"), bad()]).expect_err("not UTF-8");
    assert!(error.text.contains("argument 1 (--pid\u{fffd}) is not valid UTF-8"), "{error}");
    for words in [vec![bad()], Vec::new()] {
        let words = arguments::words(words).expect("nothing is read from the name");
        assert!(
            matches!(parse_arguments(words), Ok(Arguments::Gather { options, .. }) if options.is_empty())
        );
    }
}

#[test]
fn version_is_one_line() {
    assert_eq!(printed(&["--version"]), format!("appserver {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn help_lists_every_option_that_works_once_under_its_topic() {
    assert_eq!(printed(&["--help"]), printed(&["-h"]));
    // A fixed width: wrapping at the tester's could begin a line with the name of an option.
    let text = parser(Audience::Terminal).term_width(100).render_help().to_string();
    let mut topic = "";
    let mut listed = Vec::new();
    for line in text.lines() {
        if !line.starts_with(' ') && line.ends_with(':') {
            topic = line.trim_end_matches(':');
        }
        let line = line.trim_start();
        let long = match line.strip_prefix('-').and_then(|rest| rest.split_once(", --")) {
            Some((letter, rest)) if letter.len() == 1 => Some(rest),
            _ => line.strip_prefix("--"),
        };
        if let Some(long) = long {
            let name = long.split([' ', '[']).next().expect("split yields one at least");
            listed.push((topic.to_owned(), name.to_owned()));
        }
    }
    let expected: Vec<_> = OPTIONS
        .iter()
        .filter(|row| row.status == Status::Works)
        .map(|row| (row.group.title().to_owned(), row.name.to_owned()))
        .collect();
    assert_eq!(listed, expected);
}

#[test]
fn a_configuration_can_be_looked_at() {
    let inspect = |words: &[&str]| match parse_words(words) {
        Ok(Invocation::Inspect(inspection, gathered)) => (inspection, gathered.entries.len()),
        other => panic!("{words:?}: {other:?}"),
    };
    assert_eq!(inspect(&["--check-config", "-p", "2"]), (Inspection::Check { json: false }, 1));
    assert_eq!(inspect(&["-p", "2", "--check-config", "-M"]), (Inspection::Check { json: false }, 2));
    assert_eq!(inspect(&["--check-config=json"]), (Inspection::Check { json: true }, 0));
    assert_eq!(inspect(&["--check-config", "--json", "-M"]), (Inspection::Check { json: true }, 1));
    assert_eq!(inspect(&["--json", "--show-config"]), (Inspection::Show { json: true }, 0));
    assert_eq!(
        inspect(&["--json=a.json", "--show-config", "-j", "b.json"]),
        (Inspection::Show { json: false }, 2)
    );
    assert_eq!(served(&["--json", "a.json"]), ["json=a.json"]);
    assert!(refused(&["--show-config", "--check-config"]).contains("cannot be used with"));
    assert!(refused(&["--check-config=xml"]).contains("text, json"));
}

#[test]
fn the_parser_is_consistent() {
    parser(Audience::Terminal).debug_assert();
}
