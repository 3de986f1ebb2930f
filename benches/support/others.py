"""How much of the machine somebody else used meanwhile: what says whether figures can be trusted."""

import os

from . import procfs
from .report import Figure


class Others:
    """Begins to watch when it is made."""

    def __init__(self):
        self._begin = self._now()

    @staticmethod
    def _now():
        busy, passed = procfs.machine_busy()
        times = os.times()
        # Servers and loads count once they have ended, with all their processes.
        own = times.user + times.system + times.children_user + times.children_system
        return busy - own, passed

    def figure(self, name):
        """The share since then, of all cores."""
        (busy, passed), (busy_before, passed_before) = self._now(), self._begin
        share = 100 * (busy - busy_before) / max(1e-9, passed - passed_before)
        return Figure(f"({name}: what others used of the machine)", [max(0.0, share)], "%", digits=0)
