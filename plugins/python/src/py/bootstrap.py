"""Prepares the interpreter and follows the worker through its life.

What the server calls is found here. `_appserver_loading` finds the applications, `_appserver_request` has
what requests need, `_appserver_report` tells what went wrong.
"""

import atexit
import faulthandler
import glob
import importlib
import importlib.machinery
import json
import os
import sys
import threading

import _appserver

settings = {}


class BuiltinSources:
    """Finds the Python modules that are part of the plugin before any of the same name elsewhere.

    A finder and loader without their base classes: importlib.abc brings thirty modules along, among them
    random, which is seeded anew at each fork.
    """

    def find_spec(self, name, path=None, target=None):
        if path is None and _appserver.source(name) is not None:
            return importlib.machinery.ModuleSpec(name, self, origin="appserver")
        return None

    def create_module(self, spec):
        return None

    def exec_module(self, module):
        name = module.__spec__.name
        exec(compile(_appserver.source(name), f"<appserver>/{name}.py", "exec"), module.__dict__)

    def get_source(self, name):
        return _appserver.source(name)


sys.meta_path.insert(0, BuiltinSources())

from _appserver_loading import imports, keep_what_is_loaded, load, may_fork  # noqa: E402, F401
from _appserver_report import log_exception, shown, summary  # noqa: E402, F401
from _appserver_request import FileWrapper, environ_template, exception_page, file_range  # noqa: E402, F401


def prepare(text):
    """Before any code of the application: streams, paths, the modules that the server provides."""
    settings.update(json.loads(text))
    if settings["lc_ctype"] is None:
        # In a C locale the interpreter sets it, for itself (PEP 538); programs that the application
        # starts get the environment that the server was given.
        os.environ.pop("LC_CTYPE", None)
    for stream in (sys.stdout, sys.stderr):
        # None when the descriptor is closed; a log that nobody sees before it is full is no log.
        if stream is not None:
            stream.reconfigure(line_buffering=True, errors="backslashreplace")
    if sys.stderr is not None and not faulthandler.is_enabled():
        # A crash tells where the application was.
        faulthandler.enable()
    if settings["stacks"] is not None:
        # Written without any lock of the interpreter; whoever has asked hears of it from the handler before.
        signum, descriptor = settings["stacks"]
        faulthandler.register(signum, file=descriptor, all_threads=True, chain=True)
    sys.argv = ["uwsgi", *settings["pyargv"]]
    if settings["py_executable"]:
        sys.executable = settings["py_executable"]
    sys.path.insert(0, os.getcwd())
    for pattern in settings["pythonpath"]:
        for directory in sorted(glob.glob(pattern)) or [pattern]:
            sys.path.insert(0, os.path.abspath(directory))
    uwsgi = importlib.import_module("uwsgi")
    sys.modules["appserver"] = uwsgi
    uwsgi._prepare(settings)
    sys.modules["_appserver_signals"].prepare(settings)
    if settings["autoreload"] > 0:
        _appserver.want_start()


def worker_started():
    """After the fork, before the first request, if there is a hook for it or it was asked for."""
    sys.modules["uwsgi"]._worker_started()
    if settings["autoreload"] > 0 and _appserver.worker_id() == 1:
        importlib.import_module("_appserver_autoreload").start(settings)


def handle_signal(number):
    """The master raised a signal for this worker."""
    sys.modules["_appserver_signals"].handle(number)


def after_request():
    """A request has come to its end."""
    sys.modules["uwsgi"]._after_request()


def note_exception(error):
    """A request has ended in this exception."""
    kind = type(error)
    told = {"class": kind.__name__, "qualified": f"{kind.__module__}.{kind.__qualname__}"}
    if settings["exception_texts"]:
        told.update(value=shown(error, str), repr=shown(error, repr))
    _appserver.ask("exception", json.dumps(told))


def name_thread(core):
    """Names an application thread as uWSGI does."""
    worker = sys.modules["uwsgi"].worker_id()
    threading.current_thread().name = f"uWSGIWorker{worker}Core{core}"


def settle():
    """The worker becomes the process that others are forked from."""
    hook = getattr(sys.modules["uwsgi"], "pre_promotion_hook", None)
    if hook is not None:
        hook()
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.flush()
    keep_what_is_loaded()


def stop():
    """The worker leaves: what Python does at exit, but for tearing down memory that goes anyway."""
    uwsgi = sys.modules["uwsgi"]
    hook = getattr(uwsgi, "atexit", None)
    if hook is not None:
        try:
            hook()
        except BaseException as error:
            log_exception("uwsgi.atexit", error)
    if not settings["skip_atexit_teardown"]:
        threading._shutdown()
        atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except Exception:
            pass
