//! `uwsgi.cache_*`: one memory for all workers, which outlives them.

use serde_json::json;

use crate::support::uwsgi_app::{call, server};
use crate::support::{LIMIT, eventually};

const FUNCTIONS: &str = r#"
def values():
    big = os.urandom(60000)
    return [
        uwsgi.cache_set("a", b"1"), uwsgi.cache_set(b"a", b"2"), uwsgi.cache_get("a"), uwsgi.cache_get("b"),
        uwsgi.cache_update("a", "three"), uwsgi.cache_get("a"), uwsgi.cache_exists("a"), uwsgi.cache_exists("b"),
        uwsgi.cache_set("big", big), uwsgi.cache_get("big") == big, uwsgi.cache_set("huge", bytes(65537)),
        sorted(uwsgi.cache_keys()), uwsgi.cache_del("a"), uwsgi.cache_del("a"), uwsgi.cache_clear(), uwsgi.cache_keys(),
    ]

def numbers():
    return [
        uwsgi.cache_inc("n"), uwsgi.cache_inc("n", 9), uwsgi.cache_mul("n", 6), uwsgi.cache_div("n", 4),
        uwsgi.cache_dec("n", 20), uwsgi.cache_num("n"), uwsgi.cache_div("n", 0), uwsgi.cache_num("none"),
    ]

def names():
    uwsgi.cache_set("k", "one", 0, "default")
    uwsgi.cache_set("k", "two", 0, "small")
    return [uwsgi.cache_get("k"), uwsgi.cache_get("k", "default"), uwsgi.cache_get("k", b"small")]

def small():
    stored = [uwsgi.cache_set(f"{number}", "x", 0, "small") for number in range(6)]
    return [stored.count(True), len(uwsgi.cache_keys("small"))]

def unknown():
    return uwsgi.cache_get("k", "nowhere")

def expiring():
    return uwsgi.cache_set("soon", "x", 1)

def expired():
    return uwsgi.cache_exists("soon") is None

def count():
    for _ in range(500):
        uwsgi.cache_inc("count")
    return uwsgi.worker_id()

def counted():
    return uwsgi.cache_num("count")

def die():
    os._exit(1)

uwsgi.cache_set("loaded", "while loading")

def loaded():
    return uwsgi.cache_get("loaded")
"#;

const CACHES: [&str; 2] =
    ["--cache2=name=default,items=100", "--cache2=name=small,items=3,blocksize=10,keysize=5"];

#[test]
fn values_are_stored_found_calculated_with_and_forgotten() {
    let server = server(FUNCTIONS).args(CACHES).start();
    assert_eq!(call(&server, "loaded"), "while loading");
    let expected = json!([
        true,
        null,
        "1",
        null,
        true,
        "three",
        true,
        null,
        true,
        true,
        null,
        ["a", "big", "loaded"],
        true,
        null,
        true,
        []
    ]);
    assert_eq!(call(&server, "values"), expected);
    assert_eq!(call(&server, "numbers"), json!([true, true, true, true, true, -5, null, 0]));
    assert_eq!(call(&server, "names"), json!(["one", "one", "two"]));
    assert_eq!(call(&server, "small"), json!([2, 3]));
    let unknown =
        "ValueError: there is no cache nowhere; the option cache2 = name=nowhere,items=1000 makes one";
    assert_eq!(call(&server, "unknown"), unknown);
    assert_eq!(call(&server, "expiring"), true);
    eventually("the value has expired", LIMIT, || (call(&server, "expired") == true).then_some(()));
}

#[test]
fn all_workers_and_threads_see_one_cache_also_when_workers_load_the_application_themselves() {
    for lazy in [false, true] {
        let server = server(FUNCTIONS)
            .args([CACHES[0], "--threads=2"])
            .args(["--processes=3".to_owned(), format!("--lazy-apps={lazy}")])
            .start();
        let mut clients: Vec<_> = (0..6).map(|_| server.client()).collect();
        std::thread::scope(|scope| {
            for client in &mut clients {
                scope.spawn(|| assert_eq!(client.get("/count").expect("an answer").status, 200));
            }
        });
        assert_eq!(call(&server, "counted"), 3000);
    }
}

#[test]
fn a_cache_outlives_its_workers_and_a_reload_empties_it() {
    let server = server(FUNCTIONS).args([CACHES[0], "--processes=1"]).start();
    call(&server, "count");
    assert!(server.client().get("/die").is_err());
    server.wait_for_log("Respawned appserver worker 1 ");
    assert_eq!(call(&server, "counted"), 500);
    server.reload();
    assert_eq!(call(&server, "counted"), 0);
}

#[test]
fn without_a_cache_the_option_is_named_and_cache_alone_is_enough() {
    let server = server("def get():\n    return uwsgi.cache_get('a')\n").start();
    assert!(
        call(&server, "get")
            .as_str()
            .is_some_and(|it| it.contains("the option cache2 = name=default,items="))
    );
    let server = crate::support::uwsgi_app::server(FUNCTIONS).arg("--cache=50").start();
    assert_eq!(call(&server, "loaded"), "while loading");
}
