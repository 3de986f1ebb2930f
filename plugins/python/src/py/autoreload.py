"""Reloads the server when a file of the application changes; for development."""

import importlib.machinery
import os
import sys
import threading

import _appserver

# (modification time, size) of each file as it was when it was loaded, or first seen.
seen = {}


def watch_imports():
    """Before the application is loaded: notes what each source file was like when it was read, so that an
    edit while the rest is loaded, or before a worker looks, is a change."""
    loader = importlib.machinery.SourceFileLoader
    original = loader.path_stats

    def path_stats(self, path):
        stamp = stamp_of(path)
        if stamp is not None:
            seen[path] = stamp
        return original(self, path)

    loader.path_stats = path_stats


def remember(settings):
    """Right after it was loaded: all other files that modules come from."""
    for path in module_files(settings):
        stamp = stamp_of(path)
        if stamp is not None:
            seen.setdefault(path, stamp)


def start(settings):
    """Looks at the files of all loaded modules, every few seconds, in a thread of one worker."""

    def watch():
        bell = threading.Event()
        replaced = False
        while True:
            changed = changes(module_files(settings))
            if replaced:
                changed += changes(source_files())
            if changed:
                # Code that cannot be loaded leaves this process serving. What mends it may be an edit
                # of a file that only the new code imports, so from now on all of them count.
                changes(source_files())
                replaced = True
                _appserver.log("info", f"{changed[0]} has changed: asking for a reload")
                _appserver.ask("reload", "null")
            bell.wait(settings["autoreload"])

    threading.Thread(target=watch, name="appserver-autoreload", daemon=True).start()


def changes(paths):
    """Those files that are not what they were; files that are new become known, those that are gone wait."""
    changed = []
    for path in paths:
        stamp = stamp_of(path)
        if stamp is not None and seen.setdefault(path, stamp) != stamp:
            seen[path] = stamp
            changed.append(path)
    return changed


def stamp_of(path):
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size


def module_files(settings):
    ignored = set(settings["autoreload_ignore"])
    for name, module in list(sys.modules.items()):
        path = getattr(module, "__file__", None)
        if isinstance(path, str) and name not in ignored:
            yield path


def source_files():
    """The Python files in and below the directories of the application, installed packages left out."""
    library = os.path.dirname(os.__file__)
    directories = {
        os.path.dirname(path)
        for path in seen
        if not path.startswith(library) and "site-packages" not in path and "dist-packages" not in path
    }
    done = set()
    for top in sorted(directories):
        for directory, names, files in os.walk(top):
            if directory in done or "pyvenv.cfg" in files:
                names.clear()
                continue
            done.add(directory)
            names[:] = [name for name in names if not name.startswith((".", "__pycache__", "node_modules"))]
            yield from (os.path.join(directory, file) for file in files if file.endswith(".py"))
