"""Functions by name, within this worker."""

_functions = {}


def register_rpc(name, function, argc=0):
    """Makes a function known by `name`."""
    if not callable(function):
        raise ValueError("uwsgi.register_rpc: the second argument is not callable")
    _functions[_key(name)] = function
    return True


def rpc(node, name, *arguments):
    """Calls a function of this worker; other servers cannot be reached."""
    if node:
        raise NotImplementedError("uwsgi.rpc: other servers cannot be called; use HTTP, or None for this worker")
    return call(name, *arguments)


def call(name, *arguments):
    """Calls a function by its name; None if there is none of that name."""
    function = _functions.get(_key(name))
    if function is None:
        return None
    result = function(*(argument.encode() if isinstance(argument, str) else argument for argument in arguments))
    return result.encode() if isinstance(result, str) else result


def rpc_list():
    """The names of all functions."""
    return tuple(name.encode() for name in sorted(_functions))


def _key(name):
    return name if isinstance(name, str) else bytes(name).decode()
