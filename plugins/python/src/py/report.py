"""What went wrong, for the log and for the operator."""

import importlib
import os
import sys
import traceback

import _appserver


class LoadError(Exception):
    """An application cannot be loaded, for a reason that needs no traceback."""


def log_exception(place, error):
    """The traceback in one write, so that those of several workers do not mingle; it is returned, too."""
    lines = traceback.format_exception(type(error), error, from_application(error.__traceback__))
    text = "".join(lines)
    if place:
        text = f"{place}:\n{text}"
    try:
        sys.stderr.write(text)
        sys.stderr.flush()
    except (AttributeError, OSError, ValueError):
        # The application has closed or replaced it.
        _appserver.log("error", text)
    return text


def shown(error, show):
    """The text of an exception; empty if the application cannot make one."""
    try:
        # Half of a character cannot travel.
        return show(error).encode("utf-8", "replace").decode()
    except BaseException:
        return ""


def from_application(frames):
    """The traceback without what is ours and the import system's, above the application."""
    while frames and frames.tb_frame.f_code.co_filename.startswith(("<appserver>", "<frozen importlib")):
        frames = frames.tb_next
    return frames


def summary(error):
    """One line for the operator, who finds the traceback in the log, and the details for one who does not
    look there: they follow the words that the server knows them by."""
    if isinstance(error, LoadError):
        return str(error)
    details = log_exception("", error)
    return f"{in_one_line(error)}\n\nIn detail:\n{details}"


def in_one_line(error):
    """The exception and the place in the application it comes from."""
    line = traceback.format_exception_only(type(error), error)[-1].strip()
    if isinstance(error, SyntaxError):
        return f"{line} ({error.filename}:{error.lineno})"
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if not frame.filename.startswith(("<frozen importlib", "<appserver>"))
        and not frame.filename.startswith(os.path.dirname(importlib.__file__))
    ]
    return f"{line} ({frames[-1].filename}:{frames[-1].lineno})" if frames else line
