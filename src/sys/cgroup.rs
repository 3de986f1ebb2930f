//! What the control groups of this process allow it: processors and memory (cgroups(7)).
//!
//! Version 1 has a hierarchy for each controller, version 2 one for all; a machine may have both. The limit of
//! a group holds for all below it, so each group on the way to the root is asked and the least counts. In
//! a container the root is where the container begins, or the whole tree is there but the own group's
//! place in it is not: then the mount point itself is the own group.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread::available_parallelism;

use super::affinity;

/// Version 1 says "no limit" by the largest number of bytes in whole pages; nobody has half of it.
const BEYOND_ANY_MEMORY: u64 = 1 << 62;

/// Processors that this process may use: those of its affinity, at most the quota of its control group,
/// rounded up; at least 1. Read anew with each call.
pub fn cpus() -> usize {
    let usable = affinity::usable().map(|cpus| cpus.len());
    // Fails where the machine has more processors than the set has room for.
    let usable = usable.unwrap_or_else(|_| available_parallelism().map_or(1, usize::from));
    Groups::read().cpu_quota().map_or(usable, |quota| usable.min(quota)).max(1)
}

/// Bytes of memory that the control group may have, if that is limited.
pub fn memory_limit() -> Option<u64> {
    memory().map(|memory| memory.limit)
}

/// Memory of a control group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct GroupMemory {
    /// Bytes that it may have.
    pub limit: u64,
    /// Bytes that it has, without what it has only read from files and not used since: the kernel takes that
    /// back before it kills anybody.
    pub used: u64,
}

/// The memory of the group with the least limit, if any is limited.
pub fn memory() -> Option<GroupMemory> {
    Groups::read().memory()
}

/// Processes of the own control group that the OOM killer has ended so far: the kernel counts before it kills.
/// `None` where there is no such group, as in the root of version 2.
pub fn oom_kills() -> Option<u64> {
    Groups::read().oom_kills()
}

/// `/proc/self/cgroup` and `/proc/self/mountinfo`.
#[derive(Debug, Default)]
struct Groups {
    membership: String,
    mounts: String,
}

/// Which hierarchy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Hierarchy {
    /// Version 2.
    Unified,
    /// The one of this controller in version 1.
    Controller(&'static str),
}

impl Groups {
    /// Without `/proc` there are no limits that could be known.
    fn read() -> Self {
        let text = |path| fs::read_to_string(path).unwrap_or_default();
        Groups { membership: text("/proc/self/cgroup"), mounts: text("/proc/self/mountinfo") }
    }

    fn cpu_quota(&self) -> Option<usize> {
        let unified = self.least(Hierarchy::Unified, |group| {
            let text = fs::read_to_string(group.join("cpu.max")).ok()?;
            let (quota, period) = text.trim().split_once(' ')?;
            whole_cpus(quota.parse().ok()?, period.parse().ok()?)
        });
        let controller = self.least(Hierarchy::Controller("cpu"), |group| {
            // -1 is no limit.
            let quota = number(&group.join("cpu.cfs_quota_us"))?;
            whole_cpus(quota, number(&group.join("cpu.cfs_period_us"))?)
        });
        unified.into_iter().chain(controller).min()
    }

    fn memory(&self) -> Option<GroupMemory> {
        let of = |group: &Path, limit: u64, used: &str, idle: &str| {
            let statistics = fs::read_to_string(group.join("memory.stat")).unwrap_or_default();
            let idle = counter(&statistics, idle).unwrap_or(0);
            GroupMemory { limit, used: number(&group.join(used)).unwrap_or(0).saturating_sub(idle) }
        };
        let unified = self.least(Hierarchy::Unified, |group| {
            let limit = number(&group.join("memory.max"))?;
            Some(of(group, limit, "memory.current", "inactive_file"))
        });
        let controller = self.least(Hierarchy::Controller("memory"), |group| {
            let limit =
                number(&group.join("memory.limit_in_bytes")).filter(|bytes| *bytes < BEYOND_ANY_MEMORY)?;
            // The totals are those of the groups below it, too, as all other figures are.
            Some(of(group, limit, "memory.usage_in_bytes", "total_inactive_file"))
        });
        unified.into_iter().chain(controller).min()
    }

    fn oom_kills(&self) -> Option<u64> {
        let files =
            [(Hierarchy::Unified, "memory.events"), (Hierarchy::Controller("memory"), "memory.oom_control")];
        files.into_iter().find_map(|(hierarchy, file)| {
            let (_, group) = self.place(hierarchy)?;
            counter(&fs::read_to_string(group.join(file)).ok()?, "oom_kill")
        })
    }

    /// The least of what `limit` reads from the own group and those above it.
    fn least<T: Ord>(&self, hierarchy: Hierarchy, limit: impl Fn(&Path) -> Option<T>) -> Option<T> {
        let (mount, group) = self.place(hierarchy)?;
        group.ancestors().take_while(|it| it.starts_with(&mount)).filter_map(limit).min()
    }

    /// Where the hierarchy is mounted, and the directory of the own group in it.
    fn place(&self, hierarchy: Hierarchy) -> Option<(PathBuf, PathBuf)> {
        let own = self.membership.lines().find_map(|line| {
            let mut fields = line.splitn(3, ':');
            let (_number, controllers, path) = (fields.next()?, fields.next()?, fields.next()?);
            let is_it = match hierarchy {
                Hierarchy::Unified => controllers.is_empty(),
                Hierarchy::Controller(name) => controllers.split(',').any(|it| it == name),
            };
            is_it.then(|| PathBuf::from(path))
        })?;
        let (root, mount) = self.mounts.lines().find_map(|line| mount_of(line, hierarchy))?;
        let group = own.strip_prefix(&root).map_or_else(|_| mount.clone(), |inside| mount.join(inside));
        Some(if group.is_dir() { (mount, group) } else { (mount.clone(), mount) })
    }
}

/// Root within the file system and mount point, if the line is about a mount of this hierarchy.
fn mount_of(line: &str, hierarchy: Hierarchy) -> Option<(PathBuf, PathBuf)> {
    let (before, after) = line.split_once(" - ")?;
    let mut kind = after.split(' ');
    let (file_system, _source, options) = (kind.next()?, kind.next()?, kind.next()?);
    let is_it = match hierarchy {
        Hierarchy::Unified => file_system == "cgroup2",
        Hierarchy::Controller(name) => file_system == "cgroup" && options.split(',').any(|it| it == name),
    };
    let mut fields = before.split(' ').skip(3).map(PathBuf::from);
    is_it.then(|| Some((fields.next()?, fields.next()?)))?
}

/// A line of a name and a number.
pub(super) fn counter(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))?;
    line.trim().parse().ok()
}

fn number(path: &Path) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

fn whole_cpus(quota: u64, period: u64) -> Option<usize> {
    if period == 0 {
        return None;
    }
    usize::try_from(quota.div_ceil(period)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A tree of groups, with what the kernel would say of it.
    struct Tree(tempfile::TempDir);

    impl Tree {
        fn new(files: &[(&str, &str)]) -> Self {
            let tree = Tree(tempfile::tempdir().expect("a directory"));
            for (name, text) in files {
                let path = tree.0.path().join(name);
                fs::create_dir_all(path.parent().expect("it is inside")).expect("ours");
                fs::write(path, text).expect("ours");
            }
            tree
        }

        fn groups(&self, membership: &str, mounts: &[(&str, &str, &str)]) -> Groups {
            let here = self.0.path().display();
            let line =
                |(root, at, kind): &(&str, &str, &str)| format!("29 23 0:26 {root} {here}{at} rw - {kind}\n");
            let proc = "22 28 0:21 / /proc rw,relatime shared:5 - proc proc rw\n".to_owned();
            let mounts = std::iter::once(proc).chain(mounts.iter().map(line)).collect();
            Groups { membership: membership.to_owned(), mounts }
        }
    }

    const UNIFIED: (&str, &str, &str) = ("/", "", "cgroup2 cgroup2 rw,nsdelegate");

    #[test]
    fn the_quota_of_version_2_is_rounded_up_and_the_least_above_counts() {
        let tree = Tree::new(&[
            ("pod/cpu.max", "250000 100000\n"),
            ("pod/memory.max", "536870912\n"),
            ("pod/memory.current", "419430400\n"),
            ("pod/memory.stat", "anon 1\nactive_file 2\ninactive_file 104857600\nunevictable 0\n"),
            ("pod/app/cpu.max", "max 100000\n"),
            ("pod/app/memory.max", "max\n"),
            ("pod/small/cpu.max", "20000 100000\n"),
        ]);
        let at = |membership| tree.groups(membership, &[UNIFIED]);
        assert_eq!(at("0::/pod/app\n").cpu_quota(), Some(3));
        let memory = at("0::/pod/app\n").memory();
        assert_eq!(memory, Some(GroupMemory { limit: 512 << 20, used: 300 << 20 }));
        assert_eq!(at("0::/pod/small\n").cpu_quota(), Some(1));
        assert_eq!(at("0::/\n").cpu_quota(), None, "the root has no limits");
    }

    #[test]
    fn version_1_has_its_own_files_and_words() {
        let tree = Tree::new(&[
            ("cpu/cpu.cfs_quota_us", "-1\n"),
            ("cpu/cpu.cfs_period_us", "100000\n"),
            ("cpu/docker/cpu.cfs_quota_us", "150000\n"),
            ("cpu/docker/cpu.cfs_period_us", "100000\n"),
            ("memory/docker/memory.limit_in_bytes", "268435456\n"),
            ("memory/docker/memory.usage_in_bytes", "125829120\n"),
            ("memory/docker/memory.stat", "inactive_file 1\ntotal_inactive_file 20971520\n"),
            ("memory/memory.limit_in_bytes", "9223372036854771712\n"),
        ]);
        let mounts = [
            ("/", "/cpu", "cgroup cgroup rw,cpu,cpuacct"),
            ("/", "/memory", "cgroup cgroup rw,memory"),
            ("/", "/unified", "cgroup2 cgroup2 rw"),
        ];
        let groups = tree.groups("5:memory:/docker\n1:cpu,cpuacct:/docker\n0::/\n", &mounts);
        assert_eq!(groups.cpu_quota(), Some(2));
        assert_eq!(groups.memory(), Some(GroupMemory { limit: 256 << 20, used: 100 << 20 }));
        let groups = tree.groups("5:memory:/\n1:cpu,cpuacct:/\n0::/\n", &mounts);
        assert_eq!((groups.cpu_quota(), groups.memory()), (None, None));
    }

    #[test]
    fn in_a_container_the_mount_is_the_own_group() {
        let tree = Tree::new(&[("cpu.max", "50000 100000\n")]);
        // A mount of a part of the tree, and a place that cannot be seen from here.
        for (membership, root) in [("0::/docker/abc\n", "/docker/abc"), ("0::/../other\n", "/")] {
            let groups = tree.groups(membership, &[(root, "", "cgroup2 cgroup rw")]);
            assert_eq!(groups.cpu_quota(), Some(1), "{membership}");
        }
    }

    #[test]
    fn kills_are_counted_by_either_version() {
        let tree = Tree::new(&[
            ("pod/memory.events", "low 0\noom 7\noom_kill 2\noom_group_kill 9\n"),
            ("memory/docker/memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 5\n"),
        ]);
        assert_eq!(tree.groups("0::/pod\n", &[UNIFIED]).oom_kills(), Some(2));
        assert_eq!(tree.groups("0::/\n", &[UNIFIED]).oom_kills(), None, "the root does not count");
        let mounts = [("/", "/memory", "cgroup cgroup rw,memory")];
        assert_eq!(tree.groups("5:memory:/docker\n", &mounts).oom_kills(), Some(5));
    }

    #[test]
    fn what_is_not_there_limits_nothing() {
        let tree = Tree::new(&[("cpu.max", "a lot\n"), ("memory.max", "\n")]);
        let groups = tree.groups("0::/\n", &[UNIFIED]);
        assert_eq!((groups.cpu_quota(), groups.memory()), (None, None));
        assert_eq!(Groups::default().cpu_quota(), None);
        assert_eq!(whole_cpus(100, 0), None);
        assert!(cpus() >= 1);
    }
}
