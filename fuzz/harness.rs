//! What is fuzzed: each function takes any bytes and must return. `fuzz_targets/` hands it to
//! libFuzzer, `tests/fuzz.rs` feeds it random input where cargo-fuzz is not installed.

use appserver::config::document::{Format, Section};
use appserver::config::expand::{self, Budget, MAX_VALUE};
use appserver::config::magic::{Fixed, Magic};
use appserver::config::{ini, source};

/// The way a file goes: bytes, text, magic variables, lines of an ini file.
pub fn ini(data: &[u8]) {
    let Ok(text) = source::decode(data.to_vec()) else { return };
    let text = Magic::new(&Fixed::default()).substitute(&text);
    let document = ini::read(&text, Section::Default);
    let count = text.split('\n').count();
    for line in document.lines {
        assert!((1..=count).contains(&line.number));
        assert_eq!(line.value.trim_matches([' ', '\t', '\r']), line.value);
    }
}

/// The other formats: whatever they make of the bytes, errors name a line of the text.
pub fn formats(data: &[u8]) {
    let Ok(text) = source::decode(data.to_vec()) else { return };
    for format in [Format::Yaml, Format::Json, Format::Toml, Format::Xml] {
        if let Err(error) = format.read(&text, Section::Default, None) {
            assert!(error.line >= 1);
        }
    }
}

/// A value and the placeholders it may name: the lines of the input after the first.
pub fn expand(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let mut lines = text.split('\n');
    let value = lines.next().unwrap_or_default();
    let known: Vec<(&str, &str)> = lines.filter_map(|line| line.split_once('=')).collect();
    let find =
        |name: &str| known.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned());
    let mut budget = Budget::default();
    for symbol in [b'$', b'@', b'%'] {
        let expanded = expand::expand(value, symbol, &mut budget, &mut |name| {
            Ok(match symbol {
                b'$' => expand::variable(name, &mut |name| find(name)),
                _ => expand::calculate(name, &mut |name| find(name)),
            })
        });
        if let Ok(expanded) = expanded {
            assert!(expanded.len() <= MAX_VALUE.max(value.len()));
        }
    }
}
