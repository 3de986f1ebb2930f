//! What is wrong with a configuration.

use std::error::Error;
use std::fmt;

use super::Entry;

/// One thing that is wrong with the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    /// The option, under its canonical name if it has one; empty for what is about none.
    pub option: String,
    /// The value as given.
    pub value: Option<String>,
    /// Where it was given.
    pub origin: String,
    /// What is wrong and what to do; reads on behind option and value.
    pub problem: String,
}

/// Everything that is wrong with the configuration, in the order it was given; one line each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigErrors(pub Vec<ConfigError>);

impl ConfigError {
    pub(super) fn new(entry: &Entry, problem: impl Into<String>) -> Self {
        ConfigError {
            option: entry.name.clone(),
            value: entry.value.clone(),
            origin: entry.origin.clone(),
            problem: problem.into(),
        }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ConfigError { option, value, origin, problem } = self;
        match value {
            _ if option.is_empty() => write!(f, "{origin}: {problem}"),
            Some(value) => write!(f, "{origin}: {option} = {value:?} {problem}"),
            None => write!(f, "{origin}: {option} {problem}"),
        }
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, error) in self.0.iter().enumerate() {
            let separator = if index == 0 { "" } else { "\n" };
            write!(f, "{separator}{error}")?;
        }
        Ok(())
    }
}

impl Error for ConfigError {}
impl Error for ConfigErrors {}
