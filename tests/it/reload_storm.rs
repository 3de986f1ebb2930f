//! A hundred reloads in a row: nothing is lost, nothing changes, nothing grows.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::MetadataExt;

use serde_json::{Value, json};

use crate::support::{Exchange, LIMIT, Load, LoadSpec, Server, Target, eventually, processes};

const RELOADS: u64 = 100;

#[test]
fn a_hundred_reloads_under_load_lose_no_request() {
    let server = Server::app()
        .args(["--master", "--processes=2", "--threads=8", "--disable-logging"])
        // Long enough for requests to arrive while the application loads.
        .settings(json!({ "load_ms": 30 }))
        .start();
    let load = Load::start(server.target(), &LoadSpec::all_kinds());
    load.wait_for(50);
    let begin: [fn(&Target) -> Exchange; 2] = [Exchange::stream, Exchange::upload];
    let mut spanning: Vec<Exchange> = Vec::new();
    for generation in 2..=RELOADS + 1 {
        // Each of these spans one whole reload, and the drain of its worker the next one.
        let fresh: Vec<_> = begin.iter().map(|begin| begin(server.target())).collect();
        for exchange in std::mem::replace(&mut spanning, fresh) {
            exchange.finish().unwrap_or_else(|failure| panic!("generation {generation}: {failure:?}"));
        }
        server.reload();
        server.wait_reloaded(generation);
    }
    for exchange in spanning {
        exchange.finish().unwrap();
    }
    load.stop().assert_nothing_lost();
    assert_eq!(server.get("/info").json()["reloads"], RELOADS);
}

/// What no reload may change.
#[derive(Debug, PartialEq)]
struct Constants {
    /// Inodes of the sockets that listen, as the kernel lists them.
    listeners: BTreeSet<String>,
    pidfile: (String, u64),
    fifo: u64,
    socket: u64,
    /// As the processes see them and as `/proc` shows them.
    environment: (Value, Vec<u8>),
    arguments: Value,
    directory: Value,
    /// By kind, of the master, the zygote and each worker.
    descriptors: Vec<BTreeMap<String, usize>>,
}

impl Constants {
    fn of(server: &Server) -> Self {
        let inode = |name: &str| fs::metadata(server.path(name)).map_or(0, |file| file.ino());
        let info = server.get("/info").json();
        let everybody = [server.pid(), server.zygote()];
        let everybody = everybody.into_iter().chain(server.workers().into_iter().map(|worker| worker.pid));
        Constants {
            listeners: listening_inodes(server),
            pidfile: (fs::read_to_string(server.path("pid")).unwrap_or_default(), inode("pid")),
            fifo: inode("fifo"),
            socket: inode("app.sock"),
            environment: (
                info["env"].clone(),
                fs::read(format!("/proc/{}/environ", server.pid())).unwrap_or_default(),
            ),
            arguments: info["argv"].clone(),
            directory: info["cwd"].clone(),
            descriptors: everybody.map(processes::descriptor_kinds).collect(),
        }
    }
}

/// Sockets in `/proc/net/tcp` and `/proc/net/unix` that listen where this server does.
fn listening_inodes(server: &Server) -> BTreeSet<String> {
    let Target::Tcp(address) = server.target() else { unreachable!("it listens on a port") };
    let port = format!(":{:04X}", address.port());
    let tcp = fs::read_to_string("/proc/net/tcp").unwrap();
    // proc_pid_net(5): sl, local address, remote address, state (0A: LISTEN), ..., inode.
    let listens = |fields: &Vec<&str>| fields[1].ends_with(&port) && fields[3] == "0A";
    let tcp = tcp.lines().map(|line| line.split_ascii_whitespace().collect()).filter(listens);
    let unix = fs::read_to_string("/proc/net/unix").unwrap();
    let path = server.path("app.sock").display().to_string();
    let unix = unix.lines().filter(|line| line.ends_with(&path) || line.ends_with(" app.sock"));
    let unix = unix.filter_map(|line| line.split_ascii_whitespace().nth(6));
    tcp.map(|fields| fields[9].to_owned()).chain(unix.map(str::to_owned)).collect()
}

#[test]
fn a_hundred_reloads_change_only_what_they_are_for() {
    let server = Server::app()
        .args(["--master", "--processes=2", "--pidfile=pid", "--http=app.sock", "--disable-logging"])
        .args(["--touch-reload=touched"])
        .with_fifo()
        .env("KEPT", "as it was: \u{e4} = %d")
        .start();
    eventually("the start has settled", LIMIT, || {
        (server.children().len() == 3 && processes::title(server.zygote()).contains("zygote")).then_some(())
    });
    let before = Constants::of(&server);
    assert_eq!(before.pidfile.0, format!("{}\n", server.pid()));
    assert!(before.listeners.len() == 1 && before.fifo != 0 && before.socket != 0, "{before:#?}");
    assert_eq!(before.environment.0["KEPT"], "as it was: \u{e4} = %d");
    let mut seen: BTreeSet<u32> = server.children().into_iter().collect();
    for generation in 2..=RELOADS + 1 {
        // By turns as operators do it: the FIFO and the signal have to survive, too.
        if generation % 2 == 0 {
            server.fifo("r")
        } else {
            server.signal(nix::sys::signal::Signal::SIGHUP)
        }
        server.wait_reloaded(generation);
        let fresh = eventually("zygote and workers are new, the old ones gone", LIMIT, || {
            let children = server.children();
            (children.len() == 3 && children.iter().all(|pid| !seen.contains(pid))).then_some(children)
        });
        seen.extend(fresh);
    }
    eventually("everything is as it was", LIMIT, || (Constants::of(&server) == before).then_some(()));
    let left = processes::list_all(|stat| stat.parent == server.pid());
    assert!(left.len() == 3 && left.iter().all(|stat| !stat.zombie), "{left:?}");
}
