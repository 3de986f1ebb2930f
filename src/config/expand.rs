//! Placeholders: `$(NAME)`, `@(source)` and `%(name)`, each looked up through a function passed in.
//!
//! The order of things is uWSGI's, its surprises included: the innermost construct is replaced
//! first, then the value is searched again, from its *second* byte. What cannot be resolved stays
//! as it is. Where uWSGI would go on until memory is exhausted, a [`Budget`] ends it.

use thiserror::Error;

/// Most replacements within one value; more mean that it refers to itself.
const MAX_REPLACEMENTS: usize = 1000;
/// Longest value, in bytes.
pub const MAX_VALUE: usize = 1 << 20;

/// Why a value cannot be expanded.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ExpandError {
    /// It grows without end.
    #[error("does not stop expanding; does it refer to itself?")]
    Endless,
    /// Longer than [`MAX_VALUE`].
    #[error("becomes longer than {MAX_VALUE} bytes when it is expanded")]
    TooLong,
    /// All values together need too much.
    #[error("is more than can be expanded: all values together have become too large")]
    Exhausted,
    /// The lookup failed, with its reason.
    #[error("{0}")]
    Lookup(String),
}

/// What all values of a configuration together may take: bytes looked at, and bytes produced.
#[derive(Debug, Clone)]
pub struct Budget {
    steps: usize,
    bytes: usize,
}

impl Default for Budget {
    fn default() -> Self {
        Budget { steps: 64 << 20, bytes: 16 << 20 }
    }
}

impl Budget {
    fn spend(&mut self, steps: usize, bytes: usize) -> Result<(), ExpandError> {
        self.steps = self.steps.checked_sub(steps).ok_or(ExpandError::Exhausted)?;
        self.bytes = self.bytes.checked_sub(bytes).ok_or(ExpandError::Exhausted)?;
        Ok(())
    }
}

/// Replaces every `symbol(…)` in `value` that `lookup` knows.
///
/// # Errors
/// When the value does not stop growing, or a lookup fails.
pub fn expand(
    value: &str,
    symbol: u8,
    budget: &mut Budget,
    lookup: &mut dyn FnMut(&str) -> Result<Option<String>, String>,
) -> Result<String, ExpandError> {
    let mut text = value.to_owned();
    let mut from = 0;
    for _ in 0..=MAX_REPLACEMENTS {
        let Some((start, end, found)) = first_known(&text, from, symbol, budget, lookup)? else {
            return Ok(text);
        };
        budget.spend(text.len(), found.len())?;
        text.replace_range(start..end, &found);
        if text.len() > MAX_VALUE {
            return Err(ExpandError::TooLong);
        }
        // uWSGI's loop goes on behind the first byte; that also ends `c = %(c)x`.
        from = 1;
    }
    Err(ExpandError::Endless)
}

/// The first construct behind `from` that can be resolved: its extent, brackets and symbol included,
/// and what it stands for.
fn first_known(
    text: &str,
    from: usize,
    symbol: u8,
    budget: &mut Budget,
    lookup: &mut dyn FnMut(&str) -> Result<Option<String>, String>,
) -> Result<Option<(usize, usize, String)>, ExpandError> {
    enum State {
        Outside,
        BehindSymbol,
        Inside { start: usize, depth: usize },
    }
    let bytes = text.as_bytes();
    let Some(first) = bytes.get(from..).and_then(|rest| memchr::memchr(symbol, rest)) else {
        return Ok(None);
    };
    budget.spend(bytes.len(), 0)?;
    let mut state = State::Outside;
    for (position, byte) in bytes.iter().enumerate().skip(from + first) {
        state = match (state, *byte) {
            // Whatever has begun before is given up: the innermost construct counts.
            (_, byte) if byte == symbol => State::BehindSymbol,
            (State::BehindSymbol, b'(') => State::Inside { start: position + 1, depth: 0 },
            (State::Inside { start, depth }, b'(') => State::Inside { start, depth: depth + 1 },
            (State::Inside { start, depth: 0 }, b')') => {
                if start < position
                    && let Some(found) = lookup(&text[start..position]).map_err(ExpandError::Lookup)?
                {
                    return Ok(Some((start - 2, position + 1, found)));
                }
                State::Outside
            }
            (State::Inside { start, depth }, b')') => State::Inside { start, depth: depth - 1 },
            (State::Inside { start, depth }, _) => State::Inside { start, depth },
            (State::Outside | State::BehindSymbol, _) => State::Outside,
        };
    }
    Ok(None)
}

/// Resolves what stands in `%(…)`: a name, or words separated by spaces that are calculated from left
/// to right without precedence.
///
/// Operands next to each other are joined; `+ - * /` work on whole numbers, a division by zero
/// gives 0; `++` and `--` add and subtract one. An unknown name is empty among others, and unknown
/// when it stands alone.
pub fn calculate(expression: &str, lookup: &mut dyn FnMut(&str) -> Option<String>) -> Option<String> {
    if !expression.contains(' ') {
        return lookup(expression);
    }
    let mut result = String::new();
    let mut operator = None;
    for word in expression.split(' ').filter(|word| !word.is_empty()) {
        match word {
            "++" => result = number(&result).wrapping_add(1).to_string(),
            "--" => result = number(&result).wrapping_sub(1).to_string(),
            _ if word.starts_with(['+', '-', '*', '/']) => operator = word.bytes().next(),
            _ => {
                let is_number = word.bytes().all(|byte| byte.is_ascii_digit());
                let operand = if is_number { word.to_owned() } else { lookup(word).unwrap_or_default() };
                result = apply(operator.take(), result, &operand);
                if result.len() > MAX_VALUE {
                    // The caller refuses the value it becomes part of.
                    return Some(result);
                }
            }
        }
    }
    Some(result)
}

fn apply(operator: Option<u8>, left: String, right: &str) -> String {
    let (a, b) = (number(&left), number(right));
    match operator {
        Some(b'+') => a.wrapping_add(b).to_string(),
        Some(b'-') => a.wrapping_sub(b).to_string(),
        Some(b'*') => a.wrapping_mul(b).to_string(),
        Some(_) if b == 0 => "0".to_owned(),
        Some(_) => a.wrapping_div(b).to_string(),
        None => left + right,
    }
}

/// The number that text begins with, as strtoll(3) reads it; 0 when there is none.
fn number(text: &str) -> i64 {
    let text = text.trim_start();
    let (negative, digits) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    digits.bytes().take_while(u8::is_ascii_digit).fold(0, |number: i64, digit| {
        let digit = i64::from(digit - b'0');
        number.saturating_mul(10).saturating_add(if negative { -digit } else { digit })
    })
}

/// Resolves what stands in `$(…)`: `NAME`, `NAME:-DEFAULT` (also for an empty variable) or
/// `NAME-DEFAULT`.
pub fn variable(expression: &str, lookup: &mut dyn FnMut(&str) -> Option<String>) -> Option<String> {
    if let Some(value) = lookup(expression) {
        return Some(value);
    }
    let (name, default) = expression.split_once('-')?;
    match name.strip_suffix(':') {
        Some(name) => lookup(name).filter(|value| !value.is_empty()),
        None => lookup(name),
    }
    .or_else(|| Some(default.to_owned()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn known(name: &str) -> Option<String> {
        let text = match name {
            "q" => "w",
            "w" => "z",
            "n" => "7",
            "in" => "a%(w)b",
            "front" => "%(w)",
            "empty" => "",
            "self" => "%(self)x",
            "loop" => "x%(loop)",
            "wide" => "-%(wide)%(wide)",
            _ => return None,
        };
        Some(text.to_owned())
    }

    fn placeholders(value: &str) -> Result<String, ExpandError> {
        expand(value, b'%', &mut Budget::default(), &mut |name| Ok(calculate(name, &mut known)))
    }

    #[test]
    fn values_expand_as_observed() {
        let cases = [
            ("plain", "plain"),
            ("%(q)", "w"),
            ("a%(q)b%(w)c", "awbzc"),
            ("%(nope) %() %( %(q", "%(nope) %() %( %(q"),
            // The first byte is not looked at again, so that the outer one is found only behind it.
            ("%(%(q))", "%(w)"),
            ("x%(%(q))", "xz"),
            ("%(front)", "%(w)"),
            ("x%(front)", "xz"),
            ("%(in)", "azb"),
            ("%(self)", "%(self)x"),
            ("%(q%w)", "%(q%w)"),
            ("%%(q) %(a(q)b)", "%w %(a(q)b)"),
            ("é%(q)é", "éwé"),
        ];
        for (value, expected) in cases {
            assert_eq!(placeholders(value).as_deref(), Ok(expected), "{value}");
        }
    }

    #[test]
    fn arithmetic_goes_from_left_to_right() {
        let cases = [
            ("1 + 2 * 3", "9"),
            ("q w", "wz"),
            ("q  w", "wz"),
            ("nope + 1", "1"),
            ("7 ++", "8"),
            ("7 --", "6"),
            ("7 -- 1", "61"),
            ("1 + 2 q", "3w"),
            ("5 / 0", "0"),
            ("2 - 5", "-3"),
            ("+ 3", "3"),
            ("n * n", "49"),
            ("q + 1", "1"),
            (" q", "w"),
            ("9223372036854775807 + 1", "-9223372036854775808"),
            ("99999999999999999999999 * 1", "9223372036854775807"),
        ];
        for (expression, expected) in cases {
            assert_eq!(calculate(expression, &mut known).as_deref(), Some(expected), "{expression}");
        }
        assert_eq!(calculate("nope", &mut known), None);
    }

    #[test]
    fn variables_have_defaults() {
        let mut known = |name: &str| match name {
            "A" => Some("a".to_owned()),
            "EMPTY" => Some(String::new()),
            _ => None,
        };
        let cases = [
            ("A", Some("a")),
            ("B", None),
            ("A:-x", Some("a")),
            ("B:-x", Some("x")),
            ("B-x", Some("x")),
            ("EMPTY-x", Some("")),
            ("EMPTY:-x", Some("x")),
            ("B:-a:b-c", Some("a:b-c")),
            ("B-", Some("")),
        ];
        for (expression, expected) in cases {
            assert_eq!(variable(expression, &mut known).as_deref(), expected, "{expression}");
        }
    }

    #[test]
    fn what_refers_to_itself_ends_in_an_error() {
        assert_eq!(placeholders("%(loop)"), Err(ExpandError::Endless));
        assert!(placeholders("%(wide)").is_err());
        let long = "y".repeat(MAX_VALUE);
        let result = expand("x$(A)", b'$', &mut Budget::default(), &mut |_| Ok(Some(long.clone())));
        assert_eq!(result, Err(ExpandError::TooLong));
    }

    #[test]
    fn all_values_share_a_budget() {
        let mut budget = Budget::default();
        let piece = "y".repeat(MAX_VALUE / 2);
        let results: Vec<_> =
            (0..40).map(|_| expand("$(A)", b'$', &mut budget, &mut |_| Ok(Some(piece.clone())))).collect();
        assert!(results[0].is_ok());
        assert_eq!(results[39], Err(ExpandError::Exhausted));
    }

    #[test]
    fn a_failing_lookup_is_told() {
        let result = expand("@(x)", b'@', &mut Budget::default(), &mut |_| Err("no x".to_owned()));
        assert_eq!(result, Err(ExpandError::Lookup("no x".to_owned())));
    }

    proptest! {
        #[test]
        fn any_value_ends(value in "[%$@() a-cé+*/-]{0,60}") {
            let mut lookup = |name: &str| Ok(calculate(name, &mut |name| match name {
                "a" => Some("%(b)".to_owned()),
                "b" => Some("(%(c)%(a)".to_owned()),
                _ => None,
            }));
            let _ = expand(&value, b'%', &mut Budget::default(), &mut lookup);
        }

        #[test]
        fn placeholders_are_replaced_where_they_stand_and_nothing_else(
            parts in proptest::collection::vec(("[a-z() é$@]{0,8}", "q|w|n|nope"), 0..9),
            end in "[a-z() é]{0,8}",
        ) {
            let text = |fill: &dyn Fn(&str) -> String| {
                let parts: String = parts.iter().map(|(text, it)| format!("{text}{}", fill(it))).collect();
                parts + &end
            };
            let value = text(&|name| format!("%({name})"));
            let expected = text(&|name| known(name).unwrap_or_else(|| format!("%({name})")));
            prop_assert_eq!(placeholders(&value), Ok(expected));
        }

        #[test]
        fn sums_are_those_of_whole_numbers(numbers in proptest::collection::vec(0..1_000_000_i64, 1..9)) {
            let words: Vec<String> = numbers.iter().map(ToString::to_string).collect();
            let sum = format!("{} + 0", words.join(" + "));
            let expected = numbers.iter().sum::<i64>().to_string();
            prop_assert_eq!(calculate(&sum, &mut known), Some(expected));
        }

        #[test]
        fn a_default_counts_where_there_is_no_variable(
            name in "[A-Z]{1,5}",
            default in "[^-]{0,9}[a-z:-]{0,9}",
        ) {
            let asked = format!("{name}:-{default}");
            prop_assert_eq!(variable(&asked, &mut |_| None), Some(default));
            let mut known = |it: &str| (it == name).then(|| "set".to_owned());
            prop_assert_eq!(variable(&asked, &mut known), Some("set".to_owned()));
        }

        #[test]
        fn without_a_symbol_nothing_changes(value in "[^%]{0,60}") {
            prop_assert_eq!(placeholders(&value), Ok(value));
        }
    }
}
