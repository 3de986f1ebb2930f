"""What one more idle worker of the built-in application costs."""

from support import procfs, wrk
from support.report import Figure
from support.servers import Appserver

COUNTS = (1, 4, 16)


def memory(programs, options):
    """PSS of the whole tree by the number of workers, before and after they have served."""
    fresh, used = [], []
    for _ in range(options.rounds):
        fresh_tree, used_tree = {}, {}
        for count in COUNTS:
            with Appserver(programs["appserver"], count).wait_ready() as server:
                fresh_tree[count] = procfs.pss_mib(procfs.tree([server.master]))
                if wrk.missing() is None:
                    wrk.run(server, 1, 64, close=False)
                    used_tree[count] = procfs.pss_mib(procfs.tree([server.master]))
        fresh.append(fresh_tree)
        used.append(used_tree)
    figures = [_per_worker("each further idle worker: PSS", fresh, at_most=0.3)]
    if all(used):
        figures.append(_per_worker("the same after a second of load on 64 connections", used))
    figures += [
        Figure(f"whole tree, idle, workers: {count}", [tree[count] for tree in fresh], "MiB")
        for count in COUNTS
    ]
    return figures


def _per_worker(name, trees, **goal):
    least, most = COUNTS[0], COUNTS[-1]
    return Figure(
        name, [(tree[most] - tree[least]) / (most - least) for tree in trees], "MiB", digits=3, **goal
    )
