"""What the machine does to everybody: how long it keeps a thread from running that has the right to run."""

import os
import subprocess
import sys

# Sleeps a millisecond over and over, before all else where it may, and says by how many ms it was woken too late at most.
SLEEPER = """
import os, sys, time
os.sched_setaffinity(0, {int(sys.argv[1])})
try:
    os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
except PermissionError:
    pass
end = time.monotonic() + float(sys.argv[2])
late = 0
while (asked := time.monotonic()) < end:
    time.sleep(0.001)
    late = max(late, time.monotonic() - asked - 0.001)
print(late * 1000)
"""


def longest_delay(seconds):
    """The longest delay in ms of a thread on each processor that only sleeps: no server here can be better."""
    processors = sorted(os.sched_getaffinity(0))
    sleepers = [
        subprocess.Popen(
            [sys.executable, "-c", SLEEPER, str(processor), str(seconds)], stdout=subprocess.PIPE, text=True
        )
        for processor in processors
    ]
    return max(float(sleeper.communicate()[0]) for sleeper in sleepers)
