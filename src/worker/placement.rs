//! `cpu-affinity`: on which processors a worker runs.

use log::{info, warn};

use crate::sys::affinity;

/// Binds this worker to its processors, of those that the process may use at this moment: a container may
/// have fewer than the machine. A worker that cannot be bound runs where it can.
pub fn settle(slot: u32, each: u32) {
    if each == 0 {
        return;
    }
    let placed = affinity::usable().and_then(|usable| {
        let own = share(slot, each, &usable);
        affinity::confine(&own).map(|()| own)
    });
    match placed {
        Ok(own) => {
            let numbers: Vec<String> = own.iter().map(usize::to_string).collect();
            info!("mapping worker {slot} to CPUs: {}", numbers.join(" "));
        }
        Err(error) => warn!("cpu-affinity: worker {slot} is bound to no processor: {error}"),
    }
}

/// The processors of worker `slot` if each has as many as `each`: in turn, and from the beginning again.
fn share(slot: u32, each: u32, usable: &[usize]) -> Vec<usize> {
    let each = each as usize;
    let first = (slot.saturating_sub(1) as usize).saturating_mul(each);
    let mut own: Vec<usize> = usable
        .iter()
        .copied()
        .cycle()
        .skip(first % usable.len().max(1))
        .take(each.min(usable.len()))
        .collect();
    own.sort_unstable();
    own
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workers_take_turns_and_begin_again_at_the_first_processor() {
        let usable = [2, 3, 6];
        let shares = |each| [1, 2, 3, 4].map(|slot| share(slot, each, &usable));
        assert_eq!(shares(1), [vec![2], vec![3], vec![6], vec![2]]);
        assert_eq!(shares(2), [vec![2, 3], vec![2, 6], vec![3, 6], vec![2, 3]]);
    }

    #[test]
    fn more_processors_than_there_are_is_all_of_them() {
        assert_eq!(share(2, 64, &[0, 1]), [0, 1]);
        assert_eq!(share(u32::MAX, 1024, &[5]), [5]);
        assert_eq!(share(1, 1, &[]), [0_usize; 0]);
    }
}
