//! Media types: those of `mimefile`, then those that are built in.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use log::warn;

/// Extensions and what they mean.
#[derive(Debug, Default)]
pub(crate) struct MediaTypes {
    by_extension: HashMap<String, String>,
}

impl MediaTypes {
    /// Reads files in the form of `/etc/mime.types`; a later one wins. One that cannot be read is worth
    /// a warning, the built-in types are still there.
    pub(crate) fn read(files: &[PathBuf]) -> Self {
        let mut types = MediaTypes::default();
        for file in files {
            match std::fs::read(file) {
                Ok(text) => types.add(&String::from_utf8_lossy(&text)),
                Err(error) => warn!("mimefile: cannot read {}: {error}", file.display()),
            }
        }
        types
    }

    /// Lines of a type and its extensions; `#` begins a comment.
    fn add(&mut self, text: &str) {
        for line in text.lines() {
            let line = line.split_once('#').map_or(line, |(before, _)| before);
            let mut words = line.split_ascii_whitespace();
            let Some(media_type) = words.next() else { continue };
            for extension in words {
                self.by_extension.insert(extension.to_ascii_lowercase(), media_type.to_owned());
            }
        }
    }

    /// The media type of a file with this name. Text is said to be UTF-8.
    pub(crate) fn of(&self, name: &Path) -> String {
        let extension = name.extension().and_then(|extension| extension.to_str());
        let configured = extension.and_then(|it| self.by_extension.get(&it.to_ascii_lowercase())).cloned();
        let found = configured
            .unwrap_or_else(|| mime_guess::from_path(name).first_or_octet_stream().essence_str().to_owned());
        if found.starts_with("text/") { format!("{found}; charset=utf-8") } else { found }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_types_goes_before_those_built_in() {
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("mime.types");
        let text = "# types\napplication/x-own own OWN2 # mine\n\ntext/x-log log\nno-extension\n";
        std::fs::write(&file, text).expect("a file");
        let types = MediaTypes::read(&[file, directory.path().join("missing")]);
        let cases = [
            ("a.own", "application/x-own"),
            ("a.b.own2", "application/x-own"),
            ("A.OWN", "application/x-own"),
            ("a.log", "text/x-log; charset=utf-8"),
            ("a.html", "text/html; charset=utf-8"),
            ("a.png", "image/png"),
            ("a.unheard-of", "application/octet-stream"),
            ("own", "application/octet-stream"),
        ];
        for (name, expected) in cases {
            assert_eq!(types.of(Path::new(name)), expected, "{name}");
        }
    }
}
