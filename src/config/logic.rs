//! Blocks: `for…` and `if-…` up to their `end`. They apply to each line in between on its own, so
//! a loop over two lines runs the first for all values before the second.

use std::rc::Rc;

use super::Entry;

/// Most rounds of a loop.
pub const MAX_ROUNDS: usize = 100_000;

/// What an `if-…` asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Test {
    /// `if-opt`: an option was given before, or has this value.
    Option,
    /// `if-env`: a variable is set, or has this value.
    Env,
    /// `if-exists`
    Exists,
    /// `if-file`: a regular file.
    File,
    /// `if-dir`
    Directory,
    /// `if-reload`: this is not the first start.
    Reload,
    /// `if-plugin`: the plugin was asked for before.
    Plugin,
    /// `if-hostname`
    Hostname,
    /// `if-hostname-match`: a regular expression.
    HostnameMatch,
}

/// What a `for…` goes through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loop {
    /// `for`: words.
    Words,
    /// `for-times`: the numbers from 1.
    Times,
    /// `for-glob`: files that match a pattern, or else the pattern.
    Glob,
    /// `for-readline`: the lines of a file.
    Lines,
}

/// The kinds of blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BlockKind {
    /// `if-…`; negated for `if-not-…`.
    If(Test, bool),
    /// `for…`
    For(Loop),
}

/// What blocks may ask about the world.
pub trait Facts {
    /// The first value given to an option so far.
    fn option(&self, name: &str) -> Option<String>;
    /// A variable of the environment.
    fn env(&self, name: &str) -> Option<String>;
    /// Whether a path is what the test asks for.
    fn path_is(&self, test: Test, path: &str) -> bool;
    /// Whether this is a reload.
    fn is_reload(&self) -> bool;
    /// Whether a plugin was asked for so far.
    fn plugin(&self, name: &str) -> bool;
    /// Name of the machine.
    fn hostname(&self) -> String;
    /// Paths that match; directories end with a slash.
    ///
    /// # Errors
    /// When the pattern makes no sense.
    fn glob(&self, pattern: &str) -> Result<Vec<String>, String>;
    /// Lines of a file.
    ///
    /// # Errors
    /// When it cannot be read.
    fn lines(&self, path: &str) -> Result<Vec<String>, String>;
}

/// An open block.
#[derive(Debug, Clone)]
pub struct Block {
    kind: BlockKind,
    inverted: bool,
    /// What a loop goes through: its lines may be many, and its file large.
    rounds: Option<Rc<[Option<String>]>>,
    /// The line that opened it.
    pub opened: Entry,
}

impl Block {
    /// Opens a block.
    pub fn new(kind: BlockKind, opened: Entry) -> Self {
        Block { kind, inverted: false, rounds: None, opened }
    }

    /// `else`: from here on the lines count that did not before. False for a loop, which has none.
    pub fn invert(&mut self) -> bool {
        self.inverted = !self.inverted;
        matches!(self.kind, BlockKind::If(..))
    }

    /// The option that the block's condition is about.
    pub fn option_asked_for(&self) -> Option<&str> {
        let argument = self.opened.value.as_deref()?;
        let name = argument.split_once('=').map_or(argument, |(name, _)| name);
        matches!(self.kind, BlockKind::If(Test::Option, _)).then_some(name)
    }

    /// How often the next line applies, and what `%(_)` is each time; `None` leaves it as it is.
    ///
    /// # Errors
    /// When the block's argument makes no sense.
    pub fn rounds(&mut self, facts: &impl Facts) -> Result<Rc<[Option<String>]>, String> {
        if let Some(rounds) = &self.rounds {
            return Ok(Rc::clone(rounds));
        }
        let argument = self.opened.value.as_deref().unwrap_or_default();
        let rounds = match self.kind {
            BlockKind::If(test, negated) => {
                let (holds, value) = check(test, argument, facts)?;
                let value = value.filter(|_| !self.inverted);
                let applies = holds != (negated != self.inverted);
                return Ok(if applies { Rc::new([value]) } else { Rc::new([]) });
            }
            BlockKind::For(Loop::Words) => words(argument),
            BlockKind::For(Loop::Glob) => facts.glob(argument)?,
            BlockKind::For(Loop::Lines) => facts.lines(argument)?,
            BlockKind::For(Loop::Times) => {
                let times: usize = argument
                    .parse()
                    .ok()
                    .filter(|times| *times <= MAX_ROUNDS)
                    .ok_or_else(|| format!("is not a number of times; use 0 to {MAX_ROUNDS}"))?;
                (1..=times).map(|number| number.to_string()).collect()
            }
        };
        if rounds.len() > MAX_ROUNDS {
            return Err(format!("has more than {MAX_ROUNDS} rounds"));
        }
        let rounds: Rc<[_]> = rounds.into_iter().map(Some).collect();
        self.rounds = Some(Rc::clone(&rounds));
        Ok(rounds)
    }
}

fn words(text: &str) -> Vec<String> {
    text.split(' ').filter(|word| !word.is_empty()).map(str::to_owned).collect()
}

/// Whether a test holds, and what it leaves in `%(_)`.
fn check(test: Test, argument: &str, facts: &impl Facts) -> Result<(bool, Option<String>), String> {
    Ok(match test {
        Test::Option => compare(argument, |name| facts.option(name)),
        Test::Env => compare(argument, |name| facts.env(name)),
        Test::Exists | Test::File | Test::Directory => {
            (facts.path_is(test, argument), Some(argument.to_owned()))
        }
        Test::Reload => (facts.is_reload(), None),
        Test::Plugin => (facts.plugin(argument), Some(argument.to_owned())),
        Test::Hostname => (facts.hostname() == argument, Some(argument.to_owned())),
        Test::HostnameMatch => {
            let pattern = regex_lite::Regex::new(argument)
                .map_err(|error| format!("is not a regular expression: {error}"))?;
            (pattern.is_match(&facts.hostname()), Some(argument.to_owned()))
        }
    })
}

/// `NAME` or `NAME=VALUE`.
fn compare(argument: &str, lookup: impl Fn(&str) -> Option<String>) -> (bool, Option<String>) {
    let (name, wanted) = match argument.split_once('=') {
        Some((name, wanted)) => (name, Some(wanted)),
        None => (argument, None),
    };
    let found = lookup(name);
    let holds = found.as_deref().is_some_and(|found| wanted.is_none_or(|wanted| wanted == found));
    (holds, found)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct World;

    impl Facts for World {
        fn option(&self, name: &str) -> Option<String> {
            (name == "o").then(|| "1".to_owned())
        }
        fn env(&self, name: &str) -> Option<String> {
            (name == "E").then(|| "e".to_owned())
        }
        fn path_is(&self, test: Test, path: &str) -> bool {
            path == "/dir" && test != Test::File
        }
        fn is_reload(&self) -> bool {
            true
        }
        fn plugin(&self, name: &str) -> bool {
            name == "python"
        }
        fn hostname(&self) -> String {
            "web1".to_owned()
        }
        fn glob(&self, pattern: &str) -> Result<Vec<String>, String> {
            Ok(vec![pattern.replace('*', "a")])
        }
        fn lines(&self, path: &str) -> Result<Vec<String>, String> {
            if path == "/l" { Ok(vec!["x".to_owned(), String::new()]) } else { Err("no".to_owned()) }
        }
    }

    fn block(kind: BlockKind, argument: &str) -> Block {
        let value = Some(argument.to_owned());
        Block::new(kind, Entry { name: "x".to_owned(), value, origin: "a.ini:1".to_owned() })
    }

    #[test]
    fn conditions_hold_or_not_and_leave_a_value() {
        let some = |text: &str| Some(Some(text.to_owned()));
        let cases = [
            (Test::Option, "o", some("1"), None),
            (Test::Option, "o=1", some("1"), None),
            (Test::Option, "o=2", None, some("1")),
            (Test::Option, "p", None, Some(None)),
            (Test::Env, "E", some("e"), None),
            (Test::Env, "E=e", some("e"), None),
            (Test::Env, "F", None, Some(None)),
            (Test::Exists, "/dir", some("/dir"), None),
            (Test::Directory, "/dir", some("/dir"), None),
            (Test::File, "/dir", None, some("/dir")),
            (Test::Reload, "", Some(None), None),
            (Test::Plugin, "python", some("python"), None),
            (Test::Hostname, "web", None, some("web")),
            (Test::HostnameMatch, "^web[0-9]$", some("^web[0-9]$"), None),
        ];
        for (test, argument, holds, fails) in cases {
            for (negated, expected) in [(false, &holds), (true, &fails)] {
                let rounds = block(BlockKind::If(test, negated), argument).rounds(&World).unwrap();
                assert_eq!(rounds.first(), expected.as_ref(), "{test:?} {argument} {negated}");
            }
        }
        assert!(block(BlockKind::If(Test::HostnameMatch, false), "(").rounds(&World).is_err());
    }

    #[test]
    fn else_turns_a_condition_around() {
        let mut block = block(BlockKind::If(Test::Env, false), "E");
        assert_eq!(block.rounds(&World).unwrap().len(), 1);
        assert!(block.invert());
        assert!(block.rounds(&World).unwrap().is_empty());
        assert!(!super::tests::block(BlockKind::For(Loop::Words), "a").invert());
    }

    #[test]
    fn loops_go_through_their_values() {
        let cases: [(Loop, &str, &[&str]); 5] = [
            (Loop::Words, " a  b ", &["a", "b"]),
            (Loop::Times, "3", &["1", "2", "3"]),
            (Loop::Times, "0", &[]),
            (Loop::Glob, "*.ini", &["a.ini"]),
            (Loop::Lines, "/l", &["x", ""]),
        ];
        for (kind, argument, expected) in cases {
            let rounds = block(BlockKind::For(kind), argument).rounds(&World).unwrap();
            let rounds: Vec<String> = rounds.iter().flatten().cloned().collect();
            assert_eq!(rounds, expected, "{kind:?}");
        }
        for (kind, argument) in [(Loop::Times, "x"), (Loop::Times, "100001"), (Loop::Lines, "/none")] {
            assert!(block(BlockKind::For(kind), argument).rounds(&World).is_err(), "{kind:?} {argument}");
        }
    }
}
