"""Finds the applications that the settings name. Runs once, before there are requests."""

import gc
import importlib
import importlib.machinery
import importlib.util
import os
import sys
import threading

import _appserver
from _appserver_bootstrap import settings
from _appserver_report import LoadError, log_exception


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
    keep_what_is_loaded()
    return apps


def keep_what_is_loaded():
    """What is there now stays: a collection would only make pages private that are shared with the workers
    to be forked."""
    gc.collect()
    gc.freeze()


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


def may_fork(server_threads):
    """Raises what keeps this process, with so many threads of the server, from being forked."""
    if hasattr(sys.modules["uwsgi"], "pre_promotion_hook"):
        # It may end threads; then they are counted once more.
        return
    # Those that the interpreter has only met are the server's, or a library's.
    python = [
        thread
        for thread in threading.enumerate()
        if thread is not threading.main_thread() and not isinstance(thread, threading._DummyThread)
    ]
    if python:
        names = ", ".join(sorted(thread.name for thread in python))
        raise LoadError(f"the application has started threads: {names}; end them in uwsgi.pre_promotion_hook")
    native = native_threads()
    others = len(native) - server_threads
    if others > 0:
        raise LoadError(f"a library has started {others} threads of its own (among {', '.join(sorted(set(native)))})")


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
