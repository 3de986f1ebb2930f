"""The servers under measurement: started on a socket made here, and gone afterwards."""

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time

from . import procfs

BACKLOG = 1024
READY = re.compile(r"ready: \d+ workers")
RELOADED = re.compile(r"reload \d+ complete")


def listener(port=0, reuse_port=False):
    """A listening socket on a port of loopback, by default a free one.

    Made here and passed on, so that no port is guessed and both sides get the same kind: what is
    accepted on it sends small packets at once, without a system call of its own.
    """
    sock = socket.create_server(("127.0.0.1", port), backlog=BACKLOG, reuse_port=reuse_port)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


class Log:
    """The lines of a server's log, each with the moment of its arrival."""

    def __init__(self, pipe):
        self.lines = []
        self._arrived = threading.Condition()
        self._ended = False
        self._reader = threading.Thread(target=self._read, args=(pipe,), daemon=True)
        self._reader.start()

    def _read(self, pipe):
        for line in pipe:
            with self._arrived:
                self.lines.append((time.monotonic(), line.rstrip()))
                self._arrived.notify_all()
        pipe.close()
        with self._arrived:
            self._ended = True
            self._arrived.notify_all()

    def wait(self, pattern, since=0):
        """The moment at which a line from number `since` on matched, and the line."""
        with self._arrived:
            while True:
                for moment, line in self.lines[since:]:
                    if pattern.search(line):
                        return moment, line
                if self._ended:
                    text = "\n".join(line for _, line in self.lines)
                    raise RuntimeError(f"the server ended before {pattern.pattern!r}:\n{text}")
                self._arrived.wait()

    def text(self):
        """All lines."""
        with self._arrived:
            return [line for _, line in self.lines]


class Server:
    """Processes that share a listener; use it in a `with` statement."""

    def __init__(self, reuse_port=False):
        self.directory = tempfile.mkdtemp(prefix="figures-")
        self.listener = listener(reuse_port=reuse_port)
        self.port = self.listener.getsockname()[1]
        self.processes = []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        try:
            self.stop()
        finally:
            for process in self.processes:
                for pid in procfs.tree([process.pid]):
                    _kill(pid)
                process.wait()
            self.listener.close()
            shutil.rmtree(self.directory, ignore_errors=True)

    def stop(self):
        """Asks it to end; what does not is killed by the caller."""

    def path(self, name):
        """A file in its directory."""
        return os.path.join(self.directory, name)

    def roots(self):
        """The processes that were started here."""
        return [process.pid for process in self.processes]

    def cpu_seconds(self):
        """Processor time of each of its processes."""
        return procfs.cpu_seconds(self.roots())

    def get(self, path="/", connection="close"):
        """One request on a connection of its own: status, header fields, body."""
        with socket.create_connection(("127.0.0.1", self.port)) as sock:
            sock.sendall(f"GET {path} HTTP/1.1\r\nHost: figures\r\nConnection: {connection}\r\n\r\n".encode())
            with sock.makefile("rb") as stream:
                status = int(stream.readline().split()[1])
                fields = {}
                while (line := stream.readline().strip()) != b"":
                    name, _, value = line.decode("latin1").partition(":")
                    fields[name.lower()] = value.strip()
                return status, fields, stream.read(int(fields["content-length"]))


class Appserver(Server):
    """A server built on the library. `begun` is the moment before it was started."""

    def __init__(self, program, workers, settings=None, log_requests=False, options=()):
        super().__init__()
        args = [program, "--master", f"--processes={workers}", f"--http=fd://{self.listener.fileno()}"]
        if not log_requests:
            args.append("--disable-logging")
        args += options
        environment = {"PATH": os.environ.get("PATH", "")}
        if settings is not None:
            environment["TESTAPP_CONFIG"] = self.path("settings.json")
            with open(environment["TESTAPP_CONFIG"], "w", encoding="utf-8") as file:
                json.dump(settings, file)
        self.begun = time.monotonic()
        master = subprocess.Popen(
            args,
            pass_fds=[self.listener.fileno()],
            cwd=self.directory,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            text=True,
        )
        self.processes.append(master)
        self.log = Log(master.stdout)

    @property
    def master(self):
        """The master's pid, which no reload changes."""
        return self.processes[0].pid

    def wait_ready(self):
        """Waits until all workers accept."""
        try:
            self.log.wait(READY)
        except BaseException:
            # The `with` statement that would clean up has not begun.
            self.__exit__()
            raise
        return self

    def reload(self):
        """Reloads and waits until the new generation serves."""
        since = len(self.log.lines)
        os.kill(self.master, signal.SIGHUP)
        self.log.wait(RELOADED, since)

    def stop(self):
        if self.processes[0].poll() is not None:
            return
        os.kill(self.master, signal.SIGINT)
        try:
            self.processes[0].wait(timeout=10)
        except subprocess.TimeoutExpired:
            print("\n".join(self.log.text()[-20:]))
            print("the server does not stop; it is killed")


class Floor(Server):
    """The bare yardstick: as many single processes as there are workers.

    Each has a socket of its own on one port, among which the kernel spreads the connections. With
    one that is `shared`, a single worker often takes them all and then has fewer, fuller wake-ups
    than two can have: another shape, which the server must never take.
    """

    def __init__(self, program, workers, fields, body, shared=False):
        super().__init__(reuse_port=not shared)
        with open(self.path("body"), "wb") as file:
            file.write(body)
        args = [program, self.path("body"), *(f"{name}:{value}" for name, value in fields.items())]
        sockets = [self.listener]
        while len(sockets) < workers:
            sockets.append(self.listener if shared else listener(self.port, reuse_port=True))
        for sock in sockets:
            self.processes.append(subprocess.Popen(args, stdin=sock, start_new_session=True))
            if sock is not self.listener:
                sock.close()
        if not shared:
            # The port is known; a copy that stays open here would keep a dead worker's queue alive.
            self.listener.close()


def _kill(pid):
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
