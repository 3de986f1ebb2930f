"""Locks that all workers share, those of the generation before a reload too."""

import _appserver

TAKE, GIVE_BACK, LOOK = range(3)
DONE, FROM_THE_DEAD, BUSY, HELD_HERE, NOT_HELD_HERE, UNKNOWN = range(6)


def _call(what, number):
    answer = _appserver.lock(what, number)
    if answer == UNKNOWN:
        raise ValueError(f"there is no lock {number}; the option locks = {number} makes it")
    return answer


def lock(number=0):
    """Takes a lock, waiting for it. Others may run Python meanwhile."""
    answer = _call(TAKE, number)
    if answer == HELD_HERE:
        raise RuntimeError(f"uwsgi.lock({number}): this thread has it already and would wait for itself")
    if answer == FROM_THE_DEAD:
        _appserver.log("warning", f"lock {number} is taken over from a worker that died with it")


def unlock(number=0):
    """Gives a lock back; the thread that took it has to do that."""
    if _call(GIVE_BACK, number) == NOT_HELD_HERE:
        raise RuntimeError(f"uwsgi.unlock({number}): this thread does not have it")


def is_locked(number=0):
    """Whether somebody has the lock."""
    return _call(LOOK, number) == BUSY
