"""A worker killed with signal 9 under load: how soon another one accepts, and who notices."""

import os
import re
import signal
import time

from support.load import Load
from support.report import Figure
from support.scoreboard import Scoreboard
from support.servers import Appserver

WORKERS = 4
RATE = 800
CONNECTIONS = 32
# Long enough for each worker to live more than a second: shorter lives earn a growing pause.
PAUSE = 0.5
POLL = 0.0002
# The kernel closes the sockets of a dying process a moment after the signal.
DYING = 0.05
RESPAWNED = re.compile(r"Respawned appserver worker")


def kill(programs, options):
    """In both kinds of load."""
    figures = []
    for mode in ("keepalive", "connect"):
        with Appserver(programs["testapp"], WORKERS).wait_ready() as server:
            with Load(server, mode, RATE, CONNECTIONS, "/pid") as load:
                time.sleep(1)
                deaths = [_kill(server, number) for number in range(options.kills)]
                result = load.finish()
        figures += _figures(mode, deaths, result)
    return figures


def _kill(server, number):
    """Kills one worker, each in its turn: its pid, when, and the milliseconds until its successor was
    forked and until it accepted."""
    board = Scoreboard(server.master)
    slot = number % WORKERS + 1
    old = next(worker.pid for worker in board.workers() if worker.slot == slot and worker.accepts)
    since = len(server.log.lines)
    begun = time.monotonic()
    os.kill(old, signal.SIGKILL)
    while not any(it.slot == slot and it.pid != old and it.accepts for it in board.workers()):
        if server.processes[0].poll() is not None:
            raise RuntimeError("\n".join(["the server is gone:", *server.log.text()[-20:]]))
        time.sleep(POLL)
    accepting = time.monotonic()
    forked, _ = server.log.wait(RESPAWNED, since)
    time.sleep(PAUSE)
    return {
        "pid": old,
        "at": begun,
        "forked_ms": (forked - begun) * 1e3,
        "accepts_ms": (accepting - begun) * 1e3,
    }


def _figures(mode, deaths, result):
    held = [failure for failure in result["failures"] if any(_held(failure, death) for death in deaths)]
    others = [failure for failure in result["failures"] if failure not in held]
    kinds = sorted({failure["kind"] for failure in result["failures"]})
    title = f"{len(deaths)} kills, {mode}"
    return [
        Figure(
            f"{title}: from kill to accepting successor",
            [it["accepts_ms"] for it in deaths],
            "ms",
            at_most=10,
        ),
        Figure(f"{title}: from kill to its log line", [it["forked_ms"] for it in deaths], "ms"),
        Figure(
            f"{title}: failed requests not held by the dead",
            [len(others)],
            at_most=0,
            digits=0,
            note=", ".join(sorted({it["kind"] for it in others})),
        ),
        Figure(
            f"{title}: failed requests held by the dead",
            [len(held)],
            digits=0,
            note=f"of {result['answered']:,} answered; {', '.join(kinds) or 'none'}",
        ),
        Figure(f"{title}: longest wait", [result["max"]], "ms"),
    ]


def _held(failure, death):
    """True for a request that was the dead worker's to answer."""
    during = failure["begun"] <= death["at"] + DYING and failure["failed"] >= death["at"]
    # On a kept connection it is known whose it was; on a new one nobody has answered yet.
    return during and failure["holder"] in (None, str(death["pid"]))
