//! YAML text to lines: the mapping under the top-level key `uwsgi`.
//!
//! The parser reports events with their lines, so names that come twice are kept and scalars stay
//! the text they were written as.

use std::collections::HashMap;
use std::rc::Rc;

use saphyr_parser::{Event, Parser, ScalarStyle, ScanError, StrInput};

use super::document::{Document, Line, Section, SyntaxError};

/// How deep mappings and lists may be nested.
const MAX_DEPTH: usize = 32;
/// Most nodes, aliases followed: few bytes can stand for very many (a "billion laughs").
const MAX_NODES: usize = 200_000;

/// What stands behind a key.
enum Node {
    /// Text, and whether it was written without quotes.
    Scalar(String, bool),
    List(Vec<Placed>),
    Map(Vec<(Placed, Placed)>),
}

/// A node and the line it begins on.
type Placed = (Rc<Node>, usize);

/// Reads the section's mapping. Lists repeat their name, null is skipped, and a mapping inside is
/// part of the mapping around it, as uWSGI has it.
///
/// # Errors
/// When the text is no YAML, or nested too deep.
pub fn read(text: &str, section: Section<'_>) -> Result<Document, SyntaxError> {
    let mut reader = Reader { parser: Parser::new_from_str(text), anchors: HashMap::new() };
    let root = reader.root()?;
    let (mut document, mut visits) = (Document::default(), 0);
    let Some((Node::Map(members), _)) = root.as_ref().map(|(node, line)| (&**node, line)) else {
        return Ok(document);
    };
    for ((key, _), (value, line)) in members {
        if matches!(&**key, Node::Scalar(name, _) if section.wants(name)) {
            match &**value {
                Node::Map(_) => document.found = true,
                Node::Scalar(..) if is_null(value) => document.found = true,
                _ => return Err(SyntaxError::new(*line, format!("{:?} must be a mapping", section.title()))),
            }
            flatten(&mut document, &mut visits, None, value, *line)?;
        }
    }
    Ok(document)
}

fn flatten(
    document: &mut Document,
    visits: &mut usize,
    name: Option<&str>,
    node: &Node,
    line: usize,
) -> Result<(), SyntaxError> {
    *visits += 1;
    if *visits > MAX_NODES {
        return Err(SyntaxError::new(line, format!("more than {MAX_NODES} values, aliases followed")));
    }
    match (node, name) {
        (Node::Scalar(..), _) if is_null(node) => {}
        (Node::Scalar(text, _), Some(name)) => document.lines.push(Line::new(name, text, line)),
        (Node::Scalar(text, _), None) => {
            document.notes.push((line, format!("{text:?} is ignored: it has no name")));
        }
        (Node::List(elements), name) => {
            for (element, line) in elements {
                flatten(document, visits, name, element, *line)?;
            }
        }
        (Node::Map(members), _) => {
            for ((key, place), (value, _)) in members {
                match &**key {
                    Node::Scalar(name, _) => flatten(document, visits, Some(name), value, *place)?,
                    _ => return Err(SyntaxError::new(*place, "a key must be a plain word")),
                }
            }
        }
    }
    Ok(())
}

fn is_null(node: &Node) -> bool {
    matches!(node, Node::Scalar(text, true) if matches!(text.as_str(), "" | "~" | "null"))
}

struct Reader<'a> {
    parser: Parser<'a, StrInput<'a>>,
    anchors: HashMap<usize, Rc<Node>>,
}

impl<'a> Reader<'a> {
    fn next(&mut self) -> Result<(Event<'a>, usize), SyntaxError> {
        match self.parser.next_event() {
            Some(Ok((event, span))) => Ok((event, span.start.line())),
            Some(Err(error)) => Err(syntax_error(&error)),
            None => Ok((Event::StreamEnd, 1)),
        }
    }

    /// The first document.
    fn root(&mut self) -> Result<Option<Placed>, SyntaxError> {
        loop {
            match self.next()? {
                (Event::StreamStart | Event::DocumentStart(_) | Event::Nothing, _) => {}
                (Event::StreamEnd | Event::DocumentEnd, _) => return Ok(None),
                (event, line) => return self.node(event, line, 0).map(Some),
            }
        }
    }

    fn node(&mut self, event: Event<'a>, line: usize, depth: usize) -> Result<Placed, SyntaxError> {
        if depth > MAX_DEPTH {
            return Err(SyntaxError::new(line, format!("nested deeper than {MAX_DEPTH} levels")));
        }
        let (node, anchor) = match event {
            Event::Scalar(text, style, anchor, _) => {
                (Node::Scalar(text.into_owned(), style == ScalarStyle::Plain), anchor)
            }
            Event::Alias(anchor) => {
                // Unknown while it is being defined: a node cannot contain itself.
                let known = self.anchors.get(&anchor).cloned();
                return known
                    .map(|node| (node, line))
                    .ok_or_else(|| SyntaxError::new(line, "an alias to something that is not there yet"));
            }
            Event::SequenceStart(anchor, _) => {
                let mut elements = Vec::new();
                loop {
                    match self.next()? {
                        (Event::SequenceEnd, _) => break,
                        (event, line) => elements.push(self.node(event, line, depth + 1)?),
                    }
                }
                (Node::List(elements), anchor)
            }
            Event::MappingStart(anchor, _) => {
                let mut members = Vec::new();
                loop {
                    match self.next()? {
                        (Event::MappingEnd, _) => break,
                        (event, line) => {
                            let key = self.node(event, line, depth + 1)?;
                            let (event, line) = self.next()?;
                            members.push((key, self.node(event, line, depth + 1)?));
                        }
                    }
                }
                (Node::Map(members), anchor)
            }
            _ => return Err(SyntaxError::new(line, "ends too early")),
        };
        let node = Rc::new(node);
        if anchor > 0 {
            self.anchors.insert(anchor, Rc::clone(&node));
        }
        Ok((node, line))
    }
}

fn syntax_error(error: &ScanError) -> SyntaxError {
    SyntaxError::new(error.marker().line(), error.info())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &str) -> Vec<String> {
        let document = read(text, Section::Default).expect("YAML");
        document.lines.iter().map(|it| format!("{}:{}={}", it.number, it.name, it.value)).collect()
    }

    #[test]
    fn scalars_stay_the_text_they_are() {
        let text = "uwsgi:\n  a: true\n  b: 'it''s'\n  c: 0x10 # comment\n  d: |\n    x\n    y\n  a: again\n";
        assert_eq!(lines(text), ["2:a=true", "3:b=it's", "4:c=0x10", "5:d=x\ny\n", "8:a=again"]);
    }

    #[test]
    fn lists_repeat_their_name_and_null_is_skipped() {
        let text = "uwsgi:\n  env:\n    - A=1\n    - B=2\n  f: [x, 'y']\n  n:\n  t: ~\n  e: ''\n";
        assert_eq!(lines(text), ["3:env=A=1", "4:env=B=2", "5:f=x", "5:f=y", "8:e="]);
    }

    #[test]
    fn mappings_inside_are_flattened_and_aliases_followed() {
        let text = "base: &base\n  a: 1\nuwsgi:\n  map:\n    k: v\n  <<: *base\n  x: &x [1]\n  y: *x\n";
        assert_eq!(lines(text), ["5:k=v", "2:a=1", "7:x=1", "7:y=1"]);
    }

    #[test]
    fn sections_are_top_level_keys() {
        let text = "appserver:\n  a: 1\nother:\n  b: 2\nuwsgi:\n  c: 3\n";
        assert_eq!(lines(text), ["2:a=1", "6:c=3"]);
        assert_eq!(read(text, Section::Named("other")).expect("YAML").lines, [Line::new("b", "2", 4)]);
        assert!(!read("x: 1", Section::Default).expect("YAML").found);
        assert!(!read("", Section::Default).expect("YAML").found);
        assert!(read("uwsgi:", Section::Default).expect("YAML").found);
    }

    #[test]
    fn what_is_no_yaml_names_its_line() {
        for text in ["uwsgi:\n\ta: 1", "uwsgi:\n  a: 'x", "uwsgi: [", "uwsgi: 5", "uwsgi:\n  a: *nope"] {
            assert!(read(text, Section::Default).is_err(), "{text:?}");
        }
        assert_eq!(read("uwsgi:\n  a: 1\n  b: @x", Section::Default).expect_err("reserved").line, 3);
    }

    #[test]
    fn deep_nesting_and_multiplying_aliases_end_in_an_error() {
        assert!(read(&format!("uwsgi:\n  a: {}", "[".repeat(1 << 20)), Section::Default).is_err());
        for leaf in ["x", "[]"] {
            let mut text = format!("a0: &a0 [{leaf}]\n");
            for level in 1..20 {
                let alias = format!("*a{}", level - 1);
                text.push_str(&format!("a{level}: &a{level} [{}]\n", vec![alias; 10].join(", ")));
            }
            text.push_str("uwsgi:\n  x: *a19\n");
            assert!(read(&text, Section::Default).is_err(), "{leaf}");
        }
    }
}
