//! When workers are replaced by fresh ones: after how many requests, at which age, with how much memory,
//! after which exceptions; and how many of them at a time.

use std::time::Duration;

use super::Entry;
use super::error::ConfigError;
use super::reload::MaxSurge;
use super::value::{self, ValueError};

/// Where no delta is given, limits differ by up to this part of themselves.
const SPREAD: u64 = 10;

/// All of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recycling {
    /// `max-requests`: requests after which a worker is replaced; `None` is any number.
    pub max_requests: Option<u64>,
    /// `max-requests-delta`: by how many the limits of two neighbours differ.
    pub max_requests_delta: Option<u64>,
    /// `min-worker-lifetime`: no worker is replaced that has served for less.
    pub min_lifetime: Duration,
    /// `max-worker-lifetime`: age at which a worker is replaced.
    pub max_lifetime: Option<Duration>,
    /// `max-worker-lifetime-delta`: by how much the limits of two neighbours differ.
    pub max_lifetime_delta: Option<Duration>,
    /// `max-recycling`: replacements that may be under way at a time.
    pub at_a_time: MaxSurge,
    /// `reload-on-as`, `-rss`, `-uss`, `-pss`: memory with which a worker asks to be replaced.
    pub memory: MemoryLimits,
    /// `memory-samples`: looks in a row that must find too much of it.
    pub memory_samples: u32,
    /// `evil-reload-on-as`, bytes: address space with which a worker is killed.
    pub evil_address_space: Option<u64>,
    /// `evil-reload-on-rss`, bytes: resident memory with which a worker is killed.
    pub evil_resident: Option<u64>,
    /// `mem-collector-freq`: how often the master looks at memory, and workers at what is costly to find out.
    pub look_every: Duration,
    /// `memory-budget`: what the whole instance may have.
    pub budget: Option<Budget>,
    /// `reload-on-exception` and its like.
    pub exceptions: Exceptions,
}

impl Default for Recycling {
    fn default() -> Self {
        Recycling {
            max_requests: None,
            max_requests_delta: None,
            min_lifetime: Duration::from_secs(10),
            max_lifetime: None,
            max_lifetime_delta: None,
            at_a_time: MaxSurge::Percent(10),
            memory: MemoryLimits::default(),
            memory_samples: 3,
            evil_address_space: None,
            evil_resident: None,
            look_every: Duration::from_secs(3),
            budget: None,
            exceptions: Exceptions::default(),
        }
    }
}

/// Bytes with which a worker asks to be replaced.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MemoryLimits {
    /// Address space.
    pub address_space: Option<u64>,
    /// Resident memory.
    pub resident: Option<u64>,
    /// Memory that no other process has.
    pub unique: Option<u64>,
    /// The same, and a share of what others have, too.
    pub proportional: Option<u64>,
}

/// `memory-budget`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Budget {
    /// So many bytes.
    Bytes(u64),
    /// So many in a hundred of what the control group may have or, without a limit, of the machine's memory.
    Percent(u64),
}

/// Exceptions after which a worker is replaced.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Exceptions {
    /// `reload-on-exception`: all.
    pub any: bool,
    /// `reload-on-exception-type`: those of a class, with or without its module.
    pub types: Vec<String>,
    /// `reload-on-exception-value`: those with a text.
    pub values: Vec<String>,
    /// `reload-on-exception-repr`: those shown as `ValueError('no')` or `ValueError: no`.
    pub reprs: Vec<String>,
}

/// An exception of the application, as far as [`Exceptions`] want to know it.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Deserialize)]
pub struct Raised {
    /// Name of its class.
    pub class: String,
    /// The same, behind the name of its module.
    pub qualified: String,
    /// Its text, if that [is wanted](Exceptions::wants_text).
    #[serde(default)]
    pub value: String,
    /// What a debugger would show, if that is wanted.
    #[serde(default)]
    pub repr: String,
}

impl Recycling {
    /// Requests after which the worker of this number and identity is replaced.
    ///
    /// As in uWSGI the limits of neighbours differ by the delta. Without one each worker has up to a tenth
    /// more: those that were started together and share the load shall not reach it together.
    pub fn requests_of(&self, slot: u32, worker: u64) -> Option<u64> {
        let base = self.max_requests?;
        let more = match self.max_requests_delta {
            Some(delta) => delta.saturating_mul(u64::from(slot.saturating_sub(1))),
            None => spread(worker, base),
        };
        Some(base.saturating_add(more))
    }

    /// How long the worker of this number and identity serves at most; spread in the same way.
    pub fn lifetime_of(&self, slot: u32, worker: u64) -> Option<Duration> {
        let base = self.max_lifetime?;
        let more = match self.max_lifetime_delta {
            Some(delta) => delta.saturating_mul(slot.saturating_sub(1)),
            None => Duration::from_millis(spread(worker, base.as_millis() as u64)),
        };
        Some(base.saturating_add(more))
    }

    /// Whether somebody has to look at all workers from time to time.
    pub fn needs_master(&self) -> bool {
        self.evil_address_space.is_some() || self.evil_resident.is_some() || self.budget.is_some()
    }

    /// What can only be said once all entries are known.
    pub(super) fn settle(&self, uses: &[&Entry], errors: &mut Vec<ConfigError>) {
        let Some(entry) = uses.iter().rfind(|entry| entry.name == "max-worker-lifetime") else { return };
        if self.max_lifetime.is_some_and(|most| most <= self.min_lifetime) {
            let origin = uses.iter().rfind(|entry| entry.name == "min-worker-lifetime");
            let place = origin.map_or_else(|| "its default".to_owned(), |entry| entry.origin.clone());
            let seconds = self.min_lifetime.as_secs_f64();
            let problem = format!("must be longer than min-worker-lifetime, which is {seconds} s ({place})");
            errors.push(ConfigError::new(entry, problem));
        }
    }
}

/// Up to a tenth of `base`, evenly over workers with consecutive numbers: multiples of the golden ratio are
/// as far from each other as they can be, however many there are.
fn spread(worker: u64, base: u64) -> u64 {
    const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;
    let most = base / SPREAD;
    ((u128::from(worker.wrapping_mul(GOLDEN)) * (u128::from(most) + 1)) >> 64) as u64
}

impl Budget {
    /// Reads `80%`, or a size.
    ///
    /// # Errors
    /// For anything else, for 0, and for more than the whole.
    pub fn parse(text: &str) -> Result<Self, ValueError> {
        match text.strip_suffix('%') {
            Some(percent) => value::int(percent.trim_end(), 1, 100).map(Budget::Percent),
            None => value::size(text, 1, u64::MAX).map(Budget::Bytes),
        }
    }
}

impl Exceptions {
    /// Whether there is nothing to look for.
    pub fn is_empty(&self) -> bool {
        !self.any && self.types.is_empty() && !self.wants_text()
    }

    /// Whether the text of an exception matters, which the application has to make.
    pub fn wants_text(&self) -> bool {
        !(self.values.is_empty() && self.reprs.is_empty())
    }

    /// The option that asks for a replacement after this exception.
    pub fn option_for(&self, raised: &Raised) -> Option<&'static str> {
        let Raised { class, qualified, value, repr } = raised;
        let as_logged = || format!("{class}: {value}");
        if self.types.iter().any(|name| name == class || name == qualified) {
            Some("reload-on-exception-type")
        } else if self.values.contains(value) {
            Some("reload-on-exception-value")
        } else if self.reprs.iter().any(|text| text == repr || *text == as_logged()) {
            Some("reload-on-exception-repr")
        } else {
            self.any.then_some("reload-on-exception")
        }
    }
}

/// What a count or a time of 0 means.
pub(super) fn unless_zero<T: Default + PartialEq>(value: T) -> Option<T> {
    Some(value).filter(|value| *value != T::default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(change: impl FnOnce(&mut Recycling)) -> Recycling {
        let mut recycling = Recycling::default();
        change(&mut recycling);
        recycling
    }

    #[test]
    fn a_delta_is_added_once_for_each_number_before() {
        let recycling = with(|it| (it.max_requests, it.max_requests_delta) = (Some(100), Some(7)));
        assert_eq!([1, 2, 4].map(|slot| recycling.requests_of(slot, 9)), [Some(100), Some(107), Some(121)]);
        let exact = with(|it| (it.max_requests, it.max_requests_delta) = (Some(100), Some(0)));
        assert_eq!(exact.requests_of(4, 9), Some(100), "no delta is no spread");
        let aged = with(|it| {
            it.max_lifetime = Some(Duration::from_secs(60));
            it.max_lifetime_delta = Some(Duration::from_secs(5));
        });
        assert_eq!(aged.lifetime_of(3, 9), Some(Duration::from_secs(70)));
        assert_eq!(
            (Recycling::default().requests_of(1, 1), Recycling::default().lifetime_of(1, 1)),
            (None, None)
        );
    }

    #[test]
    fn without_a_delta_workers_that_start_together_are_spread_over_a_tenth() {
        let recycling = with(|it| it.max_requests = Some(10_000));
        for first in [1, 777, u64::MAX - 20] {
            let mut limits: Vec<u64> =
                (0..10).filter_map(|n| recycling.requests_of(1, first.wrapping_add(n))).collect();
            limits.sort_unstable();
            assert!(limits[0] >= 10_000 && limits[9] <= 11_000, "{limits:?}");
            let apart = limits.windows(2).map(|pair| pair[1] - pair[0]).min();
            assert!(apart > Some(30), "{limits:?}");
        }
        let few = with(|it| it.max_requests = Some(5));
        assert_eq!(few.requests_of(1, 7), Some(5), "a tenth of five requests is none");
        let aged = with(|it| it.max_lifetime = Some(Duration::from_secs(60)));
        let lives = (1..9).filter_map(|worker| aged.lifetime_of(1, worker));
        assert!(lives.into_iter().all(|it| (60..=66).contains(&it.as_secs())));
    }

    #[test]
    fn a_budget_is_a_share_or_a_size() {
        assert_eq!(Budget::parse("80%"), Ok(Budget::Percent(80)));
        assert_eq!(Budget::parse("80 %"), Ok(Budget::Percent(80)));
        assert_eq!(Budget::parse("2g"), Ok(Budget::Bytes(2 << 30)));
        for wrong in ["0", "0%", "101%", "%", "", "all"] {
            assert!(Budget::parse(wrong).is_err(), "{wrong}");
        }
    }

    fn raised(class: &str, module: &str, value: &str) -> Raised {
        let repr = format!("{class}({value:?})").replace('"', "'");
        let qualified = format!("{module}.{class}");
        Raised { class: class.to_owned(), qualified, value: value.to_owned(), repr }
    }

    #[test]
    fn an_exception_is_known_by_its_class_its_text_or_both() {
        let list = |text: &str| vec!["other".to_owned(), text.to_owned()];
        let gone = raised("Gone", "shop.db", "no such table");
        let by_type = |name| Exceptions { types: list(name), ..Exceptions::default() };
        for name in ["Gone", "shop.db.Gone"] {
            assert_eq!(by_type(name).option_for(&gone), Some("reload-on-exception-type"), "{name}");
        }
        for name in ["gone", "db.Gone", ".Gone", "Exception", "xGone", "no such table"] {
            assert_eq!(by_type(name).option_for(&gone), None, "{name}");
        }
        let by_value = |text| Exceptions { values: list(text), ..Exceptions::default() };
        assert_eq!(by_value("no such table").option_for(&gone), Some("reload-on-exception-value"));
        assert_eq!(by_value("no such").option_for(&gone), None);
        let by_repr = |text| Exceptions { reprs: list(text), ..Exceptions::default() };
        for text in ["Gone('no such table')", "Gone: no such table"] {
            assert_eq!(by_repr(text).option_for(&gone), Some("reload-on-exception-repr"), "{text}");
        }
        assert_eq!(by_repr("no such table").option_for(&gone), None);
    }

    #[test]
    fn all_exceptions_or_none() {
        let any = Exceptions { any: true, ..Exceptions::default() };
        assert_eq!(any.option_for(&raised("KeyError", "builtins", "")), Some("reload-on-exception"));
        assert_eq!(Exceptions::default().option_for(&raised("KeyError", "builtins", "")), None);
        assert!(Exceptions::default().is_empty() && !any.is_empty());
    }
}
