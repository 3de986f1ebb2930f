//! The built-in page: what a newcomer sees first.

use std::process::Command;

use crate::support::{Client, Server, Target, eventually};

fn json(client: &mut Client) -> serde_json::Value {
    client.call("GET", "/", &[("Accept", "application/json")], b"").unwrap().json()
}

#[test]
fn the_page_shows_worker_pid_generation_reloads_and_requests() {
    let server = Server::builtin().args(["--master", "--release=v7"]).start();
    let mut client = server.client();
    let first = json(&mut client);
    let worker = server.workers()[0];
    assert_eq!((&first["worker"], &first["pid"]), (&worker.slot.into(), &worker.pid.into()));
    assert_eq!(
        (&first["generation"], &first["reloads"], &first["release"]),
        (&1.into(), &0.into(), &"v7".into())
    );
    assert_eq!(first["version"], env!("CARGO_PKG_VERSION"));
    for path in 1..=3 {
        assert_eq!(client.get("/").unwrap().status, 200);
        // Each request is counted once it is finished.
        assert_eq!(json(&mut client)["requests"], 2 * path, "{path}");
    }
    server.reload();
    let mut client = server.client();
    let later = json(&mut client);
    assert_eq!((&later["generation"], &later["reloads"]), (&2.into(), &1.into()));
    assert_ne!(later["pid"], first["pid"]);
    assert!(later["requests"].as_u64().unwrap() >= 7, "the total survives a reload: {later}");
    for accept in ["text/html", "text/plain"] {
        let text = client.call("GET", "/", &[("Accept", accept)], b"").unwrap().text();
        for word in ["v7", env!("CARGO_PKG_VERSION"), "--static-dir", &later["pid"].to_string()] {
            assert!(text.contains(word), "{accept}: {word} is missing in {text}");
        }
    }
}

#[test]
fn a_client_gets_what_it_accepts_best() {
    let server = Server::builtin().start();
    let mut client = server.client();
    for (accept, kind) in [
        ("*/*", "text/html"),
        ("text/*", "text/html"),
        ("application/*", "application/json"),
        ("text/html;q=0.5, application/json", "application/json"),
        ("text/plain;q=0.9, text/html;q=0.8", "text/plain"),
        ("image/png", "text/html"),
        ("nonsense;;;", "text/html"),
    ] {
        let page = client.call("GET", "/", &[("Accept", accept)], b"").unwrap();
        assert!(page.header("content-type").unwrap().starts_with(kind), "{accept}: {:?}", page.headers);
        assert_eq!((page.header("vary"), page.header("cache-control")), (Some("accept"), Some("no-store")));
    }
    let page = client.get("/").unwrap();
    assert!(page.header("content-type").unwrap().starts_with("text/html"), "without Accept");
}

#[test]
fn head_and_other_methods() {
    let server = Server::builtin().start();
    let mut client = server.client();
    let head = client.call("HEAD", "/", &[], b"").unwrap();
    assert!(head.status == 200 && head.header("content-length").is_some_and(|length| length != "0"));
    for method in ["POST", "PUT", "DELETE"] {
        let answer = client.call(method, "/", &[], b"body").unwrap();
        assert_eq!((answer.status, answer.header("allow")), (405, Some("GET, HEAD")), "{method}");
    }
    assert_eq!(client.get("/favicon.ico").unwrap().status, 404);
}

#[test]
fn usual_clients_can_read_it() {
    let server = Server::builtin().start();
    let Target::Tcp(address) = server.target() else { unreachable!("it listens on TCP") };
    let url = format!("http://{address}/");
    for (program, args) in [
        ("curl", &["-sS", "--fail", "-H", "Accept: text/plain"] as &[&str]),
        ("curl", &["-sS", "--fail", "--http1.0", "-H", "Accept: text/plain"]),
        ("curl", &["-sS", "--fail", "--http2", "-H", "Accept: text/plain"]),
        ("wget", &["-q", "-O", "-", "--header=Accept: text/plain"]),
    ] {
        match Command::new(program).args(args).arg(&url).output() {
            Err(error) => eprintln!("skipped: {program}: {error}"),
            Ok(output) => {
                let text = String::from_utf8_lossy(&output.stdout);
                assert!(
                    output.status.success() && text.contains("is running"),
                    "{program} {args:?}: {output:?}"
                );
            }
        }
    }
}

#[test]
fn requests_of_all_workers_are_counted_together() {
    let server = Server::builtin().args(["--master", "--processes=4"]).start();
    for _ in 0..20 {
        assert_eq!(server.get("/").status, 200);
    }
    let mut client = server.client();
    // A worker counts a request after its answer is out.
    eventually("all are counted", crate::support::LIMIT, || {
        (json(&mut client)["requests"].as_u64().unwrap() >= 20).then_some(())
    });
}
