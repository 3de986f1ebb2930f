"""Signals of the master: numbers from 0 to 255, each with a function of the application."""

import os
import threading

import _appserver
from _appserver_ask import ask

_functions = {}
_threads = 1
_handled = threading.Condition()
_count = {}
_last = threading.local()


def prepare(settings):
    global _threads
    _threads = settings["threads"]


def _number(signum):
    if not 0 <= signum <= 255:
        raise ValueError(f"signal {signum} is not from 0 to 255")
    return signum


def register_signal(signum, target, function):
    """Has `function(signum)` called by `target`: worker, workers, active-workers or workerN."""
    if not callable(function):
        raise ValueError("uwsgi.register_signal: the third argument is not callable")
    _number(signum)
    # First: the signal may come as soon as the master knows of it.
    _functions[signum] = function
    ask("register_signal", [signum, target if isinstance(target, str) else bytes(target).decode()])


def signal_registered(signum):
    """Whether this worker has a function for the signal."""
    return _number(signum) in _functions


def signal(signum, remote=None):
    """Raises a signal."""
    if remote is not None:
        raise NotImplementedError("uwsgi.signal: signals of other servers cannot be raised; call them by HTTP")
    ask("signal", _number(signum))


def handle(signum):
    """The master wants a function to be called. Whatever it raises is for the log."""
    function = _functions.get(signum)
    if function is None:
        _appserver.log("warning", f"signal {signum} came, and this worker has no function for it")
        return
    try:
        function(signum)
    finally:
        with _handled:
            _count[signum] = _count.get(signum, 0) + 1
            _last.number = signum
            _handled.notify_all()


def signal_wait(signum=None):
    """Waits until this worker has handled a signal, that one or any; needs more threads than one."""
    if _threads < 2:
        raise NotImplementedError(
            "uwsgi.signal_wait: the only thread of this worker would wait for itself; use threads = 2 or more, "
            "or register a function for the signal"
        )
    with _handled:
        before = dict(_count)

        def news():
            numbers = _count if signum is None else [signum]
            return [number for number in numbers if _count.get(number, 0) != before.get(number, 0)]

        _handled.wait_for(news)
        _last.number = news()[0]
    return True


def signal_received():
    """The signal that this thread has waited for or handled last; 0 before the first."""
    return getattr(_last, "number", 0)


def add_timer(signum, seconds):
    """Raises a signal every so many seconds."""
    _timer(signum, seconds * 1000, 0)


def add_ms_timer(signum, milliseconds):
    """Raises a signal every so many milliseconds."""
    _timer(signum, milliseconds, 0)


def add_rb_timer(signum, seconds, iterations=0):
    """Raises a signal every so many seconds, so many times; 0 is without end."""
    _timer(signum, seconds * 1000, iterations)


def _timer(signum, milliseconds, times):
    if milliseconds < 1 or times < 0:
        raise ValueError("a timer needs a time that is not zero, and no negative number")
    ask("add_timer", [_number(signum), int(milliseconds), times])


def add_cron(signum, minute, hour, day, month, weekday):
    """Raises a signal at times of the clock: -1 is any, -N every N-th; Sunday is 0."""
    ask("add_cron", [_number(signum), [minute, hour, day, month, weekday]])


def add_file_monitor(signum, path):
    """Raises a signal when a file or a directory changes."""
    path = os.path.abspath(os.fsdecode(path))
    if not os.path.exists(path):
        raise ValueError(f"uwsgi.add_file_monitor: there is no {path}")
    ask("add_file_monitor", [_number(signum), path])
