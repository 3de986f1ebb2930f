"""Reloads the server when a file of the application changes; for development."""

import os
import sys
import threading

import _appserver


def start(settings):
    """Looks at the files of all loaded modules, every few seconds, in a thread of one worker."""
    ignored = set(settings["autoreload_ignore"])
    interval = settings["autoreload"]
    seen = {}

    def watch():
        bell = threading.Event()
        while True:
            for name, module in list(sys.modules.items()):
                path = getattr(module, "__file__", None)
                if not path or name in ignored:
                    continue
                try:
                    stamp = os.stat(path).st_mtime_ns
                except OSError:
                    continue
                if seen.setdefault(path, stamp) != stamp:
                    seen[path] = stamp
                    _appserver.log("info", f"{path} has changed: asking for a reload")
                    _appserver.ask("reload", "null")
            bell.wait(interval)

    threading.Thread(target=watch, name="appserver-autoreload", daemon=True).start()
