//! What a misspelt option was meant to be.

use super::options::OPTIONS;

/// How many edits may lie between a word and what it was meant to be.
const MAX_EDITS: usize = 2;

/// The option whose name is closest to `word`, if it is close at all.
pub fn option(word: &str) -> Option<&'static str> {
    let names = OPTIONS.iter().flat_map(|row| row.names());
    // The distance is quadratic in the length, and no name is this long.
    let distance = |name: &str| match name.len().abs_diff(word.len()) > MAX_EDITS {
        true => usize::MAX,
        false => strsim::osa_distance(&word.replace('_', "-").to_ascii_lowercase(), name),
    };
    let (edits, name) = names.map(|name| (distance(name), name)).min_by_key(|(edits, _)| *edits)?;
    // In a short word two edits leave nothing of what was meant.
    (edits <= MAX_EDITS && edits * 3 <= word.len()).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_finds_its_option() {
        for (word, expected) in
            [("proceses", "processes"), ("http_socket", "http-socket"), ("Threads", "threads")]
        {
            assert_eq!(option(word), Some(expected), "{word}");
        }
        for word in ["project-name", "xx", "", &"x".repeat(1 << 20)] {
            assert_eq!(option(word), None);
        }
    }
}
