"""A response of 100 KiB in one piece."""

BODY = b"x" * (100 * 1024)
FIELDS = [("Content-Type", "application/octet-stream"), ("Content-Length", str(len(BODY)))]


def application(environ, start_response):
    start_response("200 OK", FIELDS)
    return [BODY]
