//! Caches in shared memory, for all workers of a generation.
//!
//! The zygote makes them before it loads the application. They outlive workers, not a reload: the new
//! code begins with empty ones, as in uWSGI. [`table`] is one cache, [`spec`] how one is configured.

use std::io;
use std::time::{SystemTime, UNIX_EPOCH};

pub mod spec;
pub mod table;

pub use spec::Spec;
pub use table::Table;

/// The caches of a generation, in the order of the configuration.
#[derive(Debug, Default)]
pub struct Caches {
    tables: Vec<(String, Table)>,
}

impl Caches {
    /// Makes them.
    ///
    /// # Errors
    /// Names the one for which there is no room.
    pub fn create(specs: &[Spec]) -> io::Result<Self> {
        let table = |spec: &Spec| {
            let table = Table::create(spec).map_err(|error| {
                io::Error::new(error.kind(), format!("cache {} cannot be had: {error}", spec.name))
            })?;
            Ok((spec.name.clone(), table))
        };
        Ok(Caches { tables: specs.iter().map(table).collect::<io::Result<_>>()? })
    }

    /// The cache of that name; without one, the first.
    pub fn find(&self, name: &[u8]) -> Option<&Table> {
        let found = self.tables.iter().find(|(known, _)| name.is_empty() || known.as_bytes() == name);
        found.map(|(_, table)| table)
    }
}

/// Seconds since 1970, by which items expire.
pub fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
