"""Ten bytes, from an application that takes a second to import."""

import time

time.sleep(1)

FIELDS = [("Content-Type", "text/plain"), ("Content-Length", "10")]


def application(environ, start_response):
    stream = environ["wsgi.input"]
    while stream.read(65536):
        pass
    start_response("200 OK", FIELDS)
    return [b"Hello wor\n"]
