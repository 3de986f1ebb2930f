"""Reloads under load: nothing fails, and nobody waits longer than without them."""

import time

from support.load import Load
from support.report import Figure, beside
from support.servers import Appserver

WORKERS = 2
RATE = 800
CONNECTIONS = 32
# From the completion of one reload to the next.
PAUSE = 0.4
# The application takes that long to load, as real ones do.
LOAD_MS = 100


def reload(programs, options):
    """The same load with and without reloads, in turn."""
    figures = []
    for mode in ("keepalive", "connect"):
        with Appserver(programs["testapp"], WORKERS, {"load_ms": LOAD_MS}).wait_ready() as server:
            pairs = [_round(server, mode, options.reloads) for _ in range(options.rounds)]
        figures += _figures(mode, options.reloads, pairs)
    return figures


def _round(server, mode, reloads):
    """The loads with reloads and without, equally long: the longest of more is longer."""
    begin = time.monotonic()
    with Load(server, mode, RATE, CONNECTIONS, "/pid") as load:
        for _ in range(reloads):
            server.reload()
            time.sleep(PAUSE)
        reloaded = load.finish()
    # One generation before the first reload and one for each: a reload that did nothing would show.
    if len(reloaded["by_worker"]) < reloads + 1:
        raise RuntimeError(f"{reloads} reloads, but only {len(reloaded['by_worker'])} workers have answered")
    length = time.monotonic() - begin
    begin = time.monotonic()
    with Load(server, mode, RATE, CONNECTIONS, "/pid") as load:
        time.sleep(max(0.0, length - (time.monotonic() - begin)))
        undisturbed = load.finish()
    return reloaded, undisturbed


def _figures(mode, reloads, pairs):
    failed = [len(reloaded["failures"]) for reloaded, _ in pairs]
    kinds = sorted({failure["kind"] for reloaded, _ in pairs for failure in reloaded["failures"]})
    answered = sum(reloaded["answered"] for reloaded, _ in pairs)
    worst = max(failed)
    title = f"{reloads} reloads, {mode}"
    disturbed, undisturbed = zip(*pairs, strict=True)
    return [
        # One failure is one too many, so it is the worst round that counts.
        Figure(
            f"{title}: failed requests",
            [worst],
            at_most=0,
            digits=0,
            note=f"of {answered:,} answered; {', '.join(kinds) or 'none'}",
        ),
        Figure(
            f"{title}: longest wait beyond the same load without",
            [a["max"] - b["max"] for a, b in pairs],
            "ms",
            at_most=10,
            note=beside(disturbed, undisturbed, "max", "ms", 1),
        ),
        Figure(
            f"{title}: p99.9 beyond the same load without",
            [a["p99.9"] - b["p99.9"] for a, b in pairs],
            "ms",
            note=beside(disturbed, undisturbed, "p99.9", "ms", 1),
        ),
        Figure(
            f"{title}: workers that answered, of {(reloads + 1) * WORKERS}",
            [len(a["by_worker"]) for a, _ in pairs],
            digits=0,
        ),
        Figure(
            f"{mode} without reloads: answers of the busiest worker / mean", [_imbalance(b) for _, b in pairs]
        ),
        Figure(f"{title}: idle connections closed", [a["closed_idle"] for a, _ in pairs], digits=0),
    ]


def _imbalance(load):
    return max(load["by_worker"]) * WORKERS / load["answered"]
