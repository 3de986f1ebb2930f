//! The command line: what it prints, and what it says when it is wrong.

use std::process::{Command, Output};

use appserver::config::options::OPTIONS;
use appserver::config::schema::Status;

fn run(args: &[&str]) -> (Option<i32>, String, String) {
    let Output { status, stdout, stderr } =
        Command::new(env!("CARGO_BIN_EXE_appserver")).args(args).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (status.code(), text(stdout), text(stderr))
}

#[test]
fn help_lists_every_option_once_grouped_by_topic() {
    let (code, text, errors) = run(&["--help"]);
    assert_eq!((code, errors.as_str()), (Some(0), ""));
    let mut topic = "";
    for row in OPTIONS {
        let lines = text.lines().map(str::trim_start);
        let named = format!("--{}", row.name);
        let is_its_line = |line: &&str| {
            let line = line
                .split_once(", ")
                .map_or(*line, |(short, rest)| if short.len() == 2 { rest } else { line });
            line.strip_prefix(named.as_str())
                .is_some_and(|rest| !rest.starts_with(|c: char| c.is_alphanumeric() || c == '-'))
        };
        // Options that do nothing yet are in the documentation; a terminal is for those that do.
        let expected = usize::from(row.status == Status::Works);
        assert_eq!(lines.filter(is_its_line).count(), expected, "{named}");
        if expected == 1 && row.group.title() != topic {
            topic = row.group.title();
            assert_eq!(text.matches(&format!("\n{topic}:\n")).count(), 1, "{topic}");
        }
    }
    assert_eq!(run(&["-h"]).1, text);
}

#[test]
fn version_is_one_line() {
    let (code, text, errors) = run(&["--version"]);
    assert_eq!((code, errors.as_str()), (Some(0), ""));
    assert_eq!(text, format!("appserver {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn a_misspelt_option_gets_a_suggestion() {
    for (wrong, right) in
        [("--proceses", "--processes"), ("--pidfle=a", "--pidfile"), ("--http-sockt", "--http-socket")]
    {
        let (code, text, errors) = run(&[wrong]);
        assert_eq!((code, text.as_str()), (Some(2), ""), "{wrong}");
        assert!(errors.contains(right), "{wrong}: {errors}");
    }
    let (code, _, errors) = run(&["--no-such-thing-at-all"]);
    assert!(code == Some(2) && errors.contains("--no-such-thing-at-all"), "{errors}");
}

#[test]
fn a_missing_value_and_a_stray_word_are_explained() {
    for (args, text) in [
        (&["--pidfile"] as &[&str], "--pidfile"),
        (&["-p"], "--processes"),
        (&["--reload"], "--reload"),
        (&["--reload", "pid", "--master"], "--reload"),
    ] {
        let (code, _, errors) = run(args);
        assert_eq!(code, Some(2), "{args:?}: {errors}");
        assert!(errors.contains(text), "{args:?}: {errors}");
    }
    for (args, text) in [
        (&["no-such-file.ini"] as &[&str], "no-such-file.ini"),
        (&["--chmod-socket", "660"], "written --name=value"),
        (&["app.py"], "Python"),
    ] {
        let (code, _, errors) = run(args);
        assert_eq!(code, Some(1), "{args:?}: {errors}");
        assert!(errors.contains(text), "{args:?}: {errors}");
    }
}

#[test]
fn all_wrong_values_are_reported_at_once() {
    let (code, text, errors) = run(&[
        "--processes=0",
        "--threads=many",
        "--chmod-socket=999",
        "--http-timeout=soon",
        "--master=perhaps",
        "--static-map=x",
    ]);
    assert_eq!((code, text.as_str()), (Some(1), ""));
    let lines: Vec<_> = errors.lines().collect();
    assert_eq!(lines.len(), 6, "{errors}");
    let options = ["processes", "threads", "chmod-socket", "http-timeout", "master", "static-map"];
    for (line, option) in lines.iter().zip(options) {
        assert!(line.starts_with(&format!("command line: {option} = \"")), "{line}");
    }
}

#[test]
fn an_unambiguous_beginning_of_a_name_is_enough() {
    let (code, text, _) = run(&["--vers"]);
    assert!(code == Some(0) && text.starts_with("appserver "));
    let (code, _, errors) = run(&["--pid=a"]);
    assert!(code == Some(2) && errors.contains("pidfile"), "{errors}");
}

#[test]
fn options_without_an_effect_are_told_to_have_none() {
    for option in ["reload-mercy", "auto-procname"] {
        let row = OPTIONS.iter().find(|row| row.name == option).unwrap();
        assert!(matches!(row.status, Status::AcceptedNoEffect(reason) if !reason.is_empty()), "{option}");
    }
}
