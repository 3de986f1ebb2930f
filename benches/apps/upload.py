"""Reads the whole body in pieces of 64 KiB, as upload parsers do, and answers its length."""

PIECE = 64 * 1024


def application(environ, start_response):
    # Not every peer ends its input at the end of the body, so the application counts, as PEP 3333 asks.
    left = int(environ.get("CONTENT_LENGTH") or 0)
    received = 0
    while left > 0 and (piece := environ["wsgi.input"].read(min(left, PIECE))):
        received += len(piece)
        left -= len(piece)
    body = b"%d\n" % received
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]
