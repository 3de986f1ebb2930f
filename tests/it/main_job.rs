//! The main job: one command, a few workers, pages and files.

use crate::support::server::mode;
use crate::support::{LIMIT, Server, Target, processes};

#[test]
fn the_welcome_page_speaks_html_text_and_json() {
    let server = Server::builtin().arg("--master").start();
    let mut client = server.client();
    for (accept, kind) in [
        ("text/html,*/*;q=0.8", "text/html"),
        ("text/plain", "text/plain"),
        ("application/json", "application/json"),
    ] {
        let page = client.call("GET", "/", &[("Accept", accept)], b"").unwrap();
        assert_eq!(page.status, 200, "{accept}");
        let given = page.header("content-type").unwrap_or_default();
        assert!(given.starts_with(kind), "asked for {accept}, got {given}");
        assert!(page.text().to_lowercase().contains("worker"), "{}", page.text());
        if kind == "application/json" {
            assert!(page.json().is_object());
        }
    }
}

#[test]
fn a_head_request_has_the_length_but_no_body() {
    let server = Server::builtin().start();
    let mut client = server.client();
    let get = client.call("GET", "/", &[("Accept", "text/html")], b"").unwrap();
    let head = client.call("HEAD", "/", &[("Accept", "text/html")], b"").unwrap();
    assert_eq!((head.status, head.body.len()), (200, 0));
    assert!(
        head.header("content-type").is_some() && head.header("content-type") == get.header("content-type")
    );
}

#[test]
fn start_up_is_told_in_the_words_operators_grep_for() {
    let server = Server::builtin().args(["--master", "--processes=4"]).start();
    server.wait_for_log("*** Starting appserver ");
    server.wait_for_log(&format!("spawned appserver master process (pid: {})", server.pid()));
    for slot in 1..=4 {
        server.wait_for_log(&format!("spawned appserver worker {slot} (pid: "));
    }
    server.wait_for_log("ready: 4 workers of generation 1 accept on ");
}

#[test]
fn four_workers_run_under_one_master() {
    let server = Server::app().args(["--master", "--processes=4"]).start();
    let workers = server.workers();
    assert_eq!(workers.iter().map(|worker| worker.slot).collect::<Vec<_>>(), [1, 2, 3, 4]);
    let pid: u32 = server.get("/pid").text().trim().parse().unwrap();
    assert!(workers.iter().any(|worker| worker.pid == pid), "{pid} is none of {workers:?}");
    for worker in workers {
        assert!(processes::title(worker.pid).contains("worker"), "{}", processes::title(worker.pid));
    }
}

#[test]
fn a_worker_that_dies_is_replaced() {
    let server = Server::app().args(["--master", "--processes=2"]).start();
    for death in ["/exit?code=3", "/abort", "/kill9"] {
        let mark = server.log().mark();
        // The request dies with its worker; that is the point.
        let _ = server.client().get(death);
        let line = server.wait_for_log_after(mark, "DAMN ! worker ");
        assert!(
            line.contains(&format!("with 1 requests in flight, the last one begun is GET {death}")),
            "{line}"
        );
        server.wait_for_log_after(mark, "Respawned appserver worker ");
        server.wait_workers("both workers run", |workers| workers.len() == 2);
        assert_eq!(server.get("/").text(), "hello v1\n");
    }
}

#[test]
fn requests_wait_side_by_side_when_a_worker_has_threads() {
    let server = Server::app().args(["--processes=1", "--threads=4"]).start();
    let begin = std::time::Instant::now();
    let mut waiting: Vec<_> = (0..4).map(|_| server.connect()).collect();
    for connection in &mut waiting {
        connection.send(b"GET /sleep?ms=1000 HTTP/1.1\r\nHost: test\r\n\r\n").unwrap();
    }
    for connection in &mut waiting {
        assert_eq!(connection.receive(false).unwrap().text(), "slept\n");
    }
    assert!(begin.elapsed().as_millis() < 3000, "one after the other: {:?}", begin.elapsed());
}

#[test]
fn bodies_of_any_size_pass_both_ways() {
    let server = Server::app().start();
    let mut client = server.client();
    for size in [0, 1, 4096, 1_000_000] {
        let body: Vec<u8> = (0..size).map(|at: usize| (at % 251) as u8).collect();
        let echoed =
            client.call("POST", "/echo", &[("Content-Type", "application/octet-stream")], &body).unwrap();
        assert!(
            echoed.status == 200 && echoed.body == body,
            "{size} bytes came back as {}",
            echoed.body.len()
        );
    }
}

#[test]
fn files_are_served_from_their_directory_only() {
    let server = Server::builtin()
        .file("public/hello.txt", "hello file\n")
        .file("public/sub/index.html", "<h1>index</h1>")
        .file("secret.txt", "secret\n")
        .arg("--static-map=/files=public")
        .start();
    let mut client = server.client();
    let file = client.get("/files/hello.txt").unwrap();
    assert_eq!((file.status, file.text().as_str()), (200, "hello file\n"));
    assert!(file.header("content-type").unwrap_or_default().starts_with("text/plain"));
    assert_eq!(client.get("/files/sub/").unwrap().text(), "<h1>index</h1>");
    assert_eq!(client.get("/files/none.txt").unwrap().status, 404);
    for escape in ["/files/../secret.txt", "/files/%2e%2e/secret.txt", "/files/..%2fsecret.txt"] {
        let answer = client.get(escape).unwrap();
        assert!(!answer.text().contains("secret\n"), "{escape} got out of the directory");
    }
}

#[test]
fn a_port_is_bound_and_named_in_the_log() {
    let mut server = Server::builtin().without_listener().arg("--http=127.0.0.1:0").start();
    let line = server.wait_for_log("ready: ");
    let (_, rest) = line.split_once("127.0.0.1:").expect("the ready line names the address");
    let digits = rest.split(|c: char| !c.is_ascii_digit()).next().unwrap();
    server.set_address(format!("127.0.0.1:{digits}").parse().unwrap());
    assert_eq!(server.get("/").status, 200);
}

#[test]
fn a_taken_port_is_named_and_nothing_starts() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let mut server = Server::builtin().without_listener().arg(format!("--http={address}")).spawn();
    assert_eq!(server.wait_exit(LIMIT).code(), Some(1));
    server.wait_for_log(&format!("cannot bind {address}"));
}

#[test]
fn an_application_that_is_needed_and_does_not_load_ends_the_start() {
    let settings = serde_json::json!({ "load": "fail" });
    let mut server = Server::app().args(["--master", "--need-app"]).settings(settings).spawn();
    assert_eq!(server.wait_exit(LIMIT).code(), Some(22));
    server.wait_for_log("the test application was told to fail");
}

#[test]
fn a_unix_socket_is_served_with_the_mode_asked_for() {
    let server = Server::builtin().on_unix_socket("app.sock").arg("--chmod-socket=660").start();
    assert_eq!(server.get("/").status, 200);
    let Target::Unix(path) = server.target() else { unreachable!("it listens on a Unix socket") };
    assert_eq!(mode(path), 0o660);
}

#[test]
fn each_request_gets_uwsgis_line() {
    let server = Server::app().start();
    server.get("/sleep?ms=1");
    let line = server.wait_for_log("GET /sleep?ms=1 => generated 6 bytes in ");
    assert!(line.starts_with("[pid: ") && line.contains("|app: 0|req: 1/1] 127.0.0.1 () {"), "{line}");
    assert!(line.contains(" msecs (HTTP/1.1 200) ") && line.ends_with(" switches on core 0)"), "{line}");
}

#[test]
fn failures_alone_can_be_logged() {
    let server = Server::app().args(["--disable-logging", "--log-5xx"]).start();
    server.get("/pid");
    server.get("/fail");
    server.wait_for_log("GET /fail => generated ");
    assert!(!server.log().lines().iter().any(|line| line.contains("GET /pid")));
}
