"""What the machine does to everybody: how long it keeps a process from running that has the right to run."""

import os
import time
from concurrent.futures import ProcessPoolExecutor
from itertools import repeat


def longest_delay(seconds):
    """By how many ms a process that only sleeps is woken too late, at most: no server here can be better."""
    processors = os.sched_getaffinity(0)
    with ProcessPoolExecutor(len(processors)) as pool:
        return max(pool.map(delay_on, processors, repeat(seconds)))


def delay_on(processor, seconds):
    """The same on one processor, before all else where this process may."""
    os.sched_setaffinity(0, {processor})
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    except PermissionError:
        pass
    end = time.monotonic() + seconds
    late = 0
    while (asked := time.monotonic()) < end:
        time.sleep(0.001)
        late = max(late, time.monotonic() - asked - 0.001)
    return late * 1000
