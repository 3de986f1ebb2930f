//! The fuzz targets over random input: the same harness, without libFuzzer. The seed is fixed, so a
//! failure comes back; `FUZZ_SECONDS` and `FUZZ_SEED` go further (see `scripts/fuzz`).

use std::time::{Duration, Instant};

#[path = "../fuzz/harness.rs"]
mod harness;

/// Pieces that mean something to one of the readers.
const WORDS: &[&str] = &[
    "[uwsgi]\n",
    "[",
    "]",
    "=",
    "\n",
    "\r\n",
    ";",
    "#",
    "%",
    "%(",
    "$(",
    "@(",
    "(",
    ")",
    "%n",
    "a",
    "b",
    "a=",
    "b=",
    "%(a)",
    "%(b)",
    "x%(a)",
    "$(a:-",
    "-",
    ":-",
    " + ",
    " - ",
    " * ",
    " / ",
    "++",
    "9223372036854775807",
    "0",
    " ",
    "uwsgi:\n",
    "  a: ",
    "- ",
    "{",
    "}",
    "[]",
    "\"",
    "'",
    "&a ",
    "*a",
    "|",
    ">",
    "\t",
    "{\"uwsgi\": {\"a\": ",
    "}}",
    "null",
    "true",
    "[appserver]\n",
    "a = ",
    "<uwsgi>",
    "</uwsgi>",
    "<a>",
    "</a>",
    "<a/>",
    "<!--",
    "&lt;",
    "é",
    "\u{feff}",
];

/// xorshift64*: small, and the same everywhere.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % limit
    }

    fn input(&mut self) -> Vec<u8> {
        let mut input = Vec::new();
        for _ in 0..self.below(40) {
            match self.below(20) {
                0 => input.push(self.below(256) as u8),
                1 => {
                    let word = WORDS[self.below(WORDS.len())].repeat(self.below(500));
                    input.extend_from_slice(word.as_bytes());
                }
                _ => input.extend_from_slice(WORDS[self.below(WORDS.len())].as_bytes()),
            }
        }
        input
    }
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

fn run(target: fn(&[u8])) {
    let mut random = Random(number("FUZZ_SEED", 0x5eed).max(1));
    let limit = Duration::from_secs(number("FUZZ_SECONDS", 2));
    let started = Instant::now();
    while started.elapsed() < limit {
        let input = random.input();
        let begun = Instant::now();
        if std::panic::catch_unwind(|| target(&input)).is_err() {
            panic!("fails for {:?}", String::from_utf8_lossy(&input));
        }
        assert!(
            begun.elapsed() < Duration::from_secs(20),
            "takes forever: {:?}",
            String::from_utf8_lossy(&input)
        );
    }
}

#[test]
fn ini_files_are_read_whatever_they_hold() {
    run(harness::ini);
}

#[test]
fn other_formats_are_read_or_refused() {
    run(harness::formats);
}

#[test]
fn values_expand_or_are_refused() {
    run(harness::expand);
}
