//! What an application adds to the log line of a request.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The additions to one request's line; clones are the same set. Travels among the extensions of the
/// response, because the application may go on adding while its body is sent.
#[derive(Debug, Clone, Default)]
pub struct LogVars(Arc<Mutex<Vars>>);

#[derive(Debug, Default)]
struct Vars {
    values: Vec<(String, Vec<u8>)>,
    forced: bool,
}

impl LogVars {
    fn vars(&self) -> MutexGuard<'_, Vars> {
        // Nothing panics while it is held.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives the variable `%(name)` a value, in place of any it had.
    pub fn set(&self, name: &str, value: &[u8]) {
        let values = &mut self.vars().values;
        match values.iter_mut().find(|(known, _)| known == name) {
            Some((_, old)) => *old = value.to_owned(),
            None => values.push((name.to_owned(), value.to_owned())),
        }
    }

    /// The value of a variable.
    pub fn get(&self, name: &str) -> Option<Vec<u8>> {
        self.vars().values.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone())
    }

    /// The request gets a line whatever the configuration leaves out.
    pub fn force(&self) {
        self.vars().forced = true;
    }

    /// Whether [`LogVars::force`] was called.
    pub fn is_forced(&self) -> bool {
        self.vars().forced
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_value_of_a_variable_counts_in_every_clone() {
        let vars = LogVars::default();
        let other = vars.clone();
        vars.set("user", b"anna");
        vars.set("user", b"bert");
        other.force();
        assert_eq!(other.get("user").as_deref(), Some(&b"bert"[..]));
        assert_eq!(other.get("tenant"), None);
        assert!(vars.is_forced());
    }
}
