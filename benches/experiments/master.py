"""What the master costs: memory, wake-ups while nothing happens, and the time to a first answer."""

import re
import shutil
import signal
import subprocess
import time

from support import procfs
from support.report import Figure
from support.servers import Appserver

WORKERS = 4
IDLE_SECONDS = 10
STARTS = 10
# strace wakes what it attaches to; that wake-up is not the master's.
ATTACHING_SECONDS = 1


def memory(programs, options):
    """PSS of the master, fresh and after a reload."""
    fresh, reloaded = [], []
    for _ in range(options.rounds):
        with Appserver(programs["appserver"], WORKERS).wait_ready() as server:
            fresh.append(procfs.pss_mib([server.master]))
            server.reload()
            reloaded.append(procfs.pss_mib([server.master]))
    return [
        Figure("master: PSS", fresh, "MiB", at_most=5),
        Figure("master: PSS after a reload", reloaded, "MiB", at_most=5),
    ]


def idle(programs, _options):
    """Wake-ups of the master and of all other processes while nobody asks for anything."""
    with Appserver(programs["appserver"], WORKERS).wait_ready() as server:
        server.get()
        # A request may leave a time limit behind; what follows it is not idling.
        time.sleep(2)
        others = procfs.tree([server.master]) - {server.master}
        before = procfs.context_switches(server.master), sum(map(procfs.context_switches, others))
        time.sleep(IDLE_SECONDS)
        after = procfs.context_switches(server.master), sum(map(procfs.context_switches, others))
        figures = [
            Figure(
                f"master: context switches in {IDLE_SECONDS} s of idling",
                [after[0] - before[0]],
                at_most=0,
                digits=0,
            ),
            Figure(f"zygote and {WORKERS} workers: the same", [after[1] - before[1]], digits=0),
        ]
        if (calls := _system_calls(server.master)) is not None:
            figures.append(Figure("master: system calls in that time (strace)", [calls], at_most=0, digits=0))
    return figures


def _system_calls(pid):
    """System calls that the process begins in the idle time; None without strace, or the right to
    use it."""
    if shutil.which("strace") is None:
        return None
    strace = subprocess.Popen(["strace", "-f", "-ttt", "-p", str(pid)], stderr=subprocess.PIPE, text=True)
    time.sleep(ATTACHING_SECONDS)
    begin = time.time()
    time.sleep(IDLE_SECONDS)
    end = time.time()
    strace.send_signal(signal.SIGINT)
    _, trace = strace.communicate()
    if "attached" not in trace:
        return None
    moments = re.findall(r"^(?:\[pid +\d+\] )?(\d+\.\d+) (?!\+\+\+|---|<\.\.\.)", trace, re.MULTILINE)
    return sum(begin <= float(moment) <= end for moment in moments)


def start(programs, _options):
    """From exec to the first answer. The listener is there before, so the request waits in its
    queue and no try comes too early."""
    times = []
    for _ in range(STARTS):
        with Appserver(programs["appserver"], WORKERS) as server:
            status, _, _ = server.get()
            times.append((time.monotonic() - server.begun) * 1e3)
            if status != 200:
                raise RuntimeError(f"the first answer is a {status}")
    return [Figure(f"start to first answer, {WORKERS} workers", times, "ms", at_most=100, digits=1)]
