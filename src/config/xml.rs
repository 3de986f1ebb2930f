//! XML text to lines: the child elements of `<uwsgi>`.

use roxmltree::{Document as Tree, Node, ParsingOptions};

use super::document::{Document, Line, LineEnds, Section, SyntaxError};

/// Most nodes of a file; the rest of the limits are those of all files.
const MAX_NODES: u32 = 200_000;

/// Reads a stanza: the one whose `id` is the section asked for, or else the first of each root.
/// An empty element stands for 1, as in uWSGI. An element with a `mode` counts in that mode, and
/// when none was chosen.
///
/// # Errors
/// When the text is no XML. Document type definitions are refused: entities have no use here.
pub fn read(text: &str, section: Section<'_>, mode: Option<&str>) -> Result<Document, SyntaxError> {
    let options = ParsingOptions { nodes_limit: MAX_NODES, ..ParsingOptions::default() };
    let tree = Tree::parse_with_options(text, options)
        .map_err(|error| SyntaxError::new(error.pos().row as usize, error.to_string()))?;
    let ends = LineEnds::of(text);
    let root = tree.root_element();
    let is_stanza = |node: &Node<'_, '_>| {
        node.is_element()
            && matches!(node.tag_name().name(), "uwsgi" | "appserver")
            && match section {
                Section::Default => true,
                Section::Named(id) => node.attribute("id") == Some(id),
            }
    };
    let stanza = std::iter::once(root).chain(root.children()).find(is_stanza);
    let mut document = Document { found: stanza.is_some(), ..Document::default() };
    let counts = |element: &Node<'_, '_>| {
        let wanted = |own| mode.is_none_or(|mode| mode == own);
        element.is_element() && element.attribute("mode").is_none_or(wanted)
    };
    for element in stanza.iter().flat_map(|stanza| stanza.children()).filter(counts) {
        add(&mut document, element, ends.line_at(element.range().start));
    }
    Ok(document)
}

fn add(document: &mut Document, element: Node<'_, '_>, number: usize) {
    let text = element.text().unwrap_or_default();
    let name = element.tag_name().name();
    let mount = match (element.attribute("mountpoint"), element.attribute("domain")) {
        (Some(path), _) => Some(format!("{path}={text}")),
        (None, Some(domain)) => Some(format!("{domain}|={text}")),
        (None, None) => None,
    };
    match mount {
        Some(mount) if name == "app" => document.lines.push(Line::new("mount", mount, number)),
        _ if text.is_empty() => document.lines.push(Line::new(name, "1", number)),
        _ => document.lines.push(Line::new(name, text, number)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &str, section: Section<'_>) -> Vec<String> {
        let document = read(text, section, None).expect("XML");
        document.lines.iter().map(|it| format!("{}:{}={}", it.number, it.name, it.value)).collect()
    }

    #[test]
    fn child_elements_are_options() {
        let text = "<uwsgi>\n<master/>\n<processes>2</processes>\n<a> sp </a>\n<!-- no -->\n<env>A=1</env>\n\
                    <env>B=&lt;</env></uwsgi>";
        assert_eq!(
            lines(text, Section::Default),
            ["2:master=1", "3:processes=2", "4:a= sp ", "6:env=A=1", "7:env=B=<"]
        );
        let app = "<uwsgi><app mountpoint=\"/x\">a:b</app></uwsgi>";
        assert_eq!(lines(app, Section::Default), ["1:mount=/x=a:b"]);
    }

    #[test]
    fn a_stanza_is_chosen_by_its_id() {
        let text = "<all><uwsgi id=\"a\"><x>1</x></uwsgi><uwsgi id=\"b\"><x>2</x></uwsgi></all>";
        assert_eq!(lines(text, Section::Default), ["1:x=1"]);
        assert_eq!(lines(text, Section::Named("b")), ["1:x=2"]);
        assert!(!read(text, Section::Named("c"), None).expect("XML").found);
    }

    #[test]
    fn an_element_of_another_mode_does_not_count() {
        let text = "<uwsgi><a mode=\"x\">1</a><b mode=\"y\">2</b><c>3</c></uwsgi>";
        let names = |mode| {
            let document = read(text, Section::Default, mode).expect("XML");
            document.lines.into_iter().map(|line| line.name).collect::<String>()
        };
        assert_eq!((names(None), names(Some("x"))), ("abc".to_owned(), "ac".to_owned()));
    }

    #[test]
    fn what_is_no_xml_names_its_line() {
        assert_eq!(read("<uwsgi>\n<a></b></uwsgi>", Section::Default, None).expect_err("no XML").line, 2);
        assert!(read("", Section::Default, None).is_err());
        let entities = "<!DOCTYPE a [<!ENTITY b \"c\">]><uwsgi><x>&b;</x></uwsgi>";
        assert!(read(entities, Section::Default, None).is_err(), "no entities of one's own");
        assert!(read(&"<a>".repeat(300_000), Section::Default, None).is_err());
    }
}
