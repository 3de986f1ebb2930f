//! How many connections wait to be accepted, or will: what the kernel says of listening sockets.
//!
//! Of TCP it tells whoever has the socket (tcp(7), `TCP_INFO`); of others' sockets, and of Unix sockets in any
//! case, through sock_diag(7), for which no right is needed. That looks at the network namespace of the
//! caller, and a filter of address families (`RestrictAddressFamilies` of systemd without `AF_NETLINK`) forbids it.
#![allow(unsafe_code)]

use std::io;
use std::mem;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket};

use super::{cvt, retry};

/// The queue of a listening socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Queue {
    /// Connections that wait to be accepted.
    pub waiting: u32,
    /// How many may wait. The kernel lets one more in before it turns clients away.
    pub limit: u32,
}

/// A listening socket of any process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Listening {
    /// Its inode.
    pub inode: u64,
    /// Its queue.
    pub queue: Queue,
}

/// A connection that a listening socket has not passed on: the client takes itself for connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct HalfOpen([u8; SOCKET_ID]);

/// States of such a connection: the one that is told, and the one that it has in the kernel (`TCP_SYN_RECV`,
/// `TCP_NEW_SYN_RECV`).
const SYN_RECV: u8 = 3;
const NEW_SYN_RECV: u8 = 12;
/// State of a socket that listens, the same number for TCP and Unix sockets (`TCP_LISTEN`).
const LISTEN: u8 = 10;
/// linux/sock_diag.h
const SOCK_DIAG_BY_FAMILY: u16 = 20;
/// linux/unix_diag.h: tell the length of the queue; the attribute that does.
const UDIAG_SHOW_RQLEN: u32 = 0x10;
const UNIX_DIAG_RQLEN: u16 = 4;
/// Bytes of `struct nlmsghdr`, and of the answer's fixed part: `unix_diag_msg`, `inet_diag_msg`.
const HEADER: usize = 16;
const UNIX_ANSWER: usize = 16;
const INET_ANSWER: usize = 72;
/// Bytes of a `struct inet_diag_sockid`.
const SOCKET_ID: usize = 48;
/// Room for what one read returns: the kernel cuts a long list into pieces of up to 32 KiB (netlink(7)).
const ROOM: usize = 32 * 1024;

/// The queue of a TCP socket of this process. One system call that never waits.
///
/// # Errors
/// `InvalidInput` for a socket that does not listen; those of `getsockopt(2)` for one that is not TCP.
pub fn tcp_queue(fd: BorrowedFd<'_>) -> io::Result<Queue> {
    // SAFETY: all zeroes is a valid tcp_info: it is made of integers.
    let mut info: libc::tcp_info = unsafe { mem::zeroed() };
    let mut length = size_of::<libc::tcp_info>() as libc::socklen_t;
    // SAFETY: the buffer has the length stated and lives through the call.
    cvt(unsafe {
        let buffer = (&raw mut info).cast();
        libc::getsockopt(fd.as_raw_fd(), libc::IPPROTO_TCP, libc::TCP_INFO, buffer, &raw mut length)
    })?;
    if info.tcpi_state != LISTEN {
        return Err(does_not_listen());
    }
    // Of a listening socket these two words mean its queue (tcp_get_info in the kernel).
    Ok(Queue { waiting: info.tcpi_unacked, limit: info.tcpi_sacked })
}

/// The queue of the Unix socket with this inode, whosever it is. Never waits.
///
/// # Errors
/// `NotFound` when there is no such socket in this network namespace, or the kernel cannot tell of Unix
/// sockets; `InvalidInput` for one that does not listen.
pub fn unix_queue(inode: u64) -> io::Result<Queue> {
    let number = u32::try_from(inode).map_err(|_| io::Error::from(io::ErrorKind::NotFound))?;
    let mut request = vec![AddressFamily::Unix as u8, 0, 0, 0];
    let any_cookie = u32::MAX;
    for word in [u32::MAX, number, UDIAG_SHOW_RQLEN, any_cookie, any_cookie] {
        request.extend_from_slice(&word.to_ne_bytes());
    }
    let mut found = None;
    ask(&request, false, |answer| found = Some(unix_answer(answer)))?;
    found.unwrap_or_else(|| Err(io::ErrorKind::NotFound.into()))
}

/// All TCP sockets that listen in this network namespace. Never waits.
///
/// # Errors
/// When the kernel cannot tell of them.
pub fn tcp_listening() -> io::Result<Vec<Listening>> {
    let mut found = Vec::new();
    for family in [AddressFamily::Inet, AddressFamily::Inet6] {
        ask(&tcp_request(family, &[LISTEN]), true, |answer| found.extend(inet_answer(answer)))?;
    }
    Ok(found)
}

/// The half-open connections to `address`, as far as its family and port tell them from others in this
/// network namespace. Never waits.
///
/// # Errors
/// When the kernel cannot tell of them.
pub fn tcp_half_open(address: SocketAddr) -> io::Result<Vec<HalfOpen>> {
    let family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let mut found = Vec::new();
    let request = tcp_request(family, &[SYN_RECV, NEW_SYN_RECV]);
    ask(&request, true, |answer| {
        let socket = answer.get(4..).and_then(|rest| rest.first_chunk());
        // A socket's id begins with its own port, as it is on the wire.
        found.extend(socket.filter(|id| id[..2] == address.port().to_be_bytes()).copied().map(HalfOpen));
    })?;
    Ok(found)
}

/// Asks for all TCP sockets in one of these states.
fn tcp_request(family: AddressFamily, states: &[u8]) -> Vec<u8> {
    let states = states.iter().fold(0_u32, |all, state| all | 1 << state);
    let mut request = vec![family as u8, libc::IPPROTO_TCP as u8, 0, 0];
    request.extend_from_slice(&states.to_ne_bytes());
    request.extend_from_slice(&[0; SOCKET_ID]);
    request
}

fn does_not_listen() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, "the socket does not listen")
}

/// Sends one question and hands each answer, without its header, to `take`.
fn ask(request: &[u8], list: bool, mut take: impl FnMut(&[u8])) -> io::Result<()> {
    let netlink = open()?;
    let flags = libc::NLM_F_REQUEST | if list { libc::NLM_F_DUMP } else { 0 };
    let mut packet = Vec::with_capacity(HEADER + request.len());
    packet.extend_from_slice(&((HEADER + request.len()) as u32).to_ne_bytes());
    packet.extend_from_slice(&SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    packet.extend_from_slice(&(flags as u16).to_ne_bytes());
    packet.extend_from_slice(&[0; 8]);
    packet.extend_from_slice(request);
    // The answer, or the first piece of it, is there when this returns: the kernel makes it in the call.
    retry(|| Ok(send(netlink.as_raw_fd(), &packet, MsgFlags::empty())?))?;
    let mut buffer = vec![0; ROOM];
    loop {
        let length = retry(|| Ok(recv(netlink.as_raw_fd(), &mut buffer, MsgFlags::empty())?))?;
        if !each_message(&buffer[..length], &mut take)? || !list {
            return Ok(());
        }
    }
}

fn open() -> io::Result<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    Ok(socket(AddressFamily::Netlink, SockType::Datagram, flags, SockProtocol::NetlinkSockDiag)?)
}

/// Hands the messages of one packet to `take`. False at the end of the list.
fn each_message(mut packet: &[u8], take: &mut impl FnMut(&[u8])) -> io::Result<bool> {
    while let (Some(length), Some(kind)) = (word(packet, 0), half_word(packet, 4)) {
        let length = (length as usize).clamp(HEADER, packet.len());
        let payload = &packet[HEADER..length];
        match libc::c_int::from(kind) {
            libc::NLMSG_DONE => return Ok(false),
            libc::NLMSG_ERROR => {
                let errno = word(payload, 0).map_or(libc::EIO, |it| it.cast_signed().wrapping_neg());
                return Err(io::Error::from_raw_os_error(errno));
            }
            _ => take(payload),
        }
        packet = packet.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(true)
}

fn unix_answer(answer: &[u8]) -> io::Result<Queue> {
    if answer.get(2) != Some(&LISTEN) {
        return Err(does_not_listen());
    }
    let mut attributes = answer.get(UNIX_ANSWER..).unwrap_or_default();
    while let (Some(length), Some(kind)) = (half_word(attributes, 0), half_word(attributes, 2)) {
        if kind == UNIX_DIAG_RQLEN
            && let (Some(waiting), Some(limit)) = (word(attributes, 4), word(attributes, 8))
        {
            return Ok(Queue { waiting, limit });
        }
        let length = usize::from(length).max(4).next_multiple_of(4);
        attributes = attributes.get(length..).unwrap_or_default();
    }
    Err(io::Error::new(io::ErrorKind::InvalidData, "the kernel does not tell the length of the queue"))
}

fn inet_answer(answer: &[u8]) -> Option<Listening> {
    // After family, state and two counters: who it is, when its timer ends, rqueue, wqueue, owner, inode.
    const RQUEUE: usize = 4 + SOCKET_ID + 4;
    if answer.len() < INET_ANSWER || answer[1] != LISTEN {
        return None;
    }
    let queue = Queue { waiting: word(answer, RQUEUE)?, limit: word(answer, RQUEUE + 4)? };
    Some(Listening { inode: u64::from(word(answer, RQUEUE + 12)?), queue })
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn half_word(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}
