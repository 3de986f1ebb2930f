//! ● The option reference, `docs/options.md`, rendered from the option table.
//!
//! The file is checked in, so that it can be read without building anything; a test fails when it
//! no longer says what the table says.

use std::fmt::Write;
use std::time::Duration;

use super::options::OPTIONS;
use super::schema::{Essential, Kind, OptionSpec, Status};

/// What stands in front of the tables: how to write options, and how values are read.
const PREAMBLE: &str = "\
<!-- Generated from src/config/options.rs. To change it: UPDATE_DOCS=1 cargo test docs_are_fresh -->

# Options

`appserver --help` prints those that work, `appserver --man` all of them as a man page. An option of uWSGI that does not
work yet gives a warning at the start that names file and line, and is an error with `strict`; it is silent where it
asks for nothing (`harakiri = 0`). Where the server would serve something else than was asked for without it, it does
not start. On the command line an option is typed as `--name value` or `--name=value`; an
unambiguous beginning of a name is enough. Where the value may be left out (`[...]` in the tables) it has to be
attached: `--http-keepalive=5`, `-C660`. In a configuration file, `appserver app.ini`, the same name stands without the
dashes: `processes = 4`.

| Value | How it is written |
|---|---|
| `BOOL` | `true`, `on`, `yes`, `1` or `false`, `off`, `no`, `0`, in any case; anything else is an error. Without a value: on |
| `SECONDS` | `90`, `90s`, `500ms`, `2m`, `1h`; whole numbers, at most 365 days |
| `BYTES` | `65536`, `64k`, `10m`, `1g`; units are powers of 1024 |
| `MEGABYTES` | a number; it may have a fraction |
| `MODE` | octal: `660` or `0660` |
| `ADDRESS` | see [http.md](http.md#where-to-listen) |
| `FILE` | a path; `host:port` (UDP logging) is refused |

When an option is given twice the last one wins, unless it is repeatable: then each use adds one. A value is understood
as a whole or refused, and every problem is reported, not only the first. An empty default means off, or not set.
";

/// What stands in front of the options of uWSGI that do nothing yet.
const UNSERVED: &str = "
## Known, but not in this release

What uWSGI has under these names is missing here. To give one is a warning at start-up, and an error with `strict`. Those
that say what to serve are always an error, those that say where, unless another option does: to serve without them would
only look like success.

| Option | Value | Topic | What is missing |
|---|---|---|---|
";

/// The whole of `docs/options.md`.
pub fn render() -> String {
    let mut page = PREAMBLE.to_owned();
    let mut topic = None;
    for row in OPTIONS.iter().filter(|row| !is_unserved(row)) {
        if topic != Some(row.group) {
            topic = Some(row.group);
            let title = row.group.title();
            append(
                &mut page,
                format_args!("\n## {title}\n\n| Option | Value | Default | Meaning |\n|---|---|---|---|\n"),
            );
        }
        let default = if row.default.is_empty() { String::new() } else { code(row.default) };
        append(
            &mut page,
            format_args!("| {} | {} | {default} | {} |\n", names(row), value(row), meaning(row)),
        );
    }
    page.push_str(UNSERVED);
    for row in OPTIONS {
        if let Status::NotYet(reason) = row.status {
            let (topic, reason) = (row.group.title(), escape(reason));
            let refusal = match row.essential {
                Some(Essential::Application) => ". **The server does not start with it**",
                Some(Essential::Listener) => ". **The server does not start with it alone**",
                None => "",
            };
            append(
                &mut page,
                format_args!("| {} | {} | {topic} | {reason}{refusal} |\n", names(row), value(row)),
            );
        }
    }
    page
}

fn is_unserved(row: &OptionSpec) -> bool {
    matches!(row.status, Status::NotYet(_))
}

fn names(row: &OptionSpec) -> String {
    let mut names: Vec<String> = row.names().map(|name| format!("`--{name}`")).collect();
    names.extend(row.short.map(|letter| format!("`-{letter}`")));
    names.join(", ")
}

fn value(row: &OptionSpec) -> String {
    let placeholder = row.placeholder();
    // The placeholder of commands is made for those that take a pidfile.
    let bare_command =
        matches!(row.kind, Kind::Command(kind) if !kind.takes_pidfile()) && row.metavar.is_empty();
    if placeholder.is_empty() || bare_command {
        return String::new();
    }
    let shown = if row.value_is_optional() { code(&format!("[{placeholder}]")) } else { code(placeholder) };
    match range(&row.kind) {
        Some(range) => format!("{shown}, {range}"),
        None => shown,
    }
}

/// The limits of a number, when they are worth telling.
fn range(kind: &Kind) -> Option<String> {
    match *kind {
        Kind::Int { min, max, .. } | Kind::IntOrAuto { min, max, .. } | Kind::Size { min, max, .. } => {
            match (min, max) {
                (0, u64::MAX) => None,
                (min, u64::MAX) => Some(format!("at least {min}")),
                (min, max) => Some(format!("{min} to {max}")),
            }
        }
        Kind::Seconds { min, .. } if min == Duration::ZERO => Some("or 0".to_owned()),
        _ => None,
    }
}

fn meaning(row: &OptionSpec) -> String {
    let mut text = escape(row.help);
    if row.repeatable {
        text.push_str(" Repeatable.");
    }
    if let Status::AcceptedNoEffect(reason) = row.status {
        append(&mut text, format_args!(" *No effect: {}.*", escape(reason)));
    }
    text
}

/// A bar would end the cell of the table, also within backticks.
fn escape(text: &str) -> String {
    text.replace('|', r"\|")
}

fn code(text: &str) -> String {
    format!("`{}`", escape(text))
}

fn append(page: &mut String, text: std::fmt::Arguments<'_>) {
    page.write_fmt(text).expect("writing to memory does not fail");
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::{env, fs};

    use super::*;

    #[test]
    fn docs_are_fresh() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/options.md");
        if env::var_os("UPDATE_DOCS").is_some() {
            fs::write(&path, render()).unwrap();
        }
        let written = fs::read_to_string(&path).unwrap_or_default();
        assert!(
            written == render(),
            "docs/options.md does not say what the option table says; run: UPDATE_DOCS=1 cargo test docs_are_fresh"
        );
    }

    #[test]
    fn every_name_of_every_option_has_a_place() {
        let page = render();
        for name in OPTIONS.iter().flat_map(OptionSpec::names) {
            assert!(page.contains(&format!("`--{name}`")), "{name}");
        }
    }

    #[test]
    fn every_row_of_a_table_has_four_cells() {
        for line in render().lines().filter(|line| line.starts_with("| `--")) {
            assert_eq!(line.replace(r"\|", "").matches('|').count(), 5, "{line}");
        }
    }
}
