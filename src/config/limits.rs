//! What the processes may have of the machine: memory, processes, descriptors, processors, priority.

use super::error::ConfigError;
use super::value::{self, ValueError};
use super::{Config, Entry};

/// Bytes of a megabyte, as uWSGI counts them.
const MEGABYTE: u64 = 1 << 20;
/// Fewest descriptors that `max-fd` may leave a process: the server keeps its own from
/// [`SHELTER`](crate::sys::fd::SHELTER) on.
pub const LEAST_DESCRIPTORS: u64 = 2 * crate::sys::fd::SHELTER as u64;
/// Processes of the server beside the workers: the master, a zygote, and the one in between that a fork of a
/// worker takes for a moment.
const BESIDE_WORKERS: u64 = 3;

/// All of it. What is `None` stays as the server was started with.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Limits {
    /// `limit-as`, bytes: address space of a zygote or worker.
    pub address_space: Option<u64>,
    /// `limit-nproc`: processes and threads of the user.
    pub processes: Option<u64>,
    /// `max-fd`: open descriptors of each process.
    pub descriptors: Option<u64>,
    /// `prio`: nice value.
    pub priority: Option<i32>,
    /// `cpu-affinity`: processors of a worker; 0 is all.
    pub cpus: u32,
}

impl Limits {
    /// What is worth a warning once all entries are known.
    pub(super) fn judge(config: &Config, uses: &[&Entry]) -> Option<ConfigError> {
        let most = config.limits.processes?;
        let needed = u64::from(config.processes) + BESIDE_WORKERS;
        let entry = uses.iter().rfind(|entry| entry.name == "limit-nproc")?;
        let problem = format!(
            "counts all processes and threads of the user, and the server alone has up to {needed} ({} workers, \
             master, zygote and one that forks), twice the workers during a reload: unless that user is root, \
             workers cannot be forked",
            config.processes
        );
        (most < needed).then(|| ConfigError::new(entry, problem))
    }
}

/// Reads megabytes, which may have a fraction; 0 is no limit.
///
/// # Errors
/// When it is no such number.
pub fn megabytes(text: &str) -> Result<Option<u64>, ValueError> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let whole = value::int(whole, 0, u64::MAX / MEGABYTE)? * MEGABYTE;
    // More digits are less than a byte.
    let digits = fraction.get(..9).unwrap_or(fraction);
    value::int(fraction, 0, u64::MAX)?;
    let part = value::int(digits, 0, u64::MAX)? * MEGABYTE / 10_u64.pow(digits.len() as u32);
    Ok(Some(whole.saturating_add(part)).filter(|bytes| *bytes > 0))
}

/// Reads `max-fd`; 0 is no limit.
///
/// # Errors
/// When it is no number, or leaves the server too few.
pub fn descriptors(text: &str) -> Result<Option<u64>, ValueError> {
    match value::int(text, 0, u64::from(u32::MAX))? {
        0 => Ok(None),
        few @ 1..LEAST_DESCRIPTORS => Err(ValueError::refused(format!(
            "leaves too few for the server itself ({few}); the least is {LEAST_DESCRIPTORS}"
        ))),
        most => Ok(Some(most)),
    }
}

/// Reads a nice value; 0 changes nothing, as in uWSGI.
///
/// # Errors
/// When it is none.
pub fn nice(text: &str) -> Result<Option<i32>, ValueError> {
    let refused =
        || ValueError::refused("is not a nice value; use -20 (served first, needs root) to 19 (served last)");
    let value: i32 = text.parse().map_err(|_| refused())?;
    match value {
        0 => Ok(None),
        -20..=19 => Ok(Some(value)),
        _ => Err(refused()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn megabytes_may_have_a_fraction() {
        let cases = [
            ("1", Some(1 << 20)),
            ("0", None),
            ("0.0", None),
            ("1.5", Some(3 << 19)),
            ("0.25", Some(1 << 18)),
        ];
        for (text, expected) in cases {
            assert_eq!(megabytes(text), Ok(expected), "{text}");
        }
        for wrong in ["", "-1", "1.", ".5", "1,5", "12m", "1.5x", "99999999999999999999", "1.é"] {
            assert!(megabytes(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn descriptors_have_a_least_number_that_serves() {
        assert_eq!(descriptors("0"), Ok(None));
        assert_eq!(descriptors("4096"), Ok(Some(4096)));
        let error = descriptors("64").unwrap_err().to_string();
        assert!(error.contains("the least is 128"), "{error}");
    }

    #[test]
    fn nice_values_are_those_of_the_kernel() {
        assert_eq!(["-20", "19", "0", "5"].map(nice), [Ok(Some(-20)), Ok(Some(19)), Ok(None), Ok(Some(5))]);
        for wrong in ["20", "-21", "", "high", "1.5"] {
            assert!(nice(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn too_few_processes_for_the_workers_are_told() {
        let warnings = |most: &str| {
            let entry = |name: &str, value: &str| Entry {
                name: name.into(),
                value: Some(value.into()),
                origin: "app.ini:1".into(),
            };
            let config = Config::build(vec![entry("processes", "4"), entry("limit-nproc", most)]);
            config.expect("it can be used").warnings
        };
        assert_eq!(warnings("7"), []);
        assert_eq!(warnings("0"), []);
        let told = warnings("6");
        assert!(told.len() == 1 && told[0].problem.contains("up to 7 (4 workers"), "{told:?}");
    }
}
