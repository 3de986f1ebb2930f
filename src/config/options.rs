//! The option table: the one place that knows which options exist.
//!
//! Command line, `--help`, man page, completions, documentation and
//! [`Config::build`](super::Config::build) are driven by it. To add an option, add the field to
//! [`Config`](super::Config), its default to [`Config::defaults`](super::Config::defaults), and a
//! row to the file of its topic.

use std::collections::HashMap;
use std::sync::LazyLock;
use std::time::Duration;

use super::schema::OptionSpec;

mod applications;
mod commands;
mod configuration;
mod emperor;
mod files;
mod hooks;
mod http;
mod listeners;
mod logging;
mod monitoring;
mod privileges;
mod processes;
mod python;
mod recycling;
mod reload_and_stop;
mod routing;
mod scaling;
mod services;
mod static_files;
mod titles;

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

/// The topics, in the order help texts show them.
const TOPICS: &[&[OptionSpec]] = &[
    processes::ROWS,
    python::ROWS,
    applications::ROWS,
    recycling::ROWS,
    scaling::ROWS,
    listeners::ROWS,
    http::ROWS,
    routing::ROWS,
    static_files::ROWS,
    reload_and_stop::ROWS,
    files::ROWS,
    privileges::ROWS,
    hooks::ROWS,
    logging::ROWS,
    titles::ROWS,
    monitoring::ROWS,
    services::ROWS,
    emperor::ROWS,
    commands::ROWS,
    configuration::ROWS,
];

static TABLE: [OptionSpec; count(TOPICS)] = join(TOPICS);

/// Every option, by topic.
pub static OPTIONS: &[OptionSpec] = &TABLE;

/// Rows of the finished table.
const fn count(topics: &[&[OptionSpec]]) -> usize {
    let mut total = 0;
    let mut topic = 0;
    while topic < topics.len() {
        let mut row = 0;
        while row < topics[topic].len() {
            total += 1 + topics[topic][row].siblings.len();
            row += 1;
        }
        topic += 1;
    }
    total
}

/// Puts the topics one behind the other, and behind each row its siblings as rows of their own.
const fn join<const N: usize>(topics: &[&[OptionSpec]]) -> [OptionSpec; N] {
    let mut table = [topics[0][0]; N];
    let mut filled = 0;
    let mut topic = 0;
    while topic < topics.len() {
        let mut row = 0;
        while row < topics[topic].len() {
            let spec = topics[topic][row];
            table[filled] = spec.and(&[]);
            filled += 1;
            let mut sibling = 0;
            while sibling < spec.siblings.len() {
                table[filled] = spec.sibling(spec.siblings[sibling]);
                filled += 1;
                sibling += 1;
            }
            row += 1;
        }
        topic += 1;
    }
    table
}

/// Rows by every name they answer to: a loop in a file may name options a hundred thousand times.
static BY_NAME: LazyLock<HashMap<&str, &OptionSpec>> =
    LazyLock::new(|| OPTIONS.iter().flat_map(|row| row.names().map(move |name| (name, row))).collect());

/// The row that answers to `name`, canonical or alias.
pub fn find(name: &str) -> Option<&'static OptionSpec> {
    BY_NAME.get(name).copied()
}

fn cpus() -> u64 {
    crate::sys::cgroup::cpus() as u64
}

fn to_u32(number: u64) -> u32 {
    u32::try_from(number).expect("the row's maximum fits 32 bits")
}

fn to_usize(number: u64) -> usize {
    usize::try_from(number).expect("the row's maximum fits an address")
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
