//! JSON text to lines: the members of the object `uwsgi`, in the order of the file.
//!
//! Values are taken as written where that is possible, so that a number keeps all its digits.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::document::{Document, Line, LineEnds, Section, SyntaxError};

/// The members of an object in order, names that come twice included.
struct Members<'a>(Vec<(String, &'a RawValue)>);

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Collect;

        impl<'de> Visitor<'de> for Collect {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }

        deserializer.deserialize_map(Collect)
    }
}

/// Reads the members of the section's object: arrays repeat their name, `true` is 1, `false` and
/// `null` are 0.
///
/// # Errors
/// When the text is no JSON, or the section is no object.
pub fn read(text: &str, section: Section<'_>) -> Result<Document, SyntaxError> {
    let root: Members<'_> =
        serde_json::from_str(text).map_err(|error| SyntaxError::new(error.line(), without_place(&error)))?;
    let places = Places { start: text.as_ptr() as usize, ends: LineEnds::of(text) };
    let mut document = Document::default();
    for (name, value) in root.0.iter().filter(|(name, _)| section.wants(name)) {
        let number = places.line_of(value);
        let members: Members<'_> = serde_json::from_str(value.get())
            .map_err(|_| SyntaxError::new(number, format!("{name:?} must be an object")))?;
        document.found = true;
        for (name, value) in &members.0 {
            add(&mut document, &places, name, value, true);
        }
    }
    Ok(document)
}

fn add(document: &mut Document, places: &Places, name: &str, value: &RawValue, repeat: bool) {
    let number = places.line_of(value);
    let written = value.get();
    let value = match written.as_bytes().first() {
        Some(b'"') => serde_json::from_str::<String>(written).ok(),
        Some(b't') => Some("1".to_owned()),
        Some(b'f' | b'n') => Some("0".to_owned()),
        Some(b'[') if repeat => {
            let elements: Vec<&RawValue> = serde_json::from_str(written).unwrap_or_default();
            return elements.into_iter().for_each(|it| add(document, places, name, it, false));
        }
        Some(b'[' | b'{') => None,
        _ => Some(written.to_owned()),
    };
    match value {
        Some(value) => document.lines.push(Line::new(name, value, number)),
        None => {
            document
                .notes
                .push((number, format!("{name} is ignored: it is neither a value nor a list of them")));
        }
    }
}

/// Where values stand in the text they borrow from.
struct Places {
    start: usize,
    ends: LineEnds,
}

impl Places {
    /// The line on which a value begins.
    fn line_of(&self, value: &RawValue) -> usize {
        self.ends.line_at((value.get().as_ptr() as usize).saturating_sub(self.start))
    }
}

/// The message without the place it ends with, which has its own field.
fn without_place(error: &serde_json::Error) -> String {
    let text = error.to_string();
    text.rsplit_once(" at line ").map_or(text.clone(), |(message, _)| message.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &str) -> Vec<String> {
        let document = read(text, Section::Default).expect("JSON");
        document.lines.iter().map(|it| format!("{}:{}={}", it.number, it.name, it.value)).collect()
    }

    #[test]
    fn values_become_text() {
        let text = "{\"x\": 1, \"uwsgi\": {\n\"a\": \"b\\n\",\n\"t\": true, \"f\": false, \"n\": null,\n\
                    \"i\": 5000000000, \"r\": 1.50, \"a\": \"again\"}}";
        let expected = ["2:a=b\n", "3:t=1", "3:f=0", "3:n=0", "4:i=5000000000", "4:r=1.50", "4:a=again"];
        assert_eq!(lines(text), expected);
    }

    #[test]
    fn lists_repeat_their_name_and_objects_are_ignored_aloud() {
        let text = r#"{"appserver": {"env": ["A=1", 2, ["no"]], "o": {}}}"#;
        assert_eq!(lines(text), ["1:env=A=1", "1:env=2"]);
        let notes = read(text, Section::Default).expect("JSON").notes;
        assert_eq!(notes.len(), 2);
        assert!(notes[1].1.starts_with("o is ignored"), "{notes:?}");
    }

    #[test]
    fn what_is_no_json_names_its_line() {
        let error = read("{\n\"uwsgi\": {\n\"a\": }}", Section::Default).expect_err("no JSON");
        assert_eq!(error, SyntaxError::new(3, "expected value"));
        assert_eq!(read("{\n\"uwsgi\": 1}", Section::Default).expect_err("a number").line, 2);
        assert!(read("[]", Section::Default).is_err() && read("", Section::Default).is_err());
        assert!(!read("{}", Section::Default).expect("JSON").found);
    }

    #[test]
    fn deep_nesting_ends_in_an_error() {
        assert!(read(&"[".repeat(1 << 20), Section::Default).is_err());
        let deep = format!("{{\"uwsgi\": {{\"a\": {}1{}}}}}", "[".repeat(100_000), "]".repeat(100_000));
        assert!(
            read(&deep, Section::Default).is_ok_and(|it| it.lines.is_empty())
                || read(&deep, Section::Default).is_err()
        );
    }
}
