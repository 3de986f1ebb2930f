"""Questions to the server."""

import json

import _appserver


def ask(name, argument=None):
    """The answer to a question; what the server refuses is a ValueError, which uWSGI raises, too."""
    answer = json.loads(_appserver.ask(name, json.dumps(argument)))
    if isinstance(answer, dict) and "error" in answer:
        raise ValueError(f"uwsgi.{name}: {answer['error']}")
    return answer
