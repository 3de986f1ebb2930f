//! One connection of a client: requests as bytes, answers counted and thrown away.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use super::account::{Incident, Kind, Loss, What};
use crate::sys::fd;

/// Bytes read at once.
const PIECE: usize = 64 * 1024;
/// Longest head of an answer that is read; what is longer is no HTTP.
const MAX_HEAD: usize = 256 * 1024;

impl From<io::Error> for Loss {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            ErrorKind::ConnectionRefused => Loss::Refused,
            ErrorKind::ConnectionReset | ErrorKind::BrokenPipe | ErrorKind::ConnectionAborted => Loss::Reset,
            ErrorKind::WouldBlock | ErrorKind::TimedOut => Loss::TimedOut,
            _ => Loss::Io(error.to_string()),
        }
    }
}

/// An answer that has been read to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answer {
    /// Status code.
    pub status: u16,
    /// The server takes no further request on this connection.
    pub closes: bool,
}

/// A connection and what was read ahead on it.
#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
    /// When it was asked for.
    pub opened: Duration,
    /// The client's port.
    pub port: u16,
    unread: Vec<u8>,
    /// Pause after each read of a body, for a slow reader.
    pub reading_pause: Duration,
    /// The longest that a read has taken since this was set to zero.
    pub longest_read: Duration,
}

/// Where the end of a body is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Framing {
    Length(u64),
    Chunks,
    /// The end of the connection.
    Close,
}

impl Connection {
    /// Connects, and will wait as long for each read and write.
    ///
    /// # Errors
    /// How the request that it was for is lost.
    pub fn open(address: SocketAddr, patience: Duration, opened: Duration) -> Result<Self, Loss> {
        let stream = TcpStream::connect_timeout(&address, patience)?;
        stream.set_nodelay(true)?;
        let port = stream.local_addr()?.port();
        let connection = Connection {
            stream,
            opened,
            port,
            unread: Vec::new(),
            reading_pause: Duration::ZERO,
            longest_read: Duration::ZERO,
        };
        connection.set_patience(patience)?;
        Ok(connection)
    }

    /// Will wait as long for each read and write.
    ///
    /// # Errors
    /// None for a patience above zero.
    pub fn set_patience(&self, patience: Duration) -> Result<(), Loss> {
        self.stream.set_read_timeout(Some(patience))?;
        Ok(self.stream.set_write_timeout(Some(patience))?)
    }

    /// Something happened to this connection.
    pub fn incident(&self, kind: Kind, what: What, at: Duration) -> Incident {
        Incident { kind, what, at, opened: self.opened, port: self.port }
    }

    /// Sends bytes as they are.
    ///
    /// # Errors
    /// How the request is lost.
    pub fn send(&mut self, bytes: &[u8]) -> Result<(), Loss> {
        Ok(self.stream.write_all(bytes)?)
    }

    /// Waits for the server to say or end something, at most `patience`; true if it has.
    pub fn stirs(&self, patience: Duration) -> bool {
        !self.unread.is_empty() || fd::await_readable(self.stream.as_fd(), patience).unwrap_or(true)
    }

    /// Reads one answer to its end; interim ones are skipped.
    ///
    /// # Errors
    /// How the request is lost.
    pub fn receive(&mut self) -> Result<Answer, Loss> {
        loop {
            let (answer, framing) = self.receive_head()?;
            if matches!(answer.status, 100..200) && answer.status != 101 {
                continue;
            }
            match framing {
                _ if matches!(answer.status, 101 | 204 | 304) => {}
                Framing::Length(length) => self.skip(length)?,
                Framing::Chunks => self.skip_chunks()?,
                Framing::Close => {
                    while self.fill()? > 0 {
                        self.unread.clear()
                    }
                }
            }
            return Ok(answer);
        }
    }

    /// Reads exactly so many bytes that are no answer: those of an upgraded connection.
    ///
    /// # Errors
    /// How the exchange is lost.
    pub fn receive_bytes(&mut self, count: usize) -> Result<Vec<u8>, Loss> {
        while self.unread.len() < count {
            self.fill_within()?;
        }
        Ok(self.unread.drain(..count).collect())
    }

    fn receive_head(&mut self) -> Result<(Answer, Framing), Loss> {
        let end = loop {
            if let Some(at) = memchr::memmem::find(&self.unread, b"\r\n\r\n") {
                break at;
            }
            if self.unread.len() > MAX_HEAD {
                return Err(Loss::Malformed);
            }
            let begun = !self.unread.is_empty();
            if self.fill()? == 0 {
                return Err(if begun { Loss::Truncated } else { Loss::Closed });
            }
        };
        let head: Vec<u8> = self.unread.drain(..end + 4).collect();
        parse_head(&String::from_utf8_lossy(&head[..end])).ok_or(Loss::Malformed)
    }

    fn skip(&mut self, mut count: u64) -> Result<(), Loss> {
        loop {
            let here = count.min(self.unread.len() as u64);
            self.unread.drain(..here as usize);
            count -= here;
            if count == 0 {
                return Ok(());
            }
            self.fill_within()?;
            if !self.reading_pause.is_zero() {
                std::thread::sleep(self.reading_pause);
            }
        }
    }

    fn skip_chunks(&mut self) -> Result<(), Loss> {
        loop {
            let line = self.line()?;
            let digits = line.split(';').next().unwrap_or_default().trim();
            let size = u64::from_str_radix(digits, 16).map_err(|_| Loss::Malformed)?;
            if size == 0 {
                while !self.line()?.is_empty() {}
                return Ok(());
            }
            self.skip(size)?;
            if !self.line()?.is_empty() {
                return Err(Loss::Malformed);
            }
        }
    }

    fn line(&mut self) -> Result<String, Loss> {
        loop {
            if let Some(at) = memchr::memmem::find(&self.unread, b"\r\n") {
                let line: Vec<u8> = self.unread.drain(..at + 2).collect();
                return Ok(String::from_utf8_lossy(&line[..at]).into_owned());
            }
            self.fill_within()?;
        }
    }

    fn fill_within(&mut self) -> Result<(), Loss> {
        if self.fill()? == 0 { Err(Loss::Truncated) } else { Ok(()) }
    }

    fn fill(&mut self) -> Result<usize, Loss> {
        let mut piece = [0; PIECE];
        let begun = Instant::now();
        let count = loop {
            match self.stream.read(&mut piece) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                result => break result?,
            }
        };
        self.longest_read = self.longest_read.max(begun.elapsed());
        self.unread.extend_from_slice(&piece[..count]);
        Ok(count)
    }
}

fn parse_head(head: &str) -> Option<(Answer, Framing)> {
    let mut lines = head.split("\r\n");
    let (minor, rest) = lines.next()?.strip_prefix("HTTP/1.")?.split_once(' ')?;
    let status = rest.get(..3)?.parse().ok()?;
    let mut framing = Framing::Close;
    let mut closes = minor == "0";
    for line in lines {
        let (name, value) = line.split_once(':')?;
        let value = value.trim();
        if name.eq_ignore_ascii_case("content-length") && framing == Framing::Close {
            framing = Framing::Length(value.parse().ok()?);
        } else if name.eq_ignore_ascii_case("transfer-encoding") && value.eq_ignore_ascii_case("chunked") {
            framing = Framing::Chunks;
        } else if name.eq_ignore_ascii_case("connection") {
            let says = |word| value.split(',').any(|it| it.trim().eq_ignore_ascii_case(word));
            closes = says("close") || (closes && !says("keep-alive"));
        }
    }
    let bodiless = matches!(status, 100..200 | 204 | 304);
    closes |= framing == Framing::Close && !bodiless;
    Some((Answer { status, closes }, framing))
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::thread;

    use super::*;

    /// What becomes of an answer of these bytes, after which the server closes.
    fn received(bytes: &'static [u8]) -> Vec<Result<Answer, Loss>> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = thread::spawn(move || listener.accept().unwrap().0.write_all(bytes).unwrap());
        let patience = Duration::from_secs(20);
        let mut connection = Connection::open(address, patience, Duration::ZERO).unwrap();
        let mut all = Vec::new();
        while all.last().is_none_or(|last: &Result<Answer, Loss>| last.is_ok_and_open()) {
            all.push(connection.receive());
        }
        server.join().unwrap();
        all
    }

    trait Open {
        fn is_ok_and_open(&self) -> bool;
    }

    impl Open for Result<Answer, Loss> {
        fn is_ok_and_open(&self) -> bool {
            matches!(self, Ok(Answer { closes: false, .. }))
        }
    }

    fn answer(status: u16, closes: bool) -> Result<Answer, Loss> {
        Ok(Answer { status, closes })
    }

    #[test]
    fn answers_end_where_their_framing_says() {
        let two = received(
            b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc\
              HTTP/1.1 404 Not Found\r\nTransfer-Encoding: chunked\r\n\r\n2;x=y\r\nab\r\n0\r\nT: 1\r\n\r\n",
        );
        assert_eq!(two, [answer(200, false), answer(404, false), Err(Loss::Closed)]);
        let last = received(
            b"HTTP/1.1 204 No\r\n\r\nHTTP/1.1 200 OK\r\nConnection: Close\r\ncontent-length:0\r\n\r\n",
        );
        assert_eq!(last, [answer(204, false), answer(200, true)]);
        assert_eq!(received(b"HTTP/1.0 200 OK\r\n\r\nto the end"), [answer(200, true)]);
    }

    #[test]
    fn what_is_not_whole_is_lost() {
        for (bytes, loss) in [
            (&b""[..], Loss::Closed),
            (b"HTTP/1.1 200 OK\r\n", Loss::Truncated),
            (b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nab", Loss::Truncated),
            (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n", Loss::Truncated),
            (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n", Loss::Malformed),
            (b"SSH-2.0\r\n\r\n", Loss::Malformed),
        ] {
            assert_eq!(received(bytes), [Err(loss)], "{}", String::from_utf8_lossy(bytes));
        }
    }

    #[test]
    fn an_end_stirs_an_idle_connection() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let connection = Connection::open(address, Duration::from_secs(20), Duration::ZERO).unwrap();
        let (accepted, _) = listener.accept().unwrap();
        assert!(!connection.stirs(Duration::from_millis(1)));
        drop(accepted);
        assert!(connection.stirs(Duration::from_secs(20)));
    }
}
