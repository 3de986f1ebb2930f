//! The gate: judges the framing of HTTP/1 requests on the raw bytes of a connection. Pure.
//!
//! It is fed every byte before hyper sees it and says how many may pass. Whoever stands behind
//! may be more lenient, but never gets to see a message that could be read in two ways. In the
//! usual case, a whole head in one read, nothing is copied; a line cut by the end of a read waits
//! in a small buffer until the rest of it arrives.

use memchr::memchr;

use super::Refusal;
use super::head::{Framing, Head, split_field, strip_line_ending};

#[cfg(test)]
mod tests;

/// The answer to a body above `limit-post`.
pub(super) const BODY_TOO_LARGE: Refusal = Refusal::new(413, "request body too large");
/// Longest line that announces a chunk: the size and its extensions, which nobody uses.
const CHUNK_LINE: usize = 1024;

/// What a client may send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of a request head, line endings included (`buffer-size`).
    pub head: usize,
    /// Header fields of a request.
    pub fields: usize,
    /// Bytes of a request body; zero is no limit (`limit-post`).
    pub body: u64,
}

/// What [`Gate::advance`] found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verdict {
    /// This many of the bytes may be passed on.
    pub pass: usize,
    /// Everything after them is refused, for good.
    pub refusal: Option<Refusal>,
}

/// Where in a message the next byte belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// In a head, or before one.
    Head,
    /// In a body of known length.
    Body { left: u64 },
    /// In the line that announces a chunk.
    ChunkLine,
    /// In a chunk.
    Chunk { left: u64 },
    /// In the CRLF behind a chunk; true when the CR has been seen.
    ChunkEnd { carriage_return: bool },
    /// Behind the last chunk.
    Trailers,
    /// The connection no longer speaks HTTP.
    Tunnel,
    /// Refused; `in_body` when the head of the message had been accepted.
    Refused { refusal: Refusal, in_body: bool },
}

/// The validator of one connection.
#[derive(Debug)]
pub struct Gate {
    limits: Limits,
    state: State,
    head: Head,
    /// The beginning of a line whose end has not arrived.
    carry: Vec<u8>,
    /// Complete lines of this head (or trailer section), in bytes.
    section: usize,
    /// Body bytes announced by the chunks of this message.
    body: u64,
    heads: u64,
    last_request: bool,
}

impl Gate {
    /// A gate for a connection on which nothing was read yet.
    pub fn new(limits: Limits) -> Self {
        Gate {
            limits,
            state: State::Head,
            head: Head::default(),
            carry: Vec::new(),
            section: 0,
            body: 0,
            heads: 0,
            last_request: false,
        }
    }

    /// Judges the next bytes of the connection. After a refusal nothing passes any more.
    pub fn advance(&mut self, bytes: &[u8]) -> Verdict {
        let mut at = 0;
        while at < bytes.len() {
            let rest = &bytes[at..];
            let step = match self.state {
                State::Head => self.lines(rest, Self::head_line),
                State::Body { left } => Ok(self.skip(rest, left, State::Head, |left| State::Body { left })),
                State::ChunkLine => self.lines(rest, Self::chunk_line),
                State::Chunk { left } => {
                    let behind = State::ChunkEnd { carriage_return: false };
                    Ok(self.skip(rest, left, behind, |left| State::Chunk { left }))
                }
                State::ChunkEnd { carriage_return } => self.chunk_end(rest[0], carriage_return),
                State::Trailers => self.lines(rest, Self::trailer_line),
                State::Tunnel => Ok(rest.len()),
                State::Refused { refusal, .. } => Err(refusal),
            };
            match step {
                Ok(taken) => at += taken,
                Err(refusal) => {
                    let in_body = self.in_body();
                    self.state = State::Refused { refusal, in_body };
                    return Verdict { pass: at, refusal: Some(refusal) };
                }
            }
        }
        Verdict { pass: at, refusal: None }
    }

    /// Heads accepted so far.
    pub fn heads(&self) -> u64 {
        self.heads
    }

    /// Part of a head has arrived; empty lines in front of it do not count.
    pub fn in_head(&self) -> bool {
        self.state == State::Head && (self.head.started || !(self.carry.is_empty() || self.carry == b"\r"))
    }

    /// The head of a message was accepted and its body is not complete.
    pub fn in_body(&self) -> bool {
        !matches!(self.state, State::Head | State::Tunnel | State::Refused { in_body: false, .. })
    }

    /// The newest request said that it is the client's last on this connection.
    pub fn last_request(&self) -> bool {
        self.last_request
    }

    /// Lets everything pass from here on: the connection was upgraded to another protocol.
    pub fn open_tunnel(&mut self) {
        self.state = State::Tunnel;
    }

    /// Feeds complete lines to `judge` until it changes the state or the bytes end.
    fn lines(
        &mut self,
        bytes: &[u8],
        judge: fn(&mut Self, &[u8]) -> Result<(), Refusal>,
    ) -> Result<usize, Refusal> {
        let state = self.state;
        let heads = self.heads;
        let mut at = 0;
        while let Some(length) = memchr(b'\n', &bytes[at..]) {
            let line = &bytes[at..=at + length];
            at += line.len();
            self.section += line.len() + self.carry.len();
            self.check_section(0)?;
            if self.carry.is_empty() {
                judge(self, strip_line_ending(line)?)?;
            } else {
                let mut whole = std::mem::take(&mut self.carry);
                whole.extend_from_slice(line);
                judge(self, strip_line_ending(&whole)?)?;
            }
            // A head without a body is followed by another head: the state alone does not tell.
            if self.state != state || self.heads != heads || at == bytes.len() {
                return Ok(at);
            }
        }
        let fragment = &bytes[at..];
        self.check_section(self.carry.len() + fragment.len())?;
        self.carry.extend_from_slice(fragment);
        Ok(bytes.len())
    }

    /// Refuses a head, chunk line or trailer section that is longer than allowed, of which
    /// `fragment` bytes are not counted yet.
    fn check_section(&self, fragment: usize) -> Result<(), Refusal> {
        let length = self.section + fragment;
        match self.state {
            State::ChunkLine if length > CHUNK_LINE => Err(Refusal::bad("chunk extension too long")),
            State::ChunkLine => Ok(()),
            _ if length <= self.limits.head => Ok(()),
            State::Head if !self.head.started => Err(Refusal::new(414, "request line too long")),
            _ => Err(Refusal::new(431, "request head too large")),
        }
    }

    fn head_line(&mut self, line: &[u8]) -> Result<(), Refusal> {
        if !self.head.started {
            // RFC 9112 §2.2: empty lines before a request line are ignored.
            return if line.is_empty() { Ok(()) } else { self.head.request_line(line) };
        }
        if !line.is_empty() {
            return self.head.field(line, self.limits.fields);
        }
        self.state = match self.head.framing(self.limits.body)? {
            Framing::Length(0) => State::Head,
            Framing::Length(left) => State::Body { left },
            Framing::Chunked => State::ChunkLine,
        };
        self.last_request = self.head.last_request();
        self.head = Head::default();
        self.section = 0;
        self.body = 0;
        self.heads += 1;
        Ok(())
    }

    fn skip(&mut self, bytes: &[u8], left: u64, behind: State, within: fn(u64) -> State) -> usize {
        let taken = left.min(bytes.len() as u64);
        self.state = if taken == left { behind } else { within(left - taken) };
        taken as usize
    }

    /// `chunk-size [chunk-ext]`, RFC 9112 §7.1; no white space but in front of an extension.
    fn chunk_line(&mut self, line: &[u8]) -> Result<(), Refusal> {
        const MALFORMED: Refusal = Refusal::bad("malformed chunk size");
        let digits = line.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
        let extension = line[digits..].trim_ascii_start();
        let control = extension.iter().any(|&byte| byte < 0x20 && byte != b'\t' || byte == 0x7f);
        let extension_fits = line[digits..].is_empty() || extension.first() == Some(&b';');
        if digits == 0 || control || !extension_fits {
            return Err(MALFORMED);
        }
        let size = line[..digits].iter().try_fold(0u64, |sum, &digit| {
            let value = char::from(digit).to_digit(16).expect("invariant: counted as a hex digit");
            sum.checked_mul(16)?.checked_add(u64::from(value))
        });
        let size = size.filter(|&size| size <= i64::MAX as u64).ok_or(MALFORMED)?;
        self.body = self.body.saturating_add(size);
        if self.limits.body != 0 && self.body > self.limits.body {
            return Err(BODY_TOO_LARGE);
        }
        self.section = 0;
        self.state = if size == 0 { State::Trailers } else { State::Chunk { left: size } };
        Ok(())
    }

    fn chunk_end(&mut self, byte: u8, carriage_return: bool) -> Result<usize, Refusal> {
        self.state = match (byte, carriage_return) {
            (b'\r', false) => State::ChunkEnd { carriage_return: true },
            (b'\n', true) => State::ChunkLine,
            _ => return Err(Refusal::bad("chunk longer than announced")),
        };
        Ok(1)
    }

    fn trailer_line(&mut self, line: &[u8]) -> Result<(), Refusal> {
        if !line.is_empty() {
            return split_field(line).map(|_| ());
        }
        self.section = 0;
        self.state = State::Head;
        Ok(())
    }
}
