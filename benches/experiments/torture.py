"""Reloads under load, as `appserver torture` counts them: many, slow ones, and those of the others."""

import os

from support import machine, torture
from support.peers import APPS, peers
from support.report import Figure
from support.wsgi import WsgiServer

OURS = "appserver"
STORM = 1000
STORM_WORKERS = 4
SLOW_RELOADS = 100
PEER_RELOADS = 10
MACHINE_SECONDS = 30
PEERS = ("gunicorn-sync", "gunicorn-gthread", "uwsgi", "granian")
# Half are kept, as behind a proxy; no pipelining, which not everybody serves.
PEER_LOAD = "--load=keep-alive=16,fresh=8,post=4"
THINKING_CLIENTS = 32
THINKING_WORKERS = 4


def storm(programs, _options):
    """A thousand reloads, by every road, while idle connections are kept and others are busy."""
    report = torture.run(
        programs["appserver"],
        f"--reloads={STORM}",
        "--pause=50ms",
        "--blow=hup,fifo,touch,wait",
        "--load=keep-alive=64,fresh=4,pipelined=2",
        "--think=100ms",
        server=[f"--processes={STORM_WORKERS}", "--disable-logging"],
    )
    title = f"{STORM:,} reloads under load"
    kept = report["loads"]["keep-alive"]
    sent = torture.total(report, "sent")
    reconnects = kept["reconnects"] + kept["reconnects_announced"]
    note = f"of {sent:,}; {torture.told(report)}"
    return [
        Figure(f"{title}: lost requests", [torture.lost(report)], at_most=0, digits=0, note=note),
        Figure(f"{title}: reloads that failed", [len(report["failures"])], at_most=0, digits=0),
        Figure(f"{title}: reconnects of 64 kept connections", [reconnects], at_most=0, digits=0),
        Figure(f"{title}: longest stall", [torture.longest(report)], "ms"),
    ]


def stall(programs, options):
    """An application that takes a second to import: the same load with reloads and without."""
    # Clients that wait for a processor while the new code is loaded would count that as a stall of the server.
    arguments = [programs["appserver"], "--load=keep-alive=24,fresh=8", "--think=40ms", "--pause=200ms"]
    if os.geteuid() == 0:
        arguments.append("--clients-first")
    server = ["--processes=2", "--disable-logging", f"--wsgi-file={os.path.join(APPS, 'slow_import.py')}"]
    server.append(peers(options.peers).interpreter())
    reloaded = torture.run(*arguments, "--blow=hup", f"--reloads={SLOW_RELOADS}", server=server)
    quiet = torture.run(*arguments, "--blow=none", f"--seconds={int(reloaded['seconds'])}", server=server)
    title = f"{SLOW_RELOADS} reloads of a second's import"
    worst = max(load["p999_ms"] for load in quiet["loads"].values())
    with_, without = torture.longest(reloaded), torture.longest(quiet)
    alone = machine.longest_delay(MACHINE_SECONDS)
    p999 = max(load["p999_ms"] for load in reloaded["loads"].values())
    return [
        Figure(
            f"{title}: longest stall / p99.9 without",
            [with_ / worst],
            at_most=2,
            note=f"{with_:,.1f} / {worst:,.1f} ms; longest without: {without:,.1f} ms, machine alone: {alone:,.1f} ms",
        ),
        Figure(f"{title}: p99.9 / p99.9 without", [p999 / worst], note=f"{p999:,.1f} / {worst:,.1f} ms"),
        Figure(
            f"{title}: lost requests",
            [torture.lost(reloaded)],
            at_most=0,
            digits=0,
            note=f"of {torture.total(reloaded, 'sent'):,}; {torture.told(reloaded)}",
        ),
    ]


def thinking(programs, options):
    """One request in ten sleeps 20 ms, and clients think: half of the workers are free, if they are found."""
    there = peers(options.peers)
    names = [OURS, *there.among(("uwsgi", "gunicorn-gthread", "granian"))]
    p99 = {name: [] for name in names}
    for _ in range(options.rounds):
        for name in names:
            with WsgiServer(name, programs["appserver"], there, "slow", THINKING_WORKERS) as server:
                server.wait_settled()
                report = torture.run(
                    programs["appserver"],
                    f"--against=http://127.0.0.1:{server.port}/",
                    f"--load=keep-alive={THINKING_CLIENTS}",
                    "--think=25ms",
                    f"--seconds={max(2, options.seconds)}",
                )
                # uWSGI closes without a word, which at times meets a request.
                if torture.lost(report) and name == OURS:
                    raise RuntimeError(f"{name}: {torture.told(report)}\n{server.tail()}")
            p99[name].append(report["loads"]["keep-alive"]["p99_ms"])
    return [
        Figure(
            f"slow requests, thinking clients, {name}: p99",
            samples,
            "ms",
            at_most=32 if name == OURS else None,
        )
        for name, samples in p99.items()
    ]


def against_peers(programs, options):
    """SIGHUP, everybody's own reload, under the same load."""
    there = peers(options.peers)
    results = {}
    for name in [OURS, *there.among(PEERS)]:
        with WsgiServer(name, programs["appserver"], there, "slow_import", 2) as server:
            server.wait_settled()
            results[name] = torture.run(
                programs["appserver"],
                f"--against=http://127.0.0.1:{server.port}/",
                f"--reload-command=kill -HUP {server.processes[0].pid}",
                f"--reloads={PEER_RELOADS}",
                "--pause=4s",
                PEER_LOAD,
            )
    figures = []
    for name, report in results.items():
        title = f"{PEER_RELOADS} reloads, {name}"
        sent, ours = torture.total(report, "sent"), name == OURS
        kept = report["loads"]["keep-alive"]
        figures += [
            Figure(
                f"{title}: lost requests",
                [torture.lost(report)],
                at_most=0 if ours else None,
                digits=0,
                note=f"of {sent:,}; {torture.told(report)}",
            ),
            Figure(
                f"{title}: reconnects of 16 kept connections",
                [kept["reconnects"] + kept["reconnects_announced"]],
                at_most=0 if ours else None,
                digits=0,
            ),
        ]
        if not ours:
            ratio = torture.longest(results[OURS]) / torture.longest(report)
            note = f"{torture.longest(results[OURS]):,.1f} / {torture.longest(report):,.1f} ms"
            figures.append(Figure(f"{title}: our longest stall / theirs", [ratio], note=note))
    return figures
