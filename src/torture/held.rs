//! What `/proc` tells of the server under load: its processes, and whose connections a worker holds.

use std::collections::BTreeSet;
use std::fs;
use std::io;

use crate::sys::process::Pid;

/// Children of a process, dead ones left out.
pub fn children(parent: Pid) -> Vec<Pid> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok().map(Pid::from_raw));
    pids.filter(|pid| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        matches!(state_and_parent(&stat), Some((state, of)) if of == parent && !matches!(state, 'Z' | 'X'))
    })
    .collect()
}

/// True when every thread of a process has stopped, or it is gone.
pub fn is_stopped(pid: Pid) -> bool {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    threads
        .map(|thread| fs::read_to_string(thread.path().join("stat")).unwrap_or_default())
        .all(|stat| state_and_parent(&stat).is_none_or(|(state, _)| matches!(state, 'T' | 't' | 'Z' | 'X')))
}

/// The third and fourth field of `/proc/PID/stat`; the second, the name, may contain anything.
fn state_and_parent(stat: &str) -> Option<(char, Pid)> {
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace();
    let state = fields.next()?.chars().next()?;
    Some((state, Pid::from_raw(fields.next()?.parse().ok()?)))
}

/// The clients' ports of the connections to `server_port` that a process has open.
///
/// # Errors
/// When it is gone, or not for this user to see.
pub fn client_ports(pid: Pid, server_port: u16) -> io::Result<BTreeSet<u16>> {
    let mut inodes = BTreeSet::new();
    for entry in fs::read_dir(format!("/proc/{pid}/fd"))? {
        let target = fs::read_link(entry?.path()).unwrap_or_default();
        let inode = target.to_str().and_then(|it| it.strip_prefix("socket:[")?.strip_suffix(']'));
        inodes.extend(inode.and_then(|it| it.parse::<u64>().ok()));
    }
    let table = fs::read_to_string(format!("/proc/{pid}/net/tcp"))?;
    Ok(table.lines().filter_map(|line| remote_port(line, server_port, &inodes)).collect())
}

/// A line of `/proc/net/tcp`: number, local and remote address, state, queues, timer, retransmissions, user,
/// time-out, inode.
fn remote_port(line: &str, server_port: u16, inodes: &BTreeSet<u64>) -> Option<u16> {
    let fields: Vec<&str> = line.split_ascii_whitespace().collect();
    let port = |field: &str| u16::from_str_radix(field.rsplit_once(':')?.1, 16).ok();
    let inode = fields.get(9)?.parse().ok()?;
    let ours = port(fields.get(1)?)? == server_port && inodes.contains(&inode);
    port(fields.get(2)?).filter(|remote| ours && *remote != 0)
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;
    use crate::sys::process::{parent, this};

    #[test]
    fn a_process_holds_the_connections_it_has_accepted() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let client = TcpStream::connect(("127.0.0.1", port)).unwrap();
        let queued = TcpStream::connect(("127.0.0.1", port)).unwrap();
        let accepted = listener.accept().unwrap();
        let client_port = client.local_addr().unwrap().port();
        assert_eq!(client_ports(this(), port).unwrap(), [client_port].into());
        drop((accepted, queued));
        assert_eq!(client_ports(this(), port).unwrap(), BTreeSet::new());
    }

    #[test]
    fn parents_and_states_are_those_of_the_kernel() {
        assert!(children(parent()).contains(&this()));
        assert!(!is_stopped(this()));
        assert_eq!(state_and_parent("7 (a) b) T 3 1"), Some(('T', Pid::from_raw(3))));
    }
}
