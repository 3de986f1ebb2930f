//! Options that a configuration declares by a template.

use super::{Gatherer, MAX_TOTAL, renamed};
use crate::config::{Entry, options};

/// Most words of a value that a template can refer to.
const MAX_WORDS: usize = 99;

/// What a declared option stands for: `name=value` pairs separated by semicolons.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template(String);

impl Template {
    /// Whether the option takes an argument on the command line; the rule is uWSGI's.
    pub fn takes_argument(&self) -> bool {
        ["$1", "$2", "$3"].iter().any(|word| self.0.contains(word))
    }
}

impl Gatherer<'_> {
    /// Carries out `declare-option = NAME=TEMPLATE`.
    pub(super) fn declare(&mut self, entry: &Entry, value: &str) {
        match value.split_once('=') {
            Some((name, _)) if options::find(name).is_some() => {
                self.problem(entry, format!("cannot be declared: {name} is an option already"));
            }
            Some((name, template)) => {
                self.declared.insert(name.to_owned(), Template(template.to_owned()));
            }
            None => self.problem(entry, "has no `=`; write NAME=TEMPLATE"),
        }
    }

    /// Puts what a declared option stands for, with the words of its value for `$1`, `$2`, and so on.
    pub(super) fn use_declared(&mut self, template: &Template, entry: &Entry) {
        let value = entry.value.clone().unwrap_or_default();
        let words: Vec<&str> = value.split(' ').filter(|word| !word.is_empty()).take(MAX_WORDS).collect();
        self.bytes += template.0.len();
        let fill = |text: &str| {
            // From the last, so that $1 does not take the beginning of $10.
            (1..=words.len())
                .rev()
                .fold(text.to_owned(), |text, number| text.replace(&format!("${number}"), words[number - 1]))
        };
        for (name, value) in template.0.split(';').filter_map(|pair| pair.split_once('=')) {
            let filled = renamed(entry, &fill(name), &fill(value));
            self.bytes += filled.value.as_ref().map_or(0, String::len);
            if self.bytes > MAX_TOTAL {
                return self.stop(entry, "produces too much text");
            }
            self.put(filled);
        }
    }
}
