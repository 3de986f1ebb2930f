//! How many workers run: all of them, or as many as there is work for (`cheaper`, `cheap`, `idle`).

use std::fmt;
use std::time::Duration;

use super::error::ConfigError;
use super::value::ValueError;
use super::{Config, Entry};

/// By which rule workers are added and sent home.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Algorithm {
    /// All are busy: more; several have nothing to do: fewer.
    #[default]
    Spare,
    /// As many with nothing to do as `cheaper` says.
    Spare2,
    /// By the clients that wait.
    Backlog,
    /// By the share of time that is spent in requests.
    Busyness,
    /// Only when told to: FIFO `+` and `-`.
    Manual,
}

impl Algorithm {
    /// All there are.
    pub const ALL: [Algorithm; 5] =
        [Algorithm::Spare, Algorithm::Spare2, Algorithm::Backlog, Algorithm::Busyness, Algorithm::Manual];

    /// As the configuration calls it.
    pub const fn name(self) -> &'static str {
        match self {
            Algorithm::Spare => "spare",
            Algorithm::Spare2 => "spare2",
            Algorithm::Backlog => "backlog",
            Algorithm::Busyness => "busyness",
            Algorithm::Manual => "manual",
        }
    }

    /// Reads the name. uWSGI takes any other word for spare.
    ///
    /// # Errors
    /// For any other word; says which one may be meant.
    pub fn parse(text: &str) -> Result<Self, ValueError> {
        if let Some(known) = Self::ALL.into_iter().find(|it| it.name() == text) {
            return Ok(known);
        }
        let distance = |it: &Algorithm| strsim::osa_distance(&text.to_ascii_lowercase(), it.name());
        let close = Self::ALL.into_iter().filter(|it| text.len() < 16 && distance(it) <= 2);
        let hint = match close.min_by_key(distance) {
            Some(meant) => format!("; did you mean {meant}?"),
            None => String::new(),
        };
        let names = Self::ALL.map(Algorithm::name).join(", ");
        Err(ValueError::refused(format!("is not one of {names}{hint}")))
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What [`Algorithm::Busyness`] goes by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Busyness {
    /// Percent of time in requests above which workers are added.
    pub max: u32,
    /// Percent below which one is sent home, after a while.
    pub min: u32,
    /// That while, in spans of `cheaper-overload`.
    pub multiplier: u32,
    /// Spans more after one was sent home too early.
    pub penalty: u32,
    /// Tell the log what is measured.
    pub verbose: bool,
    /// Clients that wait above which workers are added at once.
    pub backlog_alert: u32,
    /// The while before such a worker is sent home, in spans.
    pub backlog_multiplier: u32,
    /// Workers added then.
    pub backlog_step: u32,
    /// Seconds for which clients may wait at all before one is added.
    pub backlog_nonzero: u32,
}

/// How many workers run, and when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scaling {
    /// `cheaper`: fewest workers; 0 is off, and all run.
    pub fewest: u32,
    /// `cheaper-initial`: workers at the start; `None` is `cheaper`.
    pub initial: Option<u32>,
    /// `cheaper-step`: most workers added at a time.
    pub step: u32,
    /// `cheaper-overload`: turns, clients that wait, or seconds, as the algorithm takes it.
    pub overload: u32,
    /// `cheaper-idle`: turns that spare2 waits.
    pub idle_turns: u32,
    /// `cheaper-algo`
    pub algorithm: Algorithm,
    /// `cheaper-busyness-…`
    pub busyness: Busyness,
    /// `cheaper-rss-limit-soft`: bytes of all workers above which none is added; 0 is no limit.
    pub rss_soft: u64,
    /// `cheaper-rss-limit-hard`: bytes above which one is sent home each turn.
    pub rss_hard: u64,
    /// `cheap`: no worker before the first connection.
    pub cheap: bool,
    /// `idle`: without a request for so long, all are sent home; zero is never.
    pub idle: Duration,
    /// `die-on-idle`: then the server stops instead.
    pub die_on_idle: bool,
    /// `check-interval`: length of a turn.
    pub check_interval: Duration,
}

impl Default for Scaling {
    fn default() -> Self {
        Scaling {
            fewest: 0,
            initial: None,
            step: 1,
            overload: 3,
            idle_turns: 10,
            algorithm: Algorithm::Spare,
            busyness: Busyness {
                max: 50,
                min: 25,
                multiplier: 10,
                penalty: 2,
                verbose: false,
                backlog_alert: 33,
                backlog_multiplier: 3,
                backlog_step: 1,
                backlog_nonzero: 60,
            },
            rss_soft: 0,
            rss_hard: 0,
            cheap: false,
            idle: Duration::ZERO,
            die_on_idle: false,
            check_interval: Duration::from_secs(1),
        }
    }
}

impl Scaling {
    /// True when the number of workers follows the load.
    pub fn follows_load(&self) -> bool {
        self.fewest > 0
    }

    /// Workers at the start, of so many.
    pub fn at_start(&self, processes: u32) -> u32 {
        match (self.cheap, self.follows_load()) {
            (true, _) => 0,
            (false, true) => self.initial.unwrap_or(self.fewest),
            (false, false) => processes,
        }
    }

    /// Workers that the first connection starts when there are none.
    pub fn when_woken(&self, processes: u32) -> u32 {
        if self.follows_load() { self.fewest } else { processes }
    }
}

/// What can only be said once all entries are known.
pub(super) fn settle(config: &mut Config, entries: &[&Entry], errors: &mut Vec<ConfigError>) {
    let last = |name: &str| entries.iter().rfind(|entry| entry.name == name).copied();
    let place = |name: &str| match last(name) {
        Some(entry) => format!(" ({})", entry.origin),
        None => String::new(),
    };
    let processes = config.processes;
    let scaling = &mut config.scaling;
    if let Some(entry) = last("cheaper").filter(|_| scaling.fewest >= processes.max(1)) {
        let place = place("processes");
        let problem = format!("must be less than processes, which is {processes}{place}");
        errors.push(ConfigError::new(entry, problem));
    }
    if let (Some(entry), Some(initial), true) =
        (last("cheaper-initial"), scaling.initial, (1..processes).contains(&scaling.fewest))
    {
        let clamped = initial.clamp(scaling.fewest, processes);
        if clamped != initial {
            let problem = format!(
                "is not between cheaper ({}) and processes ({processes}); starting with {clamped}",
                scaling.fewest
            );
            config.warnings.push(ConfigError::new(entry, problem));
            scaling.initial = Some(clamped);
        }
    }
    if let Some(entry) = last("cheaper-busyness-min").or(last("cheaper-busyness-max"))
        && scaling.follows_load()
        && scaling.busyness.min >= scaling.busyness.max
    {
        let (min, max) = (scaling.busyness.min, scaling.busyness.max);
        let problem = format!(
            "leaves nothing in between: cheaper-busyness-min is {min}{}, cheaper-busyness-max is {max}{}",
            place("cheaper-busyness-min"),
            place("cheaper-busyness-max")
        );
        errors.push(ConfigError::new(entry, problem));
    }
    if let Some(entry) = last("cheaper-rss-limit-hard")
        && (1..scaling.rss_soft).contains(&scaling.rss_hard)
    {
        let place = place("cheaper-rss-limit-soft");
        let problem = format!("is less than cheaper-rss-limit-soft, which is {}{place}", scaling.rss_soft);
        errors.push(ConfigError::new(entry, problem));
    }
    let Scaling { cheap, idle, die_on_idle, check_interval, .. } = *scaling;
    let without_cheaper = Scaling { cheap, idle, die_on_idle, check_interval, ..Scaling::default() };
    if !scaling.follows_load() && *scaling != without_cheaper {
        for entry in entries.iter().filter(|entry| entry.name.starts_with("cheaper-")) {
            if !last(&entry.name).is_some_and(|last| std::ptr::eq(last, *entry)) {
                continue;
            }
            let problem = "has no effect without cheaper, the fewest workers there may be";
            config.warnings.push(ConfigError::new(entry, problem.to_owned()));
        }
    }
    if let Some(entry) = last("die-on-idle").filter(|_| scaling.die_on_idle && scaling.idle.is_zero()) {
        let problem = "has no effect without idle, the seconds without a request";
        config.warnings.push(ConfigError::new(entry, problem.to_owned()));
    }
}

#[cfg(test)]
mod tests {
    use super::super::Examined;
    use super::*;

    /// The configuration of these lines, and what is said about it.
    fn examine(lines: &[&str]) -> (Scaling, Vec<String>, Vec<String>) {
        let entry = |(index, line): (usize, &&str)| {
            let (name, value) = line.split_once('=').map_or((*line, None), |(n, v)| (n, Some(v.to_owned())));
            Entry { name: name.to_owned(), value, origin: format!("app.ini:{}", index + 1) }
        };
        let Examined { config, errors } = Config::examine(lines.iter().enumerate().map(entry).collect());
        let told = |list: &[ConfigError]| list.iter().map(ToString::to_string).collect();
        (config.scaling, told(&errors), told(&config.warnings))
    }

    #[test]
    fn fewest_are_fewer_than_all() {
        let (_, errors, _) = examine(&["processes=4", "cheaper=4"]);
        assert_eq!(errors.len(), 1);
        assert!(errors[0].contains("app.ini:2") && errors[0].contains("cheaper"), "{errors:?}");
        assert!(errors[0].contains("less than processes, which is 4 (app.ini:1)"), "{errors:?}");
        let (_, errors, _) = examine(&["cheaper=1"]);
        assert!(errors[0].contains("which is 1"), "{errors:?}");
        let (scaling, errors, warnings) = examine(&["processes=4", "cheaper=0"]);
        assert_eq!((scaling.at_start(4), errors.len(), warnings.len()), (4, 0, 0));
    }

    #[test]
    fn the_start_is_between_fewest_and_all() {
        for (initial, starts, warned) in [("1", 2, 1), ("2", 2, 0), ("3", 3, 0), ("9", 4, 1)] {
            let line = format!("cheaper-initial={initial}");
            let (scaling, errors, warnings) = examine(&["processes=4", "cheaper=2", &line]);
            assert_eq!((scaling.at_start(4), errors.len(), warnings.len()), (starts, 0, warned), "{initial}");
        }
        let (scaling, ..) = examine(&["processes=4", "cheaper=2", "cheap"]);
        assert_eq!((scaling.at_start(4), scaling.when_woken(4)), (0, 2));
        let (scaling, ..) = examine(&["processes=4", "cheap"]);
        assert_eq!((scaling.at_start(4), scaling.when_woken(4)), (0, 4));
    }

    #[test]
    fn a_slip_in_the_algorithm_is_an_error_with_a_suggestion() {
        for (text, meant) in [("busines", "busyness"), ("Spare", "spare"), ("backlog2", "backlog")] {
            let error = Algorithm::parse(text).expect_err("it is misspelt").to_string();
            assert!(error.ends_with(&format!("did you mean {meant}?")), "{error}");
        }
        let error = Algorithm::parse("fastest").expect_err("there is none").to_string();
        assert_eq!(error, "is not one of spare, spare2, backlog, busyness, manual");
        for known in Algorithm::ALL {
            assert_eq!(Algorithm::parse(known.name()), Ok(known));
        }
    }

    #[test]
    fn what_contradicts_itself_or_does_nothing_is_told() {
        let lines = ["processes=4", "cheaper=1", "cheaper-busyness-min=60"];
        assert!(examine(&lines).1[0].contains("cheaper-busyness-max is 50"), "{:?}", examine(&lines));
        let lines = ["processes=4", "cheaper=1", "cheaper-rss-limit-soft=9", "cheaper-rss-limit-hard=8"];
        assert!(examine(&lines).1[0].contains("which is 9 (app.ini:3)"), "{:?}", examine(&lines));
        let (_, errors, warnings) = examine(&["cheaper-step=2", "die-on-idle"]);
        assert!(errors.is_empty() && warnings.len() == 2, "{warnings:?}");
        assert!(warnings[0].contains("without cheaper") && warnings[1].contains("without idle"));
    }
}
