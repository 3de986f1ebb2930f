"""Decorators for functions that the server calls: after a fork, at times, on signals."""

import functools
import threading

import uwsgi

postfork_chain = []
_automatic = {"next": 0}


def _free_signal():
    """A number for a signal that the application does not name, from 0 on."""
    while _automatic["next"] < 256:
        number = _automatic["next"]
        _automatic["next"] += 1
        if not uwsgi.signal_registered(number):
            return number
    raise RuntimeError("all 256 signals are in use; give some of them the same number with signum")


def _run_postfork():
    for function in postfork_chain:
        function()


uwsgi.post_fork_hook = _run_postfork


class postfork:
    """Calls a function in each worker when it starts; `@postfork(2)` in worker 2 only."""

    def __init__(self, function_or_worker):
        if callable(function_or_worker):
            self.worker = 0
            self.function = function_or_worker
            functools.update_wrapper(self, function_or_worker)
            postfork_chain.append(self)
        else:
            self.worker = function_or_worker
            self.function = None

    def __call__(self, *arguments, **keywords):
        if self.function is None:
            self.function = arguments[0]
            functools.update_wrapper(self, self.function)
            postfork_chain.append(self)
            return self
        if not self.worker or self.worker == uwsgi.worker_id():
            return self.function(*arguments, **keywords)
        return None


prepromotion_chain = []


def _run_prepromotion():
    for function in prepromotion_chain:
        function()


def prepromotion(function):
    """Calls a function in a worker that is about to become the process that others are forked from."""
    uwsgi.pre_promotion_hook = _run_prepromotion
    prepromotion_chain.append(function)
    return function


class signal:
    """Calls a function when signal `number` is raised."""

    def __init__(self, number, **options):
        self.number = number
        self.target = options.get("target", "")

    def __call__(self, function):
        uwsgi.register_signal(self.number, self.target, function)
        return function


class _Source:
    """Something that raises a signal of its own."""

    def __init__(self, *what, **options):
        self.what = what
        self.number = options.get("signum")
        self.target = options.get("target", "")

    def __call__(self, function):
        number = _free_signal() if self.number is None else self.number
        uwsgi.register_signal(number, self.target, function)
        self.add(number)
        return function


class timer(_Source):
    """Calls a function every so many seconds."""

    def add(self, number):
        uwsgi.add_timer(number, *self.what)


class mstimer(_Source):
    """Calls a function every so many milliseconds."""

    def add(self, number):
        uwsgi.add_ms_timer(number, *self.what)


class rbtimer(_Source):
    """Calls a function every so many seconds, `iterations` times if that is given."""

    def __init__(self, *what, **options):
        super().__init__(*what, **options)
        self.iterations = options.get("iterations", 0)

    def add(self, number):
        uwsgi.add_rb_timer(number, *self.what[:1], *(self.what[1:] or (self.iterations,)))


class cron(_Source):
    """Calls a function at times of the clock: minute, hour, day, month, weekday."""

    def add(self, number):
        uwsgi.add_cron(number, *self.what)


class filemon(_Source):
    """Calls a function when a file or directory changes."""

    def add(self, number):
        uwsgi.add_file_monitor(number, *self.what)


class rpc:
    """Makes a function known by a name."""

    def __init__(self, name):
        self.name = name

    def __call__(self, function):
        uwsgi.register_rpc(self.name, function)
        return function


def lock(function):
    """Only one worker and thread at a time runs the function."""

    @functools.wraps(function)
    def locked(*arguments, **keywords):
        uwsgi.lock()
        try:
            return function(*arguments, **keywords)
        finally:
            uwsgi.unlock()

    return locked


def thread(function):
    """Runs the function in a thread of its own; the call returns the thread."""

    @functools.wraps(function)
    def started(*arguments, **keywords):
        running = threading.Thread(target=function, args=arguments, kwargs=keywords, daemon=True)
        running.start()
        return running

    return started


class harakiri:
    """Limits the time of a function that is called in a request."""

    def __init__(self, seconds):
        self.seconds = seconds

    def __call__(self, function):
        @functools.wraps(function)
        def limited(*arguments, **keywords):
            uwsgi.set_user_harakiri(self.seconds)
            try:
                return function(*arguments, **keywords)
            finally:
                uwsgi.set_user_harakiri(0)

        return limited


# What needs spoolers or mules can be imported and applied; to use it raises.


def _spooled(function):
    def refuse(*arguments, **keywords):
        return uwsgi.spool(*arguments, **keywords)

    function = functools.wraps(function)(lambda *arguments, **keywords: refuse(*arguments, **keywords))
    function.spool = refuse
    return function


def _spooling(function=None, pass_arguments=False):
    return _spooled if function is None else _spooled(function)


spool = spoolforever = spoolraw = _spooling


class mulefunc:
    """Would run a function in a mule."""

    def __init__(self, function_or_mule):
        self.function = function_or_mule if callable(function_or_mule) else None

    def __call__(self, *arguments, **keywords):
        if self.function is None:
            self.function = arguments[0]
            return self
        return uwsgi.mule_msg(*arguments)


class mule:
    """Would make a function the work of a mule; it is never called."""

    def __init__(self, number):
        self.number = number

    def __call__(self, function):
        uwsgi.log(f"{function.__qualname__} is for mule {self.number}, which does not exist: it is never called")
        return function


class muleloop(mule):
    """The same, again and again."""


class mulemsg(mule):
    """The same, for messages."""


class farm(mule):
    """The same, for a group of mules."""
