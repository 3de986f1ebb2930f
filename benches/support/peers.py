"""Python application servers: ours and the others, all with one interpreter.

Debian's uWSGI embeds Debian's Python, so that is what everybody runs. The others come from a virtual
environment made with it (benches/peers).
"""

import functools
import glob
import os
import shutil
import subprocess
import sys

from .build import ROOT

PYTHON = "/usr/bin/python3"
DEFAULT_ENVIRONMENT = os.path.join(ROOT, "target", "peers")
APPS = os.path.join(ROOT, "benches", "apps")
REMEDY = "benches/peers installs what is missing"


class Peers:
    """What is installed here, and how each server is started."""

    def __init__(self, environment):
        self.environment = environment
        self._told = set()
        python = os.path.join(environment, "bin", "python3")
        self.present = os.path.exists(python)
        if self.present and os.path.realpath(python) != os.path.realpath(PYTHON):
            raise SystemExit(
                f"{environment} is not made with {PYTHON}, so its servers would run another Python than "
                "uWSGI: make another one with benches/peers DIRECTORY and name it with --peers"
            )

    def command(self, name, port, application, workers, threads=1):
        """The arguments that start a server with an application of benches/apps."""
        return getattr(self, f"_{name.replace('-', '_')}")(port, application, workers, threads)

    def among(self, names):
        """Those of the names that can run here. Of each other one it is told once."""
        return [name for name in names if self._has(name)]

    def has_django(self):
        """Whether the environment has Django."""
        return bool(self._packages("django")) or self._absent("Django")

    def versions(self):
        """What is compared with, in a line."""
        found = []
        if self._has_uwsgi():
            uwsgi = subprocess.run(["uwsgi", "--version"], stdout=subprocess.PIPE, text=True, check=True)
            found.append(f"uwsgi {uwsgi.stdout.strip()}")
        for name in ("granian", "gunicorn", "bjoern", "django"):
            # .dist-info or .egg-info, by how the package was made.
            for path in self._packages(f"{name}-*.*-info"):
                found.append(os.path.splitext(os.path.basename(path))[0].replace("-", " ", 1))
        return ", ".join(found) or "no peers"

    def _has(self, name):
        kind = name.split("-")[0]
        if kind == "uwsgi":
            there = self._has_uwsgi()
        elif kind == "bjoern":
            there = bool(self._packages("bjoern*"))
        else:
            there = os.path.exists(os.path.join(self.environment, "bin", kind))
        return there or self._absent(kind)

    @staticmethod
    @functools.cache
    def _has_uwsgi():
        if shutil.which("uwsgi") is None:
            return False
        # Debian packages the plugin apart.
        tried = subprocess.run(
            ["uwsgi", "--plugin", "python3", "--version"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        return tried.returncode == 0

    def _packages(self, pattern):
        return glob.glob(os.path.join(self.environment, "lib", "python3*", "site-packages", pattern))

    def _absent(self, what):
        if what not in self._told:
            self._told.add(what)
            print(f"{what} is not there and left out: {REMEDY}", file=sys.stderr)
        return False

    def _program(self, name):
        return os.path.join(self.environment, "bin", name)

    def interpreter(self):
        """The option that names the interpreter to our server."""
        return f"--virtualenv={self.environment}" if self.present else f"--python={PYTHON}"

    def _uwsgi(self, port, application, workers, _threads):
        # It has a thread only for what asks for one, and no keep-alive on this kind of socket.
        args = ["uwsgi", "--plugin", "python3", "--master", "--processes", str(workers)]
        args += ["--http-socket", f"127.0.0.1:{port}", "--listen", "1024", "--disable-logging"]
        args += ["--need-app", "--die-on-term", "--pythonpath", APPS]
        args += ["--module", f"{application}:application"]
        return args + (["--virtualenv", self.environment] if self.present else [])

    def _gunicorn(self, port, application, workers, *options):
        args = [self._program("gunicorn"), "--workers", str(workers), "--bind", f"127.0.0.1:{port}"]
        args += ["--backlog", "1024", "--log-level", "critical", "--chdir", APPS]
        return [*args, *options, f"{application}:application"]

    def _gunicorn_sync(self, port, application, workers, _threads):
        return self._gunicorn(port, application, workers, "--worker-class", "sync")

    def _gunicorn_gthread(self, port, application, workers, threads):
        options = ["--worker-class", "gthread", "--threads", str(threads), "--keep-alive", "75"]
        return self._gunicorn(port, application, workers, *options)

    def _granian(self, port, application, workers, threads):
        args = [self._program("granian"), "--interface", "wsgi", "--host", "127.0.0.1", "--port", str(port)]
        args += ["--workers", str(workers), "--blocking-threads", str(threads), "--backlog", "1024"]
        args += ["--http", "1", "--no-ws", "--log-level", "error", "--working-dir", APPS]
        return [*args, f"{application}:application"]

    def _bjoern(self, port, application, workers, _threads):
        run = os.path.join(APPS, "bjoern_run.py")
        return [self._program("python3"), run, str(port), str(workers), application]


@functools.cache
def peers(environment):
    """The peers in an environment; says once per run what they are."""
    found = Peers(os.path.abspath(environment))
    print(f"peers: {found.versions()}", file=sys.stderr)
    return found
