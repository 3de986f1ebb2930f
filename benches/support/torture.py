"""`appserver torture`, the load that counts what reloads cost."""

import json
import subprocess


def run(program, *arguments, server=None):
    """What it reports; `server` are the options of a server of its own. Losses are in the report: they are
    no error here."""
    command = [program, "torture", "--json", *arguments]
    if server is not None:
        command += ["--", *server]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
    if not done.stdout:
        raise RuntimeError(f"{' '.join(command)}: exit status {done.returncode}")
    return json.loads(done.stdout)


def total(report, counter):
    """A counter over all kinds of load."""
    return sum(load[counter] for load in report["loads"].values())


def lost(report):
    """Requests lost without an excuse, over all kinds of load."""
    return sum(sum(load["lost"].values()) for load in report["loads"].values())


def longest(report):
    """The longest stall of any kind of load, in milliseconds."""
    return max(load["longest_ms"] for load in report["loads"].values())


def told(report):
    """What went wrong, in a line."""
    kinds = {f"{kind}: {loss}" for kind, load in report["loads"].items() for loss in load["lost"]}
    return ", ".join(sorted(kinds) + report["failures"]) or "none"
