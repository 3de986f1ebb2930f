"""Throughput and processor time per request, against the floor that sends the same bytes."""

from support import wrk
from support.report import Figure, beside, compared
from support.servers import Appserver, Floor

WORKERS = 2
CONNECTIONS = 64
# Added by hyper on both sides.
OWN_FIELDS = ("content-length", "date", "connection")
# A counter on the page may have grown by digits between two runs.
SIZE_TOLERANCE = 0.02


def keepalive(programs, options):
    """All connections are kept."""
    return _compare(programs, options, "keep-alive", close=False)


def connect(programs, options):
    """A new connection for each request."""
    return _compare(programs, options, "one request per connection", close=True)


def _compare(programs, options, title, close):
    figures = []
    for name, program in (("welcome", programs["appserver"]), ("hello", programs["hello"])):
        figures += _against_floor(f"{name}, {title}", program, programs["floor"], options, close)
    return figures


def _against_floor(title, program, floor, options, close):
    with Appserver(program, WORKERS).wait_ready() as ours:
        _, fields, body = ours.get()
        fields = {name: value for name, value in fields.items() if name not in OWN_FIELDS}
        with Floor(floor, WORKERS, fields, body, options.shared_floor) as bare:
            pairs = _rounds(ours, bare, options, close)
    ours, bare = zip(*pairs, strict=True)
    return [
        compared(f"{title}: throughput / floor", ours, bare, "per_second", "req/s", at_least=0.95),
        compared(f"{title}: CPU per request / floor", ours, bare, "cpu_us", "us", 2, at_most=1.05),
        # Whoever serves most connections with one worker has fuller wake-ups, and leaves a core to
        # the load generator.
        Figure(
            f"{title}: busiest worker's share of CPU",
            [run["busiest"] for run in ours],
            digits=2,
            note=beside(ours, bare, "busiest", "", 2),
        ),
        compared(f"{title}: p99 / floor", ours, bare, "p99_us", "us"),
    ]


def _rounds(ours, bare, options, close):
    """One pair of results per round. Who goes first alternates: what the machine does meanwhile
    shall not favour a side."""
    for server in (ours, bare):
        wrk.run(server, 1, CONNECTIONS, close)
    pairs = []
    for number in range(options.rounds):
        order = (ours, bare) if number % 2 == 0 else (bare, ours)
        results = {server: wrk.run(server, options.seconds, CONNECTIONS, close) for server in order}
        pair = (results[ours], results[bare])
        _check(*pair)
        pairs.append(pair)
    return pairs


def _check(ours, bare):
    if errors := ours["errors"] + bare["errors"]:
        raise RuntimeError(f"wrk counts {errors} errors: these figures say nothing")
    if abs(ours["bytes_each"] / bare["bytes_each"] - 1) > SIZE_TOLERANCE:
        raise RuntimeError(f"answers differ: {ours['bytes_each']:.0f} and {bare['bytes_each']:.0f} bytes")
