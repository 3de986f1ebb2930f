//! The lines of a request head, judged one at a time. Pure.
//!
//! Stricter than RFC 9112 asks of a server wherever leniency has led to request smuggling: a bare
//! CR or LF, folded lines, space before a colon, and every doubt about the length of the body.

use memchr::{memchr, memrchr};

use super::Refusal;

/// What the lines seen so far say about the message.
#[derive(Debug, Default)]
pub(super) struct Head {
    /// The request line has been accepted.
    pub(super) started: bool,
    http11: bool,
    host: bool,
    fields: usize,
    content_length: Option<u64>,
    transfer_encoding: Option<Result<(), Refusal>>,
    connection_close: bool,
    connection_keep_alive: bool,
}

/// How the body of a message is framed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Framing {
    /// This many bytes; zero when there is no body.
    Length(u64),
    /// Chunks up to the zero-sized one.
    Chunked,
}

/// Character classes of RFC 9110, one bit each.
const TOKEN: u8 = 1;
/// `uri-host [":" port]`, RFC 9110 §7.2; percent and sub-delims included, `@` and `/` not.
const HOST: u8 = 2;

const CLASS: [u8; 256] = {
    let mut table = [0u8; 256];
    let mut byte = 0usize;
    while byte < 256 {
        let b = byte as u8;
        let alnum = b.is_ascii_alphanumeric();
        if alnum || is_one_of(b, b"!#$%&'*+-.^_`|~") {
            table[byte] |= TOKEN;
        }
        if alnum || is_one_of(b, b"-._~!$&'()*+,;=:[]%") {
            table[byte] |= HOST;
        }
        byte += 1;
    }
    table
};

const fn is_one_of(byte: u8, set: &[u8]) -> bool {
    let mut at = 0;
    while at < set.len() {
        if set[at] == byte {
            return true;
        }
        at += 1;
    }
    false
}

fn all(bytes: &[u8], class: u8) -> bool {
    bytes.iter().all(|&byte| CLASS[usize::from(byte)] & class != 0)
}

/// Refuses control characters; `tab` says whether a tab is one. Written as a fold without early
/// exit so that the compiler turns it into vector instructions.
fn no_controls(bytes: &[u8], tab: bool) -> Result<(), Refusal> {
    let found = bytes.iter().fold(false, |found, &byte| found | is_control(byte, tab));
    if !found {
        return Ok(());
    }
    match bytes.iter().copied().find(|&byte| is_control(byte, tab)) {
        Some(b'\r') => Err(Refusal::bad("carriage return without line feed")),
        _ => Err(Refusal::bad("control character in the request head")),
    }
}

fn is_control(byte: u8, tab: bool) -> bool {
    (byte < 0x20 && (byte != b'\t' || !tab)) || byte == 0x7f
}

/// Removes the line ending, which must be CRLF.
pub(super) fn strip_line_ending(line: &[u8]) -> Result<&[u8], Refusal> {
    line.strip_suffix(b"\r\n").ok_or(Refusal::bad("line feed without carriage return"))
}

impl Head {
    /// The client will not send another request on this connection.
    pub(super) fn last_request(&self) -> bool {
        self.connection_close || !(self.http11 || self.connection_keep_alive)
    }

    /// Accepts `method SP target SP version`.
    pub(super) fn request_line(&mut self, line: &[u8]) -> Result<(), Refusal> {
        const SHAPE: Refusal = Refusal::bad("malformed request line");
        no_controls(line, false)?;
        let (method, rest) = split_token(line);
        let rest = match rest {
            [b' ', rest @ ..] if !method.is_empty() => rest,
            _ => return Err(if line.contains(&b' ') { Refusal::bad("malformed method") } else { SHAPE }),
        };
        let (target, version) = match rest.strip_suffix(b" HTTP/1.1") {
            Some(target) => (target, &b"HTTP/1.1"[..]),
            None => {
                let target_end = memrchr(b' ', rest).ok_or(SHAPE)?;
                (&rest[..target_end], &rest[target_end + 1..])
            }
        };
        if target.is_empty() || target.iter().fold(false, |found, &byte| found | (byte == b' ')) {
            return Err(SHAPE);
        }
        self.http11 = match version {
            b"HTTP/1.1" => true,
            b"HTTP/1.0" => false,
            [b'H', b'T', b'T', b'P', b'/', major, b'.', minor]
                if major.is_ascii_digit() && minor.is_ascii_digit() =>
            {
                return Err(Refusal::new(505, "this server speaks HTTP/1.1 and HTTP/1.0"));
            }
            _ => return Err(SHAPE),
        };
        if method == b"CONNECT" {
            return Err(Refusal::new(501, "this server is not a proxy"));
        }
        let origin = target[0] == b'/' || (target == b"*" && method == b"OPTIONS");
        if !origin && !is_absolute(target) {
            return Err(Refusal::bad("malformed request target"));
        }
        self.started = true;
        Ok(())
    }

    /// Accepts `name ":" value`.
    pub(super) fn field(&mut self, line: &[u8], limit: usize) -> Result<(), Refusal> {
        self.fields += 1;
        if self.fields > limit {
            return Err(Refusal::new(431, "too many header fields"));
        }
        let (name, value) = split_field(line)?;
        // Names are told apart by length first: most fields are none of these.
        match name.len() {
            4 if name.eq_ignore_ascii_case(b"host") => self.host(trim(value)),
            10 if name.eq_ignore_ascii_case(b"connection") => {
                for option in list(value) {
                    self.connection_close |= option.eq_ignore_ascii_case(b"close");
                    self.connection_keep_alive |= option.eq_ignore_ascii_case(b"keep-alive");
                }
                Ok(())
            }
            14 if name.eq_ignore_ascii_case(b"content-length") => self.content_length(trim(value)),
            17 if name.eq_ignore_ascii_case(b"transfer-encoding") => self.transfer_encoding(value),
            _ => Ok(()),
        }
    }

    fn host(&mut self, value: &[u8]) -> Result<(), Refusal> {
        if std::mem::replace(&mut self.host, true) {
            return Err(Refusal::bad("more than one Host field"));
        }
        let name_end = match value.first() {
            Some(b'[') => memchr(b']', value).map(|end| end + 1),
            _ => Some(value.iter().position(|&byte| byte == b':').unwrap_or(value.len())),
        };
        let valid = all(value, HOST)
            && name_end.is_some_and(|end| match &value[end..] {
                [] => true,
                [b':', port @ ..] => port.iter().all(u8::is_ascii_digit),
                _ => false,
            });
        if valid { Ok(()) } else { Err(Refusal::bad("malformed Host field")) }
    }

    fn content_length(&mut self, value: &[u8]) -> Result<(), Refusal> {
        // Even two equal values are refused: nobody honest sends them, and intermediaries differ.
        if self.content_length.is_some() {
            return Err(Refusal::bad("more than one Content-Length field"));
        }
        if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
            return Err(Refusal::bad("malformed Content-Length field"));
        }
        let length = value.iter().try_fold(0u64, |sum, digit| {
            sum.checked_mul(10)?.checked_add(u64::from(digit - b'0')).filter(|&sum| sum <= i64::MAX as u64)
        });
        self.content_length = Some(length.ok_or(Refusal::bad("Content-Length out of range"))?);
        Ok(())
    }

    /// Judged at the end of the head, where a conflict with Content-Length has precedence.
    fn transfer_encoding(&mut self, value: &[u8]) -> Result<(), Refusal> {
        if self.transfer_encoding.is_some() {
            return Err(Refusal::bad("more than one Transfer-Encoding field"));
        }
        let is_chunked = |coding: &[u8]| coding.eq_ignore_ascii_case(b"chunked");
        let codings = list(value).count();
        let chunked = list(value).filter(|coding| is_chunked(coding)).count();
        let last = list(value).last().is_some_and(is_chunked);
        self.transfer_encoding = Some(match (codings, chunked, last) {
            (1, 1, true) => Ok(()),
            (0, _, _) => Err(Refusal::bad("empty Transfer-Encoding field")),
            (_, 0, _) | (_, 1, true) => Err(Refusal::new(501, "transfer coding not implemented")),
            _ => Err(Refusal::bad("chunked must be the last transfer coding, and only once")),
        });
        Ok(())
    }

    /// Judges the whole head: how long is the body? `limit` is the largest body, zero for any.
    pub(super) fn framing(&self, limit: u64) -> Result<Framing, Refusal> {
        if self.http11 && !self.host {
            return Err(Refusal::bad("Host field missing"));
        }
        match (self.transfer_encoding, self.content_length) {
            (Some(_), Some(_)) => Err(Refusal::bad("both Transfer-Encoding and Content-Length")),
            (Some(_), None) if !self.http11 => Err(Refusal::bad("Transfer-Encoding in HTTP/1.0")),
            (Some(judgement), None) => judgement.map(|()| Framing::Chunked),
            (None, Some(length)) if limit != 0 && length > limit => Err(super::gate::BODY_TOO_LARGE),
            (None, length) => Ok(Framing::Length(length.unwrap_or(0))),
        }
    }
}

/// Splits a field line (also of a trailer) into name and raw value.
pub(super) fn split_field(line: &[u8]) -> Result<(&[u8], &[u8]), Refusal> {
    if matches!(line.first(), Some(b' ' | b'\t')) {
        return Err(Refusal::bad("folded header field"));
    }
    no_controls(line, true)?;
    match split_token(line) {
        (name, [b':', value @ ..]) if !name.is_empty() => Ok((name, value)),
        _ => Err(match memchr(b':', line) {
            None => Refusal::bad("header field without a colon"),
            Some(colon) if matches!(line[..colon].last(), Some(b' ' | b'\t')) => {
                Refusal::bad("space before the colon of a header field")
            }
            Some(_) => Refusal::bad("malformed header field name"),
        }),
    }
}

/// The longest token (RFC 9110 §5.6.2) at the beginning, and what follows it. Methods and names are
/// short: one pass over the bytes is faster than a vectorized search for their end.
fn split_token(bytes: &[u8]) -> (&[u8], &[u8]) {
    let end = bytes.iter().position(|&byte| CLASS[usize::from(byte)] & TOKEN == 0);
    bytes.split_at(end.unwrap_or(bytes.len()))
}

/// `scheme "://" rest`, RFC 9112 §3.2.2.
fn is_absolute(target: &[u8]) -> bool {
    let Some(colon) = memchr(b':', target) else { return false };
    let scheme = &target[..colon];
    scheme.first().is_some_and(u8::is_ascii_alphabetic)
        && scheme.iter().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(byte))
        && target[colon..].len() > 3
        && target[colon..].starts_with(b"://")
}

fn trim(value: &[u8]) -> &[u8] {
    // Only SP and HT are white space in a field; `trim_ascii` would take more, but the line
    // holds no other control character by now.
    value.trim_ascii()
}

/// The elements of a comma-separated list, empty ones skipped (RFC 9110 §5.6.1).
fn list(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|&byte| byte == b',').map(trim).filter(|element| !element.is_empty())
}
