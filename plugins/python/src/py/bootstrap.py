"""Prepares the interpreter, finds the applications, follows the worker through its life.

Everything here runs at start-up or at exit; nothing of it is on the path of a request.
"""

import atexit
import faulthandler
import gc
import glob
import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import io
import json
import os
import stat
import sys
import threading
import traceback

import _appserver

settings = {}


class LoadError(Exception):
    """An application cannot be loaded, for a reason that needs no traceback."""


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
    sys.argv = ["uwsgi", *settings["pyargv"]]
    if settings["py_executable"]:
        sys.executable = settings["py_executable"]
    sys.path.insert(0, os.getcwd())
    for pattern in settings["pythonpath"]:
        for directory in sorted(glob.glob(pattern)) or [pattern]:
            sys.path.insert(0, os.path.abspath(directory))
    sys.meta_path.insert(0, BuiltinSources())
    uwsgi = importlib.import_module("uwsgi")
    sys.modules["appserver"] = uwsgi
    uwsgi._prepare(settings)
    sys.modules["_appserver_signals"].prepare(settings)


class BuiltinSources(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds the Python modules that are part of the plugin before any of the same name elsewhere."""

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


def imports():
    """What is loaded before the applications."""
    if settings["autoreload"] > 0:
        importlib.import_module("_appserver_autoreload").watch_imports()
    alias(settings["aliases"])
    for name in settings["imports"]:
        try:
            import_anything(name)
        except Exception as error:
            log_exception(f"cannot import {name}", error)


def load(environment):
    """Loads what the settings name; a list of (mount point, callable), the default application first."""
    if settings["reload_os_env"]:
        reload_os_environ(environment)
    apps = []
    for mount in settings["mounts"]:
        load = {"module": from_module, "file": from_file, "code": from_code}[mount["kind"]]
        for prefix, app in load(mount["what"]).items():
            if mount["is_default"] and not prefix and settings["no_default_app"]:
                continue
            apps.append((mount["prefix"] + prefix, app))
    alias(settings["post_aliases"])
    if settings["autoreload"] > 0:
        importlib.import_module("_appserver_autoreload").remember(settings)
    report_threads()
    # What is loaded now stays: a collection would only make pages private that are shared with
    # the other workers.
    gc.collect()
    gc.freeze()
    return apps


def reload_os_environ(environment):
    """Takes over what was changed past `os.environ`, by `os.putenv` or a library."""
    known = os.environb
    for name in known.keys() - environment.keys():
        del known[name]
    for name, value in environment.items():
        if known.get(name) != value:
            known[name] = value


def alias(pairs):
    for virtual, real in pairs:
        sys.modules[virtual] = import_anything(real)


def import_anything(name):
    if "/" in name or name.endswith(".py"):
        return module_of_file(name)
    return importlib.import_module(name)


def from_module(what):
    name, _, attribute = what.partition(":")
    module = importlib.import_module(name)
    if not attribute:
        table = sys.modules["uwsgi"].applications or getattr(module, "applications", None)
        if isinstance(table, dict):
            return {
                mount.rstrip("/"): getattr(module, app) if isinstance(app, str) else app
                for mount, app in table.items()
            }
    return {"": callable_of(module, f"module {name}", attribute)}


def from_file(path):
    return {"": callable_of(module_of_file(path), f"file {path}", "")}


def from_code(code):
    module = type(sys)("uwsgi_eval_config")
    sys.modules[module.__name__] = module
    exec(compile(code, "<eval>", "exec"), module.__dict__)
    return {"": callable_of(module, "eval", "")}


class FileLoader(importlib.machinery.SourceFileLoader):
    """Compiles the file each time, as uWSGI does: a cached .pyc cannot tell two edits of one second apart."""

    def get_code(self, fullname):
        path = self.get_filename(fullname)
        # For autoreload, which looks at the file before it is read.
        self.path_stats(path)
        return self.source_to_code(self.get_data(path), path)


def module_of_file(path):
    if not os.path.exists(path):
        raise LoadError(f"there is no file {os.path.abspath(path)}")
    stem = path[:-3] if path.endswith(".py") else path
    name = "uwsgi_file_" + stem.replace(".", "_").replace("/", "_")
    loader = FileLoader(name, os.path.abspath(path))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader(name, loader))
    # Before it runs, as import does: pickle and dataclasses look a class's module up by name.
    sys.modules[name] = module
    try:
        loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def callable_of(module, where, expression):
    expression = expression or settings["callable"]
    name = expression.removesuffix("()")
    app = module
    for part in name.split("."):
        try:
            app = getattr(app, part)
        except AttributeError:
            raise LoadError(f'{where} has no "{name}"{suggestion(module)}') from None
    if expression.endswith("()"):
        app = app()
    if not callable(app):
        raise LoadError(f'"{expression}" of {where} is not callable but a {type(app).__name__}')
    return app


def suggestion(module):
    usual = [name for name in ("application", "app", "wsgi", "create_app", "make_app") if callable(getattr(module, name, None))]
    if not usual:
        return ""
    name = usual[0]
    call = "()" if name in ("create_app", "make_app") else ""
    return f"; it has \"{name}\": name it with callable = {name}{call}"


def report_threads():
    """Threads do not live on in the workers, which are forked from this process."""
    python = [thread for thread in threading.enumerate() if thread is not threading.main_thread()]
    if python and not settings["lazy_apps"]:
        names = ", ".join(sorted(thread.name for thread in python))
        _appserver.log(
            "warning",
            f"the application started threads that will be missing in the workers: {names}; "
            "start them in uwsgi.post_fork_hook or os.register_at_fork, or use lazy-apps",
        )
    native = native_threads()
    others = len(native) - len(python)
    if others > 0 and not settings["lazy_apps"]:
        _appserver.log(
            "warning",
            f"a library started {others} threads of its own that will be missing in the workers "
            f"({', '.join(sorted(set(native)))}); use lazy-apps if it cannot do without",
        )


def native_threads():
    names = []
    for task in os.listdir("/proc/self/task"):
        if int(task) != os.getpid():
            try:
                with open(f"/proc/self/task/{task}/comm") as comm:
                    names.append(comm.read().strip())
            except OSError:
                pass
    return names


def worker_started(text):
    """After the fork, before the first request."""
    worker = json.loads(text)
    uwsgi = sys.modules["uwsgi"]
    uwsgi._worker_started(worker)
    if settings["autoreload"] > 0 and worker["id"] == 1:
        importlib.import_module("_appserver_autoreload").start(settings)


def handle_signal(number):
    """The master raised a signal for this worker."""
    sys.modules["_appserver_signals"].handle(number)


def after_request():
    """A request has come to its end."""
    sys.modules["uwsgi"]._after_request()


def name_thread(core):
    """Names an application thread as uWSGI does."""
    worker = sys.modules["uwsgi"].worker_id()
    threading.current_thread().name = f"uWSGIWorker{worker}Core{core}"


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


def log_exception(place, error):
    """The traceback in one write, so that those of several workers do not mingle; it is returned, too."""
    lines = traceback.format_exception(type(error), error, from_application(error.__traceback__))
    text = "".join(lines)
    if place:
        text = f"{place}:\n{text}"
    try:
        sys.stderr.write(text)
        sys.stderr.flush()
    except (AttributeError, OSError, ValueError):
        # The application has closed or replaced it.
        _appserver.log("error", text)
    return text


def from_application(frames):
    """The traceback without what is ours and the import system's, above the application."""
    while frames and frames.tb_frame.f_code.co_filename.startswith(("<appserver>", "<frozen importlib")):
        frames = frames.tb_next
    return frames


def summary(error):
    """One line for the operator, who finds the traceback in the log, and the details for one who does not
    look there: they follow the words that the server knows them by."""
    if isinstance(error, LoadError):
        return str(error)
    details = log_exception("", error)
    return f"{in_one_line(error)}\n\nIn detail:\n{details}"


def in_one_line(error):
    """The exception and the place in the application it comes from."""
    line = traceback.format_exception_only(type(error), error)[-1].strip()
    if isinstance(error, SyntaxError):
        return f"{line} ({error.filename}:{error.lineno})"
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if not frame.filename.startswith(("<frozen importlib", "<appserver>"))
        and not frame.filename.startswith(os.path.dirname(importlib.__file__))
    ]
    return f"{line} ({frames[-1].filename}:{frames[-1].lineno})" if frames else line


class EmptyInput(io.BufferedIOBase):
    """`wsgi.input` of all requests without a body; nothing that an application does to it lasts."""

    def read(self, size=-1):
        return b""

    def read1(self, size=-1):
        return b""

    def readinto(self, buffer):
        return 0

    def readinto1(self, buffer):
        return 0

    def readline(self, size=-1):
        return b""

    def readlines(self, hint=-1):
        return []

    def __next__(self):
        raise StopIteration

    def readable(self):
        return True

    def seekable(self):
        return True

    def seek(self, position, whence=0):
        return 0

    def tell(self):
        return 0

    def detach(self):
        return self

    def close(self):
        pass


def environ_template(file_wrapper):
    """What does not change from request to request (PEP 3333, `environ` variables)."""
    template = {
        "REQUEST_METHOD": "GET",
        "REQUEST_URI": "/",
        "PATH_INFO": "/",
        "QUERY_STRING": "",
        "SCRIPT_NAME": "",
        "SERVER_NAME": settings["hostname"],
        "SERVER_PORT": "80",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "REMOTE_ADDR": "",
        "wsgi.version": (1, 0),
        "wsgi.errors": sys.stderr,
        "wsgi.run_once": False,
        "wsgi.multithread": settings["threads"] > 1,
        "wsgi.multiprocess": settings["processes"] != 1,
        "wsgi.url_scheme": "http",
        "wsgi.input": EmptyInput(),
        # The body has been received and dechunked before the application is called.
        "wsgi.input_terminated": True,
        "uwsgi.version": settings["version"].encode(),
        "uwsgi.node": settings["hostname"].encode(),
    }
    if settings["file_wrapper"]:
        template["wsgi.file_wrapper"] = file_wrapper
    return template


class FileWrapper:
    """`wsgi.file_wrapper`; what can be sent by the kernel never comes to be iterated."""

    def __init__(self, filelike, blksize=8192):
        self.filelike = filelike
        self.blksize = blksize
        if hasattr(filelike, "close"):
            self.close = filelike.close

    def __iter__(self):
        return self

    def __next__(self):
        # A block size of zero means everything at once, as in uWSGI.
        data = self.filelike.read(self.blksize) if self.blksize > 0 else self.filelike.read()
        if data:
            return data
        raise StopIteration


def file_range(wrapper):
    """(descriptor, offset, length) if the wrapped object is nothing but a regular file, else None.

    Many objects have a `fileno` and yet give other bytes than the file has, such as GzipFile, or a
    subclass with a `read` of its own; so the types are known ones. Their position is honoured, as
    PEP 3333 demands.
    """
    file = bare(wrapper.filelike)
    if type(file) is not io.FileIO:
        if type(file) not in (io.BufferedReader, io.BufferedRandom) or type(file.raw) is not io.FileIO:
            return None
    try:
        if not file.readable():
            return None
        if type(file) is io.BufferedRandom:
            file.flush()
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            return None
        offset = file.tell()
    except (OSError, ValueError):
        return None
    return file.fileno(), offset, max(0, status.st_size - offset)


def bare(file):
    """What is inside the wrappers of tempfile and Django, which add nothing to `read`."""
    for _ in range(3):
        tempfile = sys.modules.get("tempfile")
        django = sys.modules.get("django.core.files.utils")
        if tempfile is not None and type(file) is tempfile._TemporaryFileWrapper:
            file = file.file
        elif django is not None and getattr(type(file), "read", None) is django.FileProxyMixin.read:
            file = file.file
        else:
            break
    return file


def exception_page(error, environ):
    """What `catch-exceptions` shows to the client."""
    lines = [f"{environ.get('REQUEST_METHOD')} {environ.get('REQUEST_URI')}", ""]
    lines += "".join(traceback.format_exception(type(error), error, error.__traceback__)).splitlines()
    lines.append("")
    for key in sorted(environ, key=str):
        try:
            lines.append(f"{key} = {environ[key]!r}")
        except Exception as unshown:
            lines.append(f"{key} cannot be shown: {type(unshown).__name__}")
    return "\n".join(lines).encode("utf-8", "backslashreplace") + b"\n"
