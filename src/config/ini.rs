//! INI text to lines, by uWSGI's own rules.
//!
//! They are simpler than those of other ini dialects: a comment is a whole line, nothing is quoted,
//! nothing is continued, and a section may come back later in the file.

use super::document::{Document, Line, Section};

/// Reads the lines of a section. Every text is a valid ini file.
pub fn read(text: &str, section: Section<'_>) -> Document {
    let mut document = Document::default();
    // Keys before the first header belong to a section without a name, which nobody can ask for.
    let mut inside = false;
    for (index, line) in text.split('\n').enumerate() {
        let (number, line) = (index + 1, trim(line));
        if let Some(rest) = line.strip_prefix('[') {
            // uWSGI drops the last character whatever it is.
            let name = rest.strip_suffix(|_: char| true).unwrap_or_default();
            inside = section.wants(name);
            document.found |= inside;
            if !rest.ends_with(']') {
                document.notes.push((number, format!("the section header {line:?} does not end with `]`")));
            }
        } else if inside && !line.is_empty() && !line.starts_with([';', '#']) {
            let (name, value) = line.split_once('=').unwrap_or((line, ""));
            document.lines.push(Line::new(trim(name), trim(value), number));
        }
    }
    document
}

fn trim(text: &str) -> &str {
    text.trim_matches([' ', '\t', '\r'])
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    /// Lines of the default section as `name=value`.
    fn lines(text: &str) -> Vec<String> {
        let document = read(text, Section::Default);
        document.lines.into_iter().map(|line| format!("{}={}", line.name, line.value)).collect()
    }

    #[test]
    fn lines_are_read_by_the_rules_of_uwsgi() {
        let cases: [(&str, &[&str]); 12] = [
            ("[uwsgi]\na = b", &["a=b"]),
            ("[uwsgi]\r\n a\t=  b c \r\n", &["a=b c"]),
            ("[uwsgi]\n; no\n# no\n  ; no\na = b ; yes # too", &["a=b ; yes # too"]),
            ("[uwsgi]\nmaster\nvacuum =", &["master=", "vacuum="]),
            ("[uwsgi]\nenv = A=b=c", &["env=A=b=c"]),
            ("[uwsgi]\na = \"quoted\"\nb = 'x'", &["a=\"quoted\"", "b='x'"]),
            ("[uwsgi]\na = 1 \\\nb = 2", &["a=1 \\", "b=2"]),
            ("[uwsgi]\n= x\nmy key = y", &["=x", "my key=y"]),
            ("a = 1\n[uwsgi]\nb = 2\n[other]\nc = 3\n[uwsgi]\nd = 4", &["b=2", "d=4"]),
            ("[appserver]\na = 1\n[uwsgi]\nb = 2", &["a=1", "b=2"]),
            ("[uwsgi]\na = 1\na = 2", &["a=1", "a=2"]),
            ("", &[]),
        ];
        for (text, expected) in cases {
            assert_eq!(lines(text), expected, "{text:?}");
        }
    }

    #[test]
    fn a_section_is_chosen_by_name() {
        let text = "[uwsgi]\na = 1\n[other]\nb = 2\n";
        let document = read(text, Section::Named("other"));
        assert_eq!(document.lines, [Line::new("b", "2", 4)]);
        assert!(document.found && !read(text, Section::Named("third")).found);
        assert!(!read("a = 1", Section::Default).found);
    }

    #[test]
    fn a_header_with_something_behind_it_is_pointed_out() {
        let document = read("\n[uwsgi] ; the app\na = 1", Section::Default);
        assert!(!document.found);
        let note = "the section header \"[uwsgi] ; the app\" does not end with `]`";
        assert_eq!(document.notes, [(2, note.to_owned())]);
    }

    const NAME: &str = "[a-z][a-z0-9-]{0,9}";
    /// Neither begins nor ends with a blank.
    const VALUE: &str = r"[^\s\x00-\x20]([^\r\n\t\x00]{0,20}[^\s\x00-\x20])?";

    proptest! {
        #[test]
        fn what_is_written_is_read_again_whatever_surrounds_it(
            options in vec((NAME, VALUE), 0..9),
            end in "\r?\n",
            pad in "[ \t]{0,3}",
            noise in "(#[^\r\n]{0,9})?|;x = 1|[ \t]{0,3}",
        ) {
            let mut text = format!("{pad}[uwsgi]{end}");
            for (name, value) in &options {
                text.push_str(&format!("{pad}{name}{pad}={pad}{value}{pad}{end}{noise}{end}"));
            }
            let expected: Vec<_> = options.iter().map(|(name, value)| format!("{name}={value}")).collect();
            prop_assert_eq!(lines(&text), expected);
        }

        #[test]
        fn other_sections_do_not_matter(
            before in "([a-z]{1,5}=[a-z]{0,5}\n){0,3}",
            inside in "([a-z]{1,5}=[a-z]{0,5}\n){0,3}",
            other in "\\[[a-t]{1,6}\\]\n([a-z]{1,5}=[a-z]{0,5}\n){0,3}",
        ) {
            let plain = lines(&format!("[uwsgi]\n{inside}"));
            prop_assert_eq!(lines(&format!("{before}{other}[uwsgi]\n{inside}{other}")), plain);
        }

        #[test]
        fn any_text_is_read_and_each_line_is_found_where_it_says(text in "\\PC{0,40}|([\\[\\]=;# a%\r\n]{0,80})") {
            let text = format!("[uwsgi]\n{text}");
            for line in read(&text, Section::Default).lines {
                let original = text.split('\n').nth(line.number - 1).expect("a line of the text");
                prop_assert!(original.contains(&line.name) && original.contains(&line.value));
            }
        }
    }
}
