//! TOML text to lines: the entries of the tables `uwsgi` and `appserver`.

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::document::{Document, Line, LineEnds, Section, SyntaxError};

/// Reads the section's table. Arrays repeat their name; all but strings is taken as written.
///
/// # Errors
/// When the text is no TOML, or the section is no table.
pub fn read(text: &str, section: Section<'_>) -> Result<Document, SyntaxError> {
    let ends = LineEnds::of(text);
    let root = DeTable::parse(text).map_err(|error| {
        let offset = error.span().map_or(0, |span| span.start);
        SyntaxError::new(ends.line_at(offset), error.message().replace('\n', "; "))
    })?;
    let mut tables = Vec::new();
    for (name, value) in root.get_ref() {
        if section.wants(name.get_ref()) {
            let number = ends.line_at(name.span().start);
            let problem = || SyntaxError::new(number, format!("{:?} must be a table", name.get_ref()));
            tables.push((name.span().start, value.get_ref().as_table().ok_or_else(problem)?));
        }
    }
    // Tables are kept sorted by name; the file's order is what counts.
    tables.sort_by_key(|(start, _)| *start);
    let mut document = Document { found: !tables.is_empty(), ..Document::default() };
    for (_, table) in tables {
        let mut members: Vec<_> = table.iter().collect();
        members.sort_by_key(|(name, _)| name.span().start);
        for (name, value) in members {
            add(&mut document, (text, &ends), name.get_ref(), value, true);
        }
    }
    Ok(document)
}

fn add(
    document: &mut Document,
    (text, ends): (&str, &LineEnds),
    name: &str,
    value: &Spanned<DeValue<'_>>,
    repeat: bool,
) {
    let number = ends.line_at(value.span().start);
    let value = match value.get_ref() {
        DeValue::String(value) => value.to_string(),
        DeValue::Array(values) if repeat => {
            return values.iter().for_each(|value| add(document, (text, ends), name, value, false));
        }
        DeValue::Array(_) | DeValue::Table(_) => {
            return document
                .notes
                .push((number, format!("{name} is ignored: it is neither a value nor a list of them")));
        }
        _ => text.get(value.span()).unwrap_or_default().to_owned(),
    };
    document.lines.push(Line::new(name, value, number));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_read_in_the_order_of_the_file() {
        let text = "x = 1\n[uwsgi]\nz = \"b\"\nmaster = true\nenv = [\"A=1\",\n\"B=2\"]\n[appserver]\na = 0x10\n\
                    [appserver.nested]\nb = 1\n";
        let document = read(text, Section::Default).expect("TOML");
        let expected =
            [("z", "b", 3), ("master", "true", 4), ("env", "A=1", 5), ("env", "B=2", 6), ("a", "0x10", 8)]
                .map(|(name, value, number)| Line::new(name, value, number));
        assert_eq!(document.lines, expected);
        assert_eq!(document.notes.len(), 1);
        assert!(!read("", Section::Default).expect("TOML").found);
    }

    #[test]
    fn what_is_no_toml_names_its_line() {
        let error = read("[uwsgi]\na = 1\nb = \n", Section::Default).expect_err("no TOML");
        assert_eq!(error.line, 3, "{error:?}");
        assert!(read("[uwsgi]\na = 1\na = 2", Section::Default).is_err(), "TOML forbids a name twice");
        assert!(read("uwsgi = 1", Section::Default).is_err());
        assert!(read(&format!("[uwsgi]\na = {}", "[".repeat(1 << 20)), Section::Default).is_err());
    }
}
