//! A response on its way from the application's thread to the connection's.

use std::collections::VecDeque;
use std::fs::File;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use appserver_plugin_abi as abi;
use bytes::Bytes;
use http::header::{self, HeaderName, HeaderValue};
use http::{HeaderMap, StatusCode};
use http_body::{Body, Frame, SizeHint};

use super::familiar;
use super::outlet::{Outlet, OutletBody, PIECE};
use crate::app::logvars::LogVars;
use crate::app::{BodyError, Response, ResponseBody};

/// Bodies up to this length are put together, for one write; longer ones stay in their pieces.
const TOGETHER: u64 = 64 * 1024;

/// Status and header fields.
pub(super) struct Head {
    pub(super) status: StatusCode,
    reason: Option<hyper::ext::ReasonPhrase>,
    fields: HeaderMap,
    /// The `Content-Length` among them.
    pub(super) length: Option<u64>,
}

/// A response that can go to another thread.
pub(super) struct Draft {
    pub(super) head: Head,
    pub(super) body: DraftBody,
    /// What the application adds to the log line of the request.
    pub(super) vars: Option<LogVars>,
}

pub(super) enum DraftBody {
    /// None may follow this head, whatever it says: the answer to HEAD, 204, 304.
    Forbidden,
    Full(Bytes),
    Pieces(VecDeque<Bytes>, u64),
    File {
        file: File,
        offset: u64,
        length: u64,
    },
    /// What the application has yet to make; with a length, if the head says one.
    Coming(Arc<Outlet>, Option<u64>),
}

impl DraftBody {
    /// `length` bytes in `pieces`.
    pub(super) fn of_pieces(mut pieces: VecDeque<Bytes>, length: u64) -> Self {
        if pieces.len() <= 1 {
            return DraftBody::Full(pieces.pop_front().unwrap_or_default());
        }
        if length > TOGETHER {
            return DraftBody::Pieces(pieces, length);
        }
        let mut whole = Vec::with_capacity(length as usize);
        pieces.iter().for_each(|piece| whole.extend_from_slice(piece));
        DraftBody::Full(whole.into())
    }
}

impl Draft {
    /// What the client gets when the application failed.
    pub(super) fn failure() -> Self {
        let mut fields = HeaderMap::new();
        fields.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain"));
        // As in uWSGI: who counts on nothing but the status may go on elsewhere.
        fields.insert(header::CONNECTION, HeaderValue::from_static("close"));
        let head = Head { status: StatusCode::INTERNAL_SERVER_ERROR, reason: None, fields, length: None };
        let body = DraftBody::Full(Bytes::from_static(b"Internal Server Error"));
        Draft { head, body, vars: None }
    }

    /// The response, on the thread of its connection.
    pub(super) fn into_response(self) -> Response {
        let body = match self.body {
            // hyper takes a length beside an empty body for a mistake, unless it does not know it is empty.
            DraftBody::Forbidden if self.head.length.is_some() && !self.head.has_body() => {
                ResponseBody::Produced(Box::pin(Nothing))
            }
            DraftBody::Forbidden | DraftBody::File { length: 0, .. } => ResponseBody::Empty,
            DraftBody::Full(body) if body.is_empty() => ResponseBody::Empty,
            DraftBody::Full(body) => ResponseBody::Full(body),
            DraftBody::Pieces(pieces, length) => {
                ResponseBody::Produced(Box::pin(PiecesBody { pieces, left: length }))
            }
            DraftBody::File { file, offset, length } => {
                ResponseBody::File { file: Arc::new(file), offset, length }
            }
            DraftBody::Coming(outlet, length) => {
                ResponseBody::Produced(Box::pin(OutletBody::new(outlet, length)))
            }
        };
        let mut response = Response::new(body);
        *response.status_mut() = self.head.status;
        *response.headers_mut() = self.head.fields;
        if let Some(reason) = self.head.reason {
            response.extensions_mut().insert(reason);
        }
        if let Some(vars) = self.vars {
            response.extensions_mut().insert(vars);
        }
        response
    }
}

impl Head {
    /// `None` when something of it is not valid in HTTP.
    pub(super) fn new(status: u16, reason: &[u8], fields: &[abi::Field]) -> Option<Self> {
        let status = StatusCode::from_u16(status).ok().filter(|status| !status.is_informational())?;
        let reason = match status.canonical_reason() {
            Some(usual) if usual.as_bytes() == reason => None,
            _ if reason.is_empty() => None,
            _ => Some(hyper::ext::ReasonPhrase::try_from(reason).ok()?),
        };
        // Two more are the server's, such as Date.
        let map = HeaderMap::try_with_capacity(fields.len() + 2).ok()?;
        let mut head = Head { status, reason, fields: map, length: None };
        for (index, field) in fields.iter().enumerate() {
            // SAFETY: the plugin keeps the texts alive for the call.
            let (name, value) = unsafe { (field.name.slice(), field.value.slice()) };
            let (name, value) = familiar::field(index, name, value)?;
            head.add(name, value)?;
        }
        if status == StatusCode::NO_CONTENT {
            // RFC 9110 §8.6 forbids it there.
            head.fields.remove(header::CONTENT_LENGTH);
            head.length = None;
        }
        Some(head)
    }

    fn add(&mut self, name: HeaderName, value: HeaderValue) -> Option<()> {
        match name {
            header::CONTENT_LENGTH => {
                let length = decimal(value.as_bytes())?;
                if self.length.replace(length).is_some_and(|other| other != length) {
                    return None;
                }
                // Nearly always it is written as it should be, without zeros in front or blanks around it.
                let text = value.as_bytes();
                let is_plain = text[0] != b'0' && text.iter().all(u8::is_ascii_digit);
                let value = if is_plain { value } else { HeaderValue::from(length) };
                self.fields.try_insert(name, value).ok()?;
            }
            // Of the connection, which is the server's (RFC 9110 §7.6.1; PEP 3333 forbids them).
            // The wish to close it is one it can grant.
            header::CONNECTION if value.as_bytes().eq_ignore_ascii_case(b"close") => {
                self.fields.try_insert(name, value).ok()?;
            }
            header::CONNECTION
            | header::TRANSFER_ENCODING
            | header::TE
            | header::TRAILER
            | header::UPGRADE => {}
            _ if name == "keep-alive" => {}
            _ => {
                self.fields.try_append(name, value).ok()?;
            }
        }
        Some(())
    }

    /// A body may follow it (RFC 9112 §6.3).
    pub(super) fn has_body(&self) -> bool {
        !matches!(self.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
    }
}

fn decimal(text: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(text.trim_ascii()).ok()?;
    // The parser would take a sign.
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

/// A body in pieces that are all there.
struct PiecesBody {
    pieces: VecDeque<Bytes>,
    left: u64,
}

impl Body for PiecesBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let Some(front) = self.pieces.front_mut() else { return Poll::Ready(None) };
        let piece = front.split_to(front.len().min(PIECE));
        if front.is_empty() {
            self.pieces.pop_front();
        }
        self.left -= piece.len() as u64;
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

/// A body of unknown length that has no bytes.
struct Nothing;

impl Body for Nothing {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        Poll::Ready(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(status: u16, reason: &str, fields: &[(&str, &str)]) -> Option<Head> {
        let bytes = |text: &&str| abi::Bytes::of(text.as_bytes());
        let fields: Vec<abi::Field> = fields
            .iter()
            .map(|(name, value)| abi::Field { name: bytes(name), value: bytes(value) })
            .collect();
        Head::new(status, reason.as_bytes(), &fields)
    }

    #[test]
    fn a_length_is_a_number_and_there_is_one() {
        assert_eq!(head(200, "", &[("Content-Length", "5")]).expect("valid").length, Some(5));
        assert_eq!(head(200, "", &[("a", "b")]).expect("valid").length, None);
        let twice = [("Content-Length", "5"), ("content-length", " 5 ")];
        let twice = head(200, "", &twice).expect("the same");
        assert_eq!(twice.fields.get_all(header::CONTENT_LENGTH).iter().count(), 1);
        for wrong in ["-1", "+5", "5, 5", "", "0x10", "99999999999999999999999"] {
            assert!(head(200, "", &[("Content-Length", wrong)]).is_none(), "{wrong}");
        }
        assert!(head(200, "", &[("Content-Length", "5"), ("Content-Length", "6")]).is_none());
        assert_eq!(head(204, "", &[("Content-Length", "5")]).expect("valid").fields.len(), 0);
    }

    #[test]
    fn what_would_break_the_message_is_refused() {
        for (name, value) in [("a b", "c"), ("", "c"), ("a:", "c"), ("a", "b\r\nc: d"), ("a", "b\0")] {
            assert!(head(200, "", &[(name, value)]).is_none(), "{name:?}: {value:?}");
        }
        assert!(head(200, "OK\r\na: b", &[]).is_none());
        for status in [0, 99, 100, 101, 199, 1000] {
            assert!(head(status, "", &[]).is_none(), "{status}");
        }
        let many = vec![("a", "b"); 40_000];
        assert!(head(200, "", &many).is_none());
    }

    #[test]
    fn fields_of_the_connection_are_the_servers() {
        let fields = [
            ("Connection", "keep-alive"),
            ("Keep-Alive", "timeout=5"),
            ("Transfer-Encoding", "chunked"),
            ("TE", "trailers"),
            ("Trailer", "x"),
            ("Upgrade", "h2c"),
            ("X-Kept", "1"),
        ];
        assert_eq!(head(200, "", &fields).expect("valid").fields.len(), 1);
        let close = head(200, "", &[("Connection", "Close")]).expect("valid");
        assert!(close.fields.contains_key(header::CONNECTION));
    }
}
