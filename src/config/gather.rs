//! Gathers a configuration from environment, command line and files into one list of entries.
//!
//! The order is uWSGI's: environment, then options as they were typed with files read where they
//! are named, then positional files, then whatever was inherited. Directives act at once, values
//! are expanded when all is there.

use std::collections::HashMap;
use std::net::ToSocketAddrs;
use std::path::Path;

use super::context::Context;
use super::directive::Directive;
use super::document::{Format, Section};
use super::items::{Item, ItemKind, Items, MAX_ITEMS};
use super::logic::{self, Block, Facts, Test};
use super::magic::Magic;
use super::schema::Kind;
use super::{ConfigError, Entry, options, source};

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
/// Beginnings of variables that are options.
const PREFIXES: [&str; 2] = ["UWSGI_", "APPSERVER_"];
/// Rests of such variables that mean something else.
const NO_OPTIONS: [&str; 9] = [
    "RELOADS",
    "VASSALS_DIR",
    "EMPEROR_FD",
    "BROODLORD_NUM",
    "EMPEROR_FD_CONFIG",
    "EMPEROR_PROXY",
    "JAIL_PID",
    "ORIGINAL_PROC_NAME",
    "LOG",
];

/// What was found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Gathered {
    /// The entries for [`Config::build`](super::Config::build), expanded, in order.
    pub entries: Vec<Entry>,
    /// What could not be read or expanded.
    pub problems: Vec<ConfigError>,
}

/// Gathers everything: `options` as typed, `files` as named without an option.
pub fn gather(context: &Context, options: Vec<Entry>, files: Vec<String>) -> Gathered {
    let mut gatherer = Gatherer {
        context,
        items: Items::default(),
        problems: Vec::new(),
        stopped: false,
        block: None,
        in_block: false,
        magic: Magic::new(&context.fixed),
        last_ini: None,
        declared: HashMap::new(),
        denied: None,
        allowed: None,
        depth: 0,
        bytes: 0,
        rounds: 0,
    };
    gatherer.environment();
    for entry in options {
        gatherer.feed(entry);
    }
    gatherer.close_block();
    for file in files {
        gatherer.positional(file);
    }
    gatherer.finish()
}

/// How a file is to be read.
#[derive(Debug, Clone, Copy)]
struct How {
    format: Option<Format>,
    /// Read as a part of another one: leaves the uppercase magic variables alone.
    template: bool,
}

struct Gatherer<'a> {
    context: &'a Context,
    items: Items,
    problems: Vec<ConfigError>,
    /// Set when a limit was hit: what follows would only hit it again.
    stopped: bool,
    block: Option<Block>,
    /// Set while a line of a block is carried out.
    in_block: bool,
    magic: Magic,
    last_ini: Option<String>,
    declared: HashMap<String, String>,
    denied: Option<Vec<String>>,
    allowed: Option<Vec<String>>,
    depth: usize,
    bytes: usize,
    rounds: usize,
}

impl Gatherer<'_> {
    fn problem(&mut self, entry: &Entry, problem: impl Into<String>) {
        if self.problems.len() < MAX_PROBLEMS {
            self.problems.push(ConfigError {
                option: entry.name.clone(),
                value: entry.value.clone(),
                origin: entry.origin.clone(),
                problem: problem.into(),
            });
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

    fn environment(&mut self) {
        for prefix in PREFIXES {
            for (variable, value) in &self.context.env {
                let Some(rest) = variable.to_str().and_then(|name| name.strip_prefix(prefix)) else {
                    continue;
                };
                let name = option_of_variable(rest);
                if NO_OPTIONS.contains(&rest) || rest.is_empty() || is_service_link(rest, &name) {
                    continue;
                }
                let origin = format!("environment {prefix}{rest}");
                let entry = Entry { name, value: value.to_str().map(str::to_owned), origin };
                if entry.value.is_none() {
                    self.problem(&entry, "is not valid UTF-8");
                } else {
                    self.feed(entry);
                }
            }
        }
        self.close_block();
    }

    fn positional(&mut self, file: String) {
        let entry =
            Entry { name: "file".to_owned(), value: Some(file.clone()), origin: "command line".to_owned() };
        let (name, _) = source::split_section(&file);
        let format = if name == "-" { Some(Format::Ini) } else { Format::of_name(name) };
        let how = How { format, template: true };
        match format {
            Some(_) => self.read(&entry, how),
            None if is_python(&file) => self.problem(
                &entry,
                "looks like a Python application; they come with the Python plugin, which is not in this release",
            ),
            None => self.problem(
                &entry,
                "is no configuration file: its name must end with .ini, .yaml, .yml, .json, .js, .toml or .xml. \
                 Was it meant as the value of an option? A value that may be left out is written --name=value",
            ),
        }
    }

    /// Takes up a line, through the block that is open.
    fn feed(&mut self, entry: Entry) {
        if self.stopped || !self.is_allowed(&entry) {
            return;
        }
        let directive = directive_of(&entry.name);
        let Some(block) = &mut self.block else { return self.put(entry) };
        match directive {
            Some(Directive::End) => self.block = None,
            Some(Directive::Else) => {
                if !block.invert() {
                    self.problem(&entry, "stands in a loop; it belongs to an `if-…`");
                }
            }
            _ => {
                let block = block.clone();
                self.apply_block(&block, entry);
            }
        }
    }

    fn apply_block(&mut self, block: &Block, entry: Entry) {
        if let Some(name) = block.option_asked_for() {
            self.items.mark_used(name);
        }
        let rounds = match block.rounds(self) {
            Ok(rounds) => rounds,
            Err(reason) => {
                // Once is enough, not for each of its lines.
                self.block = None;
                return self.problem(&block.opened, reason);
            }
        };
        self.in_block = true;
        for round in rounds {
            self.rounds += 1;
            if self.rounds > MAX_ROUNDS {
                self.stop(
                    &block.opened,
                    format!("is too much: more than {MAX_ROUNDS} lines, loops unrolled"),
                );
            }
            if self.stopped {
                break;
            }
            let mut entry = entry.clone();
            if let (Some(value), Some(round)) = (&mut entry.value, &round)
                && value.contains("%(_)")
            {
                *value = value.replace("%(_)", round);
                self.bytes += value.len();
            }
            if self.bytes > MAX_TOTAL {
                self.stop(&block.opened, "produces too much text");
            }
            self.put(entry);
        }
        self.in_block = false;
    }

    fn is_allowed(&mut self, entry: &Entry) -> bool {
        let name = &entry.name;
        let lists = |list: &Option<Vec<String>>| {
            list.as_ref().map(|it| it.iter().any(|it| it.eq_ignore_ascii_case(name)))
        };
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
            Directive::Resolve => match resolve(&value) {
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
            Directive::Declare => match value.split_once('=') {
                Some((name, _)) if options::find(name).is_some() => {
                    self.problem(&entry, format!("cannot be declared: {name} is an option already"));
                }
                Some((name, template)) => {
                    self.declared.insert(name.to_owned(), template.to_owned());
                }
                None => self.problem(&entry, "has no `=`; write NAME=TEMPLATE"),
            },
            Directive::Deny(on) => self.denied = on.then(|| value.split(' ').map(str::to_owned).collect()),
            Directive::AllowOnly(on) => {
                self.allowed = on.then(|| value.split(' ').map(str::to_owned).collect())
            }
        }
    }

    /// Puts what a declared option stands for: `name=value` pairs separated by semicolons, with the
    /// words of its value for `$1`, `$2`, and so on.
    fn use_declared(&mut self, template: &str, entry: &Entry) {
        let value = entry.value.clone().unwrap_or_default();
        let words: Vec<&str> = value.split(' ').filter(|word| !word.is_empty()).collect();
        let fill = |text: &str| {
            // From the last, so that $1 does not take the beginning of $10.
            (1..=words.len())
                .rev()
                .fold(text.to_owned(), |text, number| text.replace(&format!("${number}"), words[number - 1]))
        };
        for (name, value) in template.split(';').filter_map(|pair| pair.split_once('=')) {
            let filled = renamed(entry, &fill(name), &fill(value));
            self.bytes += filled.value.as_ref().map_or(0, String::len);
            if self.bytes > MAX_TOTAL {
                return self.stop(entry, "produces too much text");
            }
            self.put(filled);
        }
    }

    /// Reads a file in place.
    fn read(&mut self, entry: &Entry, how: How) {
        if self.depth > MAX_DEPTH {
            return self
                .problem(entry, format!("is nested deeper than {MAX_DEPTH} files; does it include itself?"));
        }
        let written = entry.value.clone().unwrap_or_default();
        // uWSGI takes the name as written, which no file has when there is a variable in it.
        let argument = match self.items.expand_now(&written, self.context) {
            Ok(argument) => argument,
            Err(error) => return self.problem(entry, error.to_string()),
        };
        let (name, section) = source::split_section(&argument);
        let (name, section) = (name.to_owned(), section.map(str::to_owned));
        match (name.is_empty(), self.last_ini.clone()) {
            (true, Some(last)) => {
                self.magic.enter_section(section.as_deref().unwrap_or_default());
                self.read_source(entry, &last, section.as_deref(), how);
            }
            (true, None) => self.problem(entry, "names no file, and no ini file has been read before"),
            (false, _) => {
                let facts = source::facts(&name, &self.context.cwd);
                self.magic.enter(&name, section.as_deref().unwrap_or_default(), facts.as_ref(), how.template);
                self.read_source(entry, &name, section.as_deref(), how);
            }
        }
    }

    fn read_source(&mut self, entry: &Entry, name: &str, section: Option<&str>, how: How) {
        let Some(format) = how.format.or_else(|| Format::of_name(name)) else {
            let problem = "has no known extension; use .ini, .yaml, .yml, .json, .js, .toml or .xml";
            return self.problem(entry, problem);
        };
        let shown = if name == "-" { "standard input" } else { name };
        let bytes = match source::fetch(name, &self.context.cwd) {
            Ok(bytes) => bytes,
            Err(problem) => return self.problem(entry, problem),
        };
        self.bytes += bytes.len();
        if self.bytes > MAX_TOTAL {
            return self.stop(entry, format!("is too much: more than {} MiB in all files", MAX_TOTAL >> 20));
        }
        let at = |line: usize| Entry {
            name: format.option().to_owned(),
            value: None,
            origin: format!("{shown}:{line}"),
        };
        let text = match source::decode(bytes) {
            Ok(text) => self.magic.substitute(&text),
            Err((line, problem)) => return self.problem(&at(line), format!("file contains {problem}")),
        };
        let section = Section::of(section);
        let document = match format.read(&text, section) {
            Ok(document) => document,
            Err(error) => {
                return self.problem(&at(error.line), format!("file is not well-formed: {}", error.problem));
            }
        };
        if format == Format::Ini {
            self.last_ini = Some(name.to_owned());
        }
        for (line, note) in document.notes {
            self.note(&format!("{shown}:{line}"), note);
        }
        if !document.found && format.needs_section() {
            return self
                .problem(&at(1), format!("file has no {:?}, where options are looked for", section.title()));
        }
        if !document.found {
            let title = section.title();
            self.note(
                &entry.origin,
                format!("*** WARNING: Can't find section \"{title}\" in configuration file {shown} ***"),
            );
        }
        // A block belongs to the file it begins in: an open one must not swallow another file.
        let (block, in_block) = (self.block.take(), std::mem::take(&mut self.in_block));
        for line in document.lines {
            let origin = format!("{shown}:{}", line.number);
            self.feed(Entry { name: line.name, value: Some(line.value), origin });
        }
        self.close_block();
        (self.block, self.in_block) = (block, in_block);
    }

    fn close_block(&mut self) {
        if let Some(block) = self.block.take() {
            let Entry { name, origin, .. } = &block.opened;
            let end = if name.starts_with("for") { "endfor" } else { "endif" };
            self.note(&origin.clone(), format!("{name} is never closed; it applies to the end. Write {end}"));
        }
    }

    /// Expands, reads what is inherited, and turns the list into entries.
    fn finish(mut self) -> Gathered {
        let mut inherited = 0;
        let (mut expanded, mut next) = (0, 0);
        while expanded < self.items.len() {
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
        Gathered { entries: entries.collect(), problems: self.problems }
    }
}

impl Facts for Gatherer<'_> {
    fn option(&self, name: &str) -> Option<String> {
        self.items.value_of(name).map(str::to_owned)
    }

    fn env(&self, name: &str) -> Option<String> {
        self.context.variable(name)
    }

    fn path_is(&self, test: Test, path: &str) -> bool {
        let path = self.context.cwd.join(path);
        match test {
            Test::File => path.is_file(),
            Test::Directory => path.is_dir(),
            _ => path.exists(),
        }
    }

    fn is_reload(&self) -> bool {
        self.context.is_reload
    }

    fn plugin(&self, name: &str) -> bool {
        let loads =
            |item: &Item| matches!(item.name.as_str(), "plugin" | "plugins" | "need-plugin" | "need-plugins");
        let names =
            |item: &Item| item.value.iter().any(|value| value.split(',').any(|word| word.trim() == name));
        self.items.iter().any(|item| loads(item) && names(item))
    }

    fn hostname(&self) -> String {
        self.context.fixed.hostname.clone()
    }

    fn glob(&self, pattern: &str) -> Result<Vec<String>, String> {
        glob_in(&self.context.cwd, pattern)
    }

    fn lines(&self, path: &str) -> Result<Vec<String>, String> {
        let bytes = source::fetch(path, &self.context.cwd)?;
        let text = source::decode(bytes).map_err(|(line, problem)| format!("line {line} has {problem}"))?;
        Ok(text.lines().map(str::to_owned).collect())
    }
}

fn glob_in(cwd: &Path, pattern: &str) -> Result<Vec<String>, String> {
    let options = glob::MatchOptions {
        case_sensitive: true,
        require_literal_separator: true,
        require_literal_leading_dot: true,
    };
    let base = format!("{}/", glob::Pattern::escape(&cwd.to_string_lossy()));
    let whole = if pattern.starts_with('/') { pattern.to_owned() } else { format!("{base}{pattern}") };
    let paths = glob::glob_with(&whole, options).map_err(|error| format!("is not a pattern: {error}"))?;
    let mut found = Vec::new();
    for path in paths.flatten().take(logic::MAX_ROUNDS + 1) {
        let shown = if pattern.starts_with('/') { &path } else { path.strip_prefix(cwd).unwrap_or(&path) };
        let mark = if path.is_dir() { "/" } else { "" };
        found.push(format!("{}{mark}", shown.to_string_lossy()));
    }
    if found.is_empty() {
        found.push(pattern.to_owned());
    }
    Ok(found)
}

fn directive_of(name: &str) -> Option<Directive> {
    match options::find(name)?.kind {
        Kind::Directive(directive) => Some(directive),
        _ => None,
    }
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

/// `HTTP_SOCKET` to `http-socket`; a few names have an underscore themselves.
fn option_of_variable(rest: &str) -> String {
    let lower = rest.to_ascii_lowercase();
    if options::find(&lower).is_some() { lower } else { lower.replace('_', "-") }
}

/// Kubernetes and Docker describe a service called `appserver` in variables that begin like ours.
fn is_service_link(rest: &str, name: &str) -> bool {
    let link = rest == "PORT" || rest.starts_with("PORT_") || rest.starts_with("SERVICE_");
    link && options::find(name).is_none()
}

fn is_python(file: &str) -> bool {
    let module = |text: &str| {
        text.split('.').all(|word| !word.is_empty() && word.chars().all(|c| c.is_alphanumeric() || c == '_'))
    };
    let (before, callable) = file.split_once(':').unwrap_or((file, ""));
    let is_script = [".py", ".wsgi"].iter().any(|extension| before.ends_with(extension));
    is_script
        || (!callable.is_empty()
            && module(before)
            && module(callable)
            && !before.bytes().all(|b| b.is_ascii_digit()))
}

fn resolve(text: &str) -> Result<(String, String), String> {
    let (name, host) = text.split_once('=').ok_or("has no `=`; write NAME=HOST")?;
    let addresses = (host, 0).to_socket_addrs().map_err(|error| format!("cannot be resolved: {error}"))?;
    let address = addresses.map(|address| address.ip()).find(std::net::IpAddr::is_ipv4);
    Ok((name.to_owned(), address.ok_or("has no IPv4 address")?.to_string()))
}

#[cfg(test)]
mod tests;
