//! Watching a descriptor that many processes watch, so that news wakes one of them and not all.
//!
//! `EPOLLEXCLUSIVE` of epoll_ctl(2) does that, between epoll instances whose owners sleep in `epoll_wait`.
//! The reactor has no way to ask for it, and an epoll instance inside of the reactor's does not help: the
//! kernel then wakes all owners again (`ep_poll_callback` passes an exclusive wake on unless somebody sleeps on
//! that very instance). So the reactor's own entry is replaced by one with the flag, and the same token.
//! `/proc/self/fdinfo` (proc(5)) tells which instance that is and what the token is.
#![allow(unsafe_code)]

use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::task::{Context, Poll, Waker};

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::{cvt, fd, watch};

/// A descriptor under the reactor of this thread, for reading; news wakes one of those that watch it.
///
/// Where the kernel or `/proc` does not allow that, all are woken, as by [`watch::readable`].
#[derive(Debug)]
pub struct Exclusive {
    watched: AsyncFd<OwnedFd>,
    entry: Option<Entry>,
}

/// An entry of an epoll instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Entry {
    epoll: RawFd,
    /// What the owner of the instance knows the descriptor by.
    token: u64,
}

impl Exclusive {
    /// Registers a descriptor.
    ///
    /// # Errors
    /// As [`watch::readable`].
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn new(fd: OwnedFd) -> io::Result<Self> {
        let watched = watch::readable(fd)?;
        let raw = watched.as_raw_fd();
        let entry = entry_of(raw).filter(|entry| {
            let alone = entry.remove(raw).and_then(|()| entry.add(raw, libc::EPOLLEXCLUSIVE));
            if alone.is_err() {
                // As the reactor had it. Were this to fail, the one before would not have worked.
                let _ = entry.add(raw, libc::EPOLLRDHUP);
            }
            alone.is_ok()
        });
        Ok(Exclusive { watched, entry })
    }

    /// The bare descriptor.
    pub fn into_inner(self) -> OwnedFd {
        self.watched.into_inner()
    }

    /// True when news really wakes one only.
    pub fn is_exclusive(&self) -> bool {
        self.entry.is_some()
    }

    /// Hears of nothing more until [`Exclusive::join`].
    ///
    /// # Errors
    /// When the descriptor is not watched any more, because somebody has closed it.
    pub fn withdraw(&self) -> io::Result<()> {
        self.entry.map_or(Ok(()), |entry| entry.remove(self.as_raw_fd()))
    }

    /// Watches again. What is there to be read already counts as news.
    ///
    /// # Errors
    /// When the kernel has no room for it.
    pub fn join(&self) -> io::Result<()> {
        self.entry.map_or(Ok(()), |entry| entry.add(self.as_raw_fd(), libc::EPOLLEXCLUSIVE))
    }

    /// Ready when there has been news since [`Exclusive::forget`].
    pub fn poll_heard(&self, cx: &mut Context<'_>) -> Poll<()> {
        // An error is that of a runtime that ends, and this task with it.
        self.watched.poll_read_ready(cx).map(drop)
    }

    /// Whether there has been, as far as the reactor knows by now. Touches nobody's waker.
    pub fn heard(&self) -> bool {
        self.watched.try_io(Interest::READABLE, |_| Ok(())).is_ok()
    }

    /// Waits for other news. Between the look that found nothing and this, news could be lost only if the
    /// reactor ran, and it runs on this thread.
    pub fn forget(&self) {
        if let Poll::Ready(Ok(mut guard)) =
            self.watched.poll_read_ready(&mut Context::from_waker(Waker::noop()))
        {
            guard.clear_ready();
        }
    }

    /// Asks the kernel whether there is something to be read.
    pub fn is_readable(&self) -> bool {
        fd::await_readable(self.as_fd(), std::time::Duration::ZERO).unwrap_or(false)
    }
}

impl AsFd for Exclusive {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.watched.get_ref().as_fd()
    }
}

impl AsRawFd for Exclusive {
    fn as_raw_fd(&self) -> RawFd {
        self.watched.get_ref().as_raw_fd()
    }
}

impl Entry {
    fn add(self, fd: RawFd, flag: libc::c_int) -> io::Result<()> {
        // Edge by edge, as the reactor expects.
        let events = (libc::EPOLLIN | libc::EPOLLET | flag) as u32;
        let mut event = libc::epoll_event { events, u64: self.token };
        // SAFETY: the event lives through the call. The token is the one that the owner of the instance gave
        // to this descriptor, which stays registered with it: see `Exclusive::new`.
        cvt(unsafe { libc::epoll_ctl(self.epoll, libc::EPOLL_CTL_ADD, fd, &raw mut event) }).map(drop)
    }

    fn remove(self, fd: RawFd) -> io::Result<()> {
        // SAFETY: removing takes no event (epoll_ctl(2)).
        cvt(unsafe { libc::epoll_ctl(self.epoll, libc::EPOLL_CTL_DEL, fd, std::ptr::null_mut()) }).map(drop)
    }
}

/// The entry of `watched` in the one epoll instance of this process that has it. `None` when there are
/// several, of which it cannot be told whose they are.
fn entry_of(watched: RawFd) -> Option<Entry> {
    let mut found: Option<Entry> = None;
    for epoll in fd::open_fds().ok()? {
        let is_epoll = fs::read_link(format!("/proc/self/fd/{epoll}"))
            .is_ok_and(|target| target.as_os_str() == "anon_inode:[eventpoll]");
        if !is_epoll {
            continue;
        }
        let info = fs::read_to_string(format!("/proc/self/fdinfo/{epoll}")).ok()?;
        let Some(token) = token_of(&info, watched) else { continue };
        match found {
            // The reactor has its instance under two numbers.
            Some(other) if other.token == token => {}
            Some(_) => return None,
            None => found = Some(Entry { epoll, token }),
        }
    }
    found
}

/// The `data` of a line such as `tfd:        7 events: 80002019 data:     55d0c8e2d380  pos:0 ino:1 sdev:9`.
fn token_of(info: &str, watched: RawFd) -> Option<u64> {
    info.lines().find_map(|line| {
        let mut words = line.split_ascii_whitespace();
        let mut after = |name: &str| words.find(|word| *word == name).and_then(|_| words.next());
        (after("tfd:")?.parse() == Ok(watched)).then_some(())?;
        u64::from_str_radix(after("data:")?, 16).ok()
    })
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::net::{TcpListener, TcpStream};
    use std::time::Duration;

    use super::*;

    fn with_reactor(test: impl AsyncFnOnce()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(test());
    }

    fn listener() -> (Exclusive, std::net::SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("bound");
        (Exclusive::new(listener.into()).expect("registered"), address)
    }

    #[test]
    fn the_entry_of_a_descriptor_is_read() {
        let info = "pos:\t0\nflags:\t02\ntfd:        3 events:       19 data:               63  pos:0 ino:1 sdev:9\n\
                    tfd:       17 events: 80002019 data:     55d0c8e2d380  pos:0 ino:1 sdev:9\n";
        assert_eq!(token_of(info, 17), Some(0x55d0_c8e2_d380));
        assert_eq!((token_of(info, 3), token_of(info, 7)), (Some(0x63), None));
    }

    #[test]
    fn news_reaches_the_task_through_the_replaced_entry() {
        with_reactor(async || {
            let (listener, address) = listener();
            assert!(listener.is_exclusive(), "this kernel has EPOLLEXCLUSIVE and /proc");
            let _client = TcpStream::connect(address).expect("it listens");
            poll_fn(|cx| listener.poll_heard(cx)).await;
            assert!(listener.heard() && listener.is_readable());
            listener.forget();
            assert!(!listener.heard());
        });
    }

    #[test]
    fn who_has_withdrawn_hears_nothing_until_it_joins() {
        with_reactor(async || {
            let (listener, address) = listener();
            listener.withdraw().expect("it was watched");
            let _client = TcpStream::connect(address).expect("it listens");
            let heard = poll_fn(|cx| listener.poll_heard(cx));
            assert!(tokio::time::timeout(Duration::from_millis(50), heard).await.is_err());
            assert!(listener.is_readable());
            listener.join().expect("room");
            poll_fn(|cx| listener.poll_heard(cx)).await;
        });
    }
}
