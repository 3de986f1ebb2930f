"""What the processes of a Python application cost: their start, their memory, and its growth."""

from support import procfs, wrk
from support.peers import peers
from support.report import Figure
from support.wsgi import WsgiServer

from .wsgi import OURS

STARTS = 10
START_WORKERS = 2
MEMORY_WORKERS = 16
# What each peer's private memory is multiplied with to get ours at most, by application.
MEMORY_GOALS = {
    "hello": {"uwsgi": 0.4, "gunicorn-sync": None, "granian": None, "bjoern": None},
    "django_view": {"uwsgi": 1.0, "gunicorn-sync": 1.0, "granian": 1.0, "bjoern": 1.0},
}
GROWTH_REQUESTS = 1_000_000
# Before that a worker still fills its pools, and runs its code for the first time.
GROWTH_WARM = 100_000
# A tenth of a byte for each request: less than any leak, more than a page that happens to be touched.
GROWTH_MIB = 0.1


def start(programs, options):
    """From exec to the first answer, in turn."""
    there = peers(options.peers)
    names = [OURS, *there.among(["uwsgi"])]
    times = {name: [] for name in names}
    for number in range(STARTS):
        for name in names if number % 2 == 0 else reversed(names):
            with WsgiServer(name, programs["appserver"], there, "hello", START_WORKERS) as server:
                times[name].append(server.wait_answer())
    figures = [
        Figure(f"hello, {name}: start to first answer", samples, "ms", digits=1)
        for name, samples in times.items()
    ]
    if "uwsgi" in times:
        ratios = [a / b for a, b in zip(times[OURS], times["uwsgi"], strict=True)]
        figures.append(Figure("hello: start to first answer / uwsgi", ratios, at_most=2.5))
    return figures


def memory(programs, options):
    """Private memory of the whole tree, as started and after each worker has had requests."""
    there = peers(options.peers)
    figures = []
    for application, goals in MEMORY_GOALS.items():
        if application == "django_view" and not there.has_django():
            continue
        names = [OURS, *there.among(goals)]
        fresh, used = {name: [] for name in names}, {name: [] for name in names}
        for _ in range(options.rounds):
            for name in names:
                arguments = (programs["appserver"], there, application, MEMORY_WORKERS)
                with WsgiServer(name, *arguments) as server:
                    server.wait_settled()
                    fresh[name].append(procfs.uss_mib(server.tree()))
                    # With new connections all the time, no worker stays without one.
                    wrk.run(server, options.seconds, 64, close=True)
                    used[name].append(procfs.uss_mib(server.tree()))
        title = f"{application}, {MEMORY_WORKERS} workers"
        figures += _memory_figures(f"{title}: USS", fresh, goals)
        figures += _memory_figures(f"{title}, after load: USS", used, goals)
    return figures


def _memory_figures(title, trees, goals):
    figures = [Figure(f"{title} of {OURS}", trees[OURS], "MiB", digits=1)]
    for name, samples in trees.items():
        if name != OURS:
            ratios = [a / b for a, b in zip(trees[OURS], samples, strict=True)]
            note = f"{name}: {Figure('', samples).median:.1f} MiB"
            figures.append(Figure(f"{title} / {name}", ratios, at_most=goals[name], note=note))
    return figures


def growth(programs, options):
    """RSS of the only worker over a million requests, and over one more: what is still warming up
    levels off, a leak does not."""
    with WsgiServer(OURS, programs["appserver"], peers(options.peers), "hello", 1).wait_settled() as server:
        before = server.cpu_seconds()
        _serve(server, GROWTH_WARM, options.seconds)
        after = server.cpu_seconds()
        worker = max(after, key=lambda pid: after[pid] - before.get(pid, 0.0))
        figures = [_growth(server, worker, which, options.seconds) for which in ("first", "second")]
        if worker not in server.cpu_seconds():
            raise RuntimeError(f"the worker has ended meanwhile:\n{server.tail()}")
    return figures


def _growth(server, worker, which, seconds):
    before = procfs.rss_mib([worker])
    served = _serve(server, GROWTH_REQUESTS, seconds)
    return Figure(
        f"hello: growth of a worker's RSS, {which} million",
        [procfs.rss_mib([worker]) - before],
        "MiB",
        at_most=GROWTH_MIB,
        digits=3,
        note=f"{before:.2f} MiB before, {served:,} requests",
    )


def _serve(server, requests, seconds):
    """At least so many requests; how many there were."""
    served = 0
    while served < requests:
        result = wrk.run(server, seconds, 64, close=False)
        if result["errors"] or not result["requests"]:
            raise RuntimeError(f"wrk counts {result['errors']} errors:\n{server.tail()}")
        served += result["requests"]
    return served
