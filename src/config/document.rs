//! What every format of configuration file comes down to: lines of name and value, in order.

use super::{ini, json, toml, xml, yaml};

/// One option as a file has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// The name, spelt as in the file.
    pub name: String,
    /// The value; empty where the file has none.
    pub value: String,
    /// Where it stands, counted from 1.
    pub number: usize,
}

impl Line {
    pub(super) fn new(name: impl Into<String>, value: impl Into<String>, number: usize) -> Self {
        Line { name: name.into(), value: value.into(), number }
    }
}

/// What a reader made of a file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Document {
    /// The options of the section asked for, in the order of the file.
    pub lines: Vec<Line>,
    /// Whether the section is there at all.
    pub found: bool,
    /// What the operator should know: line number and sentence.
    pub notes: Vec<(usize, String)>,
}

/// A file that is not well-formed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SyntaxError {
    /// Where, counted from 1.
    pub line: usize,
    /// What is wrong.
    pub problem: String,
}

impl SyntaxError {
    pub(super) fn new(line: usize, problem: impl Into<String>) -> Self {
        SyntaxError { line: line.max(1), problem: problem.into() }
    }
}

/// The part of a file that is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Section<'a> {
    /// `uwsgi` and `appserver`, both of them when both are there.
    Default,
    /// The one named behind the colon of `FILE:SECTION`.
    Named(&'a str),
}

impl<'a> Section<'a> {
    /// The section named by what stands behind the colon; nothing there means the default.
    pub fn of(name: Option<&'a str>) -> Self {
        name.filter(|name| !name.is_empty()).map_or(Section::Default, Section::Named)
    }

    /// Whether the section called `name` belongs to what is wanted.
    pub fn wants(self, name: &str) -> bool {
        match self {
            Section::Default => matches!(name, "uwsgi" | "appserver"),
            Section::Named(wanted) => name == wanted,
        }
    }

    /// For messages.
    pub fn title(self) -> &'a str {
        match self {
            Section::Default => "uwsgi",
            Section::Named(name) => name,
        }
    }
}

/// How a file is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// uWSGI's own rules.
    Ini,
    /// YAML 1.2.
    Yaml,
    /// JSON.
    Json,
    /// TOML.
    Toml,
    /// XML.
    Xml,
}

impl Format {
    /// The format that the end of a file name stands for; case counts, as in uWSGI.
    pub fn of_name(name: &str) -> Option<Format> {
        let (_, extension) = name.rsplit_once('.')?;
        match extension {
            "ini" => Some(Format::Ini),
            "yaml" | "yml" => Some(Format::Yaml),
            "json" | "js" => Some(Format::Json),
            "toml" => Some(Format::Toml),
            "xml" => Some(Format::Xml),
            _ => None,
        }
    }

    /// The option that names a file of this format.
    pub const fn option(self) -> &'static str {
        match self {
            Format::Ini => "ini",
            Format::Yaml => "yaml",
            Format::Json => "json",
            Format::Toml => "toml",
            Format::Xml => "xml",
        }
    }

    /// Whether a file without the section asked for is refused rather than read as empty. uWSGI
    /// does so for JSON; ini and YAML files without it load nothing.
    pub const fn needs_section(self) -> bool {
        matches!(self, Format::Json | Format::Toml | Format::Xml)
    }

    /// Reads the lines of a section; in XML those without a mode of their own, or of this `mode`.
    ///
    /// # Errors
    /// When the text is not well-formed. An ini file always is.
    pub fn read(self, text: &str, section: Section<'_>, mode: Option<&str>) -> Result<Document, SyntaxError> {
        match self {
            Format::Ini => Ok(ini::read(text, section)),
            Format::Yaml => yaml::read(text, section),
            Format::Json => json::read(text, section),
            Format::Toml => toml::read(text, section),
            Format::Xml => xml::read(text, section, mode),
        }
    }
}

/// Where the lines of a text end: a file may have a hundred thousand values whose lines are asked for.
#[derive(Debug)]
pub(super) struct LineEnds(Vec<usize>);

impl LineEnds {
    pub(super) fn of(text: &str) -> Self {
        LineEnds(memchr::memchr_iter(b'\n', text.as_bytes()).collect())
    }

    /// The number of the line that holds the byte at `offset`.
    pub(super) fn line_at(&self, offset: usize) -> usize {
        1 + self.0.partition_point(|end| *end < offset)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_extension_chooses_the_format_and_case_counts() {
        let cases = [
            ("a.ini", Some(Format::Ini)),
            ("/etc/x.d/a.yml", Some(Format::Yaml)),
            ("a.yaml", Some(Format::Yaml)),
            ("a.js", Some(Format::Json)),
            ("a.json", Some(Format::Json)),
            ("a.toml", Some(Format::Toml)),
            ("a.xml", Some(Format::Xml)),
            ("a.INI", None),
            ("ini", None),
            ("a.ini.bak", None),
        ];
        for (name, expected) in cases {
            assert_eq!(Format::of_name(name), expected, "{name}");
        }
    }

    #[test]
    fn a_line_break_belongs_to_the_line_it_ends() {
        let ends = LineEnds::of("a\nbc\n\nd");
        let lines: Vec<_> = (0..8).map(|offset| ends.line_at(offset)).collect();
        assert_eq!(lines, [1, 1, 2, 2, 2, 3, 4, 4]);
        assert_eq!(ends.line_at(1000), 4);
    }

    #[test]
    fn both_names_of_the_default_section_are_wanted() {
        assert!(Section::Default.wants("uwsgi") && Section::Default.wants("appserver"));
        assert!(!Section::Default.wants("other") && !Section::Named("other").wants("uwsgi"));
        assert_eq!(Section::of(Some("")), Section::Default);
    }
}
