//! A Django project in the server, by `config/django.ini`: pages, admin, login, sessions, uploads,
//! streams, errors.

use nix::sys::signal::Signal;

use crate::shipped_config::{self, find_address};
use crate::support::browser::{Browser, noise};
use crate::support::http::request;
use crate::support::python::Project;
use crate::support::server::promoted_worker;
use crate::support::{LIMIT, Load, LoadSpec, Server, processes};

const PASSWORD: &str = "secret";

/// The project with its database and static files, and one user, ada.
fn project() -> Project {
    let project = Project::new("django");
    project.run(&["manage.py", "migrate", "-v0"], &[]);
    project.run(&["manage.py", "collectstatic", "-v0", "--noinput"], &[]);
    let user =
        ["manage.py", "createsuperuser", "-v0", "--noinput", "--username=ada", "--email=ada@example.org"];
    project.run(&user, &[("DJANGO_SUPERUSER_PASSWORD", PASSWORD)]);
    project
}

fn browser(server: &Server) -> Browser {
    Browser::new(server.target())
}

#[test]
fn the_project_passes_its_own_tests() {
    Project::new("django").run(&["manage.py", "test", "-v0"], &[]);
}

#[test]
fn pages_come_from_templates_and_the_database_and_files_from_the_server() {
    let project = project();
    let mut server = project.start();
    let page = server.get("/");
    assert_eq!((page.status, page.header("content-type")), (200, Some("text/html; charset=utf-8")));
    assert!(page.text().contains("<li>Product 1: 1</li>") && page.text().contains("/static/shop/site.css"));
    let css = server.get("/static/shop/site.css");
    assert_eq!((css.status, css.header("content-type")), (200, Some("text/css; charset=utf-8")));
    assert_eq!(server.get("/static/admin/css/base.css").status, 200);
    let found = server.get("/products.json?q=product+1").json();
    assert_eq!((&found["count"], &found["names"][0]), (&12.into(), &"Product 1".into()));
    assert_eq!(server.get("/none").status, 404);
    server.signal(Signal::SIGTERM);
    assert_eq!(server.wait_exit(LIMIT).code(), Some(0));
}

#[test]
fn a_user_logs_in_and_the_session_holds_in_all_workers_and_across_a_reload() {
    let project = project();
    let server = project.start();
    let mut ada = browser(&server);
    let refused = ada.get("/private");
    let login = refused.header("location").expect("a redirection").to_owned();
    assert_eq!((refused.status, login.as_str()), (302, "/accounts/login/?next=/private"));
    assert_eq!(ada.get(&login).status, 200);

    let token = ada.cookie("csrftoken").expect("the page has a form").to_owned();
    let form = [("Content-Type", "application/x-www-form-urlencoded")];
    let body =
        |token: &str| format!("csrfmiddlewaretoken={token}&username=ada&password={PASSWORD}&next=%2Fprivate");
    assert_eq!(ada.call("POST", &login, &form, body("forged").as_bytes()).status, 403);
    let answer = ada.call("POST", &login, &form, body(&token).as_bytes());
    assert_eq!((answer.status, answer.header("location")), (302, Some("/private")));

    // The kept connection stays with one worker; a new one each time reaches others.
    for _ in 0..10 {
        let fresh = Browser::new(server.target()).with_cookies_of(&ada).get("/private");
        assert_eq!(fresh.text(), "hello ada\n");
    }
    assert!(ada.get("/admin/shop/product/").text().contains("100 products"));
    for visits in 1..=3 {
        assert_eq!(ada.get("/visits").json()["visits"], visits);
    }
    server.reload();
    assert_eq!(ada.get("/visits").json()["visits"], 4);
    assert_eq!(ada.get("/private").text(), "hello ada\n");
}

#[test]
fn uploads_arrive_whole_and_come_back_through_the_file_wrapper() {
    let project = project();
    let server = project.start();
    let mut browser = browser(&server);
    assert_eq!(browser.get("/upload").status, 200);
    let token = browser.cookie("csrftoken").expect("the view asks for it").to_owned();
    // Beyond Django's 2.5 MiB, above which it writes to a temporary file.
    for size in [1, 70_000, 5 << 20] {
        let (name, content) = (format!("a{size}.bin"), noise(size));
        let answer = browser.post_file("/upload", &[("X-CSRFToken", &token)], "é", (&name, &content));
        assert_eq!(answer.status, 201, "{}", answer.text());
        assert_eq!((&answer.json()["size"], &answer.json()["title"]), (&size.into(), &"é".into()));
        let back = browser.get(&format!("/download/{name}"));
        assert!(back.body == content, "{size} bytes, {} back", back.body.len());
        assert_eq!(back.header("content-length"), Some(size.to_string().as_str()));
        assert!(server.get(&format!("/media/{name}")).body == content, "static-map serves it too");
    }
}

#[test]
fn a_stream_comes_as_it_is_made_and_is_closed_when_the_client_leaves() {
    let project = project();
    let server = project.start();
    let whole = server.get("/stream?lines=20000").text();
    assert_eq!(whole.lines().count(), 20_000);
    assert!(whole.ends_with("line 19999\n"));
    server.wait_for_log("stream of 20000 lines closed");

    let mut connection = server.connect();
    connection.send(&request("GET", "/stream?lines=1000000000", &[], b"")).expect("the server reads");
    assert_eq!(connection.receive_begin().expect("the head comes first").status, 200);
    drop(connection);
    server.wait_for_log("stream of 1000000000 lines closed");
    assert_eq!(server.get("/").status, 200);
}

#[test]
fn an_exception_is_a_500_with_its_traceback_in_the_log() {
    let project = project();
    let server = project.start();
    assert_eq!(server.get("/broken").status, 500);
    server.wait_for_log("Traceback (most recent call last):");
    server.wait_for_log("RuntimeError: broken on purpose");
    assert_eq!(server.get("/").status, 200);
}

#[test]
fn reloads_under_load_lose_nothing() {
    let project = project();
    let server = project.start();
    let load = Load::start(server.target(), &LoadSpec::gets());
    for generation in 2..=4 {
        load.wait_for(50);
        // By rename: a file that is opened and then written may be seen to change twice.
        let draft = project.data("release.draft");
        std::fs::write(&draft, generation.to_string()).expect("a directory of ours");
        std::fs::rename(draft, project.data("release")).expect("a directory of ours");
        server.wait_reloaded(generation);
    }
    load.wait_for(50);
    load.stop().assert_nothing_lost();
}

#[test]
fn a_warmed_worker_becomes_the_zygote_without_its_connections_to_the_database() {
    let project = project();
    for threads in ["--threads=1", "--threads=2"] {
        let builder = project.builder().env("SHOP_CONN_MAX_AGE", "600").arg(threads);
        let mut server = builder.arg("--refork-after=30").start();
        find_address(&mut server);
        let has_database = |pid: u32| {
            let open = processes::descriptors(pid);
            open.values().any(|path| path.to_string_lossy().contains("shop.sqlite3"))
        };
        let mut ada = browser(&server);
        assert_eq!(ada.get("/visits").json()["visits"], 1);
        let load = Load::start(server.target(), &LoadSpec::gets());
        let line = server.wait_for_log("is the zygote of generation 1 from now on");
        server.wait_for_log("warm roll complete");
        load.wait_for(50);
        let kept = server.workers().iter().any(|worker| has_database(worker.pid));
        load.stop().assert_nothing_lost();
        assert!(kept, "connections are not kept at all");
        assert!(!has_database(promoted_worker(&line).expect("the line names it")), "{threads}");
        assert_eq!(ada.get("/visits").json()["visits"], 2);
        assert_eq!(server.get("/products.json").json()["count"], 100);
    }
}

#[test]
fn a_project_that_does_not_load_is_no_service() {
    let project = Project::new("django");
    let mut server = project.builder().env("SHOP_SECRET", "").spawn();
    assert_eq!(server.wait_exit(LIMIT).code(), Some(22));
    server.wait_for_log("ImproperlyConfigured: SHOP_SECRET is empty");
}

/// Starts the project by a command line, which the environment has to complete.
fn as_commanded(script: &str) {
    let project = project();
    let server = Server::builtin();
    let text = |path: std::path::PathBuf| path.to_str().expect("a plain name").to_owned();
    let mut script = script.replace("/usr/local/bin/appserver", "\"$PROGRAM\"");
    for (from, to) in [
        ("/run/shop", text(server.path(""))),
        ("/etc/default/shop", text(server.path("environment"))),
        ("/srv/shop/venv", text(project.environment())),
        ("/srv/shop", text(project.root())),
        ("--http=127.0.0.1:8000", "--http=127.0.0.1:0".to_owned()),
        ("--uid=www-data --gid=www-data", String::new()),
    ] {
        script = script.replace(from, &to);
    }
    let environment = format!("WEB_CONCURRENCY=3\nSHOP_DATA={}\n", project.data("").display());
    let server = server.file("environment", environment).env("PYTHONDONTWRITEBYTECODE", "1");
    let mut server = server.without_listener().wrapped_by(&script).start();
    find_address(&mut server);
    server.wait_workers("three workers", |workers| workers.len() == 3);
    assert_eq!(server.get("/products.json").json()["count"], 100);
    server.reload();
    assert_eq!(server.get("/products.json").json()["count"], 100);
    server.signal(Signal::SIGTERM);
    assert_eq!(server.wait_exit(LIMIT).code(), Some(0));
}

#[test]
fn the_systemd_unit_for_projects_works() {
    let setting = |key| shipped_config::setting("systemd/shop.service", key);
    assert_eq!(setting("ExecReload"), "/usr/local/bin/appserver --reload /run/shop/pid --wait");
    // What systemd does with these lines.
    as_commanded(&format!(
        "#!/bin/sh\nset -a; . {}; set +a\ncd {}\nexec {}\n",
        setting("EnvironmentFile"),
        setting("WorkingDirectory"),
        setting("ExecStart")
    ));
}

#[test]
fn the_run_script_for_projects_works() {
    as_commanded(&shipped_config::shipped("runit/run"));
}
