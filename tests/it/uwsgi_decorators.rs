//! `uwsgidecorators`: functions that the server calls, or that say why it does not.

use serde_json::json;

use crate::support::uwsgi_app::{call, noted, server};
use crate::support::{LIMIT, eventually};

#[test]
fn decorated_functions_are_called() {
    let functions = r#"
from uwsgidecorators import *

@postfork
def every_worker():
    note("fork", uwsgi.worker_id())

@postfork(2)
def second_worker():
    note("only", uwsgi.worker_id())

@mstimer(20, target="worker1")
def often(number):
    note("often", number)

@timer(1)
def each_second(number):
    note("second", number)

@rbtimer(1, iterations=1)
def once(number):
    note("once", number)

@filemon("watched")
def changed(number):
    note("changed", number)

@cron(-1, -1, -1, -1, -1)
def each_minute(number):
    pass

@signal(99, target="workers")
def ninety_nine(number):
    note("signal", number, uwsgi.worker_id())

@lock
def locked():
    return uwsgi.is_locked()

@thread
def aside(words):
    words.append("ran")

def results():
    uwsgi.signal(99)
    words = []
    aside(words).join()
    open("watched", "w").close()
    return [words, locked(), uwsgi.is_locked(), every_worker.__name__]
"#;
    let server = server(functions).file("watched", "").start();
    assert_eq!(call(&server, "results"), json!([["ran"], true, false, "every_worker"]));
    for what in [
        "fork 1",
        "fork 2",
        "only 2",
        "often 0",
        "second 1",
        "once 2",
        "changed 3",
        "signal 99 1",
        "signal 99 2",
    ] {
        eventually(what, LIMIT, || (noted(&server, what) > 0).then_some(()));
    }
    assert_eq!(noted(&server, "only 1"), 0);
}

#[test]
fn what_needs_spoolers_or_mules_says_so_when_it_is_used() {
    let functions = r#"
from uwsgidecorators import *

@spool
def task(arguments):
    pass

@spoolforever(pass_arguments=True)
def forever(*arguments):
    pass

@mulefunc
def background():
    pass

@mulefunc(1)
def background_one():
    pass

@muleloop(1)
def loop():
    pass

def used():
    found = []
    for function in (lambda: task({"a": "b"}), lambda: task.spool(), forever, background, background_one):
        try:
            function()
        except NotImplementedError as error:
            found.append(str(error).partition(":")[0])
    return found
"#;
    let server = server(functions).start();
    let expected = ["uwsgi.spool", "uwsgi.spool", "uwsgi.spool", "uwsgi.mule_msg", "uwsgi.mule_msg"];
    assert_eq!(call(&server, "used"), json!(expected));
    server.wait_for_log("loop is for mule 1, which does not exist: it is never called");
}
