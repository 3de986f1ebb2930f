"""The module by which an application talks to the server that runs it.

Strings that the server gives are bytes, as in uWSGI. docs/uwsgi-module.md has the whole list of
entries, with those that raise NotImplementedError.
"""

import grp as _grp
import os as _os
import pwd as _pwd
import time as _time

import _appserver
import _appserver_missing as _missing
from _appserver_ask import ask as _ask
from _appserver_cache import (
    cache_clear,
    cache_dec,
    cache_del,
    cache_div,
    cache_exists,
    cache_get,
    cache_inc,
    cache_keys,
    cache_mul,
    cache_num,
    cache_set,
    cache_update,
)
from _appserver_locks import is_locked, lock, unlock
from _appserver_rpc import call, register_rpc, rpc, rpc_list
from _appserver_signals import (
    add_cron,
    add_file_monitor,
    add_ms_timer,
    add_rb_timer,
    add_timer,
    register_signal,
    signal,
    signal_received,
    signal_registered,
    signal_wait,
)

SPOOL_OK = -2
SPOOL_RETRY = -1
SPOOL_IGNORE = 0

opt = {}
applications = None
unbit = None
loop = None
_mounts = []


def _prepare(settings):
    """Fills in what is known before the application is loaded."""
    global version, version_info, numproc, cores, has_threads, hostname, is_a_reload, started_on
    global buffer_size, mode, magic_table, _lifts_limits
    version = settings["version"].encode()
    version_info = (*(int(part) for part in settings["version"].split(".")[:3]), 0, b"")
    numproc = settings["processes"]
    cores = settings["threads"]
    has_threads = int(cores > 1)
    hostname = settings["hostname"].encode()
    buffer_size = settings["buffer_size"]
    _lifts_limits = settings["harakiri_no_arh"]
    # Of uWSGI's modes this is the one that fits: several processes, threads or not.
    mode = 0
    is_a_reload = _ask("is_a_reload")
    started_on = int(_time.time())
    magic_table = _magic_table()
    _mounts.extend(settings["mounts"])
    # As in uWSGI: the last value of an option, as bytes; True where it was given without one.
    for name, values in settings["opt"].items():
        opt[name] = True if values[-1] is None else values[-1].encode()
    if "pidfile" in opt:
        globals()["pidfile"] = opt["pidfile"]


def _magic_table():
    """The placeholders that do not depend on where the configuration file is."""
    uid, gid = _os.getuid(), _os.getgid()

    def name(lookup, number):
        try:
            return lookup(number)[0].encode()
        except KeyError:
            return str(number).encode()

    return {
        b"h": hostname,
        b"V": version,
        b"k": str(_os.cpu_count() or 1).encode(),
        b"u": str(uid).encode(),
        b"U": name(_pwd.getpwuid, uid),
        b"g": str(gid).encode(),
        b"G": name(_grp.getgrgid, gid),
        b"t": str(started_on).encode(),
        b"%": b"%",
    }


def _worker_started():
    hook = globals().get("post_fork_hook")
    if hook is not None:
        hook()
    _appserver.want_after_request("after_req_hook" in globals())


def _after_request():
    """Called after each request if there was an `after_req_hook` when the worker started."""
    if _lifts_limits:
        _ask("lift_limits")
    hook = globals().get("after_req_hook")
    if hook is not None:
        hook()


def __getattr__(name):
    if name == "env":
        environ = _appserver.environ()
        if environ is None:
            raise _missing.Missing("uwsgi.env: there is no request in this thread")
        return environ
    return _missing.attribute(name)


# The server.


def reload():
    """Asks the master for a graceful reload; the request at hand is finished first."""
    _ask("reload")
    return True


def stop():
    """Asks the master to stop the server gracefully."""
    _ask("stop")
    return True


def masterpid():
    """The pid of the master."""
    return _ask("masterpid")


def workers():
    """What each worker does: a tuple of dictionaries, one for each worker number."""
    known = {worker["id"]: worker for worker in _ask("workers")}
    nobody = dict.fromkeys(
        ("pid requests delta_requests signals exceptions rss vsz running_time last_spawn respawn_count tx avg_rt").split(), 0
    )
    result = []
    for number in range(1, max(numproc, *known, 1) + 1):
        worker = known.get(number, {**nobody, "id": number, "status": "cheap"})
        worker["status"] = worker["status"].encode()
        worker["apps"] = [_app(index, mount, worker) for index, mount in enumerate(_mounts)]
        result.append(worker)
    return tuple(result)


def _app(index, mount, worker):
    # Figures are kept for a worker, not for each of its applications.
    alone = len(_mounts) == 1
    return {
        "id": index,
        "modifier1": 0,
        "mountpoint": mount["prefix"].encode(),
        "startup_time": 0,
        "interpreter": 0,
        "callable": 0,
        "requests": worker["requests"] if alone else 0,
        "exceptions": worker["exceptions"] if alone else 0,
        "chdir": b"",
    }


def total_requests():
    """Requests of all workers since the server was started."""
    return _ask("total_requests")


def ready():
    """Whether this worker serves requests."""
    return _ask("ready")


def listen_queue(index=0):
    """Connections that wait to be accepted; needs a TCP listener."""
    raise NotImplementedError("uwsgi.listen_queue: not known to a worker; ask the system: ss -lnt")


# This worker.


def worker_id():
    """The number of this worker, from 1 on; 0 while the application is loaded."""
    return _appserver.worker_id()


def mule_id():
    """0: this is no mule."""
    return 0


def i_am_the_spooler():
    """False: this is no spooler."""
    return False


def in_farm(name=None):
    """False: there are no mules."""
    return False


def mem():
    """Resident and virtual memory of this process, bytes."""
    with open("/proc/self/statm") as statm:
        virtual, resident = statm.read().split()[:2]
    page = _os.sysconf("SC_PAGE_SIZE")
    return int(resident) * page, int(virtual) * page


def setprocname(name):
    """Shows `name` in `ps` for this worker."""
    _ask("setprocname", _text(name))
    return True


def accepting(state=None):
    """Whether this worker accepts connections. The server alone decides about that."""
    if state is not None:
        raise NotImplementedError(
            "uwsgi.accepting: the server knows when a worker accepts; to stop it, pause the server (master FIFO, letter p)"
        )
    return _ask("accepting")


def micros():
    """Microseconds since 1970."""
    return _time.time_ns() // 1000


# Requests.


def request_id():
    """Requests that this worker has finished."""
    return _ask("requests")


def cl():
    """Length of the body of the request at hand."""
    environ = _appserver.environ() or {}
    return int(environ.get("CONTENT_LENGTH") or 0)


def connection_fd():
    """Not to be had: see the message."""
    raise NotImplementedError(
        "uwsgi.connection_fd: the server reads ahead and sends behind the application's back, so bytes written "
        "to the connection would end up in the middle of others; use start_response and write()"
    )


def disconnect():
    """Not to be had: see the message."""
    raise NotImplementedError(
        "uwsgi.disconnect: a client gets its response as soon as the application returns it; "
        "go on in a thread, or in close() of what you return"
    )


def set_user_harakiri(seconds):
    """Limits the time of the request at hand from now on, beside harakiri; 0 takes that back."""
    _ask("set_user_harakiri", int(seconds))


# The log.


def log(message):
    """Writes a line to the server's log."""
    _appserver.log("info", _text(message))
    return True


def set_logvar(name, value):
    """Gives `%(name)` of log-format a value for the request at hand."""
    if isinstance(value, str):
        value = value.encode()
    _ask("set_logvar", [_text(name), list(value)])


def get_logvar(name):
    """The value that was set, or None."""
    value = _ask("get_logvar", _text(name))
    return None if value is None else bytes(value)


def log_this_request():
    """Logs the request at hand whatever disable-logging says."""
    _ask("log_this_request")


def logsize():
    """Bytes of the log file; 0 if the log is no file."""
    status = _os.fstat(2)
    return status.st_size if _os.path.isfile("/proc/self/fd/2") else 0


def _text(text):
    return text if isinstance(text, str) else bytes(text).decode("utf-8", "replace")
