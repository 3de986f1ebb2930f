"""The scoreboard of a running server, read while it runs and without asking anybody.

The layout is that of src/scoreboard/mod.rs, which carries a version: a reader that is out of date says
so instead of measuring nonsense.
"""

import mmap
import os
import struct
from dataclasses import dataclass

MAGIC = 0x6170_7073_7276_0001
HEADER_WORDS = CELL_WORDS = 32
HIGH_WATER = 2
STATE, PID, SLOT, GENERATION, ACCEPTING = 0, 1, 2, 3, 13
IDLE, BUSY = 2, 3


@dataclass
class Worker:
    """One cell."""

    pid: int
    slot: int
    generation: int
    accepts: bool


class Scoreboard:
    """A mapping of the master's memory file."""

    def __init__(self, master):
        directory = f"/proc/{master}/fd"
        paths = (os.path.join(directory, name) for name in os.listdir(directory))
        path = next(path for path in paths if os.readlink(path).startswith("/memfd:appserver-scoreboard"))
        with open(path, "rb") as file:
            self._memory = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        if self._word(0) != MAGIC:
            raise RuntimeError("the scoreboard has another layout than benches/support/scoreboard.py")

    def _word(self, index):
        return struct.unpack_from("=Q", self._memory, index * 8)[0]

    def workers(self):
        """All workers alive, or not yet buried."""
        found = []
        for cell in range(self._word(HIGH_WATER)):
            at = HEADER_WORDS + cell * CELL_WORDS
            if (state := self._word(at + STATE)) != 0:
                accepts = state in (IDLE, BUSY) and self._word(at + ACCEPTING) == 1
                fields = (self._word(at + field) for field in (PID, SLOT, GENERATION))
                found.append(Worker(*fields, accepts))
        return found
