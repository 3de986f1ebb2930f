"""What uWSGI's module has and this one does not, and what to use in its place."""


class Missing(NotImplementedError, AttributeError):
    """Also an AttributeError, so that `hasattr` and `getattr` with a default say that it is not there."""


_SPOOLER = "there are no spoolers; use a task queue such as Celery or RQ"
_MULE = "there are no mules; use a task queue such as Celery or RQ, or a thread"
_WEBSOCKET = "there are no WebSockets yet; run them in an ASGI server beside this one"
_ASYNC = "there is no asynchronous mode; a request that waits occupies one of `threads`, so raise that"
_SOCKET = "use the module socket"
_METRIC = "there are no metrics for applications; use prometheus_client"
_QUEUE = "there are no queues in shared memory; use Redis, or multiprocessing.Queue"
_AREA = "there are no shared areas; use multiprocessing.shared_memory"
_LEGION = "there are no legions; use the election of a cluster manager"
_SNMP = "there is no SNMP; use prometheus_client"
_CHUNKED = "wsgi.input ends where the body ends, chunked or not: read that"

FUNCTIONS = {
    "spool send_to_spooler spooler_jobs spooler_pid spooler_pids spooler_get_task set_spooler_frequency spooler_dir": _SPOOLER,
    "mule_msg mule_get_msg mule_msg_recv_size mule_file farm_msg farm_get_msg install_mule_msg_hook": _MULE,
    "websocket_handshake websocket_recv websocket_recv_nb websocket_send websocket_send_binary request_context": _WEBSOCKET,
    "chunked_read chunked_read_nb": _CHUNKED,
    "suspend green_schedule async_sleep async_connect wait_fd_read wait_fd_write ready_fd": _ASYNC,
    "connect send recv close is_connected": _SOCKET,
    "sendfile": "return wsgi.file_wrapper(file): the kernel sends it",
    "offload": "return the response; the server sends it without occupying the application",
    "route": "there is no internal routing; use a proxy in front, or WSGI middleware",
    "add_var": "there is no internal routing that could see it; set it in environ",
    "parsefile": "use a parser of the file's own format",
    "embedded_data": "use importlib.resources",
    "extract": "use open or urllib.request",
    "alarm": "there are no alarms; log an error, and have the log watched",
    "set_warning_message": "there is nobody to ask for it; answer a health check in the application",
    "metric_get metric_inc metric_dec metric_mul metric_div metric_set metric_set_max metric_set_min": _METRIC,
    "queue_push queue_pull queue_pop queue_get queue_set queue_last queue_slot queue_pull_slot": _QUEUE,
    "sharedarea_read sharedarea_write sharedarea_rlock sharedarea_wlock sharedarea_unlock sharedarea_memoryview "
    "sharedarea_object sharedarea_read8 sharedarea_read16 sharedarea_read32 sharedarea_read64 sharedarea_write8 "
    "sharedarea_write16 sharedarea_write32 sharedarea_write64 sharedarea_inc32 sharedarea_inc64 sharedarea_dec32 "
    "sharedarea_dec64 sharedarea_readbyte sharedarea_writebyte sharedarea_readlong sharedarea_writelong "
    "sharedarea_inclong": _AREA,
    "i_am_the_lord lord_scroll scrolls": _LEGION,
    "snmp_set_counter32 snmp_set_counter64 snmp_set_gauge snmp_incr_counter32 snmp_incr_counter64 snmp_incr_gauge "
    "snmp_decr_counter32 snmp_decr_counter64 snmp_decr_gauge snmp_set_community": _SNMP,
}

ATTRIBUTES = {
    "spoolers": _SPOOLER,
    "sockets": "listening sockets belong to the server; take the address from its configuration (uwsgi.opt)",
    "start_response": "use the one that the application is called with",
    "pidfile": "the option pidfile is not given",
}

_REASONS = {name: reason for names, reason in FUNCTIONS.items() for name in names.split()}


def attribute(name):
    """A function that says what to use instead, or an error that does."""
    reason = _REASONS.get(name)
    if reason is not None:
        return _refusal(name, reason)
    if name in ATTRIBUTES:
        raise Missing(f"uwsgi.{name}: {ATTRIBUTES[name]}")
    raise AttributeError(f"module 'uwsgi' has no attribute {name!r}")


def _refusal(name, reason):
    def refuse(*arguments, **keywords):
        raise NotImplementedError(f"uwsgi.{name}: {reason}")

    refuse.__name__ = refuse.__qualname__ = name
    refuse.__doc__ = f"Not there: {reason}."
    return refuse
