//! A blocking HTTP/1.1 client that tells exactly how a request failed.

use std::fmt;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, recv};

/// Where a server listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// TCP address.
    Tcp(SocketAddr),
    /// Unix socket.
    Unix(PathBuf),
}

/// How a request failed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Failure {
    /// Nobody listens.
    Refused,
    /// The connection was reset.
    Reset,
    /// The connection was closed before the first byte of an answer.
    EofBeforeAnswer,
    /// The connection was closed within the answer.
    Truncated,
    /// No answer in time.
    Timeout,
    /// An answer, but an error of the server.
    ServerError(u16),
    /// Not an HTTP answer, or the wrong one.
    Malformed(String),
    /// Another I/O error.
    Io(String),
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            ErrorKind::ConnectionRefused | ErrorKind::NotFound => Failure::Refused,
            ErrorKind::ConnectionReset | ErrorKind::BrokenPipe | ErrorKind::ConnectionAborted => {
                Failure::Reset
            }
            ErrorKind::WouldBlock | ErrorKind::TimedOut => Failure::Timeout,
            ErrorKind::UnexpectedEof => Failure::Truncated,
            _ => Failure::Io(error.to_string()),
        }
    }
}

/// An answer, read to its end.
#[derive(Debug, Clone)]
pub struct Response {
    /// Status code.
    pub status: u16,
    /// Names in lower case, in the order received.
    pub headers: Vec<(String, String)>,
    /// Dechunked.
    pub body: Vec<u8>,
}

impl Response {
    /// The first header of that name (lower case).
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("not JSON ({error}): {}", self.text()))
    }

    /// True when the server will take no further request on this connection.
    pub fn closes(&self) -> bool {
        self.header("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"))
    }
}

enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Stream {
    fn both(&mut self) -> &mut dyn ReadWrite {
        match self {
            Stream::Tcp(stream) => stream,
            Stream::Unix(stream) => stream,
        }
    }

    fn raw_fd(&self) -> RawFd {
        match self {
            Stream::Tcp(stream) => stream.as_raw_fd(),
            Stream::Unix(stream) => stream.as_raw_fd(),
        }
    }

    fn set_timeout(&self, timeout: Duration) -> io::Result<()> {
        match self {
            Stream::Tcp(stream) => {
                stream.set_read_timeout(Some(timeout)).and_then(|()| stream.set_write_timeout(Some(timeout)))
            }
            Stream::Unix(stream) => {
                stream.set_read_timeout(Some(timeout)).and_then(|()| stream.set_write_timeout(Some(timeout)))
            }
        }
    }
}

trait ReadWrite: Read + Write {}
impl<T: Read + Write> ReadWrite for T {}

/// One connection.
pub struct Connection {
    stream: Stream,
    unread: Vec<u8>,
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "connection {}", self.stream.raw_fd())
    }
}

impl Connection {
    /// Connects; `timeout` is for each later read and write.
    pub fn open(target: &Target, timeout: Duration) -> Result<Self, Failure> {
        let stream = match target {
            Target::Tcp(address) => {
                let stream = TcpStream::connect_timeout(address, timeout)?;
                stream.set_nodelay(true)?;
                Stream::Tcp(stream)
            }
            Target::Unix(path) => Stream::Unix(UnixStream::connect(path)?),
        };
        stream.set_timeout(timeout)?;
        Ok(Connection { stream, unread: Vec::new() })
    }

    /// Changes how long each later read and write may take.
    pub fn set_timeout(&self, timeout: Duration) -> Result<(), Failure> {
        Ok(self.stream.set_timeout(timeout)?)
    }

    /// Sends bytes as they are.
    pub fn send(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        Ok(self.stream.both().write_all(bytes)?)
    }

    /// True when the server has closed this connection while it was idle.
    pub fn is_closed(&self) -> bool {
        let peek = recv(self.stream.raw_fd(), &mut [0], MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT);
        self.unread.is_empty() && !matches!(peek, Ok(1) | Err(Errno::EAGAIN))
    }

    /// Reads one answer. `bodiless`: the request was a HEAD.
    pub fn receive(&mut self, bodiless: bool) -> Result<Response, Failure> {
        loop {
            let (status, headers) = self.receive_head()?;
            let mut response = Response { status, headers, body: Vec::new() };
            if !matches!(status, 100..200) {
                if !(bodiless || matches!(status, 204 | 304)) {
                    response.body = self.receive_body(&response)?;
                }
                return Ok(response);
            }
        }
    }

    /// Reads one head only and tells its status: that of an interim answer, or of one whose body
    /// is still to come.
    pub fn receive_status(&mut self) -> Result<u16, Failure> {
        Ok(self.receive_head()?.0)
    }

    /// Reads one head only: an answer without its body, for [`Connection::receive_rest`].
    pub fn receive_begin(&mut self) -> Result<Response, Failure> {
        let (status, headers) = self.receive_head()?;
        Ok(Response { status, headers, body: Vec::new() })
    }

    /// Reads the body of an answer.
    pub fn receive_rest(&mut self, mut begun: Response) -> Result<Response, Failure> {
        begun.body = self.receive_body(&begun)?;
        Ok(begun)
    }

    /// Everything until the server closes.
    pub fn receive_to_end(&mut self) -> Result<Vec<u8>, Failure> {
        let mut rest = std::mem::take(&mut self.unread);
        self.stream.both().read_to_end(&mut rest)?;
        Ok(rest)
    }

    /// Everything until the connection ends, however it does.
    pub fn receive_until_cut(&mut self) -> Vec<u8> {
        while self.fill().is_ok_and(|count| count > 0) {}
        std::mem::take(&mut self.unread)
    }

    /// True when the server closes without sending anything more.
    pub fn ends(&mut self) -> bool {
        // A server that closes with unread input of ours resets the connection: closed, too.
        matches!(self.fill(), Ok(0) | Err(Failure::Reset)) && self.unread.is_empty()
    }

    fn receive_head(&mut self) -> Result<(u16, Vec<(String, String)>), Failure> {
        let end = loop {
            if let Some(at) = memchr::memmem::find(&self.unread, b"\r\n\r\n") {
                break at;
            }
            let began = !self.unread.is_empty();
            if self.fill()? == 0 {
                return Err(if began { Failure::Truncated } else { Failure::EofBeforeAnswer });
            }
        };
        let head: Vec<u8> = self.unread.drain(..end + 4).collect();
        let head = String::from_utf8_lossy(&head[..end]).into_owned();
        parse_head(&head).ok_or(Failure::Malformed(head))
    }

    /// Reads the body that belongs to a head.
    pub fn receive_body(&mut self, response: &Response) -> Result<Vec<u8>, Failure> {
        if response.header("transfer-encoding").is_some_and(|value| value.eq_ignore_ascii_case("chunked")) {
            return self.receive_chunks();
        }
        match response.header("content-length") {
            Some(length) => {
                let malformed = |_| Failure::Malformed(format!("content-length: {length}"));
                self.take(length.parse().map_err(malformed)?)
            }
            None => self.receive_to_end(),
        }
    }

    /// Reads a chunked body to its end, when its head was read before.
    pub fn receive_chunks(&mut self) -> Result<Vec<u8>, Failure> {
        let mut body = Vec::new();
        loop {
            let line = self.take_line()?;
            let digits = line.split(';').next().unwrap_or_default();
            let size = usize::from_str_radix(digits, 16).map_err(|_| Failure::Malformed(line.clone()))?;
            if size == 0 {
                while !self.take_line()?.is_empty() {}
                return Ok(body);
            }
            body.extend(self.take(size)?);
            self.take_line()?;
        }
    }

    /// Reads one chunk of a chunked body, when its head was read before; empty at the end.
    pub fn receive_chunk(&mut self) -> Result<Vec<u8>, Failure> {
        let line = self.take_line()?;
        let size = usize::from_str_radix(&line, 16).map_err(|_| Failure::Malformed(line))?;
        let chunk = self.take(size)?;
        self.take_line()?;
        Ok(chunk)
    }

    fn take_line(&mut self) -> Result<String, Failure> {
        loop {
            if let Some(at) = memchr::memmem::find(&self.unread, b"\r\n") {
                let line: Vec<u8> = self.unread.drain(..at + 2).collect();
                return Ok(String::from_utf8_lossy(&line[..at]).into_owned());
            }
            self.fill_or_truncated()?;
        }
    }

    fn take(&mut self, count: usize) -> Result<Vec<u8>, Failure> {
        while self.unread.len() < count {
            self.fill_or_truncated()?;
        }
        Ok(self.unread.drain(..count).collect())
    }

    fn fill_or_truncated(&mut self) -> Result<(), Failure> {
        if self.fill()? == 0 { Err(Failure::Truncated) } else { Ok(()) }
    }

    fn fill(&mut self) -> Result<usize, Failure> {
        let mut piece = [0; 16 * 1024];
        let count = loop {
            match self.stream.both().read(&mut piece) {
                // A process that was stopped and continued finds its timed reads interrupted.
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                result => break result?,
            }
        };
        self.unread.extend_from_slice(&piece[..count]);
        Ok(count)
    }
}

fn parse_head(head: &str) -> Option<(u16, Vec<(String, String)>)> {
    let mut lines = head.split("\r\n");
    let status = lines.next()?.strip_prefix("HTTP/1.")?.split(' ').nth(1)?.parse().ok()?;
    let header = |line: &str| {
        let (name, value) = line.split_once(':')?;
        Some((name.to_ascii_lowercase(), value.trim().to_owned()))
    };
    Some((status, lines.map(header).collect::<Option<_>>()?))
}

/// A request as bytes; with a body, if there is one.
pub fn request(method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let mut head = format!("{method} {path} HTTP/1.1\r\nHost: test\r\n");
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    if !body.is_empty() {
        head.push_str(&format!("Content-Length: {}\r\n", body.len()));
    }
    let mut bytes = (head + "\r\n").into_bytes();
    bytes.extend_from_slice(body);
    bytes
}

/// One GET on a connection of its own.
///
/// # Panics
/// When there is no answer.
pub fn get(target: &Target, path: &str) -> Response {
    let answer = Client::new(target, super::LIMIT).fresh("GET", path, &[], b"");
    answer.unwrap_or_else(|failure| panic!("GET {path} from {target:?}: {failure:?}"))
}

/// A client that keeps its connection, and opens another when the server closed it between two
/// requests.
pub struct Client {
    target: Target,
    timeout: Duration,
    connection: Option<Connection>,
}

impl Client {
    /// Connects with the first request.
    pub fn new(target: &Target, timeout: Duration) -> Self {
        Client { target: target.clone(), timeout, connection: None }
    }

    /// Sends a request on the kept connection. A close that arrived before the request was sent
    /// is no failure; one that comes afterwards is, whether or not the server saw the request.
    pub fn call(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Result<Response, Failure> {
        let kept = self.connection.take().filter(|connection| !connection.is_closed());
        let mut connection = match kept {
            Some(connection) => connection,
            None => Connection::open(&self.target, self.timeout)?,
        };
        connection.send(&request(method, path, headers, body))?;
        let response = connection.receive(method == "HEAD")?;
        if !response.closes() {
            self.connection = Some(connection);
        }
        Ok(response)
    }

    /// True when the server has closed the kept connection.
    pub fn is_closed(&self) -> bool {
        self.connection.as_ref().is_none_or(Connection::is_closed)
    }

    /// [`Client::call`] with GET.
    pub fn get(&mut self, path: &str) -> Result<Response, Failure> {
        self.call("GET", path, &[], b"")
    }

    /// One request on a connection of its own, which the server is asked to close.
    pub fn fresh(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Result<Response, Failure> {
        let mut connection = Connection::open(&self.target, self.timeout)?;
        let mut headers = headers.to_vec();
        headers.push(("Connection", "close"));
        connection.send(&request(method, path, &headers, body))?;
        connection.receive(method == "HEAD")
    }
}
