"""What requests are made of that need not be native: the template of `environ`, files, an error page."""

import io
import os
import stat
import sys
import traceback

from _appserver_bootstrap import settings


class EmptyInput(io.BufferedIOBase):
    """`wsgi.input` of all requests without a body; nothing that an application does to it lasts."""

    def read(self, size=-1):
        return b""

    def read1(self, size=-1):
        return b""

    def readinto(self, buffer):
        return 0

    def readinto1(self, buffer):
        return 0

    def readline(self, size=-1):
        return b""

    def readlines(self, hint=-1):
        return []

    def __next__(self):
        raise StopIteration

    def readable(self):
        return True

    def seekable(self):
        return True

    def seek(self, position, whence=0):
        return 0

    def tell(self):
        return 0

    def detach(self):
        return self

    def close(self):
        pass


def environ_template(file_wrapper):
    """What does not change from request to request (PEP 3333, `environ` variables)."""
    template = {
        "REQUEST_METHOD": "GET",
        "REQUEST_URI": "/",
        "PATH_INFO": "/",
        "QUERY_STRING": "",
        "SCRIPT_NAME": "",
        "SERVER_NAME": settings["hostname"],
        "SERVER_PORT": "80",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "REMOTE_ADDR": "",
        "wsgi.version": (1, 0),
        "wsgi.errors": sys.stderr,
        "wsgi.run_once": False,
        "wsgi.multithread": settings["threads"] > 1,
        "wsgi.multiprocess": settings["processes"] != 1,
        "wsgi.url_scheme": "http",
        "wsgi.input": EmptyInput(),
        # The body has been received and dechunked before the application is called.
        "wsgi.input_terminated": True,
        "uwsgi.version": settings["version"].encode(),
        "uwsgi.node": settings["hostname"].encode(),
    }
    if settings["file_wrapper"]:
        template["wsgi.file_wrapper"] = file_wrapper
    # A copy has the room that the original once needed: as it is, the first header field that is filled
    # in would have the dictionary of each request made anew. A dictionary is for 21 items, then for 42.
    spare = [f"spare {number}" for number in range(22 - len(template))]
    template.update(dict.fromkeys(spare))
    for key in spare:
        del template[key]
    return template


class FileWrapper:
    """`wsgi.file_wrapper`; what can be sent by the kernel never comes to be iterated."""

    def __init__(self, filelike, blksize=8192):
        self.filelike = filelike
        self.blksize = blksize
        if hasattr(filelike, "close"):
            self.close = filelike.close

    def __iter__(self):
        return self

    def __next__(self):
        # A block size of zero means everything at once, as in uWSGI.
        data = self.filelike.read(self.blksize) if self.blksize > 0 else self.filelike.read()
        if data:
            return data
        raise StopIteration


def file_range(wrapper):
    """(descriptor, offset, length) if the wrapped object is nothing but a regular file, else None.

    Many objects have a `fileno` and yet give other bytes than the file has, such as GzipFile, or a
    subclass with a `read` of its own; so the types are known ones. Their position is honoured, as
    PEP 3333 demands.
    """
    file = bare(wrapper.filelike)
    if type(file) is not io.FileIO:
        if type(file) not in (io.BufferedReader, io.BufferedRandom) or type(file.raw) is not io.FileIO:
            return None
    try:
        if not file.readable():
            return None
        if type(file) is io.BufferedRandom:
            file.flush()
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            return None
        offset = file.tell()
    except (OSError, ValueError):
        return None
    return file.fileno(), offset, max(0, status.st_size - offset)


def bare(file):
    """What is inside the wrappers of tempfile and Django, which add nothing to `read`."""
    for _ in range(3):
        tempfile = sys.modules.get("tempfile")
        django = sys.modules.get("django.core.files.utils")
        if tempfile is not None and type(file) is tempfile._TemporaryFileWrapper:
            file = file.file
        elif django is not None and getattr(type(file), "read", None) is django.FileProxyMixin.read:
            file = file.file
        else:
            break
    return file


def exception_page(error, environ):
    """What `catch-exceptions` shows to the client."""
    lines = [f"{environ.get('REQUEST_METHOD')} {environ.get('REQUEST_URI')}", ""]
    lines += "".join(traceback.format_exception(type(error), error, error.__traceback__)).splitlines()
    lines.append("")
    for key in sorted(environ, key=str):
        try:
            lines.append(f"{key} = {environ[key]!r}")
        except Exception as unshown:
            lines.append(f"{key} cannot be shown: {type(unshown).__name__}")
    return "\n".join(lines).encode("utf-8", "backslashreplace") + b"\n"
