//! The one list that everything is appended to, and the passes that expand its values.
//!
//! Nothing is ever overwritten: a name that comes twice stands there twice, and `%(name)` is the first.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use super::context::Context;
use super::expand::{self, Budget, ExpandError};
use super::options;
use super::source;

/// Most options of a configuration, loops unrolled.
pub const MAX_ITEMS: usize = 100_000;

/// What an item of the list is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ItemKind {
    /// An option, or a name that nobody knows.
    Option,
    /// A placeholder that was declared as one.
    Placeholder,
    /// A file to be read after everything else; done once it has been.
    Inherit,
    /// A warning to the operator.
    Note,
}

/// One item of the list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// What it is.
    pub kind: ItemKind,
    /// The name as it was spelt.
    pub name: String,
    /// The value, if one was given.
    pub value: Option<String>,
    /// Where it was given.
    pub origin: String,
}

/// The list.
#[derive(Debug, Default)]
pub struct Items {
    list: Vec<Item>,
    first: HashMap<String, usize>,
    used: HashSet<String>,
    plugins: HashSet<String>,
    budget: Budget,
    /// Variables set by the configuration itself.
    variables: HashMap<String, String>,
}

impl Items {
    /// Appends; false when the list is full.
    pub fn push(&mut self, item: Item) -> bool {
        if self.list.len() >= MAX_ITEMS {
            return false;
        }
        if matches!(&*item.name, "plugin" | "plugins" | "need-plugin" | "need-plugins") {
            let names = item.value.iter().flat_map(|value| value.split(','));
            self.plugins.extend(names.map(|name| name.trim().to_owned()));
        }
        if matches!(item.kind, ItemKind::Option | ItemKind::Placeholder) {
            self.first.entry(item.name.clone()).or_insert(self.list.len());
        }
        self.list.push(item);
        true
    }

    /// Whether a plugin of this name was asked for so far.
    pub fn asks_for_plugin(&self, name: &str) -> bool {
        self.plugins.contains(name)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// One of them.
    pub fn get(&self, index: usize) -> Option<&Item> {
        self.list.get(index)
    }

    /// All of them.
    pub fn into_list(self) -> (Vec<Item>, HashSet<String>) {
        (self.list, self.used)
    }

    /// All of them, to look at.
    pub fn iter(&self) -> impl Iterator<Item = &Item> {
        self.list.iter()
    }

    /// Notes that a value or a condition has asked for this name.
    pub fn mark_used(&mut self, name: &str) {
        if !self.used.contains(name) {
            self.used.insert(name.to_owned());
        }
    }

    /// The first value given to a name.
    ///
    /// As in uWSGI the spelling counts. On the command line it is known by the main name alone, so
    /// a name that was given nowhere is looked for under that.
    pub fn value_of(&self, name: &str) -> Option<&str> {
        let canonical = || options::find(name).and_then(|row| self.first.get(row.name));
        let index = self.first.get(name).or_else(canonical)?;
        Some(self.list[*index].value.as_deref().unwrap_or_default())
    }

    /// Sets a variable for `$(…)` and `if-env`.
    pub fn set_variable(&mut self, name: &str, value: &str) {
        self.variables.insert(name.to_owned(), value.to_owned());
    }

    /// A variable: one that was set here, or else one of the environment.
    pub fn variable(&self, name: &str, context: &Context) -> Option<String> {
        self.variables.get(name).cloned().or_else(|| context.variable(name))
    }

    /// Expands the values from `start` on: all `$(…)`, then all `@(…)`, then all `%(…)`, so that one
    /// may yield a later one but not the other way round. Returns what went wrong, by index.
    pub fn expand(&mut self, start: usize, context: &Context) -> Vec<(usize, ExpandError)> {
        let mut errors = Vec::new();
        for symbol in [b'$', b'@', b'%'] {
            for index in start..self.list.len() {
                let item = &self.list[index];
                let Some(value) = item.value.as_ref().filter(|_| is_expanded(item)).cloned() else {
                    continue;
                };
                match self.pass(&value, symbol, context) {
                    Ok(expanded) => self.list[index].value = Some(expanded),
                    Err(error) => {
                        // Its references would only fail again.
                        self.list[index].kind = ItemKind::Note;
                        errors.push((index, error));
                    }
                }
            }
        }
        errors
    }

    /// Expands one text on the spot, for what cannot wait for the passes.
    ///
    /// # Errors
    /// Those of [`expand::expand`].
    pub fn expand_now(&mut self, text: &str, context: &Context) -> Result<String, ExpandError> {
        [b'$', b'@', b'%']
            .into_iter()
            .try_fold(text.to_owned(), |text, symbol| self.pass(&text, symbol, context))
    }

    fn pass(&mut self, value: &str, symbol: u8, context: &Context) -> Result<String, ExpandError> {
        let mut budget = std::mem::take(&mut self.budget);
        let mut asked = Vec::new();
        let result = expand::expand(value, symbol, &mut budget, &mut |name| match symbol {
            b'$' => Ok(expand::variable(name, &mut |name| self.variable(name, context))),
            b'@' => file_content(name, &context.cwd).map(Some),
            _ => Ok(expand::calculate(name, &mut |name| {
                let value = self.value_of(name)?.to_owned();
                asked.push(name.to_owned());
                Some(value)
            })),
        });
        self.budget = budget;
        asked.iter().for_each(|name| self.mark_used(name));
        result
    }
}

/// `iprint` prints what is written, as it does in uWSGI.
fn is_expanded(item: &Item) -> bool {
    item.kind != ItemKind::Note && item.name != "iprint"
}

/// What `@(…)` stands for: the content of a source, without the line break it ends with.
fn file_content(name: &str, cwd: &Path) -> Result<String, String> {
    let bytes = source::fetch(name, cwd).map_err(|problem| format!("names {name}, which {problem}"))?;
    let text = source::decode(bytes)
        .map_err(|(line, problem)| format!("names {name}, whose line {line} has {problem}"))?;
    Ok(text.strip_suffix('\n').map_or(text.clone(), str::to_owned))
}
