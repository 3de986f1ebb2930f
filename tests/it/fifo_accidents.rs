//! A FIFO is a file in somebody's directory: filled, removed and replaced, it still is one.

use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

use nix::sys::signal::Signal;

use crate::support::{Load, LoadSpec, Server};

fn start() -> Server {
    Server::app().args(["--master", "--processes=2", "--threads=8"]).with_fifo().start()
}

fn is_fifo(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|file| file.file_type().is_fifo())
}

/// Writes `letter` until the FIFO takes no more, and tells how many it took.
fn fill(server: &Server, letter: u8) -> usize {
    let mut options = OpenOptions::new();
    options.write(true).custom_flags(nix::fcntl::OFlag::O_NONBLOCK.bits());
    let mut fifo = options.open(server.path("fifo")).unwrap();
    let mut taken = 0;
    loop {
        match fifo.write(&[letter; 4096]) {
            Ok(count) => taken += count,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return taken,
            Err(error) => panic!("the FIFO cannot be written: {error}"),
        }
    }
}

#[test]
fn a_full_fifo_loses_no_letter() {
    let server = start();
    let load = Load::start(server.target(), &LoadSpec::gets());
    server.signal(Signal::SIGSTOP);
    // 64 KiB in fifo(7); newlines mean nothing, but have to be read to get behind them.
    assert!(fill(&server, b'\n') >= 64 * 1024);
    let path = server.path("fifo");
    // Blocks until there is room.
    let writer = std::thread::spawn(move || fs::write(path, "rs").unwrap());
    server.signal(Signal::SIGCONT);
    writer.join().unwrap();
    server.wait_reloaded(2);
    server.wait_for_log("master fifo 's' received: Statistics");
    load.stop().assert_nothing_lost();
}

#[test]
fn a_flood_of_letters_does_not_keep_the_workers_from_serving() {
    let server = start();
    let load = Load::start(server.target(), &LoadSpec::gets());
    let path = server.path("fifo");
    let writer = std::thread::spawn(move || fs::write(path, "s".repeat(1000) + "r").unwrap());
    load.wait_for(50);
    writer.join().unwrap();
    server.wait_reloaded(2);
    let lines = server.log().lines();
    let answered = lines.iter().filter(|line| line.contains("workers total requests: ")).count();
    assert_eq!(answered, 1000, "each letter is carried out");
    load.stop().assert_nothing_lost();
}

#[test]
fn letters_written_during_a_reload_are_read_by_the_next_image() {
    let server = start();
    for generation in (2..=20).step_by(2) {
        // The second one comes somewhere between the first one's begin and its end, or after it.
        server.fifo("r");
        server.wait_reloaded(generation);
        server.fifo("r");
        server.wait_reloaded(generation + 1);
    }
}

#[test]
fn a_removed_fifo_is_made_anew() {
    let server = start();
    for reloads in 1..=3 {
        let mark = server.log().mark();
        fs::remove_file(server.path("fifo")).unwrap();
        server.wait_for_log_after(mark, "was removed by somebody: made anew");
        assert!(is_fifo(&server.path("fifo")));
        assert_eq!(fs::metadata(server.path("fifo")).unwrap().mode() & 0o7777, 0o600);
        server.fifo("r");
        server.wait_reloaded(reloads + 1);
    }
}

#[test]
fn a_renamed_fifo_is_made_anew() {
    let server = start();
    fs::rename(server.path("fifo"), server.path("elsewhere")).unwrap();
    server.wait_for_log("was removed by somebody: made anew");
    server.fifo("r");
    server.wait_reloaded(2);
}

#[test]
fn a_file_in_the_place_of_the_fifo_is_left_alone_until_it_is_gone() {
    let server = start();
    let precious = server.path("precious");
    fs::write(&precious, "precious\n").unwrap();
    fs::rename(&precious, server.path("fifo")).unwrap();
    server.wait_for_log("something that is not a FIFO is in the way");
    assert_eq!(fs::read_to_string(server.path("fifo")).unwrap(), "precious\n");
    // The other roads stay open, and do not change the file either.
    server.signal(Signal::SIGHUP);
    server.wait_reloaded(2);
    assert_eq!(fs::read_to_string(server.path("fifo")).unwrap(), "precious\n");
    fs::remove_file(server.path("fifo")).unwrap();
    server.wait_for_log("was removed by somebody: made anew");
    assert!(is_fifo(&server.path("fifo")));
    server.fifo("r");
    server.wait_reloaded(3);
}

#[test]
fn a_file_in_the_place_of_the_fifo_may_go_without_a_reload() {
    let server = start();
    fs::write(server.path("file"), "").unwrap();
    fs::rename(server.path("file"), server.path("fifo")).unwrap();
    server.wait_for_log("something that is not a FIFO is in the way");
    fs::remove_file(server.path("fifo")).unwrap();
    server.wait_for_log("was removed by somebody: made anew");
    assert!(is_fifo(&server.path("fifo")));
    server.fifo("r");
    server.wait_reloaded(2);
}
