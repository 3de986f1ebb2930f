//! The examples of docs/configuration.md are what they say: configurations.

use std::fs;
use std::path::Path;
use std::process::Command;

/// The examples of a page: format and text.
fn examples(page: &str) -> Vec<(String, String)> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs").join(page);
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let blocks = text.split("\n```").skip(1).step_by(2);
    blocks.filter_map(|it| it.split_once('\n')).map(|(kind, text)| (kind.into(), text.into())).collect()
}

#[test]
fn the_examples_of_the_documentation_can_be_read() {
    let directory = tempfile::tempdir().expect("a directory");
    // What they refer to.
    for (name, text) in [
        ("part.ini", "[uwsgi]\nthreads = 2\n"),
        ("conf.d/a.ini", "[uwsgi]\nlog-micros = true\n"),
        ("secret.txt", "s3cret\n"),
    ] {
        let path = directory.path().join(name);
        fs::create_dir_all(path.parent().expect("in a directory")).expect("a directory of ours");
        fs::write(path, text).expect("a directory of ours");
    }
    let formats = ["ini", "yaml", "toml", "json", "xml"];
    let mut seen = Vec::new();
    for (format, text) in examples("configuration.md") {
        if !formats.contains(&format.as_str()) {
            continue;
        }
        let file = format!("example.{format}");
        fs::write(directory.path().join(&file), &text).expect("a directory of ours");
        let mut command = Command::new(env!("CARGO_BIN_EXE_appserver"));
        command.args(["--show-config", &file]).current_dir(directory.path()).env_clear();
        let output = command.output().expect("it runs");
        let complaints = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && complaints.is_empty(), "{text}{complaints}");
        seen.push(format);
    }
    assert!(formats.iter().all(|format| seen.iter().any(|it| it == format)), "{seen:?}");
}
