"""One request in ten sleeps 20 ms, and says so in a body of the same length."""

import os
import random
import time

FIELDS = [("Content-Type", "text/plain"), ("Content-Length", "10")]
# Made at the first request: workers that are forked after the import must not draw the same.
draws = None


def application(environ, start_response):
    global draws
    if draws is None:
        draws = random.Random(os.getpid())
    slow = draws.random() < 0.1
    if slow:
        time.sleep(0.020)
    start_response("200 OK", FIELDS)
    return [b"slow word\n" if slow else b"Hello wor\n"]
