"""The module by which an application talks to the server that runs it."""

import json as _json
import time as _time

import _appserver

SPOOL_OK = -2
SPOOL_RETRY = -1
SPOOL_IGNORE = 0

opt = {}
applications = None
_worker = {"id": 0}


def _prepare(settings):
    """Fills in what is known before the application is loaded."""
    global version, version_info, numproc, cores, has_threads, hostname, is_a_reload, started_on, opt
    version = settings["version"].encode()
    version_info = (*(int(part) for part in settings["version"].split(".")[:3]), 0, b"")
    numproc = settings["processes"]
    cores = settings["threads"]
    has_threads = int(cores > 1)
    hostname = settings["hostname"].encode()
    is_a_reload = False
    started_on = int(_time.time())
    # As in uWSGI: the last value of an option, as bytes; True where it was given without one.
    for name, values in settings["opt"].items():
        opt[name] = True if values[-1] is None else values[-1].encode()


def _worker_started(worker):
    global is_a_reload
    _worker.update(worker)
    is_a_reload = worker["reloads"] > 0
    hook = globals().get("post_fork_hook")
    if hook is not None:
        hook()


def _ask(name, argument=None):
    answer = _json.loads(_appserver.ask(name, _json.dumps(argument)))
    if isinstance(answer, dict) and "error" in answer:
        raise RuntimeError(f"{name}: {answer['error']}")
    return answer


def reload():
    """Asks the master for a graceful reload; the request at hand is finished first."""
    _ask("reload")
    return True


def stop():
    """Asks the master to stop the server gracefully."""
    _ask("stop")
    return True


def worker_id():
    """The number of this worker, from 1 on; 0 while the application is loaded."""
    return _worker["id"]


def masterpid():
    """The pid of the master."""
    return _ask("masterpid")


def log(message):
    """Writes a line to the server's log."""
    _appserver.log("info", message if isinstance(message, str) else message.decode("utf-8", "replace"))
    return True
