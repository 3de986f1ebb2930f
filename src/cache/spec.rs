//! ● What `cache2` and `cache` ask for.

use crate::config::value::{self, ValueError};

/// Bytes of a value, as in uWSGI.
const BLOCK: usize = 64 * 1024;
/// Bytes of a key, as in uWSGI.
const KEY: usize = 2048;
/// Most bytes of one cache: what is not used takes no memory, but addresses.
const LARGEST: usize = 1 << 40;

/// One cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spec {
    /// How the application calls it.
    pub name: String,
    /// How many items it holds.
    pub items: usize,
    /// Longest key, bytes.
    pub key_size: usize,
    /// Longest value, bytes.
    pub value_size: usize,
    /// When it is full, items that were not used for long make room.
    pub purge: bool,
}

/// `cache = 1000`: one cache of that many items.
///
/// # Errors
/// When that is no number.
pub fn plain(text: &str) -> Result<Spec, ValueError> {
    let items = value::int(text, 1, u64::from(u32::MAX))?;
    checked(Spec {
        name: "default".to_owned(),
        items: wide(items),
        key_size: KEY,
        value_size: BLOCK,
        purge: false,
    })
}

/// `cache2 = name=sessions,items=1000`
///
/// # Errors
/// When something of it is missing, or cannot be had.
pub fn named(text: &str) -> Result<Spec, ValueError> {
    let mut spec = Spec { name: String::new(), items: 0, key_size: KEY, value_size: BLOCK, purge: false };
    for pair in text.split(',').filter(|pair| !pair.is_empty()) {
        let (key, given) = pair.split_once('=').unwrap_or((pair, "1"));
        let number = || value::int(given, 1, u64::from(u32::MAX)).map(wide);
        match key.trim() {
            "name" => spec.name = given.to_owned(),
            "items" | "max_items" | "maxitems" => spec.items = number()?,
            "blocksize" => spec.value_size = wide(value::size(given, 1, u64::from(u32::MAX))?),
            "keysize" => spec.key_size = number()?,
            "purge_lru" => spec.purge = value::flag(given)?,
            // How uWSGI finds items and rids itself of old ones; the outcome is the same.
            "hash" | "hashsize" | "lazy_expire" | "sweep_on_full" | "ignore_full" => {}
            other => {
                return Err(ValueError::refused(format!(
                    "asks for {other:?}, which caches do not have here (name, items, blocksize, keysize, purge_lru); remove it"
                )));
            }
        }
    }
    if spec.name.is_empty() || spec.items == 0 {
        return Err(ValueError::refused("lacks a part; a cache needs name=NAME,items=N"));
    }
    checked(spec)
}

/// Adds a cache to those before it.
///
/// # Errors
/// When one of them has its name.
pub fn add(caches: &mut Vec<Spec>, cache: Spec) -> Result<(), ValueError> {
    if caches.iter().any(|other| other.name == cache.name) {
        let name = cache.name;
        return Err(ValueError::refused(format!("is the second cache called {name}; give it another name")));
    }
    caches.push(cache);
    Ok(())
}

/// Adds a cache, in the place of one of its name.
pub fn replace(caches: &mut Vec<Spec>, cache: Spec) {
    caches.retain(|other| other.name != cache.name);
    caches.push(cache);
}

fn checked(spec: Spec) -> Result<Spec, ValueError> {
    let bytes = (spec.key_size + spec.value_size).checked_mul(spec.items);
    match bytes {
        Some(bytes) if bytes <= LARGEST => Ok(spec),
        _ => Err(ValueError::refused("is too large; use fewer items or a smaller blocksize")),
    }
}

fn wide(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn caches_are_described_as_for_uwsgi() {
        let spec = named("name=a,items=10,blocksize=4k,keysize=16,purge_lru=1,hashsize=99").expect("valid");
        let expected = Spec { name: "a".to_owned(), items: 10, key_size: 16, value_size: 4096, purge: true };
        assert_eq!(spec, expected);
        let plain = plain("7").expect("valid");
        assert_eq!(
            (plain.name.as_str(), plain.items, plain.value_size, plain.purge),
            ("default", 7, 65536, false)
        );
    }

    #[test]
    fn no_two_caches_have_one_name() {
        let mut caches = Vec::new();
        add(&mut caches, plain("7").expect("valid")).expect("the first");
        let again = add(&mut caches, plain("8").expect("valid")).expect_err("the second").to_string();
        assert!(again.contains("is the second cache called default"), "{again}");
    }

    #[test]
    fn what_cannot_be_had_is_named() {
        for (text, part) in [
            ("items=10", "needs name=NAME,items=N"),
            ("name=a", "needs name=NAME,items=N"),
            ("name=a,items=10,store=/tmp/x", "asks for \"store\""),
            ("name=a,items=4000000000,blocksize=1g", "is too large"),
        ] {
            let error = named(text).expect_err("not valid").to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
