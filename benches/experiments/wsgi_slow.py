"""One request in ten keeps a worker for 20 ms: whether the others find a free one."""

import statistics
from contextlib import ExitStack

from support import wrk
from support.peers import peers
from support.report import Figure, compared
from support.wsgi import WsgiServer

from .wsgi import OURS, SILENT_CLOSERS

WORKERS = 4
CONNECTIONS = 32
SLEEP = 0.020
PEERS = {"uwsgi": 1.05, "gunicorn-sync": None, "granian": None}
# The draw of a few seconds is off by several per cent, so it is counted, not assumed.
COUNT_SLOW = """
counted = 0
function response(status, headers, body)
  if body:sub(1, 4) == "slow" then counted = counted + 1 end
end
"""


def slow(programs, options):
    """Rate against the ideal one, and p99 against the peers."""
    there = peers(options.peers)
    names = [OURS, *there.among(PEERS)]
    results = {name: [] for name in names}
    with ExitStack() as stack:
        servers = {}
        for name in names:
            servers[name] = stack.enter_context(
                WsgiServer(name, programs["appserver"], there, "slow", WORKERS)
            ).wait_settled()
            wrk.run(servers[name], 1, CONNECTIONS, False, COUNT_SLOW)
        for number in range(options.rounds):
            first = number % len(names)
            for name in names[first:] + names[:first]:
                results[name].append(_load(servers[name], options.seconds))
    return _figures(results)


def _load(server, seconds):
    result = wrk.run(server, seconds, CONNECTIONS, False, COUNT_SLOW)
    forgiven = result["read_errors"] if server.name in SILENT_CLOSERS else 0
    if errors := result["errors"] - forgiven:
        raise RuntimeError(f"slow requests: wrk counts {errors} errors of {server.name}:\n{server.tail()}")
    if not result["counted"]:
        raise RuntimeError(f"slow requests: {server.name} has had none:\n{server.tail()}")
    # All workers always busy, and nothing costs time but the sleep itself.
    slept = result["counted"] * SLEEP
    result["ideal"] = WORKERS * result["requests"] / slept
    result["share"] = result["per_second"] / result["ideal"]
    return result


def _median(runs, key):
    return statistics.median(run[key] for run in runs)


def _figures(results):
    ours = results[OURS]
    figures = []
    for name, runs in results.items():
        figures.append(
            Figure(
                f"slow requests, {name}: rate / ideal",
                [run["share"] for run in runs],
                at_least=0.98 if name == OURS else None,
                digits=3,
                note=f"{_median(runs, 'per_second'):,.0f} / {_median(runs, 'ideal'):,.0f} req/s",
            )
        )
    for name, goal in PEERS.items():
        if name in results:
            title = f"slow requests: p99 / {name}"
            figures.append(compared(title, ours, results[name], "p99_us", "us", at_most=goal))
    return figures
