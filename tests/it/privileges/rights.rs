//! What the user to be may not do is told before anything is opened or bound.

use std::os::unix::fs::chown;

use super::{NOBODY, is_root, open_to_all};
use crate::support::server::{Builder, set_mode};
use crate::support::{LIMIT, Server};

/// A server in a directory of root; `app.ini` has the line as its third.
fn with_line(line: &str) -> Builder {
    let ini = format!("[uwsgi]\nuid = nobody\n{line}\n");
    open_to_all().on_unix_socket("app.sock").file("app.ini", ini).args(["--ini=app.ini", "--pidfile=pid"])
}

/// The start fails with this, and nothing was made.
fn refused(builder: Builder, texts: &[&str]) -> Server {
    let mut server = builder.spawn();
    assert_eq!(server.wait_exit(LIMIT).code(), Some(1), "{texts:?}");
    let line = server.wait_for_log("cannot start: ");
    for text in texts {
        assert!(line.contains(text), "{text:?} is not in: {line}");
    }
    assert!(!server.path("pid").exists() && !server.path("app.sock").exists(), "{texts:?}");
    server
}

#[test]
fn files_that_are_made_after_the_drop() {
    if !is_root() {
        return;
    }
    for option in ["master-fifo", "pidfile2", "safe-pidfile", "safe-pidfile2", "logto2"] {
        let line = format!("{option} = closed/file");
        let server = refused(
            with_line(&line).file("closed/.keep", ""),
            &[option, "user nobody cannot ", "closed/file", "Permission denied", "(app.ini:3)"],
        );
        // With the directory given away it is fine.
        drop(server);
        let builder = with_line(&line).file("closed/.keep", "");
        chown(builder.path("closed"), Some(NOBODY), None).unwrap();
        let server = builder.spawn();
        crate::support::eventually("it serves", LIMIT, || server.path("closed/file").exists().then_some(()));
    }
}

#[test]
fn a_fifo_of_somebody_else_and_other_things_in_the_way() {
    if !is_root() {
        return;
    }
    let builder = with_line("master-fifo = fifo");
    nix::unistd::mkfifo(&builder.path("fifo"), nix::sys::stat::Mode::from_bits_truncate(0o666)).unwrap();
    refused(builder, &["master-fifo: ", "belongs to uid 0, not to user nobody", "(app.ini:3)"]);
    refused(with_line("master-fifo = f").file("f", ""), &["not a FIFO is in the way", "(app.ini:3)"]);
    refused(with_line("safe-pidfile = d").file("d/.keep", ""), &["is not a regular file", "(app.ini:3)"]);
}

#[test]
fn directories_that_have_to_be_entered() {
    if !is_root() {
        return;
    }
    let builder = with_line("chdir = closed").file("closed/.keep", "");
    set_mode(&builder.path("closed"), 0o700);
    refused(builder, &["chdir: cannot enter ", "closed", "Permission denied", "(app.ini:3)"]);
    let builder = with_line("chdir = closed").file("closed/.keep", "").directory_mode(0o700);
    refused(builder, &["user nobody cannot enter ", "where the server is started and each reload starts it"]);
}

#[test]
fn what_each_generation_reads_and_executes() {
    if !is_root() {
        return;
    }
    let builder = with_line("");
    set_mode(&builder.path("app.ini"), 0o600);
    refused(builder, &["each generation reads anew as user nobody", "app.ini", "Permission denied"]);
    let builder = with_line("binary-path = closed").file("closed", "");
    refused(builder, &["binary-path: user nobody cannot execute ", "closed", "(app.ini:3)"]);
}

#[test]
fn directories_of_sockets_as_the_user_that_binds_them() {
    if !is_root() {
        return;
    }
    let launcher = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"];
    let builder = with_line("http = closed/app.sock").file("closed/.keep", "").directory_mode(0o777);
    let texts = ["cannot bind closed/app.sock: user nobody cannot make ", "closed/app.sock", "(app.ini:3)"];
    refused(builder.through(launcher), &texts);
    // Root makes them anywhere.
    with_line("http = closed/app.sock").file("closed/.keep", "").start();
}

#[test]
fn a_check_of_the_configuration_finds_the_same() {
    if !is_root() {
        return;
    }
    let builder = with_line("master-fifo = closed/fifo\npidfile2 = closed/pid").file("closed/.keep", "");
    let mut server = builder.arg("--check-config").spawn();
    assert_eq!(server.wait_exit(LIMIT).code(), Some(1));
    server.wait_for_log("app.ini:3: error: master-fifo: user nobody cannot make ");
    server.wait_for_log("app.ini:4: error: pidfile2: user nobody cannot make ");
}
