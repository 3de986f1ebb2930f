"""The smallest correct WSGI application."""

BODY = b"Hello wor\n"
FIELDS = [("Content-Type", "text/plain"), ("Content-Length", str(len(BODY)))]


def application(environ, start_response):
    start_response("200 OK", FIELDS)
    return [BODY]
