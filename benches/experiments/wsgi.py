"""Processor time per request and throughput of Python applications, against the peers."""

from contextlib import ExitStack
from dataclasses import dataclass

from support import wrk
from support.peers import peers
from support.report import compared
from support.wsgi import WsgiServer

OURS = "appserver"
POSTED = 1024 * 1024
POST = f'wrk.method = "POST"\nwrk.body = string.rep("x", {POSTED})\n'
# It closes after each answer without having said so, and wrk counts that as an error of reading.
SILENT_CLOSERS = ("uwsgi",)


@dataclass
class Contest:
    """What all do, and what our processor time per request may be of each peer's; None is no goal."""

    title: str
    application: str
    goals: dict
    workers: int = 2
    threads: int = 1
    connections: int = 64
    close: bool = False
    posted: int = 0


def hello(programs, options):
    """All connections are kept."""
    goals = {"bjoern": 1.0, "granian": 0.33, "uwsgi": None, "gunicorn-gthread": None}
    return _contest(programs, options, Contest("hello, keep-alive", "hello", goals))


def connect(programs, options):
    """A new connection for each request."""
    goals = {"bjoern": 1.05, "granian": 0.60, "uwsgi": None, "gunicorn-sync": None}
    return _contest(programs, options, Contest("hello, one per connection", "hello", goals, close=True))


def threads(programs, options):
    """Four application threads in each worker."""
    goals = {"gunicorn-gthread": 0.5, "granian": 0.75}
    return _contest(programs, options, Contest("hello, 4 threads", "hello", goals, threads=4))


def django(programs, options):
    """A view behind Django's usual middleware."""
    if not peers(options.peers).has_django():
        return []
    goals = {"granian": 0.85, "gunicorn-gthread": None, "bjoern": None}
    return _contest(programs, options, Contest("Django view", "django_view", goals))


def large(programs, options):
    """A response of 100 KiB."""
    goals = {"bjoern": None, "granian": None, "uwsgi": None, "gunicorn-gthread": None}
    return _contest(programs, options, Contest("100 KiB response", "large", goals))


def post(programs, options):
    """A request of 1 MiB, from few clients: each has its body in memory."""
    goals = {"bjoern": None, "granian": None, "uwsgi": None, "gunicorn-gthread": None}
    contest = Contest("1 MiB POST", "upload", goals, connections=16, posted=POSTED)
    return _contest(programs, options, contest)


def _contest(programs, options, contest):
    there = peers(options.peers)
    names = [OURS, *there.among(contest.goals)]
    if len(names) == 1:
        return []
    with ExitStack() as stack:
        servers = {}
        for name in names:
            arguments = (contest.application, contest.workers, contest.threads)
            servers[name] = stack.enter_context(
                WsgiServer(name, programs["appserver"], there, *arguments)
            ).wait_settled()
        _same_answers(servers, contest)
        results = _rounds(servers, options, contest)
    figures = []
    for name in names[1:]:
        figures += _figures(name, results[OURS], results[name], contest)
    return figures


def _same_answers(servers, contest):
    """All have to answer the same, or the figures say nothing."""
    method, body = ("POST", b"x" * contest.posted) if contest.posted else ("GET", None)
    answers = {name: server.ask(method, body) for name, server in servers.items()}
    if contest.posted and answers[OURS][1] != b"%d\n" % contest.posted:
        raise RuntimeError(f"{contest.title}: the application has read {answers[OURS][1]}")
    for name, answer in answers.items():
        if answer[0] != 200 or answer[1] != answers[OURS][1]:
            raise RuntimeError(f"{contest.title}: {name} answers with status {answer[0]}: {answer[1][:200]}")


def _rounds(servers, options, contest):
    """The results of each. All are there all the time, one is loaded; who begins rotates."""
    shape = POST if contest.posted else ""

    def load(server, seconds):
        result = wrk.run(server, seconds, contest.connections, contest.close, shape)
        forgiven = result["read_errors"] if server.name in SILENT_CLOSERS else 0
        if errors := result["errors"] - forgiven:
            raise RuntimeError(
                f"{contest.title}: wrk counts {errors} errors of {server.name}:\n{server.tail()}"
            )
        return result

    for server in servers.values():
        load(server, 1)
    results = {name: [] for name in servers}
    names = list(servers)
    for number in range(options.rounds):
        first = number % len(names)
        for name in names[first:] + names[:first]:
            results[name].append(load(servers[name], options.seconds))
    return results


def _figures(name, ours, theirs, contest):
    title, goal = contest.title, contest.goals[name]
    return [
        compared(f"{title}: CPU per request / {name}", ours, theirs, "cpu_us", "us", 2, at_most=goal),
        compared(f"{title}: throughput / {name}", ours, theirs, "per_second", "req/s"),
    ]
