//! Reading files in place: which one, how, and what of it.

use super::{Gatherer, MAX_DEPTH, MAX_TOTAL};
use crate::config::directive::Place;
use crate::config::document::{Format, Section};
use crate::config::{Entry, source};

/// How a file is to be read.
#[derive(Debug, Clone, Copy)]
pub(super) struct How {
    pub format: Option<Format>,
    /// Read as a part of another one: leaves the uppercase magic variables alone.
    pub template: bool,
}

/// Texts that are put around each file read from here on: `inject-before`, `inject-after`.
#[derive(Debug, Default)]
pub(super) struct Injections {
    before: Vec<Entry>,
    after: Vec<Entry>,
}

impl Injections {
    /// Adds the file that an option names.
    pub fn add(&mut self, place: Place, entry: Entry) {
        match place {
            Place::Before => self.before.push(entry),
            Place::After => self.after.push(entry),
        }
    }
}

/// The text of a file with what is put around it, and where each line of it comes from.
#[derive(Debug, Default)]
struct Compound {
    text: String,
    /// Name of each part, and the number of its first line in the whole.
    parts: Vec<(String, usize)>,
}

impl Compound {
    /// As in uWSGI the parts are joined as they are: one that does not end with a line break shares
    /// its last line with the next.
    fn add(&mut self, name: &str, text: &str) {
        self.parts.push((name.to_owned(), self.text.matches('\n').count() + 1));
        self.text.push_str(text);
    }

    /// `FILE:LINE` for a line of the whole.
    fn origin(&self, line: usize) -> String {
        let part = self.parts.iter().rev().find(|(_, first)| *first <= line);
        let (name, first) = part.expect("invariant: the first part begins with line 1");
        format!("{name}:{}", line - first + 1)
    }
}

impl Gatherer<'_> {
    /// A file named without an option.
    pub(super) fn positional(&mut self, file: String) {
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

    /// Reads a file in place.
    pub(super) fn read(&mut self, entry: &Entry, how: How) {
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
        let mut compound = Compound::default();
        for injected in self.injections.before.clone() {
            let file = injected.value.clone().unwrap_or_default();
            if !self.append(&mut compound, &injected, &file, format) {
                return;
            }
        }
        if !self.append(&mut compound, entry, name, format) {
            return;
        }
        for injected in self.injections.after.clone() {
            let file = injected.value.clone().unwrap_or_default();
            if !self.append(&mut compound, &injected, &file, format) {
                return;
            }
        }
        self.take_lines(entry, name, section, format, &compound);
    }

    /// Reads `name` to the end of the compound; false when it could not be, which has been told.
    fn append(&mut self, compound: &mut Compound, entry: &Entry, name: &str, format: Format) -> bool {
        let shown = if name == "-" { "standard input" } else { name };
        let bytes = match source::fetch(name, &self.context.cwd) {
            Ok(bytes) => bytes,
            Err(problem) => {
                self.problem(entry, problem);
                return false;
            }
        };
        self.bytes += bytes.len();
        if self.bytes > MAX_TOTAL {
            self.stop(entry, format!("is too much: more than {} MiB in all files", MAX_TOTAL >> 20));
            return false;
        }
        match source::decode(bytes) {
            Ok(text) => compound.add(shown, &self.magic.substitute(&text)),
            Err((line, problem)) => {
                let at = line_of(format, format!("{shown}:{line}"));
                self.problem(&at, format!("file contains {problem}"));
                return false;
            }
        }
        true
    }

    /// Takes up the lines of a section.
    fn take_lines(
        &mut self,
        entry: &Entry,
        name: &str,
        section: Option<&str>,
        format: Format,
        compound: &Compound,
    ) {
        let at = |line: usize| line_of(format, compound.origin(line));
        let section = Section::of(section);
        let document = match format.read(&compound.text, section, self.mode.as_deref()) {
            Ok(document) => document,
            Err(error) => {
                return self.problem(&at(error.line), format!("file is not well-formed: {}", error.problem));
            }
        };
        if format == Format::Ini {
            self.last_ini = Some(name.to_owned());
        }
        for (line, note) in document.notes {
            self.note(&compound.origin(line), note);
        }
        if !document.found && format.needs_section() {
            return self
                .problem(&at(1), format!("file has no {:?}, where options are looked for", section.title()));
        }
        if !document.found {
            let title = section.title();
            self.note(
                &entry.origin,
                format!("*** WARNING: Can't find section \"{title}\" in configuration file {name} ***"),
            );
        }
        // A block belongs to the file it begins in: an open one must not swallow another file.
        let (block, in_block) = (self.block.take(), std::mem::take(&mut self.in_block));
        for line in document.lines {
            let origin = compound.origin(line.number);
            self.feed(Entry { name: line.name, value: Some(line.value), origin });
        }
        self.close_block();
        (self.block, self.in_block) = (block, in_block);
    }
}

/// What a problem with a line of a file is about.
fn line_of(format: Format, origin: String) -> Entry {
    Entry { name: format.option().to_owned(), value: None, origin }
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
