//! The `uwsgi` module: what an application learns of the server, and the list of its entries.

use serde_json::json;

use crate::support::uwsgi_app::{call, noted, server};
use crate::support::{LIMIT, Server, eventually};

/// All names of uWSGI's module: functions, attributes, and hooks that applications set.
const FUNCTIONS: &str = "reload stop workers masterpid total_requests request_id worker_id mule_id \
    mule_msg_recv_size logsize mem cl micros listen_queue ready ready_fd log log_this_request set_logvar \
    get_logvar alarm disconnect accepting setprocname set_user_harakiri set_warning_message lock unlock \
    is_locked register_signal signal signal_wait signal_received signal_registered add_timer add_ms_timer \
    add_rb_timer add_cron add_file_monitor register_rpc rpc call rpc_list cache_get cache_set cache_update \
    cache_del cache_exists cache_clear cache_inc cache_dec cache_mul cache_div cache_num cache_keys spool \
    send_to_spooler spooler_jobs spooler_pid spooler_pids spooler_get_task set_spooler_frequency \
    spooler_dir i_am_the_spooler mule_msg mule_get_msg farm_msg farm_get_msg in_farm \
    install_mule_msg_hook mule_file websocket_handshake websocket_recv websocket_recv_nb websocket_send \
    websocket_send_binary request_context connection_fd chunked_read chunked_read_nb wait_fd_read \
    wait_fd_write suspend green_schedule async_sleep async_connect connect send recv close is_connected \
    sendfile offload route add_var parsefile embedded_data extract metric_get metric_inc metric_dec \
    metric_mul metric_div metric_set metric_set_max metric_set_min queue_push queue_pull queue_pop \
    queue_get queue_set queue_last queue_slot queue_pull_slot sharedarea_read sharedarea_write \
    i_am_the_lord lord_scroll scrolls snmp_set_community";
const ATTRIBUTES: &str = "version version_info opt numproc cores has_threads buffer_size started_on \
    hostname mode loop unbit magic_table is_a_reload applications SPOOL_OK SPOOL_RETRY SPOOL_IGNORE";

#[test]
fn every_name_of_uwsgis_module_is_there_or_says_what_to_use() {
    let functions = format!(
        r#"
import appserver

def names():
    missing = [name for name in "{FUNCTIONS}".split() if not callable(getattr(uwsgi, name, None))]
    return missing + [name for name in "{ATTRIBUTES}".split() if not hasattr(uwsgi, name)]

def same():
    return appserver is uwsgi

def has():
    return [hasattr(uwsgi, "spoolers"), getattr(uwsgi, "sockets", 7), hasattr(uwsgi, "nonsense")]

def spool():
    uwsgi.spool({{b"a": b"b"}})

def spoolers():
    uwsgi.spoolers

def nonsense():
    uwsgi.nonsense
"#
    );
    let server = server(&functions).start();
    assert_eq!(call(&server, "names"), json!([]));
    assert_eq!(call(&server, "same"), json!(true));
    assert_eq!(call(&server, "has"), json!([false, 7, false]));
    let spool = "uwsgi.spool: there are no spoolers; use a task queue such as Celery or RQ";
    assert_eq!(call(&server, "spool"), format!("NotImplementedError: {spool}"));
    assert_eq!(call(&server, "spoolers"), format!("Missing: {}", spool.replace("spool:", "spoolers:")));
    assert_eq!(call(&server, "nonsense"), "AttributeError: module 'uwsgi' has no attribute 'nonsense'");
}

#[test]
fn an_application_knows_its_server() {
    let functions = r#"
def facts():
    return [uwsgi.version, list(uwsgi.version_info[:3]), uwsgi.numproc, uwsgi.cores, uwsgi.opt["pyargv"],
            uwsgi.opt["master"], uwsgi.is_a_reload, uwsgi.ready(), uwsgi.i_am_the_spooler(), uwsgi.mule_id()]

def master():
    return uwsgi.masterpid()

def identity():
    return [uwsgi.worker_id(), os.getpid()]

def workers():
    return [{**worker, "apps": len(worker["apps"])} for worker in uwsgi.workers()]

def memory():
    resident, virtual = uwsgi.mem()
    return 1 << 20 < resident < virtual

def env():
    return uwsgi.env["PATH_INFO"]

loading = [uwsgi.worker_id(), uwsgi.ready()]

def load():
    return loading
"#;
    let server = server(functions).arg("--pyargv=a b").start();
    let version = env!("CARGO_PKG_VERSION");
    let numbers: Vec<u32> = version.split('.').map(|it| it.parse().expect("a number")).collect();
    let expected = json!([version, numbers, 2, 1, "a b", true, false, true, false, 0]);
    assert_eq!(call(&server, "facts"), expected);
    assert_eq!(call(&server, "master"), server.pid());
    assert_eq!(call(&server, "env"), "/env");
    assert_eq!(call(&server, "memory"), true);
    assert_eq!(call(&server, "load"), json!([0, false]));
    let identity = call(&server, "identity");
    let known: Vec<_> = server.workers().iter().map(|it| json!([it.slot, it.pid])).collect();
    assert!(known.contains(&identity), "{identity} in {known:?}");

    let workers = call(&server, "workers");
    let pids: Vec<_> =
        workers.as_array().expect("a list").iter().map(|it| json!([it["id"], it["pid"]])).collect();
    assert_eq!(pids, known);
    let busy = workers.as_array().expect("a list").iter().filter(|it| it["status"] == "busy").count();
    assert_eq!(busy, 1, "{workers}");
    for key in "requests delta_requests signals exceptions rss vsz running_time last_spawn respawn_count tx avg_rt apps"
        .split(' ')
    {
        assert!(workers[0][key].is_u64(), "{key} in {workers}");
    }
    server.reload();
    assert_eq!(call(&server, "facts")[6], true);
}

#[test]
fn log_variables_reach_the_request_log_even_from_a_response_that_is_under_way() {
    let functions = r#"
def plain():
    uwsgi.set_logvar("tenant", "a \"b\"")
    return uwsgi.get_logvar("tenant")

def nothing():
    return uwsgi.get_logvar("tenant")

def outside():
    result = []
    def other():
        try:
            uwsgi.set_logvar("tenant", "x")
        except ValueError as error:
            result.append(str(error))
    thread = threading.Thread(target=other)
    thread.start()
    thread.join()
    return result

def stream(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    yield b"one"
    yield b"two"
    uwsgi.set_logvar("tenant", b"late")

plain_application = application

def application(environ, start_response):
    if environ["PATH_INFO"] == "/stream":
        return stream(environ, start_response)
    return plain_application(environ, start_response)
"#;
    for threads in [1, 2] {
        let server = server(functions)
            .args(["--log-format=%(uri) tenant=%(tenant)".to_owned(), format!("--threads={threads}")])
            .start();
        assert_eq!(call(&server, "plain"), "a \"b\"");
        server.wait_for_log(r"/plain tenant=a \x22b\x22");
        assert_eq!(call(&server, "nothing"), json!(null));
        server.wait_for_log("/nothing tenant=-");
        assert_eq!(server.get("/stream").text(), "onetwo");
        server.wait_for_log("/stream tenant=late");
        assert_eq!(call(&server, "outside"), json!(["uwsgi.set_logvar: there is no request in this thread"]));
    }
}

#[test]
fn a_request_can_have_itself_logged_where_only_failures_are() {
    let functions = r#"
def quiet():
    return 0

def loud():
    uwsgi.log_this_request()
"#;
    let server =
        server(functions).args(["--disable-logging", "--log-5xx", "--log-format=%(uri) logged"]).start();
    call(&server, "quiet");
    assert_eq!(call(&server, "loud"), json!(null));
    server.wait_for_log("/loud logged");
    assert!(!server.log().lines().iter().any(|line| line == "/quiet logged"));

    let server = crate::support::uwsgi_app::server(functions).arg("--disable-logging").start();
    let refused = call(&server, "loud");
    assert!(refused.as_str().is_some_and(|text| text.contains("no request is ever logged")), "{refused}");
}

#[test]
fn hooks_are_called_after_requests_and_at_the_exit() {
    let functions = r#"
def hello():
    return uwsgi.request_id()

uwsgi.post_fork_hook = lambda: note("fork", uwsgi.worker_id())
uwsgi.after_req_hook = lambda: note("after")
uwsgi.atexit = lambda: note("exit", uwsgi.worker_id())
"#;
    for threads in [1, 3] {
        let mut server = server(functions).arg(format!("--threads={threads}")).start();
        call(&server, "hello");
        call(&server, "hello");
        eventually("the hook was called after each request", LIMIT, || {
            (noted(&server, "after") == 2).then_some(())
        });
        server.signal(nix::sys::signal::Signal::SIGINT);
        server.wait_exit(LIMIT);
        for word in ["fork 1", "fork 2", "exit 1", "exit 2"] {
            assert_eq!(noted(&server, word), 1, "{word}");
        }
    }
}

#[test]
fn functions_can_be_called_by_name_within_a_worker() {
    let functions = r#"
from uwsgidecorators import rpc

@rpc("double")
def double(value):
    return value + value

def local():
    return [uwsgi.rpc(None, "double", b"ab"), uwsgi.call(b"double", "c"), uwsgi.call("none"), uwsgi.rpc_list()]

def remote():
    uwsgi.rpc("192.0.2.1:3031", "double")
"#;
    let server = server(functions).start();
    assert_eq!(call(&server, "local"), json!(["abab", "cc", null, ["double"]]));
    assert!(
        call(&server, "remote").as_str().is_some_and(|it| it.starts_with("NotImplementedError: uwsgi.rpc"))
    );
}

#[test]
fn a_worker_can_have_a_name_in_the_process_list() {
    let functions = r#"
def name():
    uwsgi.setprocname("the one that answered")
    return os.getpid()
"#;
    let server: Server = server(functions).start();
    let pid = call(&server, "name").as_u64().expect("a pid");
    let title = crate::support::processes::title(u32::try_from(pid).expect("a pid"));
    assert!(title.contains("the one that answered"), "{title}");
}
