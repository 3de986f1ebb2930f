"""A paced load of many connections, in a process of its own.

Each connection sends its next request a fixed time after the last one was due, so the rate does not
depend on how fast the server is. A request that fails is noted and never stops the load. The load
ends when its standard input does; it then prints one line of JSON.
"""

import argparse
import collections
import errno
import gc
import json
import os
import select
import socket
import subprocess
import sys
import time

# A request without an answer for so long has failed.
PATIENCE = 10.0
HERE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


class Load:
    """The parent's end of a running load."""

    def __init__(self, server, mode, rate, connections, path="/"):
        command = [sys.executable, "-B", "-m", "support.load", "--mode", mode, "--path", path]
        command += ["--port", str(server.port), "--rate", str(rate), "--connections", str(connections)]
        self.process = subprocess.Popen(
            command,
            cwd=HERE,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        # It says so when every connection has had its first answer.
        if self.process.stdout.readline() != "warm\n":
            raise RuntimeError("the load generator did not start")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()

    def finish(self):
        """Ends the load; what came of it."""
        self.process.stdin.close()
        return json.loads(self.process.stdout.readline())


class Connection:
    """One client: it is waiting for its next turn, for the socket, or for an answer."""

    def __init__(self, due):
        self.sock = None
        self.due = due
        self.begun = None
        self.connecting = False
        self.received = b""
        # The body of the last answer on this socket: the worker that holds it, by /pid.
        self.holder = None

    def close(self):
        """Forgets the socket; epoll forgets it too."""
        if self.sock is not None:
            self.sock.close()
        self.sock = None
        self.connecting = False
        self.received = b""
        self.holder = None


class Generator:
    """The load itself."""

    def __init__(self, args):
        self.address = ("127.0.0.1", args.port)
        self.keep = args.mode == "keepalive"
        fields = "" if self.keep else "Connection: close\r\n"
        self.request = f"GET {args.path} HTTP/1.1\r\nHost: figures\r\n{fields}\r\n".encode()
        self.period = args.connections / args.rate
        self.epoll = select.epoll()
        start = time.monotonic() + 0.05
        self.connections = [Connection(start + index / args.rate) for index in range(args.connections)]
        self.by_fd = {}
        self.latencies = []
        self.failures = []
        # Answers by their body: by worker, with /pid.
        self.answers = collections.Counter()
        self.closed_idle = 0
        self.ending = False

    def run(self):
        """Loads until told to end, then finishes the requests in flight."""
        self.epoll.register(sys.stdin.fileno(), select.EPOLLIN)
        warm = False
        while not self.ending or any(it.begun is not None for it in self.connections):
            now = time.monotonic()
            wake = now + 1.0
            for connection in self.connections:
                if connection.begun is not None:
                    if now - connection.begun > PATIENCE:
                        self.fail(connection, "no answer")
                elif not self.ending:
                    if connection.due <= now:
                        self.begin(connection, now)
                    wake = min(wake, connection.due)
            for fd, events in self.epoll.poll(max(0.0, wake - time.monotonic())):
                if fd == sys.stdin.fileno():
                    self.ending = True
                    self.epoll.unregister(fd)
                elif (connection := self.by_fd.get(fd)) is not None:
                    self.ready(connection, events)
            if not warm and len(self.latencies) + len(self.failures) >= len(self.connections):
                warm = True
                print("warm", flush=True)

    def begin(self, connection, now):
        """Sends a request, on a new socket where there is none."""
        connection.begun = now
        if connection.sock is not None:
            return self.send(connection)
        connection.sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        error = connection.sock.connect_ex(self.address)
        if error not in (0, errno.EINPROGRESS):
            return self.fail(connection, f"connect: {os.strerror(error)}")
        connection.connecting = True
        self.by_fd[connection.sock.fileno()] = connection
        self.epoll.register(connection.sock.fileno(), select.EPOLLIN | select.EPOLLOUT)

    def send(self, connection):
        try:
            connection.sock.send(self.request)
        except OSError as error:
            self.fail(connection, f"send: {error.strerror}")

    def ready(self, connection, events):
        """A socket has become readable or writable."""
        if connection.connecting:
            error = connection.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if error:
                return self.fail(connection, f"connect: {os.strerror(error)}")
            if not events & select.EPOLLOUT:
                return None
            connection.connecting = False
            self.epoll.modify(connection.sock.fileno(), select.EPOLLIN)
            return self.send(connection)
        try:
            data = connection.sock.recv(65536)
        except BlockingIOError:
            return None
        except OSError as error:
            return self.lost(connection, error.strerror)
        if not data:
            return self.lost(connection, "closed without an answer")
        connection.received += data
        return self.answer(connection)

    def lost(self, connection, how):
        """The server has ended the connection."""
        if connection.begun is None:
            # Between two requests: a client just opens another one.
            self.closed_idle += 1
            self.close(connection)
        else:
            self.fail(connection, f"{how}, {'in' if connection.received else 'before'} the answer")

    def answer(self, connection):
        """Looks whether the answer is complete."""
        head, end, body = connection.received.partition(b"\r\n\r\n")
        if not end or connection.begun is None:
            return
        lines = head.lower().split(b"\r\n")
        fields = dict(line.split(b":", 1) for line in lines[1:])
        if b" 200" not in lines[0]:
            return self.fail(connection, lines[0].decode("latin1"))
        if len(body) < int(fields[b"content-length"]):
            return
        now = time.monotonic()
        self.latencies.append(now - connection.begun)
        self.answers[body] += 1
        connection.begun = None
        connection.received = b""
        connection.holder = body
        connection.due = max(connection.due + self.period, now)
        if not self.keep or b"close" in fields.get(b"connection", b""):
            self.close(connection)

    def fail(self, connection, kind):
        """A request without a whole, good answer."""
        now = time.monotonic()
        holder = connection.holder.decode("latin1").strip() if connection.holder else None
        self.failures.append({"begun": connection.begun, "failed": now, "kind": kind, "holder": holder})
        connection.begun = None
        connection.due = max(connection.due + self.period, now)
        self.close(connection)

    def close(self, connection):
        if connection.sock is not None:
            self.by_fd.pop(connection.sock.fileno(), None)
        connection.close()

    def result(self):
        """The figures, in milliseconds."""
        ordered = sorted(self.latencies)
        share = {"p50": 0.5, "p99": 0.99, "p99.9": 0.999, "max": 1.0}
        at = {
            name: ordered[min(len(ordered) - 1, int(len(ordered) * part))] * 1e3
            for name, part in share.items()
        }
        return {
            "answered": len(ordered),
            "failures": self.failures,
            "closed_idle": self.closed_idle,
            "by_worker": sorted(self.answers.values(), reverse=True),
            **at,
        }


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--mode", choices=["keepalive", "connect"], required=True)
    parser.add_argument("--rate", type=float, required=True)
    parser.add_argument("--connections", type=int, required=True)
    parser.add_argument("--path", default="/")
    generator = Generator(parser.parse_args())
    # A pause of the collector would look like a stall of the server.
    gc.disable()
    generator.run()
    print(json.dumps(generator.result()), flush=True)


if __name__ == "__main__":
    main()
