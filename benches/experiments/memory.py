"""What one more worker costs: of the built-in application, and of a Django project that has served."""

import os
import subprocess
import tempfile

from support import procfs, wrk
from support.build import ROOT
from support.report import Figure
from support.servers import Appserver

COUNTS = (1, 4, 16)
WORKERS = 8
# The first worker that has served so many becomes the zygote.
REFORK_AFTER = 100
ROLLED = "warm roll complete"
# What is left of the private memory, at most.
REFORK_GOAL = 0.8
# Pages of the project, from a template, as JSON and of Django itself: each worker gets them all.
PAGES = """
local paths, turn = {"/", "/products.json?q=1", "/accounts/login/"}, 0
function request()
  turn = turn + 1
  return wrk.format(nil, paths[turn % #paths + 1])
end
"""


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


def refork(programs, options):
    """USS of the whole tree of a Django project that has served, with and without `refork-after`."""
    with tempfile.TemporaryDirectory(prefix="figures-") as data:
        arguments = _project(data)
        without, warmed = [], []
        for _ in range(options.rounds):
            for trees, more in ((without, []), (warmed, [f"--refork-after={REFORK_AFTER}"])):
                with Appserver(programs["appserver"], WORKERS, options=[*arguments, *more]).wait_ready() as server:
                    trees.append(_used_mib(server, options.seconds, rolls=bool(more)))
    ratios = [a / b for a, b in zip(warmed, without, strict=True)]
    title = f"Django, {WORKERS} workers, after load: USS"
    return [
        Figure(f"{title} without refork-after", without, "MiB", digits=1),
        Figure(f"{title} with refork-after = {REFORK_AFTER}", warmed, "MiB", digits=1),
        Figure(f"{title}, with / without", ratios, at_most=REFORK_GOAL),
    ]


def _project(data):
    """The options that serve the project in tests/apps, whose database is made in `data`."""
    directory = os.path.join(ROOT, "tests", "apps", "django")
    environment = os.path.join(ROOT, "target", "apps", "django")
    python = os.path.join(environment, "bin", "python")
    if not os.path.exists(python):
        raise SystemExit(f"{python} is not there: run scripts/test-apps")
    variables = {"SHOP_DATA": data, "PYTHONDONTWRITEBYTECODE": "1"}
    subprocess.run([python, "manage.py", "migrate", "-v0"], cwd=directory, env=os.environ | variables, check=True)
    variables["DJANGO_SETTINGS_MODULE"] = "shop.settings"
    options = [f"--chdir={directory}", f"--virtualenv={environment}", "--module=shop.wsgi:application"]
    return options + [f"--env={name}={value}" for name, value in variables.items()]


def _used_mib(server, seconds, rolls):
    """What is private in all processes when each worker has served, before and after they were replaced."""
    _serve(server, seconds)
    while rolls and not any(ROLLED in line for line in server.log.text()):
        _serve(server, seconds)
    _serve(server, seconds)
    return procfs.uss_mib(procfs.tree([server.master]))


def _serve(server, seconds):
    # With new connections all the time, no worker stays without one.
    result = wrk.run(server, seconds, 2 * WORKERS, close=True, shape=PAGES)
    # A wait of two seconds is an error to wrk; it says nothing about memory.
    if not result["requests"]:
        raise RuntimeError("no request is answered:\n" + "\n".join(server.log.text()[-20:]))


def _per_worker(name, trees, **goal):
    least, most = COUNTS[0], COUNTS[-1]
    return Figure(
        name, [(tree[most] - tree[least]) / (most - least) for tree in trees], "MiB", digits=3, **goal
    )
