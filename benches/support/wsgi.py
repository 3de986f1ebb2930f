"""A running server with a WSGI application: ours or a peer, treated alike in everything."""

import contextlib
import http.client
import os
import signal
import subprocess
import time

from . import procfs
from .peers import APPS
from .servers import Server

# Nobody needs that long to start, even with 16 workers that import Django one after the other.
STARTING = 60.0
STOPPING = 10.0
# Workers that still import use the processor. A worker that has finished does not, but a master may tick.
SETTLED = 0.5
SETTLED_CPU = 0.02
POLL = 0.0005


class WsgiServer(Server):
    """A server on a port of its own; `name` is "appserver" or a name that `Peers` knows.

    Not every peer takes a socket from its parent, so here each one binds: the port was free a moment
    ago. `begun` is the moment before the start.
    """

    def __init__(self, name, program, peers, application, workers, threads=1):
        super().__init__()
        self.name = name
        self.listener.close()
        if name == "appserver":
            command = [program, "--master", f"--processes={workers}", f"--threads={threads}"]
            command += [f"--http-socket=127.0.0.1:{self.port}", "--listen=1024", "--disable-logging"]
            command += [f"--pythonpath={APPS}", f"--module={application}:application", peers.interpreter()]
        else:
            command = peers.command(name, self.port, application, workers, threads)
        # Nobody's byte code lands in the source tree.
        environment = {"PATH": os.environ.get("PATH", ""), "PYTHONDONTWRITEBYTECODE": "1"}
        with open(self.path("log"), "wb") as log:
            self.begun = time.monotonic()
            master = subprocess.Popen(
                command,
                cwd=self.directory,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.processes.append(master)

    def tree(self):
        """All its processes, also those whose parent is gone."""
        sid = self.processes[0].pid
        return procfs.tree([sid]) | procfs.session(sid)

    def cpu_seconds(self):
        return procfs.cpu_seconds(self.tree())

    def wait_answer(self):
        """Waits for the first answer; milliseconds since the start."""
        while not self._answers():
            if self.processes[0].poll() is not None:
                raise RuntimeError(f"{self.name} ended at its start:\n{self.tail()}")
            if time.monotonic() - self.begun > STARTING:
                raise RuntimeError(f"{self.name} does not answer after {STARTING:g} s:\n{self.tail()}")
            time.sleep(POLL)
        return (time.monotonic() - self.begun) * 1e3

    def _answers(self):
        with contextlib.suppress(ConnectionError):
            status, _ = self.ask()
            if status != 200:
                raise RuntimeError(f"the first answer of {self.name} is a {status}:\n{self.tail()}")
            return True
        return False

    def wait_settled(self):
        """Waits until it answers and all workers have finished to load."""
        self.wait_answer()
        state, since = None, time.monotonic()
        while time.monotonic() - since < SETTLED:
            now = self.cpu_seconds()
            if state is None or now.keys() != state.keys() or _sum(now) - _sum(state) > SETTLED_CPU:
                state, since = now, time.monotonic()
            time.sleep(0.05)
        return self

    def ask(self, method="GET", body=None):
        """One request on a connection of its own: status and body."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=STARTING)
        try:
            connection.request(method, "/", body, {"Connection": "close"})
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()

    def tail(self):
        """The end of its log."""
        with open(self.path("log"), encoding="utf-8", errors="replace") as log:
            return log.read()[-2000:]

    def stop(self):
        master = self.processes[0]
        if master.poll() is None:
            # What SIGTERM means to us is an option; all others end.
            master.send_signal(signal.SIGINT if self.name == "appserver" else signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            master.wait(timeout=STOPPING)
        # Workers whose master is gone have another parent now; the session is still theirs.
        for pid in procfs.session(master.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def _sum(by_pid):
    return sum(by_pid.values())
