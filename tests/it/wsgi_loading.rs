//! Which application a request is for, and how applications are found.

use crate::support::server::Builder;
use crate::support::wsgi::app;
use crate::support::{LIMIT, Server};

/// An application that tells its name and the two parts of the path.
fn named(name: &str) -> String {
    format!(
        "def application(environ, start_response):\n    start_response('200 OK', [])\n    \
         return [f\"{name} {{environ['SCRIPT_NAME']}} {{environ['PATH_INFO']}}\".encode('latin-1')]\n"
    )
}

fn mounted() -> Builder {
    Server::builtin()
        .file("root.py", named("root"))
        .file("a.py", named("a"))
        .file("ab.py", named("ab"))
        .file("cafe.py", named("cafe"))
        .args(["--mount=/a=a.py", "--mount=/a/b=ab.py", "--mount=/café=cafe.py"])
}

#[track_caller]
fn assert_tells(server: &Server, path: &str, expected: &[u8]) {
    let answer = server.get(path);
    assert_eq!((answer.status, &answer.body[..]), (200, expected), "{path}");
}

#[test]
fn the_longest_mount_point_that_fits_serves() {
    let server = mounted().arg("--wsgi-file=root.py").start();
    for (path, expected) in [
        ("/", "root  /"),
        ("/ab", "root  /ab"),
        ("/a", "a /a "),
        ("/a/", "a /a /"),
        ("/a/x?y", "a /a /x"),
        ("/a/bc", "a /a /bc"),
        ("/a/b", "ab /a/b "),
        ("/a/b/c", "ab /a/b /c"),
        ("/%61/%62/%63", "ab /a/b /c"),
        ("/a%2Fb/c", "ab /a/b /c"),
        ("/caf%C3%A9/x", "cafe /café /x"),
        ("//a", "root  //a"),
    ] {
        assert_tells(&server, path, expected.as_bytes());
    }
    assert_tells(&server, "/caf%E9", b"root  /caf\xe9");
}

#[test]
fn without_a_default_application_other_paths_are_not_found() {
    for server in [mounted().start(), mounted().args(["--wsgi-file=root.py", "--no-default-app"]).start()] {
        for path in ["/", "/x", "/ab"] {
            assert_eq!(server.get(path).status, 404, "{path}");
        }
        assert_tells(&server, "/a/x", b"a /a /x");
        // Nothing of a request that nobody wants stays behind.
        let mut client = server.client();
        let body = vec![b'x'; 2 * 1024 * 1024];
        assert_eq!(client.call("POST", "/x", &[], &body).unwrap().status, 404);
        assert_eq!(client.get("/a/x").unwrap().status, 200);
    }
}

#[test]
fn the_root_can_be_a_mount_point() {
    let server = mounted().args(["--mount=/=root.py", "--no-default-app"]).start();
    assert_tells(&server, "/x", b"root  /x");
    assert_tells(&server, "/a/x", b"a /a /x");
}

#[test]
fn applications_are_found_by_every_name() {
    let package = "def make():\n    return application\n".to_owned()
        + &named("module")
        + "class Views:\n    view = staticmethod(application)\nother = application\n";
    for arguments in [
        &["--module=package.mod"][..],
        &["--module=package.mod:application"],
        &["--wsgi=package.mod:make()"],
        &["-w", "package.mod:other"],
        &["--module=package.mod", "--callable=make()"],
        &["--wsgi-file=package/mod.py"],
        &["--file=package/mod.py", "--callable=other"],
        &["--pythonpath=package", "--module=mod"],
        &["--eval=from package.mod import application"],
        &["--mount=/=package.mod:other"],
    ] {
        let server = Server::builtin()
            .file("package/__init__.py", "")
            .file("package/mod.py", &package)
            .args(arguments.iter().copied())
            .start();
        assert_tells(&server, "/x", b"module  /x");
    }
}

#[test]
fn a_module_may_bring_its_own_mount_points() {
    let module = named("one")
        + "one = application\n"
        + &named("two")
        + "applications = {'': one, '/two/': 'application', '/two/one': one}\n";
    let server = Server::builtin().file("site_of_two.py", module).arg("--module=site_of_two").start();
    assert_tells(&server, "/x", b"one  /x");
    assert_tells(&server, "/two/x", b"two /two /x");
    assert_tells(&server, "/two/one/x", b"one /two/one /x");
}

#[test]
fn an_application_that_is_not_there_is_explained() {
    for (source, arguments, explained) in [
        ("app = print\n", &["--wsgi-file=app.py"][..], "has no \"application\"; it has \"app\""),
        ("application = 5\n", &["--wsgi-file=app.py"], "is not callable but a int"),
        ("import missing_module\n", &["--wsgi-file=app.py"], "No module named 'missing_module'"),
        ("def broken(:\n", &["--wsgi-file=app.py"], "SyntaxError"),
        ("", &["--wsgi-file=elsewhere.py"], "there is no file "),
        ("", &["--module=elsewhere"], "No module named 'elsewhere'"),
        ("raise SystemExit(5)\n", &["--wsgi-file=app.py"], "SystemExit: 5"),
    ] {
        let mut server = Server::builtin().file("app.py", source).args(arguments.iter().copied()).spawn();
        server.wait_for_log(explained);
        assert!(!server.wait_exit(LIMIT).success(), "{arguments:?}");
    }
}

#[test]
fn the_environment_is_read_anew_where_the_operator_says_so() {
    let source = r#"
def application(environ, start_response):
    return answer(start_response, [os.environ.get("CHANGED"), os.environ.get("GIVEN")])
"#;
    let start = |arguments: &[&str]| {
        app(source)
            .env("GIVEN", "1")
            .file("changes.py", "import os\nos.putenv('CHANGED', 'yes')\nos.unsetenv('GIVEN')\n")
            .arg("--import=changes")
            .args(arguments.iter().copied())
            .start()
    };
    assert_eq!(start(&[]).get("/").text(), "[None, '1']");
    assert_eq!(start(&["--reload-os-env"]).get("/").text(), "['yes', None]");
}
