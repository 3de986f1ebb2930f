"""What the kernel tells about processes, and about this machine."""

import os
import platform

TICKS = os.sysconf("SC_CLK_TCK")


def read(path):
    """The text of a file in /proc; None when the process is gone."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return None


def stat(pid):
    """The fields of /proc/PID/stat from the third (the state) on; None when the process is gone."""
    text = read(f"/proc/{pid}/stat")
    # The second field, the name, may contain spaces and brackets.
    return text[text.rindex(")") + 2 :].split() if text else None


def tree(roots):
    """These processes and all their descendants."""
    known = {int(name): stat(name) for name in os.listdir("/proc") if name.isdigit()}
    found, grown = set(roots), True
    while grown:
        children = {pid for pid, fields in known.items() if fields and int(fields[1]) in found}
        grown = not children <= found
        found |= children
    return {pid for pid in found if known.get(pid)}


def session(leader):
    """The processes of the session that this one leads, or has led."""
    known = ((int(name), stat(name)) for name in os.listdir("/proc") if name.isdigit())
    # A zombie has nothing left but its name.
    return {pid for pid, fields in known if fields and int(fields[3]) == leader and fields[0] != "Z"}


def cpu_seconds(roots):
    """Processor time of each process of a tree, its reaped children included."""
    known = ((pid, stat(pid)) for pid in tree(roots))
    return {pid: sum(map(int, fields[11:15])) / TICKS for pid, fields in known if fields}


def pss_mib(pids):
    """Proportional set size: memory shared with others counts by its share."""
    return _rollup_mib(pids, ("Pss:",))


def uss_mib(pids):
    """Unique set size: memory that no other process has."""
    return _rollup_mib(pids, ("Private_Clean:", "Private_Dirty:", "Private_Hugetlb:"))


def rss_mib(pids):
    """Resident set size: memory shared with others counts in each of them."""
    return _rollup_mib(pids, ("Rss:",))


def _rollup_mib(pids, names):
    total = 0
    for pid in pids:
        for line in (read(f"/proc/{pid}/smaps_rollup") or "").splitlines():
            if line.startswith(names):
                total += int(line.split()[1])
    return total / 1024


def context_switches(pid):
    """How often the process has left the processor since it began: at most once per wake-up."""
    lines = (read(f"/proc/{pid}/status") or "").splitlines()
    return sum(int(line.split()[1]) for line in lines if "ctxt_switches:" in line)


def machine_busy():
    """Processor seconds used on the whole machine, and processor seconds that have passed."""
    fields = [int(field) for field in read("/proc/stat").splitlines()[0].split()[1:9]]
    idle = fields[3] + fields[4]
    return (sum(fields) - idle) / TICKS, sum(fields) / TICKS


def machine():
    """Where this runs."""
    names = [line for line in read("/proc/cpuinfo").splitlines() if line.startswith("model name")]
    return {
        "cores": os.cpu_count(),
        "processor": names[0].split(":", 1)[1].strip() if names else platform.machine(),
        "kernel": platform.release(),
        "load": os.getloadavg()[0],
    }
