"""bjoern_run.py PORT WORKERS MODULE: bjoern has no command of its own, nor workers."""

import importlib
import os
import signal
import sys

import bjoern

port, workers, module = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
application = importlib.import_module(module).application
bjoern.listen(application, "127.0.0.1", port, listen_backlog=1024)
children = []
for _ in range(workers):
    child = os.fork()
    if child == 0:
        bjoern.run()
        os._exit(0)
    children.append(child)


def stop(*_):
    for child in children:
        os.kill(child, signal.SIGKILL)
    for child in children:
        os.waitpid(child, 0)
    os._exit(0)


signal.signal(signal.SIGTERM, stop)
signal.signal(signal.SIGINT, stop)
while True:
    signal.pause()
