"""Rollbacks under load: how soon the generation before serves again, and who notices."""

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
# From the completion of a reload to its rollback, and on to the next reload.
PAUSE = 0.3
POLL = 0.0002
# What a reload has to wait for, and a rollback has not.
LOAD_MS = 500
COMPLETE = re.compile(r"rollback \d+ complete")


def rollback(programs, options):
    """In both kinds of load."""
    figures = []
    for mode in ("keepalive", "connect"):
        settings = {"load_ms": LOAD_MS}
        with Appserver(programs["testapp"], WORKERS, settings, options=["--snapshots=1"]).wait_ready() as server:
            with Load(server, mode, RATE, CONNECTIONS, "/pid") as load:
                times = [_there_and_back(server) for _ in range(options.reloads)]
                result = load.finish()
        figures += _figures(mode, times, result)
    return figures


def _there_and_back(server):
    """A reload that is taken back: milliseconds from the signal until the first worker of the generation
    before accepts, and until the rollback is complete."""
    serving = {worker.generation for worker in Scoreboard(server.master).workers() if worker.accepts}
    server.reload()
    time.sleep(PAUSE)
    board = Scoreboard(server.master)
    known = {worker.pid for worker in board.workers()}
    since = len(server.log.lines)
    begun = time.monotonic()
    os.kill(server.master, signal.SIGURG)
    while not any(it.generation in serving and it.pid not in known and it.accepts for it in board.workers()):
        if server.processes[0].poll() is not None:
            raise RuntimeError("\n".join(["the server is gone:", *server.log.text()[-20:]]))
        time.sleep(POLL)
    accepting = time.monotonic()
    complete, _ = server.log.wait(COMPLETE, since)
    time.sleep(PAUSE)
    return {"accepts_ms": (accepting - begun) * 1e3, "complete_ms": (complete - begun) * 1e3}


def _figures(mode, times, result):
    kinds = sorted({failure["kind"] for failure in result["failures"]})
    title = f"{len(times)} rollbacks, {mode}"
    return [
        Figure(
            f"{title}: from signal to the first restored worker that accepts",
            [it["accepts_ms"] for it in times],
            "ms",
        ),
        Figure(
            f"{title}: from signal to the restored generation serving",
            [it["complete_ms"] for it in times],
            "ms",
            at_most=100,
        ),
        Figure(
            f"{title}: failed requests",
            [len(result["failures"])],
            at_most=0,
            digits=0,
            note=f"of {result['answered']:,} answered; {', '.join(kinds) or 'none'}",
        ),
        Figure(f"{title}: longest wait", [result["max"]], "ms"),
        Figure(f"{title}: idle connections closed", [result["closed_idle"]], digits=0),
    ]
