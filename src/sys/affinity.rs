//! Which processors a thread may run on (sched_setaffinity(2)).

use std::io;

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

/// The calling thread.
const THIS_THREAD: Pid = Pid::from_raw(0);

/// Numbers of the processors that the calling thread may use, in ascending order. A container or a CPU set
/// leaves some of the machine's out.
///
/// # Errors
/// On a machine with more processors than a [`CpuSet`] has room for.
pub fn usable() -> io::Result<Vec<usize>> {
    let set = sched_getaffinity(THIS_THREAD)?;
    Ok((0..CpuSet::count()).filter(|cpu| set.is_set(*cpu).unwrap_or(false)).collect())
}

/// Lets the calling thread, and the threads and processes it starts from now on, run on these only.
///
/// # Errors
/// When the kernel has taken all of them away meanwhile.
pub fn confine(cpus: &[usize]) -> io::Result<()> {
    let mut set = CpuSet::new();
    for cpu in cpus {
        set.set(*cpu)?;
    }
    Ok(sched_setaffinity(THIS_THREAD, &set)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_can_be_confined_to_what_it_may_use() {
        // Of a thread of its own, which ends with it.
        std::thread::spawn(|| {
            let all = usable().unwrap();
            confine(&all[..1]).unwrap();
            assert_eq!(usable().unwrap(), all[..1]);
            assert!(confine(&[]).is_err(), "nobody can run nowhere");
        })
        .join()
        .unwrap();
    }
}
