"""Caches in shared memory, for all workers until the next reload.

What cannot be done gives None, as in uWSGI: a key that is missing, or already there, no room, a value
that is too long or no number.
"""

import sys

import _appserver

GET, SET, UPDATE, DELETE, EXISTS, CLEAR, KEYS, ADD, MULTIPLY, DIVIDE = range(10)
DONE, NO, UNKNOWN = range(3)


def _call(what, key, value, number, expires, cache):
    cache = _bytes(cache or b"")
    answer, given = _appserver.cache(what, cache, _bytes(key), _bytes(value), number, expires)
    if answer == UNKNOWN:
        name = cache.decode("utf-8", "replace") or "default"
        raise ValueError(f"there is no cache {name}; the option cache2 = name={name},items=1000 makes one")
    return given if answer == DONE else None


def _bytes(text):
    return text.encode() if isinstance(text, str) else bytes(text)


def _done(*arguments):
    return None if _call(*arguments) is None else True


def cache_get(key, cache=None):
    """The value, or None."""
    given = _call(GET, key, b"", 0, 0, cache)
    return given[0] if given else None


def cache_set(key, value, expires=0, cache=None):
    """Stores a value where there is none, for so many seconds; 0 is without end."""
    return _done(SET, key, value, 0, expires, cache)


def cache_update(key, value, expires=0, cache=None):
    """Stores a value."""
    return _done(UPDATE, key, value, 0, expires, cache)


def cache_del(key, cache=None):
    """Takes a value away."""
    return _done(DELETE, key, b"", 0, 0, cache)


def cache_exists(key, cache=None):
    """True if there is a value, else None."""
    return _done(EXISTS, key, b"", 0, 0, cache)


def cache_clear(cache=None):
    """Takes all values away."""
    return _done(CLEAR, b"", b"", 0, 0, cache)


def cache_keys(cache=None):
    """All keys."""
    return _call(KEYS, b"", b"", 0, 0, cache)


def cache_inc(key, number=1, expires=0, cache=None):
    """Adds to a number of 64 bits; what is missing begins at 0."""
    return _done(ADD, key, b"", number, expires, cache)


def cache_dec(key, number=1, expires=0, cache=None):
    """Subtracts from a number."""
    return _done(ADD, key, b"", -number, expires, cache)


def cache_mul(key, number=2, expires=0, cache=None):
    """Multiplies a number."""
    return _done(MULTIPLY, key, b"", number, expires, cache)


def cache_div(key, number=2, expires=0, cache=None):
    """Divides a number."""
    return _done(DIVIDE, key, b"", number, expires, cache)


def cache_num(key, cache=None):
    """The number; 0 if there is none."""
    value = cache_get(key, cache)
    return int.from_bytes(value, sys.byteorder, signed=True) if value is not None and len(value) == 8 else 0
