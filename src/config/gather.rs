//! Gathers a configuration from environment, command line and files into one list of entries.
//!
//! The order is uWSGI's: environment, then options as they were typed with files read where they
//! are named, then positional files, then whatever was inherited. Directives act at once, values
//! are expanded when all is there.

//!
//! Here is the list and what is done with each line. `environment` finds options there, `reading` reads
//! files in place, `facts` answers what conditions ask, `declare` knows options that are templates.

use std::collections::{HashMap, HashSet};

use super::context::Context;
use super::directive::Directive;
use super::items::{Item, ItemKind, Items, MAX_ITEMS};
use super::logic::Block;
use super::magic::Magic;
use super::schema::Kind;
use super::{ConfigError, Entry, options};
use crate::error::EXIT_ERROR;

mod declare;
mod environment;
mod facts;
mod reading;

pub use declare::Template;
use reading::{How, Injections};

/// How deep files may read files, and directives name directives.
const MAX_DEPTH: usize = 16;
/// Most files that are inherited: they are read one after the other, so a circle is not deep.
const MAX_INHERITED: usize = 64;
/// Bytes that all files together may have.
const MAX_TOTAL: usize = 64 << 20;
/// Lines that may be carried out, loops unrolled.
const MAX_ROUNDS: usize = 400_000;
/// Problems after which nobody reads on.
const MAX_PROBLEMS: usize = 100;

/// What was found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Gathered {
    /// The entries for [`Config::build`](super::Config::build), expanded, in order.
    pub entries: Vec<Entry>,
    /// What could not be read or expanded.
    pub problems: Vec<ConfigError>,
    /// Set where the configuration ends the start; then the entries are those before that.
    pub ending: Option<Ending>,
}

/// An `exit` in the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ending {
    /// What to exit with.
    pub code: u8,
    /// Where it stands.
    pub origin: String,
    /// What `iprint` has asked for until then.
    pub lines: Vec<String>,
    /// `fallback-config`, if it was given until then.
    pub fallback: Option<String>,
}

/// Gathers everything: `options` as typed, `files` as named without an option.
pub fn gather(context: &Context, options: Vec<Entry>, files: Vec<String>) -> Gathered {
    let mut gatherer = Gatherer::new(context);
    gatherer.begin(options);
    gatherer.close_block();
    for file in files {
        gatherer.positional(file);
    }
    gatherer.finish()
}

/// The options that `options`, the files they name and the environment declare.
pub fn declared(context: &Context, options: Vec<Entry>) -> HashMap<String, Template> {
    let mut gatherer = Gatherer::new(context);
    gatherer.begin(options);
    gatherer.declared
}

struct Gatherer<'a> {
    context: &'a Context,
    items: Items,
    problems: Vec<ConfigError>,
    /// Set by `exit`, and when a limit was hit: what follows would only hit it again.
    stopped: bool,
    block: Option<Block>,
    /// Set while a line of a block is carried out.
    in_block: bool,
    magic: Magic,
    last_ini: Option<String>,
    injections: Injections,
    /// `mode`: which elements of XML files count.
    mode: Option<String>,
    declared: HashMap<String, Template>,
    denied: Option<HashSet<String>>,
    allowed: Option<HashSet<String>>,
    depth: usize,
    bytes: usize,
    rounds: usize,
    ending: Option<Ending>,
}

impl<'a> Gatherer<'a> {
    fn new(context: &'a Context) -> Self {
        Gatherer {
            context,
            items: Items::default(),
            problems: Vec::new(),
            stopped: false,
            block: None,
            in_block: false,
            magic: Magic::new(&context.fixed),
            last_ini: None,
            injections: Injections::default(),
            mode: None,
            declared: HashMap::new(),
            denied: None,
            allowed: None,
            depth: 0,
            bytes: 0,
            rounds: 0,
            ending: None,
        }
    }
}

impl Gatherer<'_> {
    fn begin(&mut self, options: Vec<Entry>) {
        self.environment();
        for entry in options {
            self.feed(entry);
        }
    }

    fn problem(&mut self, entry: &Entry, problem: impl Into<String>) {
        let problem = ConfigError {
            option: entry.name.clone(),
            value: entry.value.clone(),
            origin: entry.origin.clone(),
            problem: problem.into(),
        };
        // A line in a loop has the same to say in each round.
        if self.problems.len() < MAX_PROBLEMS && self.problems.last() != Some(&problem) {
            self.problems.push(problem);
        }
    }

    /// Gives up: a limit was hit.
    fn stop(&mut self, entry: &Entry, problem: impl Into<String>) {
        if !self.stopped {
            self.stopped = true;
            self.problem(entry, problem);
        }
    }

    fn note(&mut self, origin: &str, text: impl Into<String>) {
        let item = Item {
            kind: ItemKind::Note,
            name: String::new(),
            value: Some(text.into()),
            origin: origin.to_owned(),
        };
        self.items.push(item);
    }

    /// Takes up a line, through the block that is open.
    fn feed(&mut self, entry: Entry) {
        if self.stopped || !self.is_allowed(&entry) {
            return;
        }
        let directive = directive_of(&entry.name);
        let Some(mut block) = self.block.take() else { return self.put(entry) };
        match directive {
            Some(Directive::End) => {}
            Some(Directive::Else) => {
                if !block.invert() {
                    self.problem(&entry, "stands in a loop; it belongs to an `if-…`");
                }
                self.block = Some(block);
            }
            _ => self.apply_block(block, entry),
        }
    }

    fn apply_block(&mut self, mut block: Block, entry: Entry) {
        if let Some(name) = block.option_asked_for() {
            self.items.mark_used(name);
        }
        let rounds = match block.rounds(self) {
            Ok(rounds) => rounds,
            Err(reason) => {
                // The block is dropped: once is enough, not for each of its lines.
                return self.problem(&block.opened, reason);
            }
        };
        let opened = block.opened.clone();
        self.block = Some(block);
        self.in_block = true;
        for round in rounds.iter() {
            self.rounds += 1;
            if self.rounds > MAX_ROUNDS {
                self.stop(&opened, format!("is too much: more than {MAX_ROUNDS} lines, loops unrolled"));
            }
            if self.stopped {
                break;
            }
            let mut entry = entry.clone();
            if let (Some(value), Some(round)) = (&mut entry.value, round)
                && value.contains("%(_)")
            {
                *value = value.replace("%(_)", round);
                self.bytes += value.len();
            }
            if self.bytes > MAX_TOTAL {
                self.stop(&opened, "produces too much text");
            }
            self.put(entry);
        }
        self.in_block = false;
    }

    fn is_allowed(&mut self, entry: &Entry) -> bool {
        let name = &entry.name;
        let lists =
            |list: &Option<HashSet<String>>| list.as_ref().map(|it| it.contains(&name.to_ascii_lowercase()));
        let ends = matches!(directive_of(name), Some(Directive::Deny(false) | Directive::AllowOnly(false)));
        let by = match (lists(&self.denied), lists(&self.allowed)) {
            _ if ends => None,
            (Some(true), _) => Some("blacklist"),
            (_, Some(false)) => Some("whitelist"),
            _ => None,
        };
        if let Some(by) = by {
            self.problem(entry, format!("is forbidden here by a {by}"));
        }
        by.is_none()
    }

    /// Appends an option or carries out a directive.
    fn put(&mut self, entry: Entry) {
        if self.stopped {
            return;
        }
        if self.depth > MAX_DEPTH {
            return self
                .problem(&entry, format!("is nested deeper than {MAX_DEPTH} levels; does it name itself?"));
        }
        if let Some(directive) = directive_of(&entry.name) {
            self.depth += 1;
            self.carry_out(directive, entry);
            self.depth -= 1;
        } else if let Some(template) = self.declared.get(&entry.name).cloned() {
            self.depth += 1;
            self.use_declared(&template, &entry);
            self.depth -= 1;
        } else if entry.name.is_empty() {
            self.note(&entry.origin, format!("{:?} has no name", entry.value.unwrap_or_default()));
        } else {
            self.push(ItemKind::Option, entry);
        }
    }

    fn push(&mut self, kind: ItemKind, entry: Entry) {
        let Entry { name, value, origin } = entry.clone();
        if !self.items.push(Item { kind, name, value, origin }) {
            self.stop(&entry, format!("is one too many; there can be {MAX_ITEMS} options"));
        }
    }

    fn carry_out(&mut self, directive: Directive, entry: Entry) {
        let value = entry.value.clone().unwrap_or_default();
        match directive {
            Directive::Read(format) => self.read(&entry, How { format, template: false }),
            Directive::Include => self.read(&entry, How { format: None, template: true }),
            Directive::Inherit => self.push(ItemKind::Inherit, entry),
            Directive::Set => match value.split_once('=') {
                Some((name, value)) => self.put(renamed(&entry, name, value)),
                None => self.problem(&entry, "has no `=`; write NAME=VALUE"),
            },
            Directive::Placeholder => match value.split_once('=') {
                Some((name, _)) if options::find(name).is_some() => {
                    self.problem(&entry, format!("cannot be a placeholder: {name} is an option; use set"));
                }
                Some((name, value)) => self.push(ItemKind::Placeholder, renamed(&entry, name, value)),
                None => self.problem(&entry, "has no `=`; write NAME=VALUE"),
            },
            Directive::Resolve => match facts::resolve(&value) {
                Ok((name, address)) => self.push(ItemKind::Placeholder, renamed(&entry, &name, &address)),
                Err(reason) => self.problem(&entry, reason),
            },
            Directive::Open(_) if self.in_block => {
                self.problem(
                    &entry,
                    "stands inside another block; blocks cannot be nested, use an included file",
                );
            }
            Directive::Open(kind) => self.block = Some(Block::new(kind, entry)),
            Directive::Else => self.problem(&entry, "has no `if-…` before it"),
            // uWSGI takes one too many for nothing.
            Directive::End => {}
            Directive::Declare => self.declare(&entry, &value),
            Directive::Inject(place) => self.injections.add(place, entry),
            Directive::Variable => {
                if let Some((name, value)) = value.split_once('=') {
                    self.items.set_variable(name, value);
                }
                self.put(renamed(&entry, "env", &value));
            }
            Directive::Mode => self.mode = Some(value),
            Directive::Exit => self.exit(&entry),
            Directive::Deny(on) => self.denied = on.then(|| names_in(&value)),
            Directive::AllowOnly(on) => self.allowed = on.then(|| names_in(&value)),
        }
    }

    fn exit(&mut self, entry: &Entry) {
        let code = match entry.value.as_deref().filter(|value| !value.is_empty()) {
            None => EXIT_ERROR,
            Some(value) => match value.parse() {
                Ok(code) => code,
                Err(_) => return self.problem(entry, "is not an exit status; use 0 to 255"),
            },
        };
        // As in uWSGI only these are printed at once; `print` waits for the passes.
        let printed = self.items.iter().filter(|item| item.name == "iprint");
        let lines = printed.map(|item| item.value.clone().unwrap_or_default()).collect();
        let fallback = self.items.value_of("fallback-config").map(str::to_owned);
        self.ending = Some(Ending { code, origin: entry.origin.clone(), lines, fallback });
        self.stopped = true;
    }

    fn close_block(&mut self) {
        // Behind `exit` nothing is looked at, the end of the block neither.
        if let Some(block) = self.block.take().filter(|_| self.ending.is_none()) {
            let Entry { name, origin, .. } = &block.opened;
            let end = if name.starts_with("for") { "endfor" } else { "endif" };
            self.note(&origin.clone(), format!("{name} is never closed; it applies to the end. Write {end}"));
        }
    }

    /// Expands, reads what is inherited, and turns the list into entries.
    fn finish(mut self) -> Gathered {
        let mut inherited = 0;
        let (mut expanded, mut next) = (0, 0);
        while expanded < self.items.len() && self.ending.is_none() {
            let errors = self.items.expand(expanded, self.context);
            expanded = self.items.len();
            for (index, error) in errors {
                let item = self.items.get(index).expect("it was expanded a moment ago");
                let entry = entry_of(item);
                self.problem(&entry, error.to_string());
            }
            while next < expanded {
                let item = self.items.get(next).expect("within the list");
                if item.kind == ItemKind::Inherit && inherited <= MAX_INHERITED {
                    inherited += 1;
                    let entry = entry_of(item);
                    if inherited > MAX_INHERITED {
                        self.problem(
                            &entry,
                            format!("is one of more than {MAX_INHERITED}; does it inherit itself?"),
                        );
                    } else {
                        self.read(&entry, How { format: None, template: true });
                    }
                }
                next += 1;
            }
        }
        let (list, used) = self.items.into_list();
        let strict = list.iter().any(|item| item.name == "strict" && is_on(item.value.as_deref()));
        let entries = list.into_iter().filter_map(|item| match item.kind {
            ItemKind::Inherit => None,
            ItemKind::Note => item.name.is_empty().then(|| entry_of(&item)),
            ItemKind::Placeholder => Some(placeholder(&item)),
            // strict asks for every placeholder to be declared as one.
            ItemKind::Option
                if !strict && used.contains(&item.name) && options::find(&item.name).is_none() =>
            {
                Some(placeholder(&item))
            }
            ItemKind::Option => Some(entry_of(&item)),
        });
        Gathered { entries: entries.collect(), problems: self.problems, ending: self.ending }
    }
}

fn directive_of(name: &str) -> Option<Directive> {
    match options::find(name)?.kind {
        Kind::Directive(directive) => Some(directive),
        _ => None,
    }
}

/// The names in a blacklist, whose case does not count.
fn names_in(value: &str) -> HashSet<String> {
    value.split(' ').map(str::to_ascii_lowercase).collect()
}

fn renamed(entry: &Entry, name: &str, value: &str) -> Entry {
    Entry { name: name.to_owned(), value: Some(value.to_owned()), origin: entry.origin.clone() }
}

fn entry_of(item: &Item) -> Entry {
    Entry { name: item.name.clone(), value: item.value.clone(), origin: item.origin.clone() }
}

fn placeholder(item: &Item) -> Entry {
    let value = format!("{}={}", item.name, item.value.as_deref().unwrap_or_default());
    Entry { name: "set-placeholder".to_owned(), value: Some(value), origin: item.origin.clone() }
}

fn is_on(value: Option<&str>) -> bool {
    value.is_none_or(|value| super::value::flag(value) != Ok(false))
}

#[cfg(test)]
mod tests;
